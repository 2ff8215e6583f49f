//! What to let go when something must give, as it is written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What to let go, and in which order, when something must give.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Overload {
    /// Classes, the most important first; one that is not listed comes last.
    pub(super) priorities: Vec<String>,
    /// Of these classes core NATS loses everything while it is paused; the others are admitted up to
    /// the cap, as far as the tiers let them. Default: every class but `system`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) drop_while_paused: Option<Vec<String>>,
    /// What happens to whom above which fill, in ascending order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tiers: Vec<Tier>,
}

impl Default for Overload {
    fn default() -> Self {
        let priorities = ["system", "signal", "external", "market"].map(str::to_owned).to_vec();
        Self { priorities, drop_while_paused: None, tiers: Vec::new() }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Tier {
    /// In force above this share of max_buffer_size, or of max_buffer_bytes.
    #[schemars(range(min = 1, max = 99))]
    pub(super) at_percent: u8,
    /// Until both are below this share. Default: 10 less, or half of `at_percent` if that is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 98))]
    pub(super) until_percent: Option<u8>,
    /// By class: one in so many is kept, of each topic or subject.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("additionalProperties" = one_in()))]
    pub(super) sample: BTreeMap<String, u32>,
    /// Classes of which nothing is kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) drop: Vec<String>,
    /// Of every class that comes after this one nothing is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) drop_below: Option<String>,
}

fn one_in() -> serde_json::Value {
    serde_json::json!({ "type": "integer", "minimum": 2, "maximum": 1_000_000 })
}

/// What a route says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RouteOverload {
    /// It counts as this class when something must give. Default: its `class`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rank_as: Option<String>,
    /// The tiers apply to its records from Kafka and JetStream too: they are acknowledged and lost.
    /// Without it nothing of theirs ever is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) may_drop: bool,
    /// What becomes of core NATS records that the pause or a tier would drop. Default:
    /// `drop_newest`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) strategy: Option<Strategy>,
    /// With `sliding`: the latest so many wait, and are delivered when the route goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) keep: Option<usize>,
    /// With `sample`: one in so many of each subject is admitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 1_000_000))]
    pub(super) one_in: Option<u32>,
}

impl RouteOverload {
    pub(super) fn says_nothing(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Strategy {
    /// They are lost.
    DropNewest,
    /// The latest are kept, in memory, until there is room.
    Sliding,
    /// A fraction is admitted.
    Sample,
}
