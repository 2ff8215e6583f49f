//! What a sink is, to the pipeline: something that takes a body for a table, and says what became
//! of it. A refusal tells the caller what to do, not what happened.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::schema::TableSchema;
use crate::status::EndpointStatus;

pub mod clickhouse;

/// The body of one insert: encoded once, sent as often as it takes.
#[derive(Debug, Clone)]
pub struct Insert {
    pub table: String,
    /// ClickHouse's name of the format of `body`.
    pub format: &'static str,
    /// The columns that the body holds, in its order; empty where the format names them.
    pub columns: Vec<String>,
    pub body: Bytes,
    /// The same for every attempt at the same rows, different for any others.
    pub token: String,
    pub after_restart: AfterRestart,
    pub rows: usize,
}

/// How an insert of unknown outcome goes to a server that was started again since: one that was
/// killed may know the token, and have none of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterRestart {
    /// Under another token: perhaps twice rather than not at all.
    OtherToken,
    /// Under its own: somebody else knows it, and counts on it.
    SameToken,
    /// Under another token, unless its first and its last row are there, which have these `id`s.
    UnlessThere(Uuid, Uuid),
}

/// Why an insert is not durable, named by what the caller must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InsertError {
    /// Overload, availability, or an unknown outcome: the same bytes with the same token, later.
    Retry(Refusal),
    /// A person has to mend something (password, grant, table): as `Retry`, and say so loudly.
    AwaitFix(Refusal),
    /// Some value in it will never go in: bisect, the guilty rows are dead letters.
    Reject(Refusal),
    /// The table is not what the body was made for: read its schema again.
    SchemaChanged(Refusal),
}

/// What the sink said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// ClickHouse's exception code; None for network errors.
    pub code: Option<u32>,
    /// One line, without secrets. Of a rejected insert it may quote a value.
    pub message: String,
    /// It was taken, and there was no answer within the time that an insert may take.
    pub timed_out: bool,
}

impl Refusal {
    #[must_use]
    pub fn of_code(code: u32, message: String) -> Self {
        Self { code: Some(code), ..Self::without_code(message) }
    }

    #[must_use]
    pub fn without_code(message: String) -> Self {
        Self { code: None, message, timed_out: false }
    }

    /// What may be said where others read, when values may be quoted in the message.
    #[must_use]
    pub fn outline(&self) -> String {
        match self.code {
            Some(code) => format!("ClickHouse's code {code}"),
            None => self.message.clone(),
        }
    }
}

/// ClickHouse's codes for a table that is missing or dropped, or that we may not use.
const ABOUT_A_TABLE: [u32; 3] = [60, 218, 497];

/// Codes that a person has to do something about, and that come before anything is written: what
/// is missing, who we are, what we may.
const BEFORE_WRITING: [u32; 13] = [60, 62, 81, 115, 164, 192, 193, 194, 218, 291, 452, 497, 516];

/// Codes of something that passes by itself and is about one table all the same: too many parts in
/// it, or its replica may not write.
const PASSES_IN_ONE_TABLE: [u32; 2] = [TOO_MANY_PARTS, 242];
const TOO_MANY_PARTS: u32 = 252;

/// Codes of a query that ran out of its time or of memory.
const TOO_LARGE: [u32; 2] = [159, 241];

/// Codes of too many queries, sessions or rows at a time.
const TOO_MUCH_AT_A_TIME: [u32; 5] = [201, 202, 203, 290, 364];

impl InsertError {
    /// It speaks of the sink as a whole: no other insert would have gone better. The opposite of a
    /// table's own fault and of data that never goes in.
    #[must_use]
    pub fn is_about_the_sink(&self) -> bool {
        match self {
            Self::Retry(refusal) => refusal.code.is_none_or(|c| !PASSES_IN_ONE_TABLE.contains(&c)),
            Self::AwaitFix(_) => !self.is_about_the_table(),
            Self::SchemaChanged(_) | Self::Reject(_) => false,
        }
    }

    /// The table has so many parts that it takes no more: fewer and larger inserts, and time.
    #[must_use]
    pub fn is_too_many_parts(&self) -> bool {
        self.is_overload(&[TOO_MANY_PARTS])
    }

    /// It took more memory or time than it may, by ClickHouse's limits or by ours: a smaller insert
    /// may do better.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        self.is_overload(&TOO_LARGE) || matches!(self, Self::Retry(refusal) if refusal.timed_out)
    }

    /// The sink has too much to do at a time: fewer inserts beside each other.
    #[must_use]
    pub fn is_too_much_at_a_time(&self) -> bool {
        self.is_overload(&TOO_MUCH_AT_A_TIME)
    }

    fn is_overload(&self, codes: &[u32]) -> bool {
        matches!(self, Self::Retry(refusal) if refusal.code.is_some_and(|c| codes.contains(&c)))
    }

    /// Rows of this attempt may be in the table all the same: there was no answer, or one that can
    /// come after some were written (a partition is written after another, a view after its table).
    ///
    /// A refusal of which this is false tells only of its own attempt. Measured on ClickHouse 26.7:
    /// the columns, the privileges, the number of parts are looked at before the token, so that an
    /// insert that landed is refused like one that did not. Only an acknowledgement settles it.
    #[must_use]
    pub fn may_have_landed(&self) -> bool {
        match self {
            Self::Retry(_) => true,
            Self::AwaitFix(refusal) => refusal.code.is_none_or(|c| !BEFORE_WRITING.contains(&c)),
            Self::Reject(_) | Self::SchemaChanged(_) => false,
        }
    }

    /// It is about this table alone: the sink as a whole works, or it could not have said so.
    /// Without a code it is ours: the rows do not fit the table.
    #[must_use]
    pub fn is_about_the_table(&self) -> bool {
        match self {
            Self::AwaitFix(refusal) => refusal.code.is_none_or(|c| ABOUT_A_TABLE.contains(&c)),
            Self::SchemaChanged(_) | Self::Reject(_) => true,
            Self::Retry(_) => false,
        }
    }

    #[must_use]
    pub fn refusal(&self) -> &Refusal {
        match self {
            Self::Retry(r) | Self::AwaitFix(r) | Self::Reject(r) | Self::SchemaChanged(r) => r,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "code {code}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// How long a table recognises a token that it has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// So many parts later the token is forgotten.
    pub entries: u64,
    /// So much time later as well, where the engine has such a limit.
    pub lasts: Option<Duration>,
    /// The number of the newest part: what it grows by is what of `entries` was used.
    pub block: u64,
    /// Why no token can be relied on, with what to do about it; empty where one can.
    pub problems: Vec<String>,
}

impl Window {
    /// How many entries were used since the newest part had the number `block`. None: the numbers
    /// have begun anew since (the table was emptied or made again), and nothing is known.
    #[must_use]
    pub fn used_since(&self, block: u64) -> Option<u64> {
        self.block.checked_sub(block)
    }
}

/// Records of which somebody wants to know whether they are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LandedQuestion {
    pub table: String,
    pub from: RowsFrom,
    pub first: i64,
    pub last: i64,
    pub rows: usize,
    /// Under which they would have been inserted.
    pub token: String,
    /// An insert of them was acknowledged just now, and may have been taken for known: only what the
    /// table itself says counts, and only if it says that rows are missing.
    pub acknowledged: bool,
}

/// Where rows came from, as far as their columns can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowsFrom {
    Partition {
        topic: String,
        number: i32,
    },
    /// They have no topic, and of a stream only its numbers. `alone`: no other stream fills the table.
    Stream {
        alone: bool,
    },
}

/// Whether they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Landed {
    All,
    None,
    /// It cannot be told; why not.
    Unclear(String),
}

/// Where rows become durable.
pub trait Sink: Send + Sync + 'static {
    /// Returns `Ok` only when the sink has acknowledged every row.
    fn insert(&self, insert: Insert) -> impl Future<Output = Result<(), InsertError>> + Send;

    /// What is known of each of its servers; empty where there is nothing to know.
    fn endpoints(&self) -> Vec<EndpointStatus> {
        Vec::new()
    }

    /// Asks servers that failed, and were left alone, whether they work again.
    fn ask_failed_endpoints(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// The error is about one of several servers, and another one works.
    fn is_for_others_to_do(&self, _: &InsertError) -> bool {
        false
    }

    /// The table as it is now. A missing table is `AwaitFix`.
    fn schema(&self, table: &str) -> impl Future<Output = Result<TableSchema, InsertError>> + Send;

    /// This table is kept by something else than the others: how it fares says nothing of them.
    fn is_apart(&self, _table: &str) -> bool {
        false
    }

    /// How far the table's tokens can be relied on.
    fn window(&self, table: &str) -> impl Future<Output = Result<Window, InsertError>> + Send;

    /// Whether these records are in the table, where tokens cannot tell any more.
    fn landed(
        &self,
        question: LandedQuestion,
    ) -> impl Future<Output = Result<Landed, InsertError>> + Send;
}
