//! Looks at the snapshot at every heartbeat, by itself; says what happened in the log, and shows what
//! fires to those who ask.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::{Alert, Board, Firing, Severity, Transition};
use crate::config::Config;
use crate::status::{RunStage, Snapshots};

/// Where it is read, and waited for.
pub type Alerts = watch::Receiver<Firing>;

/// Nothing fires, and nobody looks.
#[must_use]
pub fn none() -> Alerts {
    watch::channel(Firing::default()).1
}

/// The one who looks.
#[derive(Debug)]
pub struct Lookout {
    /// That is in force.
    config: watch::Receiver<Arc<Config>>,
    snapshots: Snapshots,
    board: Board,
    firing: watch::Sender<Firing>,
}

impl Lookout {
    /// And where it shows what fires.
    #[must_use]
    pub fn new(config: watch::Receiver<Arc<Config>>, snapshots: Snapshots) -> (Self, Alerts) {
        let (firing, alerts) = watch::channel(Firing::default());
        (Self { config, snapshots, board: Board::default(), firing }, alerts)
    }

    /// Until `end`: at every heartbeat, and at once when the bridge begins to run or to go away, which
    /// may take less than that.
    pub async fn run(mut self, end: impl Future<Output = ()> + Send) {
        tokio::pin!(end);
        loop {
            self.look();
            let interval = self.config.borrow().heartbeat.interval;
            let stage = self.snapshots.borrow().stage;
            tokio::select! {
                () = &mut end => return,
                () = sleep(interval) => {}
                true = is_other(&mut self.snapshots, stage) => {}
            }
        }
    }

    fn look(&mut self) {
        let config = Arc::clone(&self.config.borrow());
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let wall = jiff::Timestamp::now().as_millisecond();
        let said = self.board.look(&config.alerts, &snapshot, Instant::now(), wall);
        said.iter().for_each(log);
        let firing = self.board.firing();
        self.firing.send_if_modified(|shown| {
            let changed = *shown != firing;
            *shown = firing;
            changed
        });
    }
}

/// Waits for another stage. False: there will be none.
async fn is_other(snapshots: &mut Snapshots, stage: RunStage) -> bool {
    snapshots.wait_for(|snapshot| snapshot.stage != stage).await.is_ok()
}

/// A warning at WARN, a critical one at ERROR, its end at INFO; `event` is what a program looks for.
fn log(transition: &Transition) {
    let event = match transition {
        Transition::Fired(_) => "alert_fired",
        Transition::Repeated(_) => "alert_repeated",
        Transition::Resolved(_) => "alert_resolved",
    };
    let alert = transition.alert();
    let Alert { id, of, runbook, summary, .. } = alert;
    let (id, of) = (id.name(), of.as_deref());
    match (transition, alert.id.severity()) {
        (Transition::Resolved(_), _) => {
            tracing::info!(event, alert = id, of, "alert {id} resolved; it was: {summary}");
        }
        (_, Severity::Warning) => tracing::warn!(event, alert = id, of, runbook, "{alert}"),
        (_, Severity::Critical) => tracing::error!(event, alert = id, of, runbook, "{alert}"),
    }
}
