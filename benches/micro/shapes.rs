//! The shapes that are measured, as the bridge sees them: a table, a mapping, and records.
//!
//! `shapes.json` says what they are, for this and for `scripts/bench`. Included by the
//! micro-benchmarks and by `examples/floors`; owns nothing that measures.

use std::collections::BTreeMap;
use std::sync::Arc;

use data_bridge::decode::{ColumnMapping, Decoder, Mapping};
use data_bridge::generate::{Kind, record};
use data_bridge::record::{Chunk, NewRecord, Partition};
use data_bridge::schema::{ColumnDefault, ColumnSchema, TableSchema};
use serde::Deserialize;

const SEED: u64 = 42;
/// Of the topics that `scripts/bench` fills.
const PARTITIONS: u64 = 6;

#[derive(Debug, Deserialize)]
struct Written {
    /// Name and type, in the order of the table.
    columns: Vec<(String, String)>,
    /// Paths of the columns that are not the payload's key of their name.
    #[serde(default)]
    from: BTreeMap<String, String>,
}

/// The decoder that a route into the table of this shape has.
pub(crate) fn decoder(kind: Kind) -> Decoder {
    let mut all: BTreeMap<String, Written> =
        serde_json::from_str(include_str!("../shapes.json")).expect("shapes.json is well-formed");
    let shape = all.remove(kind.name()).expect("shapes.json has the kind");
    let column = |(name, type_name)| ColumnSchema { name, type_name, default: ColumnDefault::None };
    let columns = shape.columns.into_iter().map(column).collect();
    let schema = TableSchema { table: kind.name().to_owned(), columns };
    let mapped = shape.from.iter().map(|(column, path)| {
        let from = vec![path.parse().expect("a path is a source")];
        (column.clone(), ColumnMapping { from, ..ColumnMapping::default() })
    });
    Decoder::new(&schema, &Mapping::new(mapped.collect())).expect("the shape fits its table")
}

/// Records as Kafka delivers them: whole runs of a partition, with keys.
pub(crate) fn chunk(kind: Kind, first: u64, records: u64) -> Chunk {
    let payloads: Vec<Vec<u8>> =
        (first..first + records).map(|seq| record(SEED, kind, seq)).collect();
    let bytes = payloads.iter().map(|payload| payload.len() + 8).sum();
    let mut chunk = Chunk::with_capacity(0, payloads.len(), bytes);
    for number in 0..PARTITIONS {
        let topic = format!("bench.{}", kind.name());
        let number = i32::try_from(number).expect("a few partitions");
        let partition = Arc::new(Partition { topic, number, epoch: 1 });
        let place = chunk.partition(&partition);
        let of_partition = (first..)
            .zip(&payloads)
            .filter(|(seq, _)| i32::try_from(seq % PARTITIONS) == Ok(number));
        for (seq, payload) in of_partition {
            let offset = i64::try_from(seq / PARTITIONS).expect("a count");
            let record = NewRecord {
                place: Some((place, offset)),
                timestamp: Some(1_704_067_200_000),
                key: Some(b"EUR/USD"),
                payload: Some(payload),
                ..NewRecord::default()
            };
            chunk.push(record, []);
        }
    }
    chunk
}
