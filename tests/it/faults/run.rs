//! One trial: load, faults by a schedule, and the verdict.
//!
//! Everything that it does and finds is printed; what is wrong is collected and decides.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::load::{Load, Sent};
use super::place::{Delivery, Place, Source, Wanted};
use super::proxy::Wire;
use super::schedule::{Fault, Plan, Server, Step};
use super::watch::{Trend, Watch, Watched};
use crate::bridge::{Bridge, PATIENCE};

/// What is to be tried.
#[derive(Debug, Clone)]
pub(crate) struct Trial {
    pub(crate) sources: Vec<Source>,
    pub(crate) delivery: Delivery,
    /// Records a second, of each source.
    pub(crate) rate: u64,
    pub(crate) plan: Plan,
    /// What is done behind the bridge's back before the verdict, to show that it is seen.
    pub(crate) tamper: Vec<String>,
    /// Whether it is minded that the first bridge does not grow.
    pub(crate) watched: bool,
    /// Also where no server is killed.
    pub(crate) own_servers: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// What was done when, and what was found.
    pub(crate) story: String,
    pub(crate) violations: Vec<String>,
    /// How many bridges were killed, and after how many of these kills' predecessors rows had
    /// landed since.
    pub(crate) kills: usize,
    pub(crate) kills_under_work: usize,
    /// ClickHouse lost rows behind a view, and only there.
    pub(super) views_lost: bool,
    /// Numbers beyond the first of each, in all places.
    pub(crate) repeated: u64,
    /// What really happened on the wire.
    pub(crate) injected: BTreeMap<Wire, u64>,
}

impl Outcome {
    pub(crate) fn assert_clean(&self) {
        assert!(self.violations.is_empty(), "{}\n{}", self.violations.join("\n"), self.story);
    }

    #[expect(clippy::print_stdout, reason = "scripts/chaos shows it while it runs")]
    pub(super) fn say(&mut self, line: &str) {
        println!("{line}");
        writeln!(self.story, "{line}").unwrap();
    }

    pub(super) fn violation(&mut self, what: String) {
        self.say(&format!("VIOLATION: {what}"));
        self.violations.push(what);
    }
}

/// Without a row more for so long, the rest is lost or stuck: a minute is ten times what the
/// slowest thing here takes, a Kafka that finds its group again.
const STALLED_AFTER: Duration = Duration::from_secs(60);

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The end of a trial may wait so long for what a stop still owes.
const LEAVES_WITHIN: Duration = PATIENCE;

/// A trial under way.
pub(super) struct Running {
    pub(super) place: Place,
    bridges: Vec<Option<Bridge>>,
    leaving: Vec<Bridge>,
    /// Servers that are being started again.
    starting: Vec<(Server, JoinHandle<()>)>,
    pub(super) outcome: Outcome,
    began: Instant,
    rows_at_kill: u64,
    /// Nothing but bridges is killed: there is always work to be killed at.
    only_bridges: bool,
}

impl Trial {
    pub(crate) async fn run(&self) -> Outcome {
        let faults = &self.plan.faults;
        let place = Place::make(Wanted {
            sources: self.sources.clone(),
            delivery: self.delivery,
            own_servers: self.own_servers || faults.iter().any(|fault| fault.kills_servers()),
            proxied: faults.iter().any(|fault| fault.is_on_the_wire()),
        })
        .await;
        let bridges = (0..self.plan.bridges).map(|which| Some(place.start_bridge(which)));
        let mut running = Running {
            bridges: bridges.collect(),
            place,
            leaving: Vec::new(),
            starting: Vec::new(),
            outcome: Outcome::default(),
            began: Instant::now(),
            rows_at_kill: 0,
            only_bridges: *faults == [Fault::Bridge],
        };
        let load = Load::start(&running.place, self.rate).await;
        let pid = running.bridges[0].as_ref().expect("it was just started").pid();
        let watch = self.watched.then(|| Watch::start(pid));
        // What a slow machine makes late makes the rest late too: the gaps belong to the schedule.
        let mut late = Duration::ZERO;
        for (at, step) in self.plan.schedule() {
            sleep_until(running.began + at + late).await;
            late = running.began.elapsed().saturating_sub(at);
            running.take(step).await;
        }
        running.mend().await;
        if let Some(watch) = watch {
            running.assess(watch.finish().await);
        }
        let sent = load.finish().await;
        running.settle(&sent).await;
        running.leave().await;
        for sql in &self.tamper {
            running.place.lab.clickhouse.query(sql).await;
        }
        running.judge(self, &sent).await;
        running.outcome
    }
}

impl Running {
    fn say(&mut self, what: &str) {
        let at = self.began.elapsed().as_secs_f64();
        self.outcome.say(&format!("{at:>8.1} s  {what}"));
    }

    async fn take(&mut self, step: Step) {
        self.no_bridge_has_ended();
        match step {
            Step::KillBridge(which) => {
                let Some(mut bridge) = self.bridges[which].take() else { return };
                // One kill hits a bridge that begins, the next one that works, on any machine.
                if self.only_bridges && self.outcome.kills.is_multiple_of(2) {
                    self.until_new_rows().await;
                }
                let rows = self.rows().await;
                bridge.kill().await;
                self.outcome.kills += 1;
                self.outcome.kills_under_work += usize::from(rows > self.rows_at_kill);
                self.rows_at_kill = rows;
                self.say(&format!("{step}, {rows} rows"));
                return;
            }
            Step::StopBridge(which) => {
                let Some(bridge) = self.bridges[which].take() else { return };
                bridge.signal("TERM");
                self.leaving.push(bridge);
            }
            Step::StartBridge(which) => {
                self.bridges[which] = Some(self.place.start_bridge(which));
            }
            Step::Kill(server) => {
                self.until_started(server).await;
                let stack = self.place.stack(server);
                tokio::task::block_in_place(|| stack.kill(server.name()));
            }
            Step::Start(server) => {
                let stack = self.place.stack(server);
                let start = tokio::task::spawn_blocking(move || stack.start(server.name()));
                self.starting.push((server, start));
            }
            Step::Wire(wire, times) => self.proxy().inject(wire, times),
            Step::Cut => self.proxy().set_down(true),
            Step::Heal => self.proxy().set_down(false),
        }
        self.say(&step.to_string());
    }

    fn proxy(&self) -> &super::proxy::Proxy {
        self.place.proxy.as_ref().expect("a schedule with faults on the wire has a proxy")
    }

    fn no_bridge_has_ended(&mut self) {
        for which in 0..self.bridges.len() {
            let ended = self.bridges[which].as_mut().and_then(Bridge::has_ended);
            if let Some(code) = ended {
                let bridge = self.bridges[which].take().expect("it has just ended");
                let tail = bridge.log_tail();
                self.outcome.violation(format!(
                    "bridge {which} ended by itself with exit code {code}:\n{tail}"
                ));
            }
        }
    }

    async fn until_started(&mut self, server: Server) {
        let mut index = 0;
        while index < self.starting.len() {
            if self.starting[index].0 == server {
                self.starting.remove(index).1.await.unwrap();
            } else {
                index += 1;
            }
        }
    }

    async fn until_new_rows(&self) {
        let new = async {
            while self.rows().await <= self.rows_at_kill {
                sleep(LOOK_EVERY).await;
            }
        };
        timeout(STALLED_AFTER, new).await.expect("a bridge that runs stores something");
    }

    /// The rows that have landed so far, as far as ClickHouse can be asked.
    async fn rows(&self) -> u64 {
        let mut rows = 0;
        for source in &self.place.wanted.sources {
            let sql = format!("SELECT count() FROM rows_{source}");
            rows += self.place.lab.clickhouse.try_number(&sql).await.unwrap_or_default();
        }
        rows
    }

    /// Every server and every bridge runs again, and nothing is broken any more.
    async fn mend(&mut self) {
        if let Some(proxy) = &self.place.proxy {
            proxy.set_down(false);
        }
        for server in Server::ALL {
            self.until_started(server).await;
        }
        for which in 0..self.bridges.len() {
            if self.bridges[which].is_none() {
                self.bridges[which] = Some(self.place.start_bridge(which));
            }
        }
        if let Some(proxy) = &self.place.proxy {
            proxy.until_used_up().await;
        }
        self.say("everything runs again");
    }

    fn assess(&mut self, watched: Watched) {
        for (what, trend) in [("memory, MiB", watched.memory_mib), ("files", watched.files)] {
            let Trend { per_hour, growth, mean, peak } = trend;
            self.say(&format!(
                "{what}: slope {per_hour:+.2} an hour, {growth:+.2} in all; mean {mean:.1}, peak \
                 {peak:.1}"
            ));
        }
        watched.troubles().into_iter().for_each(|trouble| self.outcome.violation(trouble));
    }

    /// Waits until all that has to land has landed, or nothing does any more.
    async fn settle(&mut self, sent: &Sent) {
        let expected: u64 =
            sent.iter().filter(|(source, _)| source.is_lossless()).flat_map(|(_, sent)| sent).sum();
        let (mut landed, mut since) = (0, Instant::now());
        while landed < expected && since.elapsed() < STALLED_AFTER {
            sleep(Duration::from_millis(300)).await;
            self.no_bridge_has_ended();
            let now = self.landed().await;
            if now != landed {
                (landed, since) = (now, Instant::now());
            }
        }
        self.say(&format!("{landed} of {expected} have landed"));
    }

    /// Different numbers of lossless sources that are somewhere.
    async fn landed(&self) -> u64 {
        let mut parts = Vec::new();
        for source in self.place.wanted.sources.iter().filter(|source| source.is_lossless()) {
            let prefix = self.place.address(*source);
            parts.push(format!(
                "(SELECT uniqExact(p, n) FROM rows_{source}) + (SELECT uniqExact(payload) FROM \
                 dead_letters WHERE startsWith(topic_or_subject, '{prefix}'))"
            ));
        }
        if parts.is_empty() {
            return 0;
        }
        let sql = format!("SELECT {}", parts.join(" + "));
        self.place.lab.clickhouse.try_number(&sql).await.unwrap_or_default()
    }

    async fn leave(&mut self) {
        for mut bridge in std::mem::take(&mut self.leaving) {
            // It may have had to give up, when it was stopped while ClickHouse was away.
            bridge.ended(LEAVES_WITHIN).await;
        }
        for bridge in self.bridges.iter().flatten() {
            bridge.signal("TERM");
        }
        for which in 0..self.bridges.len() {
            let Some(mut bridge) = self.bridges[which].take() else { continue };
            let code = bridge.ended(LEAVES_WITHIN).await;
            if code != 0 {
                let tail = bridge.log_tail();
                self.outcome.violation(format!("bridge {which} left with code {code}:\n{tail}"));
            }
        }
    }
}
