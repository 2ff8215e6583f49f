//! data-bridge: moves records from Kafka and NATS into ClickHouse, and stays in control when
//! ClickHouse is slow, down or drowning.

pub mod cli;
pub mod config;
pub mod credits;
pub mod decode;
pub mod record;
pub mod schema;
pub mod sink;
pub mod source;
pub mod status;
pub mod subject;
