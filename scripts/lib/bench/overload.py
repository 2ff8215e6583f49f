"""A ClickHouse that takes less than comes: what of its own limit is left beside a bridge that
holds back.

The table has a view that sleeps a while for each row, so the limit is the same at every moment and
none of it is the machine's. What ClickHouse takes then is measured with bodies that lie ready, as
many at a time as the bridge has under way.
"""

import threading
import time
from dataclasses import dataclass

from bench import catchup
from bench.bridge import Bridge
from bench.floors import INSERT_SETTINGS
from bench.job import Job
from bench.problem import Problem

# Each row of an insert: 10,000 rows take a quarter of a second, two inserts 80,000 rows a second.
SLEEP_US = 25
IN_FLIGHT = 2
PER_INSERT = 10_000
# Ten seconds of it.
ROWS_AT_MOST = 800_000
# Then Kafka fills the buffer to its cap, and the rule for pushed sources pauses and resumes it.
LITERAL = "[backpressure]\npull_limit = 50_000\n"


@dataclass
class Overload:
    name: str
    rows_per_s: float = 0.0
    of_limit: float = 0.0
    pauses: int = 0
    trouble: str = ""


def measure(stand, floors, shape, rows):
    rows = min(rows, ROWS_AT_MOST)
    topic = f"overload.{shape.name}"
    stand.fill(shape.name, rows, topics=[topic])
    expected = floors.reference(shape, rows)
    limit = _limit(stand, floors, shape, rows)
    yield Overload("ClickHouse alone, two inserts at a time", limit, 1.0)
    for contender in (
        Bridge("over", "data-bridge, defaults: Kafka by credits"),
        Bridge("over_rule", "data-bridge, pull_limit at the cap: paused and resumed", more=LITERAL),
    ):
        job = _job(shape, rows, contender.key, topic)
        result = catchup.measure(stand, contender, job, expected)
        found = Overload(contender.name, trouble=result.trouble)
        if not result.trouble:
            found.rows_per_s = result.rows_per_s
            found.of_limit = result.rows_per_s / limit
            found.pauses = result.pauses
        yield found


def _job(shape, rows, key, topic):
    return Job(shape, rows, f"t_{key}", f"bench-{key}", (topic,), sleep_us=SLEEP_US)


def _limit(stand, floors, shape, rows):
    job = _job(shape, rows, "limit", "")
    bodies = list(floors.bodies(shape, rows, PER_INSERT))
    catchup.create_tables(stand, job)
    failures = []

    def insert(mine):
        server = stand.clickhouse.another()
        sql = f"INSERT INTO {job.table} ({shape.names()}) FORMAT Native"
        try:
            for body in mine:
                server.ask(sql, body, **INSERT_SETTINGS)
        except Problem as problem:
            failures.append(problem)

    shares = [bodies[first::IN_FLIGHT] for first in range(IN_FLIGHT)]
    workers = [threading.Thread(target=insert, args=(share,)) for share in shares]
    began = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.monotonic() - began
    catchup.drop_tables(stand, job)
    if failures:
        raise failures[0]
    return rows / seconds
