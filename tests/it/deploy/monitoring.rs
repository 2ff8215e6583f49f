//! Prometheus and Grafana beside the bridge: only where they are asked for, on files that are there,
//! and on the bridge that is there. What the rules and panels say of metrics is held to `/metrics` in
//! `src/metrics/tests/named.rs`.

use std::io::{Seek as _, Write as _};
use std::process::Command;
use std::time::Duration;

use data_bridge::alert::AlertId;

use super::{OURS, compose, documents, duration, path, read, texts};
use crate::bridge::Bridge;
use crate::stack;

const MONITORING: [&str; 2] = ["prometheus", "grafana"];

#[test]
fn monitoring_starts_only_where_its_profile_is_asked_for() {
    let compose = compose();
    for (name, service) in compose["services"].as_hash().unwrap() {
        let name = name.as_str().unwrap();
        let profiles = &service["profiles"];
        if MONITORING.contains(&name) {
            assert_eq!(texts(profiles), ["monitoring"], "{name}");
        } else {
            assert!(profiles.is_badvalue(), "{name}: `docker compose up` has to start it");
            let needs = service["depends_on"].as_hash();
            for needed in needs.into_iter().flatten().map(|(name, _)| name.as_str().unwrap()) {
                assert!(!MONITORING.contains(&needed), "{name} needs {needed}");
            }
        }
    }
}

#[test]
fn what_they_mount_of_ours_is_there_and_read_only() {
    let compose = compose();
    for name in MONITORING {
        let volumes = texts(&compose["services"][name]["volumes"]);
        let ours: Vec<_> = volumes.iter().filter(|volume| volume.starts_with("./")).collect();
        assert!(!ours.is_empty(), "{name}");
        for volume in ours {
            let (file, place) = volume[2..].split_once(':').unwrap();
            assert!(path(file).exists(), "{name}: {file}");
            assert!(place.ends_with(":ro"), "{name}: {place}");
        }
        let kept = format!("{name}:");
        assert!(volumes.iter().any(|volume| volume.starts_with(&kept)), "{name} keeps its data");
    }
}

#[test]
fn prometheus_scrapes_the_bridge_under_the_name_that_the_rules_know() {
    let config = documents("deploy/prometheus/prometheus.yml").remove(0);
    let job = &config["scrape_configs"][0];
    assert_eq!(job["job_name"].as_str(), Some(OURS));
    let target = job["static_configs"][0]["targets"][0].as_str().unwrap();
    let (service, port) = target.split_once(':').unwrap();
    let compose = compose();
    let listen = &compose["services"][service]["environment"]["DATA_BRIDGE__HTTP__LISTEN"];
    assert!(listen.as_str().unwrap().ends_with(&format!(":{port}")), "{target}");
    for file in texts(&config["rule_files"]) {
        let rules = documents(&format!("deploy/prometheus/{file}")).remove(0);
        assert!(!rules["groups"][0]["rules"].as_vec().unwrap().is_empty(), "{file}");
    }
}

#[test]
fn grafana_finds_its_prometheus_and_its_dashboard() {
    let folder = "deploy/grafana/provisioning";
    let sources = documents(&format!("{folder}/datasources/prometheus.yml")).remove(0);
    let source = &sources["datasources"][0];
    let compose = compose();
    let url = source["url"].as_str().unwrap();
    let service = url.strip_prefix("http://").unwrap().split(':').next().unwrap();
    assert!(!compose["services"][service].is_badvalue(), "{url}");
    // the dashboard's first choice is that source
    let text = std::fs::read_to_string(path("deploy/grafana/data-bridge.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let first = &dashboard["templating"]["list"][0];
    assert_eq!(first["type"], "datasource");
    assert_eq!(first["current"]["value"].as_str(), source["uid"].as_str());
    // and it lies where Grafana looks
    let providers = documents(&format!("{folder}/dashboards/data-bridge.yml")).remove(0);
    let place = providers["providers"][0]["options"]["path"].as_str().unwrap();
    let volumes = texts(&compose["services"]["grafana"]["volumes"]);
    let mounted = format!("./deploy/grafana/data-bridge.json:{place}/");
    assert!(volumes.iter().any(|volume| volume.starts_with(&mounted)), "{mounted}");
}

/// The bridge's own alerts, Prometheus' rules and the runbook are one list; only that it is down at
/// all the bridge cannot say. What takes its time takes the same time in both.
#[test]
fn the_alerts_of_the_bridge_are_the_rules_of_prometheus() {
    let rules = documents("deploy/prometheus/alerts.yml").remove(0);
    let rules = rules["groups"][0]["rules"].as_vec().unwrap();
    let of_prometheus: Vec<_> = rules
        .iter()
        .map(|rule| {
            let label = |name: &str| rule["labels"][name].as_str().unwrap().to_owned();
            let pending = rule["for"].as_str().map_or(Duration::ZERO, duration);
            (label("id"), label("severity"), pending)
        })
        .collect();
    let (down, others) = of_prometheus.split_first().unwrap();
    assert_eq!(down.0, "down");
    // There the bridge's own rule has waited already.
    let waited = [AlertId::InputLow];
    let own: Vec<_> = AlertId::ALL
        .iter()
        .map(|id| {
            let pending = if waited.contains(id) { Duration::ZERO } else { id.pending() };
            (id.name().to_owned(), id.severity().name().to_owned(), pending)
        })
        .collect();
    assert_eq!(own, others);
}

/// Who is woken finds what it means, what to look at, what to do, and when it ends.
#[test]
fn every_alert_rule_has_its_entry_in_the_runbook() {
    let rules = documents("deploy/prometheus/alerts.yml").remove(0);
    let rules = rules["groups"][0]["rules"].as_vec().unwrap().iter();
    let ids: Vec<_> = rules.map(|rule| rule["labels"]["id"].as_str().unwrap().to_owned()).collect();
    let runbook = read("docs/runbook.md");
    let entries: Vec<_> = runbook
        .split("\n## ")
        .skip(1)
        .map(|entry| entry.split_once('\n').unwrap())
        .filter(|(heading, _)| *heading != "What the log says")
        .collect();
    let headings: Vec<_> = entries.iter().map(|(heading, _)| *heading).collect();
    assert_eq!(headings, ids, "an entry a rule, in their order");
    for (id, text) in entries {
        for part in ["- **Means**: ", "- **Look**: ", "- **Do**: ", "- **Ends**: "] {
            assert!(text.contains(part), "{id}: {part}");
        }
    }
}

/// Runs Prometheus' own judge on a text. Where it is not installed the test says that it is skipped.
fn assert_promtool_accepts(arguments: &[&str], text: &str) {
    let mut input = tempfile::tempfile().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    input.rewind().unwrap();
    let mut promtool = Command::new("promtool");
    promtool.args(arguments).current_dir(path("deploy/prometheus")).stdin(input);
    let done = match promtool.output() {
        Ok(done) => done,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return stack::skip("needs promtool (Debian: prometheus)");
        }
        Err(error) => panic!("promtool: {error}"),
    };
    let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{arguments:?}: {said}");
}

#[test]
fn promtool_accepts_the_configuration_and_the_rules_in_it() {
    assert_promtool_accepts(&["check", "config", "--lint=all", "prometheus.yml"], "");
}

/// Histories of metrics, and what fires of them when.
#[test]
fn promtool_sees_the_rules_fire_and_resolve() {
    assert_promtool_accepts(&["test", "rules", "../../tests/it/deploy/rules.yml"], "");
}

/// Without servers: the shipped configuration has every kind of source, writer and route.
#[tokio::test(flavor = "multi_thread")]
async fn promtool_accepts_a_scrape() {
    let dir = tempfile::tempdir().unwrap();
    let over = dir.path().join("over.toml");
    let text = "http.listen = \"127.0.0.1:0\"\nclickhouse.url = \"http://127.0.0.1:9\"\n\
                kafka.brokers = [\"127.0.0.1:9\"]\nnats.servers = [\"nats://127.0.0.1:9\"]\n";
    std::fs::write(&over, text).unwrap();
    let files = [path("config/data-bridge.toml"), over];
    let mut bridge = Bridge::spawn(dir.path().join("log"), &files);
    bridge.listening().await;
    let scrape = bridge.metrics().await;
    bridge.kill().await;
    assert_promtool_accepts(&["check", "metrics"], &scrape);
}
