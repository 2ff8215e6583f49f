//! From dead letters back to rows: the same router, the same decoder, the same encoder as those
//! of records that have just come.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use uuid::Uuid;

use super::Outcome;
use super::plan::Plan;
use crate::batch::Batch;
use crate::config::{Action, Config, RouteFormat};
use crate::dead_letter::letter::DeadLetter;
use crate::encode::{self, Naming, Program};
use crate::ledger::Ledger;
use crate::record::{Chunk, NewRecord, Partition};
use crate::route::{RouteId, Router};
use crate::sink::{Insert, Sink};
use crate::source::SourceId;

/// The sources whose records came on a topic, not on a subject.
const ON_TOPICS: [&str; 2] = ["kafka", "live"];

/// How the letters of some routes become rows of one table.
struct Coding {
    table: String,
    format: RouteFormat,
    /// None until the table's schema is known.
    program: Option<Program>,
}

/// Letters of one coding.
pub(super) struct Part {
    pub(super) table: String,
    coding: usize,
    pub(super) letters: Vec<DeadLetter>,
}

/// Letters, encoded.
pub(super) struct Coded {
    /// None if no row is left.
    pub(super) insert: Option<Insert>,
    /// The letters of its rows, in their order.
    pub(super) letters: Vec<DeadLetter>,
    /// With their new reason.
    pub(super) refused: Vec<DeadLetter>,
    coding: usize,
}

impl Coded {
    /// Some of its letters, to be encoded anew.
    pub(super) fn part(&self, table: &str, letters: Vec<DeadLetter>) -> Part {
        Part { table: table.to_owned(), coding: self.coding, letters }
    }
}

/// The current routes.
pub(super) struct Coder {
    router: Router,
    names: Vec<String>,
    instance: String,
    codings: Vec<Coding>,
    /// The coding of each route; None for those that store nothing.
    of_route: Vec<Option<usize>>,
}

impl Coder {
    pub(super) fn new(config: &Config) -> anyhow::Result<Self> {
        let mut codings: Vec<Coding> = Vec::new();
        let of_route = config.routes.iter().map(|route| {
            let Action::Insert(insert) = &route.action else { return None };
            let same =
                |coding: &Coding| coding.table == insert.table && coding.format == insert.format;
            Some(codings.iter().position(same).unwrap_or_else(|| {
                let (table, format) = (insert.table.clone(), insert.format.clone());
                codings.push(Coding { table, format, program: None });
                codings.len() - 1
            }))
        });
        let of_route = of_route.collect();
        let names = config.routes.iter().map(|route| route.name.clone()).collect();
        let (router, instance) = (Router::new(&config.routes)?, config.instance.clone());
        Ok(Self { router, names, instance, codings, of_route })
    }

    /// The letters by where they go now; those that go nowhere are counted as skipped.
    pub(super) fn parts(&mut self, letters: Vec<DeadLetter>, outcome: &mut Outcome) -> Vec<Part> {
        let mut parts: BTreeMap<usize, Part> = BTreeMap::new();
        for letter in letters {
            match self.coding_of(&letter) {
                Ok((coding, _)) => {
                    let table = &self.codings[coding].table;
                    let empty = || Part { table: table.clone(), coding, letters: Vec::new() };
                    parts.entry(coding).or_insert_with(empty).letters.push(letter);
                }
                Err(why) => *outcome.skipped.entry(why).or_default() += 1,
            }
        }
        parts.into_values().collect()
    }

    fn coding_of(&mut self, letter: &DeadLetter) -> Result<(usize, RouteId), String> {
        let chunk = chunk(letter);
        let Some(route) = self.router.route(&chunk.record(0)) else {
            return Err(format!("no route takes {}", letter.topic_or_subject));
        };
        let Some(coding) = self.of_route[route.index()] else {
            return Err(format!("route {} stores nothing", self.names[route.index()]));
        };
        Ok((coding, route))
    }

    /// The letters of a plan as they were; None if they do not go there together any more.
    pub(super) fn part_of(&mut self, plan: &Plan, letters: Vec<DeadLetter>) -> Option<Part> {
        let mut by_id: HashMap<Uuid, DeadLetter> =
            letters.into_iter().map(|letter| (letter.id, letter)).collect();
        let letters: Option<Vec<DeadLetter>> = plan.ids.iter().map(|id| by_id.remove(id)).collect();
        let letters = letters?;
        let (coding, _) = self.coding_of(letters.first()?).ok()?;
        let together =
            letters.iter().all(|letter| self.coding_of(letter).is_ok_and(|(c, _)| c == coding));
        let table = self.codings[coding].table.clone();
        (together && table == plan.table).then_some(Part { table, coding, letters })
    }

    /// Reads the schema of the part's table, once.
    pub(super) async fn learn<S: Sink>(&mut self, sink: &S, part: &Part) -> anyhow::Result<()> {
        let coding = &mut self.codings[part.coding];
        if coding.program.is_none() {
            let schema = sink.schema(&coding.table).await;
            let schema = schema.map_err(|error| anyhow::anyhow!("{}", error.refusal()))?;
            match Program::new(&schema, &coding.format) {
                Ok(program) => coding.program = Some(program),
                Err(problems) => {
                    bail!("table {} and its route do not fit: {}", part.table, problems.join("; "))
                }
            }
        }
        Ok(())
    }

    /// Encodes a part whose table is known.
    pub(super) fn encode(&mut self, part: Part, token: &str) -> anyhow::Result<Coded> {
        let Part { table, coding, letters } = part;
        let mut ledger = Ledger::default();
        let slot = ledger.open(SourceId(0), None);
        let (mut batch, mut tickets) = (Batch::default(), Vec::new());
        for (number, letter) in (0..).zip(&letters) {
            let (_, route) = self.coding_of(letter).map_err(anyhow::Error::msg)?;
            let ticket = ledger.admit(slot, number, route);
            batch.push(&Arc::new(chunk(letter)), 0, ticket);
            tickets.push(ticket);
        }
        let naming = Naming {
            table,
            token: token.to_owned(),
            noted: true,
            instance: self.instance.clone(),
            routes: self.names.clone(),
        };
        let program = self.codings[coding].program.as_ref().context("the table is known")?;
        let encoded = encode::encode(&mut batch, program, naming).map_err(anyhow::Error::msg)?;
        let mut coded =
            Coded { insert: encoded.insert, letters: Vec::new(), refused: Vec::new(), coding };
        let mut rejected = encoded.rejected.into_iter().peekable();
        for (ticket, mut letter) in tickets.into_iter().zip(letters) {
            match rejected.next_if(|(row, _)| row.ticket == ticket) {
                Some((row, why)) => {
                    letter.route.clone_from(&self.names[row.ticket.route().index()]);
                    letter.reason = why.reason.to_owned();
                    letter.error = why.error;
                    coded.refused.push(letter);
                }
                None => coded.letters.push(letter),
            }
        }
        Ok(coded)
    }
}

/// The record as it came, in a chunk of its own.
fn chunk(letter: &DeadLetter) -> Chunk {
    let place = letter.partition.zip(letter.offset);
    let on_topic =
        ON_TOPICS.contains(&letter.source.as_str()) || letter.source.is_empty() && place.is_some();
    // Core NATS says no time: what the letter has is when the record came.
    let (timestamp, received_at) = match place {
        Some(_) => (Some(letter.record_time), letter.time),
        None => (None, letter.record_time),
    };
    let mut chunk = Chunk::with_capacity(received_at, 1, letter.payload.len());
    let topic = if on_topic { letter.topic_or_subject.clone() } else { String::new() };
    let place = place.map(|(number, offset)| {
        let partition = Arc::new(Partition { topic, number, epoch: 0 });
        (chunk.partition(&partition), offset)
    });
    let record = NewRecord {
        subject: if on_topic { "" } else { &letter.topic_or_subject },
        place,
        // The letter has it for its offset.
        sequence: None,
        timestamp,
        key: letter.key.as_deref(),
        payload: Some(&letter.payload),
    };
    let headers = letter.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
    chunk.push(record, headers);
    chunk
}
