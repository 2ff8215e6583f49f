"""One named set of servers: its directory, its ports, and which processes are its own.

What is known of a stack stands in RUN/NAME/stack.json; each server has a directory and a log
file beside it. A stack that is down has no directory at all.
"""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import time
import zlib

from devstack import probes, processes, servers
from devstack.problem import EXIT_USAGE, Problem
from devstack.processes import Process

# The promise is 30 s. A machine that compiles on all cores meanwhile gets twice that.
READY_WITHIN_S = 60
STOP_WITHIN_S = 5
POLL_S = 0.05
LOG_TAIL_LINES = 30
# Below the ports that Linux gives to outgoing connections (32768 and up): no client takes
# the port of a server that was killed for a moment.
FIRST_PORT, LAST_PORT = 20_000, 32_000


class Stack:
    def __init__(self, root, name):
        self.name = name
        self.dist = root / "dist"
        self.directory = root / "run" / name
        self._state_path = self.directory / "stack.json"
        self._load()

    # --- what is known -----------------------------------------------------------------

    @property
    def exists(self):
        return self._state_path.exists()

    @property
    def port_base(self):
        return self._state["port_base"]

    def known(self):
        """The names of the servers that were ever started here, in a fixed order."""
        return [name for name in servers.NAMES if name in self._state["servers"]]

    def server(self, name):
        return servers.BY_FLAVOR[self._state["servers"][name]["flavor"]]

    def ports(self, server):
        return {key: self.port_base + offset for key, offset in server.ports.items()}

    def address(self, server):
        return server.address(self.ports(server)["port"])

    def log_path(self, name):
        return self.directory / f"{name}.log"

    def process(self, name):
        """The running process of a server; None when it is not (or no longer) ours."""
        entry = self._state["servers"].get(name, {})
        if "pid" not in entry:
            return None
        process = Process(entry["pid"], entry["started"])
        return process if processes.is_alive(process) else None

    def answers(self, name):
        server = self.server(name)
        try:
            server.probe(self.ports(server)["port"])
        except (OSError, ValueError):
            return False
        return True

    # --- what can be done --------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self):
        """One command at a time changes a stack. The lock is on the directory itself, so
        `down` leaves no lock file; whoever waited for a removed directory makes a new one."""
        while True:
            self.directory.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.directory, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                if not _is_same_directory(handle, self.directory):
                    continue
                self._load()
                yield
                return
            finally:
                os.close(handle)

    def up(self, wanted, port_base, options):
        """Starts those of `wanted` ((server, dist) pairs) that do not run, and returns when
        all of them answer. On failure or Ctrl-C, what this call started is stopped."""
        was_here = self.exists
        started = {}
        try:
            self._choose_ports(port_base)
            for server, dist in wanted:
                running = self.process(server.name)
                if running:
                    print(
                        f"{server.name}: already running, pid {running.pid}, {self.address(server)}"
                    )
                else:
                    started[server.name] = time.monotonic()
                    self._start(server, dist, options)
            self._wait_until_ready(started)
        except BaseException as error:
            self._stop(started)
            # The logs of a server that failed are worth reading; what else remains is not.
            logs_tell_why = isinstance(error, Problem) and self.known()
            if not was_here and not logs_tell_why:
                shutil.rmtree(self.directory, ignore_errors=True)
            raise

    def kill(self, name):
        process = self.process(name)
        if process is None:
            raise Problem(f"{name} is not running in stack {self.name}")
        processes.kill(process)
        self._forget(name)
        print(f"{name}: killed, pid {process.pid}")

    def down(self, keep_data):
        stopped = self._stop(self.known())
        if not keep_data:
            shutil.rmtree(self.directory)
        print(
            f"stack {self.name}: down, {len(stopped)} stopped{', data kept' if keep_data else ''}"
        )

    # --- how ---------------------------------------------------------------------------

    def _start(self, server, dist, options):
        ports = self.ports(server)
        was_ours = server.name in self._state["servers"]
        for use, port in ports.items():
            if not self._becomes_free(port, STOP_WITHIN_S if was_ours else 0):
                raise Problem(
                    f"{server.name}: {use} {port} is in use by another program; "
                    f"choose others with --port-base N"
                )
        directory = self.directory / server.name
        directory.mkdir(exist_ok=True)
        try:
            server.prepare(directory, dist, ports, options)
        except subprocess.CalledProcessError as error:
            raise Problem(f"could not prepare {server.name}: {error}") from error
        command = server.command(directory, dist, ports)
        process = processes.spawn(command, directory, self.log_path(server.name))
        self._state["servers"][server.name] = {
            "flavor": server.flavor,
            "pid": process.pid,
            "started": process.started,
        }
        self._save()

    @staticmethod
    def _becomes_free(port, within_s):
        """The last threads of a killed process hold its sockets a little longer than the process
        seems to be there."""
        give_up_at = time.monotonic() + within_s
        while not probes.is_free(port):
            if time.monotonic() >= give_up_at:
                return False
            time.sleep(POLL_S)
        return True

    def _wait_until_ready(self, started):
        waiting = dict(started)
        while waiting:
            for name, began in list(waiting.items()):
                took_s = time.monotonic() - began
                if self.process(name) is None:
                    raise Problem(f"{name} stopped while it started.\n{self._log_tail(name)}")
                if self.answers(name):
                    address = self.address(self.server(name))
                    print(f"{name}: ready after {took_s:.1f} s, {address}", flush=True)
                    del waiting[name]
                elif took_s > READY_WITHIN_S:
                    tail = self._log_tail(name)
                    raise Problem(f"{name} did not answer within {READY_WITHIN_S} s.\n{tail}")
            time.sleep(POLL_S)

    def _stop(self, names):
        running = {name: self.process(name) for name in names}
        running = {name: process for name, process in running.items() if process}
        processes.stop(list(running.values()), STOP_WITHIN_S)
        for name in running:
            self._forget(name)
        return running

    def _forget(self, name):
        """Keeps what the server was, not that it runs."""
        self._state["servers"][name] = {"flavor": self._state["servers"][name]["flavor"]}
        self._save()

    def _choose_ports(self, port_base):
        if self.port_base is not None:
            if port_base not in (None, self.port_base):
                raise Problem(
                    f"stack {self.name} has port base {self.port_base} already; "
                    f"take it down first, or give another --name",
                    EXIT_USAGE,
                )
            return
        with _lock_directory(self.directory.parent):
            self._state["port_base"] = port_base or self._free_port_base()
            self._save()

    def _free_port_base(self):
        """The first free block after a place that depends on the stack's path: the same
        stack gets the same ports again, and stacks of different work trees rarely meet."""
        taken = set(_port_bases(self.directory.parent))
        blocks = (LAST_PORT - FIRST_PORT) // servers.PORTS_PER_STACK
        first = zlib.crc32(str(self.directory).encode()) % blocks
        for block in range(first, first + blocks):
            base = FIRST_PORT + block % blocks * servers.PORTS_PER_STACK
            block_ports = range(base, base + servers.PORTS_PER_STACK)
            if base not in taken and all(map(probes.is_free, block_ports)):
                return base
        raise Problem(
            f"no {servers.PORTS_PER_STACK} free ports between {FIRST_PORT} and {LAST_PORT}"
        )

    def _log_tail(self, name):
        lines = self.log_path(name).read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n".join([f"The end of {self.log_path(name)}:", *(f"  | {line}" for line in lines)])

    def _load(self):
        try:
            self._state = json.loads(self._state_path.read_text())
        except FileNotFoundError:
            self._state = {"port_base": None, "servers": {}}

    def _save(self):
        """Whole or not at all: a reader never sees half a file."""
        temporary = self._state_path.with_suffix(".new")
        temporary.write_text(json.dumps(self._state, indent=2))
        temporary.rename(self._state_path)


def _port_bases(directory):
    """Of the stacks that are up there; others may be taken down meanwhile."""
    for path in directory.glob("*/stack.json"):
        with contextlib.suppress(FileNotFoundError):
            yield json.loads(path.read_text())["port_base"]


@contextlib.contextmanager
def _lock_directory(directory):
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _is_same_directory(handle, path):
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
