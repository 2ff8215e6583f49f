//! Whether the streams that are read can become others while the bridge runs. Pure.
//!
//! A consumer knows how far its subjects were read; another consumer, and core NATS, know nothing of
//! that. So a subject that is read now stays with its consumer, or is not read for a while: else its
//! records would come again, or some of them never.

use std::collections::BTreeMap;

use anyhow::bail;

use crate::config::{JetStreamRoute, Takes};
use crate::subject::SubjectPattern;

/// # Errors
///
/// What cannot change, why, and what to do instead.
pub(in super::super) fn can_go_over(from: &Takes, to: &Takes) -> anyhow::Result<()> {
    for (route, wanted) in &to.streams {
        let before = by_consumer(&from.streams, &wanted.consumer);
        before.map_or(Ok(()), |before| keeps_its_place(route, before, wanted))?;
        let others = from.streams.values().filter(|other| other.consumer != wanted.consumer);
        for (subject, other) in
            others.flat_map(|other| other.subjects.iter().map(move |s| (s, other)))
        {
            if wanted.subjects.iter().any(|wanted| wanted.overlaps(subject)) {
                let (consumer, mine) = (&other.consumer, &wanted.consumer);
                bail!(
                    "routes.{route}.jetstream_subjects: \"{subject}\" is read by the consumer \
                     {consumer} now, and {mine} does not know how far: records would come again or \
                     be left out; keep the consumer (jetstream_consumer = \"{consumer}\"), or restart \
                     the bridge"
                );
            }
        }
    }
    changes_its_mode(from, to)?;
    changes_its_mode(to, from)
}

fn by_consumer<'a>(
    streams: &'a BTreeMap<String, JetStreamRoute>,
    consumer: &str,
) -> Option<&'a JetStreamRoute> {
    streams.values().find(|takes| takes.consumer == consumer)
}

/// Exactly once keeps its place in a key that is named by stream and consumer.
fn keeps_its_place(
    route: &str,
    before: &JetStreamRoute,
    wanted: &JetStreamRoute,
) -> anyhow::Result<()> {
    let consumer = &wanted.consumer;
    if before.exactly_once != wanted.exactly_once {
        bail!(
            "routes.{route}.delivery: whether the consumer {consumer} is read exactly once cannot \
             change while it is read: restart the bridge for it"
        );
    }
    if wanted.exactly_once && before.stream != wanted.stream {
        bail!(
            "routes.{route}.jetstream_stream: how far {consumer} is read exactly once is known of \
             one stream: restart the bridge for another"
        );
    }
    Ok(())
}

/// By core NATS before, by JetStream after; or the other way.
fn changes_its_mode(core: &Takes, streams: &Takes) -> anyhow::Result<()> {
    let core: Vec<&SubjectPattern> = core.subjects.iter().chain(&core.system).collect();
    for (route, takes) in &streams.streams {
        let both = |subject: &&SubjectPattern| core.iter().any(|core| core.overlaps(subject));
        if let Some(subject) = takes.subjects.iter().find(both) {
            bail!(
                "routes.{route}.jetstream_subjects: \"{subject}\" cannot go over between nats_subjects \
                 and jetstream_subjects while it is read, because records would come twice or be \
                 missed: restart the bridge for it"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name: subjects by consumer`, exactly once where the name ends in `!`.
    fn takes(streams: &[(&str, &str, &str)], core: &[&str]) -> Takes {
        let stream = |(name, subject, consumer): &(&str, &str, &str)| {
            let takes = JetStreamRoute {
                subjects: vec![subject.parse().unwrap()],
                stream: None,
                consumer: (*consumer).to_owned(),
                exactly_once: name.ends_with('!'),
            };
            ((*name).to_owned(), takes)
        };
        Takes {
            topics: Vec::new(),
            subjects: core.iter().map(|subject| subject.parse().unwrap()).collect(),
            system: Vec::new(),
            published: std::collections::BTreeSet::new(),
            streams: streams.iter().map(stream).collect(),
        }
    }

    fn refused(from: &Takes, to: &Takes) -> String {
        can_go_over(from, to).unwrap_err().to_string()
    }

    #[test]
    fn routes_and_subjects_may_come_and_go_and_be_renamed() {
        let one = takes(&[("a", "a.>", "g-a")], &["c.>"]);
        for other in [
            takes(&[("a", "a.>", "g-a"), ("b", "b.>", "g-b")], &["c.>", "d"]),
            takes(&[("a", "x.>", "g-a")], &[]),
            takes(&[("z", "a.>", "g-a")], &["c.>"]),
            takes(&[], &["c.>"]),
        ] {
            can_go_over(&one, &other).unwrap();
            can_go_over(&other, &one).unwrap();
        }
    }

    #[test]
    fn a_subject_that_is_read_stays_with_its_consumer() {
        let from = takes(&[("a", "a.>", "g-a")], &[]);
        let why = refused(&from, &takes(&[("b", "a.b", "g-b")], &[]));
        assert!(why.contains("jetstream_consumer = \"g-a\""), "{why}");
    }

    #[test]
    fn a_subject_stays_in_its_mode() {
        let (stream, core) = (takes(&[("a", "a.>", "g-a")], &[]), takes(&[], &["a.*"]));
        assert!(refused(&stream, &core).contains("restart"));
        assert!(refused(&core, &stream).contains("restart"));
    }

    #[test]
    fn what_is_promised_of_a_consumer_and_of_which_stream_stays() {
        let (once, least) =
            (takes(&[("a!", "a.>", "g-a")], &[]), takes(&[("a", "a.>", "g-a")], &[]));
        assert!(refused(&once, &least).contains("routes.a.delivery"));
        assert!(refused(&least, &once).contains("routes.a!.delivery"));
        let mut other = once.clone();
        other.streams.get_mut("a!").unwrap().stream = Some("OTHER".to_owned());
        assert!(refused(&once, &other).contains("routes.a!.jetstream_stream"));
        let mut named = least.clone();
        named.streams.get_mut("a").unwrap().stream = Some("OTHER".to_owned());
        can_go_over(&least, &named).unwrap();
    }
}
