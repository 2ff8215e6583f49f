//! Changing the configuration while the bridge runs: in memory, with the sources and the sink in the
//! hands of the test; and (`real`) the program on real servers, under load.

mod policy;
mod real;
mod streams;
mod subjects;
mod topics;

use std::time::Duration;

use data_bridge::pipeline::Stop;
use data_bridge::status::RouteState;

use crate::rig::sink::{Mode, down};
use crate::rig::{NO_BREAKER, Rig, Sources, config, config_edited};

fn limits(pause: usize, resume: usize) -> String {
    format!(
        "{NO_BREAKER}[backpressure]\nmax_buffer_size = 5_000\npause_threshold = {pause}\n\
         resume_threshold = {resume}\n[writers.aggregate]\nbatch_rows = 500\n\
         [writers.external]\nbatch_rows = 500\n"
    )
}

#[tokio::test(start_paused = true)]
async fn thresholds_that_change_pause_and_resume_at_once() {
    let mut rig = Rig::nats_alone(&limits(2_000, 1_000));
    rig.sink.all(down());
    rig.nats().push("market.a", 1_500).await;
    rig.moment().await;
    assert!(!rig.now().backpressure.active);
    rig.change_to(&config(Sources::Nats, &limits(1_200, 600))).await.unwrap();
    rig.moment().await;
    let now = rig.now();
    assert!(now.backpressure.active, "1,500 are held, and 1,200 is where it pauses now");
    assert_eq!(now.backpressure.pause_threshold, 1_200);
    assert_eq!((now.config.reloads, now.config.hash.as_str()), (1, "other"));
    rig.change_to(&config(Sources::Nats, &limits(4_000, 2_000))).await.unwrap();
    rig.moment().await;
    assert!(!rig.now().backpressure.active, "1,500 are held, and below 2,000 it goes on now");
    rig.sink.all(Mode::Accept);
    rig.drained().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_out_a_long_backoff_waits_no_longer_than_is_said_now() {
    let backoff =
        |delay| format!("{NO_BREAKER}[retry]\nbase_delay = \"{delay}\"\nmax_delay = \"{delay}\"\n");
    let mut rig = Rig::nats_alone(&backoff("1h"));
    rig.sink.all(down());
    // With full jitter any one of them may come soon.
    for _ in 0..10 {
        rig.nats().push("market.a", 10).await;
        rig.after(Duration::from_secs(2)).await;
    }
    rig.sink.all(Mode::Accept);
    rig.change_to(&config(Sources::Nats, &backoff("1s"))).await.unwrap();
    rig.after(Duration::from_secs(5)).await;
    assert_eq!(rig.sink.rows("candles"), 100);
    rig.drained().await;
}

#[tokio::test(start_paused = true)]
async fn a_cap_that_is_lowered_admits_nothing_until_there_is_room() {
    let mut rig = Rig::nats_alone(&limits(2_000, 1_000));
    rig.sink.all(down());
    rig.nats().push("market.a", 1_500).await;
    rig.moment().await;
    let small = "[backpressure]\nmax_buffer_size = 1_000\npause_threshold = 900\n\
                 resume_threshold = 500\n[writers.aggregate]\nbatch_rows = 500\n\
                 [writers.external]\nbatch_rows = 500\n";
    rig.change_to(&config(Sources::Nats, small)).await.unwrap();
    rig.nats().push("market.a", 100).await;
    rig.moment().await;
    let now = rig.accounts_close();
    assert_eq!(now.backpressure.current_buffer, 1_500, "nothing of what is held is thrown away");
    assert_eq!(now.dropped(), 100);
    rig.sink.all(Mode::Accept);
    rig.drained().await;
    rig.nats().push("market.a", 100).await;
    assert_eq!(rig.drained().await.inserted(), 1_600);
}

#[tokio::test(start_paused = true)]
async fn what_came_before_goes_where_it_was_to_go_and_what_comes_after_elsewhere() {
    let mut rig = Rig::both("");
    let partition = rig.kafka().assign("candles", 0, 1).await;
    rig.kafka().poll(&partition, 10).await;
    rig.moment().await;
    let edits =
        [("table = \"candles\"", "table = \"bars\""), ("class = \"market\"", "class = \"bars\"")];
    rig.change_to(&config_edited(Sources::Both, &edits, "")).await.unwrap();
    // The open batch of the table that nobody fills any more does not wait for its linger.
    rig.moment().await;
    assert_eq!(rig.sink.rows("candles"), 10);
    rig.kafka().poll(&partition, 7).await;
    rig.nats().push("market.a", 5).await;
    let now = rig.drained().await;
    assert_eq!((rig.sink.rows("candles"), rig.sink.rows("bars")), (10, 12));
    let candles = &now.routes["candles"];
    assert_eq!((candles.received, candles.inserted), (22, 22), "the route has kept its name");
    assert!(now.sources["nats"].dropped.contains_key("bars"), "the new class can be seen at 0");
    rig.after(Duration::from_secs(2)).await;
    assert_eq!(rig.kafka().wanted_commit(&partition), Some(17));
}

#[tokio::test(start_paused = true)]
async fn routes_come_go_and_come_back() {
    let mut rig = Rig::nats_alone("");
    rig.sink.table("external", down());
    rig.nats().push("external.a", 10).await;
    rig.moment().await;
    let renamed = [
        ("name = \"external\"", "name = \"others\""),
        ("table = \"external\"", "table = \"others\""),
    ];
    rig.change_to(&config_edited(Sources::Nats, &renamed, "")).await.unwrap();
    rig.nats().push("external.a", 5).await;
    rig.after(Duration::from_secs(10)).await;
    let now = rig.accounts_close();
    assert_eq!(now.routes["external"].state, RouteState::Removed);
    assert_eq!((now.routes["external"].held, now.routes["others"].inserted), (10, 5));
    rig.sink.table("external", Mode::Accept);
    let now = rig.drained().await;
    assert_eq!(now.routes["external"].inserted, 10, "what it held was not forgotten");
    rig.change_to(&config(Sources::Nats, "")).await.unwrap();
    rig.nats().push("external.a", 3).await;
    let now = rig.drained().await;
    assert_eq!((now.routes["external"].inserted, rig.sink.rows("external")), (13, 13));
    assert_eq!(now.routes["others"].state, RouteState::Removed);
}

/// The source lets go of it a moment later than the routes do.
#[tokio::test(start_paused = true)]
async fn what_still_comes_of_a_topic_or_subject_that_is_given_up_goes_where_it_went() {
    let mut rig = Rig::both("");
    let partition = rig.kafka().assign("candles", 0, 1).await;
    let edits = [
        ("kafka_topics = [\"candles\"]", "kafka_topics = [\"others\"]"),
        ("nats_subjects = [\"market.>\"]", "nats_subjects = [\"others.>\"]"),
    ];
    rig.change_to(&config_edited(Sources::Both, &edits, "")).await.unwrap();
    rig.kafka().poll(&partition, 7).await;
    rig.nats().push("market.a", 5).await;
    let now = rig.drained().await;
    let filtered: u64 = now.sources.values().map(|source| source.filtered).sum();
    assert_eq!((rig.sink.rows("candles"), filtered), (12, 0));
}

#[tokio::test(start_paused = true)]
async fn a_table_that_nobody_fills_any_more_is_nobodys_trouble() {
    let mut rig = Rig::nats_alone("");
    let missing =
        data_bridge::sink::InsertError::AwaitFix(crate::rig::sink::refusal(60, "no table"));
    rig.sink.set_schema_error("external", Some(missing));
    let renamed = [("table = \"external\"", "table = \"others\"")];
    rig.after(Duration::from_secs(1)).await;
    rig.change_to(&config_edited(Sources::Nats, &renamed, "")).await.unwrap();
    rig.change_to(&config(Sources::Nats, "")).await.unwrap();
    rig.until("the missing table calls for a person", |now| !now.needs_person.is_empty()).await;
    rig.change_to(&config_edited(Sources::Nats, &renamed, "")).await.unwrap();
    rig.until("and no longer once no route fills it", |now| now.needs_person.is_empty()).await;
    let reads = rig.sink.schema_reads("external");
    rig.after(Duration::from_secs(120)).await;
    let more = rig.sink.schema_reads("external") - reads;
    assert!(more <= 1, "it is asked for {more} times more");
}

#[tokio::test(start_paused = true)]
async fn lingers_and_rows_of_a_writer_hold_for_open_batches_too() {
    let mut rig = Rig::nats_alone("[writers.external]\nlinger = \"1h\"\n");
    rig.nats().push("external.a", 10).await;
    rig.after(Duration::from_secs(60)).await;
    assert_eq!(rig.sink.rows("external"), 0);
    rig.change_to(&config(Sources::Nats, "[writers.external]\nlinger = \"2s\"\n")).await.unwrap();
    rig.moment().await;
    assert_eq!(rig.sink.rows("external"), 10, "it was older than two seconds already");
    let one = "[writers.external]\nbatch_rows = 1\nlinger = \"1h\"\n";
    rig.change_to(&config(Sources::Nats, one)).await.unwrap();
    rig.nats().push("external.a", 3).await;
    rig.moment().await;
    assert_eq!(rig.sink.attempts("external").len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_partition_does_not_become_exactly_once_while_it_is_read() {
    let mut rig = Rig::kafka_alone("");
    let partition = rig.kafka().assign("candles", 0, 1).await;
    rig.moment().await;
    let once = [
        ("table = \"candles\"", "table = \"candles\"\ndelivery = \"exactly_once\""),
        ("nats_subjects = [\"market.>\"]\n", ""),
    ];
    let why = rig.change_to(&config_edited(Sources::Kafka, &once, "")).await.unwrap_err();
    assert!(why.contains("routes.candles.delivery") && why.contains("restart"), "{why}");
    rig.kafka().poll(&partition, 5).await;
    let now = rig.drained().await;
    assert_eq!((now.inserted(), now.config.reloads), (5, 0), "nothing has changed");
}

#[tokio::test(start_paused = true)]
async fn more_tables_than_can_be_told_apart_are_refused_whole() {
    let mut rig = Rig::nats_alone("");
    let route = |n| {
        format!(
            "[[routes]]\nname = \"m{n}\"\nnats_subjects = [\"many.{n}\"]\ntable = \"m{n}\"\n\
             class = \"market\"\n"
        )
    };
    let many: String = (0..1_001).map(route).collect();
    let why = rig.change_to(&config(Sources::Nats, &many)).await.unwrap_err();
    assert!(why.contains("restart the bridge"), "{why}");
    assert!(!rig.now().routes.contains_key("m0"));
    rig.nats().push("market.a", 10).await;
    assert_eq!(rig.drained().await.inserted(), 10);
}

#[tokio::test(start_paused = true)]
async fn while_it_stops_nothing_changes_any_more() {
    let mut rig = Rig::nats_alone("");
    rig.sink.all(Mode::Hold);
    rig.nats().push("market.a", 10).await;
    rig.moment().await;
    rig.tell(Stop::Drain);
    rig.after(Duration::from_secs(1)).await;
    let why = rig.change_to(&config(Sources::Nats, "[shutdown]\ngrace = \"1h\"\n")).await;
    assert_eq!(why, Err("the bridge stops".to_owned()));
    assert_eq!(rig.ending().await.abandoned, 10, "the grace period was the old one");
}

#[tokio::test(start_paused = true)]
async fn the_grace_of_a_stop_is_that_of_the_last_configuration() {
    let mut rig = Rig::nats_alone("[shutdown]\ngrace = \"1h\"\n");
    rig.sink.all(down());
    rig.nats().push("market.a", 10).await;
    rig.change_to(&config(Sources::Nats, "[shutdown]\ngrace = \"3s\"\n")).await.unwrap();
    let began = tokio::time::Instant::now();
    assert_eq!(rig.stop().await.abandoned, 10);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
