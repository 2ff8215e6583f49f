//! What a table of ClickHouse is, beyond its columns: what it remembers of inserts, how it is
//! partitioned, and what else is written when it is written to.
//!
//! Plain data, read by the sink.

use std::fmt;

/// A table, and every table that an insert into it reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFacts {
    pub place: Place,
    /// ClickHouse's name, for example `ReplicatedReplacingMergeTree`.
    pub engine: String,
    /// None: the engine remembers no inserts at all (it is no MergeTree).
    pub window: Option<Window>,
    /// The expression; empty: the table has one partition.
    pub partition_key: String,
    /// The expression; empty: the rows have no order.
    pub sorting_key: String,
    /// Of rows with an equal key that are merged into one: the column whose highest value stays. None:
    /// the one that was inserted last.
    pub version: Option<String>,
    /// What deletes rows by their age: the expression.
    pub ttl: Option<String>,
    /// Materialized views that an insert triggers, each with its target.
    pub views: Vec<View>,
    /// Read for the table that was asked for; for the targets of its views all false.
    pub positions: PositionColumns,
}

/// Where a table is.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub database: String,
    pub name: String,
}

/// How much a table remembers of the inserts it took. An insert into k partitions takes k entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// 0: a repeated insert is stored twice.
    pub entries: u64,
    /// An entry is forgotten after this as well, in seconds; None: by number only.
    pub seconds: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub place: Place,
    pub target: Target,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Table(Box<TableFacts>),
    /// There, but our user may not see it (or it is being made just now).
    Hidden(Place),
    /// The view itself is hidden, so that its target is not known.
    Unknown,
}

/// The columns that say where a row came from, by which it can be found again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PositionColumns {
    pub topic: bool,
    pub partition: bool,
    pub offset: bool,
    pub seq: bool,
}

impl PositionColumns {
    /// Whether the rows of a range of a Kafka partition can be counted.
    #[must_use]
    pub fn locate_kafka(self) -> bool {
        self.topic && self.partition && self.offset
    }

    /// The same of a range of a stream: its rows have no topic, and so are told from Kafka's.
    #[must_use]
    pub fn locate_stream(self) -> bool {
        self.topic && self.offset
    }
}

impl TableFacts {
    #[must_use]
    pub fn is_merge_tree(&self) -> bool {
        self.engine.ends_with("MergeTree")
    }

    /// Keeps what it remembers of inserts in Keeper, with settings of its own.
    #[must_use]
    pub fn is_replicated(&self) -> bool {
        is_replicated(&self.engine)
    }

    /// Rows with an equal sorting key become one at some time.
    #[must_use]
    pub fn collapses(&self) -> bool {
        self.engine.contains("Replacing")
    }

    /// A row that is inserted once more changes nothing that `FINAL` shows, and reaches no other table:
    /// not even a later one of its key gives way to it.
    #[must_use]
    pub fn takes_rows_again(&self) -> bool {
        self.collapses() && self.version.is_some() && self.views.is_empty() && self.ttl.is_none()
    }

    /// Itself, and every table behind its views, each once.
    #[must_use]
    pub fn reached(&self) -> Vec<&Self> {
        let mut reached: Vec<&Self> = vec![self];
        let mut next = 0;
        while let Some(facts) = reached.get(next).copied() {
            for view in &facts.views {
                if let Target::Table(target) = &view.target
                    && reached.iter().all(|known| known.place != target.place)
                {
                    reached.push(target);
                }
            }
            next += 1;
        }
        reached
    }
}

/// Replicated tables and those of ClickHouse Cloud take other settings than single ones.
#[must_use]
pub fn is_replicated(engine: &str) -> bool {
    engine.starts_with("Replicated") || engine.starts_with("Shared")
}

impl fmt::Display for Place {
    /// `database.name`, quoted where SQL wants it: it can be pasted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", Quoted(&self.database), Quoted(&self.name))
    }
}

/// An identifier, in backquotes only where it needs them.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !self.0.is_empty() && self.0.chars().all(plain) && !self.0.starts_with(char::is_numeric)
        {
            return f.write_str(self.0);
        }
        write!(f, "`{}`", self.0.replace('\\', "\\\\").replace('`', "\\`"))
    }
}
