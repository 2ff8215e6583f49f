//! From a record's payload to typed columns.

use std::collections::BTreeMap;
use std::str::FromStr;

/// Stand-in of the contract until the decoder defines it.
#[derive(Debug, Clone, Default)]
pub struct Mapping {
    pub columns: BTreeMap<String, ColumnMapping>,
}

impl Mapping {
    #[must_use]
    pub fn new(columns: BTreeMap<String, ColumnMapping>) -> Self {
        Self { columns }
    }
}

#[derive(Debug, Clone, Default)]
pub struct ColumnMapping {
    pub from: Vec<Source>,
    pub default: Option<serde_json::Value>,
    pub format: Option<TimeFormat>,
}

#[derive(Debug, Clone)]
pub struct Source(pub String);

impl FromStr for Source {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }
}

#[derive(Debug, Clone)]
pub struct TimeFormat(pub String);

impl FromStr for TimeFormat {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }
}
