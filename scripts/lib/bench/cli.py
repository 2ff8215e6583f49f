"""The command line of scripts/bench."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from bench import (
    backlog,
    bridge,
    compression,
    engine,
    latency,
    live,
    machine,
    micro,
    nats,
    overload,
    peers,
    report,
    scaling,
    shapes,
)
from bench.floors import Floors
from bench.problem import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_UNAVAILABLE, EXIT_USAGE, Problem
from bench.stand import Stand

EPILOG = """\
Everything runs on this machine, so the servers take their share of the cores: compare within a run,
not between machines. DATA_BRIDGE_BIN=PATH measures that binary (with examples/floors beside it)
instead of building one.
"""


def main(arguments):
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleans up as Ctrl-C does
    os.environ["no_proxy"] = "*"  # everything asked here is on this machine
    try:
        options = _parse(arguments)
        if not sys.platform.startswith("linux"):
            raise Problem("this runs on Linux only: it reads /proc", EXIT_UNAVAILABLE)
        return _run(options)
    except Problem as problem:
        print(f"bench: {problem}", file=sys.stderr)
        return problem.exit_code
    except KeyboardInterrupt:
        print("bench: interrupted; the servers are gone", file=sys.stderr)
        return EXIT_INTERRUPTED


def _run(options):
    if options.micro:
        micro.run([shape.name for shape in options.shapes])
        return 0
    began = time.monotonic()

    def say(text):
        print(f"{time.monotonic() - began:7.1f} s  {text}", file=sys.stderr, flush=True)

    contenders = [] if options.live else _contenders(options)
    found = report.Findings(options.rows, options.rounds, contenders=contenders)
    found.titles = {shape.name: shape.title for shape in options.shapes}
    found.machine = machine.describe()
    with Stand(say) as stand:
        found.versions = stand.versions()
        found.idle = backlog.idle(stand)
        floors = Floors(stand, options.rows_per_insert)
        for section in options.sections:
            # What one section cannot do is no reason to lose the hour that the others took.
            try:
                SECTIONS[section](options, stand, floors, found)
            except Problem as problem:
                say(f"{section}: {problem}")
                found.failures.append(report.Failure(section, str(problem)))
            if options.report:
                options.report.write_text(report.text(found))
    print(report.text(found))
    return EXIT_FAILED if found.troubles() else 0


def _contenders(options):
    others = [*options.vector, *options.command]
    bridges = [*bridge.all_bridges(), *options.bridge]
    known = {one.key: one for one in [*bridges, engine.Engine(), *others]}
    unknown = [key for key in options.contenders if key not in known]
    if unknown:
        raise Problem(f"--contenders: {unknown[0]!r} is none of {', '.join(known)}", EXIT_USAGE)
    return [known[key] for key in options.contenders or known]


def _bridges(contenders):
    return [one for one in contenders if isinstance(one, bridge.Bridge)]


def _backlog(options, stand, floors, found):
    for shape in options.shapes:
        stand.fill(shape.name, options.rows)
        trying = next((one for one in found.contenders if one.key == "engine"), None)
        if trying and not found.trials and not options.quick:
            found.trials = backlog.choose_engine(stand, floors, trying, shape, options.rows)
        backlog.rounds(stand, floors, found, shape)


def _latency(options, stand, _floors, found):
    seconds = 2 if options.quick else LATENCY_S
    for contender in latency.contenders():
        one = latency.measure(stand, contender, options.shapes[0], seconds)
        said = one.trouble or f"p50 {one.p50_ms} ms, p99 {one.p99_ms} ms"
        stand.say(f"latency  {one.name}: {said}")
        found.latencies.append(one)


def _overload(options, stand, floors, found):
    for one in overload.measure(stand, floors, options.shapes[0], options.rows):
        said = one.trouble or f"{one.rows_per_s:,.0f} rows/s, {one.of_limit:.2f} of the limit"
        stand.say(f"overload  {one.name}: {said}")
        found.overloads.append(one)


def _nats(options, stand, floors, found):
    shape = options.shapes[0]
    nats.jetstream(stand, floors, _bridges(found.contenders), shape, found)
    found.pushes += nats.core(stand, shape, options.quick)


def _scaling(options, stand, floors, found):
    # So that the sizes, 1 M and 10 M, come of the default of 2 M.
    rows = max(options.rows // 2, 1)
    found.scaling += scaling.measure(stand, floors, options.shapes[0], rows, options.rounds)


def _compression(options, stand, floors, found):
    shape, rows = options.shapes[0], options.rows
    found.compression += compression.measure(stand, floors, shape, rows, options.rounds)


def _live(options, stand, floors, found):
    shape = options.shapes[0]
    for run in live.measure(stand, shape, 2 if options.quick else live.SECONDS):
        said = run.trouble or (
            f"{run.said['published_per_s']:,.0f} published/s, "
            f"{run.said['delivered_per_s']:,.0f} delivered/s, p99 {run.said['p99_ms']} ms"
        )
        stand.say(f"{run.name}: {said}")
        found.live.append(run)
    for one in live.beside(stand, floors, shape, options.rows, options.rounds):
        stand.say(f"{one.name}: {one.trouble or f'{one.rows_per_s:,.0f} rows/s'}")
        found.beside_live.append(one)


SECTIONS = {
    "backlog": _backlog,
    "latency": _latency,
    "overload": _overload,
    "nats": _nats,
    "compression": _compression,
    "scaling": _scaling,
    "live": _live,
}
LATENCY_S = 20


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        self.print_usage(sys.stderr)
        raise Problem(message, EXIT_USAGE)


def _parse(arguments):
    parser = _Parser(
        prog="scripts/bench",
        description="Measures the bridge, its peers and its floors on the same records.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = shapes.read()
    default = [name for name in SECTIONS if name not in ("scaling", "live")]
    sized = "; ".join(f"{shape.name}: {shape.title}" for shape in known.values())

    def add(name, help_text, **how):
        parser.add_argument(name, help=help_text, **how)

    add("--rows", "of each shape (default: 2,000,000)", type=_count, default=2_000_000, metavar="N")
    add("--rounds", "of which medians are taken (default: 3)", type=_count, default=3, metavar="N")
    add("--quick", "20,000 rows, one round: does it all work?", action="store_true")
    add(
        "--shapes",
        f"default: all. {sized}",
        type=_some(known),
        default=list(known.values()),
        metavar="NAME,…",
    )
    add("--contenders", CONTENDERS, type=_list, default=[], metavar="KEY,…")

    def add_more(name, help_text, kind, metavar):
        add(name, help_text, type=kind, action="append", default=[], metavar=metavar)

    add_more("--bridge", "the bridge with this file over its defaults", bridge.given, "KEY=FILE")
    add_more("--vector", "Vector's binary", peers.vector, "PATH")
    add_more("--command", COMMAND, peers.command, "NAME=COMMAND")
    names = ",".join(default)
    add("--sections", f"default: {names}", type=_sections, default=default, metavar="NAME,…")
    add("--scaling", SCALING, action="store_true")
    add("--live", "only: the live feed, and what it costs", action="store_true")
    add("--rows-per-insert", FLOORS, type=_count, default=200_000, metavar="N")
    add("--report", "write it there too, after each section", type=Path, metavar="FILE")
    add("--micro", "instead: the parts of the hot path by themselves", action="store_true")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rows, options.rounds = QUICK_ROWS, 1
    if options.live:
        options.sections = ["live"]
    if options.scaling and "scaling" not in options.sections:
        options.sections = [*options.sections, "scaling"]
    return options


QUICK_ROWS = 20_000
CONTENDERS = "default: all. defaults, tuned, exact, pass, engine, and those of the next three"
COMMAND = """any other program, run by a shell until SIGTERM, which all that it started gets; a single
program that is exec'ed (cd DIR && exec ./mine) is measured most exactly; BENCH_BROKERS, BENCH_TOPIC,
BENCH_GROUP, BENCH_CLICKHOUSE_URL, BENCH_DATABASE, BENCH_TABLE and BENCH_ROWS tell it what to do"""
SCALING = "also: 10 times the rows; 1, 6, 60 partitions; 1, 10, 100 routes; two instances"
FLOORS = "of the floors' inserts (default: 200,000, as tuned)"


def _count(text):
    digits = text.replace("_", "").replace(",", "")
    if not digits.isdigit() or int(digits) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(digits)


def _list(text):
    return [part for part in text.split(",") if part]


def _sections(text):
    names = _list(text)
    unknown = [name for name in names if name not in SECTIONS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"{text!r}: there are {', '.join(SECTIONS)}")
    return names


def _some(known):
    def some(text):
        names = _list(text)
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise argparse.ArgumentTypeError(f"{text!r}: there are {', '.join(known)}")
        return [known[name] for name in names]

    return some
