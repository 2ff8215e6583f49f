//! What the log says of a subscriber that loses messages: the first at once, then at most once a
//! second with the count. Pure.

use std::time::Duration;

use tokio::time::Instant;

const AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// What was lost since the last line.
#[derive(Debug, Default)]
pub(super) struct DropLog {
    last: Option<Instant>,
    untold: u64,
}

impl DropLog {
    /// So many more; how many the line that is due tells of.
    pub(super) fn note(&mut self, count: u64, every: bool, now: Instant) -> Option<u64> {
        self.untold += count;
        let soon = self.last.is_some_and(|last| now.duration_since(last) < AT_MOST_EVERY);
        if self.untold == 0 || soon && !every {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_then_one_line_a_second_with_the_count() {
        let (mut log, start) = (DropLog::default(), Instant::now());
        let mut at = |ms, count| log.note(count, false, start + Duration::from_millis(ms));
        assert_eq!(at(0, 0), None, "nothing is no news");
        assert_eq!(at(0, 1), Some(1));
        assert_eq!([at(1, 1), at(500, 7), at(999, 1)], [None; 3]);
        assert_eq!(at(1_000, 1), Some(10));
        assert_eq!(at(9_000, 2), Some(2));
    }

    #[test]
    fn each_is_told_where_that_is_wanted() {
        let (mut log, now) = (DropLog::default(), Instant::now());
        assert_eq!([log.note(1, true, now), log.note(3, true, now)], [Some(1), Some(3)]);
    }
}
