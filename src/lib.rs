//! data-bridge: moves records from Kafka and NATS into ClickHouse, and stays in control when
//! ClickHouse is slow, down or drowning.

pub mod backpressure;
pub mod batch;
pub mod config;
pub mod credits;
pub mod decode;
pub mod ledger;
pub mod record;
pub mod retry;
pub mod route;
pub mod schema;
pub mod sink;
pub mod source;
pub mod status;
pub mod subject;
pub mod writer;
