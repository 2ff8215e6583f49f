//! The other instances, where there is a fleet. As many series as there are others, of which a bounded
//! number is kept in mind.

use std::fmt::Error;

use super::out::{NO_LABELS, NONE, Out};
use crate::fleet::Said;
use crate::status::{FleetStatus, Snapshot};

pub(super) fn fleet(out: &mut Out<'_>, snapshot: &Snapshot) -> Result<(), Error> {
    let fleet = || snapshot.fleet.iter();
    let of = |value: fn(&FleetStatus) -> u64| fleet().map(move |it| (NO_LABELS, value(it)));
    let help = "Instances that are heard of, this one among them";
    out.gauges("fleet_instances", help, NONE, of(|it| it.view.others.len() as u64 + 1))?;
    let help = "1 while the others can be heard of";
    out.gauges("fleet_connected", help, NONE, of(|it| u64::from(it.view.error.is_none())))?;
    let help = "Records held as a share of the cap, the mean over all instances";
    let fill = fleet().map(|it| (NO_LABELS, it.view.fill));
    out.gauges("fleet_utilization_ratio", help, NONE, fill)?;
    let help = "1 while it pulls more slowly, because the fleet as a whole is filling";
    out.gauges("fleet_slowed", help, NONE, of(|it| u64::from(it.view.slowed)))?;
    let help = "How often it began to pull more slowly, because the fleet was filling";
    out.counters("fleet_slowdowns", help, NONE, of(|it| it.slowdowns))?;
    let help = "Entries of the fleet's bucket of which nothing is made: foreign, or too many";
    out.gauges("fleet_ignored_entries", help, NONE, of(|it| it.view.ignored as u64))?;
    others(out, snapshot)
}

fn others(out: &mut Out<'_>, snapshot: &Snapshot) -> Result<(), Error> {
    let all = || snapshot.fleet.iter().flat_map(|fleet| fleet.view.others.values());
    let label = |said: &Said| [("peer", said.instance.clone())];
    let help = "Records held by another instance as a share of its cap";
    let fills = all().map(|said| (label(said), said.fill));
    out.gauges("fleet_peer_utilization_ratio", help, NONE, fills)?;
    let help = "1 while another instance is paused";
    let paused = all().map(|said| (label(said), u64::from(said.paused)));
    out.gauges("fleet_peer_paused", help, NONE, paused)?;
    let help = "Lag of another instance, in records; none while it is unknown";
    let lags = all().filter_map(|said| Some((label(said), said.lag?)));
    out.gauges("fleet_peer_lag_records", help, NONE, lags)
}
