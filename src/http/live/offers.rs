//! What a socket publishes to routes: handed over one by one, in the order in which it came, as what
//! comes over HTTP is, and answered when it is as far as its publisher asked for.
//!
//! Owns those that wait for their answer; when the connection ends, nobody waits for them any more,
//! and the records go on.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::http::HttpState;
use crate::live::Offer;
use crate::live::protocol::{Code, Problem};
use crate::source::live::{Ack, Message, Publisher, Refusal, Taken, Until};

/// What one connection hands over.
#[derive(Debug)]
pub(super) struct Offers {
    publisher: Publisher,
    may_publish: bool,
    waiting: JoinSet<()>,
}

impl Offers {
    pub(super) fn new(state: &HttpState) -> Self {
        let (publisher, may_publish) = (state.publisher.clone(), state.may_publish);
        Self { publisher, may_publish, waiting: JoinSet::new() }
    }

    /// Waits until it is taken or refused, which is soon; then only its answer is waited for, and
    /// that not here.
    pub(super) async fn hand_over(&mut self, offer: Offer) {
        while let Some(ended) = self.waiting.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(event = "live_answer_failed", "a message's answer: {error}");
            }
        }
        match self.taken(&offer).await {
            Ok(taken) => {
                self.waiting.spawn(async move { answer(offer, &taken.heard().await) });
            }
            Err(problem) => offer.refuse(&problem),
        }
    }

    async fn taken(&self, offer: &Offer) -> Result<Taken, Problem> {
        if !self.may_publish {
            let text = "nobody may publish to a route here: set http.token or http.token_file, and \
                        restart the bridge";
            return Err(Problem::new(Code::Unauthorized, text));
        }
        let until = if offer.durable { Until::Durable } else { Until::Admitted };
        let message = Message { payload: offer.payload.clone(), id: Some(offer.id) };
        let entry = self.publisher.enter(&offer.topic, until, offer.payload.len()).await;
        let entry = entry.map_err(|refusal| refused(refusal, &offer.topic))?;
        entry.offer(vec![message]).await.map_err(|refusal| refused(refusal, &offer.topic))
    }
}

fn refused(refusal: Refusal, topic: &str) -> Problem {
    let later =
        |text: &str, after: Duration| Problem::new(Code::RateLimited, text).again_after(after);
    match refusal {
        Refusal::NoSuchTopic => {
            let text = format!("the route {topic} takes no messages: it needs publish = true");
            Problem::new(Code::BadRequest, text)
        }
        Refusal::TooManyRecords { .. } => Problem::new(Code::BadRequest, "it is too much"),
        Refusal::Busy { retry_after } => {
            later("the bridge has no room for this now, and did not take it", retry_after)
        }
        Refusal::NotRunning { retry_after } => {
            later("the bridge starts or stops, and did not take this", retry_after)
        }
    }
}

/// An ack is given only if the record is as far as was asked for.
fn answer(offer: Offer, ack: &Ack) {
    let became = ack.became;
    let is_far_enough = if offer.durable { ack.is_durable() } else { became.admitted == 1 };
    let failed = |text: &str| Problem::new(Code::Internal, text);
    if is_far_enough {
        offer.accept(became.dead_lettered == 1);
    } else if became.dropped == 1 {
        let text = "the overload policy of the route let it go: it is not stored";
        offer.refuse(&Problem::new(Code::RateLimited, text));
    } else if became.filtered == 1 {
        offer.refuse(&Problem::new(Code::TopicNotFound, "the route is gone: it is not stored"));
    } else if ack.ended {
        offer.refuse(&failed("the bridge gave it up when it stopped: publish it again"));
    } else {
        offer.refuse(&failed(
            "it is not durable yet, and still under way: published again, it may be stored twice",
        ));
    }
}
