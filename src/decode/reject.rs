//! Why a record cannot become a row: a stable code for machines and a sentence for people.
//!
//! Owns the codes that the dead letters carry. Must never hold more of a value than is needed to
//! recognise it.

use std::fmt;

/// The code of a refusal. The spelling of [`Reason::as_str`] is in dead letters and metrics: a
/// code may be added, none may be renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// There is nothing to decode: a tombstone, or no bytes.
    EmptyPayload,
    InvalidUtf8,
    InvalidJson,
    /// Nested deeper than the reader follows.
    TooDeep,
    /// JSON, but not an object at the top.
    NotAnObject,
    /// No value, no default, and the column takes no NULL.
    MissingValue,
    /// A value of a kind that this column does not take.
    WrongType,
    /// The right kind, but too large, too small or too long for the column.
    OutOfRange,
    /// Not a time, or not in the format asked for.
    InvalidTime,
    /// A text that is no UUID, no IP address, or no name of the Enum.
    InvalidValue,
}

impl Reason {
    /// Every code, for metrics that want to exist before the first refusal.
    pub const ALL: [Self; 10] = [
        Self::EmptyPayload,
        Self::InvalidUtf8,
        Self::InvalidJson,
        Self::TooDeep,
        Self::NotAnObject,
        Self::MissingValue,
        Self::WrongType,
        Self::OutOfRange,
        Self::InvalidTime,
        Self::InvalidValue,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EmptyPayload => "empty_payload",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::InvalidJson => "invalid_json",
            Self::TooDeep => "too_deep",
            Self::NotAnObject => "not_an_object",
            Self::MissingValue => "missing_value",
            Self::WrongType => "wrong_type",
            Self::OutOfRange => "out_of_range",
            Self::InvalidTime => "invalid_time",
            Self::InvalidValue => "invalid_value",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A record that cannot become a row, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    pub reason: Reason,
    /// One line: the column, what it takes, what came instead (shortened). For the dead letter.
    pub error: String,
    /// The same without what came: a value may be somebody's, and a log is no place for it.
    pub outline: String,
}

impl Reject {
    /// `outline` holds nothing of the record.
    pub(super) fn new(reason: Reason, outline: impl Into<String>) -> Self {
        let outline = outline.into();
        Self { reason, error: outline.clone(), outline }
    }

    /// What stood there instead, as far as it may be shown in the dead letter.
    pub(super) fn found(mut self, value: &str) -> Self {
        self.error.push_str(", found ");
        self.error.push_str(value);
        self
    }

    pub(super) fn of_column(self, name: &str) -> Self {
        let named = |text: String| format!("column {name}: {text}");
        Self { error: named(self.error), outline: named(self.outline), ..self }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.error)
    }
}

impl std::error::Error for Reject {}

/// Characters of a refused value that are shown: enough to recognise it, short enough for a log
/// line, and no way to fill the dead letters with one payload twice.
const SHOWN_CHARS: usize = 80;

/// The value as it may be shown: on one line, escaped, at most [`SHOWN_CHARS`] characters.
pub(super) fn shortened(bytes: &[u8]) -> String {
    // Escaping never makes a character shorter than a byte, so this prefix is always enough.
    let prefix = &bytes[..bytes.len().min(SHOWN_CHARS * 4)];
    let mut shown = String::new();
    let mut count = 0;
    for character in String::from_utf8_lossy(prefix).chars() {
        let before = shown.len();
        if character.is_control() || character == '\\' {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
        count += shown[before..].chars().count();
        if count > SHOWN_CHARS - 1 {
            shown.truncate(before);
            shown.push('…');
            return shown;
        }
    }
    if prefix.len() < bytes.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_snake_case_and_all_different() {
        let mut codes: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert!(
            codes.iter().all(|c| c.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '8'))
        );
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Reason::ALL.len());
    }

    #[test]
    fn a_shown_value_is_one_short_escaped_line() {
        assert_eq!(shortened(b"abc"), "abc");
        assert_eq!(shortened(b"a\nb\0\\"), "a\\nb\\u{0}\\\\");
        let long = "é".repeat(500);
        assert_eq!(shortened(long.as_bytes()).chars().count(), 80);
        assert!(shortened(long.as_bytes()).ends_with('…'));
        assert!(shortened(&[0; 1000]).chars().count() <= 80);
        assert!(shortened(b"\xff\xfe").chars().count() == 2);
    }
}
