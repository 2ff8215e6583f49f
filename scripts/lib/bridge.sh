#!/usr/bin/env bash
# Servers, a built bridge and how to start and stop it: what `scripts/demo` stands on.
#
# Source it from the repository's root after setting STACK (the stack's name) and PLACE (a
# directory for logs and summaries), then call the functions in the order in which they stand.

readonly DATABASE=market

# shellcheck disable=SC2034  # some are for who sources this
if [[ -t 1 ]]; then BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' PLAIN=$'\e[0m'; else BOLD='' DIM='' RED='' PLAIN=''; fi

title() { printf '\n%s%s%s\n' "$BOLD" "$*" "$PLAIN"; }
indent() { sed 's/^/  /'; }
die() {
    printf '%s%s%s\n' "$RED" "$*" "$PLAIN" >&2
    exit 1
}
ask() { python3 scripts/lib/ask.py "$@"; }
sql() { ask sql "$DATA_BRIDGE__CLICKHOUSE__URL" "$DATABASE"; }

# Starts the servers and points the bridge, the generator and `sql` at them.
start_servers() {
    scripts/stack --name "$STACK" up | indent
    eval "$(scripts/stack --name "$STACK" env)"
    HTTP=127.0.0.1:$(ask free-port)
    export DATA_BRIDGE__KAFKA__BROKERS=$DATA_BRIDGE_TEST_KAFKA
    export DATA_BRIDGE__NATS__SERVERS=$DATA_BRIDGE_TEST_NATS
    export DATA_BRIDGE__CLICKHOUSE__URL=$DATA_BRIDGE_TEST_CLICKHOUSE
    export DATA_BRIDGE__CLICKHOUSE__DATABASE=$DATABASE
    export DATA_BRIDGE__HTTP__LISTEN=$HTTP
}

# DATA_BRIDGE_BIN skips the build: another binary is tried.
build() {
    BIN=${DATA_BRIDGE_BIN:-}
    if [[ -z $BIN ]]; then
        BIN=${CARGO_TARGET_DIR:-target}/release/data-bridge
        scripts/build-web || echo 'so the bridge serves its plain status page' | indent
        [[ -x $BIN ]] || echo 'building the release: some five minutes the first time, on two cores' | indent
        # cargo's own progress where somebody is looking
        local quiet=(--quiet)
        [[ ! -t 2 ]] || quiet=()
        cargo build --release --locked "${quiet[@]}" || die 'the build failed'
    fi
    BIN=$(realpath "$BIN")
}

# In a session of its own: Ctrl-C is for this script, which then stops the bridge as it should be.
start_bridge() {
    LOG=$PLACE/bridge.log
    setsid "$BIN" run --log-format human >"$LOG" 2>&1 </dev/null &
    BRIDGE=$!
    echo "$BRIDGE" >"$PLACE/bridge.pid"
    if ! ask ready "http://$HTTP" "$BRIDGE" 60; then
        tail -n 20 "$LOG" >&2
        die "the bridge is not ready; the end of $LOG is above"
    fi
}

# SIGTERM; gives the bridge's exit code.
stop_bridge() {
    local code=0
    [[ -n ${BRIDGE:-} ]] || return 0
    kill -TERM "$BRIDGE" 2>/dev/null || true
    wait "$BRIDGE" || code=$?
    BRIDGE=
    rm -f "$PLACE/bridge.pid"
    return "$code"
}

# For the trap: whatever happened, nothing stays behind. A bridge that does not end by itself in
# its time of grace is ended.
clean_up() {
    trap '' INT TERM
    if [[ -n ${BRIDGE:-} ]] && kill -TERM "$BRIDGE" 2>/dev/null; then
        for _ in {1..350}; do
            kill -0 "$BRIDGE" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$BRIDGE" 2>/dev/null || true
    fi
    rm -f "$PLACE/bridge.pid"
    scripts/stack --name "$STACK" down >/dev/null || true
}
