//! What was seen, so that a connection that is made again goes on where the last one ended: the
//! bridge replays what it remembers, and of that only what is new is shown. Pure.

use std::collections::{BTreeSet, VecDeque};

/// So many messages are asked for of each topic, and as many ids are remembered.
pub(super) const REMEMBERED: usize = 1_000;

/// Up to where a feed was seen.
#[derive(Debug, Default)]
pub(super) struct Resume {
    /// Of the newest message; times of the bridge are ordered as texts.
    until: String,
    order: VecDeque<String>,
    ids: BTreeSet<String>,
    /// The connection was lost once: what comes may be a repetition.
    again: bool,
}

impl Resume {
    /// From here on there may be repetitions.
    pub(super) fn reconnected(&mut self) {
        self.again = true;
    }

    /// Somebody asked for messages from before: these are no repetition.
    pub(super) fn asked_for(&mut self) {
        self.again = false;
    }

    /// The bridge's time, from whatever it said that is no event: when somebody began to watch.
    /// On a later connection such a word comes before what is replayed, and says nothing of it.
    pub(super) fn is_now(&mut self, ts: &str) {
        if !self.again {
            self.seen_until(ts);
        }
    }

    fn seen_until(&mut self, ts: &str) {
        if self.until.as_str() < ts {
            ts.clone_into(&mut self.until);
        }
    }

    /// Whether this event was not seen before. What is older than the newest that was seen was
    /// either seen, or was there before anybody watched.
    pub(super) fn is_new(&mut self, id: &str, ts: &str) -> bool {
        if self.again && (self.ids.contains(id) || ts < self.until.as_str()) {
            return false;
        }
        self.seen_until(ts);
        if self.ids.insert(id.to_owned()) {
            self.order.push_back(id.to_owned());
        }
        if self.order.len() > REMEMBERED {
            let oldest = self.order.pop_front();
            oldest.map(|oldest| self.ids.remove(&oldest));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_reconnection_only_what_is_new_is_shown() {
        let mut resume = Resume::default();
        resume.is_now("10:00");
        assert!(resume.is_new("a", "10:01") && resume.is_new("b", "10:02"));
        resume.reconnected();
        resume.is_now("10:05");
        assert!(!resume.is_new("z", "09:59"), "it was there before anybody watched");
        assert!(!resume.is_new("a", "10:01") && !resume.is_new("b", "10:02"));
        assert!(resume.is_new("c", "10:02"), "in the same millisecond, and missed");
        assert!(resume.is_new("d", "10:03") && !resume.is_new("d", "10:03"));
    }

    #[test]
    fn on_one_connection_a_record_that_comes_again_is_shown_again() {
        let mut resume = Resume::default();
        assert!(resume.is_new("a", "10:01") && resume.is_new("a", "10:02"));
    }

    #[test]
    fn what_somebody_asks_for_is_shown_again() {
        let mut resume = Resume::default();
        assert!(resume.is_new("a", "10:01"));
        resume.reconnected();
        resume.asked_for();
        assert!(resume.is_new("a", "10:01"));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut resume = Resume::default();
        for n in 0..3 * REMEMBERED {
            assert!(resume.is_new(&n.to_string(), "10:00"));
        }
        assert_eq!((resume.ids.len(), resume.order.len()), (REMEMBERED, REMEMBERED));
    }
}
