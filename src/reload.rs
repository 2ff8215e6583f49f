//! Changing the configuration while the bridge runs: read again as at the start, compared with what
//! is in force, applied whole or not at all.
//!
//! ```text
//! SIGHUP ------------+                                        +--> log level
//!                    +--> Reloader: read, validate, compare --+
//! PUT /admin/config -+         (one at a time)                +--> Notice --> the pipeline's owner
//! ```
//!
//! Owns what is in force, as text and keys. The pipeline applies a change in one step between two
//! others, or says why not; only then it is in force. It never waits for a source or for ClickHouse.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::config::{self, Change, Config, ConfigError, Layer, Loaded, LogLevel};

/// The owner turns within milliseconds; before it runs (ClickHouse has not answered yet) it takes
/// nothing.
const OWNER_WITHIN: Duration = Duration::from_secs(5);

/// A file system that hangs shall not keep the wishes after this one waiting for ever.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// Wishes that wait for their turn; more are refused where they are made.
const WISHES: usize = 4;

/// What the pipeline hears.
#[derive(Debug)]
pub enum Notice {
    Apply(Order),
    /// A change was refused before it came here: it is only remembered.
    Refused(String),
}

/// A configuration that is to come into force.
#[derive(Debug)]
pub struct Order {
    pub config: Arc<Config>,
    pub hash: String,
    /// Told before anything changes. When nobody listens any more it does not come into force.
    pub begun: oneshot::Sender<()>,
    /// Told why not, if not.
    pub answer: oneshot::Sender<Result<(), String>>,
}

/// What became of a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// In force. No change: it was so already.
    Applied { hash: String, changes: Vec<Change> },
    /// Only tried: it would be, unless the pipeline refuses.
    Possible { hash: String, changes: Vec<Change> },
    /// It is wrong, in words that say what would be right.
    Invalid(String),
    /// Right by itself, and cannot take the place of what is in force: these keys need a restart.
    NeedsRestart(Vec<String>),
    /// Not now, or not in this state.
    NotNow(String),
}

impl Outcome {
    /// Why not, in one text.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        match self {
            Self::Applied { .. } | Self::Possible { .. } => None,
            Self::Invalid(why) | Self::NotNow(why) => Some(why.clone()),
            Self::NeedsRestart(keys) => Some(keys.join("; ")),
        }
    }
}

#[derive(Debug)]
struct Wish {
    by: &'static str,
    over: Option<Layer>,
    /// Nothing is to be changed, and nothing remembered.
    only_tried: bool,
    answer: oneshot::Sender<Outcome>,
}

/// A configuration that may take the place of the one in force.
struct Compared {
    new: Loaded,
    hash: String,
    changes: Vec<Change>,
}

impl Compared {
    fn tried(self) -> Outcome {
        Outcome::Possible { hash: self.hash, changes: self.changes }
    }
}

/// Where wishes are made, from anywhere.
#[derive(Debug, Clone)]
pub struct Door {
    wishes: mpsc::Sender<Wish>,
    in_force: watch::Receiver<String>,
}

impl Door {
    /// Wants the files read again, and this layer over them.
    pub async fn ask(&self, by: &'static str, over: Option<Layer>) -> Outcome {
        self.wish(by, over, false).await
    }

    /// Wants to know what that would change, and whether it may.
    pub async fn try_out(&self, over: Option<Layer>) -> Outcome {
        self.wish("", over, true).await
    }

    async fn wish(&self, by: &'static str, over: Option<Layer>, only_tried: bool) -> Outcome {
        let (answer, outcome) = oneshot::channel();
        if self.wishes.try_send(Wish { by, over, only_tried, answer }).is_err() {
            return Outcome::NotNow("other changes are being applied, or the bridge stops".into());
        }
        let gone = || Outcome::NotNow("the bridge stops".into());
        outcome.await.unwrap_or_else(|_| gone())
    }

    /// What is in force, as TOML, secrets hidden.
    #[must_use]
    pub fn in_force(&self) -> String {
        self.in_force.borrow().clone()
    }
}

/// A door behind which nobody is.
#[cfg(test)]
pub(crate) fn closed_door() -> Door {
    Door { wishes: mpsc::channel(WISHES).0, in_force: watch::channel(String::new()).1 }
}

/// Sets the level of the log; says false where something else decides it.
pub type SetLogLevel = Box<dyn Fn(LogLevel) -> bool + Send + Sync>;

/// What else there is to say against one configuration in the place of another: that it is wrong by
/// itself, or needs a restart.
pub type Check = fn(&Config, &Config) -> Result<(), Outcome>;

/// Takes the wishes, one at a time.
pub struct Reloader {
    files: Vec<PathBuf>,
    current: Loaded,
    text: watch::Sender<String>,
    /// For those that follow it by themselves.
    followed: watch::Sender<Arc<Config>>,
    wishes: mpsc::Receiver<Wish>,
    hangups: Signal,
    pipeline: mpsc::Sender<Notice>,
    set_log_level: SetLogLevel,
    check: Check,
    /// What was not read in time, and still is: nothing else is read before it has ended, or a file
    /// system that hangs would keep one thread after the other.
    reading: Option<Reading>,
}

type Reading = JoinHandle<Result<Loaded, ConfigError>>;

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloader").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Reloader {
    /// Listens for SIGHUP from here on; must be called within the runtime. What it tells the
    /// pipeline goes into `pipeline`.
    ///
    /// # Errors
    /// When the signal cannot be listened to.
    pub fn new(
        files: Vec<PathBuf>,
        current: Loaded,
        pipeline: mpsc::Sender<Notice>,
        set_log_level: SetLogLevel,
        check: Check,
    ) -> anyhow::Result<(Self, Door)> {
        let hangups = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
        let (sender, wishes) = mpsc::channel(WISHES);
        let (text, in_force) = watch::channel(current.text.clone());
        let door = Door { wishes: sender, in_force };
        let (followed, _) = watch::channel(Arc::new(current.config.clone()));
        let reloader = Self {
            files,
            current,
            text,
            followed,
            wishes,
            hangups,
            pipeline,
            set_log_level,
            check,
            reading: None,
        };
        Ok((reloader, door))
    }

    /// The configuration in force, now and later.
    #[must_use]
    pub fn followed(&self) -> watch::Receiver<Arc<Config>> {
        self.followed.subscribe()
    }

    /// Until `end`.
    pub async fn run(mut self, end: impl Future<Output = ()> + Send) {
        tokio::pin!(end);
        loop {
            let wish = tokio::select! {
                () = &mut end => return,
                Some(()) = self.hangups.recv() => None,
                Some(wish) = self.wishes.recv() => Some(wish),
            };
            tokio::select! {
                () = &mut end => return,
                () = self.handle(wish) => {}
            }
        }
    }

    async fn handle(&mut self, wish: Option<Wish>) {
        let Some(Wish { by, over, only_tried, answer }) = wish else {
            drop(self.reload("SIGHUP", None).await);
            return;
        };
        let outcome = match only_tried {
            true => self.compare(over).await.map_or_else(|refused| refused, Compared::tried),
            false => self.reload(by, over).await,
        };
        if answer.send(outcome).is_err() {
            tracing::debug!("whoever wanted the change did not wait for the answer");
        }
    }

    async fn reload(&mut self, by: &'static str, over: Option<Layer>) -> Outcome {
        let outcome = self.attempt(over).await;
        match (&outcome, outcome.refusal()) {
            (Outcome::Applied { hash, changes }, _) if changes.is_empty() => {
                tracing::info!(
                    event = "config_unchanged",
                    by,
                    hash,
                    "configuration read again: nothing has changed"
                );
            }
            (Outcome::Applied { hash, changes }, _) => {
                let all: Vec<String> = changes.iter().map(ToString::to_string).collect();
                let count = changes.len();
                tracing::info!(
                    event = "config_changed",
                    by,
                    hash,
                    count,
                    "configuration changed: {}",
                    all.join("; ")
                );
            }
            (_, Some(why)) => {
                tracing::error!(
                    event = "config_refused",
                    by,
                    "configuration not changed, the one in force stays: {why}"
                );
                // At the stop nobody is left to remember it.
                drop(self.pipeline.try_send(Notice::Refused(why)));
            }
            (_, None) => {}
        }
        outcome
    }

    async fn attempt(&mut self, over: Option<Layer>) -> Outcome {
        let Compared { new, hash, changes } = match self.compare(over).await {
            Ok(compared) => compared,
            Err(refused) => return refused,
        };
        if !changes.is_empty() {
            let config = Arc::new(new.config.clone());
            if let Err(why) = self.tell_pipeline(Arc::clone(&config), &hash).await {
                return Outcome::NotNow(why);
            }
            let level = new.config.log;
            if level != self.current.config.log && !(self.set_log_level)(level) {
                tracing::warn!(
                    event = "log_level_ignored",
                    "log.level changes nothing: RUST_LOG is set, and counts instead"
                );
            }
            self.followed.send_replace(config);
            self.text.send_replace(new.text.clone());
            self.current = new;
        }
        Outcome::Applied { hash, changes }
    }

    /// Reads it anew and says what is different, or why it cannot take the place of what is in force.
    async fn compare(&mut self, over: Option<Layer>) -> Result<Compared, Outcome> {
        let new = self.read(over).await?;
        let (hash, changes) = (new.hash(), self.current.changes(&new));
        let needs_restart = self.current.needs_restart(&new);
        if !needs_restart.is_empty() {
            return Err(Outcome::NeedsRestart(needs_restart));
        }
        (self.check)(&self.current.config, &new.config)?;
        Ok(Compared { new, hash, changes })
    }

    async fn read(&mut self, over: Option<Layer>) -> Result<Loaded, Outcome> {
        if self.reading.as_ref().is_some_and(|reading| !reading.is_finished()) {
            let text = "the configuration is still being read: its file system does not answer";
            return Err(Outcome::NotNow(text.to_owned()));
        }
        let (shares, files) = (self.current.shares(), self.files.clone());
        // A file system may be slow, or hang: not on the async threads.
        let read = move || config::load_after(shares, &files, over.as_ref());
        let mut reading = tokio::task::spawn_blocking(read);
        match tokio::time::timeout(READ_WITHIN, &mut reading).await {
            Ok(Ok(Ok(new))) => Ok(new),
            Ok(Ok(Err(error))) => Err(Outcome::Invalid(error.to_string())),
            Ok(Err(error)) => Err(Outcome::NotNow(format!("reading the configuration: {error}"))),
            Err(_) => {
                self.reading = Some(reading);
                let text = format!("the configuration cannot be read within {READ_WITHIN:?}");
                Err(Outcome::NotNow(text))
            }
        }
    }

    async fn tell_pipeline(&self, config: Arc<Config>, hash: &str) -> Result<(), String> {
        let ((begun, mut begins), (answer, answered)) = (oneshot::channel(), oneshot::channel());
        let order = Notice::Apply(Order { config, hash: hash.to_owned(), begun, answer });
        let told = async { self.pipeline.send(order).await.is_ok() && (&mut begins).await.is_ok() };
        match tokio::time::timeout(OWNER_WITHIN, told).await {
            Ok(true) => {}
            Ok(false) => return Err("the bridge stops".to_owned()),
            Err(_) => {
                // From here on it cannot begin any more; what has begun is waited for.
                begins.close();
                let late = "the bridge has not begun to work yet: it waits for ClickHouse";
                begins.try_recv().map_err(|_| late.to_owned())?;
            }
        }
        answered.await.map_err(|_| "the bridge stops".to_owned())?
    }
}

#[cfg(test)]
mod tests;
