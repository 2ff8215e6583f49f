//! Which of several servers a request goes to.
//!
//! Pure; owns what is known of each endpoint. A healthy one is used, by turns; one that failed is
//! left alone for [`COOL_DOWN`], and then asked whether it works before anything is sent to it.
//!
//! **An insert whose outcome is unknown goes to the same endpoint** until that one has acknowledged
//! it: only the server that may have the rows knows their token. Where the configuration says that
//! the endpoints are replicas, which share what they know of tokens, it may go to any of them.
//!
//! **A token outlives a server that was killed, and its rows may not.** Measured on ClickHouse 26.7:
//! a table that is not replicated writes the token down 0.2 ms before it gives the part its name.
//! Killed between the two, it takes the repeated insert for known, and the rows are nowhere. So once
//! a server has started again, an insert of unknown outcome goes to it under another token.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::status::EndpointStatus;

/// How long an endpoint that failed is left alone: long against a blip, short against a person's
/// patience once it is back.
const COOL_DOWN: Duration = Duration::from_secs(10);

/// An insert that nobody has asked about for so long was given up by the pipeline. Far above the
/// longest time between two attempts.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// Below so many inserts of unknown outcome nobody looks for forgotten ones.
const LOOK_FOR_FORGOTTEN: usize = 1_000;

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    Use(usize),
    /// It failed before, and may work again: ask it first, and choose again.
    AskFirst(usize),
}

/// What a result changed; worth a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Left,
    Back,
    None,
}

#[derive(Debug)]
pub(super) struct Endpoints {
    known: Vec<Known>,
    replicas: bool,
    /// Whose turn it is.
    next: usize,
    /// By the token of an insert of unknown outcome.
    unknown: HashMap<String, Unknown>,
}

/// An insert of unknown outcome.
#[derive(Debug, Clone, Copy)]
struct Unknown {
    endpoint: usize,
    /// When the first attempt of unknown outcome in this life of the server began.
    since: Instant,
    /// Starts of the server since the very first.
    lives: u32,
}

#[derive(Debug)]
struct Known {
    url: String,
    failed: Option<Failed>,
}

#[derive(Debug)]
struct Failed {
    why: String,
    /// Left alone until then.
    until: Instant,
}

impl Endpoints {
    pub(super) fn new(urls: &[String], replicas: bool) -> Self {
        let known = urls.iter().map(|url| Known { url: url.clone(), failed: None });
        Self { known: known.collect(), replicas, next: 0, unknown: HashMap::new() }
    }

    /// For a question, or for an insert of this token.
    pub(super) fn choose(&mut self, token: Option<&str>, now: Instant) -> Choice {
        if let Some(unknown) = token.and_then(|token| self.unknown.get(token)) {
            return Choice::Use(unknown.endpoint);
        }
        if self.any_works()
            && let Some(endpoint) = self.due(now)
        {
            return Choice::AskFirst(endpoint);
        }
        // Where none works, the one that has been left alone for longest: somebody must be asked.
        let turn = |endpoint: usize| (endpoint + self.known.len() - self.next) % self.known.len();
        let endpoint = (0..self.known.len())
            .min_by_key(|&endpoint| {
                let failed = self.known[endpoint].failed.as_ref();
                (failed.map(|failed| failed.until), turn(endpoint))
            })
            .expect("the configuration names at least one");
        self.next = (endpoint + 1) % self.known.len();
        Choice::Use(endpoint)
    }

    /// One that failed and has been left alone for long enough: to be asked, once.
    pub(super) fn due(&mut self, now: Instant) -> Option<usize> {
        let is_due = |known: &Known| known.failed.as_ref().is_some_and(|f| f.until <= now);
        let endpoint = self.known.iter().position(is_due)?;
        self.known[endpoint].failed.as_mut()?.until = now + COOL_DOWN;
        Some(endpoint)
    }

    pub(super) fn works(&mut self, endpoint: usize) -> Change {
        match self.known[endpoint].failed.take() {
            Some(_) => Change::Back,
            None => Change::None,
        }
    }

    pub(super) fn failed(&mut self, endpoint: usize, why: &str, now: Instant) -> Change {
        let failed = Failed { why: why.to_owned(), until: now + COOL_DOWN };
        match self.known[endpoint].failed.replace(failed) {
            Some(_) => Change::None,
            None => Change::Left,
        }
    }

    /// Whether the rows of this token are at this endpoint cannot be told: an attempt that began then
    /// had no clear end.
    pub(super) fn unclear(&mut self, token: &str, endpoint: usize, began: Instant) {
        if self.replicas {
            return;
        }
        if self.unknown.len() >= LOOK_FOR_FORGOTTEN {
            self.unknown.retain(|_, unknown| {
                began.saturating_duration_since(unknown.since) < FORGOTTEN_AFTER
            });
        }
        let first = Unknown { endpoint, since: began, lives: 0 };
        self.unknown.entry(token.to_owned()).or_insert(first);
    }

    /// Since when the outcome of an insert is unknown, if it is.
    pub(super) fn unclear_since(&self, token: &str) -> Option<Instant> {
        self.unknown.get(token).map(|unknown| unknown.since)
    }

    /// What to send an insert under, whose server has been up for so long: its token, or another one
    /// for each start of the server since an attempt of unknown outcome.
    pub(super) fn token(&mut self, token: &str, up: Duration, now: Instant) -> String {
        let Some(unknown) = self.unknown.get_mut(token) else { return token.to_owned() };
        if up < now.saturating_duration_since(unknown.since) {
            (unknown.since, unknown.lives) = (now, unknown.lives + 1);
        }
        match unknown.lives {
            0 => token.to_owned(),
            lives => format!("{token}~{lives}"),
        }
    }

    /// The rows of this token are there.
    pub(super) fn settled(&mut self, token: &str) {
        self.unknown.remove(token);
    }

    /// Whether any of them is believed to work.
    pub(super) fn any_works(&self) -> bool {
        self.known.iter().any(|known| known.failed.is_none())
    }

    pub(super) fn statuses(&self) -> Vec<EndpointStatus> {
        let waiting = |endpoint| self.unknown.values().filter(|u| u.endpoint == endpoint).count();
        let status = |(endpoint, known): (usize, &Known)| EndpointStatus {
            url: known.url.clone(),
            healthy: known.failed.is_none(),
            reason: known.failed.as_ref().map(|failed| failed.why.clone()),
            unclear_inserts: waiting(endpoint),
        };
        self.known.iter().enumerate().map(status).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(count: usize, replicas: bool) -> Endpoints {
        let urls: Vec<String> = (0..count).map(|n| format!("http://{n}")).collect();
        Endpoints::new(&urls, replicas)
    }

    fn used(endpoints: &mut Endpoints, token: &str, now: Instant) -> usize {
        match endpoints.choose(Some(token), now) {
            Choice::Use(endpoint) => endpoint,
            Choice::AskFirst(endpoint) => panic!("{endpoint} is to be asked first"),
        }
    }

    #[test]
    fn healthy_ones_take_turns_and_a_failed_one_is_left_alone() {
        let now = Instant::now();
        let mut endpoints = endpoints(3, true);
        let turns: Vec<usize> = (0..6).map(|_| used(&mut endpoints, "t", now)).collect();
        assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
        assert_eq!(endpoints.failed(1, "refused", now), Change::Left);
        assert_eq!(endpoints.failed(1, "refused", now), Change::None, "one line a change");
        let turns: Vec<usize> = (0..4).map(|_| used(&mut endpoints, "t", now)).collect();
        assert_eq!(turns, [0, 2, 0, 2]);
    }

    #[test]
    fn after_its_cool_down_it_is_asked_once_and_used_when_it_answers() {
        let began = Instant::now();
        let mut endpoints = endpoints(2, true);
        endpoints.failed(0, "refused", began);
        let now = began + COOL_DOWN;
        assert_eq!(endpoints.choose(None, now), Choice::AskFirst(0));
        assert_eq!(used(&mut endpoints, "t", now), 1, "others do not wait for the answer");
        assert_eq!(endpoints.failed(0, "refused", now), Change::None);
        assert_eq!(endpoints.choose(None, now + COOL_DOWN), Choice::AskFirst(0));
        assert_eq!(endpoints.works(0), Change::Back);
        assert_eq!(endpoints.works(0), Change::None);
        assert_eq!(used(&mut endpoints, "t", now), 0);
    }

    #[test]
    fn where_none_works_the_one_left_alone_for_longest_is_used() {
        let now = Instant::now();
        let mut endpoints = endpoints(2, true);
        endpoints.failed(1, "refused", now);
        endpoints.failed(0, "refused", now + Duration::from_secs(1));
        assert!(!endpoints.any_works());
        assert_eq!(used(&mut endpoints, "t", now + Duration::from_secs(2)), 1);
    }

    #[test]
    fn what_may_be_at_an_independent_server_is_asked_of_no_other() {
        let now = Instant::now();
        let mut endpoints = endpoints(2, false);
        let first = used(&mut endpoints, "t", now);
        endpoints.unclear("t", first, now);
        endpoints.failed(first, "no answer", now);
        for _ in 0..4 {
            assert_eq!(used(&mut endpoints, "t", now), first);
            assert_ne!(used(&mut endpoints, "another", now), first);
        }
        assert_eq!(endpoints.statuses()[first].unclear_inserts, 1);
        endpoints.settled("t");
        assert_ne!(used(&mut endpoints, "t", now), first);
    }

    #[test]
    fn what_may_be_at_a_replica_may_be_asked_of_another() {
        let now = Instant::now();
        let mut endpoints = endpoints(2, true);
        let first = used(&mut endpoints, "t", now);
        endpoints.unclear("t", first, now);
        endpoints.failed(first, "no answer", now);
        assert_ne!(used(&mut endpoints, "t", now), first);
    }

    #[test]
    fn a_server_that_was_started_since_gets_another_token_and_the_same_until_the_next_start() {
        let second = Duration::from_secs(1);
        let now = Instant::now();
        let mut endpoints = endpoints(1, false);
        assert_eq!(endpoints.token("t", second, now), "t", "nothing is unknown");
        endpoints.unclear("t", 0, now);
        assert_eq!(endpoints.token("t", 60 * second, now + 9 * second), "t");
        endpoints.unclear("t", 0, now + 9 * second);
        assert_eq!(endpoints.token("t", 2 * second, now + 10 * second), "t~1");
        endpoints.unclear("t", 0, now + 10 * second);
        assert_eq!(endpoints.token("t", 4 * second, now + 12 * second), "t~1", "the same life");
        assert_eq!(endpoints.token("t", second, now + 14 * second), "t~2");
        endpoints.settled("t");
        assert_eq!(endpoints.token("t", second, now + 20 * second), "t");
    }

    #[test]
    fn what_nobody_asks_about_any_more_is_forgotten() {
        let now = Instant::now();
        let mut endpoints = endpoints(2, false);
        for insert in 0..LOOK_FOR_FORGOTTEN {
            endpoints.unclear(&insert.to_string(), 0, now);
        }
        endpoints.unclear("new", 1, now + FORGOTTEN_AFTER);
        assert_eq!(endpoints.unknown.len(), 1);
    }
}
