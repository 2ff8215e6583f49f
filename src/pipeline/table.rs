//! The tables that the routes write to, and the reading of their schemas.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Pipeline;
use super::attempt::Job;
use super::window::WindowSeen;
use crate::adaptive::Size;
use crate::batch::Batch;
use crate::config::{self, DeadLetters, OnUncertain, RouteFormat};
use crate::encode::Program;
use crate::retry;
use crate::schema::TableSchema;
use crate::sink::{InsertError, Sink, Window};
use crate::status::RouteState;
use crate::writer::OpenBatches;

/// The index of the table that takes the dead letters: the first, so that others may come.
pub(super) const LETTERS: usize = 0;

/// Dead letters are few and each may matter: written soon, in small batches.
const DEAD_LETTER_LIMITS: config::Writer = config::Writer {
    batch_rows: 1_000,
    batch_bytes: 16 * 1024 * 1024,
    linger: Duration::from_secs(1),
    batch_rows_min: 1_000,
    batch_rows_max: 1_000,
};

/// When ClickHouse goes down as a whole, the last success of one table may come after the first
/// failure of another, by so much.
const GOES_DOWN_WITHIN: Duration = Duration::from_secs(5);

/// Records that a source may still hand over when it is told to hold: the chunks in the channel
/// and the one in its hands, of a thousand each.
const ON_THEIR_WAY: usize = 5_000;

/// One table as one writer fills it in one format. Routes that agree in all of that share it.
#[derive(Debug)]
pub(super) struct Table {
    pub name: String,
    /// The index of its writer; None for the dead letters.
    pub writer: Option<usize>,
    pub format: RouteFormat,
    pub buffer: OpenBatches,
    /// How large its batches are now, where inserts are adaptive.
    pub size: Option<Size>,
    /// Exactly once is promised of its rows; and what to do where it cannot be kept.
    pub exactly_once: Option<OnUncertain>,
    /// Streams of JetStream that fill it, by whatever route.
    pub streams: usize,
    /// The number of its newest part when it was last looked at.
    pub block: u64,
    /// How much it remembers, where exactly once is promised.
    pub window: Option<WindowSeen>,
    /// Rows of ranges that are on their way back from the source.
    pub restoring: usize,
    /// Rows that wait outside its buffer until their route is not shut out any more.
    pub kept: usize,
    /// How a batch becomes a body; None until the schema is known.
    pub program: Option<Arc<Program>>,
    pub state: RouteState,
    /// Rows cut and not durable.
    pub in_flight: usize,
    /// Since when its inserts, or the reading of its schema, are refused.
    broken_since: Option<Instant>,
    /// What is wrong is about this table alone.
    pub own_fault: bool,
    /// It is kept elsewhere: neither the circuit breaker nor the other tables learn from it.
    pub apart: bool,
    /// What is wrong is that it has too many parts.
    pub crowded: bool,
    /// It is broken while others work, and holds all that it may: its own routes wait.
    pub held_back: bool,
    /// No route fills it any more; what it holds is written all the same.
    pub retired: bool,
    /// No route fills it any more, but for what was on its way when its topic was given up.
    pub left_over: bool,
}

impl Table {
    pub(super) fn new(
        name: &str,
        writer: Option<usize>,
        format: RouteFormat,
        limits: config::Writer,
    ) -> Self {
        Self {
            name: name.to_owned(),
            writer,
            format,
            buffer: OpenBatches::new(limits),
            size: None,
            exactly_once: None,
            streams: 0,
            block: 0,
            window: None,
            restoring: 0,
            kept: 0,
            program: None,
            state: RouteState::Starting,
            in_flight: 0,
            broken_since: None,
            own_fault: false,
            apart: false,
            crowded: false,
            held_back: false,
            retired: false,
            left_over: false,
        }
    }

    /// Nobody misses it if it is broken.
    pub(super) fn is_idle(&self) -> bool {
        (self.retired || self.left_over) && self.rows() == 0
    }

    /// The one that takes the dead letters.
    pub(super) fn of_letters(letters: &DeadLetters) -> Self {
        Self::new(&letters.place(), None, letters.format(), DEAD_LETTER_LIMITS)
    }

    /// No route fills it, and it holds nothing: it is only kept because others are known by their
    /// index.
    pub(super) fn is_gone(&self) -> bool {
        self.retired && self.rows() == 0
    }

    /// Tells its name, format and columns from any others.
    pub(super) fn fingerprint(&self) -> u64 {
        let text = format!("{} {:?}", self.name, self.format);
        xxhash_rust::xxh3::xxh3_64(text.as_bytes())
    }

    /// Rows that it holds.
    pub(super) fn rows(&self) -> usize {
        self.buffered() + self.in_flight
    }

    /// Rows that are not cut.
    pub(super) fn buffered(&self) -> usize {
        self.buffer.rows() + self.restoring + self.kept
    }

    /// When its open batch is cut though it is not full. Not while it has too many parts: what comes
    /// meanwhile makes one larger insert rather than many small ones.
    pub(super) fn linger_deadline(&self) -> Option<Instant> {
        self.buffer.deadline().filter(|_| !(self.crowded && self.is_broken()))
    }

    /// The open batches whose linger is over.
    pub(super) fn cut_lingering(&mut self, now: Instant) -> Vec<Batch> {
        let due = self.linger_deadline().is_some_and(|deadline| deadline <= now);
        if due { self.buffer.cut_lingering(now) } else { Vec::new() }
    }

    /// Its inserts, or the reading of its schema, are refused.
    pub(super) fn is_broken(&self) -> bool {
        self.broken_since.is_some()
    }

    /// Whether it is broken while others work. Either what is wrong is about this table alone, and
    /// there are others; or another one was written to well after this one broke, so that it is
    /// not ClickHouse as a whole.
    fn is_broken_alone(&self, others: bool, last_success: Option<Instant>) -> bool {
        let worked_since = |since| last_success > Some(since + GOES_DOWN_WITHIN);
        self.broken_since.is_some_and(|since| (self.own_fault && others) || worked_since(since))
    }

    /// Looks whether it must be held back, with `share` rows to itself; says whether that changed.
    fn look_at_share(&mut self, share: usize, broken_alone: bool) -> bool {
        // Once held back, until it is well below: it shall not flap.
        let begin = share.saturating_sub(ON_THEIR_WAY).max(share / 2);
        let limit = if self.held_back { begin / 2 } else { begin };
        let held_back = broken_alone && self.rows() >= limit;
        std::mem::replace(&mut self.held_back, held_back) != held_back
    }
}

/// What was read of a table.
#[derive(Debug)]
pub(super) struct Known {
    pub schema: TableSchema,
    /// Only where exactly once is promised.
    pub window: Option<Window>,
}

async fn known<S: Sink>(sink: &S, table: &str, window: bool) -> Result<Known, InsertError> {
    let schema = sink.schema(table).await?;
    let window = if window { Some(sink.window(table).await?) } else { None };
    Ok(Known { schema, window })
}

/// What is known of the schemas, by the table's name.
#[derive(Debug, Default)]
pub(super) struct Schemas(BTreeMap<String, Reading>);

#[derive(Debug, Default)]
struct Reading {
    schema: Option<TableSchema>,
    /// When to read it (again); None while it is being read, or known and good.
    due: Option<Instant>,
    under_way: bool,
    failures: u32,
}

impl Schemas {
    /// Wants the schema of each table that has none yet; forgets those that nobody needs.
    pub(super) fn want(&mut self, tables: &[Table]) {
        let needed = |name: &String| tables.iter().any(|t| t.name == *name && !t.is_gone());
        self.0.retain(|name, reading| reading.under_way || needed(name));
        for table in tables.iter().filter(|table| table.program.is_none() && !table.is_gone()) {
            let reading = self.0.entry(table.name.clone()).or_default();
            // Also where it is known: the new way to fill it is held against it when it is read.
            reading.schema = None;
            reading.due.get_or_insert_with(Instant::now);
        }
    }

    pub(super) fn next_due(&self) -> impl Iterator<Item = Instant> {
        self.0.values().filter(|reading| !reading.under_way).filter_map(|reading| reading.due)
    }
}

impl<S: Sink> Pipeline<S> {
    /// A table that is broken while others work may hold half of `pause_threshold`. Beyond it only
    /// its own routes wait: Kafka takes nothing of their topics, of NATS it is dropped.
    pub(super) fn check_shares(&mut self) {
        let share = self.config.backpressure.pause_threshold / 2;
        let works = |table: &Table| {
            table.writer.is_some() && !table.retired && table.state == RouteState::Running
        };
        let working = self.tables.iter().filter(|table| works(table)).count();
        let mut changed = false;
        for table in &mut self.tables {
            let broken_alone = table.is_broken_alone(working > 0, self.last_success);
            if table.look_at_share(share, broken_alone) {
                changed = true;
                let rows = table.rows();
                if table.held_back {
                    tracing::warn!(
                        event = "table_full",
                        table = table.name,
                        rows,
                        "broken, and full: its routes wait"
                    );
                } else {
                    tracing::info!(
                        event = "table_has_room",
                        table = table.name,
                        rows,
                        "its routes go on"
                    );
                }
            }
        }
        if changed {
            self.want_held();
        }
    }

    /// Routes that took more than their rate allows wait, or go on.
    pub(super) fn check_rates(&mut self, now: Instant) {
        if self.limits.look(now) {
            self.want_held();
        }
    }

    /// Tells the sources which partitions to leave alone: those whose table is broken and holds all
    /// that it may, those whose route took more than its rate allows, and those whose noted ranges
    /// must wait for others.
    pub(super) fn want_held(&mut self) {
        self.let_restore();
        for source in &self.sources {
            let mut held = Vec::new();
            for (partition, slot) in &source.assigned {
                let route = self.router.route_of_topic(&partition.topic);
                let table = route.and_then(|route| self.routes[route.index()].table);
                let held_back = table.is_some_and(|table| self.tables[table].held_back);
                let over_rate = route.is_some_and(|route| self.limits.is_held(route));
                if held_back || over_rate || self.must_wait(*slot) {
                    held.push(Arc::clone(partition));
                }
            }
            held.sort();
            source.handle.want_held(held);
        }
    }

    /// Starts reading the schemas that are due.
    pub(super) fn read_due_schemas(&mut self) {
        let now = Instant::now();
        for (table, reading) in &mut self.schemas.0 {
            if !reading.under_way && reading.due.is_some_and(|due| due <= now) {
                reading.due = None;
                reading.under_way = true;
                let (sink, name) = (Arc::clone(&self.sink), table.clone());
                let exactly_once = self
                    .tables
                    .iter()
                    .any(|table| table.name == name && table.exactly_once.is_some());
                self.jobs.spawn(async move {
                    let result = known(&*sink, &name, exactly_once).await;
                    Job::Schema { table: name, result }
                });
            }
        }
    }

    /// An insert says that the table is not what it was: look at once.
    pub(super) fn read_schema_again(&mut self, table: &str) {
        let reading = self.schemas.0.get_mut(table);
        if let Some(reading) = reading.filter(|reading| !reading.under_way) {
            reading.due.get_or_insert_with(Instant::now);
        }
        self.read_due_schemas();
    }

    pub(super) fn schema_read(&mut self, table: &str, result: Result<Known, InsertError>) {
        self.schemas.0.get_mut(table).expect("only known tables are read").under_way = false;
        match result {
            Ok(Known { schema, window }) => {
                self.window_known(table, window.as_ref());
                self.schema_known(table, schema, window);
            }
            Err(error) => {
                let (text, own_fault) = (error.refusal().to_string(), error.is_about_the_table());
                let state = match error {
                    InsertError::AwaitFix(_) => RouteState::AwaitingFix(text),
                    _ => RouteState::Retrying(text),
                };
                self.schema_failed(table, state, own_fault);
            }
        }
    }

    fn window_known(&mut self, name: &str, window: Option<&Window>) {
        let Some(window) = window else { return };
        for table in self.tables.iter_mut().filter(|table| table.name == name) {
            table.block = window.block;
        }
    }

    fn schema_known(&mut self, name: &str, schema: TableSchema, window: Option<Window>) {
        let lies = window.map(|window| window.problems).unwrap_or_default();
        let known = self.schemas.0[name].schema.as_ref();
        let unchanged = known == Some(&schema);
        let mut all_fit = true;
        for index in 0..self.tables.len() {
            if self.tables[index].name != name {
                continue;
            }
            if self.tables[index].exactly_once.is_some() && !lies.is_empty() {
                all_fit = false;
                self.tables[index].own_fault = true;
                let text = format!("exactly once would be a lie: {}", lies.join("; "));
                self.set_table_state(index, RouteState::AwaitingFix(text));
                continue;
            }
            match Program::new(&schema, &self.tables[index].format) {
                Ok(program) => {
                    self.tables[index].program = Some(Arc::new(program));
                    // Unchanged although an insert said so: its own error stays in sight.
                    if !unchanged {
                        self.set_table_state(index, RouteState::Running);
                        self.hurry_waiting(index, false);
                    }
                }
                Err(problems) => {
                    all_fit = false;
                    let problems = problems.join("; ");
                    let text = format!("table `{name}` and its route do not fit: {problems}");
                    self.tables[index].own_fault = true;
                    self.set_table_state(index, RouteState::AwaitingFix(text));
                }
            }
        }
        tracing::debug!(table = name, unchanged, "schema read");
        let reading = self.schemas.0.get_mut(name).expect("only known tables are read");
        if all_fit {
            reading.schema = Some(schema);
            reading.failures = 0;
        } else {
            self.read_schema_later(name);
        }
    }

    fn read_schema_later(&mut self, name: &str) {
        let reading = self.schemas.0.get_mut(name).expect("only known tables are read");
        reading.failures = reading.failures.saturating_add(1);
        reading.due = Some(Instant::now() + retry::delay(&self.config.retry, reading.failures));
    }

    fn schema_failed(&mut self, name: &str, state: RouteState, own_fault: bool) {
        self.read_schema_later(name);
        for index in 0..self.tables.len() {
            if self.tables[index].name == name {
                self.tables[index].own_fault = own_fault;
                self.set_table_state(index, state.clone());
            }
        }
    }

    /// Sets a table's state; a change is logged, once.
    pub(super) fn set_table_state(&mut self, index: usize, state: RouteState) {
        let table = &mut self.tables[index];
        table.broken_since = match state {
            RouteState::Running | RouteState::Starting | RouteState::Removed => None,
            RouteState::Retrying(_) | RouteState::AwaitingFix(_) => {
                table.broken_since.or_else(|| Some(Instant::now()))
            }
        };
        let log_again = std::mem::discriminant(&table.state) != std::mem::discriminant(&state);
        if log_again {
            match &state {
                RouteState::AwaitingFix(what) => {
                    tracing::error!(
                        event = "needs_person",
                        table = table.name,
                        "needs a person: {what}"
                    );
                }
                RouteState::Retrying(why) => {
                    tracing::warn!(
                        event = "insert_refused",
                        table = table.name,
                        "insert refused, trying again: {why}"
                    );
                }
                // At a start that goes well there is nothing to say for each table.
                RouteState::Running if table.state == RouteState::Starting => {
                    tracing::debug!(table = table.name, "table is ready");
                }
                RouteState::Running => {
                    tracing::info!(event = "table_works", table = table.name, "table works again")
                }
                RouteState::Starting | RouteState::Removed => {}
            }
        }
        table.state = state;
    }
}
