//! How much memory there is for this process: the least of what its cgroups (v2 or v1) allow and what
//! the machine has.
//!
//! Reads files, at the start and now and then, since a container may be given another limit while it
//! runs; knows nothing of what is done with the number.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A limit that came down kills as soon as it is passed, and it takes a few small files to see it.
const EVERY: Duration = Duration::from_secs(10);

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

/// Looks every ten seconds until `end`, and tells when it is another. Where nothing says anything any
/// more, what was known last stays.
pub async fn follow_until(end: CancellationToken, known: watch::Sender<Option<Limit>>) {
    follow(PathBuf::from("/"), end, known).await;
}

async fn follow(root: PathBuf, end: CancellationToken, known: watch::Sender<Option<Limit>>) {
    while end.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        let root = root.clone();
        let Ok(read) = tokio::task::spawn_blocking(move || below(&root)).await else {
            return; // the runtime is going down
        };
        known.send_if_modified(|known| {
            let is_another = read.is_some() && *known != read;
            if is_another {
                *known = read;
            }
            is_another
        });
    }
}

/// With the files of the system below `root`. None where nothing says anything.
fn below(root: &Path) -> Option<Limit> {
    let machine = machine(root).map(|bytes| Limit { bytes, from: "the machine".to_owned() });
    cgroups(root).into_iter().chain(machine).min_by_key(|limit| limit.bytes)
}

/// The limits of its cgroups and of all above them: the lowest counts.
fn cgroups(root: &Path) -> Vec<Limit> {
    let text = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    text.lines().filter_map(Group::of).flat_map(|group| group.limits(root)).collect()
}

/// A group of the hierarchy that has limits of memory.
struct Group<'a> {
    top: &'static str,
    /// Below `top`. In a container it may be the machine's path, of which only `top` is to be seen.
    path: &'a str,
    file: &'static str,
}

impl<'a> Group<'a> {
    /// A line of `/proc/self/cgroup`: of version 2 there is one, `0::/path`; of version 1 one for each
    /// hierarchy, `4:memory:/path`.
    fn of(line: &'a str) -> Option<Self> {
        let (controllers, path) = line.split_once(':')?.1.split_once(":/")?;
        if controllers.is_empty() {
            return Some(Self { top: "sys/fs/cgroup", path, file: "memory.max" });
        }
        let of_memory = controllers.split(',').any(|controller| controller == "memory");
        of_memory.then_some(Self {
            top: "sys/fs/cgroup/memory",
            path,
            file: "memory.limit_in_bytes",
        })
    }

    fn limits(&self, root: &Path) -> Vec<Limit> {
        let of = |group: &Path| {
            let file = group.join(self.file);
            let text = std::fs::read_to_string(root.join(&file)).ok()?;
            let bytes = text.trim().parse().ok()?; // or `max`; version 1 has a huge number for it
            Some(Limit { bytes, from: format!("/{}", file.display()) })
        };
        let group = Path::new(self.top).join(self.path);
        let above = group.ancestors().take_while(|group| group.starts_with(self.top));
        above.filter_map(of).collect()
    }
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

    const GROUPS_OF_V1: (&str, &str) =
        ("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/docker/bridge\n3:cpuset:/\n0::/\n");

    #[test]
    fn of_version_1_the_hierarchy_of_memory_counts() {
        let none = "9223372036854771712\n";
        let files = [
            MEMINFO,
            GROUPS_OF_V1,
            ("sys/fs/cgroup/memory/docker/bridge/memory.limit_in_bytes", "268435456\n"),
            ("sys/fs/cgroup/memory/docker/memory.limit_in_bytes", none),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", none),
        ];
        let file = "/sys/fs/cgroup/memory/docker/bridge/memory.limit_in_bytes";
        assert_eq!(limit(&files), (268_435_456, file.to_owned()));
        let unlimited = [MEMINFO, GROUPS_OF_V1, files[4]];
        assert_eq!(limit(&unlimited), (8_192_000_000, "the machine".to_owned()));
    }

    #[test]
    fn in_a_container_its_own_group_is_at_the_top() {
        let file = "sys/fs/cgroup/memory/memory.limit_in_bytes";
        let files = [MEMINFO, GROUPS_OF_V1, (file, "268435456\n")];
        assert_eq!(limit(&files), (268_435_456, format!("/{file}")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_changes_is_told() {
        let file = "sys/fs/cgroup/pod/bridge/memory.max";
        let root = system(&[MEMINFO, GROUP, (file, "268435456\n")]);
        let (sender, mut known) = watch::channel(below(root.path()));
        let end = CancellationToken::new();
        let mut following = tokio::task::JoinSet::new();
        following.spawn(follow(root.path().to_owned(), end.clone(), sender));
        std::fs::write(root.path().join(file), "134217728\n").unwrap();
        let within = Duration::from_secs(60);
        tokio::time::timeout(within, known.changed()).await.unwrap().unwrap();
        assert_eq!(known.borrow_and_update().as_ref().unwrap().bytes, 134_217_728);
        std::fs::remove_dir_all(root.path()).unwrap();
        tokio::time::sleep(within).await;
        assert!(!known.has_changed().unwrap(), "what nothing says any more stays");
        end.cancel();
        following.join_next().await.unwrap().unwrap();
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
