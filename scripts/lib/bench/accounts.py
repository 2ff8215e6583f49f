"""The operating system's accounts of processes: CPU, memory, bytes written. Linux only."""

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from bench.problem import Problem

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
POLL_S = 0.02


def cpu_seconds(pid):
    """User and system time of a process, all its threads, and its children that have ended."""
    return sum(map(int, _fields(pid)[11:15])) / TICKS_PER_S


def cpu_by_thread(pid):
    """User and system time by the names of the threads that run, in seconds."""
    used = {}
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            name, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(")")
            cpu = sum(map(int, rest.split()[11:13])) / TICKS_PER_S
            used[name] = used.get(name, 0.0) + cpu
    return used


def peak_mib(pid):
    """The most memory that the process has had; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    peak = next((line for line in lines if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(peak.split()[1]) / 1024


def written_bytes(pid):
    """What the process has written, into files and sockets: costs it nothing to be asked."""
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("wchar:"):
            return int(line.split()[1])
    raise Problem(f"/proc/{pid}/io does not say what was written")


def _cpu_seconds_or_none(pid):
    try:
        return cpu_seconds(pid)
    except OSError:
        return 0.0


def _fields(pid):
    """What the system says of a process, from its state on."""
    # The name in parentheses may hold spaces: count from behind it.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


@dataclass
class Used:
    """What a process used, from its start to its end, and all that it has started."""

    cpu_s: float
    peak_mib: float
    exit_code: int = 0


class Child:
    """A process that we started and will end. In a session of its own: Ctrl-C is for us, who then
    stop it as it should be stopped."""

    def __init__(self, argv, log, env=None, cwd=None):
        self.log = log
        with open(log, "wb") as out:
            self._child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )
        self.pid = self._child.pid
        self._ended = None

    def alive(self):
        return self._reap(os.WNOHANG) is None

    def stop(self, grace_s=40):
        """SIGTERM, and SIGKILL after the grace, to it and to all that it has started: a shell ends by
        itself and leaves its programs behind. Gives what they used."""
        members = self._group()
        peak = sum(map(peak_mib, members))
        # What the system says of a shell that ended holds nothing of what it did not wait for.
        before = sum(map(_cpu_seconds_or_none, members))
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while (self.alive() or self._group()) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        self._signal(signal.SIGKILL)
        self._reap(0)
        status, usage = self._ended
        cpu = max(usage.ru_utime + usage.ru_stime, before)
        # Python would reap the process again, and find nothing.
        self._child.returncode = os.waitstatus_to_exitcode(status)
        return Used(cpu, peak or usage.ru_maxrss / 1024, self._child.returncode)

    def tail(self, lines=12):
        text = Path(self.log).read_text(errors="replace").splitlines()[-lines:]
        return "\n".join(f"    | {line}" for line in text)

    def _group(self):
        """Its process and those that it has started, as far as they run."""
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._has(pid)]

    def _has(self, pid):
        try:
            state, _parent, group = _fields(pid)[:3]
        except OSError:
            return False
        return int(group) == self.pid and state != "Z"

    def _signal(self, number):
        # Once nobody is in it, the group's number may be somebody else's.
        if self._group():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def _reap(self, flags):
        if self._ended is None:
            pid, status, usage = os.wait4(self.pid, flags)
            if pid:
                self._ended = (status, usage)
        return self._ended
