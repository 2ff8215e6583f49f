"""The live feed under load: how much it publishes and delivers, how old messages are when they
come, and what it costs the path into ClickHouse.

The load generator (`floors live`) runs beside the bridge, on the same cores. Each tier is first
driven as fast as it answers, which is its saturation; then at a share of that, where nothing may be
lost. A message that its publisher sent late counts as old from the moment when it was due.
"""

import json
import subprocess
import time
import urllib.request
from dataclasses import dataclass, field

from bench import accounts, catchup
from bench.bridge import Bridge
from bench.job import Job
from bench.problem import Problem
from bench.stand import clean_env

# Name: topics, publishers, subscribers.
TIERS = {
    "light": (5, 10, 20),
    "medium": (10, 20, 50),
    "heavy": (20, 50, 100),
    "extreme": (50, 100, 200),
}
# Of what a tier can publish at most; latency is measured there.
SHARES = (0.25, 0.5, 0.75)
SECONDS = 10
LISTENING_WITHIN_S = 30
# The generator is one program on one address, that publishes without a pause.
OPEN = """\
[live]
message_rate = 1_000_000
max_connections_per_address = 1_000
"""
OFF = "[live]\nenabled = false\n"
WATCHERS = 100


@dataclass
class Run:
    """One load; `rate` is what was asked for, in published messages a second, 0 for all."""

    tier: str
    rate: int = 0
    share: float | None = None
    said: dict = field(default_factory=dict)
    # CPU seconds of the bridge a second.
    cpu: float = 0.0
    trouble: str = ""

    @property
    def name(self):
        return f"live, {self.tier}" + (f", {self.share:.0%} of saturation" if self.share else "")

    @property
    def delivered_share(self):
        expected = self.said.get("expected", 0)
        return self.said.get("delivered", 0) / expected if expected else None

    @property
    def refused_share(self):
        asked = self.said.get("published", 0) + self.said.get("refused", 0)
        return self.said.get("refused", 0) / asked if asked else None


def measure(stand, shape, seconds):
    """The runs of all tiers, as they come."""
    job = Job(shape, 1, "t_live", "bench-live", ("live.idle",))
    stand.fill(shape.name, 18, topics=job.topics)
    catchup.create_tables(stand, job)
    try:
        for tier in TIERS:
            saturation = _measure_one(stand, job, Run(tier), seconds)
            yield saturation
            most = saturation.said.get("published_per_s", 0)
            for share in SHARES if not saturation.trouble else ():
                yield _measure_one(stand, job, Run(tier, int(most * share), share), seconds)
    finally:
        catchup.drop_tables(stand, job)


def _measure_one(stand, job, run, seconds):
    topics, publishers, subscribers = TIERS[run.tier]
    running = Bridge("live", "data-bridge", more=OPEN).start(stand, job)
    try:
        _wait(running)
        for n in range(topics):
            _create(running, f"bench.{n}")
        pid = running.children[0].pid
        cpu, began = accounts.cpu_seconds(pid), time.monotonic()
        load = [topics, publishers, subscribers, run.rate, seconds]
        run.said = _floors(stand, ["live", _address(running), *load], seconds + 60)
        run.cpu = (accounts.cpu_seconds(pid) - cpu) / (time.monotonic() - began)
    except Problem as problem:
        run.trouble = f"FAILED: {problem}\n{running.explain()}"
    finally:
        running.stop()
    return run


def _address(running):
    return running.http.removeprefix("http://")


def _wait(running):
    give_up_at = time.monotonic() + LISTENING_WITHIN_S
    while not running.metrics():
        running.check()
        if time.monotonic() > give_up_at:
            raise Problem(f"it does not listen after {LISTENING_WITHIN_S} s")
        time.sleep(0.05)


def _create(running, name):
    body = json.dumps({"name": name}).encode()
    with urllib.request.urlopen(f"{running.http}/topics", data=body, timeout=10) as answer:
        answer.read()


def _floors(stand, arguments, within_s):
    argv = [str(part) for part in (stand.floors, *arguments)]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, env=clean_env(), timeout=within_s
        )
    except subprocess.TimeoutExpired as late:
        raise Problem(f"{' '.join(argv)}: not within {within_s} s") from late
    if done.returncode != 0:
        raise Problem(f"{' '.join(argv)}: {done.stderr.strip()}")
    return json.loads(done.stdout)


@dataclass
class Watched(Bridge):
    """A bridge with so many subscribers on its route's topic, which read as fast as they can."""

    watchers: int = 0

    def start(self, stand, job):
        running = super().start(stand, job)
        if self.watchers:
            _wait(running)
            arguments = ["watch", _address(running), "bench_0", self.watchers]
            watching = stand.spawn([stand.floors, *arguments], f"{job.group}-watch.log")
            give_up_at = time.monotonic() + LISTENING_WITHIN_S
            while "subscribers" not in watching.log.read_text():
                running.check()
                if time.monotonic() > give_up_at or not watching.alive():
                    raise Problem(f"the subscribers did not come\n{watching.tail()}")
                time.sleep(0.02)
            running.beside = watching
        return running


def beside(stand, floors, shape, rows, rounds):
    """The same backlog with the feed off, with nobody listening, and with a hundred who do; one
    after the other, `rounds` times."""
    stand.fill(shape.name, rows)
    expected = floors.reference(shape, rows)
    contenders = [
        Watched("live_off", "live feed off", more=OFF),
        Watched("live_none", "nobody listens (the default)"),
        Watched("live_many", f"{WATCHERS} subscribers", more=OPEN, watchers=WATCHERS),
    ]
    for number in range(rounds):
        for one in contenders:
            group = f"bench-{one.key}-{number}"
            job = Job(shape, rows, f"t_{one.key}", group, (f"bench.{shape.name}",))
            yield catchup.measure(stand, one, job, expected)
