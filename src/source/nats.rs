//! Core NATS: records that come whether we want them or not. With `nats/`, the only user of
//! async-nats.
//!
//! Owns the connections: one for `system` subjects, so that no flood of market data can push them
//! out, and one for the rest; each is read by a task of its own (`reader.rs`). The task here
//! watches the connections and joins the readers. A source never drops a record by itself: while
//! the bridge is paused it keeps reading, and the pipeline drops and counts by class. What the
//! *client* had to drop, because we did not read fast enough, is counted exactly (`losses.rs`).
//!
//! ```text
//! server ==> client task --> subscriptions --> reader --> Records, DroppedByClient, Drained
//!                 \--> notes ------------> watch -------> Connection, Closed; observed
//! ```

mod channels;
mod fence;
pub mod jetstream;
mod link;
mod losses;
mod missing;
mod options;
pub mod probe;
mod reader;
mod subscriptions;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use self::link::{Link, Watch};
pub use self::options::{server_addresses, with_identity};
use self::reader::Reader;
use self::subscriptions::{Subscriptions, Wish};
use super::{SourceEvent, SourcePort};
use crate::config;
use crate::subject::{SubjectPattern, minimal};

/// Messages that one subscription may hold in the client. At 50,000 records a second this is more
/// than a second of a pipeline that does not read; with ticks of 230 bytes about 40 MiB.
pub const SUBSCRIPTION_CAPACITY: usize = 65_536;

/// How often the connections are looked at, in case that an event of the client was lost.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The source's tasks. Dropping it aborts them.
#[derive(Debug)]
pub struct Running {
    tasks: JoinSet<()>,
}

impl Running {
    /// Waits until the source has ended; it does after `Stage::Closing`.
    pub async fn join(mut self) -> anyhow::Result<()> {
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("the NATS source")?;
        }
        Ok(())
    }
}

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
    capacity: usize,
) -> anyhow::Result<Running> {
    let wishes = wishes(&config.queue_group, subjects, system);
    anyhow::ensure!(!wishes.is_empty(), "[nats] is configured, but no route takes a NATS subject");
    let undrained = Arc::new(AtomicUsize::new(wishes.len()));
    let changed = Arc::new(Notify::new());
    let mut links = Vec::new();
    let mut readers = JoinSet::new();
    for wish in wishes {
        let name = format!("data-bridge {instance} {}", wish.role);
        let commands = 2 * wish.patterns.len() + 64; // all that subscribing takes
        let (options, notes) =
            options::connect_options(config, &name, commands, capacity, &port, &changed).await?;
        let client = options
            .connect(options::server_addresses(config)?)
            .await
            .context("connecting to NATS")?;
        let subscriptions = Subscriptions::open(&client, wish).await?;
        links.push(Link::new(client.clone(), Arc::clone(&notes)));
        let reader = Reader::new(client, notes, subscriptions, port.clone());
        readers.spawn(reader.run(Arc::clone(&undrained)));
    }
    let mut tasks = JoinSet::new();
    tasks.spawn(watch(Watch::new(links, port, "NATS"), changed, readers));
    Ok(Running { tasks })
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

/// Watches the connections until every reader has ended.
async fn watch(mut watch: Watch, changed: Arc<Notify>, mut readers: JoinSet<()>) {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut error = None;
    loop {
        tokio::select! {
            biased;
            ended = readers.join_next() => match ended {
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
    fn without_system_subjects_there_is_one_connection() {
        assert_eq!(wishes("g", &patterns(&["a", "b"]), &[]).len(), 1);
        assert!(wishes("g", &[], &[]).is_empty());
    }
}
