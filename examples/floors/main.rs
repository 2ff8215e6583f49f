//! What no bridge can go below, measured apart: `scripts/bench` runs this beside the contenders.
//!
//! ```text
//! floors consume BROKERS TOPIC RECORDS         librdkafka fetches, and throws away
//! floors decode KIND RECORDS ROWS_PER_BLOCK    the bridge's own decoder and encoder, one thread
//! floors payloads KIND RECORDS                 the records as lines, to compare tables with
//! floors live ADDRESS TOPICS PUBLISHERS SUBSCRIBERS RATE SECONDS
//!                                              a load on the live feed; RATE 0: all it can
//! floors watch ADDRESS TOPIC SUBSCRIBERS       subscribers of the live feed, until it is killed
//! ```
//!
//! `consume` and `decode` print one line of JSON; what they spend on making records and on getting
//! connected is not in it.

mod consume;
mod cpu;
mod decode;
mod live;
#[path = "../../benches/micro/shapes.rs"]
mod shapes;

use std::io::{BufWriter, Write as _};

use anyhow::{Result, bail};
use data_bridge::generate::{Kind, record};
use serde_json::{Value, json};

use self::cpu::Spent;

const SEED: u64 = 42;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["consume", brokers, topic, records] => {
            spent(consume::run(brokers, topic, records.parse()?)?)
        }
        ["decode", kind, records, rows] => {
            spent(decode::run(self::kind(kind)?, records.parse()?, rows.parse()?)?)
        }
        ["live", address, topics, publishers, subscribers, rate, seconds] => {
            let load = live::Load {
                topics: topics.parse()?,
                publishers: publishers.parse()?,
                subscribers: subscribers.parse()?,
                rate: rate.parse()?,
                seconds: seconds.parse()?,
            };
            say(&live::run(address, load)?)
        }
        ["watch", address, topic, subscribers] => live::watch(address, topic, subscribers.parse()?),
        ["payloads", kind, records] => payloads(self::kind(kind)?, records.parse()?),
        _ => bail!(
            "floors consume BROKERS TOPIC RECORDS | decode KIND RECORDS ROWS_PER_BLOCK | payloads \
             KIND RECORDS | live ADDRESS TOPICS PUBLISHERS SUBSCRIBERS RATE SECONDS | watch \
             ADDRESS TOPIC SUBSCRIBERS"
        ),
    }
}

fn kind(name: &str) -> Result<Kind> {
    name.parse().map_err(anyhow::Error::msg)
}

fn spent(spent: Spent) -> Result<()> {
    let (seconds, cpu_seconds) = (spent.wall.as_secs_f64(), spent.cpu.as_secs_f64());
    say(&json!({"seconds": seconds, "cpu_seconds": cpu_seconds, "bytes": spent.bytes}))
}

fn say(line: &Value) -> Result<()> {
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
