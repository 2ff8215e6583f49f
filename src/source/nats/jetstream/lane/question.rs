//! What a lane wants to know of JetStream, asked beside the loop.

use async_nats::jetstream::Context;

use super::super::bind::{Bound, Unbound, Wish};
use super::super::bucket::{self, Bucket, Told};
use super::super::follow::{Followed, From};
use super::super::lease::Ask;

#[derive(Debug)]
pub(in super::super) enum Question {
    /// The route's own consumer; with what is known to be acknowledged, and of which stream.
    Bind(Wish, Option<(i128, u64)>),
    /// A consumer for us alone.
    Follow(Wish, From),
    /// How a consumer is, by its stream and name.
    Look(Wish, String, String),
    /// Who reads, and how far.
    Bucket(Wish, Option<Bucket>, Ask),
}

#[derive(Debug)]
pub(in super::super) enum Answer {
    /// None: it is gone.
    Bound(Result<Option<Box<Bound>>, Unbound>),
    Followed(Result<Followed, Unbound>),
    Bucket(Box<Told>),
}

impl Question {
    pub(in super::super) async fn ask(self, context: Context) -> Answer {
        match self {
            Self::Bind(wish, known_to) => {
                let bound = wish.bind(context, known_to).await;
                Answer::Bound(bound.map(|bound| Some(Box::new(bound))))
            }
            Self::Follow(wish, from) => Answer::Followed(wish.follow(context, from).await),
            Self::Look(wish, stream, name) => {
                Answer::Bound(wish.look(context, stream, name).await.map(|it| it.map(Box::new)))
            }
            Self::Bucket(wish, bucket, ask) => {
                Answer::Bucket(Box::new(bucket::ask(wish, context, bucket, ask).await))
            }
        }
    }
}
