"""Whether a row costs the same however many there are, and however they are spread."""

from bench import catchup
from bench.backlog import line
from bench.bridge import TUNED, Bridge
from bench.job import Job

PARTITIONS = (1, 6, 60)
ROUTES = (1, 10, 100)
INSTANCES = (1, 2)
LARGER = 10


def measure(stand, floors, shape, rows, count):
    """Yields (group, label, result), each case once a round; `rows` is the smaller size."""
    cases = [*_sizes(rows), *_partitions(rows), *_routes(rows), *_instances(rows)]
    for turn in range(count):
        for group, label, (topics, partitions), job_rows, extra, contender in cases:
            stand.fill(shape.name, job_rows, partitions, topics)
            expected = floors.reference(shape, job_rows)
            key = f"{contender.key}_{turn}"
            job = Job(shape, job_rows, f"t_{key}", f"bench-{key}", topics, **extra)
            result = catchup.measure(stand, contender, job, expected)
            stand.say(f"scaling, {label} {turn + 1}/{count}: {line(result)}")
            yield group, label, result


def _case(group, label, key, topics, partitions, rows, extra=None, **bridge):
    contender = Bridge(key, "data-bridge, tuned", layer=TUNED, **bridge)
    return group, label, (tuple(topics), partitions), rows, extra or {}, contender


def _sizes(rows):
    for n in (rows, LARGER * rows):
        yield _case("rows", f"{n:,} rows", f"rows_{n}", [_topic(n)], 6, n)


def _topic(rows):
    return f"scaling.rows.{rows}"


def _partitions(rows):
    for n in PARTITIONS:
        label = f"{n} partition{'s' * (n > 1)}"
        yield _case("partitions", label, f"partitions_{n}", [f"scaling.partitions.{n}"], n, rows)


def _routes(rows):
    for n in ROUTES:
        topics = [f"scaling.routes.{n}.{i}" for i in range(n)]
        label = f"{n} route{'s' * (n > 1)}, a topic each, one table"
        yield _case("routes", label, f"routes_{n}", topics, 1, rows)
    # Smaller inserts cost more, whoever makes them: apart from the routes.
    tables = tuple(f"t_routed_{i}" for i in range(n))
    label = f"{n} routes, a topic and a table each"
    yield _case("tables", label, f"tables_{n}", topics, 1, rows, {"tables": tables})


def _instances(rows):
    """Of the larger size: sharing a group takes the second one seconds."""
    rows *= LARGER
    for n in INSTANCES:
        label = f"{rows:,} rows, {n} instance{'s' * (n > 1)}"
        yield _case("instances", label, f"instances_{n}", [_topic(rows)], 6, rows, instances=n)
