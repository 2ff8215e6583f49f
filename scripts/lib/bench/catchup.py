"""One contender catches up with a backlog, once.

It begins when the broker hands out records (joining a group takes seconds and says nothing about
speed). How fast it was is told when nine tenths of the rows can be read: whoever makes large
batches waits at the end of a backlog, with the last one, for more that does not come. It is over
when all rows can be read. ClickHouse's CPU is taken when the merges that the inserts caused are
done, and before the contender is stopped: dropping the tables of the Kafka engine takes seconds of
CPU that no row is to blame for. A bridge's is taken when it has ended. Nothing is subtracted.
"""

import time
from dataclasses import dataclass, field

from bench import accounts
from bench.problem import Problem

LOOK_EVERY_S = 0.01
# A look at the table costs the server up to three milliseconds: a slow contender is looked at less
# often, so that the looks are the same small share of what each costs, and its speed is as exact.
COUNT_EVERY_S = 0.15
COUNT_EVERY_SHARE = 0.03
# The answers to a group's requests are smaller together, the first fetch is larger.
FETCHED_BYTES = 64 * 1024
BEGINS_WITHIN_S = 60
# Slower than this is not worth waiting for.
ROWS_PER_S_AT_LEAST = 4_000
TOLD_AT = 0.9


@dataclass
class Result:
    key: str
    name: str
    shape: str
    rows: int
    rows_per_s: float = 0.0
    bridge_cpu_s: float | None = None
    clickhouse_cpu_s: float = 0.0
    broker_cpu_s: float = 0.0
    peak_mib: float | None = None
    rows_per_insert: float | None = None
    pauses: int = 0
    # CPU seconds of a bridge by the names of its threads.
    threads: dict = field(default_factory=dict)
    # Empty: every row is there, and is what it should be.
    trouble: str = ""

    @property
    def bridge(self):
        """CPU seconds per million rows, like the two after it."""
        return None if self.bridge_cpu_s is None else self.bridge_cpu_s / self.rows * 1e6

    @property
    def clickhouse(self):
        return self.clickhouse_cpu_s / self.rows * 1e6

    @property
    def broker(self):
        return self.broker_cpu_s / self.rows * 1e6

    @property
    def total(self):
        """What the user pays for moving a million rows: the bridge and ClickHouse."""
        return (self.bridge or 0.0) + self.clickhouse


def measure(stand, contender, job, expected):
    """`expected`: rows and checksum that the tables must have in the end."""
    result = Result(contender.key, contender.name, job.shape.name, job.rows)
    create_tables(stand, job)
    stand.clickhouse.wait_quiet()
    try:
        _run(stand, contender, job, result)
        result.trouble = compare(content(stand, job), expected)
    except Problem as problem:
        result.trouble = f"FAILED: {problem}"
    finally:
        drop_tables(stand, job)
    return result


def create_tables(stand, job):
    extra = "".join(f", {name} {EXTRA_TYPES[source]}" for name, source in job.extra.items())
    for table in job.all_tables():
        stand.clickhouse.ask(job.shape.create(table, extra))
        if job.sleep_us:
            stand.clickhouse.ask(
                f"CREATE MATERIALIZED VIEW {table}_slow ENGINE = Null AS "
                f"SELECT sleepEachRow({job.sleep_us / 1e6:.6f}) AS slept FROM {table}"
            )


EXTRA_TYPES = {"@timestamp": "DateTime64(3, 'UTC')"}


def drop_tables(stand, job):
    for table in job.all_tables():
        for name in (f"{table}_slow", table):
            stand.clickhouse.ask(f"DROP TABLE IF EXISTS {name} SYNC")


def content(stand, job):
    parts = " UNION ALL ".join(job.shape.checksum(table) for table in job.all_tables())
    rows = stand.clickhouse.rows(f"SELECT * FROM ({parts})")
    return sum(int(row[0]) for row in rows), sum(int(row[1]) for row in rows) % 2**64


def compare(found, expected):
    if found == expected:
        return ""
    if found[0] != expected[0]:
        return f"WRONG: {found[0]:,} rows, not {expected[0]:,}"
    return "WRONG: as many rows as there should be, but not the same ones"


def _run(stand, contender, job, result):
    broker = stand.nats_pid if job.nats else stand.kafka_pid
    server = stand.clickhouse
    blocks = server.event("MergeTreeDataWriterBlocks")
    server_cpu = accounts.cpu_seconds(stand.clickhouse_pid)
    broker_cpu = accounts.cpu_seconds(broker)
    written = accounts.written_bytes(broker)
    running = contender.start(stand, job)
    try:
        began = _wait_begin(running, broker, written)
        result.rows_per_s = _wait_rows(stand, running, job, began)
        result.broker_cpu_s = accounts.cpu_seconds(broker) - broker_cpu
        result.pauses = running.pauses()
        result.threads = running.threads()
        blocks = server.event("MergeTreeDataWriterBlocks") - blocks
        if not server.wait_quiet():
            raise Problem("the merges did not come to an end")
        result.clickhouse_cpu_s = accounts.cpu_seconds(stand.clickhouse_pid) - server_cpu
    except Problem as problem:
        raise Problem(f"{problem}\n{running.explain()}") from problem
    finally:
        result.bridge_cpu_s, result.peak_mib = running.stop()
    result.rows_per_insert = job.rows / max(blocks, 1)


def _wait_begin(running, broker, written):
    give_up_at = time.monotonic() + BEGINS_WITHIN_S
    while accounts.written_bytes(broker) - written < FETCHED_BYTES:
        running.check()
        if time.monotonic() > give_up_at:
            raise Problem(f"it took nothing within {BEGINS_WITHIN_S} s")
        time.sleep(LOOK_EVERY_S)
    return time.monotonic()


def _wait_rows(stand, running, job, began):
    """Rows per second."""
    told = None
    give_up_at = time.monotonic() + BEGINS_WITHIN_S + job.rows / ROWS_PER_S_AT_LEAST
    counts = " + ".join(f"(SELECT count() FROM {table})" for table in job.all_tables())
    while True:
        count = stand.clickhouse.number(f"SELECT {counts}")
        now = time.monotonic()
        if told is None and count >= TOLD_AT * job.rows:
            told = count / (now - began)
        if count >= job.rows:
            return told
        running.check()
        if now > give_up_at:
            raise Problem(f"{count:,} of {job.rows:,} rows came in time")
        time.sleep(max(COUNT_EVERY_S, COUNT_EVERY_SHARE * (now - began)))
