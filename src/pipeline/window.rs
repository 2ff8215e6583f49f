//! How long the tables of routes that promise exactly once remember what they took: looked at now
//! and then, because it shrinks as the rate of inserts grows. An outage that lasts longer makes
//! the bridge ask the table itself, which not every table can answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Pipeline;
use super::attempt::Job;
use crate::sink::{InsertError, Sink, Window};
use crate::status::WindowStatus;

/// A look is a handful of small queries a table, and the rate of inserts changes slowly.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Below this a person should know: a restart of ClickHouse with its merges, or of the bridge by
/// hand, takes minutes.
const SHORT: Duration = Duration::from_secs(600);

/// What was seen of a table's window, and how fast it is used up.
#[derive(Debug, Clone, Copy)]
pub(super) struct WindowSeen {
    entries: u64,
    lasts: Option<Duration>,
    block: u64,
    at: Instant,
    entries_per_second: f64,
    is_short: bool,
}

impl WindowSeen {
    fn new(before: Option<&Self>, window: &Window, at: Instant) -> Self {
        let rate = before.filter(|before| at > before.at).map_or(0.0, |before| {
            let used = window.used_since(before.block).unwrap_or_default();
            let used = u32::try_from(used).unwrap_or(u32::MAX);
            f64::from(used) / (at - before.at).as_secs_f64()
        });
        let mut seen = Self {
            entries: window.entries,
            lasts: window.lasts,
            block: window.block,
            at,
            entries_per_second: rate,
            is_short: false,
        };
        seen.is_short = seen.covers().is_some_and(|covers| covers < SHORT);
        seen
    }

    /// How long an outage may be at the rate of now; None: there is no limit yet.
    fn covers(&self) -> Option<Duration> {
        let entries = f64::from(u32::try_from(self.entries).unwrap_or(u32::MAX));
        let by_entries = (self.entries_per_second > 0.0)
            .then(|| Duration::try_from_secs_f64(entries / self.entries_per_second).ok())
            .flatten();
        by_entries.into_iter().chain(self.lasts).min()
    }

    pub(super) fn status(&self) -> WindowStatus {
        WindowStatus {
            entries: self.entries,
            entries_per_second: self.entries_per_second,
            covers_seconds: self.covers().map(|covers| covers.as_secs_f64()),
        }
    }
}

impl<S: Sink> Pipeline<S> {
    /// Looks at the windows, if it is time.
    pub(super) fn look_at_windows(&mut self, now: Instant) {
        if now < self.windows_due {
            return;
        }
        self.windows_due = now + LOOK_EVERY;
        for (index, table) in self.tables.iter().enumerate() {
            if table.exactly_once.is_none() || table.is_broken() {
                continue;
            }
            let (sink, name) = (Arc::clone(&self.sink), table.name.clone());
            self.jobs.spawn(async move {
                let result = sink.window(&name).await;
                Job::Window { table: index, result }
            });
        }
    }

    pub(super) fn window_seen(&mut self, table: usize, result: Result<Window, InsertError>) {
        let table = &mut self.tables[table];
        let window = match result {
            Ok(window) => window,
            Err(error) => {
                let (name, why) = (&table.name, error.refusal());
                tracing::debug!(table = name, "cannot look at the deduplication window: {why}");
                return;
            }
        };
        table.block = window.block;
        let seen = WindowSeen::new(table.window.as_ref(), &window, Instant::now());
        let was_short = table.window.is_some_and(|before| before.is_short);
        if seen.is_short && !was_short {
            let covers = seen.covers().unwrap_or_default().as_secs();
            tracing::warn!(
                event = "deduplication_window_short",
                table = table.name,
                entries = seen.entries,
                covers_seconds = covers,
                "the deduplication window covers an outage of {covers} s only: raise it, or insert \
                 larger batches less often (docs/guarantees.md, Exactly once)"
            );
        }
        table.window = Some(seen);
        if let Some(problem) = window.problems.first() {
            // Somebody changed the table under us: the route waits until it is mended.
            tracing::error!(
                event = "needs_person",
                table = table.name,
                "exactly once would be a lie: {problem}"
            );
            let name = table.name.clone();
            table.program = None;
            self.read_schema_again(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(block: u64) -> Window {
        Window { entries: 10_000, lasts: None, block, problems: Vec::new() }
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_covers_what_it_holds_at_the_rate_at_which_it_is_used() {
        let start = Instant::now();
        let first = WindowSeen::new(None, &window(100), start);
        assert_eq!(first.covers(), None);
        let later = start + Duration::from_secs(30);
        let second = WindowSeen::new(Some(&first), &window(100 + 3_600), later);
        assert_eq!(second.covers().unwrap().as_secs(), 83);
        assert!(second.is_short);
        let quiet = WindowSeen::new(Some(&second), &window(3_700), later + LOOK_EVERY);
        assert!(!quiet.is_short && quiet.covers().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_in_time_counts_as_well() {
        let window = Window { lasts: Some(Duration::from_secs(3_600)), ..window(1) };
        let seen = WindowSeen::new(None, &window, Instant::now());
        assert_eq!(seen.covers(), Some(Duration::from_secs(3_600)));
    }
}
