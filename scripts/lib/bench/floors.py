"""What no bridge can go below, measured in the same run: fetching alone, decoding alone, and
ClickHouse alone, with bodies that lie ready."""

import json
import subprocess
import time
from dataclasses import dataclass

from bench import accounts, catchup
from bench.job import Job
from bench.problem import Problem
from bench.stand import clean_env

RUN_WITHIN_S = 600
# As the bridge sends it: one block an insert, at once.
INSERT_SETTINGS = {
    "async_insert": 0,
    "max_insert_block_size": 10_000_000,
    "min_insert_block_size_rows": 0,
    "min_insert_block_size_bytes": 0,
    "max_insert_threads": 1,
}

# So that a body is one block, as the bridge's are, and one part.
ONE_BLOCK = {"max_threads": 1, "preferred_block_size_bytes": 0, "optimize_read_in_order": 0}


@dataclass
class Floor:
    key: str
    name: str
    shape: str
    rows: int
    cpu_s: float
    seconds: float
    trouble: str = ""

    @property
    def cpu(self):
        """CPU seconds per million rows."""
        return self.cpu_s / self.rows * 1e6

    @property
    def rows_per_s(self):
        return self.rows / self.seconds


class Floors:
    """Keeps a reference table for each shape, made from the generator's lines by ClickHouse's own
    JSON parser: no bridge had a hand in it."""

    def __init__(self, stand, rows_per_insert):
        self.stand = stand
        self.rows_per_insert = rows_per_insert
        self._references = {}

    def reference(self, shape, rows):
        """Rows and checksum of the first `rows` records."""
        known = self._references.get((shape.name, rows))
        if known is None:
            known = self._references[shape.name, rows] = self._make_reference(shape, rows)
        return known

    def measure(self, shape, rows):
        fetch = (self.stand.kafka, shape.topic, rows)
        decode = (shape.name, rows, self.rows_per_insert)
        yield self._program("consume", "librdkafka fetches, and throws away", shape, rows, fetch)
        name = "the bridge's decoder and encoder, one thread"
        yield self._program("decode", name, shape, rows, decode)
        for form in ("Native", "RowBinary"):
            yield self._insert(form.lower(), f"{form} bodies into ClickHouse", form, shape, rows)

    def bodies(self, shape, rows, per_insert, form="Native"):
        """Inserts that lie ready, in the order in which the records were sent."""
        table = self._reference_table(shape, rows)
        for first in range(0, rows, per_insert):
            sql = (
                f"SELECT {shape.names()} FROM {table} WHERE _seq >= {first} "
                f"AND _seq < {first + per_insert} ORDER BY _seq FORMAT {form}"
            )
            yield self.stand.clickhouse.ask_bytes(sql, max_block_size=per_insert, **ONE_BLOCK)

    def _reference_table(self, shape, rows):
        self.reference(shape, rows)
        return f"reference_{shape.name}_{rows}"

    def _make_reference(self, shape, rows):
        stand, table = self.stand, f"reference_{shape.name}_{rows}"
        columns = ", ".join(f"{name} {kind}" for name, kind in shape.columns)
        ask = stand.clickhouse.ask
        ask(f"CREATE TABLE {table} ({columns}) ENGINE = MergeTree ORDER BY _seq")
        argv = [stand.floors, "payloads", shape.name, str(rows)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, env=clean_env()) as lines:
            wire = shape.wire().replace("'", "\\'")
            source = f"SELECT {shape.select()} FROM input('{wire}')"
            sql = f"INSERT INTO {table} {source} FORMAT JSONEachRow"
            chunks = iter(lambda: lines.stdout.read(1 << 20), b"")
            ask(sql, chunks, chunked=True)
        job = Job(shape, rows, table, "")
        found = catchup.content(stand, job)
        if found[0] != rows:
            raise Problem(f"the reference of {shape.name} has {found[0]:,} rows, not {rows:,}")
        return found

    def _program(self, key, name, shape, rows, arguments):
        argv = [str(part) for part in (self.stand.floors, key, *arguments)]
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=RUN_WITHIN_S, env=clean_env()
        )
        if done.returncode != 0:
            raise Problem(f"{' '.join(argv)}: {done.stderr.strip()}")
        spent = json.loads(done.stdout)
        return Floor(key, name, shape.name, rows, spent["cpu_seconds"], spent["seconds"])

    def _insert(self, key, name, form, shape, rows):
        stand, expected = self.stand, self.reference(shape, rows)
        bodies = list(self.bodies(shape, rows, self.rows_per_insert, form))
        job = Job(shape, rows, f"floor_{key}", "")
        catchup.create_tables(stand, job)
        try:
            stand.clickhouse.wait_quiet()
            blocks = stand.clickhouse.event("MergeTreeDataWriterBlocks")
            cpu = accounts.cpu_seconds(stand.clickhouse_pid)
            began = time.monotonic()
            for body in bodies:
                sql = f"INSERT INTO {job.table} ({shape.names()}) FORMAT {form}"
                stand.clickhouse.ask(sql, body, **INSERT_SETTINGS)
            seconds = time.monotonic() - began
            stand.clickhouse.wait_quiet()
            cpu = accounts.cpu_seconds(stand.clickhouse_pid) - cpu
            trouble = catchup.compare(catchup.content(stand, job), expected)
            blocks = stand.clickhouse.event("MergeTreeDataWriterBlocks") - blocks
            if blocks != len(bodies):
                trouble = trouble or f"WRONG: {len(bodies)} bodies became {blocks} parts"
        finally:
            catchup.drop_tables(stand, job)
        return Floor(key, name, shape.name, rows, cpu, seconds, trouble)
