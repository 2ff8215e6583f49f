"""What is in the way of a target, as far as the figures of the same run say it: where it is missed,
and where it is reached too, since the next run may be a little over."""

from bench import targets
from bench.stats import number, ratio, spread


def all_of(found, shape):
    """Sentences."""
    values = targets.Medians(found, shape)
    every = (_cost(values), _exactly_once(values), _sizes(found), *_shapes(found), _instances(found))
    return [sentence for sentence in every if sentence]


def _cost(values):
    floors = [values.floor(key, "cpu") for key in ("consume", "decode", "native")]
    total = values.of("tuned", "total")
    if total is None or None in floors:
        return ""
    consume, decode, native = floors
    return (
        f"**CPU** (1): fetching ({number(consume)}), decoding and encoding ({number(decode)}) and "
        f"storing bodies that lie ready ({number(native)}) cost {number(sum(floors))} in this run, "
        f"before there is a bridge; bridge and ClickHouse together spend "
        f"{number(ratio(total, sum(floors)))} times that. Where the bridge's goes is below, by thread: "
        "beyond the floors it copies each record out of librdkafka's memory, and sends what it has encoded."
    )


def _exactly_once(values):
    if values.of("exact", "total") is None or values.of("tuned", "total") is None:
        return ""
    rows = [number(values.of(key, "rows_per_insert"), 0) for key in ("exact", "tuned")]
    server, bridge = (
        [number(values.of(key, what)) for key in ("exact", "tuned")] for what in ("clickhouse", "bridge")
    )
    return (
        f"**Exactly once** (4) has batches of its own for each partition: inserts of {rows[0]} rows "
        f"instead of {rows[1]}, on which ClickHouse spends {server[0]} instead of {server[1]}; the bridge "
        f"spends {bridge[0]} instead of {bridge[1]}. What is left of each partition at the end of a "
        "backlog waits for its linger: the shorter the backlog, the more it shows in rows/s."
    )


def _sizes(found):
    costs = list(targets.by_label(found, "rows", "bridge").items())
    sizes = [one.rows for group, _, one in found.scaling if group == "rows"]
    if len(costs) < 2:
        return ""
    (few, of_few), (many, of_many) = costs[0], costs[-1]
    least, most = min(sizes) / 1e6, max(sizes) / 1e6
    # Two points of a line: seconds that do not depend on the rows, and those of a million more.
    fixed = (of_few - of_many) / (1 / least - 1 / most)
    more = of_few - fixed / least
    if fixed <= 0:
        return f"**Rows** (6): {many} cost the bridge {number(of_many)} a million, {few} {number(of_few)}."
    return (
        f"**Rows** (6): {many} cost the bridge {number(of_many)} a million, {few} {number(of_few)}: "
        f"more rows make none dearer. It is as if {number(fixed)} s were spent once (start, the first "
        f"touch of its memory, the wait for the last row) and {number(more)} on each million."
    )


def _shapes(found):
    """Of partitions and routes: whether the cases lie further apart than the rounds of one."""
    for group in ("partitions", "routes"):
        costs = list(targets.by_label(found, group, "bridge").values())
        if len(costs) < 2 or found.rounds < 2:
            continue
        apart = spread(costs)
        rounds = max(filter(None, map(spread, _rounds(found, group))), default=0)
        told = "no more than" if apart <= rounds else "more than"
        yield (
            f"**{group.capitalize()}** (6): the cases lie {100 * apart:.0f} % apart, {told} the rounds of "
            f"one case do (up to {100 * rounds:.0f} %)."
        )


def _rounds(found, group):
    by_label = {}
    for of, label, one in found.scaling:
        if of == group and not one.trouble:
            by_label.setdefault(label, []).append(one.bridge)
    return by_label.values()


def _instances(found):
    parts = [targets.by_label(found, "instances", what) for what in ("bridge", "clickhouse")]
    bridge, server = (list(part.values()) for part in parts)
    rows = list(targets.by_label(found, "instances", "rows_per_insert").values())
    if len(bridge) < 2:
        return ""
    return (
        f"**Instances** (7): two bridges spend {number(bridge[1])} where one spends {number(bridge[0])}; "
        f"ClickHouse spends {number(server[1])} instead of {number(server[0])}, with inserts of "
        f"{number(rows[1], 0)} rows instead of {number(rows[0], 0)}: it depends on how many of its "
        "merges the run sees. On one machine they share the same cores."
    )
