//! Letters in something that is only ever appended to: a file, a topic, a stream. They are read
//! from its beginning; what counts is the last line of each id.
//!
//! Memory: some hundred bytes an id while it is read, and the letters of one page.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::Destination;
use super::letter::DeadLetter;
use super::store::{Filter, Group, LetterStore, Listing, PageLimits};
use crate::retry;
use crate::sink::{AfterRestart, Insert, InsertError};
use crate::{config, record::UnixMs};

/// Lines on their way from the reader; few, each may be a letter of many megabytes.
pub(super) const LINES_AHEAD: usize = 16;

/// Somebody deleted some of them, or time did.
const CHANGED: &str = "the letters changed while they were read; run it again";

/// Attempts to append before a command gives up; with the bridge's backoff some seconds at least.
const ATTEMPTS: u32 = 10;

/// Where a line is: the partition, and the offset, sequence or number in it. The same whenever it
/// is read: lines of several partitions come in another order each time.
pub(super) type Spot = (i32, u64);

/// The lines from the beginning up to what was the end when the reading began.
#[derive(Debug)]
pub struct Lines {
    pub(super) lines: mpsc::Receiver<anyhow::Result<(Spot, Bytes)>>,
    /// Ends with this.
    pub(super) reader: JoinSet<()>,
}

impl Lines {
    async fn next(&mut self) -> Option<anyhow::Result<(Spot, Bytes)>> {
        if let Some(line) = self.lines.recv().await {
            return Some(line);
        }
        // A reader that panicked must not look like the end.
        let ended = self.reader.join_next().await?;
        ended.err().map(|error| Err(anyhow::Error::new(error).context("reading dead letters")))
    }
}

/// A log of letters, and how far a paging has come.
#[derive(Debug)]
pub struct LogStore {
    destination: Destination,
    place: String,
    retry: config::Retry,
    paging: Option<Paging>,
}

#[derive(Debug)]
struct Paging {
    lines: Lines,
    /// The lines that are to be given out, and whose they are.
    wanted: HashMap<Spot, Uuid>,
    /// Read and not given out yet.
    ahead: Option<DeadLetter>,
}

impl LogStore {
    #[must_use]
    pub fn new(destination: Destination, place: String, retry: config::Retry) -> Self {
        Self { destination, place, retry, paging: None }
    }

    /// Every letter without its payload, key and headers.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn outlines(&self) -> anyhow::Result<Vec<DeadLetter>> {
        let (known, _) = self.fold().await?;
        Ok(known.into_values().map(|known| known.letter).collect())
    }

    /// The line that counts for each id.
    async fn fold(&self) -> anyhow::Result<(HashMap<Uuid, Known>, u64)> {
        let mut lines = self.destination.scan().await?;
        let (mut known, mut unreadable) = (HashMap::new(), 0);
        while let Some(line) = lines.next().await {
            let (spot, line) = line?;
            match DeadLetter::read(&line) {
                Ok(letter) => note(&mut known, letter, spot),
                Err(_) => unreadable += 1,
            }
        }
        Ok((known, unreadable))
    }
}

/// What of a letter is kept in memory: everything but what came with it.
#[derive(Debug)]
struct Known {
    spot: Spot,
    letter: DeadLetter,
}

fn note(known: &mut HashMap<Uuid, Known>, mut letter: DeadLetter, spot: Spot) {
    letter.payload = Vec::new();
    letter.headers = Vec::new();
    letter.key = None;
    let before = known.get(&letter.id).and_then(|before| before.letter.replayed_at);
    if before.is_none() || letter.replayed_at.is_some() {
        known.insert(letter.id, Known { spot, letter });
    }
}

impl LetterStore for LogStore {
    async fn list(&self, filter: &Filter, newest: usize) -> anyhow::Result<Listing> {
        let (known, unreadable) = self.fold().await?;
        let mut matching: Vec<&DeadLetter> =
            known.values().map(|known| &known.letter).filter(|l| filter.matches(l)).collect();
        matching.sort_by_key(|letter| std::cmp::Reverse((letter.time, letter.id)));
        let groups = groups(&matching);
        let shown: Vec<Uuid> = matching.iter().take(newest).map(|letter| letter.id).collect();
        let mut letters = self.fetch(&shown).await?;
        letters.sort_by_key(|letter| std::cmp::Reverse((letter.time, letter.id)));
        Ok(Listing { groups, letters, unreadable })
    }

    async fn page(
        &mut self,
        filter: &Filter,
        limits: PageLimits,
    ) -> anyhow::Result<Vec<DeadLetter>> {
        let mut paging = match self.paging.take() {
            Some(paging) => paging,
            None => {
                let (known, _) = self.fold().await?;
                let matching = known.values().filter(|known| filter.matches(&known.letter));
                let wanted = matching.map(|known| (known.spot, known.letter.id)).collect();
                Paging { lines: self.destination.scan().await?, wanted, ahead: None }
            }
        };
        let mut page = Vec::new();
        let mut bytes = 0;
        while page.len() < limits.letters {
            let Some(letter) = paging.next().await? else { break };
            bytes += letter.payload.len();
            if bytes > limits.bytes && !page.is_empty() {
                paging.ahead = Some(letter);
                break;
            }
            page.push(letter);
        }
        if !page.is_empty() {
            self.paging = Some(paging);
        }
        Ok(page)
    }

    async fn fetch(&self, ids: &[Uuid]) -> anyhow::Result<Vec<DeadLetter>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ids: HashSet<Uuid> = ids.iter().copied().collect();
        let mut found: HashMap<Uuid, DeadLetter> = HashMap::new();
        let mut lines = self.destination.scan().await?;
        while let Some(line) = lines.next().await {
            let Ok(letter) = DeadLetter::read(&line?.1) else { continue };
            let before = found.get(&letter.id).and_then(|before| before.replayed_at);
            if ids.contains(&letter.id) && (before.is_none() || letter.replayed_at.is_some()) {
                found.insert(letter.id, letter);
            }
        }
        Ok(found.into_values().collect())
    }

    async fn append(&self, letters: &[DeadLetter]) -> anyhow::Result<()> {
        let mut body = Vec::new();
        letters.iter().for_each(|letter| letter.write(&mut body));
        let insert = Insert {
            table: self.place.clone(),
            format: "JSONEachRow",
            columns: Vec::new(),
            body: body.into(),
            token: Uuid::from_u128(rand::random()).to_string(),
            after_restart: AfterRestart::OtherToken,
            rows: letters.len(),
        };
        for attempt in 1..=ATTEMPTS {
            match self.destination.append(insert.clone()).await {
                Ok(()) => return Ok(()),
                Err(InsertError::Retry(why)) if attempt < ATTEMPTS => {
                    tracing::debug!(attempt, "writing to {}: {why}", self.place);
                    tokio::time::sleep(retry::ceiling(&self.retry, attempt)).await;
                }
                Err(error) => bail!("{}", error.refusal()),
            }
        }
        bail!("{} attempts to write to {} have failed", ATTEMPTS, self.place)
    }
}

impl Paging {
    async fn next(&mut self) -> anyhow::Result<Option<DeadLetter>> {
        if let Some(letter) = self.ahead.take() {
            return Ok(Some(letter));
        }
        while !self.wanted.is_empty() {
            let line = self.lines.next().await.context(CHANGED)?;
            let (spot, line) = line?;
            let Some(id) = self.wanted.remove(&spot) else { continue };
            let letter = DeadLetter::read(&line).map_err(anyhow::Error::msg).context(CHANGED)?;
            ensure!(letter.id == id, CHANGED);
            return Ok(Some(letter));
        }
        Ok(None)
    }
}

fn groups(letters: &[&DeadLetter]) -> BTreeMap<(String, String), Group> {
    let mut groups: BTreeMap<(String, String), Group> = BTreeMap::new();
    for letter in letters {
        let time: UnixMs = letter.time;
        let key = (letter.route.clone(), letter.reason.clone());
        let group = groups.entry(key).or_insert_with(|| Group {
            count: 0,
            oldest: time,
            newest: time,
            example: letter.error.clone(),
        });
        group.count += 1;
        group.oldest = group.oldest.min(time);
        group.newest = group.newest.max(time);
    }
    groups
}
