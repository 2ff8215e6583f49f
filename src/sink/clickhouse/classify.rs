//! What an error of ClickHouse means: its exception code decides, never the HTTP status alone.
//!
//! The lists were read in ClickHouse's `ErrorCodes.cpp` (26.x) and tried against servers
//! (`tests/it/error_classes.rs`). A code that is in none of them: the data is kept and tried again,
//! and somebody is told to look.

use clickhouse::error::Error;

use crate::causes::causes;
use crate::sink::{InsertError, Refusal};
use crate::tls;

/// The table is not there.
pub const UNKNOWN_TABLE: u32 = 60;
/// Success: the rows are there already.
pub(super) const INSERT_WAS_DEDUPLICATED: u32 = 389;
const TOO_MANY_PARTS: u32 = 252;
pub(super) const SETTING_CONSTRAINT_VIOLATION: u32 = 452;
const CANNOT_READ_ALL_DATA: u32 = 33;

/// Overload: the same bytes, later.
const OVERLOAD: [u32; 8] = [159, 201, 202, 203, 241, 252, 290, 364];

/// Availability, or an unknown outcome; and bodies that arrived damaged (40, 271).
const UNAVAILABLE: [u32; 24] = [
    3, 40, 198, 209, 210, 225, 236, 242, 243, 244, 254, 265, 271, 279, 285, 286, 319, 394, 425,
    499, 999, 1_000, 1_001, 1_002,
];

/// One server may not know us, or have the database, while another does.
const NOT_AT_HOME: [u32; 5] = [81, 192, 193, 194, 516];

/// What ClickHouse says of an exception in a materialized view behind the table.
const IN_A_VIEW: &str = "while pushing to view ";

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
        let causes = without_layers(error);
        // TLS that fails is as often a person's to mend as a moment's: tried again either way.
        let why = tls::advice(&causes, &tls::Keys::CLICKHOUSE).unwrap_or(causes);
        let message = format!("cannot reach ClickHouse at {}: {why}", place.url);
        return InsertError::Retry(Refusal::without_code(shortened(&message)));
    };
    let code = code(text);
    if let Some(view) = view_at_fault(text, code) {
        return InsertError::AwaitFix(Refusal::without_code(of_view(view, text)));
    }
    let message = match code.and_then(|code| remedy(code, place)) {
        // The target of a view may be what is missing; then the remedy names the wrong table.
        Some(_) if text.contains(" of view ") => shortened(text),
        Some(remedy) if code.is_some_and(|code| SAID.contains(&code)) => remedy,
        Some(remedy) => format!("{remedy} ({})", shortened(text)),
        None => shortened(text),
    };
    let refusal = Refusal { code, ..Refusal::without_code(message) };
    match code {
        Some(code) if SCHEMA.contains(&code) => InsertError::SchemaChanged(refusal),
        Some(code) if AWAIT_FIX.contains(&code) => InsertError::AwaitFix(refusal),
        Some(code) if DATA.contains(&code) => InsertError::Reject(refusal),
        // Overload is 252 as well; but one block with too many partitions never goes in whole.
        Some(TOO_MANY_PARTS) if is_too_wide(text) => InsertError::Reject(refusal),
        Some(code) if !passes_by_itself(code) => {
            let message = format!(
                "data-bridge does not know what ClickHouse's code {code} means for an insert; the \
                 rows are kept and tried again, look at what it says: {}",
                refusal.message
            );
            InsertError::AwaitFix(Refusal { message, ..refusal })
        }
        _ => InsertError::Retry(refusal),
    }
}

fn passes_by_itself(code: u32) -> bool {
    OVERLOAD.contains(&code) || UNAVAILABLE.contains(&code)
}

/// It holds rows of more partitions than one insert may have.
pub(super) fn is_too_wide(text: &str) -> bool {
    text.contains("Too many partitions")
}

/// A code that damaged or cut bytes have as well as bad data.
pub(super) fn may_be_a_cut_body(error: &InsertError) -> bool {
    matches!(error, InsertError::Reject(refusal) if refusal.code == Some(CANNOT_READ_ALL_DATA))
}

/// Another server might do better. Overload is no such thing: the load would only move on.
pub(super) fn is_about_the_server(error: &InsertError) -> bool {
    match error.refusal().code {
        Some(code) => UNAVAILABLE.contains(&code) || NOT_AT_HOME.contains(&code),
        None => matches!(error, InsertError::Retry(_)),
    }
}

/// The connection was not made: nothing was sent.
pub(super) fn is_unsent(error: &Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
            return error.is_connect();
        }
        cause = error.source();
    }
    false
}

/// The materialized view in which an insert failed, unless that passes by itself. **The rows are in
/// the table then**: ClickHouse writes it before its views, and takes nothing back. So they are not
/// refused, must not be cut up under new tokens, and are no dead letters; repeated with its token
/// the insert goes into what is missing, once the view is mended.
fn view_at_fault(text: &str, code: Option<u32>) -> Option<&str> {
    let (_, rest) = text.split_once(IN_A_VIEW)?;
    let wide = code == Some(TOO_MANY_PARTS) && is_too_wide(text);
    (wide || code.is_some_and(|code| !passes_by_itself(code)))
        .then(|| rest.split_whitespace().next().unwrap_or(rest).trim_end_matches(['.', ':', ',']))
}

fn of_view(view: &str, text: &str) -> String {
    format!(
        "materialized view `{view}` fails on rows that are in its table already: correct or drop \
         the view, the rows follow by themselves ({})",
        shortened(text)
    )
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
             --apply` creates those in schema/ beside the configuration), or correct the route's \
             `table`"
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
fn without_layers(error: &Error) -> String {
    let text = causes(error);
    let text = text.strip_prefix("network error: ").unwrap_or(&text);
    text.strip_prefix("client error (Connect): ").unwrap_or(text).to_owned()
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
    fn a_code_that_nobody_knows_is_kept_with_an_alert() {
        let unknown = of("Code: 987654. DB::Exception: new");
        assert!(matches!(&unknown, InsertError::AwaitFix(_)), "{unknown:?}");
        assert!(unknown.is_about_the_sink() && unknown.may_have_landed());
        let text = &unknown.refusal().message;
        assert!(text.contains("code 987654") && text.contains("tried again"), "{text}");
    }

    #[test]
    fn the_fault_of_a_view_is_neither_that_of_the_rows_nor_of_the_table() {
        let bad_row =
            of("Code: 27. DB::Exception: Cannot parse: while pushing to view e.mv (a-b).");
        assert!(matches!(&bad_row, InsertError::AwaitFix(_)), "{bad_row:?}");
        assert!(bad_row.may_have_landed() && !bad_row.is_about_the_sink());
        assert!(bad_row.refusal().message.starts_with("materialized view `e.mv` fails"));
        let busy = of("Code: 241. DB::Exception: Memory limit: while pushing to view e.mv");
        assert!(matches!(busy, InsertError::Retry(_)));
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
