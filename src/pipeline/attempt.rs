//! What a job does with a batch: encode it, send it, or find out whether it landed. A job owns its
//! batch while it runs and gives it back with what became of it; it decides nothing that another
//! batch could feel.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::exact::Step;
use super::insert::CutBatch;
use super::table::Known;
use crate::batch::{LooseRow, Refused};
use crate::config::OnUncertain;
use crate::encode::{self, Program};
use crate::intent::Range;
use crate::record::{Partition, UnixMs};
use crate::sink::{InsertError, Landed, LandedQuestion, Refusal, RowsFrom, Sink, Window};
use crate::trace::StepKind;

/// A batch that is announced is sent within moments, unless slots are scarce, ClickHouse is away (then
/// a look at the window costs little), or the process was stopped meanwhile: for as long, at least, as
/// it takes to be replaced.
const OLD_MS: UnixMs = 5_000;

/// What a job gives back.
#[derive(Debug)]
pub(super) enum Job {
    Batch(Box<Attempt>),
    Schema {
        table: String,
        result: Result<Known, InsertError>,
    },
    /// Servers that had failed were asked; the sink keeps what they said.
    AskedEndpoints,
    Window {
        table: usize,
        result: Result<Window, InsertError>,
    },
    /// It was stopped because the bridge gives up.
    Aborted,
}

/// One attempt, finished.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) cut: CutBatch,
    pub(super) rejected: Vec<(LooseRow, Refused)>,
    pub(super) outcome: Outcome,
    pub(super) took: Duration,
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The insert was acknowledged, or it is certain that an earlier one landed.
    Durable,
    Refused(InsertError),
    /// Ready to be announced, and only then to be sent.
    Encoded,
    /// It is certain that what was noted did not land; announce it as it is now.
    NeverLanded,
    /// ClickHouse takes it for known, and has none of its rows.
    Spent,
    /// Nobody can tell whether it landed, and the configuration takes it for inserted; why.
    GivenUp(String),
    /// Nobody can tell whether it landed, and somebody shall decide; why, and how.
    Uncertain(String),
}

/// What the job needs to know of the partition of a batch that is sent exactly once.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) partition: Arc<Partition>,
    pub(super) on_uncertain: OnUncertain,
    /// Streams that fill the table.
    pub(super) streams: usize,
}

impl Place {
    fn rows_from(&self) -> RowsFrom {
        if self.partition.is_stream() {
            return RowsFrom::Stream { alone: self.streams == 1 };
        }
        let Partition { topic, number, .. } = &*self.partition;
        RowsFrom::Partition { topic: topic.clone(), number: *number }
    }
}

/// Runs one step of a batch.
pub(super) async fn run<S: Sink>(
    sink: Arc<S>,
    program: Arc<Program>,
    cut: CutBatch,
    naming: encode::Naming,
    place: Option<Place>,
    started: Instant,
) -> Job {
    let (cut, rejected, outcome) = match &place {
        None => {
            let Some((mut cut, rejected, encoded)) = encode(cut, program, naming).await else {
                return Job::Aborted;
            };
            let outcome = match encoded {
                Ok(()) => Outcome::of(send(&*sink, &mut cut).await),
                Err(error) => Outcome::Refused(error),
            };
            (cut, rejected, outcome)
        }
        Some(place) => match cut.step() {
            Step::Encode => {
                let Some((cut, rejected, encoded)) = encode(cut, program, naming).await else {
                    return Job::Aborted;
                };
                let outcome = encoded.map_or_else(Outcome::Refused, |()| Outcome::Encoded);
                (cut, rejected, outcome)
            }
            Step::Send => {
                let mut cut = cut;
                let outcome = send_once(&*sink, &mut cut, place).await;
                (cut, Vec::new(), outcome)
            }
            Step::Verify => {
                let outcome = look_for(&*sink, &cut, place, false).await;
                (cut, Vec::new(), outcome)
            }
        },
    };
    let took = started.elapsed();
    Job::Batch(Box::new(Attempt { cut, rejected, outcome, took }))
}

type Encoded = (CutBatch, Vec<(LooseRow, Refused)>, Result<(), InsertError>);

/// Encodes the batch if that has not been done. None when the runtime is going down.
async fn encode(
    mut cut: CutBatch,
    program: Arc<Program>,
    naming: encode::Naming,
) -> Option<Encoded> {
    if cut.is_encoded() {
        return Some((cut, Vec::new(), Ok(())));
    }
    let began = Instant::now();
    // Encoding a large batch takes milliseconds of pure computing: not on the async threads.
    let encoding = tokio::task::spawn_blocking(move || {
        let encoded = encode::encode(&mut cut.batch, &program, naming);
        if let (Some(exact), Ok(encoded)) = (&mut cut.exact, &encoded) {
            exact.sum_up(encoded.insert.as_ref());
        }
        (cut, encoded)
    });
    let (mut cut, encoded) = match encoding.await {
        Ok(encoded) => encoded,
        // The batch is gone with it: the process must end, see `job_result`.
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => return None,
    };
    cut.trace.step(StepKind::Encode, began, || encoded.as_ref().err().cloned());
    Some(match encoded {
        Ok(encoded) => {
            cut.rounded = encoded.rounded;
            cut.insert = encoded.insert;
            (cut, encoded.rejected, Ok(()))
        }
        Err(message) => {
            let refused = InsertError::AwaitFix(Refusal::without_code(message));
            (cut, Vec::new(), Err(refused))
        }
    })
}

async fn send<S: Sink>(sink: &S, cut: &mut CutBatch) -> Result<(), InsertError> {
    let Some(insert) = cut.insert.clone() else { return Ok(()) };
    let began = Instant::now();
    let sent = sink.insert(insert).await;
    let why = || sent.as_ref().err().map(|error| error.refusal().outline());
    cut.trace.step(StepKind::Insert, began, why);
    sent
}

/// Sends a batch that was announced. If an earlier attempt may have landed, or one of another owner
/// that took over while we were frozen, only the table's window keeps this one from landing beside
/// it: where that may have passed, the table is asked.
async fn send_once<S: Sink>(sink: &S, cut: &mut CutBatch, place: &Place) -> Outcome {
    let now = super::wall_clock();
    let doubt = cut.noted().filter(|range| cut.is_doubtful() || is_old(range, now));
    if let Some(range) = doubt {
        match sink.window(&range.table).await {
            Ok(window) if window_covers(&window, range) => {}
            Ok(_) => match look_for(sink, cut, place, false).await {
                Outcome::NeverLanded => {}
                other => return other,
            },
            Err(error) => return Outcome::Refused(error),
        }
    }
    match Outcome::of(send(sink, cut).await) {
        Outcome::Durable if cut.is_repeated() => look_for(sink, cut, place, true).await,
        other => other,
    }
}

/// Announced so long ago that others may have been owner since.
fn is_old(range: &Range, now: UnixMs) -> bool {
    now - range.listed_at > OLD_MS
}

/// Whether the table certainly still knows a token that was first sent when the range was listed.
/// A fifth of the window is left for what other batches use between this look and the insert.
fn window_covers(window: &Window, range: &Range) -> bool {
    let Some(used) = window.used_since(range.block) else { return false };
    let age = super::wall_clock() - range.listed_at;
    let lasts = window
        .lasts
        .is_none_or(|lasts| u128::try_from(age).is_ok_and(|age| age * 5 < lasts.as_millis() * 4));
    window.problems.is_empty() && lasts && used * 5 < window.entries * 4
}

/// Asks the table whether the noted range landed; `acknowledged`: or whether that was believed for
/// nothing, because a killed server remembers only its token.
async fn look_for<S: Sink>(sink: &S, cut: &CutBatch, place: &Place, acknowledged: bool) -> Outcome {
    let missing = if acknowledged { Outcome::Spent } else { Outcome::NeverLanded };
    let Some(noted) = cut.noted() else { return missing };
    let question = LandedQuestion {
        table: noted.table.clone(),
        from: place.rows_from(),
        first: noted.first,
        last: noted.last,
        rows: noted.rows,
        token: cut.token().to_owned(),
        acknowledged,
    };
    match sink.landed(question).await {
        Ok(Landed::All) => Outcome::Durable,
        Ok(Landed::None) => missing,
        Ok(Landed::Unclear(why)) => unclear(noted, place, &why, missing),
        Err(error) => Outcome::Refused(error),
    }
}

/// Nobody can tell whether it landed: what the configuration says. `again`: how it is inserted again.
fn unclear(noted: &Range, place: &Place, why: &str, again: Outcome) -> Outcome {
    let Range { table, first, last, rows, .. } = noted;
    let Partition { topic, number, .. } = &*place.partition;
    let what = format!(
        "whether the {rows} rows of {topic}/{number} {first}-{last} are in `{table}` already \
         cannot be told: {why}"
    );
    match place.on_uncertain {
        OnUncertain::AcceptDuplicates => {
            tracing::warn!(
                event = "uncertain_accepted",
                "{what}; inserted (again): on_uncertain = \"accept_duplicates\""
            );
            again
        }
        OnUncertain::AcceptLoss => Outcome::GivenUp(what),
        OnUncertain::Halt => Outcome::Uncertain(format!(
            "{what}; look for them there, then set on_uncertain of the route to \
             \"accept_duplicates\" (insert them) or \"accept_loss\" (leave them) and restart"
        )),
    }
}

impl Outcome {
    fn of(result: Result<(), InsertError>) -> Self {
        match result {
            Ok(()) => Self::Durable,
            Err(error) => Self::Refused(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_was_announced_long_ago_may_have_been_sent_by_another_owner_since() {
        let (table, listed_at) = ("t".to_owned(), 1_700_000_000_000);
        let range = Range {
            table,
            first: 0,
            last: 9,
            rows: 10,
            checksum: 0,
            block: 0,
            listed_at,
            spent: 0,
        };
        assert!(!is_old(&range, listed_at + OLD_MS));
        assert!(is_old(&range, listed_at + OLD_MS + 1));
        // A clock that was set back makes it no older.
        assert!(!is_old(&range, listed_at - 1));
    }
}
