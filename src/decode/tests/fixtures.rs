//! Schemas, records and a reader of Native blocks, for the tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::decode::{ColumnMapping, Columns, Decoded, Decoder, Mapping, Reject};
use crate::record::{Chunk, NewRecord, Partition};
use crate::schema::{ColumnDefault, ColumnSchema, TableSchema};

pub(in crate::decode) fn table(columns: &[(&str, &str)]) -> TableSchema {
    let columns = columns.iter().map(|&(name, ty)| {
        let (ty, default) = match ty.split_once(" DEFAULT") {
            Some((ty, _)) => (ty, ColumnDefault::Default),
            None => match ty.split_once(" MATERIALIZED") {
                Some((ty, _)) => (ty, ColumnDefault::Materialized),
                None => (ty, ColumnDefault::None),
            },
        };
        ColumnSchema { name: name.to_owned(), type_name: ty.to_owned(), default }
    });
    TableSchema { table: "t".to_owned(), columns: columns.collect() }
}

pub(in crate::decode) fn map(columns: &[(&str, ColumnMapping)]) -> Mapping {
    let columns = columns.iter().map(|(name, column)| ((*name).to_owned(), column.clone()));
    Mapping::new(columns.collect::<BTreeMap<_, _>>())
}

pub(in crate::decode) fn from(sources: &[&str]) -> ColumnMapping {
    let from = sources.iter().map(|source| source.parse().unwrap()).collect();
    ColumnMapping { from, default: None, format: None }
}

pub(in crate::decode) fn chunk(payload: Option<&[u8]>) -> Chunk {
    let mut chunk = Chunk::with_capacity(1_700_000_000_123, 1, 64);
    let partition = Partition { topic: "candles".to_owned(), number: 3, epoch: 1 };
    let index = chunk.partition(&Arc::new(partition));
    let record = NewRecord {
        place: Some((index, 42)),
        timestamp: Some(1_600_000_000_456),
        key: Some(b"EUR\xff"),
        payload,
        ..NewRecord::default()
    };
    chunk.push(record, [("trace", &b"abc"[..]), ("n", &b"7"[..])]);
    chunk
}

pub(in crate::decode) fn decode(
    decoder: &mut Decoder,
    payload: &[u8],
    into: &mut Columns,
) -> Result<Decoded, Reject> {
    decoder.decode(&chunk(Some(payload)).record(0), None, into)
}

/// The value bytes of a one-column table after these payloads.
pub(in crate::decode) fn values(ty: &str, payloads: &[&str]) -> Result<Vec<u8>, Reject> {
    let mut decoder = Decoder::new(&table(&[("v", ty)]), &Mapping::empty()).unwrap();
    let mut columns = decoder.columns();
    for payload in payloads {
        decode(&mut decoder, format!("{{\"v\":{payload}}}").as_bytes(), &mut columns)?;
    }
    let block = columns.encode();
    Ok(block[block.len() - columns.bytes()..].to_vec())
}

/// As [`values`] of one payload, with the count of rounded values.
pub(in crate::decode) fn rounded(ty: &str, payload: &str) -> u32 {
    let mut decoder = Decoder::new(&table(&[("v", ty)]), &Mapping::empty()).unwrap();
    let mut columns = decoder.columns();
    decode(&mut decoder, format!("{{\"v\":{payload}}}").as_bytes(), &mut columns).unwrap().rounded
}
