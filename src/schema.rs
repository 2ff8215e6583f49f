//! A table of ClickHouse as the bridge needs to know it. Plain data, read by the sink.

pub mod exactly_once;
pub mod facts;

/// The columns of a table, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSchema {
    /// As it was asked for: `table` or `database.table`.
    pub table: String,
    pub columns: Vec<ColumnSchema>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnSchema {
    pub name: String,
    /// ClickHouse's spelling, for example `LowCardinality(Nullable(String))`.
    pub type_name: String,
    pub default: ColumnDefault,
}

/// What ClickHouse does for a column that an insert leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnDefault {
    None,
    /// `DEFAULT expression`: may be inserted.
    Default,
    /// `MATERIALIZED`: computed; must not be inserted.
    Materialized,
    /// `ALIAS`: not stored; must not be inserted.
    Alias,
    /// `EPHEMERAL`: not stored, may be inserted; the bridge leaves it out unless it is mapped.
    Ephemeral,
}
