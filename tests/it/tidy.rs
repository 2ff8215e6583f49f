//! The shape of `src/`: who may know whom, how long a file may be, and that each says what it is.
//! Functions are kept short by clippy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Beyond this a file has two owners in it.
const MAX_LINES: usize = 450;

/// Files by their path within `src/`.
pub(crate) struct Source {
    pub(crate) files: BTreeMap<String, String>,
}

/// Crates, or modules of this crate (`crate::`), that only these files may use. A path that ends
/// in `/` is a folder.
const ONLY: &[(&str, &[&str])] = &[
    (
        "rdkafka",
        &[
            "source/kafka.rs",
            "source/kafka/",
            "dead_letter/kafka.rs",
            "dead_letter/kafka/",
            "generate.rs",
            "generate/",
            "cli/generate.rs",
        ],
    ),
    (
        "async_nats",
        &[
            "source/nats.rs",
            "source/nats/",
            "dead_letter/nats.rs",
            "dead_letter/nats/",
            "generate.rs",
            "generate/",
            "cli/generate.rs",
        ],
    ),
    ("clickhouse", &["sink/clickhouse.rs", "sink/clickhouse/", "cli/schema.rs", "cli/schema/"]),
    ("hyper_rustls", &["tls/connector.rs", "post.rs", "cli/bridge.rs"]),
    ("http_body_util", &["post.rs"]),
    ("tokio_rustls", &["http.rs", "http/", "tls/diagnosis.rs", "cli/live/socket.rs"]),
    ("tokio_tungstenite", &["cli/live/socket.rs"]),
    ("rustls_native_certs", &["tls.rs"]),
    (
        "axum",
        &[
            "http.rs",
            "http/",
            "cli/bridge.rs",
            "cli/health.rs",
            "cli/health/",
            "cli/reload.rs",
            "cli/live.rs",
            "cli/live/",
            "cli/top/listen.rs",
        ],
    ),
    ("tower", &["http.rs", "http/"]),
    ("hyper", &["http.rs", "http/", "post.rs"]),
    (
        "hyper_util",
        &[
            "http.rs",
            "http/",
            "cli/bridge.rs",
            "sink/clickhouse.rs",
            "sink/clickhouse/",
            "tls/connector.rs",
            "post.rs",
        ],
    ),
    ("config::File", &["config.rs", "config/"]),
    ("config::Value", &["config.rs", "config/"]),
    ("config::Map", &["config.rs", "config/"]),
    ("clap", &["main.rs", "cli.rs", "cli/"]),
    ("indicatif", &["cli.rs", "cli/"]),
    ("ratatui", &["cli/top.rs", "cli/top/"]),
    ("crossterm", &["cli/top.rs", "cli/top/"]),
    ("prometheus_client", &["metrics.rs", "metrics/"]),
    ("opentelemetry_proto", &["otlp.rs", "otlp/"]),
    ("prost", &["otlp.rs", "otlp/"]),
    ("crate::otlp", &["otlp.rs", "otlp/", "app.rs", "app/", "metrics.rs", "metrics/"]),
    ("crate::pipeline", &["pipeline.rs", "pipeline/", "app.rs", "app/", "shutdown.rs"]),
    ("crate::app", &["app.rs", "app/", "cli.rs", "cli/"]),
    ("crate::cli", &["main.rs", "cli.rs", "cli/"]),
    ("crate::http", &["http.rs", "http/", "app.rs", "app/"]),
    ("crate::generate", &["generate.rs", "generate/", "cli.rs", "cli/"]),
    ("crate::simulate", &["simulate.rs", "simulate/", "cli.rs", "cli/"]),
    (
        "crate::source::kafka",
        &[
            "source/kafka.rs",
            "source/kafka/",
            "app.rs",
            "app/",
            "cli.rs",
            "cli/",
            // how to connect is one thing, whoever connects
            "dead_letter/kafka.rs",
            "generate/kafka.rs",
        ],
    ),
    (
        "crate::source::nats",
        &[
            "source/nats.rs",
            "source/nats/",
            "app.rs",
            "app/",
            "cli.rs",
            "cli/",
            "dead_letter/nats.rs",
            "generate.rs",
            "generate/",
        ],
    ),
    (
        "crate::sink::clickhouse",
        &["sink/clickhouse.rs", "sink/clickhouse/", "app.rs", "app/", "cli.rs", "cli/"],
    ),
];

/// The files that hold the rules: they run nothing, read nothing, and are tested without a
/// runtime.
const PURE: &[&str] = &[
    "dead_letter/letter.rs",
    "dead_letter/store.rs",
    "dead_letter/replay/plan.rs",
    "dead_letter/replay/batch.rs",
    "record.rs",
    "subject.rs",
    "route.rs",
    "schema.rs",
    "schema/",
    "decode.rs",
    "decode/",
    "batch.rs",
    "trace/context.rs",
    "encode.rs",
    "writer.rs",
    "ledger.rs",
    "ledger/",
    "backpressure.rs",
    "rate.rs",
    "rate/",
    "flow.rs",
    "flow/buffer.rs",
    "flow/metrics.rs",
    "flow/pace.rs",
    "flow/sample.rs",
    "simulate/advise.rs",
    "simulate/file.rs",
    "simulate/file/",
    "simulate/plot.rs",
    "simulate/report.rs",
    "simulate/scenario.rs",
    "simulate/shape.rs",
    "simulate/share.rs",
    "simulate/stream.rs",
    "backpressure/",
    "adaptive.rs",
    "adaptive/",
    "overload.rs",
    "overload/",
    "retry.rs",
    "breaker.rs",
    "breaker/",
    "alert.rs",
    "alert/board.rs",
    "alert/history.rs",
    "alert/id.rs",
    "alert/rules.rs",
    "alert/trend.rs",
    "fleet.rs",
    "webhook/message.rs",
    "webhook/told.rs",
    "otlp/traces.rs",
    "metrics/families.rs",
    "heartbeat.rs",
    "live/drops.rs",
    "live/event.rs",
    "live/name.rs",
    "live/protocol.rs",
    "live/rows.rs",
    "thousands.rs",
    "causes.rs",
    "cli/audit/ranges.rs",
    "cli/live/resume.rs",
    "cli/top/sse.rs",
    "cli/top/told.rs",
    "cli/top/known.rs",
    "cli/top/screen.rs",
    "source/nats/jetstream/lease.rs",
    "source/nats/jetstream/lease/",
    "source/nats/jetstream/go_over.rs",
];

/// What a pure file does not use. `tokio::time::Instant` is a point in time, and nothing that runs.
const RUNS: &[&str] = &[
    "tokio",
    "tokio_util",
    "tokio_stream",
    "futures_util",
    "std::thread",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::fs",
    "std::process",
    "std::env",
    "std::time::Instant",
    "std::time::SystemTime",
    "crate::pipeline",
    "crate::source::kafka",
    "crate::source::nats",
    "crate::sink::clickhouse",
    "crate::metrics",
    "crate::http",
    "crate::app",
    "crate::cli",
    "crate::credits",
];

pub(crate) fn source() -> Source {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                files.insert(name, std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    assert!(files.len() > 50, "the sources were found");
    Source { files }
}

fn is_one_of(file: &str, owners: &[&str]) -> bool {
    owners.iter().any(|owner| file == *owner || owner.ends_with('/') && file.starts_with(owner))
}

/// What a file uses: every path in its code that begins with a crate or with `crate::`, with
/// groups (`a::{b, c}`) resolved, and the line. Tests may use what they like.
fn used(text: &str) -> Vec<(usize, String)> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let mut paths = Vec::new();
    let mut statement = String::new();
    for (number, line) in code.lines().enumerate() {
        let line = line.split("//").next().unwrap().trim();
        statement.push_str(line);
        let is_use = ["use ", "pub use "].iter().any(|start| statement.starts_with(start))
            || statement.starts_with("pub(") && statement.contains(" use ");
        if is_use {
            if statement.ends_with(';') {
                let tree = statement.split_once("use ").unwrap().1.trim_end_matches(';');
                paths.extend(resolved("", tree).into_iter().map(|path| (number + 1, path)));
                statement.clear();
            }
            continue;
        }
        // A path in the middle of the code.
        for (at, _) in line.match_indices("::") {
            let start = line[..at].rfind(|c: char| !(c.is_alphanumeric() || "_:".contains(c)));
            let path = &line[start.map_or(0, |start| start + 1)..];
            let end = path.find(|c: char| !(c.is_alphanumeric() || "_:".contains(c)));
            paths.push((number + 1, path[..end.unwrap_or(path.len())].to_owned()));
        }
        statement.clear();
    }
    paths
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d`, `a::c::e`.
fn resolved(prefix: &str, tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((head, group)) = tree.split_once('{') else {
        return vec![format!("{prefix}{}", tree.split(" as ").next().unwrap())];
    };
    let group = group.strip_suffix('}').expect("a group is closed");
    let prefix = format!("{prefix}{head}");
    let (mut depth, mut start, mut paths) = (0, 0, Vec::new());
    for (at, character) in group.char_indices().chain([(group.len(), ',')]) {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !group[start..at].trim().is_empty() {
                    paths.extend(resolved(&prefix, &group[start..at]));
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    paths
}

fn is_of(path: &str, forbidden: &str) -> bool {
    path.strip_prefix(forbidden).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn is_test(file: &str) -> bool {
    file.ends_with("/tests.rs") || file.contains("/tests/") || file.ends_with("samples.rs")
}

impl Source {
    /// Every use in code that is not a test, as `file:line` and path.
    fn uses(&self) -> impl Iterator<Item = (&str, usize, String)> {
        let files = self.files.iter().filter(|(file, _)| !is_test(file));
        files.flat_map(|(file, text)| {
            used(text).into_iter().map(move |(line, path)| (file.as_str(), line, path))
        })
    }
}

/// Each says in its first lines why there is no other way, and what was measured.
const MAY_BE_UNSAFE: &[&str] = &["memory.rs", "source/kafka/queue.rs"];

#[test]
fn nothing_is_unsafe_without_a_reason_and_a_measured_gain() {
    let unsafe_code = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"];
    let is_unsafe = |text: &str| unsafe_code.iter().any(|code| text.contains(code));
    let files = source().files;
    let found: Vec<&str> =
        files.iter().filter(|(_, text)| is_unsafe(text)).map(|(file, _)| file.as_str()).collect();
    assert_eq!(found, MAY_BE_UNSAFE);
    for file in found {
        let head = files[file].lines().take_while(|line| line.starts_with("//!"));
        let head: Vec<&str> = head.collect();
        assert!(head.join(" ").contains("Measured"), "src/{file} does not say what was measured");
    }
}

#[test]
fn only_its_owners_use_a_crate_or_a_module() {
    let source = source();
    let mut found = Vec::new();
    for (file, line, path) in source.uses() {
        for (what, owners) in ONLY {
            if is_of(&path, what) && !is_one_of(file, owners) {
                found.push(format!("src/{file}:{line}: `{path}` is for {owners:?} only"));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_files_with_the_rules_use_nothing_that_runs() {
    let source = source();
    let mut found = Vec::new();
    for (file, line, path) in source.uses().filter(|(file, ..)| is_one_of(file, PURE)) {
        if path == "tokio::time::Instant" || path == "tokio::time::Instant::now" {
            continue;
        }
        if let Some(runs) = RUNS.iter().find(|runs| is_of(&path, runs)) {
            found.push(format!("src/{file}:{line}: `{path}`: a pure file does not use {runs}"));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_pipeline_knows_no_client_and_its_readers_know_only_the_snapshot() {
    let source = source();
    let mut found = Vec::new();
    let rules: &[(&[&str], &[&str])] = &[
        (
            &["pipeline.rs", "pipeline/"],
            &[
                "crate::source::kafka",
                "crate::source::nats",
                "crate::sink::clickhouse",
                "crate::http",
            ],
        ),
        (
            &["http.rs", "http/", "status.rs", "status/", "metrics.rs", "metrics/"],
            &[
                "crate::ledger",
                "crate::backpressure",
                "crate::sink",
                "crate::credits",
                "crate::batch",
            ],
        ),
        (&["source/kafka.rs", "source/kafka/"], &["crate::source::nats", "crate::sink"]),
        (&["source/nats.rs", "source/nats/"], &["crate::source::kafka", "crate::sink"]),
        (
            &["live.rs", "live/"],
            &["crate::pipeline", "crate::source", "crate::sink", "crate::http", "crate::ledger"],
        ),
        (&["sink.rs", "sink/"], &["crate::source", "crate::record", "crate::ledger"]),
        (
            &["config.rs", "config/"],
            &["crate::record", "crate::source", "crate::sink", "crate::status", "tokio"],
        ),
    ];
    for (file, line, path) in source.uses() {
        for (files, forbidden) in rules {
            if is_one_of(file, files) && forbidden.iter().any(|what| is_of(&path, what)) {
                found.push(format!("src/{file}:{line}: `{path}`"));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_file_says_what_it_is_and_is_not_too_long() {
    for (file, text) in &source().files {
        assert!(text.starts_with("//! "), "src/{file} does not begin with `//!`");
        let lines = text.lines().count();
        assert!(lines <= MAX_LINES, "src/{file} has {lines} lines, at most {MAX_LINES}");
        assert!(!file.ends_with("mod.rs"), "src/{file}: `foo.rs` beside `foo/`, not `mod.rs`");
    }
}

#[test]
fn the_modules_stand_in_lib_rs_and_none_is_forgotten() {
    let source = source();
    let listed: Vec<&str> = source.files["lib.rs"]
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .collect();
    for file in source.files.keys().filter(|file| !file.contains('/')) {
        let module = file.strip_suffix(".rs").unwrap();
        let known = ["lib", "main"].contains(&module) || listed.contains(&module);
        assert!(known, "src/{file} is no module");
    }
}

/// What strangers wrote goes through the one place that makes it harmless.
#[test]
fn commands_write_to_the_terminal_in_one_place() {
    let ways = ["stdout().lock", "stderr().lock", "println!(", "print!("];
    for (file, text) in &source().files {
        if file.starts_with("cli") && file != "cli/terminal.rs" {
            let found = ways.iter().find(|way| text.contains(*way));
            assert_eq!(found, None, "src/{file} writes by itself; see src/cli/terminal.rs");
        }
    }
}

#[test]
fn uses_are_found_in_groups_and_in_the_middle_of_code() {
    let text = "//! x\nuse a::{b, c::{d,\n    e as f}};\npub(crate) use g::h;\nlet x = i::j(k::L);\n// m::n\n";
    let found: Vec<String> = used(text).into_iter().map(|(_, path)| path).collect();
    assert_eq!(found, ["a::b", "a::c::d", "a::c::e", "g::h", "i::j", "k::L"]);
    assert!(is_of("clickhouse::Client", "clickhouse") && !is_of("clickhouse_x::Y", "clickhouse"));
}
