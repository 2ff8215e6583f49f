#!/usr/bin/env python3
"""What the scripts ask of a running bridge and of ClickHouse. Needs nothing but Python 3.

Says what a person wants to read on stdout, trouble on stderr; exits 1 when the answer is no.
"""

import argparse
import http.client
import json
import os
import socket
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

POLL_S = 0.2
ANSWER_WITHIN_S = 10
# A query over everything that was sent may take its time on a busy machine.
QUERY_WITHIN_S = 300


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="QUESTION")

    def command(run, *arguments):
        added = commands.add_parser(run.__name__.replace("_", "-"), help=run.__doc__)
        added.set_defaults(run=run)
        for name in arguments:
            many = name == "summaries"
            added.add_argument(name, nargs="*" if many else None)

    command(free_port)
    command(sql, "url", "database")
    command(ready, "base", "pid", "seconds")
    command(drained, "base", "pid", "seconds", "summaries")
    command(until, "base", "condition", "seconds")
    command(backpressure, "base")
    command(sums, "base", "summaries")
    command(dropped, "base", "source")
    options = vars(parser.parse_args())
    run = options.pop("run")
    try:
        sys.exit(run(**options))
    except KeyboardInterrupt:
        sys.exit(130)


def free_port():
    """a port that nobody listens on"""
    # Below the ports that Linux gives to outgoing connections; 8080 is what the documents say.
    for port in [8080, *range(18080, 18180)]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            print(port)
            return 0
    print("no free port from 18080 to 18179", file=sys.stderr)
    return 1


def sql(url, database):
    """the answer of ClickHouse to the query on stdin"""
    address = f"{url}/?{urllib.parse.urlencode({'database': database})}"
    try:
        with urllib.request.urlopen(address, sys.stdin.buffer.read(), QUERY_WITHIN_S) as answer:
            sys.stdout.write(answer.read().decode())
    except urllib.error.HTTPError as error:
        print(f"ClickHouse: {error.read().decode().strip()}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"ClickHouse at {url}: {error}", file=sys.stderr)
        return 1
    return 0


def get(base, path):
    """Status code and JSON; (0, {}) where nobody answers."""
    try:
        with urllib.request.urlopen(base + path, timeout=ANSWER_WITHIN_S) as answer:
            return answer.status, _json(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, _json(error.read())
    except (OSError, http.client.HTTPException):
        return 0, {}


def _json(body):
    try:
        return json.loads(body)
    except ValueError:
        return {}


def wait(seconds, look, pid=None, each=None):
    """Calls `look` until it is true. Gives up after some time, or when the process is gone."""
    give_up_at = time.monotonic() + float(seconds)
    while not look():
        if pid and not Path(f"/proc/{pid}").exists():
            print("the bridge has ended; its log says why", file=sys.stderr)
            return 1
        if time.monotonic() > give_up_at:
            print(f"not within {seconds} s", file=sys.stderr)
            return 1
        if each:
            each()
        time.sleep(POLL_S)
    return 0


def ready(base, pid, seconds):
    """waits until the bridge is ready"""
    return wait(seconds, lambda: get(base, "/readyz")[0] == 200, pid)


def drained(base, pid, seconds, summaries):
    """waits until all that was sent has come and nothing is held"""
    sent = _sent(summaries)
    seen = {}

    def look():
        seen.update(get(base, "/health")[1].get("metrics", {}))
        if not seen or seen["backpressure"]["current_buffer"] > 0:
            return False
        sources = seen["sources"]
        kafka = sources.get("kafka")
        if kafka and (kafka.get("lag") or kafka.get("uncommitted")):
            return False
        return all(_arrived(sources.get(name, {})) >= count for name, count in sent.items())

    def show():
        if sys.stderr.isatty() and seen:
            held = seen["backpressure"]["current_buffer"]
            came = " ".join(f"{n} {_arrived(s):,}" for n, s in seen["sources"].items())
            print(f"\r\033[K  received: {came}   held: {held:,}", end="", file=sys.stderr)

    code = wait(seconds, look, pid, show)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    if code:
        for name, count in sent.items():
            came = _arrived(seen.get("sources", {}).get(name, {}))
            print(f"{name}: {came:,} of {count:,} records have come", file=sys.stderr)
        print(json.dumps(seen.get("backpressure")), file=sys.stderr)
    return code


def _arrived(source):
    """Received, without what was given back and comes again."""
    return source.get("received", 0) - source.get("released", 0)


def until(base, condition, seconds):
    """waits for `paused` or `resumed`"""

    def look():
        state = get(base, "/health")[1].get("metrics", {}).get("backpressure", {})
        return bool(state) and state["active"] == (condition == "paused")

    return wait(seconds, look)


def backpressure(base):
    """the backpressure of /health"""
    health = get(base, "/health")[1]
    state = health.get("metrics", {}).get("backpressure", {})
    print(f"status {health.get('status')}")
    for row in [
        ["active", "kafka_paused", "nats_paused", "causes"],
        ["current_buffer", "peak_buffer", "max_buffer_size", "pull_limit"],
        ["pause_threshold", "resume_threshold", "pause_count", "paused_seconds_total"],
        ["last_pause", "last_resume"],
    ]:
        print("  ".join(f"{key} {json.dumps(state.get(key))}" for key in row))
    return 0 if state else 1


COLUMNS = ["received", "inserted", "dead_lettered", "filtered", "dropped", "released", "held"]


def sums(base, summaries):
    """what was sent beside what the bridge says became of it"""
    sent = _sent(summaries)
    sources = get(base, "/health")[1].get("metrics", {}).get("sources", {})
    print("".join(f"{cell:>14}" for cell in ["", "sent", *COLUMNS]).replace("_", "-"))
    troubles = []
    for name, count in sent.items():
        source = sources.get(name, {})
        values = [_total(source.get(column, 0)) for column in COLUMNS]
        print("".join(f"{cell:>14}" for cell in [name, f"{count:,}", *(f"{v:,}" for v in values)]))
        if values[0] != sum(values[1:]):
            troubles.append(f"{name}: received is not the sum of the columns after it")
        if _arrived(source) != count:
            troubles.append(f"{name}: {count:,} were sent and {_arrived(source):,} came")
    for trouble in troubles:
        print(f"NOT RIGHT: {trouble}")
    if not troubles:
        print("every record that was sent is accounted for")
    return 1 if troubles else 0


def dropped(base, source):
    """how many records of a source the bridge had to drop"""
    sources = get(base, "/health")[1].get("metrics", {}).get("sources", {})
    print(_total(sources.get(source, {}).get("dropped", 0)))
    return 0 if source in sources else 1


def _total(value):
    return sum(map(_total, value.values())) if isinstance(value, dict) else value


def _sent(summaries):
    """Records delivered, by target, over several runs of the generator."""
    sent = {}
    for path in summaries:
        for stream in json.loads(Path(path).read_text())["streams"]:
            sent[stream["target"]] = sent.get(stream["target"], 0) + stream["sent"]
    return sent


if __name__ == "__main__":
    os.environ["no_proxy"] = "*"  # everything asked here is on this machine
    main()
