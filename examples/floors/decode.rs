//! The bridge's own decoder and encoder over records in memory, on one thread.

use anyhow::{Result, ensure};
use data_bridge::decode::{Columns, Decoder};
use data_bridge::generate::Kind;
use data_bridge::record::Chunk;

use crate::cpu::{Meter, Spent, Whose};
use crate::shapes;

/// Records made at a time, and not counted: about what a source takes in a few polls.
const CHUNK: u64 = 10_000;

pub(crate) fn run(kind: Kind, records: u64, rows_per_block: usize) -> Result<Spent> {
    let mut decoder = shapes::decoder(kind);
    let mut columns = decoder.columns();
    let mut spent = Spent::default();
    let mut first = 0;
    while first < records {
        let count = CHUNK.min(records - first);
        let chunk = shapes::chunk(kind, first, count);
        first += count;
        let meter = Meter::start(Whose::ThisThread)?;
        let last = first == records;
        let is_full = |rows| last || rows >= rows_per_block;
        spent.bytes += decode_and_encode(&chunk, &mut decoder, &mut columns, is_full)?;
        meter.stop(&mut spent)?;
    }
    Ok(spent)
}

/// All that is measured, under a name of its own, so that its instructions can be counted alone.
#[inline(never)]
fn decode_and_encode(
    chunk: &Chunk,
    decoder: &mut Decoder,
    columns: &mut Columns,
    is_full: impl Fn(usize) -> bool,
) -> Result<usize> {
    for record in chunk.records() {
        let decoded = decoder.decode(&record, None, columns);
        ensure!(decoded.is_ok(), "a record does not fit its table: {decoded:?}");
    }
    if !is_full(columns.rows()) {
        return Ok(0);
    }
    let body = std::hint::black_box(columns.encode());
    columns.clear();
    Ok(body.len())
}
