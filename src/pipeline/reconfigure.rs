//! Going over to another configuration, in one step between two others: nothing else happens
//! meanwhile, and it is applied whole or not at all.
//!
//! What was admitted before goes where it was to go: batches refer to their table by its index, and
//! nothing is removed (`layout.rs`). Routes that changed take the records that are admitted from
//! here on. Open batches of tables that no route fills any more are cut at once.

use std::sync::Arc;

use tokio::time::Instant;

use super::drain::Phase;
use super::layout::{Layout, is_too_much, numbers};
use super::{Pipeline, wall_clock};
use crate::backpressure::auto::Auto;
use crate::breaker;
use crate::config::{Backpressure, Config, Route};
use crate::ledger::Slot;
use crate::reload::{Notice, Order};
use crate::route::{RouteId, Router};
use crate::sink::Sink;
use crate::writer::CutReason;

impl<S: Sink> Pipeline<S> {
    pub(super) fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Refused(why) => self.config_status.refused(why, wall_clock()),
            Notice::Apply(order) => self.obey(order),
        }
    }

    fn obey(&mut self, order: Order) {
        let Order { config, hash, begun, answer } = order;
        if begun.send(()).is_err() {
            return; // it was given up, and said so
        }
        let done = self.reconfigure(config);
        if done.is_ok() {
            self.config_status.applied(hash, wall_clock());
        }
        if answer.send(done).is_err() {
            tracing::debug!("the bridge stops: nobody waits for what became of the change");
        }
    }

    fn reconfigure(&mut self, config: Arc<Config>) -> Result<(), String> {
        if !matches!(self.phase, Phase::Running) {
            return Err("the bridge stops".to_owned());
        }
        if let Some(why) = is_too_much(&config, &self.writers, &self.tables, &self.routes) {
            return Err(why);
        }
        let ids = numbers(&config, &self.routes);
        let routes: Vec<(RouteId, &Route)> = ids.iter().copied().zip(&config.routes).collect();
        let router = Router::numbered(routes.iter().copied());
        let mut router = router.map_err(|error| format!("{error:#}"))?;
        self.promises_stay(&mut router, &routes)?;
        // From here on nothing can fail.
        self.route_by(router);
        self.lay_out(&config);
        let config = self.keep_chosen(config);
        self.set_limits(&config);
        self.limits.change(&config, &ids, Instant::now());
        self.config = config;
        self.hold_to_rates();
        self.follow_policy();
        self.limits_changed();
        self.lay_controls();
        self.lay_tap();
        self.follow_exact();
        self.cut_retired();
        // Batches that wait out a long backoff need not wait longer than the new rules say.
        let latest = Instant::now() + self.config.retry.max_delay;
        self.waiting.iter_mut().for_each(|cut| cut.due = cut.due.min(latest));
        self.schemas.want(&self.tables);
        self.read_due_schemas();
        self.want_held();
        let takes = Arc::new(self.config.takes());
        self.sources.iter().for_each(|source| source.handle.want_takes(&takes));
        Ok(())
    }

    /// From here on. What comes of topics and subjects that no route takes any more goes where it
    /// went, until the sources have let go of them: it was taken before.
    fn route_by(&mut self, router: Router) {
        let mut before = std::mem::replace(&mut self.router, router);
        let assigned = self.sources.iter().flat_map(|source| source.assigned.keys());
        let topics = self.config.kafka_topics();
        let topics = topics.iter().map(String::as_str);
        let topics = topics.chain(assigned.map(|partition| partition.topic.as_str()));
        self.router.leave_over(topics, &mut before);
    }

    /// Whether each partition that is ours keeps what was promised of it, and can: exactly once
    /// begins with an assignment, and what was noted before a restart is taken up by the table that
    /// it was noted for.
    fn promises_stay(
        &self,
        router: &mut Router,
        routes: &[(RouteId, &Route)],
    ) -> Result<(), String> {
        for (partition, slot) in self.sources.iter().flat_map(|source| &source.assigned) {
            let Some(id) = router.route_of_topic(&partition.topic) else {
                continue; // it is let go
            };
            let route = routes.iter().find(|(number, _)| *number == id).map(|(_, route)| *route);
            let promised = self.exact.contains_key(slot);
            if promised != route.is_some_and(Route::is_exactly_once) {
                let key =
                    route.map_or("routes".to_owned(), |r| format!("routes.{}.delivery", r.name));
                let (topic, is) = (&partition.topic, if promised { "is" } else { "is not" });
                return Err(format!(
                    "{key}: {topic} {is} read exactly once now, and that cannot change while it is \
                     read: restart the bridge for it"
                ));
            }
            if self.exact.get(slot).is_some_and(super::exact::Exact::is_restoring) {
                let (topic, number) = (&partition.topic, partition.number);
                return Err(format!(
                    "what was noted of {topic}/{number} before it became ours is still being taken \
                     up: try again in a moment"
                ));
            }
        }
        Ok(())
    }

    fn lay_out(&mut self, config: &Config) {
        let mut layout = Layout {
            writers: std::mem::take(&mut self.writers),
            tables: std::mem::take(&mut self.tables),
            routes: std::mem::take(&mut self.routes),
        };
        layout.change(config, &self.router.left_over().collect::<Vec<_>>());
        Layout { writers: self.writers, tables: self.tables, routes: self.routes } = layout;
        self.tables.iter_mut().for_each(|table| table.apart = self.sink.is_apart(&table.name));
        let classes: Vec<&str> = config.routes.iter().map(|route| route.class.as_str()).collect();
        self.sources.iter_mut().for_each(|source| source.tally.know(&classes));
    }

    /// Limits that are chosen go on from where they are.
    fn keep_chosen(&mut self, mut config: Arc<Config>) -> Arc<Config> {
        let plan = config.backpressure.auto.clone();
        match (&mut self.auto, plan) {
            (Some(auto), Some(plan)) => {
                let limits = &mut Arc::make_mut(&mut config).backpressure;
                let [warn_after, critical_after, repeat_every] =
                    [limits.warn_after, limits.critical_after, limits.repeat_every];
                let now = self.config.backpressure.clone();
                *limits = Backpressure { warn_after, critical_after, repeat_every, ..now };
                auto.replan(plan, limits);
            }
            (auto, plan) => *auto = plan.map(Auto::new),
        }
        config
    }

    /// Who is let go first.
    fn follow_policy(&mut self) {
        let ids = numbers(&self.config, &self.routes);
        self.overload = std::mem::take(&mut self.overload).followed_by(&self.config, &ids);
        self.lay_windows();
    }

    fn set_limits(&mut self, config: &Config) {
        let window =
            breaker::window(&config.breaker, &config.retry, config.clickhouse.insert_timeout);
        self.breaker.set_limits(&config.breaker, window);
        if config.heartbeat.interval != self.config.heartbeat.interval {
            self.timers.beat_every(config.heartbeat.interval);
        }
    }

    /// The partitions of which exactly once is promised: what is open goes under the old mapping,
    /// what comes under the new.
    fn follow_exact(&mut self) {
        let slots: Vec<Slot> = self.exact.keys().copied().collect();
        for slot in slots {
            let topic = self.exact[&slot].intents.partition().topic.clone();
            let route = self.router.route_of_topic(&topic);
            let Some(table) = route.and_then(|route| self.routes[route.index()].table) else {
                continue;
            };
            self.fill_from_now_on(slot, table);
        }
    }

    /// Open batches that nothing comes to any more need not wait for their linger.
    fn cut_retired(&mut self) {
        for table in 0..self.tables.len() {
            if self.tables[table].retired {
                for batch in self.tables[table].buffer.cut_all() {
                    self.cut(table, batch, CutReason::Reload);
                }
            }
            if self.tables[table].is_gone() {
                self.tables[table].program = None;
            }
        }
    }
}
