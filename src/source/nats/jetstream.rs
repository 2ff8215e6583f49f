//! JetStream: NATS without loss. Durable pull consumers, one a route; the records are acknowledged
//! when they are durable in ClickHouse, and not before. Where exactly once is promised, nothing is
//! acknowledged: one instance reads the stream like a log, and a bucket says which one and how far.
//!
//! Shares with core NATS how it connects, how it reads, how it watches and how it counts what the
//! client drops. Two connections: on one come the records, and on it their acknowledgements go; on
//! the other JetStream is asked about streams and consumers, so that no flood holds that up and
//! what is missing on the first can be counted exactly.
//!
//! ```text
//! server ==> client task --> inboxes --> puller --> Records, Poisoned; asks for more with credits
//!        <== acks, progress <-- outbox <-/     \--> questions: consumers (bind, follow), bucket
//! ```

mod bind;
mod bucket;
mod bulk;
mod fit;
mod follow;
mod go_over;
mod lane;
mod lease;
mod outbox;
mod puller;
mod pulls;
mod ranges;
mod reply;
pub mod state;
pub mod streams;
mod unacked;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use async_nats::Client;
use async_nats::jetstream::Context;
use tokio::sync::Notify;
use tokio::task::JoinSet;

pub(super) use self::go_over::can_go_over;
use self::puller::{Puller, Wishes};
use super::link::{Link, Watch};
use super::{options, watch};
use crate::config::{self, JetStream, JetStreamApi, JetStreamRoute};
use crate::credits::Gate;
use crate::source::{Running, SourcePort};

/// Commands that may wait while there is no connection; then acknowledgements wait outside.
const COMMANDS: usize = 2_048;
/// Beside records a channel carries what the server says of requests.
const WORDS: usize = 1_024;

/// JetStream's API as it is configured, for whoever publishes into streams.
#[must_use]
pub fn context(client: Client, config: &config::Nats) -> Context {
    let settings = config.jetstream.as_ref();
    bind::context(client, settings.map_or(&JetStreamApi::Default, |settings| &settings.api))
}

/// Reads the streams of these routes, by name.
///
/// NATS may be down, and streams may be missing: that is visible in `observed`, and tried again for
/// ever. What cannot get better by waiting (a file that is not there) is an error here.
pub async fn start(
    config: &config::Nats,
    settings: &JetStream,
    instance: &str,
    routes: &BTreeMap<String, JetStreamRoute>,
    port: SourcePort,
    credits: impl Into<Gate>,
) -> anyhow::Result<Running> {
    let changed = Arc::new(Notify::new());
    // Two requests may be on their way, and as many again whose answers were given up.
    let capacity = 4 * settings.batch + WORDS;
    let (mut links, mut clients) = (Vec::new(), Vec::new());
    for role in ["jetstream", "jetstream-control"] {
        let name = format!("data-bridge {instance} {role}");
        let (options, notes) =
            options::connect_options(config, &name, COMMANDS, capacity, &port, &changed).await?;
        let client = options
            .connect(options::server_addresses(config)?)
            .await
            .context("connecting to NATS")?;
        links.push(Link::new(client.clone(), Arc::clone(&notes)));
        clients.push((client, notes));
    }
    let [(client, notes), (control, control_notes)] =
        <[_; 2]>::try_from(clients).expect("two roles, two connections");
    let context = bind::context(control, &settings.api);
    let wishes = Wishes::new(settings, instance, routes);
    let (data, noted) = (client.clone(), Arc::clone(&notes));
    let puller = Puller::new(data, noted, context, port.clone(), credits.into(), wishes);
    let mut readers = JoinSet::new();
    readers.spawn(async move {
        puller.run().await;
        notes.park();
        control_notes.park();
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(watch(Watch::new(links, port, "JetStream"), changed, readers.into()));
    Ok(Running { name: "JetStream", tasks })
}
