//! Asks a NATS server whether it takes us, and takes nothing: no subscription.

pub mod streams;

use std::time::Duration;

use async_nats::{Client, ConnectError, ConnectErrorKind};

use super::options;
use crate::config::{Nats, NatsAuth};
use crate::source::ProbeError;
use crate::tls;

/// For each address of each server.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// For all of them.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);

/// What the server that answered said of itself.
#[derive(Debug, Clone)]
pub struct Server {
    pub version: String,
}

/// Connects to the first server that answers, and closes the connection.
///
/// # Errors
/// When none answers, or one refuses us.
pub async fn probe(config: &Nats, instance: &str) -> Result<Server, ProbeError> {
    // Dropping the client closes the connection.
    let client = connect(config, instance, "check").await?;
    Ok(Server { version: client.server_info().version })
}

/// A client of the first server that answers, to ask by.
pub(super) async fn connect(
    config: &Nats,
    instance: &str,
    role: &str,
) -> Result<Client, ProbeError> {
    let refused = |error: anyhow::Error| ProbeError::Refused(format!("{error:#}"));
    let servers = options::server_addresses(config).map_err(refused)?;
    let name = format!("data-bridge {instance} {role}");
    let options = options::probe_options(config, &name, CONNECT_WITHIN).await.map_err(refused)?;
    match tokio::time::timeout(ANSWER_WITHIN, options.connect(servers)).await {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(error)) => Err(failure(&error, &config.auth)),
        Err(_) => Err(ProbeError::Unreachable(format!("no answer within {ANSWER_WITHIN:?}"))),
    }
}

fn failure(error: &ConnectError, auth: &NatsAuth) -> ProbeError {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation => ProbeError::Refused(format!(
            "the server refuses our login: {}",
            options::sign_in_advice(auth)
        )),
        ConnectErrorKind::Authentication => ProbeError::Refused(format!(
            "cannot sign in ({cause}): {}",
            options::sign_in_advice(auth)
        )),
        ConnectErrorKind::Tls => ProbeError::Refused(
            tls::advice(&cause, &tls::Keys::NATS)
                .unwrap_or_else(|| format!("TLS: {cause}; correct nats.servers or [nats.tls]")),
        ),
        ConnectErrorKind::TimedOut => {
            ProbeError::Unreachable(format!("no answer within {CONNECT_WITHIN:?}"))
        }
        kind if cause.is_empty() => ProbeError::Unreachable(kind.to_string()),
        _ => ProbeError::Unreachable(cause),
    }
}
