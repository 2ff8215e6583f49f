"""Other programs as contenders: Vector, and anything that a command line starts.

No binary of theirs is fetched: whoever measures says where it is.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from bench.bridge import Running
from bench.problem import EXIT_USAGE, Problem
from bench.stand import DATABASE, clean_env


@dataclass
class Vector:
    """With end-to-end acknowledgements, as a bridge that may lose nothing has to be, and batches
    as large as its sink sensibly takes: beyond 100,000 events only its memory grows."""

    path: Path
    key: str = "vector"
    name: str = "Vector"

    def fits(self, job):
        return not job.nats and not job.tables and not job.extra

    def start(self, stand, job):
        directory = stand.place / job.group
        directory.mkdir()
        config = directory / "vector.toml"
        config.write_text(self._config(stand, job, directory))
        argv = [self.path, "--config", config, "--quiet"]
        return Running(stand, [stand.spawn(argv, f"{job.group}.log", clean_env())])

    def settings(self):
        return SINK.strip()

    def _config(self, stand, job, directory):
        topics = ", ".join(f'"{topic}"' for topic in job.topics)
        # Its event is the payload itself; where columns have other names, they are made of it.
        paths = job.shape.paths
        fields = ", ".join(f'"{name}": .{paths.get(name, name)}' for name, _ in job.shape.columns)
        return f"""\
data_dir = "{directory}"
[sources.kafka]
type = "kafka"
bootstrap_servers = "{stand.kafka}"
group_id = "{job.group}"
topics = [{topics}]
auto_offset_reset = "earliest"
decoding.codec = "json"
librdkafka_options."fetch.queue.backoff.ms" = "10"
[transforms.row]
type = "remap"
inputs = ["kafka"]
source = '. = {{{fields}}}'
[sinks.clickhouse]
type = "clickhouse"
inputs = ["{'row' if job.shape.nested else 'kafka'}"]
endpoint = "{stand.clickhouse.url}"
database = "{DATABASE}"
table = "{job.table}"
{SINK}"""


SINK = """\
format = "json_each_row"
skip_unknown_fields = true
compression = "none"
acknowledgements.enabled = true
batch.max_events = 100000
batch.max_bytes = 104857600
batch.timeout_secs = 1
buffer.max_events = 200000
"""


@dataclass
class Command:
    """`NAME=COMMAND`: a shell gets the command, and learns from variables what to do."""

    key: str
    command: str

    @property
    def name(self):
        return self.key

    def fits(self, job):
        return not job.nats and not job.tables and not job.extra and not job.shape.nested

    def start(self, stand, job):
        told = {
            "BENCH_BROKERS": stand.kafka,
            "BENCH_TOPIC": ",".join(job.topics),
            "BENCH_GROUP": job.group,
            "BENCH_CLICKHOUSE_URL": stand.clickhouse.url,
            "BENCH_DATABASE": DATABASE,
            "BENCH_TABLE": job.table,
            "BENCH_ROWS": str(job.rows),
        }
        argv = ["bash", "-c", self.command]
        child = stand.spawn(argv, f"{job.group}.log", {**clean_env(), **told})
        return Running(stand, [child])

    def settings(self):
        return self.command


def command(text):
    name, equals, line = text.partition("=")
    if not (name and equals and line.strip()):
        raise Problem(f"--command {text!r}: write NAME=COMMAND", EXIT_USAGE)
    return Command(name, line)


def vector(path):
    if not os.access(path, os.X_OK):
        raise Problem(f"--vector {path}: no program is there", EXIT_USAGE)
    return Vector(Path(path).resolve())
