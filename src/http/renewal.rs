//! What may change in its file while the server runs: the token and the certificate. One task
//! each looks at its files now and then and publishes what is in them; whoever serves takes the
//! present value. A file that is missing or broken for a while changes nothing but the log.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustls::ServerConfig;
use secrecy::SecretString;
use tokio::sync::watch;
use tokio::task::JoinSet;
use xxhash_rust::xxh3::xxh3_64;

use crate::config;
use crate::tls;

/// A renewed certificate may wait so long; reading three small files so often costs nothing.
/// Content is compared, not dates: secrets that an orchestrator mounts change by a link.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The present value of something.
pub(super) type Present<T> = watch::Receiver<Arc<T>>;

/// Who may come in, and how. Dropping it ends the tasks that keep it up to date.
#[derive(Debug, Default)]
pub struct Access {
    pub(super) token: Option<Present<SecretString>>,
    pub(super) tls: Option<Present<ServerConfig>>,
    keepers: JoinSet<()>,
}

impl Access {
    /// Reads the files, and goes on reading them; must be called within the runtime.
    ///
    /// # Errors
    /// When the certificate or its key cannot be used.
    pub fn new(config: &config::Http) -> anyhow::Result<Self> {
        Self::looking_every(config, LOOK_EVERY)
    }

    pub(super) fn looking_every(config: &config::Http, every: Duration) -> anyhow::Result<Self> {
        let mut access = Self::default();
        if let Some(config::HttpTls { cert_file, key_file }) = config.tls.clone() {
            let load = move || certificate(&cert_file, &key_file);
            access.tls = Some(access.keep("http.tls", every, load().context("http.tls")?, load));
        }
        access.token = match (&config.token, config.token_file.clone()) {
            (Some(token), None) => Some(watch::channel(Arc::new(token.clone())).1),
            (_, Some(file)) => {
                let load = move || token(&file);
                Some(access.keep("http.token_file", every, load()?, load))
            }
            (None, None) => None,
        };
        Ok(access)
    }

    fn keep<T: Send + Sync + 'static>(
        &mut self,
        key: &'static str,
        every: Duration,
        first: Loaded<T>,
        load: impl Fn() -> anyhow::Result<Loaded<T>> + Clone + Send + 'static,
    ) -> Present<T> {
        let (sender, present) = watch::channel(first.value);
        self.keepers.spawn(keep(key, every, first.content, sender, load));
        present
    }
}

/// A value, and a number that changes with the files that it was made from.
struct Loaded<T> {
    value: Arc<T>,
    content: u64,
}

async fn keep<T>(
    key: &'static str,
    every: Duration,
    mut content: u64,
    sender: watch::Sender<Arc<T>>,
    load: impl Fn() -> anyhow::Result<Loaded<T>> + Clone + Send + 'static,
) where
    T: Send + Sync + 'static,
{
    let mut failures = 0_u32;
    loop {
        tokio::time::sleep(every).await;
        // A file system may be slow, or hang: not on the async threads.
        let loaded = tokio::task::spawn_blocking(load.clone()).await;
        match loaded.context("reading the files").flatten() {
            Ok(loaded) => {
                failures = 0;
                if loaded.content != content {
                    content = loaded.content;
                    sender.send_replace(loaded.value);
                    tracing::info!(
                        event = "http_secret_renewed",
                        "{key} has changed; the new one is in use"
                    );
                }
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                // Once may be the moment between two files that are being replaced.
                if failures == 2 {
                    tracing::warn!(
                        event = "http_secret_not_renewed",
                        "{key} cannot be renewed, the present one stays: {error:#}"
                    );
                }
            }
        }
    }
}

fn certificate(cert: &Path, key: &Path) -> anyhow::Result<Loaded<ServerConfig>> {
    let identity = tls::identity(cert, key)?;
    let content = identity.cert.iter().fold(0, |sum, part| xxh3_64(part).rotate_left(1) ^ sum);
    Ok(Loaded { value: Arc::new(tls::server(identity)?), content })
}

fn token(file: &Path) -> anyhow::Result<Loaded<SecretString>> {
    use secrecy::ExposeSecret as _;
    let token = config::read_secret(file).map_err(anyhow::Error::msg)?;
    let content = xxh3_64(token.expose_secret().as_bytes());
    Ok(Loaded { value: Arc::new(token), content })
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;
    use tempfile::TempDir;

    use super::*;

    /// Time is paused: it passes when nothing else is to be done, so that each of these looks has
    /// been taken when it returns.
    async fn looks(count: u32) {
        tokio::time::sleep(LOOK_EVERY * count + LOOK_EVERY / 2).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_empty_or_gone_for_a_while_changes_nothing() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "first\n").unwrap();
        let config = config::Http {
            listen: "127.0.0.1:0".parse().unwrap(),
            token: Some("first".into()),
            token_file: Some(file.clone()),
            tls: None,
        };
        let access = Access::new(&config).unwrap();
        let token = access.token.clone().unwrap();
        let present = || token.borrow().expose_secret().to_owned();
        looks(3).await;
        assert!(!token.has_changed().unwrap(), "the same content is nothing new");
        std::fs::write(&file, "").unwrap();
        looks(3).await;
        assert_eq!(present(), "first");
        std::fs::remove_file(&file).unwrap();
        looks(3).await;
        assert_eq!(present(), "first");
        std::fs::write(&file, "second").unwrap();
        looks(1).await;
        assert_eq!(present(), "second");
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_without_its_key_is_not_taken() {
        let dir = TempDir::new().unwrap();
        let tls = config::HttpTls {
            cert_file: dir.path().join("cert.pem"),
            key_file: dir.path().join("key.pem"),
        };
        let write = |cert: bool, key: bool| {
            let made = rcgen::generate_simple_self_signed(vec!["x".to_owned()]).unwrap();
            let pem = [(cert, &tls.cert_file, made.cert.pem())];
            let private = [(key, &tls.key_file, made.signing_key.serialize_pem())];
            for (_, file, text) in pem.into_iter().chain(private).filter(|(wanted, ..)| *wanted) {
                std::fs::write(file, text).unwrap();
            }
        };
        write(true, true);
        let config = config::Http {
            listen: "127.0.0.1:0".parse().unwrap(),
            token: None,
            token_file: None,
            tls: Some(tls.clone()),
        };
        let access = Access::new(&config).unwrap();
        let present = access.tls.clone().unwrap();
        for (cert, key) in [(true, false), (false, true)] {
            write(cert, key);
            looks(3).await;
            assert!(!present.has_changed().unwrap(), "half of a pair");
        }
        write(true, true);
        looks(1).await;
        assert!(present.has_changed().unwrap());
    }
}
