//! A memory limit that the kernel keeps: a cgroup of version 1 below that of the test.

use std::path::{Path, PathBuf};

/// A group with a limit. What is in it is killed when it takes more.
pub(super) struct Group(PathBuf);

impl Group {
    /// None where groups cannot be made: without the rights, or under version 2, which wants them to be
    /// given away from above.
    pub(super) fn limited(mib: u64) -> Option<Self> {
        let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let of_memory = |line: &str| {
            let (controllers, path) = line.split_once(':')?.1.split_once(":/")?;
            controllers.split(',').any(|name| name == "memory").then(|| path.to_owned())
        };
        let own = Path::new("/sys/fs/cgroup/memory").join(text.lines().find_map(of_memory)?);
        let name = format!("data-bridge-test-{:08x}", rand::random::<u32>());
        let group = Self(own.join(name));
        std::fs::create_dir(&group.0).ok()?;
        // What a process took before it came here is not counted; a bridge that begins, some 25 MiB.
        group.write("memory.limit_in_bytes", mib * 1024 * 1024)?;
        Some(group)
    }

    fn write(&self, file: &str, value: u64) -> Option<()> {
        std::fs::write(self.0.join(file), value.to_string()).ok()
    }

    /// From now on this process has to keep within it.
    pub(super) fn take(&self, pid: u32) {
        self.write("cgroup.procs", pid.into()).expect("a process of ours");
    }

    /// How often something was killed for want of memory, and the most that was ever taken, in MiB.
    pub(super) fn killed_and_peak(&self) -> (u64, u64) {
        let read = |file: &str| std::fs::read_to_string(self.0.join(file)).unwrap();
        let control = read("memory.oom_control");
        let kills = control.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap();
        let peak: u64 = read("memory.max_usage_in_bytes").trim().parse().unwrap();
        (kills.parse().unwrap(), peak / 1024 / 1024)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its processes have ended; if one has not, the group stays, empty of meaning.
        drop(std::fs::remove_dir(&self.0));
    }
}
