//! A disk of ClickHouse that can be filled without any rights: its files lie in memory (`/dev/shm`), and
//! it leaves so much free that there is little room; a file beside them takes that.

use std::path::PathBuf;
use std::process::Command;

use crate::lab::Lab;
use crate::stack::skip;

const MIB: u64 = 1024 * 1024;
/// What ClickHouse finds at first. Containers often have 64 MiB in all.
const ROOM: u64 = 24 * MIB;
const MEMORY: &str = "/dev/shm";

pub(super) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Of this lab's own ClickHouse, as the storage policy `small`. None where there is no such
    /// memory, which is said.
    pub(super) async fn given_to(lab: &Lab) -> Option<Self> {
        let free = free_bytes().filter(|free| *free > 2 * ROOM);
        let Some(free) = free else {
            skip("it fills a small disk in /dev/shm, and there is none, or it has not 48 MiB");
            return None;
        };
        let folder = PathBuf::from(MEMORY).join(&lab.name);
        std::fs::create_dir(&folder).unwrap();
        let disk = Self(folder);
        let config = format!(
            "<clickhouse><storage_configuration><disks><small><path>{}/data/</path>\
             <keep_free_space_bytes>{}</keep_free_space_bytes></small></disks><policies><small>\
             <volumes><main><disk>small</disk></main></volumes></small></policies>\
             </storage_configuration></clickhouse>\n",
            disk.0.display(),
            free - ROOM
        );
        lab.of_stack(|stack| {
            let beside_log = PathBuf::from(stack.address("CLICKHOUSE_LOG")).with_extension("");
            let more = beside_log.join("config.d");
            std::fs::create_dir(&more).unwrap();
            std::fs::write(more.join("small.xml"), config).unwrap();
            stack.kill("clickhouse");
            stack.start("clickhouse");
        })
        .await;
        Some(disk)
    }

    pub(super) fn fill(&self) {
        let bytes = vec![1; usize::try_from(ROOM + MIB).unwrap()];
        std::fs::write(self.0.join("others"), bytes).unwrap();
    }

    pub(super) fn make_room(&self) {
        std::fs::remove_file(self.0.join("others")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // what is left over is memory that nobody has: it is seen in /dev/shm
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn free_bytes() -> Option<u64> {
    let asked = Command::new("df").args(["-B1", "--output=avail", MEMORY]).output().ok()?;
    String::from_utf8(asked.stdout).ok()?.lines().last()?.trim().parse().ok()
}
