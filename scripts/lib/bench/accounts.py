"""The operating system's accounts of processes: CPU, memory, bytes written. Linux only."""

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
    # The name in parentheses may hold spaces: count from behind it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS_PER_S


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


@dataclass
class Used:
    """What a process used, from its start to its end, children included."""

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
        """SIGTERM, and SIGKILL to its whole session after the grace. Gives what it used."""
        peak = peak_mib(self.pid) if self._ended is None else 0.0
        if self.alive():
            os.kill(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while self.alive() and time.monotonic() < deadline:
            time.sleep(POLL_S)
        if self.alive():
            os.killpg(self.pid, signal.SIGKILL)
            self._reap(0)
        status, usage = self._ended
        cpu = usage.ru_utime + usage.ru_stime
        # Python would reap the process again, and find nothing.
        self._child.returncode = os.waitstatus_to_exitcode(status)
        return Used(cpu, peak or usage.ru_maxrss / 1024, self._child.returncode)

    def tail(self, lines=12):
        text = Path(self.log).read_text(errors="replace").splitlines()[-lines:]
        return "\n".join(f"    | {line}" for line in text)

    def _reap(self, flags):
        if self._ended is None:
            pid, status, usage = os.wait4(self.pid, flags)
            if pid:
                self._ended = (status, usage)
        return self._ended
