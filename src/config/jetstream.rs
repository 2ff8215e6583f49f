//! Validates what is said of JetStream: the connection-wide part, and what routes take by it.

use std::time::Duration;

use super::limits::Ahead;
use super::problem::Problems;
use super::rate;
use super::raw_jetstream as raw;
use super::raw_route;
use super::units::Size;
use super::{Ack, Deliver, JetStream, JetStreamApi, JetStreamRoute, JetStreamState};
use crate::subject::{SubjectPattern, minimal};

/// Below it the records of a bridge that is busy for a moment would come again.
const LEAST_ACK_WAIT: Duration = Duration::from_secs(1);
/// Below it an instance that is busy for a moment would lose what it reads to another.
const LEAST_LEASE: Duration = Duration::from_secs(1);
/// Buffers that all instances together may fill of one consumer where nothing else is said.
const BUFFERS: usize = 2;
/// The most that may be given.
const MOST_PENDING: usize = 10_000_000;
/// The server's limit on the name of a consumer.
const NAME_CHARS: usize = 255;

/// `buffer`: how many records one instance may hold.
pub(super) fn jetstream(
    raw: &raw::JetStream,
    ahead: Ahead,
    buffer: usize,
    problems: &mut Problems,
) -> JetStream {
    if raw.ack_wait.0 < LEAST_ACK_WAIT {
        let text = "must be at least \"1s\"; minutes are better: \"2m\"";
        problems.text("nats.jetstream.ack_wait", &raw.ack_wait.to_string(), text);
    }
    if let Some(bytes) = raw.prefetch_bytes.filter(|bytes| *bytes < Size::mib(1)) {
        let text = "must be at least \"1MiB\"; the default is \"16MiB\"";
        problems.text("nats.jetstream.prefetch_bytes", &bytes.to_string(), text);
    }
    if raw.lease.0 < LEAST_LEASE {
        let text = "must be at least \"1s\"; the default is \"10s\"";
        problems.text("nats.jetstream.lease", &raw.lease.to_string(), text);
    }
    bucket("nats.jetstream.state_bucket", &raw.state_bucket, problems);
    JetStream {
        ack_wait: raw.ack_wait.0,
        max_ack_pending: raw.max_ack_pending.unwrap_or((BUFFERS * buffer).min(MOST_PENDING)),
        batch: raw.batch,
        prefetch_bytes: ahead.stream,
        rate_limit: rate::limit("nats.jetstream.rate_limit", raw.rate_limit.as_ref(), problems),
        max_deliver: raw.max_deliver,
        ack: match raw.ack {
            raw::Ack::Each => Ack::Each,
            raw::Ack::All => Ack::All,
        },
        double_ack: raw.double_ack,
        deliver: match raw.deliver {
            raw::Deliver::All => Deliver::All,
            raw::Deliver::New => Deliver::New,
        },
        state: JetStreamState {
            bucket: raw.state_bucket.clone(),
            replicas: raw.state_replicas,
            lease: raw.lease.0,
        },
        api: api(raw, problems),
    }
}

fn api(raw: &raw::JetStream, problems: &mut Problems) -> JetStreamApi {
    match (&raw.domain, &raw.api_prefix) {
        (Some(_), Some(prefix)) => {
            let text = "says the same as nats.jetstream.domain; give one of them";
            problems.text("nats.jetstream.api_prefix", prefix, text);
            JetStreamApi::Default
        }
        (Some(domain), None) => {
            name("nats.jetstream.domain", domain, problems);
            JetStreamApi::Domain(domain.clone())
        }
        (None, Some(prefix)) => {
            let literal = |pattern: SubjectPattern| !pattern.as_str().contains(['*', '>']);
            if !prefix.parse().is_ok_and(literal) {
                let text = "must be a subject without wildcards, such as \"$JS.hub.API\"";
                problems.text("nats.jetstream.api_prefix", prefix, text);
            }
            JetStreamApi::Prefix(prefix.clone())
        }
        (None, None) => JetStreamApi::Default,
    }
}

/// What a route takes by JetStream; None if nothing.
pub(super) fn route(
    key: &str,
    raw: &raw_route::Route,
    group: &str,
    problems: &mut Problems,
) -> Option<JetStreamRoute> {
    let names = [
        ("jetstream_stream", &raw.jetstream_stream),
        ("jetstream_consumer", &raw.jetstream_consumer),
    ];
    for (which, given) in names {
        let Some(given) = given else { continue };
        let key = format!("{key}.{which}");
        if raw.jetstream_subjects.is_empty() {
            problems.text(&key, given, "needs jetstream_subjects beside it");
        }
        name(&key, given, problems);
    }
    let patterns = patterns(&raw.jetstream_subjects);
    if patterns.is_empty() {
        return None;
    }
    let subjects = minimal(&patterns);
    for (index, one) in subjects.iter().enumerate() {
        if let Some(other) = subjects[..index].iter().find(|other| other.overlaps(one)) {
            let text = format!(
                "overlaps with \"{other}\", and the server refuses a consumer with both; give one \
                 subject that covers them"
            );
            problems.text(&format!("{key}.jetstream_subjects"), one.as_str(), text);
        }
    }
    Some(JetStreamRoute {
        subjects,
        stream: raw.jetstream_stream.clone(),
        consumer: raw.jetstream_consumer.clone().unwrap_or_else(|| default_name(group, &raw.name)),
        exactly_once: raw.delivery == Some(raw_route::Delivery::ExactlyOnce),
    })
}

/// Stable, so that a restart finds it again, and a name that the server takes.
fn default_name(group: &str, route: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let name = format!("{group}-{route}");
    name.chars().map(|c| if allowed(c) { c } else { '_' }).take(NAME_CHARS).collect()
}

fn name(key: &str, name: &str, problems: &mut Problems) {
    let forbidden =
        |c: char| c.is_whitespace() || c.is_control() || matches!(c, '.' | '*' | '>' | '/' | '\\');
    if name.is_empty() || name.len() > NAME_CHARS || name.contains(forbidden) {
        let text = "must be a name without white space and without `.`, `*`, `>`, `/`, `\\`";
        problems.text(key, name, text);
    }
}

pub(super) fn bucket(key: &str, name: &str, problems: &mut Problems) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    // the bucket's stream is called KV_NAME
    if name.is_empty() || name.len() > NAME_CHARS - 3 || !name.chars().all(allowed) {
        let text = "must be the name of a key-value bucket: letters, digits, `-` and `_`";
        problems.text(key, name, text);
    }
}

/// Each record takes one route, once: so no subject in both modes of NATS, none in two routes of
/// JetStream, whose consumers would both bring it, and no consumer for two routes.
pub(super) fn disjoint(
    raw: &[raw_route::Route],
    taken: &[Option<JetStreamRoute>],
    problems: &mut Problems,
) {
    for (index, route) in raw.iter().enumerate() {
        for (at, subject) in route.jetstream_subjects.iter().enumerate() {
            let key = format!("routes[{index}].jetstream_subjects[{at}]");
            let Ok(pattern) = subject.parse::<SubjectPattern>() else { continue };
            for other in raw {
                let both = patterns(&other.nats_subjects);
                if let Some(core) = both.iter().find(|core| core.overlaps(&pattern)) {
                    let text = format!(
                        "overlaps with \"{core}\" in nats_subjects of the route \"{}\": its records \
                         would come twice; take a subject in one of the two modes",
                        other.name
                    );
                    problems.text(&key, subject, text);
                }
            }
            for other in &raw[..index] {
                let earlier = patterns(&other.jetstream_subjects);
                if let Some(earlier) = earlier.iter().find(|earlier| earlier.overlaps(&pattern)) {
                    let text = format!(
                        "overlaps with \"{earlier}\" of the route \"{}\": each route has a consumer \
                         of its own, so records would come twice; make them disjoint",
                        other.name
                    );
                    problems.text(&key, subject, text);
                }
            }
        }
        let Some(Some(mine)) = taken.get(index) else { continue };
        let same = |other: &Option<JetStreamRoute>| {
            other.as_ref().is_some_and(|other| other.consumer == mine.consumer)
        };
        if let Some(other) = taken[..index].iter().position(same) {
            let text = format!(
                "is the consumer of the route \"{}\" too; give this one a jetstream_consumer of \
                 its own",
                raw[other].name
            );
            let key = format!("routes[{index}].jetstream_consumer");
            problems.text(&key, &mine.consumer, text);
        }
    }
}

fn patterns(subjects: &[String]) -> Vec<SubjectPattern> {
    // those that are none were reported with the route
    subjects.iter().filter_map(|subject| subject.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::load;

    #[test]
    fn unless_it_is_given_all_may_hold_two_buffers_of_a_consumer() {
        let holds = |more: &str| {
            let dir = tempfile::TempDir::new().unwrap();
            let file = dir.path().join("c.toml");
            let base = "[[routes]]\nname = 'x'\njetstream_subjects = ['x']\ntable = 't'\n\
                        [nats]\n[nats.jetstream]\n";
            std::fs::write(&file, format!("{base}{more}")).unwrap();
            load(&[file]).unwrap().nats.unwrap().jetstream.unwrap().max_ack_pending
        };
        let buffer = |rows: usize| format!("[backpressure]\nmax_buffer_size = {rows}\n");
        assert_eq!(holds(""), 100_000);
        assert_eq!(holds(&buffer(300_000)), 600_000);
        assert_eq!(holds(&buffer(20_000_000)), 10_000_000);
        assert_eq!(holds("max_ack_pending = 7\n"), 7);
    }
}
