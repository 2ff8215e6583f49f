"""How old a record is when it can be read, at a steady rate.

Its age begins with the producer's timestamp, which it carries into the table, and ends when a look
at the table finds the part that it is in: later than it was there by as long as a look takes, and
one clock for both. Merges are stopped meanwhile: a merged part would not tell when its rows came.
"""

import subprocess
import time
from dataclasses import dataclass

from bench import catchup
from bench.bridge import TUNED, Bridge
from bench.engine import Engine
from bench.job import Job
from bench.problem import Problem
from bench.stand import clean_env

RATE = 20_000
# Joining, warming up.
SKIPPED_S = 3
LOOK_EVERY_S = 0.02
# The parts of inserts that are under way side by side come in another order than their numbers.
LATE_BLOCKS = 64
JOINED_WITHIN_S = 60
LANDED_WITHIN_S = 60
LINGER = '[writers.default]\nlinger = "200ms"\n'


@dataclass
class Latency:
    name: str
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0
    rate: float = 0.0
    trouble: str = ""


def contenders():
    quick_engine = Engine(name="ClickHouse's Kafka engine, flushed every 200 ms")
    quick_engine.chosen |= {"kafka_flush_interval_ms": 200, "kafka_poll_timeout_ms": 50}
    exact = "data-bridge, exactly once, linger 200 ms"
    return [
        Bridge("latency", "data-bridge, linger 200 ms", more=LINGER),
        Bridge("latency_exact", exact, delivery="exactly_once", more=LINGER),
        Bridge("latency_tuned", "data-bridge, tuned, linger 200 ms", layer=TUNED, more=LINGER),
        quick_engine,
    ]


def measure(stand, contender, shape, seconds):
    rows = RATE * seconds
    topic = f"latency.{contender.key}"
    table, extra = f"t_{contender.key}", {"_timestamp": "@timestamp"}
    job = Job(shape, rows, table, f"bench-{topic}", (topic,), extra=extra)
    latency = Latency(contender.name)
    catchup.create_tables(stand, job)
    stand.clickhouse.ask(f"SYSTEM STOP MERGES {job.table}")
    try:
        _run(stand, contender, job, seconds, latency)
    except Problem as problem:
        latency.trouble = f"FAILED: {problem}"
    finally:
        catchup.drop_tables(stand, job)
    return latency


def _run(stand, contender, job, seconds, latency):
    # One record for each partition: whoever has them has joined.
    first = 18
    stand.fill(job.shape.name, first, topics=job.topics)
    running = contender.start(stand, job)
    try:
        _wait(stand, running, job, first, JOINED_WITHIN_S)
        began_ms = time.time_ns() // 1_000_000
        seen = _watch(stand, running, job, first)
        latency.rate = seen.pop("rate")
        _quantiles(stand, job, seen, began_ms + 1_000 * min(SKIPPED_S, seconds // 2), latency)
    except Problem as problem:
        raise Problem(f"{problem}\n{running.explain()}") from problem
    finally:
        running.stop()


def _wait(stand, running, job, rows, within_s):
    give_up_at = time.monotonic() + within_s
    while stand.clickhouse.number(f"SELECT count() FROM {job.table}") < rows:
        running.check()
        if time.monotonic() > give_up_at:
            raise Problem(f"not {rows:,} rows within {within_s} s")
        time.sleep(LOOK_EVERY_S)


def _watch(stand, running, job, first):
    """When each part was first seen, in Unix milliseconds; and at which rate records were sent."""
    argv = [stand.bridge, "generate", "--quiet", f"--kafka={stand.kafka}", f"--rate={RATE}"]
    argv += [f"--kinds={job.shape.name}={job.rows}", f"--topics={job.topics[0]}"]
    argv += [f"--seq-start={first}"]
    seen, newest, rows = {}, 0, 0
    began = time.monotonic()
    give_up_at = began + job.rows / RATE + LANDED_WITHIN_S
    sending = subprocess.Popen(argv, cwd=stand.place, env=clean_env(), stdout=subprocess.DEVNULL)
    rate = 0.0
    try:
        while rows < job.rows + first:
            if not rate and sending.poll() is not None:
                rate = job.rows / (time.monotonic() - began)
            found = stand.clickhouse.rows(
                "SELECT name, max_block_number, rows FROM system.parts WHERE active "
                f"AND database = currentDatabase() AND table = '{job.table}' "
                f"AND max_block_number > {newest - LATE_BLOCKS}"
            )
            now_ms = time.time_ns() // 1_000_000
            for name, block, count in found:
                if name not in seen:
                    seen[name], rows = now_ms, rows + int(count)
                    newest = max(newest, int(block))
            running.check()
            if time.monotonic() > give_up_at:
                raise Problem(f"{rows:,} of {job.rows + first:,} rows came in time")
            time.sleep(LOOK_EVERY_S)
        sending.wait(LANDED_WITHIN_S)
    finally:
        sending.kill()
        sending.wait()
    return {**seen, "rate": rate or job.rows / (time.monotonic() - began)}


def _quantiles(stand, job, seen, from_ms, latency):
    names = ", ".join(f"'{name}'" for name in seen)
    times = ", ".join(str(ms) for ms in seen.values())
    sent = "toUnixTimestamp64Milli(_timestamp)"
    age = f"transform(_part, [{names}], [{times}], 0) - {sent}"
    sql = f"SELECT quantilesExact(0.5, 0.99, 1)({age}) FROM {job.table} WHERE {sent} >= {from_ms}"
    latency.p50_ms, latency.p99_ms, latency.max_ms = stand.clickhouse.rows(sql)[0][0]
