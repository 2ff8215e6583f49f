//! From the configuration to the client's options.
//!
//! Reads every file that is named, so that one which is missing or empty is found at the start,
//! by its path, and not as a connection that never comes up.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::{ConnectOptions, ServerAddr};
use secrecy::ExposeSecret as _;
use tokio::sync::Notify;

use super::link::Notes;
use crate::config::{Nats, NatsAuth, Tls};
use crate::source::SourcePort;

/// Between attempts at most: what is published meanwhile is lost, so not long.
const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(2);
/// The client gives up a silent server after two unanswered pings: 30 s instead of its 3 minutes.
const PING_EVERY: Duration = Duration::from_secs(10);

/// # Errors
/// When an address is none, or carries a user.
pub fn server_addresses(config: &Nats) -> anyhow::Result<Vec<ServerAddr>> {
    config.servers.iter().map(|url| server(url)).collect()
}

fn server(url: &str) -> anyhow::Result<ServerAddr> {
    // what stands before an @ may be a password
    let shown = url.rsplit('@').next().unwrap_or_default();
    let address: ServerAddr =
        url.parse().map_err(|error| anyhow::anyhow!("nats.servers: {shown:?}: {error}"))?;
    if address.has_user_pass() {
        // the client would ignore them
        anyhow::bail!("nats.servers: {shown:?} carries a user: use nats.user and nats.password");
    }
    Ok(address)
}

/// The options of one connection, and the notes that its callbacks take. A subscription may hold
/// `capacity` messages; `commands` may wait for a server that is down, without our waiting too.
pub(super) async fn connect_options(
    config: &Nats,
    name: &str,
    commands: usize,
    capacity: usize,
    port: &SourcePort,
    changed: &Arc<Notify>,
) -> anyhow::Result<(ConnectOptions, Arc<Notes>)> {
    let (changed, observed) = (Arc::clone(changed), Arc::clone(&port.observed));
    let notes = Arc::new(Notes::new(changed, observed, sign_in_advice(&config.auth)));
    let (on_event, on_attempt) = (Arc::clone(&notes), Arc::clone(&notes));
    let options = ConnectOptions::new()
        .name(name)
        .retry_on_initial_connect()
        .subscription_capacity(capacity)
        .client_capacity(commands)
        .ping_interval(PING_EVERY)
        .reconnect_delay_callback(reconnect_delay)
        .event_callback(move |event| {
            on_event.hear(&event);
            std::future::ready(())
        })
        .reconnect_to_server_callback(move |servers, _| {
            on_attempt.attempt(&servers);
            let parked = on_attempt.parked();
            async move { if parked { std::future::pending().await } else { None } }
        });
    Ok((with_identity(options, config).await?, notes))
}

/// The options of a connection that is only tried: once, and not for long.
pub(super) async fn probe_options(
    config: &Nats,
    name: &str,
    within: Duration,
) -> anyhow::Result<ConnectOptions> {
    let options = ConnectOptions::new().name(name).connection_timeout(within);
    with_identity(options, config).await
}

/// Adds who we are, and whom we trust.
///
/// # Errors
/// When a file that is named cannot be read, or does not hold what it should.
pub async fn with_identity(
    options: ConnectOptions,
    config: &Nats,
) -> anyhow::Result<ConnectOptions> {
    let options = with_auth(options, &config.auth).await?;
    match &config.tls {
        Some(tls) => with_tls(options, tls).await,
        None => Ok(options),
    }
}

/// What to do when a server does not let us in.
pub(super) fn sign_in_advice(auth: &NatsAuth) -> &'static str {
    match auth {
        NatsAuth::None => {
            "it wants one: set nats.user and nats.password (or nats.token, \
             nats.credentials_file, nats.nkey_file)"
        }
        NatsAuth::UserPassword { .. } => "correct nats.user and nats.password, there or here",
        NatsAuth::Token(_) => "correct nats.token, there or here",
        NatsAuth::CredentialsFile(_) => "correct nats.credentials_file, or the account there",
        NatsAuth::NkeyFile(_) => "correct nats.nkey_file, or the public key there",
    }
}

/// None at first, then doubling, and never twice the same: instances shall not come back in step.
fn reconnect_delay(attempts: usize) -> Duration {
    if attempts <= 1 {
        return Duration::ZERO;
    }
    let doublings = u32::try_from(attempts - 2).unwrap_or(u32::MAX).min(10);
    let delay = Duration::from_millis(50 << doublings).min(RECONNECT_DELAY_MAX);
    delay.mul_f64(rand::random_range(0.5..1.0))
}

async fn with_auth(options: ConnectOptions, auth: &NatsAuth) -> anyhow::Result<ConnectOptions> {
    Ok(match auth {
        NatsAuth::None => options,
        NatsAuth::UserPassword { user, password } => {
            options.user_and_password(user.clone(), password.expose_secret().to_owned())
        }
        NatsAuth::Token(token) => options.token(token.expose_secret().to_owned()),
        NatsAuth::CredentialsFile(path) => {
            let text = read(path, "nats.credentials_file").await?;
            options
                .credentials(&text)
                .with_context(|| format!("nats.credentials_file {}", path.display()))?
        }
        NatsAuth::NkeyFile(path) => {
            let text = read(path, "nats.nkey_file").await?;
            let seed = text.lines().map(str::trim).find(|line| line.starts_with("SU"));
            let seed = seed.with_context(|| {
                format!(
                    "nats.nkey_file {}: holds no user's seed (a line that begins with SU)",
                    path.display()
                )
            })?;
            options.nkey(seed.to_owned())
        }
    })
}

/// The client reads these files at each connect, so that a renewed certificate is taken up.
async fn with_tls(mut options: ConnectOptions, tls: &Tls) -> anyhow::Result<ConnectOptions> {
    options = options.require_tls(true);
    if let Some(path) = &tls.ca_file {
        read(path, "nats.tls.ca_file").await?;
        options = options.add_root_certificates(path.clone());
    }
    match (&tls.cert_file, &tls.key_file) {
        (Some(cert), Some(key)) => {
            read(cert, "nats.tls.cert_file").await?;
            read(key, "nats.tls.key_file").await?;
            Ok(options.add_client_certificate(cert.clone(), key.clone()))
        }
        (None, None) => Ok(options),
        (Some(_), None) => anyhow::bail!("nats.tls.cert_file needs nats.tls.key_file"),
        (None, Some(_)) => anyhow::bail!("nats.tls.key_file needs nats.tls.cert_file"),
    }
}

async fn read(path: &Path, key: &str) -> anyhow::Result<String> {
    tokio::fs::read_to_string(path)
        .await
        .with_context(|| format!("{key}: cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_is_none_at_first_and_bounded_for_ever() {
        assert_eq!(reconnect_delay(1), Duration::ZERO);
        for attempts in 2..200 {
            let delay = reconnect_delay(attempts);
            assert!(delay <= RECONNECT_DELAY_MAX && delay >= Duration::from_millis(25));
        }
        assert!(reconnect_delay(usize::MAX) >= RECONNECT_DELAY_MAX / 2);
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_shown() {
        for url in ["nats://me:secret@localhost:4222", "http://me:secret@localhost"] {
            let error = server(url).unwrap_err().to_string();
            assert!(error.contains("localhost") && !error.contains("secret"), "{error}");
        }
        assert_eq!(server("localhost").unwrap().port(), 4222);
        assert!(server("tls://localhost:4443").unwrap().tls_required());
    }
}
