//! Time, by the clock and by the operating system's accounting.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// What was used, and the bytes that went through.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spent {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    pub(crate) bytes: usize,
}

/// Measures from its making on.
#[derive(Debug)]
pub(crate) struct Meter {
    whose: Whose,
    began: Instant,
    cpu: Duration,
}

/// Which threads count.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Whose {
    ThisThread,
    WholeProcess,
}

impl Meter {
    pub(crate) fn start(whose: Whose) -> Result<Self> {
        Ok(Self { whose, cpu: cpu(whose)?, began: Instant::now() })
    }

    /// Adds what was used since the start.
    pub(crate) fn stop(self, into: &mut Spent) -> Result<()> {
        into.wall += self.began.elapsed();
        into.cpu += cpu(self.whose)?.saturating_sub(self.cpu);
        Ok(())
    }
}

/// In nanoseconds, unlike `stat`; a thread that has ended is missing, and ours end when we do.
fn cpu(whose: Whose) -> Result<Duration> {
    match whose {
        Whose::ThisThread => of_thread(Path::new("/proc/thread-self")),
        Whose::WholeProcess => {
            let threads = std::fs::read_dir("/proc/self/task").context("listing our threads")?;
            threads.map(|thread| of_thread(&thread?.path())).sum()
        }
    }
}

fn of_thread(directory: &Path) -> Result<Duration> {
    let text = std::fs::read_to_string(directory.join("schedstat"))?;
    let ran = text.split(' ').next().context("schedstat is empty")?;
    Ok(Duration::from_nanos(ran.parse().context("schedstat")?))
}
