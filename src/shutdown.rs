//! The signals: the first asks for a drain, the second for the end at once.

use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::pipeline::Stop;

/// `timeout`, and shells that pass a Ctrl-C on, send their signal to the process and again to its
/// group, a millisecond later: that is one wish. A person who insists takes longer.
const SAME_SIGNAL: Duration = Duration::from_millis(200);

/// A write beyond the limit on a file's size (`ulimit -f`) sends this one, and its default is to
/// end the process: listened to, the write fails instead, and dead letters are held.
const SIGXFSZ: i32 = 25;

/// SIGTERM and SIGINT, listened to from here on.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Only so that it does not end the process.
    _file_size: Signal,
}

impl Signals {
    /// Starts to listen; must be called within the runtime.
    pub fn listen() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        let file_size = SignalKind::from_raw(SIGXFSZ);
        let _file_size = signal(file_size).context("cannot listen for SIGXFSZ")?;
        Ok(Self { terminate, interrupt, _file_size })
    }

    /// Turns signals into stops, until nobody listens any more.
    pub async fn tell(mut self, stop: watch::Sender<Stop>) {
        for next in [Stop::Drain, Stop::Abort] {
            let name = tokio::select! {
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
                () = stop.closed() => return,
            };
            match next {
                Stop::Abort => tracing::warn!(event = "signal", "{name} again: stopping at once"),
                _ => tracing::info!(event = "signal", "{name}: stopping; once more stops at once"),
            }
            stop.send_replace(next);
            if next == Stop::Drain {
                self.hush(&stop).await;
            }
        }
        stop.closed().await;
    }

    /// Takes what comes right behind a signal for the same one.
    async fn hush(&mut self, stop: &watch::Sender<Stop>) {
        let end = tokio::time::sleep(SAME_SIGNAL);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return,
                () = stop.closed() => return,
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
        }
    }
}
