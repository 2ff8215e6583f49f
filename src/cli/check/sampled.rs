//! What would become of sampled records: decoded by the real decoder against the real table, and
//! not inserted. Pure.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::Value;

use super::report::{Letters, Sample};
use crate::config::RouteFormat;
use crate::decode::{Columns, Decoder, Mapping, Source};
use crate::encode::{self, Program};
use crate::record::{Chunk, Record};
use crate::schema::{ColumnDefault, ColumnSchema, TableSchema};

/// More keys than these would hide the rest; the number of the others is said.
pub(super) const MAX_NAMES: usize = 8;

/// The verdict, and the rows that would land as one block of ClickHouse's Native format; none where
/// the payload is passed through.
pub(super) fn judge<'a>(
    schema: &TableSchema,
    format: &RouteFormat,
    chunks: impl IntoIterator<Item = &'a Chunk>,
) -> Option<(Sample, Option<Bytes>)> {
    let mut columnar = match Program::new(schema, format).ok()? {
        Program::Columns(columnar) => {
            let decoder = columnar.decoder().clone();
            let columns = decoder.columns();
            Some((decoder, columns))
        }
        Program::Json | Program::Letters => None,
    };
    let mut seen = Seen::new(schema, format);
    let mut letters: BTreeMap<&'static str, Letters> = BTreeMap::new();
    let (mut sample, mut bytes) = (Sample::default(), 0);
    for record in chunks.into_iter().flat_map(Chunk::records) {
        sample.records += 1;
        bytes += record.payload().map_or(0, <[u8]>::len) + record.key().map_or(0, <[u8]>::len);
        if record.payload().is_none() {
            sample.tombstones += 1;
            continue;
        }
        match land(columnar.as_mut(), &record) {
            Ok(rounded) => {
                sample.land += 1;
                sample.rounded += rounded;
                seen.look(&record);
            }
            Err((reason, error)) => {
                let new = Letters { reason, count: 0, error };
                letters.entry(reason).or_insert(new).count += 1;
            }
        }
    }
    sample.letters = letters.into_values().collect();
    sample.letters.sort_by_key(|letters| std::cmp::Reverse(letters.count));
    sample.record_bytes = bytes / sample.records.max(1);
    sample.unused_keys = seen.unused.into_iter().collect();
    sample.unused_keys.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    if sample.land > 0 {
        let unfilled = seen.columns.iter().filter(|column| !column.filled);
        sample.unfilled = unfilled.map(|column| (column.name.clone(), column.without)).collect();
    }
    let body = columnar.filter(|_| sample.land > 0).map(|(_, columns)| columns.encode());
    Some((sample, body))
}

/// How many values were rounded, or why the record is a dead letter; without the value, because a
/// report lands in a log as well.
fn land(
    columnar: Option<&mut (Decoder, Columns)>,
    record: &Record<'_>,
) -> Result<u32, (&'static str, String)> {
    match columnar {
        Some((decoder, columns)) => decode(decoder, record, columns),
        None => match encode::check_object(record.payload().unwrap_or_default()) {
            Ok(()) => Ok(0),
            Err(refused) => Err((refused.reason, refused.outline)),
        },
    }
}

fn decode(
    decoder: &mut Decoder,
    record: &Record<'_>,
    columns: &mut Columns,
) -> Result<u32, (&'static str, String)> {
    match decoder.decode(record, None, columns) {
        Ok(decoded) => Ok(decoded.rounded),
        Err(reject) => Err((reject.reason.as_str(), reject.outline)),
    }
}

/// Which keys are read, which are not, and which columns get something.
struct Seen {
    /// Paths that some column takes, each with all that lies below it.
    taken: BTreeSet<Vec<String>>,
    /// A column holds the whole payload: nothing is left out.
    whole: bool,
    columns: Vec<Filled>,
    unused: BTreeMap<String, usize>,
}

struct Filled {
    name: String,
    /// Empty: a value that every record has, such as `@offset`.
    paths: Vec<Vec<String>>,
    filled: bool,
    without: &'static str,
}

impl Seen {
    fn new(schema: &TableSchema, format: &RouteFormat) -> Self {
        let none = Mapping::empty();
        let mapping = match format {
            RouteFormat::Columns(mapping) => mapping,
            RouteFormat::Json | RouteFormat::Letters => &none,
        };
        let (mut taken, mut whole, mut columns) = (BTreeSet::new(), false, Vec::new());
        for column in &schema.columns {
            let mapped = mapping.columns().get(&column.name);
            let sent = match column.default {
                ColumnDefault::None | ColumnDefault::Default => true,
                ColumnDefault::Ephemeral => mapped.is_some(),
                ColumnDefault::Materialized | ColumnDefault::Alias => false,
            };
            if !sent {
                continue;
            }
            let own = [Source::Path(vec![column.name.clone()])];
            let from = mapped.map(|mapped| mapped.from.as_slice()).filter(|from| !from.is_empty());
            let (mut paths, mut metadata) = (Vec::new(), false);
            for source in from.unwrap_or(&own) {
                match source {
                    Source::Path(path) => paths.push(path.clone()),
                    Source::Meta(meta) => {
                        metadata = true;
                        whole |= *meta == crate::decode::Metadata::Raw;
                    }
                }
            }
            taken.extend(paths.iter().cloned());
            // A column that nobody mapped and that computes its own value is meant to.
            let meant = mapped.is_none() && column.default == ColumnDefault::Default;
            let filled = metadata || meant;
            let given = mapped.is_some_and(|mapped| mapped.default.is_some());
            let without = if given { "the mapping's default" } else { without(column) };
            columns.push(Filled { name: column.name.clone(), paths, filled, without });
        }
        Self { taken, whole, columns, unused: BTreeMap::new() }
    }

    fn look(&mut self, record: &Record<'_>) {
        let payload = record.payload().unwrap_or_default();
        let Ok(value) = serde_json::from_slice::<Value>(payload) else { return };
        for column in self.columns.iter_mut().filter(|column| !column.filled) {
            column.filled = column.paths.iter().any(|path| at(&value, path).is_some());
        }
        if !self.whole {
            let mut path = Vec::new();
            unused(&value, &mut path, &self.taken, &mut self.unused);
        }
    }
}

fn without(column: &ColumnSchema) -> &'static str {
    match column.default {
        _ if column.type_name.contains("Nullable(") => "NULL",
        ColumnDefault::Default => "the column's DEFAULT",
        _ => "ClickHouse's default",
    }
}

/// What is at a path, unless it is null.
fn at<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| value.get(key)).filter(|value| !value.is_null())
}

/// Counts each key that no column takes, by its dotted path; of what is left out as a whole only
/// the top.
fn unused(
    value: &Value,
    path: &mut Vec<String>,
    taken: &BTreeSet<Vec<String>>,
    found: &mut BTreeMap<String, usize>,
) {
    let Value::Object(object) = value else { return };
    for (key, value) in object {
        path.push(key.clone());
        let below = || {
            let next = taken.range(path.clone()..).next();
            next.is_some_and(|other| other.starts_with(path))
        };
        if !taken.contains(path) {
            if below() {
                unused(value, path, taken, found);
            } else {
                *found.entry(path.join(".")).or_default() += 1;
            }
        }
        path.pop();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::decode::ColumnMapping;
    use crate::record::{NewRecord, Partition};

    fn chunk(payloads: &[Option<&str>]) -> Chunk {
        let mut chunk = Chunk::with_capacity(0, 0, 0);
        let partition = Partition { topic: "t".to_owned(), number: 0, epoch: 0 };
        let index = chunk.partition(&Arc::new(partition));
        for (offset, payload) in (0..).zip(payloads) {
            let payload = payload.map(str::as_bytes);
            let place = Some((index, offset));
            chunk.push(NewRecord { place, payload, ..NewRecord::default() }, []);
        }
        chunk
    }

    fn schema(columns: &[(&str, &str, ColumnDefault)]) -> TableSchema {
        let columns = columns.iter().map(|(name, type_name, default)| ColumnSchema {
            name: (*name).to_owned(),
            type_name: (*type_name).to_owned(),
            default: *default,
        });
        TableSchema { table: "t".to_owned(), columns: columns.collect() }
    }

    fn mapping(columns: &[(&str, &str)]) -> RouteFormat {
        let columns = columns.iter().map(|(name, from)| {
            let from = vec![from.parse().unwrap()];
            ((*name).to_owned(), ColumnMapping { from, ..ColumnMapping::default() })
        });
        RouteFormat::Columns(Mapping::new(columns.collect()))
    }

    #[test]
    fn what_lands_what_does_not_and_what_is_left_out() {
        let schema = schema(&[
            ("price", "Decimal(9, 2)", ColumnDefault::None),
            ("note", "Nullable(String)", ColumnDefault::None),
            ("made", "DateTime", ColumnDefault::Default),
            ("_offset", "Int64", ColumnDefault::None),
        ]);
        let format = mapping(&[("price", "data.p"), ("_offset", "@offset")]);
        let chunk = chunk(&[
            Some(r#"{"data": {"p": 1.005, "q": {"r": 1}}, "seq": 7}"#),
            Some(r#"{"data": {"p": "x"}}"#),
            Some(r#"{"data": {"p": "y"}}"#),
            Some("{"),
            Some(r#"{"data": {"p": 2}, "seq": 8}"#),
            None,
        ]);
        let (sample, body) = judge(&schema, &format, [&chunk]).unwrap();
        assert_eq!((sample.records, sample.land, sample.tombstones), (6, 2, 1));
        assert_eq!(sample.rounded, 1);
        assert!(body.is_some());
        let letters: Vec<_> = sample.letters.iter().map(|l| (l.reason, l.count)).collect();
        assert_eq!(letters, [("wrong_type", 2), ("invalid_json", 1)]);
        assert!(sample.letters[0].error.contains("column price"), "{sample:?}");
        let unused = [("seq".to_owned(), 2), ("data.q".to_owned(), 1)];
        assert_eq!(sample.unused_keys, unused);
        // `made` is meant to be computed.
        assert_eq!(sample.unfilled, [("note".to_owned(), "NULL")]);
    }

    #[test]
    fn with_the_whole_payload_in_a_column_nothing_is_left_out() {
        let schema = schema(&[("raw", "String", ColumnDefault::None)]);
        let chunk = chunk(&[Some(r#"{"a": 1}"#)]);
        let (sample, _) = judge(&schema, &mapping(&[("raw", "@raw")]), [&chunk]).unwrap();
        assert_eq!((sample.land, sample.unused_keys.len()), (1, 0));
    }

    #[test]
    fn what_is_passed_through_has_to_be_an_object() {
        let schema = schema(&[("a", "JSON", ColumnDefault::None)]);
        let chunk = chunk(&[Some(r#"{"a": {"b": 1}, "c": 1}"#), Some("[1]")]);
        let (sample, body) = judge(&schema, &RouteFormat::Json, [&chunk]).unwrap();
        assert_eq!((sample.land, sample.letters[0].reason), (1, "not_an_object"));
        assert_eq!(sample.unused_keys, [("c".to_owned(), 1)]);
        assert_eq!(body, None);
    }

    #[test]
    fn a_mapping_that_does_not_fit_gets_no_verdict() {
        let schema = schema(&[("a", "UInt8", ColumnDefault::None)]);
        assert_eq!(judge(&schema, &mapping(&[("b", "b")]), []), None);
    }
}
