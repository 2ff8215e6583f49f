//! Sends dead letters through again: the current routes, the current mappings, the same decoder.
//!
//! Exactly once where the table remembers inserts, by intent before insert: what a batch holds, and
//! the token of its insert, is kept among the letters as a *plan* before it is sent. Whoever comes
//! after a crash finds the plan and sends exactly those letters with the same token; only then is
//! anything new begun. A letter is marked as replayed after its row is durable. The order is
//! plan → insert → marks → plan closed, and each step may be repeated.
//!
//! A letter that is still refused stays, with its new reason. One at a time: two replays at once may
//! take the same letters.

mod batch;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};

use self::batch::{Coded, Coder, Part};
use self::plan::Plan;
use super::letter::DeadLetter;
use super::store::{Filter, LetterStore, PageLimits};
use crate::config::{Config, Endpoints};
use crate::record::UnixMs;
use crate::retry;
use crate::sink::{Insert, InsertError, Sink, Window};

/// Letters that are in memory at a time, and rows of one insert. Few enough that the ids of a plan
/// are a statement that ClickHouse accepts (256 KiB), enough that a million take five hundred
/// inserts.
const PAGE: PageLimits = PageLimits { letters: 2_000, bytes: 16 * 1024 * 1024 };

/// Attempts at an insert before the replay gives up; the plan stays, and the next replay goes on.
const ATTEMPTS: u32 = 10;

/// What to do about an interrupted batch of which nobody can tell whether it landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUncertain {
    /// Stop, and say so.
    Halt,
    /// Its letters are replayed anew.
    AcceptDuplicates,
    /// Its letters count as replayed.
    AcceptLoss,
}

#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Decode and say what would happen; write nothing.
    pub dry_run: bool,
    pub on_uncertain: OnUncertain,
}

/// What became of the letters.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Rows that landed (or would), by table.
    pub replayed: BTreeMap<String, u64>,
    /// Still refused, by route and reason.
    pub refused: BTreeMap<(String, String), u64>,
    /// Left alone, and why.
    pub skipped: BTreeMap<String, u64>,
    /// Of those replayed: finished for a replay that was interrupted.
    pub resumed: u64,
    /// Tables where a crash of this replay might have stored rows twice, and why.
    pub at_least_once: BTreeMap<String, String>,
}

impl Outcome {
    #[must_use]
    pub fn stays(&self) -> u64 {
        self.refused.values().sum::<u64>() + self.skipped.values().sum::<u64>()
    }
}

/// What became of an insert.
enum Sent {
    Landed,
    /// By a definite answer to the only attempt.
    Refused(InsertError),
    Unknown(String),
}

/// A replay, as it goes.
pub struct Replay<'a, S, L> {
    config: &'a Config,
    sink: &'a S,
    letters: &'a mut L,
    options: Options,
    coder: Coder,
    outcome: Outcome,
}

impl<S, L> std::fmt::Debug for Replay<'_, S, L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").field("outcome", &self.outcome).finish_non_exhaustive()
    }
}

impl<'a, S: Sink, L: LetterStore> Replay<'a, S, L> {
    /// # Errors
    /// When the routes do not compile.
    pub fn new(
        config: &'a Config,
        sink: &'a S,
        letters: &'a mut L,
        options: Options,
    ) -> anyhow::Result<Self> {
        let coder = Coder::new(config)?;
        Ok(Self { config, sink, letters, options, coder, outcome: Outcome::default() })
    }

    /// Replays all letters that fulfil the filter and were not replayed yet.
    ///
    /// # Errors
    /// When something cannot be read or written. What was done is done; a later replay goes on.
    pub async fn run(mut self, filter: &Filter) -> anyhow::Result<Outcome> {
        self.finish_plans().await?;
        let filter = Filter { replayed: Some(false), ..filter.clone() };
        loop {
            let page = self.letters.page(&filter, PAGE).await?;
            if page.is_empty() {
                return Ok(self.outcome);
            }
            for part in self.coder.parts(page, &mut self.outcome) {
                self.part(part).await?;
            }
        }
    }

    /// The letters of one table.
    async fn part(&mut self, part: Part) -> anyhow::Result<()> {
        self.coder.learn(self.sink, &part).await?;
        let mut parts = vec![part];
        while let Some(part) = parts.pop() {
            let plan = Plan::new(&part, self.window(&part.table).await?.block);
            let mut coded = self.coder.encode(part, &plan.token)?;
            self.still_refused(std::mem::take(&mut coded.refused)).await?;
            let Some(insert) = coded.insert.take() else { continue };
            if self.options.dry_run {
                self.count(&insert);
                continue;
            }
            let plan = plan.of(&coded.letters, &insert.body);
            self.letters.append(&[plan.letter(now(), &self.config.instance)]).await?;
            match self.insert(&insert).await {
                Sent::Landed => {
                    self.count(&insert);
                    self.landed(&plan, coded.letters).await?;
                }
                Sent::Refused(error) => parts.extend(self.not_landed(&plan, coded, error).await?),
                Sent::Unknown(why) => {
                    bail!("{}: {why}; the next replay finishes what was begun", plan.table)
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, insert: &Insert) {
        *self.outcome.replayed.entry(insert.table.clone()).or_default() += insert.rows as u64;
    }

    /// Marks the letters, and only then closes the plan.
    async fn landed(&self, plan: &Plan, mut letters: Vec<DeadLetter>) -> anyhow::Result<()> {
        let at = now();
        letters.iter_mut().for_each(|letter| letter.replayed_at = Some(at));
        self.letters.append(&letters).await?;
        self.close(plan).await
    }

    async fn close(&self, plan: &Plan) -> anyhow::Result<()> {
        let mut closed = plan.letter(now(), &self.config.instance);
        closed.replayed_at = Some(closed.time);
        self.letters.append(&[closed]).await
    }

    /// Nothing of the insert is there; gives the halves to try if some row will never go in.
    async fn not_landed(
        &mut self,
        plan: &Plan,
        mut coded: Coded,
        error: InsertError,
    ) -> anyhow::Result<Vec<Part>> {
        self.close(plan).await?;
        let InsertError::Reject(refusal) = error else {
            bail!("{}: {}", plan.table, error.refusal());
        };
        let mut letters = std::mem::take(&mut coded.letters);
        if let [letter] = letters.as_mut_slice() {
            letter.reason = "refused_by_clickhouse".to_owned();
            letter.error = refusal.to_string();
            self.still_refused(letters).await?;
            return Ok(Vec::new());
        }
        let right = letters.split_off(letters.len() / 2);
        Ok(vec![coded.part(&plan.table, right), coded.part(&plan.table, letters)])
    }

    /// They stay, with their new reason.
    async fn still_refused(&mut self, letters: Vec<DeadLetter>) -> anyhow::Result<()> {
        for letter in &letters {
            let key = (letter.route.clone(), letter.reason.clone());
            *self.outcome.refused.entry(key).or_default() += 1;
        }
        if !letters.is_empty() && !self.options.dry_run {
            self.letters.append(&letters).await?;
        }
        Ok(())
    }

    /// The same bytes with the same token, until there is a definite answer.
    async fn insert(&self, insert: &Insert) -> Sent {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.sink.insert(insert.clone()).await {
                Ok(()) => return Sent::Landed,
                Err(InsertError::Retry(why)) if attempt == ATTEMPTS => {
                    return Sent::Unknown(why.to_string());
                }
                Err(InsertError::Retry(why)) => {
                    tracing::debug!(attempt, table = insert.table, "replay: {why}");
                    tokio::time::sleep(retry::ceiling(&self.config.retry, attempt)).await;
                }
                Err(error) if attempt == 1 => return Sent::Refused(error),
                // That speaks of this attempt, not of those before it.
                Err(error) => return Sent::Unknown(error.refusal().to_string()),
            }
        }
    }

    /// What the table remembers of inserts, and whether that can be relied on.
    async fn window(&mut self, table: &str) -> anyhow::Result<Window> {
        let window = self.sink.window(table).await;
        let mut window = window.map_err(|error| anyhow::anyhow!("{}", error.refusal()))?;
        let clickhouse = &self.config.clickhouse;
        if clickhouse.urls.len() > 1 && clickhouse.endpoints == Endpoints::Independent {
            // Another process may send a repeated insert to another one.
            let text = "there are several servers that know nothing of each other's inserts";
            window.problems.push(text.to_owned());
        }
        if !window.problems.is_empty() {
            let why = window.problems.join("; ");
            self.outcome.at_least_once.insert(table.to_owned(), why);
        }
        Ok(window)
    }

    /// What an interrupted replay had begun comes first: exactly its letters, with its token.
    async fn finish_plans(&mut self) -> anyhow::Result<()> {
        let open = self.letters.list(&Filter::open_plans(), usize::MAX >> 1).await?;
        if open.letters.is_empty() {
            return Ok(());
        }
        if self.options.dry_run {
            let text = "begun by a replay that was interrupted; a replay finishes it first";
            let plans = open.letters.iter().filter_map(|letter| Plan::read(letter).ok());
            let letters = plans.map(|plan| plan.ids.len() as u64).sum();
            self.outcome.skipped.insert(text.to_owned(), letters);
            return Ok(());
        }
        for letter in &open.letters {
            let plan = Plan::read(letter).with_context(|| format!("the plan {}", letter.id))?;
            self.finish(plan, letter.time).await?;
        }
        Ok(())
    }

    async fn finish(&mut self, mut plan: Plan, begun: UnixMs) -> anyhow::Result<()> {
        let letters = self.letters.fetch(&plan.ids).await?;
        let open: Vec<DeadLetter> =
            letters.iter().filter(|letter| letter.replayed_at.is_none()).cloned().collect();
        if open.is_empty() {
            return self.close(&plan).await;
        }
        let uncertain = match self.again(&mut plan, letters, begun).await? {
            Ok((insert, letters)) => match self.insert(&insert).await {
                Sent::Landed => {
                    self.count(&insert);
                    self.outcome.resumed += insert.rows as u64;
                    return self.landed(&plan, letters).await;
                }
                // What is refused now may have landed then.
                Sent::Refused(InsertError::Reject(why)) => format!("now it is refused: {why}"),
                Sent::Refused(error) => bail!("{}: {}", plan.table, error.refusal()),
                Sent::Unknown(why) => bail!("{}: {why}; the next replay goes on", plan.table),
            },
            Err(uncertain) => uncertain,
        };
        match self.options.on_uncertain {
            OnUncertain::Halt => bail!(
                "a replay of {} letters into {} was interrupted at {}, and whether their rows \
                 landed is not known: {uncertain}. Look into the table, then run the replay with \
                 --on-uncertain accept_duplicates (they are replayed anew) or accept_loss (they \
                 count as replayed)",
                open.len(),
                plan.table,
                jiff::Timestamp::from_millisecond(begun).unwrap_or_default(),
            ),
            OnUncertain::AcceptDuplicates => self.close(&plan).await,
            OnUncertain::AcceptLoss => self.landed(&plan, open).await,
        }
    }

    /// The insert of a plan as it was; or why it cannot be sent again.
    async fn again(
        &mut self,
        plan: &mut Plan,
        letters: Vec<DeadLetter>,
        begun: UnixMs,
    ) -> anyhow::Result<Result<(Insert, Vec<DeadLetter>), String>> {
        let window = self.window(&plan.table).await?;
        if let Some(why) = plan.forgotten(&window, begun, now()) {
            return Ok(Err(why));
        }
        let Some(part) = self.coder.part_of(plan, letters) else {
            return Ok(Err(format!("the routes no longer send all of them into {}", plan.table)));
        };
        self.coder.learn(self.sink, &part).await?;
        let coded = self.coder.encode(part, &plan.token)?;
        Ok(match coded.insert {
            Some(insert) if coded.refused.is_empty() && plan.is_of(&insert.body) => {
                Ok((insert, coded.letters))
            }
            _ => Err("the mapping, the table or the letters have changed since".to_owned()),
        })
    }
}

fn now() -> UnixMs {
    jiff::Timestamp::now().as_millisecond()
}
