"""Where it is measured: the servers, the programs, a directory for logs; all of it goes again.

Owns the stack of servers (scripts/stack) and what is in it; knows no contender.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from bench.accounts import Child
from bench.clickhouse import ClickHouse
from bench.problem import EXIT_UNAVAILABLE, Problem

REPOSITORY = Path(__file__).resolve().parents[3]
DATABASE = "bench"
FILL_WITHIN_S = 1_800
BUILD = "cargo build --release --locked --bin data-bridge --example floors"


class Stand:
    def __init__(self, say):
        self.say = say
        self.name = f"bench-{os.getpid()}"
        self.place = Path(tempfile.mkdtemp(prefix="data-bridge-bench-"))
        self.children = []
        self._filled = set()
        self._streams = set()

    def __enter__(self):
        try:
            self._build()
            self._start_servers()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        # A second Ctrl-C, or a second SIGTERM, would leave servers behind.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        for child in self.children:
            child.stop()
        self._stack("down", check=False)
        shutil.rmtree(self.place, ignore_errors=True)

    def spawn(self, argv, log, env=None):
        """A process that ends with us at the latest."""
        child = Child([str(part) for part in argv], self.place / log, env, self.place)
        self.children.append(child)
        return child

    def end(self, child):
        used = child.stop()
        self.children.remove(child)
        return used

    def fill(self, kind, rows, partitions=6, topics=()):
        """The topics hold these records afterwards; filled once, read by every contender."""
        topics = tuple(topics) or (f"bench.{kind}",)
        if topics in self._filled:
            return
        place = f"{len(topics)} topic(s) of {partitions} partition(s)"
        self.say(f"filling Kafka: {rows:,} {kind} on {place}")
        arguments = ["--kafka=" + self.kafka, f"--partitions={partitions}"]
        self.generate([*arguments, f"--topics={','.join(topics)}", f"--kinds={kind}={rows}"])
        self._filled.add(topics)

    def fill_stream(self, kind, rows):
        """The same in JetStream."""
        if kind in self._streams:
            return
        self.say(f"filling JetStream: {rows:,} {kind}")
        self._stack("stream", f"BENCH_{kind.upper()}", f"bench.{kind}.>")
        self.generate([f"--nats={self.nats}", "--jetstream", f"--kinds={kind}={rows}"])
        self._streams.add(kind)

    def generate(self, arguments):
        """What was sent, as the generator says it."""
        argv = [self.bridge, "generate", "--quiet", "--json", *arguments]
        try:
            done = subprocess.run(
                argv,
                cwd=self.place,
                capture_output=True,
                text=True,
                timeout=FILL_WITHIN_S,
                env=clean_env(),
            )
        except subprocess.TimeoutExpired as late:
            problem = f"{' '.join(map(str, argv))}: not done within {FILL_WITHIN_S:,} s"
            raise Problem(problem) from late
        if done.returncode != 0:
            raise Problem(f"{' '.join(map(str, argv))}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def versions(self):
        """Of everything that was measured, by name."""
        bridge = _output([self.bridge, "--version"]).split()[-1]
        revision = _output(["git", "-C", REPOSITORY, "describe", "--always", "--dirty"])
        return {
            "data-bridge": f"{bridge} ({revision})",
            "Kafka": self._kafka_version,
            "ClickHouse": self.clickhouse.value("SELECT version()"),
            "NATS": _output([self._nats_binary, "--version"]).split("v")[-1],
        }

    def _build(self):
        given = os.environ.get("DATA_BRIDGE_BIN")
        if given:
            self.bridge = Path(given).resolve()
        else:
            self.bridge = release() / "data-bridge"
            if not self.bridge.exists():
                self.say("building the release: some five minutes the first time, on two cores")
            if subprocess.run([*BUILD.split(), "--quiet"], cwd=REPOSITORY).returncode != 0:
                raise Problem("the build failed")
        self.floors = self.bridge.parent / "examples" / "floors"
        for program in (self.bridge, self.floors):
            if not program.exists():
                raise Problem(f"{program} is missing; make it with: {BUILD}", EXIT_UNAVAILABLE)

    def _start_servers(self):
        self.say("starting Kafka, NATS and ClickHouse")
        self._stack("up")
        servers = json.loads(self._stack("status", "--json"))["servers"]
        self.kafka, self.kafka_pid = servers["kafka"]["address"], servers["kafka"]["pid"]
        self.nats, self.nats_pid = servers["nats"]["address"], servers["nats"]["pid"]
        self.clickhouse_pid = servers["clickhouse"]["pid"]
        flavor = servers["kafka"]["flavor"]
        self._nats_binary = Path(f"/proc/{self.nats_pid}/exe").resolve()
        self._kafka_version = _kafka_version(self.kafka_pid) if flavor == "apache" else flavor
        url = servers["clickhouse"]["address"]
        ClickHouse(url, "default").ask(f"CREATE DATABASE {DATABASE}")
        self.clickhouse = ClickHouse(url, DATABASE)

    def _stack(self, *arguments, check=True):
        argv = [REPOSITORY / "scripts" / "stack", "--name", self.name, *arguments]
        done = subprocess.run(argv, capture_output=True, text=True)
        if check and done.returncode != 0:
            raise Problem(f"scripts/stack {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout


def release():
    """Where cargo puts what it has optimised."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    return target.resolve() / "release"


def clean_env():
    """Ours, without what would configure a bridge."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("DATA_BRIDGE__")}
    return {**kept, "RUST_LOG": kept.get("RUST_LOG", "warn")}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _kafka_version(pid):
    """From the name of the directory that its classes are in."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    place = next((word for word in words if "kafka-" in word and word.endswith("/*")), "")
    return place.rstrip("/*").rpartition("kafka-")[2] or "unknown"


def _output(argv):
    done = subprocess.run(argv, capture_output=True, text=True)
    return done.stdout.strip() or done.stderr.strip() or "unknown"
