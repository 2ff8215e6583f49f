//! Where each column's value comes from, as the configuration says it.
//!
//! Owns the grammar of `from`. Knows no table: whether a mapping fits one is the program's question.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::time::TimeFormat;

/// A route's columns, where their names are not simply the payload's keys.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mapping {
    columns: BTreeMap<String, ColumnMapping>,
    /// Columns that are not named here are left out of the insert, and the payload is never parsed.
    exclusive: bool,
}

impl Mapping {
    #[must_use]
    pub fn new(columns: BTreeMap<String, ColumnMapping>) -> Self {
        Self { columns, exclusive: false }
    }

    /// Every column comes from the payload's key of the same name.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn columns(&self) -> &BTreeMap<String, ColumnMapping> {
        &self.columns
    }

    pub(super) fn exclusive(columns: BTreeMap<String, ColumnMapping>) -> Self {
        Self { columns, exclusive: true }
    }

    pub(super) fn is_exclusive(&self) -> bool {
        self.exclusive
    }
}

/// One column of a [`Mapping`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ColumnMapping {
    /// The first that is present and not null is taken. Empty: the payload's key of the same name.
    pub from: Vec<Source>,
    /// Taken when every source is missing or null.
    pub default: Option<serde_json::Value>,
    /// How times are written; without it, the forms that [`TimeFormat`] lists.
    pub format: Option<TimeFormat>,
}

/// One place to take a value from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Keys from the top of the payload, for example `data.price`.
    Path(Vec<String>),
    Meta(Metadata),
}

/// What is known about a record besides its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Metadata {
    Topic,
    Partition,
    Offset,
    Key,
    /// When the producer or the broker says the record was made.
    Timestamp,
    Subject,
    /// One token of the subject, counted from 0.
    SubjectToken(usize),
    Header(String),
    /// When this process took the record.
    ReceivedAt,
    /// The payload's bytes as they are.
    Raw,
    /// Only for the `dead_letters` table: no configuration can spell it.
    Letter(Letter),
}

/// What only a dead letter has; given to the decoder in [`super::Extra`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Letter {
    Id,
    /// When the record was refused.
    Time,
    Instance,
    /// The kind of source, for example `kafka`.
    Source,
    TopicOrSubject,
    /// All headers, as a Map or as the text of a JSON object.
    Headers,
    Route,
    Reason,
    Error,
}

const METADATA: &str = "@topic @partition @offset @key @timestamp @subject @subject[1] \
                        @headers.NAME @received_at @raw";

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix('@') {
            let meta = metadata(name)
                .ok_or_else(|| format!("{text:?} is no metadata; there is: {METADATA}"))?;
            return Ok(Self::Meta(meta));
        }
        let keys: Vec<String> = text.split('.').map(str::to_owned).collect();
        if keys.iter().any(String::is_empty) {
            return Err(format!(
                "{text:?} is no path into the payload: write keys with single dots between \
                 them, for example \"data.price\", or metadata: {METADATA}"
            ));
        }
        Ok(Self::Path(keys))
    }
}

fn metadata(name: &str) -> Option<Metadata> {
    Some(match name {
        "topic" => Metadata::Topic,
        "partition" => Metadata::Partition,
        "offset" => Metadata::Offset,
        "key" => Metadata::Key,
        "timestamp" => Metadata::Timestamp,
        "subject" => Metadata::Subject,
        "received_at" => Metadata::ReceivedAt,
        "raw" => Metadata::Raw,
        _ => {
            if let Some(header) = name.strip_prefix("headers.") {
                return (!header.is_empty()).then(|| Metadata::Header(header.to_owned()));
            }
            let token = name.strip_prefix("subject[")?.strip_suffix(']')?;
            let digits = token.bytes().all(|byte| byte.is_ascii_digit());
            return token.parse().ok().filter(|_| digits).map(Metadata::SubjectToken);
        }
    })
}

/// As it is written in the configuration.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(keys) => f.write_str(&keys.join(".")),
            Self::Meta(meta) => match meta {
                Metadata::Topic => f.write_str("@topic"),
                Metadata::Partition => f.write_str("@partition"),
                Metadata::Offset => f.write_str("@offset"),
                Metadata::Key => f.write_str("@key"),
                Metadata::Timestamp => f.write_str("@timestamp"),
                Metadata::Subject => f.write_str("@subject"),
                Metadata::SubjectToken(index) => write!(f, "@subject[{index}]"),
                Metadata::Header(name) => write!(f, "@headers.{name}"),
                Metadata::ReceivedAt => f.write_str("@received_at"),
                Metadata::Raw => f.write_str("@raw"),
                Metadata::Letter(letter) => write!(f, "the dead letter's {letter:?}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_reads_back_as_it_is_written() {
        for text in [
            "price",
            "data.price",
            "@topic",
            "@partition",
            "@offset",
            "@key",
            "@timestamp",
            "@subject",
            "@subject[12]",
            "@headers.trace.id",
            "@received_at",
            "@raw",
        ] {
            assert_eq!(text.parse::<Source>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_source_is_refused_with_the_list_of_metadata() {
        for text in [
            "",
            ".",
            "a..b",
            ".a",
            "a.",
            "@",
            "@nope",
            "@subject[]",
            "@subject[+1]",
            "@subject[x]",
            "@headers.",
            "@Id",
        ] {
            let error = text.parse::<Source>().expect_err(text);
            assert!(error.contains("@received_at"), "{error}");
        }
    }
}
