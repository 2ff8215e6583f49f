"""The report, in Markdown that reads as text too."""

from dataclasses import dataclass, field

from bench.stats import median, number


@dataclass
class Findings:
    rows: int
    rounds: int
    versions: dict = field(default_factory=dict)
    idle: float = 0.0
    contenders: list = field(default_factory=list)
    trials: list = field(default_factory=list)
    results: list = field(default_factory=list)
    floors: list = field(default_factory=list)

    def troubles(self):
        return [one for one in [*self.results, *self.floors] if one.trouble]


def text(found):
    parts = [f"ClickHouse idle: {found.idle:.3f} CPU s a second"]
    for shape in dict.fromkeys(one.shape for one in found.results):
        rows = [["contender", "rows/s", "bridge", "ClickHouse", "broker", "bridge + ClickHouse", "MiB", "rows an insert"]]
        for key in dict.fromkeys(one.key for one in found.results if one.shape == shape):
            mine = [one for one in found.results if (one.shape, one.key) == (shape, key)]
            good = [one for one in mine if not one.trouble]
            def mid(what, digits=2):
                return number(median([getattr(one, what) for one in good]), digits)
            rows.append([mine[0].name, mid("rows_per_s", 0), mid("bridge"), mid("clickhouse"), mid("broker"), mid("total"), mid("peak_mib", 0), mid("rows_per_insert", 0)])
        parts += [f"## {shape}", table(rows)]
    return "\n\n".join(parts)


def table(rows):
    """Columns aligned, so that it can be read where nothing renders it."""
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    def line(row):
        cells = [str(row[0]).ljust(widths[0]), *(str(c).rjust(w) for c, w in zip(row[1:], widths[1:]))]
        return "| " + " | ".join(cells) + " |"
    rule = "| " + " | ".join(["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]) + " |"
    return "\n".join([line(rows[0]), rule, *map(line, rows[1:])])
