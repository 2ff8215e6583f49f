//! How many records the client dropped because we did not read fast enough. Pure.
//!
//! The client counts each message that it parses (`in_messages`: also those that a full channel
//! then drops and those of ended subscriptions; never PING, PONG, INFO or errors), then puts it
//! into the subscription's channel or drops it. It reports drops as events, but loses most of
//! those. So: counted minus taken. Between counting and putting there is an instant in which a
//! message looks dropped and is not; hence a count is used only after the client has answered a
//! command (which it does between messages), and after everything in the channels was taken.

/// What was taken, and what of the rest was reported.
#[derive(Debug, Default)]
pub(super) struct Losses {
    taken: u64,
    reported: u64,
}

impl Losses {
    /// `n` messages came out of the channels, whether they became records or not.
    pub(super) fn took(&mut self, n: u64) {
        self.taken += n;
    }

    /// Whether it is worth finding out: something was counted that has not been taken.
    pub(super) fn suspects(&self, in_messages: u64) -> bool {
        in_messages > self.taken + self.reported
    }

    /// What was lost since the last time. `in_messages` was read before the client answered a
    /// command, and since then every channel was found empty. What came after it was read makes
    /// the answer too small, never too large, and the next one makes up for it.
    pub(super) fn settle(&mut self, in_messages: u64) -> u64 {
        let new = in_messages.saturating_sub(self.taken + self.reported);
        self.reported += new;
        new
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_counted_and_never_taken_is_lost_and_reported_once() {
        let mut losses = Losses::default();
        losses.took(7);
        assert!(losses.suspects(10));
        assert_eq!(losses.settle(10), 3);
        assert!(!losses.suspects(10));
        assert_eq!(losses.settle(10), 0);
    }

    proptest! {
        /// A client of one channel of four; a look reads the count, lets more come, and then takes
        /// all: the reports never exceed what was dropped, and meet it at a quiet moment.
        #[test]
        fn reports_never_exceed_the_drops_and_catch_up(
            history in prop::collection::vec((0_u64..12, 0_u64..6, any::<bool>()), 0..40),
        ) {
            let (mut counted, mut queued, mut dropped, mut reported) = (0, 0_u64, 0, 0);
            let mut losses = Losses::default();
            let mut come = |n: u64, queued: &mut u64, dropped: &mut u64| {
                let kept = n.min(4 - *queued);
                *queued += kept;
                *dropped += n - kept;
                counted += n;
                counted
            };
            for (before, during, look) in history {
                let in_messages = come(before, &mut queued, &mut dropped);
                if look {
                    come(during, &mut queued, &mut dropped);
                    losses.took(std::mem::take(&mut queued));
                    reported += losses.settle(in_messages);
                }
                prop_assert!(reported <= dropped, "{reported} reported of {dropped}");
            }
            let in_messages = come(0, &mut queued, &mut dropped);
            losses.took(queued);
            prop_assert_eq!(reported + losses.settle(in_messages), dropped);
        }
    }
}
