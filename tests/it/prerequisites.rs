//! What no package of the system brings is asked for before anything is installed or built.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use tempfile::TempDir;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Runs a check of `scripts/lib/prerequisites.sh` where these programs say these versions: its exit code, and
/// what it says.
fn run(check: &str, programs: &[(&str, &str)]) -> (Option<i32>, String) {
    let folder = TempDir::new().unwrap();
    for (name, says) in programs {
        let program = folder.path().join(name);
        std::fs::write(&program, format!("#!/bin/sh\n{says}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let script = format!("set -euo pipefail; source scripts/lib/prerequisites.sh; {check}");
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let done =
        Command::new("bash").args(["-c", &script]).current_dir(ROOT).env("PATH", path).output();
    let done = done.unwrap();
    (done.status.code(), String::from_utf8(done.stderr).unwrap())
}

#[test]
fn a_rust_that_is_too_old_is_named_before_cargo_refuses() {
    let (code, said) =
        run("require_rust", &[("cargo", "echo 'cargo 1.85.0 (d73d2caf9 2024-12-31)'")]);
    let oldest = env!("CARGO_PKG_RUST_VERSION");
    assert!(code == Some(69) && said.contains(oldest) && said.contains("1.85.0"), "{said}");
    let (code, said) = run("require_rust", &[("cargo", "exit 127")]);
    assert!(code == Some(69) && said.contains("none is here"), "{said}");
    let new = format!("echo 'cargo {oldest}.0 (f2d3ce0bd 2026-03-21)'");
    assert_eq!(run("require_rust", &[("cargo", &new)]), (Some(0), String::new()));
    assert_eq!(
        run("require_rust", &[("cargo", "echo 'cargo 1.100.0 (0 2027-01-01)'")]),
        (Some(0), String::new())
    );
}

#[test]
fn a_node_that_is_too_old_is_named_before_anything_is_installed() {
    let (code, said) = run("require_node", &[("node", "echo v18.19.0")]);
    assert!(code == Some(69) && said.contains("20.19") && said.contains("v18.19.0"), "{said}");
    assert_eq!(run("require_node", &[("node", "echo v20.19.0")]), (Some(0), String::new()));
    // None here: what apt would bring counts.
    let apt = |version: &str| format!("echo 'nodejs:'; echo '  Candidate: {version}'");
    let old = [("node", "exit 127"), ("apt-cache", &apt("18.20.4+dfsg-1~deb12u3"))];
    let (code, said) = run("require_node", &old);
    assert!(code == Some(69) && said.contains("18.20.4"), "{said}");
    let new = [("node", "exit 127"), ("apt-cache", &apt("20.19.2+dfsg-1"))];
    assert_eq!(run("require_node", &new), (Some(0), String::new()));
    let unknown = [("node", "exit 127"), ("apt-cache", &apt("(none)"))];
    assert_eq!(run("require_node", &unknown), (Some(0), String::new()));
}
