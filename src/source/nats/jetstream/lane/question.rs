//! What a lane wants to know of JetStream, asked beside the loop.

use async_nats::jetstream::Context;
use async_nats::{Client, Subscriber};
use tokio::sync::oneshot;

use super::super::bind::{Bound, Unbound, Wish};
use super::super::bucket::{self, Bucket, Told};
use super::super::follow::{self, Followed, From};
use super::super::lease::Ask;
use crate::record::Position;
use crate::subject::SubjectPattern;

#[derive(Debug)]
pub(in super::super) enum Question {
    /// To have what is answered to this inbox.
    Listen(String),
    /// The route's own consumer; with what is known to be acknowledged, and of which stream, and what
    /// it may have filtered by before.
    Bind(Wish, Option<(i128, u64)>, Vec<Vec<SubjectPattern>>),
    /// A consumer for us alone.
    Follow(Wish, From),
    /// How a consumer is, by its stream and name.
    Look(Wish, String, String),
    /// Who reads, and how far.
    Bucket(Wish, Option<Bucket>, Ask),
    /// How far the pipeline is, which was told that the lane parts from what it has.
    Part(oneshot::Receiver<Vec<Position>>),
    /// Nothing: a consumer, by its stream and name, is of no use any more.
    Forget(String, String),
}

#[derive(Debug)]
pub(in super::super) enum Answer {
    /// None: the client has ended.
    Listening(Option<Subscriber>),
    /// None: it is gone.
    Bound(Result<Option<Box<Bound>>, Unbound>),
    Followed(Result<Followed, Unbound>),
    Bucket(Box<Told>),
    Parted(Vec<Position>),
    Forgotten,
}

impl Question {
    /// Of JetStream by `context`; what comes is read by `client`.
    pub(in super::super) async fn ask(self, client: Client, context: Context) -> Answer {
        match self {
            Self::Listen(inbox) => {
                Answer::Listening(client.subscribe(format!("{inbox}.*")).await.ok())
            }
            Self::Bind(wish, known_to, before) => {
                let bound = wish.bind(context, known_to, before).await;
                Answer::Bound(bound.map(|bound| Some(Box::new(bound))))
            }
            Self::Follow(wish, from) => Answer::Followed(wish.follow(context, from).await),
            Self::Look(wish, stream, name) => {
                Answer::Bound(wish.look(context, stream, name).await.map(|it| it.map(Box::new)))
            }
            Self::Bucket(wish, bucket, ask) => {
                Answer::Bucket(Box::new(bucket::ask(wish, context, bucket, ask).await))
            }
            // A pipeline that has ended has nothing to say.
            Self::Part(answer) => Answer::Parted(answer.await.unwrap_or_default()),
            Self::Forget(stream, name) => {
                follow::forget(&context, &stream, Some(&name)).await;
                Answer::Forgotten
            }
        }
    }
}
