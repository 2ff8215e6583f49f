"""What is measured: four shapes of records, each with its table. benches/shapes.json says which."""

import json
import re
from pathlib import Path

FILE = Path(__file__).resolve().parents[3] / "benches" / "shapes.json"


class Shape:
    def __init__(self, name, written):
        self.name = name
        self.topic = f"bench.{name}"
        self.title = written["title"]
        self.columns = [tuple(column) for column in written["columns"]]
        self.paths = written.get("from", {})
        self._order_by = written["order_by"]

    @property
    def nested(self):
        """Whether the payload's keys are not the columns: then it cannot be passed through."""
        return bool(self.paths)

    def create(self, table, extra=""):
        """The table, the same for each contender. It remembers inserts, as exactly once needs."""
        columns = ", ".join(f"{name} {kind}" for name, kind in self.columns)
        return (
            f"CREATE TABLE {table} ({columns}{extra}) ENGINE = MergeTree ORDER BY "
            f"({self._order_by}) SETTINGS non_replicated_deduplication_window = 10000"
        )

    def checksum(self, table):
        """Rows, and a sum over their content that does not depend on their order."""
        values = ", ".join(_hashable(name, kind) for name, kind in self.columns)
        return f"SELECT count(), sum(cityHash64({values})) FROM {table}"

    def wire(self):
        """The payload as ClickHouse reads it from JSON: nested objects are tuples. Texts are plain
        and become what the table has later: its Kafka engine reads each message into columns of
        their own, and a dictionary for each row costs more than all the rest."""
        tree = {}
        for name, kind in self.columns:
            *parents, leaf = self.paths.get(name, name).split(".")
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = kind.replace("LowCardinality(String)", "String")
        return ", ".join(f"{name} {_tuple(node)}" for name, node in tree.items())

    def select(self):
        """From the wire's columns to the table's."""
        return ", ".join(f"{self.paths.get(name, name)} AS {name}" for name, _ in self.columns)

    def names(self):
        return ", ".join(name for name, _ in self.columns)


def _tuple(node):
    if isinstance(node, str):
        return node
    return "Tuple(" + ", ".join(f"{name} {_tuple(inner)}" for name, inner in node.items()) + ")"


def _hashable(name, kind):
    """Floats by their five digits: ClickHouse's JSON parser may be off by one bit."""
    if re.fullmatch(r"Map\(String, Float64\)", kind):
        return f"mapKeys({name}), arrayMap(v -> toInt64(round(v * 100000)), mapValues({name}))"
    return name


def read():
    return {name: Shape(name, written) for name, written in json.loads(FILE.read_text()).items()}
