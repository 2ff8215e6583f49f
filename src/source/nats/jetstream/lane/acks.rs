//! What a lane keeps in mind of a consumer that several instances may share: the records that are
//! not acknowledged, and how far the server knows of those that are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::{Consumer, pull};
use tokio::time::Instant;

use super::super::bind::{Bound, Unbound, Wish, ack_wait};
use super::super::bulk::Standing;
use super::super::reply::Delivery;
use super::super::unacked::{Answer, Arrival, Unacked};
use super::SILENT_AFTER;
use crate::config::Ack;
use crate::record::{Partition, Position};

#[derive(Debug)]
pub(super) struct Acks {
    /// One acknowledgement stands for all before it.
    in_bulk: bool,
    stream_made: Option<i128>,
    /// When the consumer was made: another one counts its deliveries anew.
    consumer_made: Option<i128>,
    /// Nothing is asked for until the consumer was looked at: deliveries are missing.
    pub(super) quiet: bool,
    /// Durable up to here; told when everything that says so was answered.
    to_tell: Option<Position>,
    /// Of the stream that it reads; None until it was bound.
    pub(super) partition: Option<Arc<Partition>>,
    /// Streams that were deleted under us: let go when all that we had of them is durable.
    past: Vec<(Arc<Partition>, i64)>,
    unacked: Unacked,
    acked_to: i64,
    tell_again_at: Instant,
    /// Up to here the server knows that everything is acknowledged.
    pub(super) known_to: u64,
}

impl Acks {
    pub(super) fn new(ack: Ack, now: Instant) -> Self {
        let in_bulk = ack == Ack::All;
        Self {
            in_bulk,
            stream_made: None,
            consumer_made: None,
            quiet: false,
            to_tell: None,
            partition: None,
            past: Vec::new(),
            unacked: Unacked::new(in_bulk, now),
            acked_to: 0,
            tell_again_at: now,
            known_to: 0,
        }
    }

    /// What the pipeline knows of it: its stream, and those that are no more.
    pub(super) fn partitions(&self) -> Vec<Arc<Partition>> {
        let past = self.past.iter().map(|(partition, _)| partition);
        self.partition.iter().chain(past).cloned().collect()
    }

    /// Up to where everything is acknowledged, of the stream that was made then.
    pub(super) fn known_to(&self) -> Option<(i128, u64)> {
        self.stream_made.map(|made| (made, self.known_to))
    }

    /// The consumer was found, made, or looked at. Says which partition is ours from here on, if
    /// that is new.
    pub(super) fn bound(
        &mut self,
        bound: &Bound,
        on_their_way: usize,
        now: Instant,
    ) -> Option<Arc<Partition>> {
        let info = bound.consumer.cached_info();
        let name = format!("{}/{}", info.stream_name, info.name);
        let another = bound.stream_made.is_some()
            && self.stream_made.is_some_and(|it| Some(it) != bound.stream_made);
        let standing = Standing {
            open: info.num_ack_pending,
            delivery: info.delivered.consumer_sequence,
            sequence: info.delivered.stream_sequence,
            floor: info.ack_floor.stream_sequence,
        };
        let made = Some(info.created.unix_timestamp_nanos());
        let new = another || self.partition.as_ref().is_none_or(|known| known.topic != name);
        if new {
            self.begin_stream(name, now);
        } else if self.consumer_made != made {
            self.unacked.begin_again(now);
        }
        self.consumer_made = made;
        self.known_to = self.known_to.max(standing.floor);
        self.quiet = self.unacked.looked(standing, on_their_way);
        self.stream_made = bound.stream_made.or(self.stream_made);
        self.partition.clone().filter(|_| new)
    }

    /// Another stream than before: its numbers have nothing to do with those that we know.
    fn begin_stream(&mut self, topic: String, now: Instant) {
        if let Some(before) = self.partition.take() {
            tracing::warn!(
                event = "stream_made_anew",
                before = before.topic,
                now = topic,
                "the stream was made anew"
            );
            self.past.push((before, self.unacked.end()));
        }
        self.unacked = Unacked::new(self.in_bulk, now);
        self.to_tell = None;
        (self.acked_to, self.known_to) = (0, 0);
        self.partition = Some(new_partition(topic));
    }

    /// With one acknowledgement for all before it nobody else may read.
    pub(super) fn foreign_reader(&self, wish: &Wish, now: Instant) -> Option<Unbound> {
        let patience = 2 * wish.settings.ack_wait + SILENT_AFTER;
        self.unacked.gap_for(now).filter(|gap| *gap > patience).map(|_| {
            Unbound::NeedsPerson(format!(
                "route {}: deliveries of the consumer {} do not come here; with \
                 nats.jetstream.ack = \"all\" nobody else may read it: stop the other reader, or \
                 set ack = \"each\" and delete the consumer",
                wish.route, wish.takes.consumer
            ))
        })
    }

    /// A delivery that is not kept: it is given back.
    pub(super) fn pass(&mut self, delivery: &Delivery, now: Instant) {
        self.unacked.pass(delivery, now);
    }

    pub(super) fn arrive(
        &mut self,
        delivery: &Delivery,
        reply: &str,
        poisoned: bool,
        now: Instant,
    ) -> Arrival {
        self.unacked.arrive(delivery, reply, poisoned, now)
    }

    /// What is durable up to here: what to answer.
    pub(super) fn settle(&mut self, position: &Position) -> Vec<Answer> {
        let ours = self.partition.as_ref() == Some(&position.partition);
        if !ours || position.offset <= self.acked_to {
            return Vec::new();
        }
        self.acked_to = position.offset;
        self.to_tell = Some(position.clone());
        self.unacked.settle(position.offset)
    }

    /// What can be answered by now although it could not before.
    pub(super) fn settle_bulk(&mut self) -> Option<Answer> {
        self.unacked.settle_bulk()
    }

    /// What the pipeline is to be told when all answers so far were sent.
    pub(super) fn told(&mut self) -> Option<Position> {
        if self.unacked.is_told_all() { self.to_tell.take() } else { None }
    }

    /// Streams that are no more, and of which everything is durable by this.
    pub(super) fn past(&mut self, position: &Position) -> Option<Arc<Partition>> {
        let over = |(partition, end): &(Arc<Partition>, i64)| {
            *partition == position.partition && *end <= position.offset
        };
        let index = self.past.iter().position(over)?;
        Some(self.past.swap_remove(index).0)
    }

    /// What the server must hear of, or it would deliver it again.
    pub(super) fn in_progress(
        &mut self,
        consumer: &Consumer<pull::Config>,
        now: Instant,
    ) -> Vec<Box<str>> {
        if now < self.tell_again_at {
            return Vec::new();
        }
        let wait: Duration = ack_wait(consumer);
        self.tell_again_at = now + wait / 6;
        self.unacked.in_progress(now, wait / 3)
    }

    /// What is held no longer although it is not durable.
    pub(super) fn give_up(&mut self) -> Vec<Box<str>> {
        self.unacked.give_up()
    }
}

/// A life of a consumer's stream, told from any other.
pub(super) fn new_partition(topic: String) -> Arc<Partition> {
    static EPOCHS: AtomicU64 = AtomicU64::new(1);
    let epoch = EPOCHS.fetch_add(1, Ordering::Relaxed);
    Arc::new(Partition { topic, number: 0, epoch })
}
