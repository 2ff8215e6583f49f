//! What an error of ClickHouse means: its exception code decides, never the HTTP status alone.
//!
//! The lists were read in ClickHouse's `ErrorCodes.cpp` (26.x) and tried against servers. A code
//! that is in none of them counts as availability: the data is kept and tried again.

use clickhouse::error::Error;

use crate::sink::{InsertError, Refusal};
use crate::tls;

pub(super) const UNKNOWN_TABLE: u32 = 60;
/// Success: the rows are there already.
pub(super) const INSERT_WAS_DEDUPLICATED: u32 = 389;
const TOO_MANY_PARTS: u32 = 252;

/// The body was made for another table than there is: identifiers and columns.
const SCHEMA: [u32; 4] = [16, 20, 36, 47];

/// Configuration, identity, permission: a person mends it.
const AWAIT_FIX: [u32; 13] = [60, 62, 81, 115, 164, 192, 193, 194, 218, 291, 452, 497, 516];

/// Of these the remedy says it all. ClickHouse writes a page about a refused login, and every table
/// would repeat it in the log.
const SAID: [u32; 6] = [60, 81, 192, 193, 194, 516];

/// A value in it can't be stored: parse, type, null and range errors.
const DATA: [u32; 20] =
    [6, 26, 27, 32, 33, 38, 41, 53, 69, 70, 72, 117, 131, 321, 349, 376, 407, 441, 467, 469];

/// As much of ClickHouse's text as a log line can bear.
const MAX_MESSAGE_CHARS: usize = 400;

/// Who did what, for the remedy.
pub(super) struct Place<'a> {
    pub url: &'a str,
    pub user: &'a str,
    pub database: &'a str,
    pub table: Option<&'a str>,
}

/// What is to be done about an error.
pub(super) fn classify(error: &Error, place: &Place<'_>) -> InsertError {
    let Error::BadResponse(text) = error else {
        let causes = causes(error);
        // TLS that fails is as often a person's to mend as a moment's: tried again either way.
        let why = tls::advice(&causes, &tls::Keys::CLICKHOUSE).unwrap_or(causes);
        let message = format!("cannot reach ClickHouse at {}: {why}", place.url);
        return InsertError::Retry(Refusal { code: None, message: shortened(&message) });
    };
    let code = code(text);
    let message = match code.and_then(|code| remedy(code, place)) {
        Some(remedy) if code.is_some_and(|code| SAID.contains(&code)) => remedy,
        Some(remedy) => format!("{remedy} ({})", shortened(text)),
        None => shortened(text),
    };
    let refusal = Refusal { code, message };
    match code {
        Some(code) if SCHEMA.contains(&code) => InsertError::SchemaChanged(refusal),
        Some(code) if AWAIT_FIX.contains(&code) => InsertError::AwaitFix(refusal),
        Some(code) if DATA.contains(&code) => InsertError::Reject(refusal),
        // Overload is 252 as well; but one block with too many partitions never goes in whole.
        Some(TOO_MANY_PARTS) if text.contains("Too many partitions") => {
            InsertError::Reject(refusal)
        }
        _ => InsertError::Retry(refusal),
    }
}

/// The number behind `Code: `, as ClickHouse writes it in front of each exception.
fn code(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("Code: ")?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// What a person has to do; None where nothing special is known.
fn remedy(code: u32, place: &Place<'_>) -> Option<String> {
    let Place { url: _, user, database, table } = place;
    let table = table.map_or_else(|| "the table".to_owned(), |table| format!("`{table}`"));
    Some(match code {
        60 | 218 => format!(
            "{table} does not exist in database `{database}`: create it (`data-bridge schema \
             --apply` creates those of the profile), or correct the route's `table`"
        ),
        81 => format!(
            "database `{database}` does not exist: create it (`data-bridge schema --apply` does), \
             or correct clickhouse.database"
        ),
        192 | 193 | 194 | 516 => format!(
            "ClickHouse does not accept user `{user}`: correct clickhouse.user and \
             clickhouse.password, or the password in ClickHouse"
        ),
        291 | 497 => format!(
            "user `{user}` lacks a privilege: GRANT SELECT, INSERT ON {database}.* TO {user}"
        ),
        164 => format!("user `{user}` may only read: set readonly = 0 in its settings profile"),
        62 | 115 | 452 => "this ClickHouse refuses a setting that the bridge needs".to_owned(),
        _ => return None,
    })
}

/// The chain of causes, without the layers that say nothing to the one who reads the log.
fn causes(error: &Error) -> String {
    let text = chain(error);
    let text = text.strip_prefix("network error: ").unwrap_or(&text);
    text.strip_prefix("client error (Connect): ").unwrap_or(text).to_owned()
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}

fn shortened(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_MESSAGE_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> InsertError {
        let place = Place {
            url: "http://ch:8123",
            user: "bridge",
            database: "market",
            table: Some("ticks"),
        };
        classify(&Error::BadResponse(text.to_owned()), &place)
    }

    #[test]
    fn the_code_decides() {
        let password = of("Code: 516. DB::Exception: default: Authentication failed");
        assert!(matches!(&password, InsertError::AwaitFix(_)));
        assert!(password.refusal().message.contains("clickhouse.password"), "{password:?}");
        assert!(matches!(
            of("Code: 27. DB::Exception: Cannot parse input"),
            InsertError::Reject(_)
        ));
        assert!(matches!(
            of("Code: 16. DB::Exception: No such column"),
            InsertError::SchemaChanged(_)
        ));
        assert!(matches!(of("Code: 241. DB::Exception: Memory limit"), InsertError::Retry(_)));
        assert!(matches!(of("502 Bad Gateway"), InsertError::Retry(_)));
        assert!(matches!(of("Code: 987654. DB::Exception: new"), InsertError::Retry(_)));
    }

    #[test]
    fn too_many_parts_is_overload_and_too_many_partitions_is_not() {
        let parts = of("Code: 252. DB::Exception: Too many parts (3001)");
        assert!(matches!(parts, InsertError::Retry(_)));
        let partitions =
            of("Code: 252. DB::Exception: Too many partitions for single INSERT block");
        assert!(matches!(partitions, InsertError::Reject(_)));
    }
}
