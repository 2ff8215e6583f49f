#!/usr/bin/env python3
"""Measures a bridge that catches up: time, CPU, memory. Reads /proc, so it needs Linux.

    cpu.py start CLICKHOUSE_PID                                    what ClickHouse has used so far
    cpu.py catch-up BASE BRIDGE_PID CLICKHOUSE_PID BEFORE ROWS     until ROWS are inserted
"""

import json
import os
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True  # a source tree is no place for caches
import ask  # noqa: E402  (the line above comes first)

POLL_S = 0.05
GIVE_UP_AFTER_S = 1_800


def main():
    os.environ["no_proxy"] = "*"
    match sys.argv[1:]:
        case ["start", pid]:
            print(json.dumps(cpu_seconds(pid)))
        case ["catch-up", base, bridge, server, before, rows]:
            sys.exit(catch_up(base, bridge, server, json.loads(Path(before).read_text()), int(rows)))
        case _:
            sys.exit(__doc__)


def cpu_seconds(pid):
    """User and system time of a process, all its threads, and its children that have ended."""
    # The name in parentheses may hold spaces: count from behind it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    utime, stime, cutime, cstime = map(int, fields[11:15])
    return (utime + stime + cutime + cstime) / os.sysconf("SC_CLK_TCK")


def peak_rss_mib(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def catch_up(base, bridge, server, server_before, rows):
    began = None
    give_up_at = time.monotonic() + GIVE_UP_AFTER_S
    while True:
        metrics = ask.get(base, "/health")[1].get("metrics")
        now = time.monotonic()
        kafka = metrics["sources"]["kafka"] if metrics else {}
        # Joining the group takes seconds and says nothing about speed: begin with the first record.
        if began is None and kafka.get("received"):
            began = now
        if kafka.get("inserted", 0) + kafka.get("dead_lettered", 0) >= rows:
            break
        if not Path(f"/proc/{bridge}").exists() or now > give_up_at:
            print(f"not caught up: {json.dumps(kafka)}", file=sys.stderr)
            return 1
        time.sleep(POLL_S)
    took = max(time.monotonic() - began, POLL_S)
    million = rows / 1_000_000
    inserts = sum(writer["inserts"] for writer in metrics["writers"].values())
    pressure = metrics["backpressure"]
    for name, value in [
        ("rows", f"{rows:,} in {took:.1f} s"),
        ("rows per second", f"{rows / took:,.0f}"),
        ("CPU seconds per million rows, bridge", f"{cpu_seconds(bridge) / million:.2f}"),
        (
            "CPU seconds per million rows, ClickHouse",
            f"{(cpu_seconds(server) - server_before) / million:.2f}",
        ),
        ("peak memory of the bridge", f"{peak_rss_mib(bridge):.0f} MiB"),
        ("rows per insert", f"{rows / max(inserts, 1):,.0f} ({inserts} inserts)"),
        ("peak held", f"{pressure['peak_buffer']:,} (pauses: {pressure['pause_count']})"),
    ]:
        print(f"{name:<42} {value}")
    return 0


if __name__ == "__main__":
    main()
