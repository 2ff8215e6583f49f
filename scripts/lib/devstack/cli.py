"""The command line of scripts/stack."""

import argparse
import json
import os
import re
import shlex
import signal
import sys
from pathlib import Path

from devstack import downloads, processes, servers, streams
from devstack.problem import EXIT_FAILED, EXIT_UNAVAILABLE, EXIT_USAGE, Problem
from devstack.stack import Stack

REPOSITORY = Path(__file__).resolve().parents[3]
EXIT_INTERRUPTED = 130

EPILOG = """\
examples:
  scripts/stack up                      Kafka, NATS and ClickHouse, ports chosen and kept
  scripts/stack --name t1 up kafka      another stack beside it, with Kafka alone
  scripts/stack kill clickhouse         SIGKILL; `start clickhouse` brings it back on its data
  scripts/stack stream BARS 'bars.>'    a stream of JetStream that takes these subjects
  eval "$(scripts/stack env)"           addresses, process ids and log files as variables
  scripts/stack down                    stops what was started and removes its data

environment:
  DATA_BRIDGE_STACK_DIR    where downloads and data go (default: .stack in the repository)
  DATA_BRIDGE_STACK_KAFKA  apache | tansu (default: apache; tansu, a Kafka-compatible broker
                           in memory, where Maven Central cannot be reached)
"""


def main(arguments):
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleans up as Ctrl-C does
    try:
        options = _parse(arguments)
        if not sys.platform.startswith("linux"):
            raise Problem("this runs on Linux only; elsewhere: docker compose up", EXIT_UNAVAILABLE)
        root = os.environ.get("DATA_BRIDGE_STACK_DIR") or REPOSITORY / ".stack"
        return options.run(Path(root).resolve(), options) or 0
    except Problem as problem:
        print(f"stack: {problem}", file=sys.stderr)
        return problem.exit_code
    except OSError as error:  # a full disk, a directory that may not be written, ...
        print(f"stack: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("stack: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _up(root, options):
    names = options.servers or servers.NAMES
    stack = Stack(root, options.name)
    wanted = [_fetch(stack, name) for name in servers.NAMES if name in names]
    with stack.locked():
        stack.up(wanted, options.port_base, options)


def _start(root, options):
    stack = _existing(root, options)
    server = _fetch(stack, options.server)
    with stack.locked():
        stack.up([server], None, options)


def _kill(root, options):
    stack = _existing(root, options)
    with stack.locked():
        stack.kill(options.server)


def _kafka_user(root, options):
    stack = _existing(root, options)
    server, dist = _fetch(stack, "kafka")
    if server is not servers.Apache:
        raise Problem(f"{server.flavor} knows no users", EXIT_UNAVAILABLE)
    port = stack.ports(server)["port"]
    server.set_password(stack.directory, dist, port, options.user, options.user_password)


def _down(root, options):
    stack = Stack(root, options.name)
    if not stack.directory.exists():
        print(f"stack {stack.name}: not up")
        return
    with stack.locked():
        stack.down(options.keep_data)


def _status(root, options):
    stack = Stack(root, options.name)
    described = {name: _describe(stack, name) for name in stack.known()}
    if options.json:
        print(json.dumps({"name": stack.name, "port_base": stack.port_base, "servers": described}))
    elif not described:
        print(f"stack {stack.name}: not up")
    else:
        for name, facts in described.items():
            pid = f"pid {facts['pid']}, {facts['rss_mb']} MB" if facts["pid"] else "-"
            print(
                f"{name:<11} {facts['state']:<9} {facts['address']:<28} {pid}  ({facts['flavor']})"
            )
    well = described and all(facts["state"] == "ready" for facts in described.values())
    return 0 if well else EXIT_FAILED


def _describe(stack, name):
    server = stack.server(name)
    process = stack.process(name)
    state = "stopped" if process is None else "ready" if stack.answers(name) else "starting"
    return {
        "state": state,
        "flavor": server.flavor,
        "address": stack.address(server),
        **stack.ports(server),
        "pid": process.pid if process else None,
        "rss_mb": processes.resident_bytes(process) // 1_000_000 if process else None,
        "log": str(stack.log_path(name)),
    }


def _env(root, options):
    stack = _existing(root, options)
    for name in stack.known():
        facts = _describe(stack, name)
        prefix = f"DATA_BRIDGE_TEST_{name.upper()}"
        variables = {prefix: facts["address"], f"{prefix}_LOG": facts["log"]}
        if facts["pid"]:
            variables[f"{prefix}_PID"] = facts["pid"]
        if name == "kafka":
            variables[f"{prefix}_FLAVOR"] = facts["flavor"]
            for listener in ("secure", "expired"):
                if (stack.directory / name / "security").is_dir():
                    address = stack.server(name).address(facts[f"{listener}_port"])
                    variables[f"{prefix}_{listener.upper()}"] = address
        if name == "clickhouse":
            variables[f"{prefix}_TCP_PORT"] = facts["tcp_port"]
        for key, value in variables.items():
            print(f"{key}={shlex.quote(str(value))}")


def _stream(root, options):
    stack = _existing(root, options)
    if "nats" not in stack.known():
        raise Problem(f"NATS is not part of stack {options.name}")
    port = stack.ports(stack.server("nats"))["port"]
    streams.create(port, options.stream, options.subjects)
    print(f"stream {options.stream}: takes {', '.join(options.subjects)}")


def _logs(root, options):
    stack = _existing(root, options)
    names = [options.server] if options.server else stack.known()
    files = [str(stack.log_path(name)) for name in names]
    os.execvp(
        "tail", ["tail", "--lines=200", *(["--follow=name"] if options.follow else []), *files]
    )


def _fetch_all(root, options):
    stack = Stack(root, options.name)
    for name in options.servers or servers.NAMES:
        server, place = _fetch(stack, name)
        print(f"{name} ({server.flavor}): {place}")


def _fetch(stack, name):
    """Which server to run under that name, and where its files are."""
    if name in stack.known():
        server = stack.server(name)  # its data is of that flavor
    elif name == "kafka":
        return _fetch_kafka(stack.dist)
    else:
        server = servers.BY_FLAVOR[name]
    return server, server.fetch(stack.dist)


def _fetch_kafka(dist):
    choice = os.environ.get("DATA_BRIDGE_STACK_KAFKA") or "automatic"
    if choice in (servers.Apache.flavor, "automatic"):
        try:
            return servers.Apache, servers.Apache.fetch(dist)
        except downloads.RegistryProblem as problem:
            if choice != "automatic":
                raise
            reason = str(problem)
    elif choice == servers.Tansu.flavor:
        reason = "DATA_BRIDGE_STACK_KAFKA=tansu"
    else:
        raise Problem(f"DATA_BRIDGE_STACK_KAFKA={choice}: expected apache or tansu", EXIT_USAGE)
    print(
        f"stack: NOT Apache Kafka but tansu, a Kafka-compatible broker in memory: {reason}",
        file=sys.stderr,
    )
    return servers.Tansu, servers.Tansu.fetch(dist)


def _existing(root, options):
    stack = Stack(root, options.name)
    if not stack.exists:
        raise Problem(f"stack {options.name} is not up; start it with: scripts/stack up")
    return stack


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        self.print_usage(sys.stderr)
        raise Problem(message, EXIT_USAGE)


def _parse(arguments):
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--name", type=_name, default=argparse.SUPPRESS, help="which stack (default: dev)"
    )
    common.add_argument(
        "--port-base",
        type=_port_base,
        metavar="N",
        default=argparse.SUPPRESS,
        help=f"its {servers.PORTS_PER_STACK} ports start at N (default: free ones, kept until `down`)",
    )
    users = argparse.ArgumentParser(add_help=False)
    which = users.add_mutually_exclusive_group()
    which.add_argument(
        "--password",
        default="data-bridge",
        help="of ClickHouse's user data_bridge (default: %(default)s); user default has none",
    )
    which.add_argument(
        "--users-file",
        metavar="XML",
        help="ClickHouse's users and grants instead; default has to be there, passwordless",
    )

    users.add_argument(
        "--kafka-security",
        metavar="DIR",
        help="Kafka also listens with TLS, client certificates and SCRAM-SHA-512; DIR has "
        "broker.pem and expired.pem (each a key with its certificate) and ca.pem",
    )

    parser = _Parser(
        prog="scripts/stack",
        description="Gets and runs Kafka, NATS and ClickHouse without containers.",
        epilog=EPILOG,
        parents=[common],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    def command(name, run, help_text, *parents):
        added = commands.add_parser(name, help=help_text, parents=[common, *parents])
        added.set_defaults(run=run)
        return added

    up = command("up", _up, "start the servers and wait until they answer", users)
    up.add_argument("servers", nargs="*", metavar="SERVER", type=_server, help="only these")
    down = command("down", _down, "stop the servers and remove their data")
    down.add_argument("--keep-data", action="store_true", help="the next `up` finds data and ports")
    status = command("status", _status, "what runs where; exit 0 if all answer")
    status.add_argument("--json", action="store_true")
    logs = command("logs", _logs, "the end of the log files")
    logs.add_argument("server", nargs="?", choices=servers.NAMES)
    logs.add_argument("--follow", action="store_true")
    command("kill", _kill, "SIGKILL one server").add_argument("server", choices=servers.NAMES)
    start = command("start", _start, "start one again, on the same data and ports", users)
    start.add_argument("server", choices=servers.NAMES)
    user = command("kafka-user", _kafka_user, "make a SCRAM user, or give it another password")
    user.add_argument("user")
    user.add_argument("user_password", metavar="PASSWORD")
    command("env", _env, "addresses, process ids and log files as KEY=VALUE")
    stream = command("stream", _stream, "make a stream of JetStream; its records stay")
    stream.add_argument("stream", metavar="NAME")
    stream.add_argument("subjects", nargs="+", metavar="SUBJECT")
    fetch = command("fetch", _fetch_all, "download the servers, start nothing")
    fetch.add_argument("servers", nargs="*", metavar="SERVER", type=_server, help="only these")

    # Options stand before or after the command; absent ones are not set, so that a command's
    # defaults do not overwrite what stood before it.
    return parser.parse_args(arguments, argparse.Namespace(name="dev", port_base=None))


def _server(text):
    if text not in servers.NAMES:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(servers.NAMES)}")
    return text


def _name(text):
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,39}", text):
        raise argparse.ArgumentTypeError(f"{text!r}: lower-case letters, digits, - and _ please")
    return text


def _port_base(text):
    if not text.isdigit() or not 1024 <= int(text) <= 65535 - servers.PORTS_PER_STACK:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1024 on")
    return int(text)
