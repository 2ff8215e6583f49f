//! A sink in memory, with faults by script. It decodes what it gets well enough to count each
//! record by the id in its payload, and does with tokens what ClickHouse does: whatever comes with
//! the token of something that has landed is taken for the same, and dropped.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use data_bridge::schema::{ColumnDefault, ColumnSchema, TableSchema};
use data_bridge::sink::{Insert, InsertError, Landed, LandedQuestion, Refusal, Sink, Window};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::shortage::Shortage;

pub(crate) const DEAD_LETTERS: &str = "dead_letters";

/// A payload with this in it can never become a row.
pub(crate) const POISON: &str = "\"poison\":true";

/// What the sink does with an insert.
#[derive(Debug, Clone)]
pub(crate) enum Mode {
    Accept,
    Refuse(InsertError),
    /// Neither answers nor fails until the mode is another.
    Hold,
    /// Writes the rows and loses the answer.
    FailAfterWrite,
    /// As ClickHouse that is killed when it has written down the token and not yet the rows.
    Die,
}

impl Mode {
    /// By a number from 0 to 6, for random histories: accepting is twice as likely as any fault.
    pub(crate) fn of(number: usize) -> Self {
        match number {
            1 => down(),
            2 => Self::FailAfterWrite,
            3 => Self::Hold,
            4 => Self::Refuse(InsertError::AwaitFix(refusal(60, "no such table"))),
            5 => Self::Refuse(InsertError::SchemaChanged(refusal(16, "no such column"))),
            6 => Self::Die,
            _ => Self::Accept,
        }
    }
}

#[derive(Debug, Clone)]
struct Modes {
    all: Mode,
    tables: HashMap<String, Mode>,
    rows_per_second: Option<u32>,
}

/// One call of `insert`.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) table: String,
    pub(crate) token: String,
    pub(crate) rows: usize,
    pub(crate) body: u64,
    pub(crate) columns: Vec<String>,
}

#[derive(Debug, Default)]
struct Stored {
    /// How often each record was written, by table and id.
    ids: HashMap<String, BTreeMap<String, u32>>,
    rows: HashMap<String, u64>,
    attempts: Vec<Attempt>,
    landed: HashMap<String, u64>,
    /// For the next inserts of a table, before its mode counts.
    once: HashMap<String, VecDeque<Mode>>,
    columns: HashMap<String, Vec<ColumnSchema>>,
    schema_errors: HashMap<String, InsertError>,
    schema_reads: HashMap<String, u32>,
    busy_until: Option<Instant>,
    only_counts: bool,
    letters_apart: bool,
    /// How many of the last inserts of a table are recognised by their tokens.
    window: u64,
    /// Inserts that landed, by table: ClickHouse's block number.
    blocks: HashMap<String, u64>,
    /// Every token that ever landed, whether it is still recognised or not.
    landed_ever: HashSet<String>,
    /// Tokens that are recognised although nothing landed under them.
    spent: HashSet<String>,
    questions: Vec<LandedQuestion>,
    cannot_tell: Option<String>,
}

/// Looks at every insert before anything is done with it.
type Inspector = Box<dyn Fn(&Insert) + Send>;

pub(crate) struct TestSink {
    modes: watch::Sender<Modes>,
    stored: Mutex<Stored>,
    inspector: Mutex<Option<Inspector>>,
    pub(crate) shortage: Shortage,
}

impl std::fmt::Debug for TestSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestSink").field("stored", &self.stored).finish_non_exhaustive()
    }
}

impl TestSink {
    pub(crate) fn new() -> Self {
        let modes = Modes { all: Mode::Accept, tables: HashMap::new(), rows_per_second: None };
        let stored = Stored { window: 10_000, ..Stored::default() };
        let sink = Self {
            modes: watch::Sender::new(modes),
            stored: Mutex::new(stored),
            inspector: Mutex::new(None),
            shortage: Shortage::default(),
        };
        sink.set_columns(DEAD_LETTERS, &DEAD_LETTER_COLUMNS);
        sink
    }

    /// From here on every insert is looked at.
    pub(crate) fn inspect(&self, inspector: impl Fn(&Insert) + Send + 'static) {
        *self.inspector.lock().unwrap() = Some(Box::new(inspector));
    }

    /// How many of the last inserts of a table are recognised by their tokens.
    pub(crate) fn set_window(&self, entries: u64) {
        self.stored().window = entries;
    }

    /// As if so many other batches had been inserted into this table.
    pub(crate) fn use_window(&self, table: &str, entries: u64) {
        *self.stored().blocks.entry(table.to_owned()).or_default() += entries;
    }

    /// The table was made anew with the rows that it had: the numbers of its blocks begin again, and
    /// no token is recognised.
    pub(crate) fn make_anew(&self, table: &str) {
        let mut stored = self.stored();
        stored.blocks.remove(table);
        stored.landed.retain(|key, _| !key.starts_with(&format!("{table}/")));
    }

    /// Whether a range landed can't be told from here on, and why; None: it can.
    pub(crate) fn cannot_tell(&self, why: Option<&str>) {
        self.stored().cannot_tell = why.map(str::to_owned);
    }

    /// What was asked about ranges that may have landed.
    pub(crate) fn questions(&self) -> Vec<LandedQuestion> {
        self.stored().questions.clone()
    }

    /// From here on, for every table that has no mode of its own.
    pub(crate) fn all(&self, mode: Mode) {
        self.modes.send_modify(|modes| modes.all = mode);
    }

    pub(crate) fn table(&self, table: &str, mode: Mode) {
        self.modes.send_modify(|modes| {
            modes.tables.insert(table.to_owned(), mode);
        });
    }

    /// For the next insert of this table only; several wait in line.
    pub(crate) fn once(&self, table: &str, mode: Mode) {
        self.stored().once.entry(table.to_owned()).or_default().push_back(mode);
    }

    pub(crate) fn throttle(&self, rows_per_second: u32) {
        self.modes.send_modify(|modes| modes.rows_per_second = Some(rows_per_second));
    }

    /// Does not look into the bodies any more: for many rows.
    pub(crate) fn only_count(&self) {
        self.stored().only_counts = true;
    }

    /// Dead letters are kept by something else than the tables.
    pub(crate) fn keep_letters_apart(&self) {
        self.stored().letters_apart = true;
    }

    pub(crate) fn set_columns(&self, table: &str, columns: &[(&str, &str)]) {
        let column = |(name, type_name): &(&str, &str)| ColumnSchema {
            name: (*name).to_owned(),
            type_name: (*type_name).to_owned(),
            default: ColumnDefault::None,
        };
        let columns = columns.iter().map(column).collect();
        self.stored().columns.insert(table.to_owned(), columns);
    }

    pub(crate) fn set_schema_error(&self, table: &str, error: Option<InsertError>) {
        match error {
            Some(error) => self.stored().schema_errors.insert(table.to_owned(), error),
            None => self.stored().schema_errors.remove(table),
        };
    }

    pub(crate) fn schema_reads(&self, table: &str) -> u32 {
        self.stored().schema_reads.get(table).copied().unwrap_or_default()
    }

    /// How often each record was written into this table.
    pub(crate) fn ids(&self, table: &str) -> BTreeMap<String, u32> {
        self.stored().ids.get(table).cloned().unwrap_or_default()
    }

    /// Every record that is durable, and how often it is there.
    pub(crate) fn everything(&self) -> BTreeMap<String, u32> {
        let mut all = BTreeMap::new();
        for ids in self.stored().ids.values() {
            for (id, count) in ids {
                *all.entry(id.clone()).or_default() += count;
            }
        }
        all
    }

    pub(crate) fn rows(&self, table: &str) -> u64 {
        self.stored().rows.get(table).copied().unwrap_or_default()
    }

    pub(crate) fn attempts(&self, table: &str) -> Vec<Attempt> {
        let stored = self.stored();
        stored.attempts.iter().filter(|attempt| attempt.table == table).cloned().collect()
    }

    fn stored(&self) -> std::sync::MutexGuard<'_, Stored> {
        self.stored.lock().unwrap()
    }

    fn mode_of(&self, table: &str) -> Mode {
        let modes = self.modes.borrow();
        modes.tables.get(table).unwrap_or(&modes.all).clone()
    }

    fn note_attempt(&self, insert: &Insert) -> Option<Mode> {
        let body = xxhash_rust::xxh3::xxh3_64(&insert.body);
        let mut stored = self.stored();
        stored.attempts.push(Attempt {
            table: insert.table.clone(),
            token: insert.token.clone(),
            rows: insert.rows,
            body,
            columns: insert.columns.clone(),
        });
        stored.once.get_mut(&insert.table).and_then(VecDeque::pop_front)
    }

    /// When the rows are through, at so many a second, one insert after the other.
    fn through_at(&self, rows: usize) -> Option<Instant> {
        let rate = self.modes.borrow().rows_per_second?;
        let takes =
            Duration::from_secs_f64(f64::from(u32::try_from(rows).unwrap()) / f64::from(rate));
        let mut stored = self.stored();
        let starts = stored.busy_until.unwrap_or_else(Instant::now).max(Instant::now());
        stored.busy_until = Some(starts + takes);
        stored.busy_until
    }

    /// Remembers the token, unless it is known, and nothing else.
    fn spend(&self, insert: &Insert) {
        let mut stored = self.stored();
        let key = format!("{}/{}", insert.table, insert.token);
        let block = stored.blocks.get(&insert.table).copied().unwrap_or_default();
        if stored.landed.get(&key).is_none_or(|landed| block - landed >= stored.window) {
            stored.landed.insert(key.clone(), block + 1);
            stored.spent.insert(key);
            stored.blocks.insert(insert.table.clone(), block + 1);
        }
    }

    fn store(&self, insert: &Insert) {
        let mut stored = self.stored();
        let key = format!("{}/{}", insert.table, insert.token);
        let block = stored.blocks.get(&insert.table).copied().unwrap_or_default();
        if stored.landed.get(&key).is_some_and(|landed| block - landed < stored.window) {
            // ClickHouse drops silently what comes with the token of something that has landed.
            let landed = stored.ids.get(&insert.table);
            let is_there = |id: &String| landed.is_some_and(|landed| landed.contains_key(id));
            let lost: Vec<String> =
                ids_in(&insert.body).into_iter().filter(|id| !is_there(id)).collect();
            let known = stored.only_counts || stored.spent.contains(&key);
            assert!(known || lost.is_empty(), "lost behind a used token: {lost:?}");
            return;
        }
        stored.landed_ever.insert(key.clone());
        stored.landed.insert(key, block + 1);
        stored.blocks.insert(insert.table.clone(), block + 1);
        *stored.rows.entry(insert.table.clone()).or_default() += insert.rows as u64;
        if stored.only_counts {
            return;
        }
        let table = stored.ids.entry(insert.table.clone()).or_default();
        for id in ids_in(&insert.body) {
            *table.entry(id).or_default() += 1;
        }
    }
}

impl Sink for TestSink {
    async fn insert(&self, insert: Insert) -> Result<(), InsertError> {
        assert!(insert.rows > 0, "an insert without rows");
        if let Some(inspect) = &*self.inspector.lock().unwrap() {
            inspect(&insert);
        }
        let mut changes = self.modes.subscribe();
        let mut mode = self.note_attempt(&insert).unwrap_or_else(|| self.mode_of(&insert.table));
        while matches!(mode, Mode::Hold) {
            changes.changed().await.unwrap();
            mode = self.mode_of(&insert.table);
        }
        if let Mode::Refuse(error) = mode {
            return Err(error);
        }
        let _in_memory = self.shortage.enter(insert.rows)?;
        if let Some(through_at) = self.through_at(insert.rows) {
            sleep_until(through_at).await;
        }
        let text = String::from_utf8_lossy(&insert.body);
        if insert.table != DEAD_LETTERS && text.contains(POISON) {
            return Err(InsertError::Reject(refusal(27, "cannot parse input")));
        }
        if matches!(mode, Mode::Die) {
            self.spend(&insert);
            return Err(retry("connection reset by peer"));
        }
        if matches!(mode, Mode::FailAfterWrite) {
            self.store(&insert);
            return Err(retry("the connection was cut after the body was sent"));
        }
        self.store(&insert);
        Ok(())
    }

    fn is_apart(&self, table: &str) -> bool {
        table == DEAD_LETTERS && self.stored().letters_apart
    }

    async fn schema(&self, table: &str) -> Result<TableSchema, InsertError> {
        // As every question to a server, the answer comes later.
        tokio::task::yield_now().await;
        let mut stored = self.stored();
        *stored.schema_reads.entry(table.to_owned()).or_default() += 1;
        if let Some(error) = stored.schema_errors.get(table) {
            return Err(error.clone());
        }
        let columns = stored.columns.get(table).cloned().unwrap_or_default();
        Ok(TableSchema { table: table.to_owned(), columns })
    }

    async fn window(&self, table: &str) -> Result<Window, InsertError> {
        tokio::task::yield_now().await;
        let stored = self.stored();
        let block = stored.blocks.get(table).copied().unwrap_or_default();
        Ok(Window { entries: stored.window, lasts: None, block, problems: Vec::new() })
    }

    async fn landed(&self, question: LandedQuestion) -> Result<Landed, InsertError> {
        tokio::task::yield_now().await;
        let mut stored = self.stored();
        if !question.acknowledged {
            stored.questions.push(question.clone());
        }
        if let Some(why) = stored.cannot_tell.as_ref().filter(|_| !question.acknowledged) {
            return Ok(Landed::Unclear(why.clone()));
        }
        let landed = stored.landed_ever.contains(&format!("{}/{}", question.table, question.token));
        Ok(if landed { Landed::All } else { Landed::None })
    }
}

/// The ids of all payloads in a body, whatever is around them.
pub(crate) fn ids_in(body: &[u8]) -> Vec<String> {
    let before = b"\"id\":\"";
    memchr::memmem::find_iter(body, before)
        .map(|at| {
            let rest = &body[at + before.len()..];
            let end = rest.iter().position(|byte| *byte == b'"').unwrap();
            String::from_utf8(rest[..end].to_vec()).unwrap()
        })
        .collect()
}

pub(crate) fn refusal(code: u32, message: &str) -> Refusal {
    Refusal::of_code(code, message.to_owned())
}

/// ClickHouse is down: nobody answers.
pub(crate) fn retry(message: &str) -> InsertError {
    InsertError::Retry(Refusal::without_code(message.to_owned()))
}

pub(crate) fn down() -> Mode {
    Mode::Refuse(retry("connection refused"))
}

pub(crate) const DEAD_LETTER_COLUMNS: [(&str, &str); 15] = [
    ("id", "UUID"),
    ("time", "DateTime64(3, 'UTC')"),
    ("record_time", "DateTime64(3, 'UTC')"),
    ("instance", "LowCardinality(String)"),
    ("source", "LowCardinality(String)"),
    ("topic_or_subject", "LowCardinality(String)"),
    ("partition", "Nullable(Int32)"),
    ("offset", "Nullable(Int64)"),
    ("key", "Nullable(String)"),
    ("headers", "String"),
    ("route", "LowCardinality(String)"),
    ("reason", "LowCardinality(String)"),
    ("error", "String"),
    ("payload", "String"),
    ("replayed_at", "Nullable(DateTime64(3, 'UTC'))"),
];
