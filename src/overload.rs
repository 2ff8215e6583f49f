//! What to let go, and in which order, when something must give.
//!
//! Pure. Owns which tiers are in force, who is kept when one in so many is, and what each tier has
//! cost. It decides for one record at a time, from the level and the record's route and name; it
//! moves nothing and counts no source.
//!
//! ```text
//! fill  95 % ─ drop all but system ──┐   each tier begins above `at_percent` and lasts until the
//!       80 % ─ (pause) drop market ──┤   fill is below `until_percent`; of those in force the
//!       70 % ─ market 1 in 10 ───────┤   highest that says something about a class decides
//!       50 % ─ market 1 in 2 ────────┘
//! ```

mod sampling;
mod tier;

pub use self::tier::{Losses, TierLook};

use self::sampling::Sampling;
use self::tier::{Act, Tier};
use crate::backpressure::Level;
use crate::config::{self, Config};
use crate::route::RouteId;
use crate::status::TierStatus;

/// Why a record is lost, as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Its source is paused, and its class is not kept meanwhile.
    Paused,
    /// A tier keeps one in so many of its class, and it was another one.
    Sampled(usize),
    /// A tier keeps nothing of its class.
    Tier(usize),
}

impl Loss {
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Sampled(_) => "sampled",
            Self::Tier(_) => "tier",
        }
    }
}

/// How a record comes to be decided on.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    pub route: RouteId,
    /// Its topic or subject: who is kept of a sample is decided for each by itself.
    pub name: &'a str,
    /// It came by core NATS, which cannot be made to wait.
    pub pushed: bool,
    /// Its source is paused.
    pub paused: bool,
    /// It takes room; one that is only counted costs nothing, and no tier is about it.
    pub stored: bool,
}

/// What is known of a route here. One that is not configured any more loses nothing.
#[derive(Debug, Clone, Default)]
struct Policy {
    /// As which its losses are counted, whatever it ranks as.
    class: String,
    /// Its core NATS records are lost while paused.
    drop_while_paused: bool,
    /// Those of Kafka and JetStream may be lost too: the configuration says so in so many words.
    may_drop: bool,
    /// Instead of losing every record, one in so many is kept.
    one_in: Option<u32>,
}

/// The policy, and what it has come to.
#[derive(Debug, Default)]
pub struct Overload {
    /// By the route's number.
    policies: Vec<Policy>,
    tiers: Vec<Tier>,
    sampling: Sampling,
}

impl Overload {
    /// `ids` are the numbers of the configuration's routes, in its order.
    #[must_use]
    pub fn new(config: &Config, ids: &[RouteId]) -> Self {
        Self::default().followed_by(config, ids)
    }

    /// Goes over to another configuration. A tier that begins where one began is that one: it goes
    /// on with what it has cost.
    #[must_use]
    pub fn followed_by(mut self, config: &Config, ids: &[RouteId]) -> Self {
        let numbers = ids.iter().map(|id| id.index() + 1).max().unwrap_or_default();
        let mut policies = vec![Policy::default(); numbers];
        for (route, id) in config.routes.iter().zip(ids) {
            policies[id.index()] = Policy {
                class: route.class.clone(),
                drop_while_paused: config.overload.drop_while_paused.contains(route.rank()),
                may_drop: route.overload.may_drop,
                one_in: match route.overload.strategy {
                    config::Strategy::Sample { one_in } => Some(one_in),
                    config::Strategy::DropNewest | config::Strategy::Sliding { .. } => None,
                },
            };
        }
        let limits = Level {
            held: config.backpressure.max_buffer_size,
            bytes: config.backpressure.max_buffer_bytes,
        };
        let mut tiers = Vec::with_capacity(config.overload.tiers.len());
        for configured in &config.overload.tiers {
            let mut tier = Tier::new(configured, config.routes.iter().zip(ids), numbers);
            tier.set_limits(limits);
            if let Some(before) = self.tiers.iter().position(|t| t.is_at(configured.at_percent)) {
                tier.go_on_from(self.tiers.swap_remove(before));
            }
            tiers.push(tier);
        }
        Self { policies, tiers, sampling: self.sampling }
    }

    /// The cap has changed: the tiers begin and end at the same shares of it.
    pub fn set_limits(&mut self, limits: Level) {
        self.tiers.iter_mut().for_each(|tier| tier.set_limits(limits));
    }

    /// Looks at the level; says which tiers began or ended.
    pub fn look(&mut self, level: Level) -> impl Iterator<Item = TierLook> {
        self.tiers.iter_mut().filter_map(move |tier| tier.look(level))
    }

    /// Every tier ends: at the stop what is delivered is taken, up to the cap.
    pub fn end(&mut self) -> impl Iterator<Item = TierLook> {
        self.look(Level::default())
    }

    /// Whether this record is let go, and why.
    pub fn decide(&mut self, arrival: Arrival<'_>) -> Option<Loss> {
        let loss = self.loss(arrival)?;
        let Arrival { route, name, pushed, .. } = arrival;
        let of_its_own = self.policy(route)?.one_in.filter(|_| pushed);
        match (loss, of_its_own) {
            (Loss::Paused | Loss::Tier(_), Some(one_in)) => {
                (!self.sampling.keeps(route, name, one_in)).then_some(loss)
            }
            _ => Some(loss),
        }
    }

    fn loss(&mut self, arrival: Arrival<'_>) -> Option<Loss> {
        let Arrival { route, name, pushed, paused, stored } = arrival;
        let policy = self.policy(route)?;
        if pushed && paused && policy.drop_while_paused {
            return Some(Loss::Paused);
        }
        if !stored || !pushed && !policy.may_drop {
            return None;
        }
        let (index, act) = self.act(route)?;
        match act {
            Act::Drop => Some(Loss::Tier(index)),
            Act::Sample(one_in) => {
                if !self.sampling.keeps(route, name, one_in) {
                    return Some(Loss::Sampled(index));
                }
                let class = &self.policies.get(route.index())?.class;
                self.tiers[index].count(class).kept += 1;
                None
            }
        }
    }

    /// None of a route that came before the configuration that is in force.
    fn policy(&self, route: RouteId) -> Option<&Policy> {
        self.policies.get(route.index())
    }

    /// What the highest tier in force that says something about this route says.
    fn act(&self, route: RouteId) -> Option<(usize, Act)> {
        let in_force = self.tiers.iter().enumerate().rev().filter(|(_, tier)| tier.in_force());
        in_force.filter_map(|(index, tier)| Some((index, tier.act(route)?))).next()
    }

    /// Whether everything that this route gets by core NATS would be let go now.
    #[must_use]
    pub fn shuts_out(&self, route: RouteId, paused: bool) -> bool {
        let by_pause = |policy: &Policy| paused && policy.drop_while_paused;
        self.policy(route).is_some_and(by_pause) || matches!(self.act(route), Some((_, Act::Drop)))
    }

    /// Notes what a tier has cost; what the pause costs is no tier's.
    pub fn lost(&mut self, loss: Loss, route: RouteId) {
        let Some(Policy { class, .. }) = self.policies.get(route.index()) else { return };
        match loss {
            Loss::Paused => {}
            Loss::Sampled(tier) => self.tiers[tier].count(class).sampled += 1,
            Loss::Tier(tier) => self.tiers[tier].count(class).dropped += 1,
        }
    }

    /// Everything that there is to say of the tiers, in their order.
    pub fn tiers(&self) -> impl Iterator<Item = TierStatus> {
        self.tiers.iter().map(Tier::status)
    }
}

#[cfg(test)]
mod tests;
