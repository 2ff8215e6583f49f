//! What the documents say is held to what is there: links and their anchors, whole configurations,
//! and the flags of our own commands. Metrics are in `src/metrics/tests/named.rs`.

use std::collections::BTreeSet;
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

/// A block with sources and routes is a configuration, and one that loads.
#[test]
fn every_whole_configuration_loads() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for (path, text) in documents() {
        for block in blocks(&text, "toml") {
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
