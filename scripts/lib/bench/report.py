"""The report, in Markdown that reads as text too: what was found, and nothing that was not."""

from dataclasses import dataclass, field

from bench import reasons, targets
from bench.stats import median, number, ratio, spread

INTRODUCTION = """\
# {title}

Written by `scripts/bench`. Everything ran on one machine, side by side, so the servers took their
share of the cores: compare within this page, not with other machines.

CPU is in seconds per million rows, user and system, from the operating system's accounts of each
process. ClickHouse's includes the merges that the inserts caused; nothing is subtracted. Rows/s is
told when nine tenths of a backlog can be read: whoever makes large batches waits at its end for more
that does not come. Each table was compared with one that ClickHouse made from the generator's
lines: as many rows, the same content. Figures are medians of {rounds}; "spread" is how far the
rounds lie apart."""

# With fewer, a second of lingering at the end is what is measured.
ROWS_AT_LEAST = 1_000_000
FEW = """\
**So few rows measure the start and the end, not the speed: this says only that all of it works.**"""

# What figures are compared with.
YARDSTICK = "tuned"


@dataclass
class Failure:
    """A section that did not come to its end."""

    name: str
    trouble: str


@dataclass
class Findings:
    rows: int
    rounds: int
    machine: dict = field(default_factory=dict)
    versions: dict = field(default_factory=dict)
    # ClickHouse's, while nobody asks anything: CPU seconds a second.
    idle: float = 0.0
    contenders: list = field(default_factory=list)
    trials: list = field(default_factory=list)
    titles: dict = field(default_factory=dict)
    results: list = field(default_factory=list)
    floors: list = field(default_factory=list)
    latencies: list = field(default_factory=list)
    overloads: list = field(default_factory=list)
    jetstream: list = field(default_factory=list)
    pushes: list = field(default_factory=list)
    compression: list = field(default_factory=list)
    scaling: list = field(default_factory=list)
    live: list = field(default_factory=list)
    beside_live: list = field(default_factory=list)
    failures: list = field(default_factory=list)

    def troubles(self):
        scaled = [one for _, _, one in self.scaling] + [one for _, one in self.compression]
        measured = [*self.results, *self.floors, *self.latencies, *self.overloads]
        measured += [*self.jetstream, *scaled, *self.live, *self.beside_live]
        return [one for one in measured if one.trouble] + self.failures


def text(found):
    rounds = f"{found.rounds} rounds" if found.rounds > 1 else "one round"
    title = "Benchmarks" if found.results else "Benchmarks of the live feed"
    parts = [INTRODUCTION.format(title=title, rounds=rounds), _facts(found)]
    if found.rows < ROWS_AT_LEAST:
        parts.append(FEW)
    if found.results:
        parts += ["## Targets", *_targets(found)]
    for shape in dict.fromkeys(one.shape for one in found.results):
        parts += [f"## {found.titles.get(shape, shape)}", *_backlog(found, shape)]
    parts += _flow(found) + _nats(found) + _compression(found) + _scaling(found) + _live(found)
    parts += _settings(found) + _troubles(found)
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(found):
    facts = {**found.machine, **found.versions}
    facts["rows"] = f"{found.rows:,} of each shape"
    facts["ClickHouse idle"] = f"{found.idle:.3f} CPU seconds a second"
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def _targets(found):
    shape = found.results[0].shape
    rows = [["target", "wanted", "measured", ""]]
    for one in targets.judge(found, shape):
        wanted = f"{'≤' if one.at_most else '≥'} {one.wanted:g}"
        rows.append([f"{one.number}. {one.sentence}", wanted, number(one.measured), one.verdict])
    yield table(rows)
    yield f"On {found.titles.get(shape, shape)}; where none is named, by the bridge as tuned."
    yield "\n".join(f"- {reason}" for reason in reasons.all_of(found, shape))


def _backlog(found, shape):
    mine = [one for one in found.results if one.shape == shape]
    yield _results(mine)
    rows = [["floor", "rows/s", "CPU"]]
    for key in dict.fromkeys(one.key for one in found.floors if one.shape == shape):
        same = [one for one in found.floors if (one.shape, one.key) == (shape, key)]
        good = [one for one in same if not one.trouble]
        speed, cpu = _median(good, "rows_per_s"), _median(good, "cpu")
        rows.append([same[0].name, number(speed, 0), number(cpu)])
    if len(rows) > 1:
        yield table(rows)
    yield _threads([one for one in mine if one.threads and not one.trouble])


# What the threads do, by how their names begin.
WORK = {
    "rdk:": "librdkafka: fetches and unpacks",
    "kafka-poll": "takes records out of librdkafka's queue, copies them into chunks",
    "tokio": "decodes, encodes, sends",
    "data-bridge": "the owner: admits, holds, settles",
}


def _threads(results):
    """Where the bridges' CPU goes: seconds per million rows, medians, until the last row can be read."""
    names = list(dict.fromkeys(one.name for one in results))
    rows = [["CPU by thread", *names]]
    for start, work in WORK.items():
        cells = []
        for name in names:
            mine = [one for one in results if one.name == name]
            used = [_of_threads(one, start) for one in mine]
            cells.append(number(median(used)))
        rows.append([work, *cells])
    return table(rows) if names else ""


def _of_threads(one, start):
    cpu = sum(cpu for name, cpu in one.threads.items() if name.startswith(start))
    return cpu / one.rows * 1e6


HEADINGS = ["", "rows/s", "bridge", "ClickHouse", "broker", "bridge + ClickHouse", "spread"]
HEADINGS += ["CPU ×", "speed ×", "MiB", "rows an insert"]


def _results(results, label=lambda one: one.name, yardstick=YARDSTICK):
    """A line a contender; its CPU and speed also as shares of the yardstick's."""
    good = [one for one in results if not one.trouble]
    first = [one for one in good if one.key == yardstick]
    yard = {what: _median(first, what) for what in ("total", "rows_per_s")}
    rows = [HEADINGS]
    for name in dict.fromkeys(label(one) for one in results):
        mine = [one for one in good if label(one) == name]
        if not mine:
            why = next(one.trouble for one in results if label(one) == name).splitlines()[0]
            rows.append([f"{name}: {why}", *["-"] * (len(HEADINGS) - 1)])
            continue
        total, speed = _median(mine, "total"), _median(mine, "rows_per_s")
        totals = [one.total for one in mine]
        rows.append([
            name,
            number(speed, 0),
            *(number(_median(mine, what)) for what in ("bridge", "clickhouse", "broker")),
            number(total),
            f"{100 * (spread(totals) or 0):.0f} %",
            number(ratio(total, yard["total"])),
            number(ratio(speed, yard["rows_per_s"])),
            *(number(_median(mine, what), 0) for what in ("peak_mib", "rows_per_insert")),
        ])
    return table(rows)


def _median(results, what):
    return median([getattr(one, what) for one in results])


def _flow(found):
    parts = []
    if found.latencies:
        rows = [["at a steady 20,000/s", "p50 ms", "p99 ms", "max ms", "sent/s"]]
        for one in found.latencies:
            cells = [number(value, 0) for value in (one.p50_ms, one.p99_ms, one.max_ms, one.rate)]
            rows.append([one.name, *(cells if not one.trouble else ["-"] * 4)])
        parts += ["## Age of a record when it can be read", table(rows)]
    if found.overloads:
        rows = [["ClickHouse that takes less than comes", "rows/s", "of its limit", "pauses"]]
        for one in found.overloads:
            cells = [number(one.rows_per_s, 0), number(one.of_limit), one.pauses]
            rows.append([one.name, *(cells if not one.trouble else ["-"] * 3)])
        parts += ["## Overload", table(rows)]
    return parts


def _nats(found):
    parts = []
    if found.jetstream:
        title = f"## JetStream: a backlog of {found.jetstream[0].rows:,} rows"
        parts += [title, _results(found.jetstream)]
    if found.pushes:
        rows = [["core NATS", "rows/s without loss", "bridge CPU", "MiB", "beyond it"]]
        for one in found.pushes:
            cells = [number(one.rate, 0), number(one.bridge_cpu), number(one.peak_mib, 0)]
            rows.append([one.name, *cells, one.beyond or "-"])
        parts += ["## Core NATS", table(rows)]
    return parts


def _compression(found):
    if not found.compression:
        return []
    rows = found.compression[0][1].rows
    said = f"What is sent to ClickHouse, of {rows:,} rows, as tuned."
    return ["## Compression", said, _labelled(found.compression)]


def _scaling(found):
    if not found.scaling:
        return []
    return ["## Scaling", _labelled([(label, one) for _, label, one in found.scaling])]


def _labelled(results):
    labels = {id(one): label for label, one in results}
    return _results([one for _, one in results], lambda one: labels[id(one)])


LIVE = """\
A message is published once, and delivered to each subscriber of its topic; latency is from the
moment when it was due to the moment when its subscriber has read it. Each message is acknowledged to
its publisher. The load generator runs on the same cores: "CPU" is the bridge's, in cores."""
LIVE_WANTED = """\
Wanted of medium: 10 times 8,000-10,000 messages/s, and below saturation P50 ≤ 15 ms, P95 ≤ 45 ms,
P99 ≤ 80 ms, all delivered."""


def _live(found):
    parts = []
    if found.live:
        rows = [LIVE_HEADINGS]
        for one in found.live:
            share = f"{one.share:.0%} of it" if one.share else "saturated"
            if one.trouble:
                rows.append([one.tier, share, *["-"] * (len(LIVE_HEADINGS) - 2)])
                continue
            said = one.said
            rows.append([
                one.tier,
                share,
                *(number(said[what], 0) for what in ("published_per_s", "delivered_per_s")),
                *(number(said[what], 1) for what in ("p50_ms", "p95_ms", "p99_ms")),
                *(_per_cent(share) for share in (one.delivered_share, one.refused_share)),
                number(one.cpu),
            ])
        parts += ["## The live feed", LIVE, table(rows), LIVE_WANTED]
    if found.beside_live:
        parts += [f"A backlog of {found.beside_live[0].rows:,} rows into ClickHouse beside it:"]
        parts.append(_results(found.beside_live, yardstick=found.beside_live[0].key))
    return parts


LIVE_HEADINGS = ["tier", "load", "published/s", "delivered/s", "P50 ms", "P95 ms", "P99 ms"]
LIVE_HEADINGS += ["delivered", "refused", "CPU"]


def _per_cent(share):
    return "-" if share is None else f"{100 * share:.3f} %"


def _settings(found):
    parts = ["## Settings"] if found.contenders else []
    same = {}
    for one in found.contenders:
        same.setdefault(one.settings() or DEFAULTS, []).append(f"- {one.name}")
    for settings, names in same.items():
        parts.append("\n".join(names) + f"\n\n```text\n{settings}\n```")
    if found.trials:
        parts += [TRIALS, _trials(found)]
    return parts


DEFAULTS = "(its defaults, and where things are)"
TRIALS = """\
What was tried for the Kafka engine before the rounds; kept was what gave the most rows per second
and CPU second:"""


def _trials(found):
    rows = [["kafka_…", "rows/s", "CPU"]]
    for settings, result in found.trials:
        short = {key.removeprefix("kafka_"): value for key, value in settings.items()}
        written = ", ".join(f"{key} {value}" for key, value in short.items())
        good = not result.trouble
        speed, cpu = (result.rows_per_s, result.total) if good else (None, None)
        rows.append([written, number(speed, 0), number(cpu)])
    return table(rows)


def _troubles(found):
    if not found.troubles():
        return []
    said = (f"{one.name}:\n\n```text\n{one.trouble}\n```" for one in found.troubles())
    return ["## Not well", *said]


def table(rows):
    """Columns aligned, so that it can be read where nothing renders it."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]

    def line(row):
        first, *others = zip(row, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(cells[0]), "| " + " | ".join(rule) + " |", *map(line, cells[1:])])
