//! From what a route wants to its consumer: finds the stream, makes the consumer or takes the one
//! that is there. Asks and answers; owns nothing. Changes nothing of a consumer that exists, but what
//! it filters by, where the route took other subjects before.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::consumer::{
    AckPolicy, Consumer, DeliverPolicy, FromConsumer as _, pull,
};
use async_nats::jetstream::context::{ContextBuilder, RequestErrorKind};
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::ConsumerErrorKind;
use async_nats::jetstream::{Context, ErrorCode, stream};
use serde::Deserialize;
use serde_json::json;

use super::fit::{filters, named};
use crate::config::{Ack, Deliver, JetStream, JetStreamApi, JetStreamRoute};
use crate::subject::SubjectPattern;

/// For one question.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What one route wants.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) settings: JetStream,
    pub(super) route: String,
    pub(super) takes: JetStreamRoute,
}

/// A consumer to pull from.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) consumer: Consumer<pull::Config>,
    /// When its stream was made: another time is another stream. None: not looked up again.
    pub(super) stream_made: Option<i128>,
}

/// Why there is none. Both are tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unbound {
    /// It passes by itself.
    Later(String),
    /// Somebody has to do something; what.
    NeedsPerson(String),
}

impl Unbound {
    /// Says it when it is new.
    pub(super) fn note(self, known: &mut Option<Self>) {
        if known.as_ref() == Some(&self) {
            return;
        }
        match &self {
            Self::NeedsPerson(what) => {
                tracing::error!(event = "needs_person", "needs a person: {what}")
            }
            Self::Later(why) => {
                tracing::warn!(event = "jetstream_later", "JetStream, trying again: {why}")
            }
        }
        *known = Some(self);
    }
}

pub(super) fn context(client: Client, api: &JetStreamApi) -> Context {
    let builder = ContextBuilder::new().timeout(ANSWER_WITHIN);
    match api {
        JetStreamApi::Default => builder.build(client),
        JetStreamApi::Domain(domain) => builder.domain(domain).build(client),
        JetStreamApi::Prefix(prefix) => builder.api_prefix(prefix).build(client),
    }
}

impl Wish {
    /// The settings are those of the process.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (&self.route, &self.takes) == (&other.route, &other.takes)
    }

    /// The consumer; if there is none, it is made. `known_to` is the number up to which it is known
    /// that everything was acknowledged, of the stream that was made then: a consumer that was
    /// deleted goes on behind it. One that filters by what the route took `before` is changed, and by
    /// nothing else: who changes his configuration while he runs is the only one who knows that.
    pub(super) async fn bind(
        self,
        context: Context,
        known_to: Option<(i128, u64)>,
        before: Vec<Vec<SubjectPattern>>,
    ) -> Result<Bound, Unbound> {
        let stream = self.stream(&context).await?;
        let made = stream.created.unix_timestamp_nanos();
        let name = &stream.config.name;
        let consumer = match self.existing(&context, name).await? {
            Some(consumer) => consumer,
            None => {
                let from = known_to.filter(|(of, _)| *of == made).map(|(_, known)| known + 1);
                self.make(&context, name, from).await?
            }
        };
        let is = filters(&consumer.cached_info().config);
        let consumer = match before.iter().any(|before| named(before) == is) {
            true => self.filter_anew(&context, name, &consumer).await?,
            false => consumer,
        };
        self.must_fit(name, &consumer)?;
        Ok(Bound { consumer, stream_made: Some(made) })
    }

    fn must_fit(&self, stream: &str, consumer: &Consumer<pull::Config>) -> Result<(), Unbound> {
        let misfits = self.misfits(&consumer.cached_info().config);
        if misfits.is_empty() {
            return Ok(());
        }
        Err(Unbound::NeedsPerson(format!(
            "route {}: the consumer {} of stream {stream} is not what the route needs: {}; \
             correct or delete it, or name another one (jetstream_consumer)",
            self.route,
            self.takes.consumer,
            misfits.join(", "),
        )))
    }

    /// The consumer goes on where it is, with the route's subjects and everything else as it was.
    async fn filter_anew(
        &self,
        context: &Context,
        stream: &str,
        consumer: &Consumer<pull::Config>,
    ) -> Result<Consumer<pull::Config>, Unbound> {
        let is = pull::Config::try_from_consumer_config(consumer.cached_info().config.clone());
        let name = &self.takes.consumer;
        let failed = |error: String| {
            Unbound::Later(format!("the filter of the consumer {name} of stream {stream}: {error}"))
        };
        let is = is.map_err(|error| failed(error.to_string()))?;
        let pull::Config { filter_subject, filter_subjects, .. } = self.filtered();
        let config = pull::Config { filter_subject, filter_subjects, ..is };
        let changed = context.update_consumer_on_stream(config, stream).await;
        let changed = changed.map_err(|error| failed(error.to_string()))?;
        tracing::info!(
            event = "jetstream_consumer_changed",
            stream,
            consumer = name,
            "JetStream consumer filters by other subjects now"
        );
        Ok(changed)
    }

    /// Looks at a consumer again; None if it is gone.
    pub(super) async fn look(
        self,
        context: Context,
        stream: String,
        name: String,
    ) -> Result<Option<Bound>, Unbound> {
        let Some(consumer) = self.consumer(&context, &stream, &name).await? else {
            return Ok(None);
        };
        if name == self.takes.consumer {
            self.must_fit(&stream, &consumer)?; // another instance may have changed it
        }
        Ok(Some(Bound { consumer, stream_made: None }))
    }

    pub(super) async fn stream(&self, context: &Context) -> Result<stream::Info, Unbound> {
        let name = match &self.takes.stream {
            Some(name) => name.clone(),
            None => self.found(context).await?,
        };
        let info = context.request(format!("STREAM.INFO.{name}"), &json!({})).await;
        match info.map_err(|error| self.unanswered(error.kind()))? {
            Response::Ok(info) => Ok(info),
            Response::Err { error } if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                Err(self.no_stream(&format!("there is no stream {name}")))
            }
            Response::Err { error } => Err(Unbound::Later(format!("stream {name}: {error}"))),
        }
    }

    /// The name of the one stream that takes the subjects.
    async fn found(&self, context: &Context) -> Result<String, Unbound> {
        let mut names = BTreeSet::new();
        for subject in &self.takes.subjects {
            let question = json!({ "subject": subject.as_str() });
            let answer = context.request("STREAM.NAMES", &question).await;
            match answer.map_err(|error| self.unanswered(error.kind()))? {
                Response::Ok(Names { streams }) => match streams.unwrap_or_default() {
                    none if none.is_empty() => {
                        return Err(
                            self.no_stream(&format!("no stream takes the subject {subject}"))
                        );
                    }
                    some => names.extend(some),
                },
                Response::Err { error } => {
                    return Err(Unbound::Later(format!("JetStream: {error}")));
                }
            }
        }
        let mut names = names.into_iter();
        match (names.next(), names.next()) {
            (Some(only), None) => Ok(only),
            (first, second) => {
                let all: Vec<String> = first.into_iter().chain(second).chain(names).collect();
                Err(Unbound::NeedsPerson(format!(
                    "route {}: several streams take its jetstream_subjects ({}): name one \
                     (jetstream_stream), or make a route of each",
                    self.route,
                    all.join(", ")
                )))
            }
        }
    }

    fn no_stream(&self, what: &str) -> Unbound {
        let subjects: Vec<&str> = self.takes.subjects.iter().map(|s| s.as_str()).collect();
        Unbound::NeedsPerson(format!(
            "route {}: {what}; create one, such as `nats stream add {} --subjects '{}'`, or correct \
             jetstream_subjects; looked for again every few seconds",
            self.route,
            self.takes.stream.as_deref().unwrap_or("NAME"),
            subjects.join(",")
        ))
    }

    fn unanswered(&self, kind: RequestErrorKind) -> Unbound {
        match kind {
            RequestErrorKind::NoResponders => Unbound::NeedsPerson(
                "NATS runs without JetStream, or not for this account: enable it (jetstream {} in \
                 the server's configuration), or correct nats.jetstream.domain"
                    .to_owned(),
            ),
            _ => Unbound::Later(format!("route {}: JetStream does not answer", self.route)),
        }
    }

    /// The route's own consumer, which lasts.
    pub(super) async fn existing(
        &self,
        context: &Context,
        stream: &str,
    ) -> Result<Option<Consumer<pull::Config>>, Unbound> {
        self.consumer(context, stream, &self.takes.consumer).await
    }

    async fn consumer(
        &self,
        context: &Context,
        stream: &str,
        name: &str,
    ) -> Result<Option<Consumer<pull::Config>>, Unbound> {
        match context.get_consumer_from_stream(name, stream).await {
            Ok(consumer) => Ok(Some(consumer)),
            Err(error) => match error.kind() {
                ConsumerErrorKind::JetStream(error) if error.code() == 404 => Ok(None),
                ConsumerErrorKind::InvalidConsumerType => Err(Unbound::NeedsPerson(format!(
                    "route {}: the consumer {name} of stream {stream} is one that pushes; delete it, \
                     or name another one (jetstream_consumer)",
                    self.route
                ))),
                kind => Err(Unbound::Later(format!("consumer {name} of stream {stream}: {kind}"))),
            },
        }
    }

    async fn make(
        &self,
        context: &Context,
        stream: &str,
        from: Option<u64>,
    ) -> Result<Consumer<pull::Config>, Unbound> {
        let name = &self.takes.consumer;
        let config = pull::Config {
            deliver_policy: match (from, self.settings.deliver) {
                (Some(start_sequence), _) => DeliverPolicy::ByStartSequence { start_sequence },
                (None, Deliver::All) => DeliverPolicy::All,
                (None, Deliver::New) => DeliverPolicy::New,
            },
            ..self.wanted()
        };
        match context.create_consumer_strict_on_stream(config, stream).await {
            Ok(consumer) => {
                tracing::info!(
                    event = "jetstream_consumer_made",
                    stream,
                    consumer = name,
                    from,
                    "JetStream consumer made"
                );
                Ok(consumer)
            }
            // Another instance was faster: it is looked at like any other.
            Err(error) => {
                let text =
                    format!("making the consumer {name} of stream {stream}: {}", error.kind());
                match self.existing(context, stream).await {
                    Ok(Some(consumer)) => Ok(consumer),
                    _ => Err(Unbound::Later(text)),
                }
            }
        }
    }

    pub(super) fn wanted(&self) -> pull::Config {
        pull::Config {
            durable_name: Some(self.takes.consumer.clone()),
            ack_policy: self.ack_policy(),
            ack_wait: self.settings.ack_wait,
            // What comes too often is a dead letter; the server would only forget it.
            max_deliver: -1,
            max_ack_pending: i64::try_from(self.settings.max_ack_pending).unwrap_or(i64::MAX),
            ..self.filtered()
        }
    }

    /// A consumer of the route's subjects.
    pub(super) fn filtered(&self) -> pull::Config {
        let mut subjects: Vec<String> =
            self.takes.subjects.iter().map(|subject| subject.as_str().to_owned()).collect();
        let single = if subjects.len() == 1 { subjects.pop() } else { None };
        pull::Config {
            description: Some(format!("data-bridge, route {}", self.route)),
            filter_subject: single.unwrap_or_default(),
            filter_subjects: subjects,
            ..pull::Config::default()
        }
    }

    pub(super) fn ack_policy(&self) -> AckPolicy {
        match self.settings.ack {
            Ack::Each => AckPolicy::Explicit,
            Ack::All => AckPolicy::All,
        }
    }
}

/// How long the consumer waits for an acknowledgement, at least.
pub(super) fn ack_wait(consumer: &Consumer<pull::Config>) -> Duration {
    let config = &consumer.cached_info().config;
    config.backoff.iter().copied().chain([config.ack_wait]).min().unwrap_or(config.ack_wait)
}

#[derive(Debug, Deserialize)]
struct Names {
    streams: Option<Vec<String>>,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::JetStreamState;

    pub(in super::super) fn wish() -> Wish {
        let settings = JetStream {
            ack_wait: Duration::from_secs(120),
            max_ack_pending: 100,
            batch: 10,
            prefetch_bytes: 1 << 20,
            rate_limit: None,
            max_deliver: 20,
            ack: Ack::Each,
            double_ack: false,
            deliver: Deliver::All,
            state: JetStreamState {
                bucket: "data_bridge".to_owned(),
                replicas: None,
                lease: Duration::from_secs(10),
            },
            api: JetStreamApi::Default,
        };
        let subjects = ["a.*", "b.>"].map(|subject| subject.parse().unwrap()).to_vec();
        let consumer = "g-r".to_owned();
        let takes = JetStreamRoute { subjects, stream: None, consumer, exactly_once: false };
        Wish { settings, route: "r".to_owned(), takes }
    }
}
