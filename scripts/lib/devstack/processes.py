"""Starting, recognising and stopping server processes. Linux only: it reads /proc."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

POLL_S = 0.05


@dataclass(frozen=True)
class Process:
    """A process we started. A pid alone is reused by the system, even across a reboot;
    together with the moment of its start it never names somebody else's process."""

    pid: int
    started: str


def spawn(argv, directory, log_path):
    """Starts a server in its own session, so that Ctrl-C at the caller's terminal does not
    reach it, and with its own files, so that it does not hold the caller's pipes open."""
    with open(log_path, "ab") as log:
        child = subprocess.Popen(
            argv,
            cwd=directory,
            env={**os.environ, "TZ": "UTC"},  # results do not depend on where the machine is
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # A child that is gone already is a zombie until we exit: it still has a start time.
    return Process(child.pid, _start_of(child.pid))


def is_alive(process):
    state = _state_of(process.pid)
    return state not in (None, "Z") and _start_of(process.pid) == process.started


def resident_bytes(process):
    try:
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def stop(processes, grace_s):
    """SIGTERM to all of them at once, SIGKILL to those still there after the grace."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while any(map(is_alive, processes)) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    for process in processes:
        kill(process)


def kill(process):
    """SIGKILL, and waits until it is gone: its ports are free afterwards."""
    _signal(process, signal.SIGKILL)
    while is_alive(process):
        time.sleep(POLL_S)


def _signal(process, number):
    if not is_alive(process):
        return
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        pass  # it went by itself in between


def _stat_of(pid):
    """The fields of /proc/PID/stat from the third on; the second, the command's name, may
    itself hold spaces and parentheses."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _state_of(pid):
    fields = _stat_of(pid)
    return fields[0] if fields else None


def _start_of(pid):
    """Ticks since boot, and which boot."""
    fields = _stat_of(pid)
    if not fields:
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{fields[19]}@{boot}"
