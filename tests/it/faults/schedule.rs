//! What goes wrong when: a pure function of the seed, so that a run can be had again.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};

use super::proxy::Wire;

/// Servers that can be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Server {
    ClickHouse,
    Kafka,
    Nats,
}

impl Server {
    pub(crate) const ALL: [Self; 3] = [Self::ClickHouse, Self::Kafka, Self::Nats];

    /// As `scripts/stack` calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ClickHouse => "clickhouse",
            Self::Kafka => "kafka",
            Self::Nats => "nats",
        }
    }
}

/// A kind of fault, as `--faults` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `kill -9` of a bridge, which is started again.
    Bridge,
    /// SIGTERM of a bridge, which is started again.
    Stop,
    /// `kill -9` of this server, which is started again.
    Server(Server),
    /// All servers at once.
    Servers,
    /// All servers and all bridges at once.
    Everything,
    /// Something between the bridge and ClickHouse, for one to three inserts.
    Wire,
    /// ClickHouse cannot be reached for a moment, although it runs.
    Cut,
    /// A bridge leaves, by SIGTERM or `kill -9`, or one that left joins again.
    Members,
}

impl Fault {
    const NAMES: [(&'static str, Self); 10] = [
        ("bridge", Self::Bridge),
        ("stop", Self::Stop),
        ("clickhouse", Self::Server(Server::ClickHouse)),
        ("kafka", Self::Server(Server::Kafka)),
        ("nats", Self::Server(Server::Nats)),
        ("servers", Self::Servers),
        ("everything", Self::Everything),
        ("wire", Self::Wire),
        ("cut", Self::Cut),
        ("members", Self::Members),
    ];

    pub(crate) fn all() -> Vec<Self> {
        Self::NAMES.map(|(_, fault)| fault).to_vec()
    }

    /// Whether it needs servers that may be killed.
    pub(crate) fn kills_servers(self) -> bool {
        matches!(self, Self::Server(_) | Self::Servers | Self::Everything)
    }

    /// Whether it needs the proxy.
    pub(crate) fn is_on_the_wire(self) -> bool {
        matches!(self, Self::Wire | Self::Cut)
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, fault)| *fault).ok_or_else(|| {
            let names = Self::NAMES.map(|(name, _)| name);
            format!("`{name}` is no fault; there are {}", names.join(", "))
        })
    }
}

/// One thing that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    KillBridge(usize),
    /// SIGTERM.
    StopBridge(usize),
    StartBridge(usize),
    Kill(Server),
    Start(Server),
    Wire(Wire, usize),
    Cut,
    Heal,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillBridge(which) => write!(f, "kill -9 bridge {which}"),
            Self::StopBridge(which) => write!(f, "SIGTERM bridge {which}"),
            Self::StartBridge(which) => write!(f, "start bridge {which}"),
            Self::Kill(server) => write!(f, "kill -9 {}", server.name()),
            Self::Start(server) => write!(f, "start {}", server.name()),
            Self::Wire(wire, times) => write!(f, "{wire:?} for {times} inserts"),
            Self::Cut => f.write_str("ClickHouse cannot be reached"),
            Self::Heal => f.write_str("ClickHouse can be reached"),
        }
    }
}

/// What a schedule is made from.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) faults: Vec<Fault>,
    /// Faults begin at least so long...
    pub(crate) length: Duration,
    /// ...one about every...
    pub(crate) gap: Duration,
    /// ...and are at least so many.
    pub(crate) at_least: usize,
    pub(crate) bridges: usize,
}

/// Steps by the time since the beginning.
pub(crate) type Schedule = Vec<(Duration, Step)>;

impl Plan {
    pub(crate) fn schedule(&self) -> Schedule {
        let mut builder = Builder {
            random: SmallRng::seed_from_u64(self.seed),
            steps: Vec::new(),
            up_at: vec![Duration::ZERO; self.bridges],
            away: vec![false; self.bridges],
            server_up_at: [Duration::ZERO; 3],
            wires: Vec::new(),
        };
        let mut at = Duration::ZERO;
        let mut injected = 0;
        while !self.faults.is_empty() && (at < self.length || injected < self.at_least) {
            at += self.gap.mul_f64(builder.random.random_range(0.3..1.7));
            let fault = *self.faults.choose(&mut builder.random).expect("there is one");
            injected += usize::from(builder.add(fault, at));
        }
        let mut steps = builder.steps;
        steps.sort_by_key(|(at, _)| *at);
        steps
    }
}

struct Builder {
    random: SmallRng,
    steps: Schedule,
    /// From when on each bridge can be asked for something again.
    up_at: Vec<Duration>,
    /// It has left, and comes back only by another step.
    away: Vec<bool>,
    server_up_at: [Duration; 3],
    /// A pack of all that can go wrong on the wire: none comes twice before each came once.
    wires: Vec<Wire>,
}

impl Builder {
    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.random.random_range(range))
    }

    /// Adds what belongs to this fault; false where what it is about is down already.
    fn add(&mut self, fault: Fault, at: Duration) -> bool {
        match fault {
            Fault::Bridge => self.bridge(at, Step::KillBridge),
            Fault::Stop => self.bridge(at, Step::StopBridge),
            Fault::Server(server) => self.server(at, server),
            Fault::Servers => self.servers(at),
            Fault::Everything => {
                for which in 0..self.up_at.len() {
                    if !self.away[which] && self.up_at[which] <= at {
                        self.restart(at, which, Step::KillBridge);
                    }
                }
                self.servers(at)
            }
            Fault::Wire => {
                if self.wires.is_empty() {
                    self.wires = Wire::ALL.to_vec();
                    self.wires.shuffle(&mut self.random);
                }
                let wire = self.wires.pop().expect("the pack is new");
                let times = self.random.random_range(1..=3);
                self.steps.push((at, Step::Wire(wire, times)));
                true
            }
            Fault::Cut => {
                let until = at + self.millis(500..4_000);
                self.steps.extend([(at, Step::Cut), (until, Step::Heal)]);
                true
            }
            Fault::Members => self.member(at),
        }
    }

    fn bridge(&mut self, at: Duration, step: fn(usize) -> Step) -> bool {
        let up: Vec<usize> = (0..self.up_at.len())
            .filter(|&which| !self.away[which] && self.up_at[which] <= at)
            .collect();
        let Some(&which) = up.choose(&mut self.random) else { return false };
        self.restart(at, which, step);
        true
    }

    fn restart(&mut self, at: Duration, which: usize, step: fn(usize) -> Step) {
        // half of them at once, as an orchestrator does
        let after = if self.random.random() { Duration::ZERO } else { self.millis(0..1_500) };
        self.steps.extend([(at, step(which)), (at + after, Step::StartBridge(which))]);
        self.up_at[which] = at + after;
    }

    fn server(&mut self, at: Duration, server: Server) -> bool {
        if self.server_up_at[server as usize] > at {
            return false;
        }
        let until = at + self.millis(200..5_000);
        self.server_up_at[server as usize] = until;
        self.steps.extend([(at, Step::Kill(server)), (until, Step::Start(server))]);
        true
    }

    fn servers(&mut self, at: Duration) -> bool {
        let mut servers = Server::ALL;
        servers.shuffle(&mut self.random);
        servers.map(|server| self.server(at, server)).contains(&true)
    }

    /// The last one stays.
    fn member(&mut self, at: Duration) -> bool {
        let which = self.random.random_range(0..self.away.len());
        if self.up_at[which] > at {
            return false;
        }
        if self.away[which] {
            self.away[which] = false;
            self.steps.push((at, Step::StartBridge(which)));
            return true;
        }
        if self.away.iter().filter(|away| !**away).count() < 2 {
            return false;
        }
        self.away[which] = true;
        let killed: bool = self.random.random();
        let step = if killed { Step::KillBridge(which) } else { Step::StopBridge(which) };
        self.steps.push((at, step));
        true
    }
}

fn plan(seed: u64) -> Plan {
    let (length, gap) = (Duration::from_secs(600), Duration::from_secs(3));
    Plan { seed, faults: Fault::all(), length, gap, at_least: 10, bridges: 3 }
}

#[test]
fn the_same_seed_is_the_same_schedule() {
    assert_eq!(plan(7).schedule(), plan(7).schedule());
    assert_ne!(plan(7).schedule(), plan(8).schedule());
}

#[test]
fn nobody_is_killed_who_is_down_and_a_bridge_is_left() {
    for seed in 0..200 {
        let mut up = [true; 3];
        let mut servers = [true; 3];
        for (at, step) in plan(seed).schedule() {
            match step {
                Step::KillBridge(which) | Step::StopBridge(which) => {
                    assert!(std::mem::replace(&mut up[which], false), "{seed}: {at:?} {step}");
                }
                Step::StartBridge(which) => {
                    assert!(!std::mem::replace(&mut up[which], true), "{seed}: {at:?} {step}");
                }
                Step::Kill(server) => {
                    assert!(std::mem::replace(&mut servers[server as usize], false));
                }
                Step::Start(server) => {
                    assert!(!std::mem::replace(&mut servers[server as usize], true));
                }
                Step::Wire(..) | Step::Cut | Step::Heal => {}
            }
        }
        assert_eq!(servers, [true; 3]);
    }
}
