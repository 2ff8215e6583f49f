//! Which lanes there are: one for each consumer that is wanted. They come and go with the
//! configuration; one that goes holds nothing any more when it does.

use std::collections::BTreeMap;

use async_nats::Subscriber;
use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::{Puller, Stage};
use crate::config::{JetStream, JetStreamRoute};
use crate::source::nats::jetstream::bind::Wish;
use crate::source::nats::jetstream::lane::{Answer, Heard, Lane, Question};

/// What is to be read.
#[derive(Debug)]
pub(in super::super) struct Wishes {
    pub(super) settings: JetStream,
    instance: String,
    /// By the consumer's name, of which there is one on each stream.
    all: BTreeMap<String, Wish>,
    /// Some lane is not what it shall be.
    open: bool,
}

impl Wishes {
    /// Of the routes by their names.
    pub(in super::super) fn new(
        settings: &JetStream,
        instance: &str,
        routes: &BTreeMap<String, JetStreamRoute>,
    ) -> Self {
        let (settings, instance) = (settings.clone(), instance.to_owned());
        let mut wishes = Self { settings, instance, all: BTreeMap::new(), open: true };
        wishes.change(routes);
        wishes
    }

    pub(super) fn change(&mut self, routes: &BTreeMap<String, JetStreamRoute>) {
        let wish = |(route, takes): (&String, &JetStreamRoute)| {
            let (settings, route, takes) = (self.settings.clone(), route.clone(), takes.clone());
            (takes.consumer.clone(), Wish { settings, route, takes })
        };
        self.all = routes.iter().map(wish).collect();
        self.open = true;
    }
}

impl Puller {
    /// Brings the lanes nearer to what is wanted.
    pub(super) fn follow_wishes(&mut self, now: Instant) {
        if self.wishes.open && self.wanted.stage == Stage::Running {
            self.wishes.open = false;
            for lane in self.lanes.values_mut() {
                match self.wishes.all.get(lane.consumer()) {
                    Some(wish) => self.wishes.open |= !lane.follow(wish, now),
                    None => lane.leave(),
                }
            }
            let wishes: Vec<Wish> = self.wishes.all.values().cloned().collect();
            wishes.into_iter().for_each(|wish| self.open(wish, now));
        }
        for number in self.lanes.keys().copied().collect::<Vec<_>>() {
            self.let_go(number, now);
        }
    }

    /// A lane for this consumer, unless there is one.
    fn open(&mut self, wish: Wish, now: Instant) {
        let consumer = &wish.takes.consumer;
        if self.lanes.values().any(|lane| lane.consumer() == consumer) {
            return;
        }
        let inbox = self.client.new_inbox();
        let lane = Lane::new(wish, &self.wishes.instance, inbox, now);
        self.lanes.insert(self.next_lane, lane);
        self.next_lane += 1;
    }

    /// One that is not wanted as it is goes on with its parting.
    fn let_go(&mut self, number: usize, now: Instant) {
        let Some(lane) = self.lanes.get_mut(&number) else { return };
        if let Some((revoked, question)) = lane.let_go(now) {
            self.events.push_back(revoked);
            self.ask(number, question);
        }
        // What it acknowledges is sent while it is still there to be bound again.
        if self.lanes[&number].is_over() && self.outbox.is_empty() {
            let lane = self.lanes.remove(&number);
            self.channels.remove(number);
            let reader = lane.as_ref().and_then(Lane::reader);
            let forget = reader.map(|(stream, consumer)| Question::Forget(stream, consumer));
            forget.into_iter().for_each(|forget| self.ask(number, forget));
            if let Some(lane) = &lane {
                tracing::info!(
                    event = "jetstream_consumer_left",
                    consumer = lane.consumer(),
                    "JetStream consumer left"
                );
            }
        }
    }

    /// Asks what the lanes want to know.
    pub(super) fn ask_all(&mut self, now: Instant) {
        for number in self.lanes.keys().copied().collect::<Vec<_>>() {
            let lane = self.lanes.get_mut(&number).expect("its number was just read");
            let question = lane.question(now);
            question.into_iter().for_each(|question| self.ask(number, question));
        }
        self.claim_all(now);
    }

    /// Asks what the lanes want of the bucket.
    pub(super) fn claim_all(&mut self, now: Instant) {
        for number in self.lanes.keys().copied().collect::<Vec<_>>() {
            let lane = self.lanes.get_mut(&number).expect("its number was just read");
            let claim = lane.claim(now);
            claim.into_iter().for_each(|claim| self.ask(number, claim));
        }
    }

    fn ask(&mut self, lane: usize, question: Question) {
        let (client, context) = (self.client.clone(), self.context.clone());
        let asking = question.ask(client, context).map(move |answer| (lane, answer));
        self.questions.push(asking.boxed());
    }

    /// A lane's question was answered.
    pub(super) fn answered(&mut self, number: usize, answer: Answer, now: Instant) {
        let Some(lane) = self.lanes.get_mut(&number) else { return };
        if let Answer::Listening(answers) = answer {
            return self.listen(number, answers, now);
        }
        let Heard { events, free, answers } = lane.answered(answer, now);
        self.outbox.acknowledge(answers, None, self.confirmed);
        self.credits.release(free);
        self.events.extend(events);
    }

    fn listen(&mut self, number: usize, answers: Option<Subscriber>, now: Instant) {
        let (Some(lane), Some(answers)) = (self.lanes.get_mut(&number), answers) else {
            return tracing::debug!("the NATS client has ended");
        };
        self.channels.push(number, answers);
        lane.listening(now);
    }
}
