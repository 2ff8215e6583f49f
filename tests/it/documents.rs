//! What the documents say is held to what is there: links and their anchors, whole configurations,
//! and the flags of our own commands. Metrics are in `src/metrics/tests/named.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use data_bridge::config;

use crate::bridge::program;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every document for users, with its text.
fn documents() -> Vec<(PathBuf, String)> {
    let folder = std::fs::read_dir(root().join("docs")).unwrap();
    let mut paths: Vec<PathBuf> = folder.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "md"));
    paths.extend(["README.md", "ARCHITECTURE.md"].map(|name| root().join(name)));
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// The anchors that a page gets from its headings: small letters, digits, `-` and `_`.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let words = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
            words.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
        })
        .collect()
}

/// The fenced blocks of a language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let start = format!("\n```{language}\n");
    text.split(&start).skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut seen = 0;
    for (path, text) in documents() {
        for rest in text.split("](").skip(1) {
            let target = rest.split(')').next().unwrap();
            if target.contains("://") || target.contains(char::is_whitespace) {
                continue;
            }
            seen += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let to = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(to.exists(), "{}: {target}", path.display());
            if !anchor.is_empty() {
                let there = anchors(&std::fs::read_to_string(&to).unwrap());
                assert!(there.contains(anchor), "{}: {target}", path.display());
            }
        }
    }
    assert!(seen > 30, "{seen}");
}

/// What the commands of a page write into files whose names end so.
fn written<'a>(text: &'a str, end: &str) -> Vec<&'a str> {
    let start = format!("{end} <<'END'\n");
    text.split(&start).skip(1).map(|rest| rest.split("\nEND\n").next().unwrap()).collect()
}

/// A block with sources and routes is a configuration, and one that loads.
#[test]
fn every_whole_configuration_loads() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for (path, text) in documents() {
        for block in [blocks(&text, "toml"), written(&text, ".toml")].concat() {
            if !(block.contains("[kafka]") && block.contains("[[routes]]")) {
                continue;
            }
            seen += 1;
            let file = dir.path().join("data-bridge.toml");
            std::fs::write(&file, block).unwrap();
            let loaded = config::load(&[file]);
            assert!(loaded.is_ok(), "{}: {:?}\n{block}", path.display(), loaded.err());
        }
    }
    assert!(seen >= 4, "{seen}");
    let quickstart = std::fs::read_to_string(root().join("docs/quickstart.md")).unwrap();
    assert_eq!(written(&quickstart, ".toml").len(), 1, "it writes the configuration that it shows");
}

/// What `data-bridge … --help` says.
async fn help(words: &[&str]) -> String {
    let mut command = program();
    command.args(words).arg("--help");
    let done = tokio::time::timeout(Duration::from_secs(20), command.output()).await;
    let done = done.unwrap().unwrap();
    let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{words:?}: {said}");
    said.into_owned()
}

#[tokio::test]
async fn every_command_and_flag_of_ours_exists() {
    let mut commands = BTreeSet::new();
    for (_, text) in documents() {
        for block in [blocks(&text, "sh"), blocks(&text, "text")].concat() {
            let lines = block.lines().map(|line| line.trim_start_matches("$ "));
            let ours = lines.filter(|line| line.starts_with("data-bridge "));
            commands.extend(ours.map(|line| line.split('|').next().unwrap().trim().to_owned()));
        }
    }
    assert!(commands.len() >= 6, "{commands:?}");
    for command in commands {
        let words: Vec<&str> = command.split(' ').skip(1).collect();
        let is_word = |word: &&str| word.starts_with(char::is_lowercase) && !word.contains('.');
        let names: Vec<&str> = words.iter().copied().take_while(is_word).collect();
        let said = help(&names).await;
        for flag in words.iter().filter(|word| word.starts_with("--")) {
            assert!(said.contains(flag), "{command}: no {flag} in\n{said}");
        }
    }
}

#[test]
fn an_anchor_is_what_a_heading_becomes() {
    let there = anchors("# A page\n\n## paused_long\n\n## `data-bridge check`\n");
    assert!(there.contains("paused_long") && there.contains("data-bridge-check"), "{there:?}");
}

/// The lines of a file that log something from INFO on: the level, and what follows.
fn log_lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    code.split("tracing::").skip(1).filter_map(|rest| {
        let (level, rest) = rest.split_once("!(")?;
        ["info", "warn", "error"].contains(&level).then_some((level, rest.trim_start()))
    })
}

/// `event = "name", …`: the name.
fn event_of(line: &str) -> Option<&str> {
    line.strip_prefix("event = \"")?.split('"').next()
}

/// What is looked for in a log stays, and is written down with its levels.
#[test]
fn every_line_of_the_log_has_its_event_and_the_document_lists_them_all() {
    let mut logged: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut log = |name: &str, level: &str| {
        logged.entry(name.to_owned()).or_default().insert(level.to_uppercase());
    };
    for (file, text) in crate::tidy::source().files {
        for (level, line) in log_lines(&text) {
            match event_of(line) {
                Some(name) => log(name, level),
                // An alert's is one of three, chosen a few lines before.
                None if file == "alert/lookout.rs" && line.starts_with("event,") => {}
                None => panic!("src/{file}: begin with `event = \"…\"`: {:.60}", line),
            }
        }
    }
    for name in ["alert_fired", "alert_repeated"] {
        for level in ["warn", "error"] {
            log(name, level);
        }
    }
    log("alert_resolved", "info");
    let text = std::fs::read_to_string(root().join("docs/logs.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let listed: BTreeMap<String, BTreeSet<String>> = rows
        .map(|row| {
            let (name, rest) = row.split_once("` | ").unwrap();
            let levels = rest.split(" | ").next().unwrap();
            (name.to_owned(), levels.split(' ').map(str::to_owned).collect())
        })
        .collect();
    assert_eq!(logged, listed);
}

#[test]
fn a_line_of_the_log_is_found_whatever_stands_around_it() {
    let text = "x => tracing::warn!(\n    event = \"a_b\",\n    n, \"c\"\n), tracing::debug!(\"d\")\n\
                #[cfg(test)]\nmod tests {\n tracing::info!(\"e\")";
    let found: Vec<_> = log_lines(text).map(|(level, line)| (level, event_of(line))).collect();
    assert_eq!(found, [("warn", Some("a_b"))]);
}

/// The cells of a table's row.
fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split('|').map(str::trim).collect()
}

fn number(cell: &str) -> f64 {
    cell.replace(',', "").parse().unwrap_or_else(|_| panic!("{cell:?} is no number"))
}

/// The sums rest on what was measured last: who measures anew is told what to correct.
#[test]
fn the_sums_for_scaling_are_those_of_the_benchmarks() {
    let read = |name: &str| std::fs::read_to_string(root().join("docs").join(name)).unwrap();
    let (measured, scaling) = (read("benchmarks.md"), read("scaling.md"));
    let candles = measured.split("\n## candles, 185 B").nth(1).expect("the candles are measured");
    let row = |settings: &str| {
        let start = format!("| data-bridge, at least once, {settings} ");
        let row = candles.lines().find(|line| line.starts_with(&start));
        cells(row.unwrap_or_else(|| panic!("no {start}")))
    };
    let (defaults, tuned) = (row("defaults"), row("tuned"));
    for (says, column) in [
        ("CPU seconds per million rows, bridge", 2),
        ("CPU seconds per million rows, ClickHouse with its merges", 3),
        ("rows a second of one instance, beside ClickHouse and Kafka", 1),
        ("rows an insert of a backlog", 10),
    ] {
        let expected = format!("| {says} | {} | {} |", defaults[column], tuned[column]);
        assert!(scaling.contains(&expected), "docs/scaling.md does not say\n{expected}");
    }
    let computed = scaling.split("| records/s | settings |").nth(1).unwrap();
    let rows = computed.lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut seen = 0;
    for said in rows.map(cells) {
        let (rate, of) = (number(said[0]), if said[1] == "tuned" { &tuned } else { &defaults });
        let sums = [
            rate / 1e6 * number(of[2]),
            rate / 1e6 * number(of[3]),
            (rate / number(of[10])).max(1.0),
            rate * 185.0 * 8.0 / 1e6,
        ];
        for (sum, said) in sums.iter().zip(&said[2..]) {
            let off = (number(said) / sum - 1.0).abs();
            assert!(off < 0.03, "docs/scaling.md, {rate}/s: {said} is {sum:.4}");
        }
        seen += 1;
    }
    assert_eq!(seen, 5);
}

/// What a process takes at worst is one sum, in the code; the table has what that says.
#[test]
fn the_table_of_memory_is_what_the_bridge_works_out() {
    let scaling = std::fs::read_to_string(root().join("docs/scaling.md")).unwrap();
    let table =
        scaling.split("| `max_buffer_bytes` | streams |").nth(1).expect("a table of memory");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("data-bridge.toml");
    let fits = |held: &str, streams: usize, budget: &str| {
        let mut text = format!(
            "clickhouse.url = 'http://a:8123'\n\
             kafka = {{ brokers = ['a:9092'], prefetch_bytes = '32MiB' }}\n\
             backpressure = {{ max_buffer_bytes = '{held}', memory_budget = '{budget}' }}\n"
        );
        if streams > 0 {
            text.push_str("nats.jetstream.prefetch_bytes = '16MiB'\n");
        }
        text.push_str("[[routes]]\nname = 'k'\nkafka_topics = ['k']\ntable = 't'\n");
        for n in 0..streams {
            let from = format!("jetstream_subjects = ['s{n}']");
            text += &format!("[[routes]]\nname = 's{n}'\n{from}\ntable = 't'\n");
        }
        std::fs::write(&file, text).unwrap();
        let said = config::load(std::slice::from_ref(&file)).err().map(|error| error.to_string());
        said.is_none_or(|said| {
            assert!(said.contains("must be at least"), "{said}");
            false
        })
    };
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut seen = 0;
    for row in rows.map(cells) {
        let (held, streams) = (row[0].replace(' ', ""), row[1].parse().unwrap());
        let at_worst = row[2].strip_suffix(" MiB").unwrap().replace(',', "");
        let at_worst: usize = at_worst.parse().unwrap();
        assert!(fits(&held, streams, &format!("{at_worst}MiB")), "{row:?}: more than that");
        assert!(!fits(&held, streams, &format!("{}MiB", at_worst - 1)), "{row:?}: less than that");
        seen += 1;
    }
    assert!(seen >= 4, "{seen}");
}

/// A script of ours, wherever a document names one, is there and can be run.
#[test]
fn every_script_that_is_named_is_there() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut seen = BTreeSet::new();
    for (path, text) in documents() {
        for rest in text.split("scripts/").skip(1) {
            let is_of_a_name = |c: char| c.is_ascii_lowercase() || c == '-';
            let name: String = rest.chars().take_while(|c| is_of_a_name(*c)).collect();
            let file = root().join("scripts").join(&name);
            let found = std::fs::metadata(&file);
            let found = found.unwrap_or_else(|_| panic!("{}: {name}", path.display()));
            let runs = found.is_dir() || found.permissions().mode() & 0o111 != 0;
            assert!(runs, "{}: scripts/{name} cannot be run", path.display());
            seen.insert(name);
        }
    }
    assert!(seen.len() >= 9, "{seen:?}");
}

/// What a document says in a configuration's words has a meaning: keys that are there, of tables that
/// are shown in part.
#[test]
fn every_part_of_a_configuration_has_keys_that_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for (path, text) in documents() {
        for block in blocks(&text, "toml") {
            let is_part = !["[[routes]]", "[routes.", "[[scenarios]]", "…"]
                .iter()
                .any(|other| block.contains(other));
            if !is_part {
                continue;
            }
            seen += 1;
            let file = dir.path().join("data-bridge.toml");
            std::fs::write(&file, block).unwrap();
            let said = config::load(&[file]).err().map(|error| error.to_string());
            let said = said.unwrap_or_default();
            for wrong in ["unknown key", "needs a unit", "out of range", "is no "] {
                assert!(!said.contains(wrong), "{}: {said}\n{block}", path.display());
            }
        }
    }
    assert!(seen >= 6, "{seen}");
}
