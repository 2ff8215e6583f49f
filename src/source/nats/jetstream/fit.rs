//! Whether a consumer that exists is what a route needs. Pure, but for a word to the log.

use std::collections::BTreeSet;

use async_nats::jetstream::consumer::{AckPolicy, Config};

use super::bind::Wish;
use crate::subject::SubjectPattern;

impl Wish {
    /// What of an existing consumer would lose records or bring the wrong ones.
    pub(super) fn misfits(&self, is: &Config) -> Vec<String> {
        let mut misfits = Vec::new();
        let (filters, wanted) = (filters(is), named(&self.takes.subjects));
        if filters != wanted {
            let list = |set: &BTreeSet<&str>| set.iter().copied().collect::<Vec<_>>().join(" ");
            misfits.push(format!(
                "it filters by [{}] and not by [{}]",
                list(&filters),
                list(&wanted)
            ));
        }
        if is.ack_policy != self.ack_policy() {
            let ack = |policy: AckPolicy| match policy {
                AckPolicy::Explicit => "explicit",
                AckPolicy::All => "all",
                _ => "none",
            };
            misfits.push(format!(
                "its ack policy is {} and not {} (nats.jetstream.ack)",
                ack(is.ack_policy),
                ack(self.ack_policy())
            ));
        }
        if is.max_deliver > 0 {
            misfits.push(format!(
                "it gives up after {} deliveries (max_deliver must be unlimited, -1)",
                is.max_deliver
            ));
        }
        if is.headers_only {
            misfits.push("it delivers headers only".to_owned());
        }
        misfits
    }

    /// Says so if the consumer lets us hold less than is wanted: it is never changed, and nothing else
    /// would tell why it is slow.
    pub(super) fn note_narrow(&self, is: &Config) {
        if let Some(holds) = self.narrow(is) {
            let (route, consumer) = (&self.route, &self.takes.consumer);
            tracing::warn!(
                event = "jetstream_consumer_narrow",
                route,
                consumer,
                max_ack_pending = holds,
                wanted = self.settings.max_ack_pending,
                "the consumer hands out fewer records at a time than the bridge would hold, and \
                 batches may wait for their linger: nats consumer edit --max-pending"
            );
        }
    }

    /// How many records all may hold of it, where these are fewer than wanted.
    fn narrow(&self, is: &Config) -> Option<i64> {
        let holds = is.max_ack_pending;
        let enough = usize::try_from(holds).is_ok_and(|n| n >= self.settings.max_ack_pending);
        (holds > 0 && !enough).then_some(holds)
    }
}

/// What a consumer filters by.
pub(super) fn filters(is: &Config) -> BTreeSet<&str> {
    let single = Some(&is.filter_subject).filter(|subject| !subject.is_empty());
    single.into_iter().chain(&is.filter_subjects).map(String::as_str).collect()
}

pub(super) fn named(subjects: &[SubjectPattern]) -> BTreeSet<&str> {
    subjects.iter().map(SubjectPattern::as_str).collect()
}

#[cfg(test)]
mod tests {
    use async_nats::jetstream::consumer::IntoConsumerConfig as _;
    use async_nats::jetstream::consumer::pull;

    use super::super::bind::tests::wish;
    use super::*;

    #[test]
    fn what_we_make_ourselves_fits() {
        let wish = wish();
        assert_eq!(wish.misfits(&wish.wanted().into_consumer_config()), Vec::<String>::new());
    }

    #[test]
    fn a_consumer_that_would_lose_records_does_not_fit() {
        let wish = wish();
        type Change = fn(&mut pull::Config);
        let changes: [(Change, &str); 4] = [
            (|config| config.filter_subjects = vec!["a.*".to_owned()], "filters by [a.*]"),
            (|config| config.ack_policy = AckPolicy::None, "ack policy is none"),
            (|config| config.max_deliver = 5, "gives up after 5"),
            (|config| config.headers_only = true, "headers only"),
        ];
        for (change, says) in changes {
            let mut config = wish.wanted();
            change(&mut config);
            let misfits = wish.misfits(&config.into_consumer_config());
            assert!(misfits.len() == 1 && misfits[0].contains(says), "{says}: {misfits:?}");
        }
    }

    #[test]
    fn a_consumer_that_holds_less_than_is_wanted_is_told() {
        let wish = wish();
        let holds = |max_ack_pending| {
            let config = pull::Config { max_ack_pending, ..wish.wanted() };
            wish.narrow(&config.into_consumer_config())
        };
        assert_eq!([99, 100, 101, -1].map(holds), [Some(99), None, None, None]);
    }
}
