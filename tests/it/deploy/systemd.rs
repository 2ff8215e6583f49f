//! The systemd unit runs a command that exists, stops it late enough, and gives it nothing that it
//! does not need.

use std::time::Duration;

use super::{assert_fits, config_with, duration, path, read};
use crate::bridge::program;

/// The values of a key, in their order. Keys may stand there more than once.
fn values(key: &str) -> Vec<String> {
    let text = read("deploy/systemd/data-bridge.service");
    let start = format!("{key}=");
    text.lines().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
}

fn value(key: &str) -> String {
    let mut values = values(key);
    assert_eq!(values.len(), 1, "{key}");
    values.remove(0)
}

#[test]
fn every_line_is_a_section_a_comment_or_a_key() {
    for line in read("deploy/systemd/data-bridge.service").lines() {
        let is_key = line.split_once('=').is_some_and(|(key, _)| {
            !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric())
        });
        let is_section = ["[Unit]", "[Service]", "[Install]"].contains(&line);
        assert!(line.is_empty() || line.starts_with('#') || is_section || is_key, "{line}");
    }
}

#[tokio::test]
async fn it_is_killed_only_after_its_grace() {
    let (_, said) = config_with(&std::collections::BTreeMap::new()).await;
    let config: toml::Table = said.parse().unwrap();
    let grace = duration(config["shutdown"]["grace"].as_str().unwrap());
    let killed: u64 = value("TimeoutStopSec").parse().unwrap();
    assert!(Duration::from_secs(killed) >= grace + Duration::from_secs(5), "{killed} s, {grace:?}");
}

#[tokio::test]
async fn its_limit_of_memory_fits_what_may_be_held() {
    assert_fits(std::collections::BTreeMap::new(), &value("MemoryMax")).await;
}

/// The command and the variable, on the shipped configuration, with the credential where systemd
/// would put it.
#[tokio::test]
async fn what_it_starts_is_a_command_that_exists() {
    let credentials = tempfile::tempdir().unwrap();
    let credential = value("LoadCredential");
    let (name, _) = credential.split_once(':').unwrap();
    std::fs::write(credentials.path().join(name), "secret\n").unwrap();
    let variable = value("Environment").replace("%d", credentials.path().to_str().unwrap());
    let (variable, file) = variable.split_once('=').unwrap();

    let start = value("ExecStart");
    let mut words: Vec<&str> = start.split(' ').collect();
    assert!(words.remove(0).ends_with("/data-bridge"), "{start}");
    assert_eq!(words.pop(), Some("run"));
    let shipped = path("config/data-bridge.toml");
    let mut command = program();
    for word in words {
        let is_file = word.ends_with(".toml");
        command.arg(if is_file { shipped.to_str().unwrap() } else { word });
    }
    command.arg("config").env(variable, file);
    let done = tokio::time::timeout(Duration::from_secs(20), command.output()).await;
    let done = done.unwrap().unwrap();
    let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.contains(file), "{said}");
    assert_eq!(value("Type"), "exec");
    // wrong usage or configuration
    assert_eq!(value("RestartPreventExitStatus"), "64");
}

#[test]
fn it_has_nothing_to_write_to_and_no_privilege() {
    for key in ["CapabilityBoundingSet", "AmbientCapabilities"] {
        assert_eq!(value(key), "", "{key}");
    }
    assert_eq!(value("ProtectSystem"), "strict");
    for key in [
        "DynamicUser",
        "NoNewPrivileges",
        "ProtectHome",
        "PrivateTmp",
        "PrivateDevices",
        "ProtectKernelTunables",
        "ProtectKernelModules",
        "ProtectControlGroups",
        "RestrictSUIDSGID",
        "RestrictNamespaces",
        "MemoryDenyWriteExecute",
        "LockPersonality",
    ] {
        assert_eq!(value(key), "yes", "{key}");
    }
    assert!(values("SystemCallFilter")[0].starts_with("@system-service"));
    assert!(values("ReadWritePaths").is_empty());
}
