//! Publishing: what is handed to the bridge itself takes the path of every other record, and whoever
//! handed it over hears what became of it; in memory, and on real servers.

mod real;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_bridge::config::Config;
use data_bridge::source::live::{Ack, Publisher, Refusal, Until};
use data_bridge::status::Snapshot;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout};

use crate::rig::sink::{Mode, POISON, TestSink, refusal};
use crate::rig::source::Manners;
use crate::rig::{NO_BREAKER, Rig, Sources, config_edited};

/// Candles and signals are published into; the one has a linger of 1 s, the other of 5 s.
const EDITS: [(&str, &str); 2] = [
    ("name = \"candles\"\n", "name = \"candles\"\npublish = true\n"),
    ("name = \"signals\"\n", "name = \"signals\"\npublish = true\n"),
];
const OPEN: &str = "[live.publish]\nwithout_token = true\n";
const DAY: Duration = Duration::from_secs(86_400);

fn config(more: &str) -> Arc<Config> {
    config_edited(Sources::Kafka, &EDITS, &format!("{more}{OPEN}"))
}

fn rig(more: &str) -> Rig {
    Rig::start(&config(more))
}

fn records(from: usize, count: usize) -> Vec<Bytes> {
    (from..from + count).map(|id| Bytes::from(format!("{{\"id\":\"p-{id}\"}}"))).collect()
}

fn poison() -> Bytes {
    Bytes::from(format!("{{\"id\":\"bad\",{POISON}}}"))
}

async fn publish(rig: &Rig, count: usize, until: Until) -> Result<Ack, Refusal> {
    published(&rig.publisher(), "candles", records(0, count), until).await
}

async fn published(
    to: &Publisher,
    topic: &str,
    records: Vec<Bytes>,
    until: Until,
) -> Result<Ack, Refusal> {
    timeout(DAY, to.publish(topic, records, until)).await.expect("a publisher is answered")
}

/// A publisher beside what the test does.
struct Publishing {
    task: AbortHandle,
    tasks: JoinSet<Result<Ack, Refusal>>,
}

impl Publishing {
    fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    async fn answer(mut self) -> Result<Ack, Refusal> {
        self.tasks.join_next().await.unwrap().unwrap()
    }
}

fn publishing(rig: &Rig, records: Vec<Bytes>, until: Until) -> Publishing {
    let (publisher, mut tasks) = (rig.publisher(), JoinSet::new());
    let task = tasks.spawn(async move { published(&publisher, "candles", records, until).await });
    Publishing { task, tasks }
}

/// Lets a rig take its first step: before it nothing is taken.
async fn begun(rig: &mut Rig) {
    rig.moment().await;
    assert!(rig.publisher().takes("candles"));
}

fn dropped(now: &Snapshot) -> u64 {
    now.sources["live"].dropped_total()
}

#[tokio::test(start_paused = true)]
async fn an_answer_says_durable_only_when_the_rows_are_in() {
    let mut rig = rig("");
    begun(&mut rig).await;
    rig.sink.all(Mode::Hold);
    let held = publish(&rig, 10, Until::Admitted).await.unwrap();
    assert!(!held.is_durable() && held.pending() == 10 && held.became.admitted == 10, "{held:?}");
    let waiting = publishing(&rig, records(10, 10), Until::Durable);
    rig.after(Duration::from_secs(10)).await;
    assert!(!waiting.is_finished(), "the sink holds them");
    rig.sink.all(Mode::Accept);
    let ack = waiting.answer().await.unwrap();
    assert!(ack.is_durable() && ack.became.inserted == 10, "{ack:?}");
    rig.drained().await;
    assert_eq!(rig.sink.rows("candles"), 20);
    rig.after(Duration::from_secs(2)).await;
    let now = rig.now();
    let live = &now.sources["live"];
    assert_eq!((live.received, live.inserted, live.uncommitted), (20, 20, 0));
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_durable_and_said_to_be_one() {
    let mut rig = rig("");
    begun(&mut rig).await;
    let mut all = records(0, 4);
    all.push(poison());
    all.push(Bytes::from_static(b"{not json"));
    let ack = published(&rig.publisher(), "candles", all, Until::Durable).await.unwrap();
    assert!(ack.is_durable(), "{ack:?}");
    assert_eq!((ack.became.inserted, ack.became.dead_lettered), (4, 2));
    assert_eq!(rig.drained().await.sources["live"].dead_lettered, 2);
}

#[tokio::test(start_paused = true)]
async fn the_letters_of_one_publisher_keep_no_other_waiting() {
    let mut rig = rig("");
    begun(&mut rig).await;
    rig.sink.table("dead_letters", Mode::Hold);
    let bad = publishing(&rig, vec![poison()], Until::Durable);
    let good = publish(&rig, 5, Until::Durable).await.unwrap();
    assert!(good.is_durable(), "{good:?}");
    let bad = bad.answer().await.unwrap();
    assert!(!bad.is_durable() && bad.pending() == 1 && !bad.ended, "{bad:?}");
    rig.sink.all(Mode::Accept);
    rig.sink.table("dead_letters", Mode::Accept);
    rig.drained().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_durable_in_time_is_said_to_be_pending_and_lands_later() {
    let mut rig = rig(NO_BREAKER);
    begun(&mut rig).await;
    rig.sink.all(crate::rig::sink::down());
    let began = Instant::now();
    let ack = publish(&rig, 10, Until::Durable).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 30, "durable_timeout");
    assert!(!ack.is_durable() && ack.pending() == 10 && !ack.ended, "{ack:?}");
    rig.sink.all(Mode::Accept);
    assert_eq!(rig.drained().await.sources["live"].inserted, 10);
}

/// 40,000 is where the bridge pauses: what comes then is refused and is nobody's.
#[tokio::test(start_paused = true)]
async fn beyond_the_threshold_publishers_are_refused_and_nothing_is_lost() {
    let mut rig = rig(NO_BREAKER);
    begun(&mut rig).await;
    rig.sink.all(crate::rig::sink::down());
    let mut taken = 0;
    let refused = loop {
        match publish(&rig, 10_000, Until::Admitted).await {
            Ok(ack) => {
                assert_eq!(ack.became.admitted, ack.taken);
                taken += ack.taken;
                assert_eq!(ack.retry_after.is_some(), ack.taken < ack.offered);
            }
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, Refusal::Busy { .. }), "{refused:?}");
    assert_eq!(taken, 40_000, "pull_limit");
    let now = rig.now();
    assert_eq!((now.backpressure.current_buffer, dropped(&now)), (40_000, 0));
    rig.sink.all(Mode::Accept);
    let now = rig.drained().await;
    let live = &now.sources["live"];
    assert_eq!((live.received, live.inserted), (40_000, 40_000), "a refusal was never received");
    assert!(publish(&rig, 1, Until::Durable).await.unwrap().is_durable());
}

/// The source that always wants more leaves its share to the one that asks now and then.
#[tokio::test(start_paused = true)]
async fn a_backlog_of_kafka_does_not_shut_publishers_out() {
    let mut rig = rig("");
    begun(&mut rig).await;
    let partition = rig.kafka().assign("candles", 0, 1).await;
    rig.sink.throttle(20_000);
    while rig.kafka().poll(&partition, 1_000).await > 0 {}
    assert_eq!(rig.credits.used(), 40_000);
    for _ in 0..5 {
        // As much as was settled is taken at once by Kafka, again and again.
        let publishing = publishing(&rig, records(0, 10), Until::Admitted);
        let began = Instant::now();
        while !publishing.is_finished() && began.elapsed() < DAY {
            rig.kafka().poll(&partition, 1_000).await;
            rig.after(Duration::from_millis(10)).await;
        }
        let ack = publishing.answer().await.unwrap();
        assert_eq!(ack.taken, 10, "{ack:?}");
    }
    rig.drained().await;
}

#[tokio::test(start_paused = true)]
async fn over_the_rate_the_first_are_taken_and_it_is_said_when_to_come_again() {
    let limit = "[live.publish.rate_limit]\nrecords_per_second = 10\nburst = 30\n";
    let mut rig = Rig::start(&config_edited(Sources::Kafka, &EDITS, &format!("{OPEN}{limit}")));
    begun(&mut rig).await;
    let ack = publish(&rig, 100, Until::Admitted).await.unwrap();
    // the burst, and what passes in the second that a request may wait
    assert!((38..=41).contains(&ack.taken), "{ack:?}");
    let retry_after = ack.retry_after.unwrap();
    assert!(retry_after >= Duration::from_secs(1), "{retry_after:?}");
    let now = rig.drained().await;
    assert_eq!(now.sources["live"].current_rate_limit, Some(10.0));
    assert_eq!((now.sources["live"].received, dropped(&now)), (ack.taken as u64, 0));
    assert!(!now.sources["live"].paused, "a rate is no pause");
}

#[tokio::test(start_paused = true)]
async fn a_broken_table_refuses_its_own_publishers_alone() {
    let mut rig = rig(NO_BREAKER);
    begun(&mut rig).await;
    let gone = refusal(60, "no such table");
    rig.sink.table("candles", Mode::Refuse(data_bridge::sink::InsertError::AwaitFix(gone)));
    let refused = loop {
        match publish(&rig, 5_000, Until::Admitted).await {
            Ok(_) => rig.moment().await,
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, Refusal::Busy { retry_after } if retry_after.as_secs() == 5));
    assert!(rig.now().backpressure.current_buffer < 30_000, "half of the threshold, and a margin");
    let publisher = rig.publisher();
    let other = published(&publisher, "signals", records(0, 10), Until::Durable).await.unwrap();
    assert!(other.is_durable(), "{other:?}");
    rig.sink.table("candles", Mode::Accept);
    let now = rig.drained().await;
    assert_eq!(dropped(&now), 0);
}

/// Only where a route says that its records may be lost: and then it is no secret.
#[tokio::test(start_paused = true)]
async fn what_a_tier_lets_go_is_told_and_never_called_durable() {
    let edits = [
        EDITS[0],
        (
            "[[routes]]\nname = \"external\"\n",
            "overload.may_drop = true\n[[routes]]\nname = \"external\"\n",
        ),
    ];
    let tiers = "[[overload.tiers]]\nat_percent = 50\ndrop = [\"market\"]\n";
    let more = format!("{NO_BREAKER}{tiers}{OPEN}");
    let mut rig = Rig::start(&config_edited(Sources::Kafka, &edits, &more));
    begun(&mut rig).await;
    rig.sink.all(crate::rig::sink::down());
    let mut last = publish(&rig, 10_000, Until::Admitted).await.unwrap();
    while last.became.dropped == 0 {
        last = publish(&rig, 10_000, Until::Admitted).await.unwrap();
    }
    assert_eq!(last.became.admitted + last.became.dropped, last.taken);
    rig.sink.all(Mode::Accept);
    let waiting = publishing(&rig, records(0, 10), Until::Durable);
    let ack = waiting.answer().await.unwrap();
    assert_eq!(ack.is_durable(), ack.became.dropped == 0, "{ack:?}");
    let now = rig.drained().await;
    assert!(dropped(&now) >= last.became.dropped as u64);
}

#[tokio::test(start_paused = true)]
async fn at_the_stop_nothing_more_is_taken_and_those_who_wait_are_answered() {
    let mut rig = rig(NO_BREAKER);
    begun(&mut rig).await;
    rig.sink.all(Mode::Hold);
    let waiting = publishing(&rig, records(0, 10), Until::Durable);
    rig.moment().await;
    rig.tell(data_bridge::pipeline::Stop::Drain);
    rig.moment().await;
    let late = publish(&rig, 1, Until::Admitted).await;
    assert!(matches!(late, Err(Refusal::NotRunning { .. })), "{late:?}");
    rig.sink.all(Mode::Accept);
    let ending = rig.ending().await;
    let ack = waiting.answer().await.unwrap();
    assert!(ack.is_durable() && !ack.ended, "{ack:?}");
    assert_eq!((ending.abandoned, ending.closed), (0, true));
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_at_the_stop_is_lost_and_its_publisher_is_told() {
    let mut rig = rig(&format!("{NO_BREAKER}[shutdown]\ngrace = '3s'\n"));
    begun(&mut rig).await;
    rig.sink.all(Mode::Hold);
    let waiting = publishing(&rig, records(0, 10), Until::Durable);
    rig.moment().await;
    let ending = rig.stop().await;
    assert_eq!(ending.abandoned, 10);
    let ack = waiting.answer().await.unwrap();
    assert!(ack.ended && !ack.is_durable() && ack.pending() == 10, "{ack:?}");
    let now = rig.accounts_close();
    assert_eq!((dropped(&now), now.sources["live"].released), (10, 0), "nothing brings them again");
}

#[tokio::test(start_paused = true)]
async fn routes_open_and_close_with_the_configuration() {
    let mut rig = rig("");
    begun(&mut rig).await;
    let only = |which: usize| config_edited(Sources::Kafka, &EDITS[which..=which], OPEN);
    rig.change_to(&only(0)).await.unwrap();
    rig.moment().await;
    let publisher = rig.publisher();
    let gone = published(&publisher, "signals", records(0, 1), Until::Admitted).await;
    assert_eq!(gone, Err(Refusal::NoSuchTopic));
    assert!(publish(&rig, 1, Until::Durable).await.unwrap().is_durable());
    rig.change_to(&only(1)).await.unwrap();
    rig.moment().await;
    assert_eq!(publish(&rig, 1, Until::Admitted).await, Err(Refusal::NoSuchTopic));
    let back = published(&publisher, "signals", records(0, 1), Until::Durable).await.unwrap();
    assert!(back.is_durable());
    rig.drained().await;
}

#[tokio::test(start_paused = true)]
async fn the_number_of_those_who_wait_is_bounded() {
    let edits = format!("{OPEN}max_waiting = 3\nmax_request_records = 5\n");
    let mut rig = Rig::start(&config_edited(Sources::Kafka, &EDITS, &edits));
    begun(&mut rig).await;
    rig.sink.all(Mode::Hold);
    let waiting: Vec<_> = (0..3).map(|n| publishing(&rig, records(n, 1), Until::Durable)).collect();
    rig.moment().await;
    let fourth = publish(&rig, 1, Until::Durable).await;
    assert!(matches!(fourth, Err(Refusal::Busy { .. })), "{fourth:?}");
    assert!(publish(&rig, 1, Until::Admitted).await.is_ok(), "who does not wait needs no place");
    assert_eq!(publish(&rig, 6, Until::Admitted).await, Err(Refusal::TooManyRecords { most: 5 }));
    rig.sink.all(Mode::Accept);
    for one in waiting {
        assert!(one.answer().await.unwrap().is_durable());
    }
    assert!(publish(&rig, 1, Until::Durable).await.unwrap().is_durable(), "places come back");
}

/// As `kill -9`: who was told `durable` has lost nothing.
#[tokio::test(start_paused = true)]
async fn a_crash_costs_only_what_was_not_called_durable() {
    let sink = Arc::new(TestSink::new());
    let manners = Manners { drains: true, closes: true };
    let mut rig = Rig::start_before(&config(""), manners, Arc::clone(&sink));
    begun(&mut rig).await;
    assert!(publish(&rig, 100, Until::Durable).await.unwrap().is_durable());
    let publisher = rig.publisher();
    let held = published(&publisher, "candles", records(100, 50), Until::Admitted).await.unwrap();
    let waiting = publishing(&rig, records(200, 50), Until::Durable);
    tokio::task::yield_now().await;
    rig.kill().await;
    let waiting = waiting.answer().await;
    assert!(waiting.is_err() || waiting.is_ok_and(|ack| !ack.is_durable()));
    assert!(!held.is_durable());
    assert_eq!(sink.rows("candles"), 100);
}

#[tokio::test(start_paused = true)]
async fn a_pattern_of_kafka_takes_nothing_that_is_published() {
    let wide = ("kafka_topics = [\"external\"]\n", "kafka_topics = [\"^live.*\"]\n");
    let mut rig = Rig::start(&config_edited(Sources::Kafka, &[EDITS[1], wide], OPEN));
    rig.moment().await;
    let publisher = rig.publisher();
    let ack = published(&publisher, "signals", records(0, 3), Until::Durable).await.unwrap();
    assert!(ack.is_durable(), "{ack:?}");
    assert_eq!((rig.sink.rows("signals"), rig.sink.rows("external")), (3, 0));
    rig.drained().await;
}
