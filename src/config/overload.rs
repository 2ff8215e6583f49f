//! What to let go when something must give: the valid form, and the only way to it.

use std::collections::{BTreeMap, BTreeSet};

use super::problem::Problems;
use super::raw_overload as raw;
use super::raw_route;
use super::suggest;
use super::{Action, Backpressure, Route};

/// The class that is never dropped.
const SYSTEM: &str = "system";
/// So far below its beginning a tier ends, if nothing else is said.
const HYSTERESIS_PERCENT: u8 = 10;
/// Of bytes; of records as far as the thresholds are at their defaults.
const RESUME_PERCENT: u8 = 40;

/// Which classes may be lost, and when. Classes are resolved: what is here is a route's rank.
#[derive(Debug, Clone, Default)]
pub struct Overload {
    /// The most important first; those of routes that are not listed come after them, by name.
    pub priorities: Vec<String>,
    pub drop_while_paused: BTreeSet<String>,
    /// In ascending order.
    pub tiers: Vec<Tier>,
}

#[derive(Debug, Clone, Default)]
pub struct Tier {
    pub at_percent: u8,
    pub until_percent: u8,
    /// One in so many is kept.
    pub sample: BTreeMap<String, u32>,
    pub drop: BTreeSet<String>,
}

/// What a route says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteOverload {
    pub rank_as: Option<String>,
    /// Its records from Kafka and JetStream may be lost too.
    pub may_drop: bool,
    pub strategy: Strategy,
}

/// What becomes of core NATS records that would be dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Strategy {
    #[default]
    DropNewest,
    /// The latest `keep` wait.
    Sliding { keep: usize },
    /// One in so many is admitted.
    Sample { one_in: u32 },
}

impl Overload {
    /// The share of the cap below which the pause and every tier that drops have ended.
    #[must_use]
    pub fn ends_at_percent(&self) -> u8 {
        let dropping = self.tiers.iter().filter(|tier| !tier.drop.is_empty());
        dropping
            .map(|tier| tier.until_percent)
            .min()
            .map_or(RESUME_PERCENT, |least| least.min(RESUME_PERCENT))
    }
}

impl Route {
    /// The class as which it counts when something must give.
    #[must_use]
    pub fn rank(&self) -> &str {
        self.overload.rank_as.as_deref().unwrap_or(&self.class)
    }

    /// Whether any of its records may be lost because the bridge is full.
    fn may_lose(&self) -> bool {
        self.rank() != SYSTEM && (!self.nats_subjects.is_empty() || self.overload.may_drop)
    }
}

/// The policy, given the routes that it is about.
pub(super) fn policy(
    raw: &raw::Overload,
    routes: &[Route],
    limits: &Backpressure,
    problems: &mut Problems,
) -> Overload {
    let classes = Classes { priorities: priorities(raw, routes, problems), routes };
    let overload = Overload {
        drop_while_paused: match &raw.drop_while_paused {
            None => classes.after(SYSTEM),
            Some(named) => {
                classes.checked("overload.drop_while_paused", named, problems);
                named.iter().cloned().collect()
            }
        },
        tiers: tiers(raw, &classes, problems),
        priorities: classes.priorities,
    };
    windows_let_go(&overload, routes, limits, problems);
    overload
}

fn priorities(raw: &raw::Overload, routes: &[Route], problems: &mut Problems) -> Vec<String> {
    const KEY: &str = "overload.priorities";
    let mut all: Vec<String> = Vec::new();
    for (index, class) in raw.priorities.iter().enumerate() {
        let key = format!("{KEY}[{index}]");
        if all.contains(class) {
            problems.text(&key, class, "is there already; each class has one place");
        } else if class == SYSTEM && index > 0 {
            problems.text(&key, class, "is never dropped, so it comes first");
        }
        all.push(class.clone());
    }
    let unlisted: BTreeSet<&str> = routes.iter().map(Route::rank).collect();
    let unlisted: Vec<&str> =
        unlisted.into_iter().filter(|class| !all.iter().any(|known| known == class)).collect();
    for class in unlisted {
        // `system` is before all others also where the list leaves it out
        let place = if class == SYSTEM { 0 } else { all.len() };
        all.insert(place, class.to_owned());
    }
    all
}

/// The classes by rank, and the routes that have them.
struct Classes<'a> {
    priorities: Vec<String>,
    routes: &'a [Route],
}

impl Classes<'_> {
    fn after(&self, class: &str) -> BTreeSet<String> {
        let place = self.priorities.iter().position(|known| known == class);
        let after = self.priorities.iter().skip(place.map_or(0, |place| place + 1));
        after.filter(|class| *class != SYSTEM).cloned().collect()
    }

    /// Each of these can be lost, or what names it is a mistake.
    fn checked(&self, key: &str, named: &[String], problems: &mut Problems) {
        for (index, class) in named.iter().enumerate() {
            self.check(&format!("{key}[{index}]"), class, problems);
        }
    }

    fn check(&self, key: &str, class: &str, problems: &mut Problems) {
        if class == SYSTEM {
            return problems.text(key, class, "is never dropped; leave it out");
        }
        let mut of_class = self.routes.iter().filter(|route| route.rank() == class).peekable();
        let Some(first) = of_class.peek() else {
            return problems.text(
                key,
                class,
                format!("no route has this class; {}", self.near(class)),
            );
        };
        let name = first.name.clone();
        if !of_class.any(Route::may_lose) {
            let text = format!(
                "nothing of this class may be lost: its routes (\"{name}\") take from Kafka and \
                 JetStream, which wait instead; leave it out, or say overload.may_drop = true on \
                 such a route"
            );
            problems.text(key, class, text);
        }
    }

    fn near(&self, class: &str) -> String {
        let known = self.routes.iter().map(Route::rank).filter(|known| *known != SYSTEM);
        match suggest::nearest(known.clone(), class) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => {
                let known: BTreeSet<&str> = known.collect();
                format!("there are {}", known.into_iter().collect::<Vec<_>>().join(", "))
            }
        }
    }
}

fn tiers(raw: &raw::Overload, classes: &Classes<'_>, problems: &mut Problems) -> Vec<Tier> {
    let mut tiers: Vec<Tier> = Vec::new();
    for (index, tier) in raw.tiers.iter().enumerate() {
        let key = format!("overload.tiers[{index}]");
        if let Some(before) = tiers.last().filter(|before| before.at_percent >= tier.at_percent) {
            let text = format!("must be above that of the tier before it ({})", before.at_percent);
            problems.push(&format!("{key}.at_percent"), tier.at_percent, text);
        }
        tiers.push(one(&key, tier, classes, problems));
    }
    tiers
}

fn one(key: &str, raw: &raw::Tier, classes: &Classes<'_>, problems: &mut Problems) -> Tier {
    let at = raw.at_percent;
    let until = raw.until_percent.unwrap_or((at / 2).max(at.saturating_sub(HYSTERESIS_PERCENT)));
    if until >= at || until == 0 {
        let text = format!("must be from 1 to below at_percent ({at}), or the tier would flap");
        problems.push(&format!("{key}.until_percent"), until, text);
    }
    if raw.sample.is_empty() && raw.drop.is_empty() && raw.drop_below.is_none() {
        let text = "does nothing; give it sample, drop or drop_below";
        problems.bare(key, text);
    }
    for class in raw.sample.keys() {
        classes.check(&format!("{key}.sample.{class}"), class, problems);
    }
    classes.checked(&format!("{key}.drop"), &raw.drop, problems);
    let mut drop: BTreeSet<String> = raw.drop.iter().cloned().collect();
    if let Some(class) = &raw.drop_below {
        if !classes.priorities.contains(class) {
            let text = format!("not among overload.priorities; {}", classes.near(class));
            problems.text(&format!("{key}.drop_below"), class, text);
        }
        drop.extend(classes.after(class));
    }
    for class in raw.sample.keys().filter(|class| drop.contains(*class)) {
        let text = "the same tier drops all of this class; leave one of them out";
        problems.bare(&format!("{key}.sample.{class}"), text);
    }
    Tier { at_percent: at, until_percent: until, sample: raw.sample.clone(), drop }
}

/// What waits in windows is held: it must leave room for the pause, and the tiers that make it wait,
/// to end.
fn windows_let_go(
    overload: &Overload,
    routes: &[Route],
    limits: &Backpressure,
    problems: &mut Problems,
) {
    let ends = limits.max_buffer_size / 100 * usize::from(overload.ends_at_percent());
    let room = ends.min(limits.resume_threshold) / 2;
    let keep = |route: &Route| match route.overload.strategy {
        Strategy::Sliding { keep } => keep,
        Strategy::DropNewest | Strategy::Sample { .. } => 0,
    };
    let kept: usize = routes.iter().map(keep).sum();
    if kept > room
        && let Some(index) = routes.iter().position(|route| keep(route) > 0)
    {
        let text = format!(
            "what waits counts as held, and the routes keep {kept} in all: at most {room}, half of \
             where the pause and the tiers that drop end, or they would never end"
        );
        problems.push(&format!("routes[{index}].overload.keep"), keep(&routes[index]), text);
    }
}

/// What a route says of itself.
pub(super) fn of_route(
    key: &str,
    raw: &raw_route::Route,
    action: &Action,
    problems: &mut Problems,
) -> RouteOverload {
    let said = &raw.overload;
    let pulls = !raw.kafka_topics.is_empty() || !raw.jetstream_subjects.is_empty();
    let rank = said.rank_as.as_deref().unwrap_or(&raw.class);
    let exact = raw.delivery == Some(raw_route::Delivery::ExactlyOnce);
    if let Some(text) = match () {
        () if !said.may_drop => None,
        () if exact => Some("a route with delivery = \"exactly_once\" loses nothing; leave it out"),
        () if !pulls => Some("only says something of kafka_topics and jetstream_subjects"),
        () if rank == SYSTEM => Some("nothing of class \"system\" is ever dropped; leave it out"),
        () => None,
    } {
        problems.push(&format!("{key}.overload.may_drop"), true, text);
    }
    let strategy = strategy(key, raw, action, problems);
    RouteOverload { rank_as: said.rank_as.clone(), may_drop: said.may_drop, strategy }
}

fn strategy(
    key: &str,
    raw: &raw_route::Route,
    action: &Action,
    problems: &mut Problems,
) -> Strategy {
    let said = &raw.overload;
    let key = |name: &str| format!("{key}.overload.{name}");
    if said.strategy.is_some() && raw.nats_subjects.is_empty() {
        let text = "is for core NATS, and the route has no nats_subjects: Kafka and JetStream wait \
                    while paused, and lose nothing; leave it out";
        problems.bare(&key("strategy"), text);
    }
    if let Some(keep) = said.keep.filter(|_| said.strategy != Some(raw::Strategy::Sliding)) {
        problems.push(&key("keep"), keep, "is for strategy = \"sliding\"");
    }
    if let Some(one_in) = said.one_in.filter(|_| said.strategy != Some(raw::Strategy::Sample)) {
        problems.push(&key("one_in"), one_in, "is for strategy = \"sample\"");
    }
    match said.strategy {
        None | Some(raw::Strategy::DropNewest) => Strategy::DropNewest,
        Some(raw::Strategy::Sliding) => {
            if matches!(action, Action::Count) {
                let text = "a route with action = \"count\" delivers nothing that could wait";
                problems.bare(&key("strategy"), text);
            }
            if said.keep.is_none() {
                let text = "is missing: how many of the latest wait, such as 1000";
                problems.bare(&key("keep"), text);
            }
            Strategy::Sliding { keep: said.keep.unwrap_or_default() }
        }
        Some(raw::Strategy::Sample) => {
            if said.one_in.is_none() {
                let text = "is missing: one in how many is admitted, such as 10";
                problems.bare(&key("one_in"), text);
            }
            Strategy::Sample { one_in: said.one_in.unwrap_or(2) }
        }
    }
}
