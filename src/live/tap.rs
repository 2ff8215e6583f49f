//! The owner's end of the feed: takes references to what was admitted, and never waits.
//!
//! For each chunk one allocation a route and one `try_send`; no lock, nothing copied, nothing done
//! for a record whose neighbour goes the same way. What does not fit is counted by
//! its topic, which tells its subscribers.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::feed::{Batch, Feed, Part, Way};
use super::hub::Live;
use super::rows::Rows;
use crate::config;
use crate::decode::Source;
use crate::record::Chunk;
use crate::route::RouteId;

/// Batches on their way: many, as some are of one record.
const BATCHES: usize = 256;
/// What they may keep in memory.
const BATCHES_BYTES: usize = 16 * 1024 * 1024;

/// What the feed wants to know of a route.
#[derive(Debug, Clone)]
pub struct RouteTopic {
    pub name: String,
    /// What names sub-topics.
    pub key: Option<Arc<Source>>,
}

impl RouteTopic {
    #[must_use]
    pub fn of(route: &config::Route) -> Self {
        Self { name: route.name.clone(), key: route.live_key.clone().map(Arc::new) }
    }
}

/// The owner's end.
#[derive(Debug)]
pub struct Tap {
    /// None: there is no feed.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    live: Arc<Live>,
    batches: mpsc::Sender<Batch>,
    way: Arc<Way>,
    /// By the route's number; what is left over of a route that is gone is seen by nobody.
    routes: Vec<Option<Part>>,
}

/// Both ends of a feed. Nothing is fed before [`Tap::lay_routes`].
#[must_use]
pub fn tap(live: &Arc<Live>) -> (Tap, Feed) {
    let (sender, batches) = mpsc::channel(BATCHES);
    let way = Arc::<Way>::default();
    let open = live.settings.enabled.then(|| Open {
        live: Arc::clone(live),
        batches: sender,
        way: Arc::clone(&way),
        routes: Vec::new(),
    });
    (Tap { open }, Feed::new(Arc::clone(live), batches, way))
}

impl Tap {
    /// Of a pipeline that feeds nobody.
    #[must_use]
    pub fn closed() -> Self {
        Self { open: None }
    }

    /// Messages that subscribers lost since the start, of topics that are gone too. Takes no lock.
    #[must_use]
    pub fn subscriber_drops(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.live.lost.load(Ordering::Relaxed))
    }

    /// Which routes there are, by their numbers.
    pub fn lay_routes(&mut self, routes: impl Iterator<Item = (RouteId, RouteTopic)>) {
        let Some(open) = &mut self.open else { return };
        let (ids, routes): (Vec<RouteId>, Vec<RouteTopic>) = routes.unzip();
        let topics = open.live.lay_routes(&routes);
        open.routes.iter_mut().for_each(|route| *route = None);
        for ((id, topic), route) in ids.into_iter().zip(topics).zip(routes) {
            let index = id.index();
            open.routes.resize_with(open.routes.len().max(index + 1), || None);
            open.routes[index] = Some(Part { topic, key: route.key, rows: Rows::default() });
        }
    }

    /// These records of the chunk were admitted, each for its route, in this order.
    pub fn admitted(
        &mut self,
        chunk: &Arc<Chunk>,
        rows: impl Iterator<Item = (Range<usize>, RouteId)>,
    ) {
        let Some(open) = &mut self.open else { return };
        for (rows, route) in rows {
            if let Some(part) = open.routes.get_mut(route.index()).and_then(Option::as_mut) {
                part.rows.extend(rows);
            }
        }
        let filled = open.routes.iter_mut().flatten().filter(|part| !part.rows.is_empty());
        let parts: Vec<Part> = filled.map(Part::take).collect();
        if parts.is_empty() {
            return;
        }
        let Some(load) = open.way.load(chunk.bytes(), BATCHES_BYTES) else {
            return open.overran(&parts);
        };
        let batch = Batch { chunk: Arc::clone(chunk), parts, load };
        if let Err(TrySendError::Full(batch) | TrySendError::Closed(batch)) =
            open.batches.try_send(batch)
        {
            open.overran(&batch.parts);
        }
    }
}

impl Open {
    fn overran(&self, parts: &[Part]) {
        parts.iter().for_each(|part| part.topic.overran(part.rows.len()));
        self.way.overran();
    }
}
