//! What a sink is, to the pipeline: something that takes a body for a table, and says what became
//! of it. A refusal tells the caller what to do, not what happened.

use std::fmt;
use std::future::Future;

use bytes::Bytes;

use crate::schema::TableSchema;

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
    pub rows: usize,
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
    /// One line, without secrets and without values of the record.
    pub message: String,
}

/// ClickHouse's codes for a table that is missing or dropped, or that we may not use.
const ABOUT_A_TABLE: [u32; 3] = [60, 218, 497];

/// Codes of something that passes by itself and is about one table all the same: too many parts in
/// it, or its replica may not write.
const PASSES_IN_ONE_TABLE: [u32; 2] = [252, 242];

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

/// Where rows become durable.
pub trait Sink: Send + Sync + 'static {
    /// Returns `Ok` only when the sink has acknowledged every row.
    fn insert(&self, insert: Insert) -> impl Future<Output = Result<(), InsertError>> + Send;

    /// The table as it is now. A missing table is `AwaitFix`.
    fn schema(&self, table: &str) -> impl Future<Output = Result<TableSchema, InsertError>> + Send;

    /// This table is kept by something else than the others: how it fares says nothing of them.
    fn is_apart(&self, _table: &str) -> bool {
        false
    }
}
