//! The verdict on a trial: what is in every place against what was sent, and what was promised.

use super::load::{self, Sent};
use super::oracle::{Verdict, Which};
use super::place::{Delivery, Place, Source};
use super::run::{Running, Trial};
use super::schedule::{Fault, Server};

impl Running {
    pub(super) async fn judge(&mut self, trial: &Trial, sent: &Sent) {
        for (source, sent) in sent {
            match source {
                Source::Kafka => self.kafka_is_as_sent_and_committed(sent).await,
                Source::JetStream => self.the_stream_is_as_sent(sent).await,
                Source::Nats => {}
            }
            let [rows, copy] = Place::tables(*source);
            let letters = format!("dead letters of {source}");
            let lost_by_views = self.lost_by_views(trial, &rows);
            let places = [
                (rows, Which::Good, 0),
                (copy, Which::Good, lost_by_views),
                (letters, Which::Bad, 0),
            ];
            for (name, which, by_views) in places {
                let found = self.place.found(*source, which, &name).await;
                let verdict = Verdict::of(&name, which, sent, &found);
                self.outcome.say(&verdict.to_string());
                self.hold(trial, *source, &verdict, by_views);
            }
        }
        if let Some(proxy) = &self.place.proxy {
            let counts = proxy.counts();
            let line = format!("on the wire: {} inserts, {:?}", counts.inserts, counts.injected);
            self.outcome.say(&line);
            self.outcome.injected = counts.injected;
        }
        let (kills, under_work) = (self.outcome.kills, self.outcome.kills_under_work);
        let line = format!("{kills} kills of a bridge, {under_work} of them after new rows");
        self.outcome.say(&line);
        let spent = self.place.lab.count_in_logs("takes a batch for known of which it has no row");
        self.outcome.say(&format!("{spent} batches of which ClickHouse knew only the token"));
        if !self.outcome.violations.is_empty() || self.outcome.views_lost {
            let kept = self.place.lab.keep_files();
            self.outcome.say(&format!("logs and configurations: {}", kept.display()));
        }
    }

    /// What may be missing behind a view because ClickHouse itself lost it: killed in the moment
    /// between writing down a token and naming its part, it takes the block for known (`spent.rs`). Of
    /// the table that it inserts into the bridge can tell, and sends it again; of one behind a view it
    /// can only say so. As many batches as it named, of at most two seconds' records.
    fn lost_by_views(&self, trial: &Trial, rows: &str) -> u64 {
        let named = self.place.lab.count_in_logs(&format!("behind a view of {rows}, has none"));
        u64::try_from(named).unwrap() * 2 * trial.rate
    }

    fn hold(&mut self, trial: &Trial, source: Source, verdict: &Verdict, by_views: u64) {
        let total = verdict.total();
        if (1..=by_views).contains(&total.missing) {
            self.outcome.say(&format!("{}: ClickHouse lost a block of its view", verdict.place));
            self.outcome.say(&verdict.troubles());
            self.outcome.views_lost = true;
        }
        self.outcome.repeated += total.duplicate;
        let broken = [
            ("missing", total.missing, source.is_lossless() && total.missing > by_views),
            ("unexpected", total.unexpected, true),
            ("stored again", total.duplicate, !trial.may_repeat(source)),
        ];
        for (what, count, is_forbidden) in broken {
            if count > 0 && is_forbidden {
                let (place, troubles) = (&verdict.place, verdict.troubles());
                self.outcome.violation(format!("{place}: {count} {what}\n{troubles}"));
            }
        }
    }

    async fn the_stream_is_as_sent(&mut self, sent: &[u64]) {
        let (held, owed) = load::held_by_jetstream(&self.place).await;
        let expected: u64 = sent.iter().sum();
        if held != expected {
            let what = format!("the test's own fault: sent {expected}, the stream holds {held}");
            self.outcome.violation(what);
        }
        if owed > 0 {
            self.outcome.violation(format!("the stream's consumer still owes {owed} records"));
        }
    }

    /// The producers' own account, and that nothing is left to commit after the stop.
    async fn kafka_is_as_sent_and_committed(&mut self, sent: &[u64]) {
        let held = load::held_by_kafka(&self.place).await;
        let expected: Vec<i64> = (0..).map(|to| load::sent_to(sent, to)).take(held.len()).collect();
        if held != expected {
            let what = format!("the test's own fault: sent {expected:?}, Kafka holds {held:?}");
            self.outcome.violation(what);
        }
        let committed = self.place.lab.committed(&self.place.address(Source::Kafka)).await;
        let committed: Vec<i64> = committed.into_iter().map(Option::unwrap_or_default).collect();
        if committed != held {
            let what = format!("committed {committed:?}, Kafka holds {held:?}");
            self.outcome.violation(what);
        }
    }
}

impl Trial {
    /// Whether a record may be stored twice: after a crash, or when its partition moved, what was
    /// not committed comes again; and a ClickHouse that was killed may remember a token whose rows it
    /// lost, so that it gets another. Nothing else may repeat it, not even an unknown outcome.
    fn may_repeat(&self, source: Source) -> bool {
        let comes_again = |fault: &Fault| match fault {
            Fault::Bridge | Fault::Everything | Fault::Servers | Fault::Members => true,
            Fault::Stop => self.plan.bridges > 1 || self.plan.faults.len() > 1,
            Fault::Server(server) => *server != Server::Nats,
            Fault::Wire | Fault::Cut => false,
        };
        source.is_lossless()
            && source.can_at_best(self.delivery) == Delivery::AtLeastOnce
            && self.plan.faults.iter().any(comes_again)
    }
}
