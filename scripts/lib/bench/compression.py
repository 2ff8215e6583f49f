"""What compressing inserts costs and saves: on loopback, and over a link that is slow."""

import contextlib
import os
import socket
import sys
import time
import urllib.parse

from bench import catchup
from bench.backlog import line
from bench.bridge import TUNED, Bridge
from bench.job import Job
from bench.problem import Problem
from bench.stand import REPOSITORY, free_port

METHODS = ("none", "lz4", "zstd")
# Of the slow link.
BYTES_PER_S = 12_500_000
# Enough for some seconds of it.
ROWS_AT_MOST = 1_000_000
NAMES = {"loopback": "loopback", "slow": f"a link of {BYTES_PER_S * 8 // 1_000_000} Mbit/s"}
LISTENS_WITHIN_S = 10


def measure(stand, floors, shape, rows, count):
    """Yields (label, result), each case once a round."""
    rows = min(rows, ROWS_AT_MOST)
    expected = floors.reference(shape, rows)
    topic = f"compression.{shape.name}"
    stand.fill(shape.name, rows, topics=[topic])
    with _slow_link(stand) as slow:
        places = {"loopback": stand.clickhouse.url, "slow": slow}
        for turn in range(count):
            for place, url in places.items():
                for method in METHODS:
                    label = f"{method}, {NAMES[place]}"
                    contender = _bridge(f"{method}_{place}", method, url)
                    key = f"{contender.key}_{turn}"
                    job = Job(shape, rows, f"t_{key}", f"bench-{key}", (topic,))
                    result = catchup.measure(stand, contender, job, expected)
                    stand.say(f"compression, {label} {turn + 1}/{count}: {line(result)}")
                    yield label, result


def _bridge(key, method, url):
    more = f'[clickhouse]\nurl = "{url}"\ncompression = "{method}"\n'
    return Bridge(f"compression_{key}", f"data-bridge, {method}", layer=TUNED, more=more)


@contextlib.contextmanager
def _slow_link(stand):
    """The address of ClickHouse behind it."""
    port = free_port()
    upstream = urllib.parse.urlsplit(stand.clickhouse.url).netloc
    argv = [sys.executable, "-m", "bench.link", port, upstream, BYTES_PER_S]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY / "scripts" / "lib")}
    child = stand.spawn(argv, "link.log", env)
    try:
        _wait_listening(child, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        stand.end(child)


def _wait_listening(child, port):
    give_up_at = time.monotonic() + LISTENS_WITHIN_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError as error:
            if not child.alive() or time.monotonic() > give_up_at:
                raise Problem(f"the slow link does not come up: {error}\n{child.tail()}") from error
        time.sleep(0.05)
