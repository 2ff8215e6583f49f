//! The live feed: what the bridge carries, fanned out to subscribers as it happens. In memory,
//! bounded everywhere, and never in the bridge's way.
//!
//! ```text
//! pipeline --Tap (try_send: chunk, rows)--> Feed --written once--> Topic --references--> Mailbox --> socket
//! clients  -------------------------- publish ------------------->   |  latest            |  a queue for each
//!                                                                    +-- attach: replay --+  subscription
//! ```
//!
//! The owner hands over references to what it admitted and never waits: what the feed cannot take
//! is counted, and told to those who listen. Records become messages in the feed's task, once for
//! all subscribers, and not at all while nobody listens. A topic gives each subscriber a reference
//! under its own lock, so their order is the same; what a subscriber does not take in time is its
//! own loss, by its policy. Locks are taken in the order hub, topic, mailbox, for one batch of
//! references, never across an await.
//!
//! Knows nothing of HTTP: `http/live.rs` brings the sockets.

mod drops;
mod event;
mod feed;
mod hub;
mod mailbox;
pub mod name;
pub mod protocol;
mod rows;
mod session;
mod tap;
mod topic;

pub use feed::Feed;
pub use hub::{Created, Live, NoTopic, Refusal, TopicOptions};
pub use mailbox::{End, Mailbox, QueueStatus};
pub use session::{Offer, Session};
pub use tap::{RouteTopic, Tap, tap};
pub use topic::{Owner, Published, TopicStatus};

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
