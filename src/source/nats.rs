//! Core NATS: records that come whether we want them or not. With `nats/`, the only user of
//! async-nats.
//!
//! Owns the connections: one for `system` subjects, so that no flood of market data can push them
//! out, and one for the rest; each is read by a task of its own (`reader.rs`). The task here
//! watches the connections and joins the readers. Other subjects are read by other readers, on other
//! connections: these are up before the old ones drain and leave, and as members of the same queue
//! groups they take every message once. A source never drops a record by itself: while
//! the bridge is paused it keeps reading, and the pipeline drops and counts by class. What the
//! *client* had to drop, because we did not read fast enough, is counted exactly (`losses.rs`).
//!
//! ```text
//! server ==> client task --> subscriptions --> reader --> Records, DroppedByClient, Drained
//!                 \--> notes ------------> watch -------> Connection, Closed; observed
//! ```

mod channels;
mod fence;
pub mod fleet;
pub mod jetstream;
mod kv;
mod link;
mod losses;
mod missing;
mod options;
pub mod probe;
mod reader;
mod readers;
mod subscriptions;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use self::link::Watch;
pub use self::options::{server_addresses, with_identity};
use self::readers::{Present, Readers};
use self::subscriptions::Wish;
use super::{Running, SourceEvent, SourcePort};
use crate::config::{self, Takes};
use crate::subject::{SubjectPattern, minimal};

/// How much a reader may hold, and how long it may take to hand that over. The bridge keeps to the
/// default.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Messages that one subscription may hold in the client.
    pub capacity: usize,
    /// How long a drain may take.
    pub drain_for: Duration,
}

impl Default for Limits {
    /// At 50,000 records a second the messages are more than a second of a pipeline that does not
    /// read; with ticks of 230 bytes about 40 MiB. The time is from design, section 6, step 4.
    fn default() -> Self {
        Self { capacity: 65_536, drain_for: Duration::from_secs(2) }
    }
}

/// How often the connections are looked at, in case that an event of the client was lost.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What can't be opened now (a file of credentials that is being replaced) may be there soon.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Subscribes to the subjects of all routes; `system` are those of routes with class `system`.
///
/// NATS itself may be down: that is visible in `observed` and as `Connection { error }`, and tried
/// again for ever. What cannot get better by waiting (a file that is not there) is an error here.
pub async fn start(
    config: &config::Nats,
    instance: &str,
    subjects: &[SubjectPattern],
    system: &[SubjectPattern],
    port: SourcePort,
    limits: Limits,
) -> anyhow::Result<Running> {
    anyhow::ensure!(
        !(subjects.is_empty() && system.is_empty()),
        "[nats] is configured, but no route takes a NATS subject"
    );
    let changed = Arc::new(Notify::new());
    let present = Present::new(config, instance, limits, port.clone(), &changed);
    let (links, readers) = Box::pin(present.start(subjects, system)).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(watch(Watch::new(links, port, "NATS"), changed, readers));
    Ok(Running { name: "NATS", tasks })
}

/// Whether the source can go over from these subjects to others while it runs.
///
/// # Errors
///
/// When `system` has a queue group of its own, before or after, and would not read the same: for a
/// moment the old data connection and the new system connection would both get its messages. And
/// when a stream's place would be lost (`jetstream/go_over.rs`).
pub fn can_go_over(from: &Takes, to: &Takes) -> anyhow::Result<()> {
    let apart = |takes: &Takes| {
        let wishes = wishes("", &takes.subjects, &takes.system);
        wishes.into_iter().any(|wish| !wish.elsewhere.is_empty())
    };
    let (was, is) = (apart(from), apart(to));
    let same = was && is && minimal(&from.system) == minimal(&to.system);
    anyhow::ensure!(
        same || !was && !is,
        "routes: nats_subjects of another class overlap with those of class `system`, so that these \
         need a queue group of their own; that cannot change while the bridge runs: restart it for \
         that"
    );
    jetstream::can_go_over(from, to)
}

/// What each connection subscribes to.
///
/// A group's member is chosen by the server among the subscriptions of both connections. If a
/// pattern of the data can also bring `system` records, that would put some of these behind the
/// flood; then, and only then, the system connection has a group of its own, and the data
/// connection skips what it brings.
fn wishes(group: &str, subjects: &[SubjectPattern], system: &[SubjectPattern]) -> Vec<Wish> {
    let system = minimal(system);
    let mut data = minimal(subjects);
    data.retain(|pattern| !system.iter().any(|other| other.covers(pattern)));
    let crossing = data.iter().any(|pattern| system.iter().any(|other| other.overlaps(pattern)));
    let wish = |role, patterns: &Vec<SubjectPattern>| Wish {
        role,
        queue_group: group.to_owned(),
        patterns: patterns.clone(),
        elsewhere: Vec::new(),
    };
    let (mut first, mut second) = (wish("system", &system), wish("data", &data));
    if crossing {
        first.queue_group = format!("{group}-system");
        second.elsewhere = system;
    }
    [first, second].into_iter().filter(|wish| !wish.patterns.is_empty()).collect()
}

/// Watches the connections until every reader has ended, and goes over to other subjects.
async fn watch(mut watch: Watch, changed: Arc<Notify>, mut readers: Readers) {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut error, mut try_at) = (None, Instant::now());
    loop {
        if Instant::now() >= try_at {
            match readers.go_over().await {
                Ok(Some(links)) => watch.renew(links),
                Ok(None) => {}
                Err(why) => {
                    tracing::warn!(
                        event = "nats_subscribe_failed",
                        "NATS: cannot subscribe anew, trying again: {why:#}"
                    );
                    try_at = Instant::now() + TRY_AGAIN_AFTER;
                }
            }
        }
        tokio::select! {
            biased;
            ended = readers.tasks.join_next() => match ended {
                Some(Ok(())) => {}
                Some(Err(panic)) => error = Some(format!("a NATS reader failed: {panic}")),
                None => break,
            },
            () = changed.notified() => watch.look().await,
            _ = tick.tick() => watch.look().await,
        }
    }
    watch.closed(error).await;
}

/// The last of the readers to be drained says so for the source.
fn is_last(undrained: &AtomicUsize) -> bool {
    undrained.fetch_sub(1, Ordering::AcqRel) == 1
}

async fn send(port: &SourcePort, event: SourceEvent) {
    if port.events.send((port.id, event)).await.is_err() {
        tracing::debug!("the pipeline has ended before its NATS source");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn patterns(texts: &[&str]) -> Vec<SubjectPattern> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn system_subjects_get_a_connection_of_their_own() {
        let subjects = patterns(&["market.>", "system.>", "market.*.tick", "bars.*.*"]);
        let wishes = wishes("g", &subjects, &patterns(&["system.>", "system.health.*"]));
        assert_eq!(wishes.len(), 2);
        assert_eq!(wishes[0].patterns, patterns(&["system.>"]));
        assert_eq!(wishes[1].patterns, patterns(&["market.>", "bars.*.*"]));
        assert!(wishes.iter().all(|wish| wish.queue_group == "g" && wish.elsewhere.is_empty()));
    }

    #[test]
    fn data_that_may_bring_system_records_leaves_them_to_a_group_of_their_own() {
        let wishes = wishes("g", &patterns(&["*.health.*"]), &patterns(&["system.>"]));
        assert_eq!(
            (wishes[0].queue_group.as_str(), wishes[1].queue_group.as_str()),
            ("g-system", "g")
        );
        assert_eq!(wishes[1].elsewhere, wishes[0].patterns);
    }

    #[test]
    fn going_over_never_makes_a_second_group_that_gets_everything_too() {
        let takes = |subjects: &[&str], system: &[&str]| Takes {
            topics: Vec::new(),
            published: BTreeSet::new(),
            subjects: patterns(subjects),
            system: patterns(system),
            streams: std::collections::BTreeMap::new(),
        };
        let apart = takes(&["market.>"], &["system.>"]);
        assert!(can_go_over(&apart, &takes(&["bars.>"], &["system.>", "health"])).is_ok());
        assert!(can_go_over(&apart, &takes(&["market.>"], &[])).is_ok());
        let crossing = takes(&["*.health"], &["system.>"]);
        let error = can_go_over(&apart, &crossing).unwrap_err();
        assert!(error.to_string().contains("restart"), "{error}");
        assert!(can_go_over(&crossing, &takes(&["*.health", "bars"], &["system.>"])).is_ok());
        assert!(can_go_over(&crossing, &takes(&["*.health"], &["system.x"])).is_err());
        assert!(can_go_over(&takes(&["*.health"], &[]), &crossing).is_err());
    }

    #[test]
    fn without_system_subjects_there_is_one_connection() {
        assert_eq!(wishes("g", &patterns(&["a", "b"]), &[]).len(), 1);
        assert!(wishes("g", &[], &[]).is_empty());
    }
}
