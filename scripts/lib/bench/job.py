"""What a contender is asked to do: take these topics into this table."""

from dataclasses import dataclass, field

from bench.shapes import Shape


@dataclass
class Job:
    shape: Shape
    rows: int
    table: str
    # Never used before: every contender begins at the beginning.
    group: str
    topics: tuple = ()
    # One table a topic, for measuring routes; else all into `table`.
    tables: tuple = ()
    # Instead of Kafka: "jetstream" or "core".
    nats: str = ""
    # How long each row keeps ClickHouse waiting, in microseconds.
    sleep_us: int = 0
    # Further columns of the table, by what fills them.
    extra: dict = field(default_factory=dict)

    def table_of(self, index):
        return self.tables[index] if self.tables else self.table

    def all_tables(self):
        return self.tables or (self.table,)
