//! What no bridge can go below, measured apart: `scripts/bench` runs this beside the contenders.
//!
//! ```text
//! floors consume BROKERS TOPIC RECORDS         librdkafka fetches, and throws away
//! floors decode KIND RECORDS ROWS_PER_BLOCK    the bridge's own decoder and encoder, one thread
//! floors payloads KIND RECORDS                 the records as lines, to compare tables with
//! ```
//!
//! `consume` and `decode` print one line of JSON; what they spend on making records and on getting
//! connected is not in it.

mod consume;
mod cpu;
mod decode;
#[path = "../../benches/micro/shapes.rs"]
mod shapes;

use std::io::{BufWriter, Write as _};

use anyhow::{Result, bail};
use data_bridge::generate::{Kind, record};
use serde_json::json;

use self::cpu::Spent;

const SEED: u64 = 42;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["consume", brokers, topic, records] => {
            say(consume::run(brokers, topic, records.parse()?)?)
        }
        ["decode", kind, records, rows] => {
            say(decode::run(self::kind(kind)?, records.parse()?, rows.parse()?)?)
        }
        ["payloads", kind, records] => payloads(self::kind(kind)?, records.parse()?),
        _ => bail!(
            "floors consume BROKERS TOPIC RECORDS | decode KIND RECORDS ROWS_PER_BLOCK | payloads \
             KIND RECORDS"
        ),
    }
}

fn kind(name: &str) -> Result<Kind> {
    name.parse().map_err(anyhow::Error::msg)
}

fn say(spent: Spent) -> Result<()> {
    let (seconds, cpu_seconds) = (spent.wall.as_secs_f64(), spent.cpu.as_secs_f64());
    let line = json!({"seconds": seconds, "cpu_seconds": cpu_seconds, "bytes": spent.bytes});
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

fn payloads(kind: Kind, records: u64) -> Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
    for seq in 0..records {
        out.write_all(&record(SEED, kind, seq))?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}
