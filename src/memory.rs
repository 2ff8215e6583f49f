//! How memory that is free is kept, and given back to the system now and then.
//!
//! glibc keeps what was freed in as many arenas as threads asked at once, each as large as it ever
//! was, as long as anything at its end is in use. Measured after an outage of two minutes with a
//! full buffer: 10 MB in use in arenas of 223 MB, 248 MB resident; after a trim 78 MB. Without it
//! the resident memory of a bridge with small outages grows for hours, and looks like a leak.
//!
//! In between it is kept. Left alone, glibc gives back what a batch took as soon as the batch is
//! gone, and the next one has all of it faulted in again, page by page: a third of what the thread
//! that takes records from Kafka computed.
//!
//! Owns nothing. One of the two files with `unsafe`: there is no safe name for these calls.

pub mod limit;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// A trim of 200 MB takes some ten milliseconds, in which threads that allocate may wait, and what
/// was given back costs a page fault when it is wanted again: under a thousandth of the time.
const EVERY: Duration = Duration::from_secs(60);

/// Sets how it is kept, and gives back what is free, now and then, until `end`.
pub async fn give_back_until(end: CancellationToken) {
    keep();
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

/// Bodies of inserts are as large as that, and chunks are smaller: both are taken from what is kept.
#[cfg(target_env = "gnu")]
const KEPT_AT_ONCE: libc::c_int = 32 << 20;

/// So much may be free at the end of an arena before it is given back there and then.
#[cfg(target_env = "gnu")]
const KEPT_IN_ALL: libc::c_int = 128 << 20;

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "a plain C function; measured above")]
fn keep() {
    // SAFETY: both take numbers by value, and may be called at any time.
    let is_set = unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT_AT_ONCE) == 1
            && libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_IN_ALL) == 1
    };
    if !is_set {
        tracing::debug!("glibc keeps free memory as it likes");
    }
}

/// Other allocators keep and give back by themselves.
#[cfg(not(target_env = "gnu"))]
fn keep() {}

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
