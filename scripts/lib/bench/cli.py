"""The command line of scripts/bench."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from bench import backlog, bridge, engine, report, shapes
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
    began = time.monotonic()

    def say(text):
        print(f"{time.monotonic() - began:7.1f} s  {text}", file=sys.stderr, flush=True)

    with Stand(say) as stand:
        found = report.Findings(options.rows, options.rounds)
        found.versions = stand.versions()
        floors = Floors(stand, options.rows_per_insert)
        found.idle = backlog.idle(stand)
        contenders = _contenders(options)
        found.contenders = contenders
        for shape in options.shapes:
            stand.fill(shape.name, options.rows)
            trying = next((one for one in contenders if one.key == "engine"), None)
            if trying and not found.trials and not options.quick:
                found.trials = backlog.choose_engine(stand, floors, trying, shape, options.rows)
            backlog.rounds(
                stand, floors, contenders, shape, options.rows, options.rounds, found.results, found.floors
            )
    text = report.text(found)
    print(text)
    if options.report:
        options.report.write_text(text)
    return EXIT_FAILED if found.troubles() else 0


def _contenders(options):
    known = {one.key: one for one in [*bridge.all_bridges(), engine.Engine()]}
    if not options.contenders:
        return list(known.values())
    return [known[key] for key in options.contenders]


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
    parser.add_argument("--rows", type=_count, default=2_000_000, help="of each shape (default: 2,000,000)")
    parser.add_argument("--rounds", type=_count, default=3, help="of which medians are taken (default: 3)")
    parser.add_argument("--rows-per-insert", type=_count, default=200_000, help="of the floors' inserts; as tuned.toml has it (default: 200,000)")
    parser.add_argument("--shapes", type=lambda text: _some(text, known), default=list(known.values()), metavar="NAME,…", help=", ".join(f"{s.name} ({s.title})" for s in known.values()))
    parser.add_argument("--contenders", type=lambda text: text.split(","), default=[], metavar="KEY,…", help="defaults, tuned, exact, pass, engine")
    parser.add_argument("--quick", action="store_true", help="20,000 rows of each shape, one round: does it all work?")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the report there too")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rows, options.rounds = 20_000, 1
    return options


def _count(text):
    digits = text.replace("_", "").replace(",", "")
    if not digits.isdigit() or int(digits) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(digits)


def _some(text, known):
    unknown = [name for name in text.split(",") if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
    return [known[name] for name in text.split(",")]
