//! Rates as limits, as far as the owner keeps them: of core NATS, and of routes.
//!
//! Pure. What is pulled loses nothing: a route that took more than its rate allows owes the rest,
//! and its partitions wait until that is paid. What is pushed can't wait: beyond the rate it is
//! dropped, counted. A source that is pulled has its own limit at its credits (`credits/gate.rs`).

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{Config, RateLimit};
use crate::rate::TokenBucket;
use crate::route::RouteId;

/// A route that waited goes on when this much of a second's records may pass at once (or its
/// burst): Kafka throws away what it had fetched of a partition whenever it is told to wait.
const GO_ON_WITH: Duration = Duration::from_millis(500);

/// The limits that are configured.
#[derive(Debug, Default)]
pub(super) struct Limits {
    pushed: Option<TokenBucket>,
    /// By the number of the route.
    routes: BTreeMap<usize, RouteLimit>,
}

#[derive(Debug)]
struct RouteLimit {
    bucket: TokenBucket,
    /// Records that came although the bucket was empty: they were on their way already.
    owed: u64,
    /// Its partitions wait, until this moment.
    held: Option<Instant>,
}

impl Limits {
    pub(super) fn new(config: &Config, ids: &[RouteId], now: Instant) -> Self {
        let mut new = Self::default();
        new.change(config, ids, now);
        new
    }

    /// Goes over to this configuration; what was saved or is owed stays.
    pub(super) fn change(&mut self, config: &Config, ids: &[RouteId], now: Instant) {
        let pushed = config.nats.as_ref().and_then(|nats| nats.rate_limit);
        self.pushed = pushed.map(|limit| retuned(self.pushed.take(), limit, now));
        let mut before = std::mem::take(&mut self.routes);
        for (route, id) in config.routes.iter().zip(ids) {
            let Some(limit) = route.rate_limit else { continue };
            let (bucket, owed, held) = match before.remove(&id.index()) {
                Some(known) => (Some(known.bucket), known.owed, known.held),
                None => (None, 0, None),
            };
            let bucket = retuned(bucket, limit, now);
            self.routes.insert(id.index(), RouteLimit { bucket, owed, held });
        }
    }

    /// Whether a pushed record of this route may pass.
    pub(super) fn lets_pass(&mut self, route: RouteId, now: Instant) -> bool {
        let of_route = self.routes.get_mut(&route.index()).map(|limit| &mut limit.bucket);
        let mut buckets = [of_route, self.pushed.as_mut()];
        let pass = buckets.iter_mut().flatten().all(|bucket| bucket.available(now) > 0);
        if pass {
            for bucket in buckets.iter_mut().flatten() {
                let taken = bucket.take(1, now);
                debug_assert!(taken, "there was one just now");
            }
        }
        pass
    }

    /// A pulled record of this route came.
    pub(super) fn came(&mut self, route: RouteId) {
        if let Some(limit) = self.routes.get_mut(&route.index()) {
            limit.owed += 1;
        }
    }

    /// Pays what is owed as far as it goes; says whether a route has to wait that did not, or may
    /// go on.
    pub(super) fn look(&mut self, now: Instant) -> bool {
        let mut news = false;
        for limit in self.routes.values_mut() {
            let before = limit.held.is_some();
            limit.look(now);
            news |= before != limit.held.is_some();
        }
        news
    }

    /// Its partitions wait.
    pub(super) fn is_held(&self, route: RouteId) -> bool {
        self.routes.get(&route.index()).is_some_and(|limit| limit.held.is_some())
    }

    /// When to look again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.routes.values().filter_map(|limit| limit.held).min()
    }

    /// Records per second of core NATS as a whole.
    pub(super) fn of_pushed(&self) -> Option<f64> {
        self.pushed.as_ref().map(TokenBucket::rate)
    }

    /// Records per second of a route.
    pub(super) fn of_route(&self, route: RouteId) -> Option<f64> {
        self.routes.get(&route.index()).map(|limit| limit.bucket.rate())
    }
}

impl RouteLimit {
    fn look(&mut self, now: Instant) {
        self.owed -= self.bucket.take_up_to(self.owed, now);
        let available = self.bucket.available(now);
        let rate = self.bucket.rate();
        let enough = self.bucket.passes_in(GO_ON_WITH);
        if self.owed == 0 && (self.held.is_none() || available >= enough) {
            self.held = None;
            return;
        }
        let missing = self.owed + enough.saturating_sub(available);
        let until = Duration::try_from_secs_f64(crate::status::float(missing) / rate);
        // A hair later, so that what is waited for is there by then; at most a minute, so that a
        // change of the clock or of the limit is not slept through.
        let until = until.unwrap_or(Duration::MAX).min(Duration::from_secs(60));
        self.held = Some(now + until + Duration::from_millis(1));
    }
}

fn retuned(bucket: Option<TokenBucket>, limit: RateLimit, now: Instant) -> TokenBucket {
    match bucket {
        Some(mut bucket) => {
            bucket.retune(limit.per_second(), limit.burst, now);
            bucket
        }
        None => TokenBucket::new(limit.per_second(), limit.burst, now),
    }
}
