//! Dead letters outside the pipeline: where they are kept, and how they come back.
//!
//! ```text
//! pipeline --Sink--> WithLetters --the letters' place--> Kafka | NATS | file
//!                         +-------- everything else ---> ClickHouse
//! ```
//!
//! To the pipeline a letter is a row of one more table, whatever keeps it: this adapter is where
//! that table is not one. It owns no letter: what is not durable here is held, and tried again, by
//! the pipeline. A letter that its own destination refuses is a matter for a person, never one for
//! another letter.

pub mod file;
pub mod kafka;
mod landed;
pub mod letter;
pub mod log;
pub mod nats;
pub mod replay;
pub mod store;

use crate::config::{Config, DeadLetters};
use crate::schema::TableSchema;
use crate::sink::{Insert, InsertError, Landed, LandedQuestion, Sink, Window};
use crate::status::EndpointStatus;

/// What keeps the letters, where ClickHouse does not.
#[derive(Debug)]
pub enum Destination {
    Kafka(kafka::Topic),
    Nats(Box<nats::Subject>),
    File(file::LetterFile),
}

impl Destination {
    /// None: ClickHouse keeps them. A server that is down is no error: it is waited for.
    ///
    /// # Errors
    /// When a client refuses its settings, or a file that they name cannot be read.
    pub async fn open(config: &Config) -> anyhow::Result<Option<Self>> {
        let instance = &config.instance;
        Ok(match (&config.dead_letters, &config.kafka, &config.nats) {
            (DeadLetters::Kafka { topic }, Some(kafka), _) => {
                Some(Self::Kafka(kafka::Topic::new(kafka, instance, topic)?))
            }
            (DeadLetters::Nats { subject }, _, Some(nats)) => {
                let subject = nats::Subject::new(nats, instance, subject).await?;
                Some(Self::Nats(Box::new(subject)))
            }
            (DeadLetters::File { path, max_file_bytes }, ..) => {
                Some(Self::File(file::LetterFile::new(path.clone(), *max_file_bytes)))
            }
            // Without their servers there is no valid configuration.
            _ => None,
        })
    }

    /// Whether letters can be kept there, as far as that shows without changing anything; and
    /// what would make the place forget them.
    pub async fn look(&self) -> Result<Vec<String>, InsertError> {
        match self {
            Self::Kafka(topic) => topic.look().await,
            Self::Nats(subject) => subject.look().await,
            Self::File(file) => file.look().map(|()| Vec::new()),
        }
    }

    /// The same, for one who is about to write there.
    async fn ready(&self) -> Result<(), InsertError> {
        for caveat in self.look().await? {
            tracing::warn!(event = "dead_letters_caveat", "dead letters: {caveat}");
        }
        match self {
            Self::Kafka(_) | Self::Nats(_) => Ok(()),
            Self::File(file) => file.ready().await,
        }
    }

    /// All letters from the oldest on, up to what is the end now.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn scan(&self) -> anyhow::Result<log::Lines> {
        match self {
            Self::Kafka(topic) => Ok(topic.scan()),
            Self::Nats(subject) => subject.scan().await,
            Self::File(file) => file.scan(),
        }
    }

    /// Returns `Ok` only when every letter is durable.
    pub async fn append(&self, insert: Insert) -> Result<(), InsertError> {
        match self {
            Self::Kafka(topic) => topic.append(insert).await,
            Self::Nats(subject) => subject.append(insert).await,
            Self::File(file) => file.append(insert.body).await,
        }
    }
}

/// A sink whose dead letters go elsewhere.
#[derive(Debug)]
pub struct WithLetters<S> {
    sink: S,
    /// The name under which the pipeline writes letters.
    place: String,
    destination: Option<Destination>,
}

impl<S> WithLetters<S> {
    pub fn new(sink: S, config: &DeadLetters, destination: Option<Destination>) -> Self {
        Self { sink, place: config.place(), destination }
    }

    pub fn sink(&self) -> &S {
        &self.sink
    }

    fn letters(&self, table: &str) -> Option<&Destination> {
        self.destination.as_ref().filter(|_| table == self.place)
    }
}

impl<S: Sink> Sink for WithLetters<S> {
    async fn insert(&self, insert: Insert) -> Result<(), InsertError> {
        match self.letters(&insert.table) {
            Some(destination) => destination.append(insert).await,
            None => self.sink.insert(insert).await,
        }
    }

    fn endpoints(&self) -> Vec<EndpointStatus> {
        self.sink.endpoints()
    }

    fn is_for_others_to_do(&self, error: &InsertError) -> bool {
        self.sink.is_for_others_to_do(error)
    }

    async fn ask_failed_endpoints(&self) {
        self.sink.ask_failed_endpoints().await;
    }

    fn is_apart(&self, table: &str) -> bool {
        self.letters(table).is_some()
    }

    async fn schema(&self, table: &str) -> Result<TableSchema, InsertError> {
        match self.letters(table) {
            // A letter says itself what it holds.
            Some(destination) => {
                destination.ready().await?;
                Ok(TableSchema { table: table.to_owned(), columns: Vec::new() })
            }
            None => self.sink.schema(table).await,
        }
    }

    async fn window(&self, table: &str) -> Result<Window, InsertError> {
        self.sink.window(table).await
    }

    async fn landed(&self, question: LandedQuestion) -> Result<Landed, InsertError> {
        self.sink.landed(question).await
    }
}
