//! `data-bridge simulate` as a user meets it, and what `docs/overload.md` says of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// What a snippet is laid over: the least that the bridge runs with.
const LEAST: &str = "[kafka]\n[nats]\n[[routes]]\nname = 'x'\nkafka_topics = ['x']\n\
                     nats_subjects = ['x']\nclass = 'market'\ntable = 't'\n";

fn bridge(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_data-bridge"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DATA_BRIDGE_") {
            command.env_remove(name);
        }
    }
    command.args(args).output().unwrap()
}

/// What `simulate` prints; it ends well.
fn simulate(args: &[&str]) -> String {
    let output = bridge(&[&["simulate"], args].concat());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {text}");
    String::from_utf8(output.stdout).unwrap()
}

/// What `simulate` says when it refuses, with exit code 64.
fn refused(args: &[&str]) -> String {
    let output = bridge(&[&["simulate"], args].concat());
    assert_eq!(output.status.code(), Some(64), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The configuration takes it, laid over the least there is.
fn assert_loads(snippet: &str) {
    let dir = TempDir::new().unwrap();
    let [least, over] = ["least.toml", "over.toml"].map(|name| dir.path().join(name));
    std::fs::write(&least, LEAST).unwrap();
    std::fs::write(&over, snippet).unwrap();
    let files = [least.to_str().unwrap(), over.to_str().unwrap()];
    let output = bridge(&["--config", files[0], "--config", files[1], "config"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}\n{snippet}");
}

/// The blocks of a document that are fenced with this word.
fn blocks(document: &str, fence: &str) -> Vec<String> {
    let opening = format!("```{fence}\n");
    let rest = document.split(&opening).skip(1);
    rest.map(|text| text.split("\n```").next().unwrap().to_owned() + "\n").collect()
}

#[test]
fn the_same_seed_prints_the_same_and_another_one_another() {
    let course = |seed| simulate(&["adaptive", "compare", "--headless", "--json", "--seed", seed]);
    assert_eq!(course("7"), course("7"));
    assert_ne!(course("7"), course("8"));
}

#[test]
fn json_has_every_run_with_its_sums_and_its_course() {
    let output: Value = serde_json::from_str(&simulate(&["--headless", "--json"])).unwrap();
    let runs = output["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 13, "six scenarios, and a comparison of seven");
    for run in runs {
        let count = |key: &str| run["summary"][key].as_u64().unwrap();
        let gone = count("delivered") + count("dropped") + count("waiting") + count("in_buffer");
        assert_eq!(count("came"), gone, "{}", run["scenario"]);
        let seconds = run["summary"]["seconds"].as_f64().unwrap();
        let course = run["course"].as_array().unwrap();
        let points = f64::from(u32::try_from(course.len()).unwrap());
        assert!((points - seconds).abs() < 1.5, "a point a second");
        assert!(course.last().unwrap()["throughput"].is_number());
    }
}

#[test]
fn without_a_terminal_there_are_plain_lines() {
    let text = simulate(&["drop-oldest"]);
    assert!(!text.contains('\x1b'), "{text}");
    let lines: Vec<_> = text.lines().filter(|line| line.contains(" throughput ")).collect();
    assert_eq!(lines.len(), 10, "{text}");
    assert!(lines[9].contains("depth 99/100") && lines[9].contains("dropped 5,301"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("drop-oldest") && line.contains("5,301")));
    let widest = text.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(100), "{widest:?}");
}

#[test]
fn headless_says_only_what_came_of_it() {
    let text = simulate(&[
        "--headless",
        "--rate",
        "500",
        "--consume",
        "100",
        "--buffer",
        "50",
        "--strategy",
        "block,drop_newest",
        "--duration",
        "10s",
    ]);
    assert!(!text.contains(" throughput "), "{text}");
    assert!(text.contains("own/block") && text.contains("own/drop_newest"), "{text}");
}

#[test]
fn what_makes_no_sense_is_refused_with_what_would() {
    let cases: [(&[&str], &str); 9] = [
        (&["lunch"], "known: block, drop-oldest, adaptive, bursts, fair-share, compare, bridge"),
        (&["--rate", "5"], "--consume"),
        (&["--rate=-5", "--consume", "1"], "records a second, from 0"),
        (&["--speed", "0"], "a number above 0"),
        (&["--rate", "5", "--consume", "1", "--strategy", "drop"], "drop_newest"),
        (&["block", "--rate", "5", "--consume", "1"], "leave out SCENARIO"),
        (&["--plot", "x.svg"], "choose one of block"),
        (&["--file", "/nowhere.toml"], "cannot read /nowhere.toml"),
        (&["--size", "5KB"], "--advise"),
    ];
    for (args, expected) in cases {
        let text = refused(args);
        assert!(text.contains(expected), "{args:?}: {text}");
    }
}

#[test]
fn advice_is_configuration_that_the_bridge_takes() {
    let loads: [&[&str]; 7] = [
        &[],
        &["--preset", "low"],
        &["--preset", "high"],
        &["--rate", "1", "--size", "100B", "--delay", "1s"],
        &["--rate", "10000000", "--size", "1MB", "--delay", "1h", "--safety", "9"],
        &["--rate", "5000", "--size", "20KB", "--delay", "10s", "--burst", "200000"],
        &["--rate", "50", "--size", "3MB", "--delay", "2m", "--safety", "1"],
    ];
    for load in loads {
        let text = simulate(&[&["--advise"], load].concat());
        let snippet = &text[text.find("[backpressure]").unwrap()..];
        assert_loads(snippet);
        let json = simulate(&[&["--advise", "--json"], load].concat());
        let json: Value = serde_json::from_str(&json).unwrap();
        assert!(json["max_buffer_size"].as_u64().unwrap() >= 100, "{json}");
    }
}

#[test]
fn the_pictures_in_the_documents_are_what_the_command_draws() {
    let dir = TempDir::new().unwrap();
    for name in ["fair-share", "bursts", "adaptive", "bridge"] {
        let drawn = dir.path().join("drawn.svg");
        simulate(&[name, "--headless", "--plot", drawn.to_str().unwrap()]);
        let kept = docs("overload").join(format!("{name}.svg"));
        let hint = format!(
            "data-bridge simulate {name} --headless --plot docs/overload/{name}.svg draws another \
             picture than the one that is kept; look at it, and keep it"
        );
        assert!(read(&drawn) == read(&kept), "{hint}");
    }
}

#[test]
fn the_snippets_of_the_document_are_taken_by_the_configuration() {
    let document = read(&docs("overload.md"));
    let snippets = blocks(&document, "toml");
    let (scenarios, config): (Vec<_>, Vec<_>) =
        snippets.iter().partition(|snippet| snippet.contains("[[scenarios]]"));
    assert!(config.len() >= 3 && scenarios.len() == 1, "three styles, and a file of scenarios");
    config.into_iter().for_each(|snippet| assert_loads(snippet));
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("scenarios.toml");
    std::fs::write(&file, scenarios[0]).unwrap();
    let text = simulate(&["--headless", "--file", file.to_str().unwrap()]);
    assert!(text.contains("lunch/drop_oldest"), "{text}");
}

#[test]
fn the_comparison_in_the_document_is_the_one_that_is_printed() {
    let document = read(&docs("overload.md"));
    let printed = simulate(&["compare", "--headless"]);
    let table = |text: &str| -> Vec<String> {
        let lines = text.lines().skip_while(|line| !line.starts_with("RUN "));
        lines.take(8).map(str::to_owned).collect()
    };
    let rows = table(&printed);
    assert_eq!(rows.len(), 8, "{printed}");
    assert_eq!(table(&document), rows, "paste it anew");
}
