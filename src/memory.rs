//! Gives memory that is free back to the system, now and then.
//!
//! glibc keeps what was freed in as many arenas as threads asked at once, each as large as it ever
//! was, as long as anything at its end is in use. Measured after an outage of two minutes with a
//! full buffer: 10 MB in use in arenas of 223 MB, 248 MB resident; after a trim 78 MB. Without it
//! the resident memory of a bridge with small outages grows for hours, and looks like a leak.
//!
//! Owns nothing. One of the two files with `unsafe`: there is no safe name for this call.

pub mod limit;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// A trim of 200 MB takes some ten milliseconds, in which threads that allocate may wait, and what
/// was given back costs a page fault when it is wanted again: under a thousandth of the time.
const EVERY: Duration = Duration::from_secs(60);

/// Until `end`.
pub async fn give_back_until(end: CancellationToken) {
    while end.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        // It computes rather than waits: not on the threads that serve.
        if tokio::task::spawn_blocking(trim).await.is_err() {
            return; // the runtime is going down
        }
    }
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "a plain C function; measured above")]
fn trim() {
    // SAFETY: it may be called at any time, by any thread, and takes a number by value. It says
    // whether anything was given back, which is all the same to us.
    let _gave_back = unsafe { libc::malloc_trim(0) };
}

/// Other allocators give back by themselves.
#[cfg(not(target_env = "gnu"))]
fn trim() {}

#[cfg(test)]
#[cfg(target_env = "gnu")]
mod tests {
    use super::*;

    fn resident_mib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    /// Pieces of the size of records, of which one in a thousand stays: the arena cannot shrink.
    #[test]
    fn what_is_free_between_pieces_in_use_goes_back_to_the_system() {
        let pieces: Vec<Box<[u8]>> = (0..200_000).map(|_| vec![1; 1_000].into()).collect();
        let full = resident_mib();
        let kept: Vec<_> = pieces.into_iter().step_by(1_000).collect();
        trim();
        let left = resident_mib();
        assert!(left + 100 < full, "{full} MiB, and {left} MiB after 190 MiB were freed");
        drop(kept);
    }
}
