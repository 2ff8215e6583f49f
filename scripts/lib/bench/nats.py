"""The same over NATS. JetStream keeps a backlog, as Kafka does; core NATS keeps nothing, so there
the question is at which rate nothing is lost."""

import subprocess
import time
from dataclasses import dataclass

from bench import catchup
from bench.backlog import line
from bench.bridge import TUNED, Bridge
from bench.job import Job
from bench.problem import Problem
from bench.stand import clean_env

# JetStream takes some 50,000 acknowledged records a second, and keeps at most 4 GB of them.
JETSTREAM_ROWS_AT_MOST = 500_000
# Records per second; the last rate at which all arrived is told.
LADDER = (50_000, 100_000, 150_000, 200_000, 250_000, 300_000, 400_000, 500_000)
STEP_S = 5
READY_WITHIN_S = 60
# So long without a new row means that no more will come.
STILL_S = 6
LOOK_EVERY_S = 0.1
# Behind this share of the rate the generator is what was measured.
ON_TIME = 0.9


@dataclass
class Push:
    name: str
    # Of the highest rate without loss; 0: none.
    rate: int = 0
    bridge_cpu: float | None = None
    peak_mib: float | None = None
    # What was seen beyond it.
    beyond: str = ""


def jetstream(stand, floors, bridges, shape, found):
    rows, count = min(found.rows, JETSTREAM_ROWS_AT_MOST), found.rounds
    stand.fill_stream(shape.name, rows)
    expected = floors.reference(shape, rows)
    for turn in range(count):
        for contender in bridges:
            key = f"js_{contender.key}_{turn}"
            job = Job(shape, rows, f"t_{key}", key, nats="jetstream")
            if refused(stand, contender, job):
                continue
            result = catchup.measure(stand, contender, job, expected)
            stand.say(f"JetStream {turn + 1}/{count}  {contender.name:<50} {line(result)}")
            found.jetstream.append(result)


def refused(stand, contender, job):
    """Whether the bridge's configuration says that this does not exist."""
    path = contender.write_base(stand, job, 0, 0)
    argv = [stand.bridge, "config", f"--config={path}"]
    return subprocess.run(argv, capture_output=True, env=clean_env()).returncode != 0


def core(stand, shape, quick):
    for contender in (
        Bridge("core", "data-bridge, defaults"),
        Bridge("core_tuned", "data-bridge, tuned", layer=TUNED),
    ):
        push = Push(contender.name)
        for rate in LADDER[:1] if quick else LADDER:
            lost, cpu, peak, real = _step(stand, contender, shape, rate, 1 if quick else STEP_S)
            said = f"{contender.name}: {lost:,} lost, sent {real:,.0f}/s"
            stand.say(f"core NATS at {rate:,}/s  {said}")
            if lost:
                push.beyond = f"{lost:,} lost at {rate:,}/s"
                break
            if real < ON_TIME * rate:
                push.beyond = f"the generator gives {real:,.0f}/s"
                break
            push.rate, push.bridge_cpu, push.peak_mib = rate, cpu, peak
        yield push


def _step(stand, contender, shape, rate, seconds):
    """Records lost, CPU seconds per million, peak memory, and the rate that it came to."""
    rows = rate * seconds
    key = f"{contender.key}_{rate}"
    job = Job(shape, rows, f"t_{key}", key, nats="core")
    catchup.create_tables(stand, job)
    running = contender.start(stand, job)
    try:
        _wait_ready(running)
        arguments = [f"--nats={stand.nats}", f"--kinds={shape.name}={rows}", f"--rate={rate}"]
        sent = stand.generate(arguments)
        arrived = _wait_still(stand, running, job)
    finally:
        cpu, peak = running.stop()
        catchup.drop_tables(stand, job)
    return rows - arrived, cpu / rows * 1e6, peak, rows / sent["seconds"]


def _wait_ready(running):
    """Ready is not enough: without a subscription what is published is nobody's."""
    give_up_at = time.monotonic() + READY_WITHIN_S
    while not running.metrics().get("sources", {}).get("nats", {}).get("connected"):
        running.check()
        if time.monotonic() > give_up_at:
            raise Problem("the bridge has not come to NATS")
        time.sleep(LOOK_EVERY_S)


def _wait_still(stand, running, job):
    count, since = 0, time.monotonic()
    while count < job.rows and time.monotonic() - since < STILL_S:
        running.check()
        now = stand.clickhouse.number(f"SELECT count() FROM {job.table}")
        if now != count:
            count, since = now, time.monotonic()
        time.sleep(LOOK_EVERY_S)
    return count
