//! The signals: the first asks for a drain, the second for the end at once.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::pipeline::Stop;

/// SIGTERM and SIGINT, listened to from here on.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Starts to listen; must be called within the runtime.
    pub fn listen() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        Ok(Self { terminate, interrupt })
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
                Stop::Abort => tracing::warn!("{name} again: stopping at once"),
                _ => tracing::info!("{name}: stopping; once more stops at once"),
            }
            stop.send_replace(next);
        }
        stop.closed().await;
    }
}
