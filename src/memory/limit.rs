//! How much memory there is for this process: the least of what its cgroups (v2) allow and what
//! the machine has.
//!
//! Reads files, once; knows nothing of what is done with the number.

use std::path::{Path, PathBuf};

/// So much, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    pub bytes: usize,
    pub from: String,
}

/// Of this process.
#[must_use]
pub fn of_this_process() -> Option<Limit> {
    below(Path::new("/"))
}

/// With the files of the system below `root`. None where nothing says anything.
fn below(root: &Path) -> Option<Limit> {
    let machine = machine(root).map(|bytes| Limit { bytes, from: "the machine".to_owned() });
    cgroups(root).into_iter().chain(machine).min_by_key(|limit| limit.bytes)
}

/// The limits of its cgroup and of all above it: the lowest counts.
fn cgroups(root: &Path) -> Vec<Limit> {
    let Ok(text) = std::fs::read_to_string(root.join("proc/self/cgroup")) else {
        return Vec::new();
    };
    // Of version 2 there is one line, `0::/path`.
    let Some(path) = text.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return Vec::new();
    };
    let top = PathBuf::from("sys/fs/cgroup");
    let of = |group: &Path| {
        let file = group.join("memory.max");
        let text = std::fs::read_to_string(root.join(&file)).ok()?;
        let bytes = text.trim().parse().ok()?; // or `max`
        Some(Limit { bytes, from: format!("/{}", file.display()) })
    };
    let group = top.join(path);
    group.ancestors().take_while(|group| group.starts_with(&top)).filter_map(of).collect()
}

fn machine(root: &Path) -> Option<usize> {
    let text = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:        8000000 kB\nMemFree: 1 kB\n");
    const GROUP: (&str, &str) = ("proc/self/cgroup", "9:name=systemd:/\n0::/pod/bridge\n");

    fn limit(files: &[(&str, &str)]) -> (usize, String) {
        let limit = below(system(files).path()).unwrap();
        (limit.bytes, limit.from)
    }

    #[test]
    fn the_lowest_of_the_cgroups_above_counts() {
        let files = [
            MEMINFO,
            GROUP,
            ("sys/fs/cgroup/pod/bridge/memory.max", "max\n"),
            ("sys/fs/cgroup/pod/memory.max", "268435456\n"),
        ];
        assert_eq!(limit(&files), (268_435_456, "/sys/fs/cgroup/pod/memory.max".to_owned()));
    }

    #[test]
    fn a_limit_beyond_the_machine_is_none() {
        let files = [MEMINFO, GROUP, ("sys/fs/cgroup/pod/bridge/memory.max", "99999999999\n")];
        assert_eq!(limit(&files), (8_192_000_000, "the machine".to_owned()));
        assert_eq!(limit(&[MEMINFO]), (8_192_000_000, "the machine".to_owned()));
    }

    #[test]
    fn where_nothing_says_anything_there_is_no_limit() {
        assert_eq!(below(system(&[]).path()), None);
    }

    #[test]
    fn this_process_has_one() {
        assert!(of_this_process().is_some_and(|limit| limit.bytes > 64 * 1024 * 1024));
    }
}
