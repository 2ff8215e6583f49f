"""What the bridge is to reach, beside what was measured."""

from dataclasses import dataclass

from bench.stats import median, ratio


@dataclass
class Target:
    number: str
    sentence: str
    measured: float | None
    wanted: float
    at_most: bool = True

    @property
    def verdict(self):
        if self.measured is None:
            return "not measured"
        met = self.measured <= self.wanted if self.at_most else self.measured >= self.wanted
        return "met" if met else "NOT MET"


def judge(found, shape):
    """On the medians of one shape."""
    values = Medians(found, shape)
    return [*_cost(values), *_memory_and_promises(values), *_flow(found), *_scaling(found)]


class Medians:
    def __init__(self, found, shape):
        self._found, self._shape = found, shape

    def of(self, key, what):
        mine = [one for one in self._found.results if (one.key, one.shape) == (key, self._shape)]
        return median([getattr(one, what) for one in mine if not one.trouble])

    def floor(self, key, what):
        mine = [one for one in self._found.floors if (one.key, one.shape) == (key, self._shape)]
        return median([getattr(one, what) for one in mine if not one.trouble])

    def in_sequence(self, *keys):
        """Rows per second of floors that wait for each other."""
        speeds = [self.floor(key, "rows_per_s") for key in keys]
        return None if None in speeds else 1 / sum(1 / speed for speed in speeds)


def _cost(values):
    total, bridge = values.of("tuned", "total"), values.of("tuned", "bridge")
    speed, engine_speed = values.of("tuned", "rows_per_s"), values.of("engine", "rows_per_s")
    floors = [values.floor("consume", "cpu"), values.floor("decode", "cpu")]
    floor = None if None in floors else sum(floors)
    less = ratio(values.of("engine", "total"), total)
    yield Target("1", "bridge + ClickHouse: at most 1.5 CPU seconds per million rows", total, 1.5)
    yield _at_least("1", "at least 4 times less than ClickHouse's Kafka engine", less, 4)
    of_floors, of_engine = ratio(bridge, floor), ratio(speed, engine_speed)
    yield Target("1", "the bridge alone at most 2.5 times consume + decode", of_floors, 2.5)
    yield _at_least("2", "rows/s: at least 3 times the Kafka engine's", of_engine, 3)
    # "What the two floors run in sequence allow" can be read in two ways.
    of_decode = ratio(speed, values.in_sequence("consume", "decode"))
    yield _at_least("2", "at least 0.6 of consume and decode in sequence", of_decode, 0.6)
    of_insert = ratio(speed, values.in_sequence("consume", "native"))
    yield _at_least("2", "at least 0.6 of consume and a Native insert in sequence", of_insert, 0.6)


def _at_least(number, sentence, measured, wanted):
    return Target(number, sentence, measured, wanted, at_most=False)


def _memory_and_promises(values):
    peaks = values.of("defaults", "peak_mib"), values.of("tuned", "peak_mib")
    yield Target("3", "peak memory at most 120 MiB with default thresholds", peaks[0], 120)
    yield Target("3", "at most 350 MiB with batches of 200,000 rows", peaks[1], 350)
    exact, tuned = values.of("exact", "total"), values.of("tuned", "total")
    yield Target("4", "exactly once costs at most 1.10 times the CPU", ratio(exact, tuned), 1.10)
    speeds = values.of("exact", "rows_per_s"), values.of("tuned", "rows_per_s")
    yield _at_least("4", "and has at least 0.85 of the throughput", ratio(*speeds), 0.85)


def _flow(found):
    p99 = next((one.p99_ms for one in found.latencies if not one.trouble), None)
    yield Target("5", "p99 under 600 ms at 20,000/s, linger 200 ms", p99, 600)
    shares = [one.of_limit for one in found.overloads if not one.trouble]
    sentence = "overload: at least 0.8 of what ClickHouse takes"
    yield _at_least("5", sentence, min(shares, default=None), 0.8)


def _scaling(found):
    sentences = {
        "rows": "CPU of the bridge per row, 10 times the rows: within 10 %",
        "partitions": "with 1, 6, 60 partitions: within 10 %",
        "routes": "with 1, 10, 100 routes: within 10 %",
    }
    for group, sentence in sentences.items():
        costs = list(by_label(found, group, "bridge").values())
        yield Target("6", sentence, ratio(max(costs), min(costs)) if costs else None, 1.10)
    costs = list(by_label(found, "instances", "total").values())
    kept = ratio(costs[0], costs[-1]) if costs else None
    yield _at_least("7", "two instances: rows per CPU second, of one's", kept, 0.9)


def by_label(found, group, what):
    """Medians of a group of the scaling part, in the order in which they were measured."""
    values = {}
    for of, label, one in found.scaling:
        if of == group and not one.trouble:
            values.setdefault(label, []).append(getattr(one, what))
    return {label: median(measured) for label, measured in values.items()}
