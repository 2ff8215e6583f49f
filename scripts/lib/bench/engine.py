"""ClickHouse's own Kafka engine as a contender: a queue table, and a view that empties it."""

from dataclasses import dataclass, field

from bench.problem import Problem

# Tried on the first shape before the rounds; the best one is measured. Blocks as large as ours,
# and smaller ones that leave the merges more; a thread a consumer, and all in one.
TRIALS = [
    {"kafka_num_consumers": 2, "kafka_thread_per_consumer": 1},
    {
        "kafka_num_consumers": 2,
        "kafka_thread_per_consumer": 1,
        "kafka_max_block_size": 200_000,
        "kafka_poll_max_batch_size": 65_536,
        "kafka_flush_interval_ms": 2_000,
    },
    {
        "kafka_num_consumers": 2,
        "kafka_thread_per_consumer": 1,
        "kafka_max_block_size": 1_048_576,
        "kafka_poll_max_batch_size": 262_144,
        "kafka_flush_interval_ms": 7_500,
    },
    {
        "kafka_num_consumers": 1,
        "kafka_thread_per_consumer": 0,
        "kafka_max_block_size": 524_288,
        "kafka_poll_max_batch_size": 131_072,
        "kafka_flush_interval_ms": 5_000,
    },
]


@dataclass
class Engine:
    key: str = "engine"
    name: str = "ClickHouse's Kafka engine"
    chosen: dict = field(default_factory=lambda: dict(TRIALS[1]))

    def fits(self, job):
        return not job.nats and not job.tables

    def start(self, stand, job):
        settings = {
            "kafka_broker_list": stand.kafka,
            "kafka_topic_list": ",".join(job.topics),
            "kafka_group_name": job.group,
            "kafka_format": "JSONEachRow",
            **self.chosen,
        }
        written = ", ".join(f"{key} = {_literal(value)}" for key, value in settings.items())
        queue, view = f"{job.table}_queue", f"{job.table}_view"
        # What the bridge calls @timestamp is a virtual column here.
        extra = "".join(f", {VIRTUAL[source]} AS {name}" for name, source in job.extra.items())
        ask = stand.clickhouse.ask
        ask(f"CREATE TABLE {queue} ({job.shape.wire()}) ENGINE = Kafka SETTINGS {written}")
        ask(
            f"CREATE MATERIALIZED VIEW {view} TO {job.table} AS "
            f"SELECT {job.shape.select()}{extra} FROM {queue}"
        )
        return Consuming(stand, queue, view)

    def settings(self):
        return "\n".join(f"{key} = {value}" for key, value in self.chosen.items())


VIRTUAL = {"@timestamp": "_timestamp_ms"}


class Consuming:
    """It works inside the server: there is no process of its own."""

    def __init__(self, stand, queue, view):
        self.stand, self.queue, self.view = stand, queue, view

    def check(self):
        pass

    def pauses(self):
        return 0

    def threads(self):
        return {}

    def explain(self):
        try:
            said = "SELECT toString(exceptions.text) FROM system.kafka_consumers"
            sql = f"{said} WHERE table = '{self.queue}'"
            return "\n".join(f"    | {row[0]}" for row in self.stand.clickhouse.rows(sql))
        except Problem as problem:
            return str(problem)

    def stop(self):
        """No more polls: they would be counted against it."""
        self.stand.clickhouse.ask(f"DROP TABLE {self.view} SYNC")
        self.stand.clickhouse.ask(f"DROP TABLE {self.queue} SYNC")
        return None, None


def _literal(value):
    return value if isinstance(value, int) else f"'{value}'"
