//! Spoiled records: what producers really send when they are broken. A pure function of the good
//! record and of whose turn it is.
//!
//! Each shape must become a dead letter, whatever the table: it breaks the JSON itself, or a value
//! that the table cannot do without.

use super::Kind;

/// In the order of their turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoil {
    /// A bare `NaN`, as Python's json module writes it.
    NotANumber,
    Truncated,
    /// A word where a number belongs.
    WrongType,
    /// A number that no column holds.
    Huge,
    /// A few thousand brackets: a recursive parser runs out of stack.
    DeepNesting,
    InvalidUtf8,
    Empty,
    /// A null where a value is needed.
    Null,
}

const IN_TURN: [Spoil; 8] = [
    Spoil::NotANumber,
    Spoil::Truncated,
    Spoil::WrongType,
    Spoil::Huge,
    Spoil::DeepNesting,
    Spoil::InvalidUtf8,
    Spoil::Empty,
    Spoil::Null,
];

const DEPTH: usize = 5_000;

impl Spoil {
    /// Which shape is next for the `turn`-th bad record of a stream.
    pub(super) fn at(kind: Kind, turn: u64) -> Self {
        let spoil = super::numbers::pick(&IN_TURN, turn);
        match (kind, spoil) {
            // Their values are free text, or may be null: only what breaks the JSON is bad for all.
            (Kind::External, Self::WrongType | Self::Huge | Self::Null) => Self::Truncated,
            _ => spoil,
        }
    }

    /// Spoils the record in `payload`.
    pub(super) fn apply(self, kind: Kind, payload: &mut Vec<u8>) {
        match self {
            Self::NotANumber => replace_value(payload, kind, b"NaN"),
            Self::WrongType => replace_value(payload, kind, br#""cheap""#),
            Self::Huge => replace_value(payload, kind, b"123456789012345678901234567890e300"),
            Self::Null => replace_value(payload, kind, b"null"),
            Self::Truncated => payload.truncate(payload.len() / 2),
            Self::DeepNesting => {
                payload.clear();
                payload.resize(DEPTH, b'[');
                payload.resize(2 * DEPTH, b']');
            }
            Self::InvalidUtf8 => {
                // Within the first string that is a value, so that every decoder must look at it.
                let at = find(payload, br#":""#).map_or(0, |at| at + 2);
                payload.splice(at..at, [0xC3, 0x28, 0xFF]);
            }
            Self::Empty => payload.clear(),
        }
    }
}

/// Puts something else in the place of a value that the table needs.
fn replace_value(payload: &mut Vec<u8>, kind: Kind, new: &[u8]) {
    let keys: &[&[u8]] = match kind {
        Kind::Ticks | Kind::Quotes => &[br#""bid":"#, br#""b":"#],
        Kind::Candles | Kind::Bars | Kind::Indicators => &[br#""open":"#, br#""o":"#],
        Kind::Books => &[br#""best_bid":"#],
        Kind::Signals => &[br#""timestamp_ms":"#],
        Kind::External | Kind::System => &[br#""timestamp":"#],
    };
    let Some(start) = keys.iter().find_map(|key| Some(find(payload, key)? + key.len())) else {
        return;
    };
    let end = payload[start..].iter().position(|b| matches!(b, b',' | b'}'));
    let end = end.map_or(payload.len(), |len| start + len);
    payload.splice(start..end, new.iter().copied());
}

fn find(payload: &[u8], what: &[u8]) -> Option<usize> {
    payload.windows(what.len()).position(|w| w == what)
}
