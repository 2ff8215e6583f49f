//! data-bridge: moves records from Kafka and NATS into ClickHouse, and stays in control when
//! ClickHouse is slow, down or drowning.
//!
//! The files in the order in which a record meets them; `ARCHITECTURE.md` has the picture.

pub mod config;
pub mod tls;

pub mod receipt;
pub mod record;
pub mod source;
pub mod credits;

pub mod subject;
pub mod route;
pub mod schema;
pub mod decode;
pub mod batch;
pub mod trace;
pub mod encode;
pub mod writer;

pub mod ledger;
pub mod intent;
pub mod backpressure;
pub mod rate;
pub mod flow;
pub mod overload;
pub mod adaptive;
pub mod fleet;
pub mod retry;
pub mod breaker;
pub mod pipeline;
pub mod sink;
pub mod dead_letter;

pub mod live;

pub mod status;
pub mod history;
pub mod metrics;
pub mod heartbeat;
pub mod alert;
pub mod webhook;
pub mod otlp;
pub mod post;
pub mod thousands;
pub mod causes;
pub mod http;

pub mod memory;
pub mod reload;
pub mod shutdown;
pub mod app;

pub mod generate;
pub mod simulate;

pub mod cli;
