//! Live: records that somebody hands to the bridge itself, over HTTP or a socket.
//!
//! Unlike the other sources this one can refuse: what there is no room for stays with whoever
//! brought it, who is told so, and is neither received nor dropped. What was taken takes the path of
//! every other record, with a receipt (`receipt.rs`) by which its publisher hears what became of it.
//! Nothing brings it again: until it is durable it is in the memory of the bridge only.
//!
//! ```text
//! publisher --offers--> intake --Records--> pipeline
//!     ^  ^--- taken? ------/                   |
//!     \------ what became of it (receipt) -----/
//! ```
//!
//! Owns the intake's task (`live/intake.rs`). [`Publisher`] is the handle of those who publish.

mod intake;
mod receipt;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use self::intake::{Answer, Intake, Offer};
pub use self::receipt::Tally;
use super::{Observed, Running, SourcePort};
use crate::config::Publish;
use crate::credits::Gate;

/// How long a request may wait for room. Long enough to get a share of what becomes free beside
/// sources that always want more; short enough that a publisher hears of pressure.
const ROOM_WITHIN: Duration = Duration::from_secs(1);

/// What requests may weigh together whose records are in memory without being held: they are read, or
/// wait for room. In bytes.
const AT_THE_DOOR: usize = 64 * 1024 * 1024;

/// A request of at most so many bytes passes by them: of these there are no more than connections, and
/// nobody who dawdles with much is in their way.
const SMALL: usize = 64 * 1024;

/// Requests that wait for the intake; the next ones wait to.
const OFFERS: usize = 16;

/// When to come again, where nothing says it better.
const COME_AGAIN: Duration = Duration::from_secs(1);

/// The same at a start or a stop, which take seconds.
const COME_AGAIN_LATER: Duration = Duration::from_secs(5);

/// How far to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// They are held: ClickHouse gets them, unless the process dies before.
    Admitted,
    /// They are in ClickHouse, or among the dead letters.
    Durable,
}

/// A record that is handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub payload: Bytes,
    /// What its publisher calls it: the header `message-id` of the record.
    pub id: Option<Uuid>,
}

impl From<Bytes> for Message {
    fn from(payload: Bytes) -> Self {
        Self { payload, id: None }
    }
}

/// What became of the records of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    pub offered: usize,
    /// The first so many were taken; the others were refused, and are to be published again.
    pub taken: usize,
    pub became: Tally,
    /// When to come again with those that were refused.
    pub retry_after: Option<Duration>,
    /// Nothing more will be heard of those that are pending: the bridge gave them up.
    pub ended: bool,
}

impl Ack {
    /// All that was taken is in ClickHouse, or among the dead letters.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        let Tally { inserted, dead_lettered, .. } = self.became;
        inserted + dead_lettered == self.taken
    }

    /// Records that were taken, and of which it is not known yet what becomes of them.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.taken - self.became.settled()
    }
}

/// Why nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No route of this name is published into.
    NoSuchTopic,
    TooManyRecords {
        most: usize,
    },
    /// There is no room, or the rate is used up.
    Busy {
        retry_after: Duration,
    },
    /// The bridge starts or stops.
    NotRunning {
        retry_after: Duration,
    },
}

impl Refusal {
    fn is_busy(&self) -> bool {
        matches!(self, Self::Busy { .. })
    }
}

/// Whether records are taken, and for which routes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Stand {
    #[default]
    Starting,
    Open(Arc<BTreeSet<String>>),
    Stopping,
}

/// Hands records to the bridge. Clones share the limits.
#[derive(Debug, Clone)]
pub struct Publisher {
    limits: Publish,
    offers: mpsc::Sender<Offer>,
    stand: watch::Receiver<Stand>,
    door: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    observed: Arc<OnceLock<Arc<Observed>>>,
}

/// The other end, before it runs.
#[derive(Debug)]
pub struct Hall {
    offers: mpsc::Receiver<Offer>,
    stand: watch::Sender<Stand>,
    /// Where it is counted what there was no room for; nobody is refused before the source runs.
    observed: Arc<OnceLock<Arc<Observed>>>,
}

/// A request that was let in: its records may come.
#[derive(Debug)]
pub struct Entry<'a> {
    publisher: &'a Publisher,
    topic: &'a str,
    until: Until,
    place: Option<OwnedSemaphorePermit>,
    waiting: Option<OwnedSemaphorePermit>,
}

/// Records that were taken, at least some: what becomes of them is yet to be heard. Dropped, only
/// that is not heard.
#[derive(Debug)]
pub struct Taken {
    offered: usize,
    taken: usize,
    retry_after: Option<Duration>,
    until: Until,
    tally: watch::Receiver<Tally>,
    within: Duration,
    _waiting: Option<OwnedSemaphorePermit>,
}

/// Both ends. Until the source is started nothing is taken.
#[must_use]
pub fn connect(limits: &Publish) -> (Publisher, Hall) {
    let (offers, offered) = mpsc::channel(OFFERS);
    let (stand, seen) = watch::channel(Stand::default());
    let observed = Arc::default();
    let publisher = Publisher {
        observed: Arc::clone(&observed),
        offers,
        stand: seen,
        door: Arc::new(Semaphore::new(AT_THE_DOOR)),
        waiting: Arc::new(Semaphore::new(limits.max_waiting)),
        limits: limits.clone(),
    };
    (publisher, Hall { offers: offered, stand, observed })
}

impl Hall {
    /// There is no route that is published into, and will be none.
    pub fn stay_empty(self) {
        self.stand.send_replace(Stand::Open(Arc::default()));
    }
}

/// Takes what is offered for these routes.
#[must_use]
pub fn start(hall: Hall, routes: &BTreeSet<String>, port: SourcePort, credits: Gate) -> Running {
    hall.observed.get_or_init(|| Arc::clone(&port.observed));
    let mut tasks = JoinSet::new();
    tasks.spawn(Intake::new(hall, routes, port, credits).run());
    Running { name: "live", tasks }
}

impl Publisher {
    /// A route of this name is published into.
    #[must_use]
    pub fn takes(&self, topic: &str) -> bool {
        matches!(&*self.stand.borrow(), Stand::Open(routes) if routes.contains(topic))
    }

    /// What one request may have.
    #[must_use]
    pub fn limits(&self) -> &Publish {
        &self.limits
    }

    /// Hands these payloads to the route of this name, in their order. Dropped while it waits, only
    /// the answer is lost: what was taken goes on.
    ///
    /// # Errors
    ///
    /// When nothing was taken.
    pub async fn publish(
        &self,
        topic: &str,
        records: Vec<Bytes>,
        until: Until,
    ) -> Result<Ack, Refusal> {
        let bytes = records.iter().map(Bytes::len).sum();
        self.enter(topic, until, bytes).await?.publish(records).await
    }

    /// Lets a request in that brings so many bytes, which may be still to be read: as many at a time
    /// as there is a bounded part of the memory for.
    ///
    /// # Errors
    ///
    /// When nothing would be taken.
    pub async fn enter<'a>(
        &'a self,
        topic: &'a str,
        until: Until,
        bytes: usize,
    ) -> Result<Entry<'a>, Refusal> {
        match &*self.stand.borrow() {
            Stand::Open(routes) if routes.contains(topic) => {}
            Stand::Open(_) => return Err(Refusal::NoSuchTopic),
            Stand::Starting | Stand::Stopping => return Err(NOT_RUNNING),
        }
        let waiting = match until {
            Until::Admitted => None,
            Until::Durable => {
                let place = Arc::clone(&self.waiting).try_acquire_owned();
                Some(place.map_err(|_| self.busy())?)
            }
        };
        let place = self.place(bytes).await?;
        Ok(Entry { publisher: self, topic, until, place, waiting })
    }

    /// A place at the door, for who needs one.
    async fn place(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
        if bytes <= SMALL {
            return Ok(None);
        }
        let bytes = u32::try_from(bytes.min(AT_THE_DOOR)).expect("it is far less");
        let place = timeout(ROOM_WITHIN, Arc::clone(&self.door).acquire_many_owned(bytes)).await;
        let place = place.map_err(|_| self.busy())?;
        Ok(Some(place.expect("the semaphore is never closed")))
    }

    fn busy(&self) -> Refusal {
        self.count_refusal();
        Refusal::Busy { retry_after: COME_AGAIN }
    }

    /// A request was told to come again, with all of it or the rest.
    fn count_refusal(&self) {
        if let Some(observed) = self.observed.get() {
            observed.refused_requests.fetch_add(1, Ordering::Relaxed);
        }
    }
}

const NOT_RUNNING: Refusal = Refusal::NotRunning { retry_after: COME_AGAIN_LATER };

impl Entry<'_> {
    /// As [`Publisher::publish`].
    ///
    /// # Errors
    ///
    /// When nothing was taken.
    pub async fn publish(self, records: Vec<Bytes>) -> Result<Ack, Refusal> {
        let taken = self.offer(records.into_iter().map(Message::from).collect()).await?;
        Ok(taken.heard().await)
    }

    /// Offers these records, and waits until as many are taken as there is room for; the next that
    /// are offered come behind them.
    ///
    /// # Errors
    ///
    /// When nothing was taken.
    pub async fn offer(self, records: Vec<Message>) -> Result<Taken, Refusal> {
        let Self { publisher, topic, until, place: _place, waiting } = self;
        let offered = records.len();
        let most = publisher.limits.max_request_records;
        if offered > most {
            return Err(Refusal::TooManyRecords { most });
        }
        let (receipt, tally) = receipt::new();
        let (answer, answered) = oneshot::channel();
        let deadline = Instant::now() + ROOM_WITHIN;
        let offer = Offer { topic: topic.to_owned(), records, receipt, deadline, answer };
        publisher.offers.send(offer).await.map_err(|_| NOT_RUNNING)?;
        // The intake answers every offer that it meets, and drops the others when it ends.
        let answer = answered.await.map_err(|_| NOT_RUNNING)?;
        if answer.as_ref().map_or_else(Refusal::is_busy, |answer| answer.records < offered) {
            publisher.count_refusal();
        }
        let Answer { records: taken, retry_after } = answer?;
        let within = publisher.limits.durable_timeout;
        Ok(Taken { offered, taken, retry_after, until, tally, within, _waiting: waiting })
    }
}

impl Taken {
    /// Waits until that is known which was asked for, for `live.publish.durable_timeout` at most.
    pub async fn heard(self) -> Ack {
        let Self { offered, taken, retry_after, until, mut tally, within, _waiting } = self;
        let deadline = Instant::now() + within;
        let is_known = |tally: &Tally| match until {
            Until::Admitted => tally.decided() >= taken,
            Until::Durable => tally.settled() >= taken,
        };
        let heard = timeout_at(deadline, tally.wait_for(is_known)).await;
        let ended = matches!(heard, Ok(Err(_)));
        drop(heard);
        let became = *tally.borrow();
        Ack { offered, taken, became, retry_after, ended }
    }
}

/// Limits for tests: small, and waits that are short.
#[cfg(test)]
pub(crate) fn small_limits() -> Publish {
    Publish {
        without_token: false,
        rate_limit: None,
        max_request_bytes: 4_096,
        max_request_records: 100,
        max_waiting: 2,
        durable_timeout: Duration::from_millis(300),
    }
}

/// Where no route is published into.
#[cfg(test)]
pub(crate) fn for_nobody() -> Publisher {
    let (publisher, hall) = connect(&small_limits());
    hall.stay_empty();
    publisher
}

#[cfg(test)]
mod tests;
