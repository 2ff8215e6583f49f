//! What the bucket says of a route, for those who only want to know: nothing is made, and nothing is
//! written.

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::Info;

use super::bind::{Unbound, Wish};
use super::bucket::Bucket;
use super::follow::made;
use crate::config::{JetStream, JetStreamRoute};

/// What is kept of a consumer of which exactly once is promised.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// The bucket's name.
    pub bucket: String,
    /// Its replicas; None: there is no such bucket yet.
    pub replicas: Option<usize>,
    /// Why what is in it cannot be relied on.
    pub wrong: Option<String>,
    /// Who reads; None: nobody does now.
    pub owner: Option<String>,
    /// The first sequence that is not done; None: nothing of this stream is.
    pub next: Option<u64>,
}

/// What is kept of a route that takes this stream, or why that is not known.
pub(in super::super) async fn of_route(
    context: &Context,
    settings: &JetStream,
    route: &str,
    takes: &JetStreamRoute,
    stream: &Info,
) -> Result<Kept, String> {
    let wish = Wish { settings: settings.clone(), route: route.to_owned(), takes: takes.clone() };
    kept(&wish, context, stream).await.map_err(|error| match error {
        Unbound::Later(what) | Unbound::NeedsPerson(what) => what,
    })
}

pub(super) async fn kept(wish: &Wish, context: &Context, stream: &Info) -> Result<Kept, Unbound> {
    let name = wish.settings.state.bucket.clone();
    let mut kept = Kept { bucket: name, ..Kept::default() };
    let Some(bucket) = Bucket::open(wish, context, &stream.config.name).await? else {
        return Ok(kept);
    };
    kept.replicas = Some(bucket.replicas());
    kept.wrong = bucket.wrong().map(str::to_owned);
    match bucket.entry(wish).await {
        Ok(entry) => {
            let value = entry.value.filter(|value| value.place.stream == made(stream));
            kept.next = value.as_ref().map(|value| value.place.next);
            kept.owner = value.filter(|value| !value.free).map(|value| value.owner);
        }
        Err(Unbound::NeedsPerson(what)) => kept.wrong = Some(format!("cannot be read: {what}")),
        Err(later) => return Err(later),
    }
    Ok(kept)
}
