//! The bridge's own decoder and encoder over records in memory, on one thread.

use anyhow::{Result, ensure};
use data_bridge::generate::Kind;

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
        for record in chunk.records() {
            let decoded = decoder.decode(&record, None, &mut columns);
            ensure!(decoded.is_ok(), "a record does not fit its table: {decoded:?}");
        }
        if columns.rows() >= rows_per_block || first == records {
            spent.bytes += std::hint::black_box(columns.encode()).len();
            columns.clear();
        }
        meter.stop(&mut spent)?;
    }
    Ok(spent)
}
