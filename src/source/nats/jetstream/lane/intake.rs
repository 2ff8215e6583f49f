//! What is asked of a consumer, and what comes.

use std::sync::Arc;

use async_nats::jetstream::consumer::{Consumer, pull};
use async_nats::{Message, StatusCode};
use tokio::time::Instant;

use super::{EXPIRES, Keeping, Lane, SILENT_AFTER, State};
use crate::source::nats::jetstream::reply::{self, Delivery};
use crate::source::nats::jetstream::unacked::Arrival;

/// What a message of the consumer's turned out to be.
#[derive(Debug)]
pub(in super::super) enum Taken {
    /// A record to hand over, and its place.
    Record { place: i64, delivery: Delivery, poisoned: bool },
    /// Held already: its credit is free.
    Again,
    /// Durable already: to be acknowledged, again.
    Done,
    /// There is no credit for it, or nobody takes it any more: to be given back.
    Back { asked: bool },
    /// It is for an instance with another configuration: to be given back, and not to us at once.
    Foreign { asked: bool },
    /// A word of the server's; so many credits are free.
    Status(usize),
}

/// A request for records.
#[derive(Debug)]
pub(in super::super) struct Pull {
    pub(in super::super) consumer: Arc<Consumer<pull::Config>>,
    pub(in super::super) request: pull::BatchConfig,
    pub(in super::super) inbox: String,
}

impl Lane {
    /// What to ask the server for, were there credits: how many records.
    pub(in super::super) fn wants(&self) -> usize {
        let State::Bound(consumer) = &self.state else { return 0 };
        if self.parting.is_some() {
            return 0;
        }
        if matches!(&self.keeping, Keeping::Acks(acks) if acks.quiet) {
            return 0;
        }
        let limit = usize::try_from(consumer.cached_info().config.max_batch).unwrap_or(0);
        let limit = if limit == 0 { usize::MAX } else { limit };
        // As many as there are, or as came lately; one when it is idle.
        let there = usize::try_from(self.pending).unwrap_or(usize::MAX).max(self.rate);
        let most = if self.alone { 1 } else { self.wish.settings.batch.min(limit) };
        self.pulls.room(there.clamp(1, most))
    }

    /// So many are asked for: by which request, and where the answer goes.
    pub(in super::super) fn pull(&mut self, records: usize, now: Instant) -> Option<Pull> {
        let State::Bound(consumer) = &self.state else { return None };
        if self.pulls.outstanding() == 0 {
            self.heard_at = now;
        }
        let number = self.pulls.begin(records);
        let config = &consumer.cached_info().config;
        let longest = Some(config.max_expires).filter(|longest| !longest.is_zero());
        let request = pull::BatchConfig {
            batch: records,
            expires: Some(longest.map_or(EXPIRES, |longest| longest.min(EXPIRES))),
            // two may be on their way
            max_bytes: if self.alone { 0 } else { self.wish.settings.prefetch_bytes / 2 },
            ..pull::BatchConfig::default()
        };
        let inbox = format!("{}.{number}", self.inbox);
        Some(Pull { consumer: Arc::clone(consumer), request, inbox })
    }

    /// A message came on the inbox. `wanted` is false when nobody takes records any more.
    pub(in super::super) fn take(
        &mut self,
        message: &Message,
        wanted: bool,
        now: Instant,
    ) -> Taken {
        self.heard_at = now;
        if let Some(status) = message.status.filter(|status| *status != StatusCode::OK) {
            return Taken::Status(self.status(status, message, now));
        }
        let reply = message.reply.as_ref().map_or("", |reply| reply.as_str());
        let Some(delivery) = Delivery::parse(reply) else {
            tracing::warn!(event = "jetstream_stray_message", subject = %message.subject, "not a message of JetStream: left");
            return Taken::Status(usize::from(self.pulls.took()));
        };
        if matches!(&self.keeping, Keeping::Owned(owned) if owned.is_stale(reply::consumer(reply)))
        {
            return Taken::Status(0);
        }
        self.pending = delivery.pending;
        let asked = self.pulls.took();
        if !asked || !wanted {
            return self.pass(&delivery, asked, wanted, now);
        }
        if let Keeping::Acks(_) = self.keeping
            && !self.knows(&message.subject)
        {
            self.pass(&delivery, asked, wanted, now);
            return Taken::Foreign { asked };
        }
        self.came += 1;
        self.attempts = 0;
        self.alone = false;
        match &mut self.keeping {
            Keeping::Acks(acks) => {
                let poisoned = delivery.times > self.wish.settings.max_deliver;
                match acks.arrive(&delivery, reply, poisoned, now) {
                    Arrival::New(place) => Taken::Record { place, delivery, poisoned },
                    Arrival::Held => Taken::Again,
                    Arrival::Done => Taken::Done,
                }
            }
            Keeping::Owned(owned) => match owned.arrive(&delivery) {
                Some(place) => Taken::Record { place, delivery, poisoned: false },
                None => Taken::Status(1 + self.lost("a delivery is missing", now)),
            },
        }
    }

    /// A record that is not kept.
    fn pass(&mut self, delivery: &Delivery, asked: bool, wanted: bool, now: Instant) -> Taken {
        match &mut self.keeping {
            Keeping::Acks(acks) => {
                acks.pass(delivery, now);
                Taken::Back { asked }
            }
            // It comes again, by another consumer.
            Keeping::Owned(_) if wanted => Taken::Status(
                usize::from(asked) + self.lost("a record that was not asked for", now),
            ),
            Keeping::Owned(_) => Taken::Status(usize::from(asked)),
        }
    }

    fn status(&mut self, status: StatusCode, message: &Message, now: Instant) -> usize {
        let number = message.subject.rsplit('.').next().and_then(|number| number.parse().ok());
        let pending =
            message.headers.as_ref().and_then(|headers| headers.get("Nats-Pending-Messages"));
        let pending = pending.and_then(|pending| pending.as_str().parse().ok());
        let text = message.description.as_deref().unwrap_or_default();
        if number.is_some_and(|number| self.pulls.is_void(number)) {
            return 0;
        }
        let ended = self.pulls.ended(number.unwrap_or_default(), pending);
        if status == StatusCode::TIMEOUT {
            self.attempts = 0;
        }
        match status {
            StatusCode::IDLE_HEARTBEAT | StatusCode::TIMEOUT | StatusCode::NOT_FOUND => ended,
            StatusCode::REQUEST_TERMINATED if text.contains("MaxBytes") => {
                self.alone = true;
                ended
            }
            StatusCode::REQUEST_TERMINATED if text.starts_with("Batch Completed") => ended,
            // Too many requests wait, of all instances: a moment later there may be room.
            StatusCode::REQUEST_TERMINATED if text.starts_with("Exceeded Max") => {
                tracing::debug!(route = self.wish.route, "JetStream: {text}");
                ended
            }
            _ => ended + self.lost(&format!("{status} {text}"), now),
        }
    }

    /// A look at the clock; says how many credits are free.
    pub(in super::super) fn tick(&mut self, now: Instant) -> usize {
        self.rate = (self.rate / 2).max(std::mem::take(&mut self.came));
        if self.pulls.outstanding() > 0 && self.heard_at + SILENT_AFTER <= now {
            self.heard_at = now;
            return self.lost("nothing heard of it, not even that there is nothing", now);
        }
        0
    }
}
