//! The image has what the program is built from, and runs it as somebody who may do nothing else.

use std::path::Path;
use std::process::Command;

use super::{dockerfile, instructions, path, read};

#[test]
fn the_image_runs_the_bridge_as_nobody_special() {
    let lines = dockerfile();
    assert!(instructions(&lines, "FROM").len() >= 2, "several stages: {lines:?}");
    let last_stage = lines.iter().rposition(|line| line.starts_with("FROM ")).unwrap();
    let last_stage = &lines[last_stage..];
    let user = instructions(last_stage, "USER").pop().expect("a USER");
    let id = user.split(':').next().unwrap().parse::<u32>();
    assert!(id.is_ok_and(|id| id != 0), "by number, and not root: {user}");
    let entry = instructions(last_stage, "ENTRYPOINT").pop().unwrap();
    let entry: Vec<String> = serde_json::from_str(&entry).expect("no shell in between: signals");
    let copied = instructions(last_stage, "COPY").join("\n");
    assert!(copied.contains(&entry[0]), "{entry:?} in {copied}");
    assert_eq!(instructions(last_stage, "CMD").last().unwrap(), "[\"run\"]");
    assert_eq!(instructions(last_stage, "EXPOSE"), ["8080"]);
    let listen = "DATA_BRIDGE__HTTP__LISTEN=0.0.0.0:8080";
    assert!(instructions(last_stage, "ENV").iter().any(|env| env.contains(listen)));
    assert!(instructions(last_stage, "STOPSIGNAL").iter().all(|signal| signal == "SIGTERM"));
}

/// Whatever the program is compiled from is there when the image is built.
#[test]
fn the_image_has_all_sources() {
    let lines = before_the_compiler();
    let copied = copied(&lines);
    let program = ["Cargo.toml", "Cargo.lock", "build.rs", "src/main.rs"];
    let page = ["scripts/build-web", "docs/runbook.md", "web/index.html"];
    let mut files: Vec<String> = program.into_iter().chain(page).map(str::to_owned).collect();
    included(&path("src"), &mut files);
    assert!(files.len() > 7, "the program includes no file any more");
    for file in files {
        assert!(copied.iter().any(|of| covers(of, &file)), "{file} is not copied: {copied:?}");
    }
    for of in &copied {
        assert!(is_sent(of), "{of} is not sent to the builder");
    }
}

/// Cargo refuses a manifest that names a target without a file, whichever target it is to build. `fetch` is
/// as strict as `build`, and finds all that it would fetch where these tests were built.
#[test]
fn cargo_reads_the_manifest_where_only_what_is_copied_lies() {
    let lines = before_the_compiler();
    let stage = lines.iter().rposition(|line| line.starts_with("FROM ")).unwrap();
    let place = tempfile::tempdir().unwrap();
    for of in copied(&lines[stage..]) {
        mirror(&path(&of), &place.path().join(&of));
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["fetch", "--offline", "--locked", "--target=host-tuple"]);
    let done = cargo.current_dir(place.path()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Folders, in which Cargo looks for targets, as folders; files by a link.
fn mirror(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    if !from.is_dir() {
        return std::os::unix::fs::symlink(from, to).unwrap();
    }
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        mirror(&entry.path(), &to.join(entry.file_name()));
    }
}

fn before_the_compiler() -> Vec<String> {
    let mut lines = dockerfile();
    let build = lines.iter().position(|line| line.contains("cargo build")).unwrap();
    lines.truncate(build);
    lines
}

/// What these lines copy from the repository.
fn copied(lines: &[String]) -> Vec<String> {
    let copies = instructions(lines, "COPY").into_iter();
    copies
        .filter(|copy| !copy.starts_with("--from="))
        .flat_map(|copy| {
            let mut words: Vec<String> = copy.split(' ').map(str::to_owned).collect();
            words.pop();
            words
        })
        .collect()
}

/// Whether .dockerignore lets it through.
fn is_sent(file: &str) -> bool {
    let ignored = read(".dockerignore");
    let mut sent = ignored.lines().filter_map(|line| line.strip_prefix('!'));
    sent.any(|of| covers(of, file))
}

fn covers(of: &str, file: &str) -> bool {
    Path::new(file).starts_with(of)
}

/// The files that `include_str!` and `include_bytes!` name, from the repository's root.
fn included(dir: &Path, files: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap().path();
        if matches!(entry.file_stem().and_then(|stem| stem.to_str()), Some("tests")) {
            continue; // not compiled there
        }
        if entry.is_dir() {
            included(&entry, files);
            continue;
        }
        let Ok(text) = std::fs::read_to_string(&entry) else { continue };
        for part in text.split("include_").skip(1) {
            let Some(("str!(" | "bytes!(", rest)) = part.split_once('"') else { continue };
            let name = rest.split('"').next().unwrap();
            let whole = entry.parent().unwrap().join(name).canonicalize().unwrap();
            let root = path("").canonicalize().unwrap();
            files.push(whole.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        }
    }
}
