"""data-bridge as a contender: its configurations, and how it is run."""

import json
import re
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from bench import accounts
from bench.problem import EXIT_USAGE, Problem
from bench.stand import DATABASE, REPOSITORY, clean_env, free_port

TUNED = REPOSITORY / "benches" / "tuned.toml"
# Laid over it where exactly once is promised.
EXACT = REPOSITORY / "benches" / "exact.toml"
ANSWER_WITHIN_S = 5
PASSED = 'passed through (format = "json")'


@dataclass
class Bridge:
    """`layer` is laid over the defaults; the rest of the configuration says where things are."""

    key: str
    name: str
    layer: Path | None = None
    delivery: str = "at_least_once"
    pass_through: bool = False
    instances: int = 1
    more: str = ""

    def fits(self, job):
        return not (self.pass_through and job.shape.nested)

    def start(self, stand, job):
        ports = [free_port() for _ in range(self.instances)]
        children = [self._start_one(stand, job, *one) for one in enumerate(ports)]
        return Running(stand, children, f"http://127.0.0.1:{ports[0]}")

    def settings(self):
        """For the report: what differs from the defaults."""
        text = self.layer.read_text() if self.layer else ""
        return "\n".join(part for part in (text.strip(), self.more.strip()) if part)

    def _start_one(self, stand, job, number, port):
        stem = f"{job.group}-{number}"
        layers = [f"--config={self.write_base(stand, job, number, port)}"]
        if self.layer:
            layers.append(f"--config={self.layer}")
        if self.more:
            more = stand.place / f"{stem}-more.toml"
            more.write_text(self.more)
            layers.append(f"--config={more}")
        argv = [stand.bridge, "run", *layers, "--log-format", "human"]
        return stand.spawn(argv, f"{stem}.log", clean_env())

    def write_base(self, stand, job, number, port):
        """The part of the configuration that says where things are."""
        path = stand.place / f"{job.group}-{number}.toml"
        path.write_text(self._base(stand, job, number, port))
        return path

    def _base(self, stand, job, number, port):
        source = (
            f'[nats]\nservers = ["{stand.nats}"]\nqueue_group = "{job.group}"\n'
            if job.nats
            else f'[kafka]\nbrokers = ["{stand.kafka}"]\ngroup_id = "{job.group}"\n'
        )
        if job.nats == "jetstream":
            source += "[nats.jetstream]\n"
        routes = "\n".join(self._route(job, index) for index in range(max(len(job.topics), 1)))
        return f"""\
instance = "bench-{number}"
{source}
[clickhouse]
url = "{stand.clickhouse.url}"
database = "{DATABASE}"
[http]
listen = "127.0.0.1:{port}"
{routes}
"""

    def _route(self, job, index):
        subjects = f'"bench.{job.shape.name}.>"'
        source = {
            "": lambda: f'kafka_topics = ["{job.topics[index]}"]',
            "core": lambda: f"nats_subjects = [{subjects}]",
            "jetstream": lambda: f"jetstream_subjects = [{subjects}]",
        }[job.nats]()
        lines = [
            "[[routes]]",
            f'name = "bench_{index}"',
            source,
            f'table = "{job.table_of(index)}"',
            f'delivery = "{self.delivery}"',
        ]
        if job.nats == "core":
            lines.pop()  # at most once, and not to be promised otherwise
        if self.pass_through:
            lines.append('format = "json"')
        mapped = {**job.shape.paths, **job.extra}
        if mapped:
            lines.append("[routes.columns]")
            lines += [f'{column} = "{source}"' for column, source in mapped.items()]
        return "\n".join(lines)


class Running:
    """Processes that work for a contender; a bridge's answer at `http`."""

    def __init__(self, stand, children, http=""):
        self.stand = stand
        self.children = children
        self.http = http
        # What runs for as long as they do, and is none of them.
        self.beside = None

    def check(self):
        for child in self.children:
            if not child.alive():
                raise Problem("it ended by itself; the end of its log:")

    def explain(self):
        return "\n".join(child.tail() for child in self.children)

    def metrics(self):
        """What the first one says of itself; nothing while it cannot answer."""
        if not self.http:
            return {}
        try:
            with urllib.request.urlopen(f"{self.http}/health", timeout=ANSWER_WITHIN_S) as answer:
                return json.load(answer).get("metrics", {})
        except (OSError, ValueError):
            return {}

    def pauses(self):
        return self.metrics().get("backpressure", {}).get("pause_count", 0)

    def threads(self):
        """CPU seconds by the names of threads, of bridges."""
        used = {}
        for child in self.children if self.http else ():
            for name, cpu in accounts.cpu_by_thread(child.pid).items():
                used[name] = used.get(name, 0.0) + cpu
        return used

    def stop(self):
        """CPU of all of them, and the memory of the largest."""
        used = [self.stand.end(child) for child in self.children]
        if self.beside:
            self.stand.end(self.beside)
        return sum(one.cpu_s for one in used), max(one.peak_mib for one in used)


def all_bridges():
    tuned = {"layer": TUNED}
    exact = {**tuned, "delivery": "exactly_once", "more": EXACT.read_text()}
    return [
        Bridge("defaults", "data-bridge, at least once, defaults"),
        Bridge("tuned", "data-bridge, at least once, tuned", **tuned),
        Bridge("exact", "data-bridge, exactly once, tuned", **exact),
        Bridge("pass", f"data-bridge, {PASSED}, tuned", pass_through=True, **tuned),
    ]


def given(text):
    """`KEY=FILE`: another configuration, to be compared."""
    key, equals, path = text.partition("=")
    if not (re.fullmatch(r"[a-z0-9_]+", key) and equals and Path(path).is_file()):
        raise Problem(f"--bridge {text!r}: write KEY=FILE, of a file that is there", EXIT_USAGE)
    return Bridge(key, f"data-bridge, {key}", layer=Path(path).resolve())
