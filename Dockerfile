# syntax=docker/dockerfile:1

FROM node:22-bookworm-slim AS web
WORKDIR /src
COPY scripts/build-web scripts/build-web
# The runbook is part of the page.
COPY docs/runbook.md docs/runbook.md
COPY web web
RUN --mount=type=cache,target=/root/.npm scripts/build-web

FROM rust:1.95-slim-bookworm AS build
# librdkafka, in C and C++, is built by rdkafka-sys against the system's OpenSSL and zlib.
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ libssl-dev make pkg-config zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock build.rs ./
# Cargo refuses a manifest that names a target whose file is not there, also when it builds another.
COPY benches/micro benches/micro
COPY --from=web /src/web/dist web/dist
COPY src src
# The statement that creates the dead letters' table is part of the binary.
COPY config/schema config/schema
# The caches keep dependencies compiled from one build to the next; what is in them is not in a
# layer, so the binary is copied out. Without debug information it is a fraction of the size,
# and its backtraces still name functions.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin data-bridge \
    && strip --strip-debug -o /data-bridge target/release/data-bridge

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libssl3 zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin data-bridge
COPY --from=build /data-bridge /usr/local/bin/data-bridge
# Without --config the bridge reads ./config/data-bridge.toml.
WORKDIR /app
COPY config config
# Reachable from outside the container, as the default of 127.0.0.1 is not.
ENV DATA_BRIDGE__HTTP__LISTEN=0.0.0.0:8080
EXPOSE 8080
# By number, so that an orchestrator can tell that it is not root. The bridge writes no files.
USER 10001:10001
# It drains and commits. It handles its signals itself and starts no processes: no init needed.
STOPSIGNAL SIGTERM
# `health` gives up after 3 s by itself.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/usr/local/bin/data-bridge", "health"]
ENTRYPOINT ["/usr/local/bin/data-bridge"]
CMD ["run"]
