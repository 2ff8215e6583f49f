//! For tests: all metrics of a bridge of which nothing is known but its snapshots.

use std::sync::Arc;

use super::{Exposition, Metrics};
use crate::alert;
use crate::live::Live;
use crate::status::{Identity, Snapshots};
use crate::webhook::Tallies;

pub(crate) fn exposition(
    metrics: Metrics,
    snapshots: Snapshots,
    identity: Identity,
    live: Arc<Live>,
) -> Exposition {
    Exposition::new(metrics, snapshots, alert::none(), Tallies::default(), identity, live, None)
}
