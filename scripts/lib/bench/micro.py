"""The parts of the hot path by themselves: time by divan, instructions by callgrind, where time is
too restless to tell a few per cent."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from bench.problem import Problem
from bench.stand import REPOSITORY, release
from bench.stats import number

# Enough that the decoder has learnt the order of the keys; a hundred times slower under callgrind.
RECORDS = 10_000


def run(kinds):
    """Prints; nothing of it is compared with a target."""
    bench = ["cargo", "bench", "--locked", "--quiet", "--bench", "micro"]
    if subprocess.run(bench, cwd=REPOSITORY).returncode != 0:
        raise Problem("the micro-benchmarks failed")
    if not shutil.which("valgrind"):
        print("\nInstructions are not counted: valgrind is missing (Debian: valgrind).")
        return
    build = ["cargo", "build", "--release", "--locked", "--quiet", "--example", "floors"]
    subprocess.run(build, cwd=REPOSITORY, check=True)
    print("\nInstructions a record, decoded and encoded (callgrind):")
    for kind in kinds:
        print(f"  {kind:<12} {number(_instructions(kind) / RECORDS, 0):>9}")


def _instructions(kind):
    """Of the measured function alone: making the records is not in it."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "out"
        argv = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--quiet"]
        argv += ["--collect-atstart=no", "--toggle-collect=*decode_and_encode*"]
        argv += [release() / "examples" / "floors", "decode", kind, str(RECORDS), str(RECORDS)]
        done = subprocess.run([str(part) for part in argv], capture_output=True, text=True)
        if done.returncode != 0:
            raise Problem(f"callgrind: {done.stderr.strip()}")
        lines = out.read_text().splitlines()
    totals = [int(line.split()[1]) for line in lines if line.startswith("summary:")]
    if not any(totals):
        raise Problem("callgrind has counted nothing")
    return totals[0]
