//! One process ends at the worst moment, and the next one finds its notes.

use std::sync::Arc;
use std::time::Duration;

use data_bridge::config::Config;
use data_bridge::source::SourceEvent;
use data_bridge::trace::Outcome;

use super::{World, once};
use crate::rig::sink::{DEAD_LETTERS, Mode, down};
use crate::rig::source::Kind;

/// A first life that ends after 100 records of the first partition were sent, and no answer came.
async fn begin_unanswered(config: &Arc<Config>, partitions: i32, mode: Mode) -> World {
    let mut world = World::begin(config, partitions).await;
    send_unanswered(&mut world, mode).await;
    world
}

async fn send_unanswered(world: &mut World, mode: Mode) {
    world.rig.sink.table("once", mode);
    world.poll(0, 100).await;
    world.rig.after(Duration::from_millis(1_200)).await;
    world.rig.sink.table("once", Mode::Accept);
}

const SMALLER: &str = "[writers.aggregate]\nbatch_rows = 7\n";

#[tokio::test(start_paused = true)]
async fn what_landed_without_an_answer_is_recognised_after_the_restart() {
    let config = once("");
    let mut world = begin_unanswered(&config, 1, Mode::FailAfterWrite).await;
    assert_eq!(world.number_of_rows(), 100);
    world.restart(&config).await;
    world.poll(0, 400).await;
    world.catch_up().await;
    world.everything_is_there_once();
    assert!(world.rig.sink.questions().is_empty(), "the window tells");
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_up_has_a_span_as_every_batch() {
    let config = once("[otlp]\nendpoint = \"http://unused:4318\"\n");
    let mut world = begin_unanswered(&config, 1, Mode::FailAfterWrite).await;
    world.restart(&config).await;
    world.catch_up().await;
    let spans = std::iter::from_fn(|| world.rig.spans.told.try_recv().ok());
    let told: Vec<_> = spans.map(|span| (span.reason, span.rows, span.outcome)).collect();
    assert_eq!(told, [("restored", 100, Outcome::Inserted)]);
}

#[tokio::test(start_paused = true)]
async fn the_boundaries_are_those_that_were_noted_whatever_the_settings_are_now() {
    let config = once("");
    let mut world = begin_unanswered(&config, 1, Mode::FailAfterWrite).await;
    world.restart(&once(SMALLER)).await;
    for _ in 0..30 {
        world.poll(0, 9).await; // in other portions than before
        world.rig.moment().await;
    }
    world.catch_up().await;
    world.everything_is_there_once();
    let sizes: Vec<usize> = world.rig.sink.attempts("once").iter().map(|a| a.rows).collect();
    assert!(sizes.iter().skip(1).any(|rows| *rows == 100), "{sizes:?}");
    assert!(sizes.contains(&7), "{sizes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_window_that_may_have_passed_is_not_relied_on() {
    let config = once("");
    let mut world = begin_unanswered(&config, 1, Mode::FailAfterWrite).await;
    world.rig.sink.set_window(100);
    world.rig.sink.use_window("once", 100);
    world.restart(&config).await;
    world.catch_up().await;
    world.everything_is_there_once();
    let questions = world.rig.sink.questions();
    assert_eq!((questions[0].first, questions[0].last, questions[0].rows), (0, 99, 100));
}

#[tokio::test(start_paused = true)]
async fn the_window_may_pass_while_the_process_lives() {
    let config = once("");
    let mut world = World::begin(&config, 1).await;
    world.rig.sink.set_window(100);
    world.rig.sink.once("once", Mode::FailAfterWrite);
    world.rig.sink.once("once", down());
    world.rig.sink.once("once", down());
    world.poll(0, 100).await;
    world.rig.after(Duration::from_millis(1_050)).await;
    world.rig.sink.use_window("once", 90);
    world.rig.drained().await;
    world.everything_is_there_once();
    assert!(!world.rig.sink.questions().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_table_that_was_made_anew_meanwhile_is_asked_and_relied_on_from_the_next_look_on() {
    let config = once("");
    let mut world = World::begin(&config, 1).await;
    world.rig.sink.use_window("once", 50);
    world.rig.after(Duration::from_secs(40)).await; // the number of its newest block was looked at
    send_unanswered(&mut world, Mode::FailAfterWrite).await;
    world.rig.sink.make_anew("once");
    world.rig.drained().await;
    assert_eq!(world.rig.sink.questions().len(), 1, "its tokens are not known there any more");
    world.rig.after(Duration::from_secs(40)).await;
    send_unanswered(&mut world, Mode::FailAfterWrite).await;
    world.rig.drained().await;
    assert_eq!(world.rig.sink.questions().len(), 1, "the window tells again");
    world.everything_is_there_once();
}

/// After the restart a record of the noted range is gone: compaction, retention.
async fn with_a_record_gone(more: &str, landed: bool) -> World {
    let config = once(more);
    let mode = if landed { Mode::FailAfterWrite } else { down() };
    let mut world = begin_unanswered(&config, 1, mode).await;
    world.kind_at = |offset| if offset == 5 { Kind::Tombstone } else { Kind::Good };
    world.restart(&config).await;
    world
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_not_what_was_noted_is_looked_for_and_left_if_it_landed() {
    let mut world = with_a_record_gone("", true).await;
    let attempts = world.rig.sink.attempts("once").len();
    world.catch_up().await;
    assert_eq!(world.rig.sink.attempts("once").len(), attempts, "not sent blindly");
    assert_eq!(world.number_of_rows(), 100);
    assert!(world.rig.sink.ids("once").values().all(|times| *times == 1));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_not_what_was_noted_is_sent_as_it_is_now_if_it_never_landed() {
    let mut world = with_a_record_gone("", false).await;
    world.catch_up().await;
    world.everything_is_there_once();
    assert_eq!(world.number_of_rows(), 99);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_can_tell_halts_its_partition_and_calls_for_a_person() {
    let mut world = begin_unanswered(&once(""), 2, Mode::FailAfterWrite).await;
    world.kind_at = |offset| if offset == 5 { Kind::Tombstone } else { Kind::Good };
    world.rig.sink.cannot_tell(Some("the table has no _offset"));
    world.restart(&once("")).await;
    world.poll(0, 150).await;
    world.poll(1, 20).await;
    world.rig.after(Duration::from_secs(20)).await;
    let said = world.rig.now().needs_person.join("\n");
    for word in ["0-99", "on_uncertain", "accept_duplicates", "the table has no _offset"] {
        assert!(said.contains(word), "{word} is missing: {said}");
    }
    world.group.lock().unwrap().look(&world.rig.kafka().story);
    assert_eq!(world.group.lock().unwrap().committed[&0].0, 0);
    // Somebody makes it possible to tell: work goes on by itself.
    world.rig.sink.cannot_tell(None);
    world.rig.after(Duration::from_secs(40)).await;
    world.rig.drained().await;
    assert!(world.rig.sink.ids("once").values().all(|times| *times == 1));
    // 5 of the second partition was a tombstone from the beginning.
    assert_eq!(world.number_of_rows(), 100 + 50 + 19);
}

#[tokio::test(start_paused = true)]
async fn duplicates_and_loss_are_accepted_only_when_the_route_says_so() {
    let mut rows = Vec::new();
    for policy in ["accept_duplicates", "accept_loss"] {
        let route = format!("on_uncertain = \"{policy}\"");
        let config =
            crate::rig::config(crate::rig::Sources::Kafka, &format!("{}\n{route}", super::ONCE));
        let mut world = begin_unanswered(&config, 1, down()).await;
        world.rig.sink.set_window(10);
        world.rig.sink.use_window("once", 100);
        world.rig.sink.cannot_tell(Some("no"));
        world.restart(&config).await;
        world.catch_up().await;
        let source = world.rig.accounts_close();
        rows.push((world.number_of_rows(), source.sources["kafka"].dropped_total()));
    }
    assert_eq!(rows, [(100, 0), (0, 100)]);
}

#[tokio::test(start_paused = true)]
async fn records_that_the_topic_lost_are_looked_for_and_their_range_is_closed() {
    let config = once("");
    let mut world = begin_unanswered(&config, 1, Mode::FailAfterWrite).await;
    world.restart(&config).await;
    // Retention took the whole range: the first record that comes lies behind it.
    let partition = std::sync::Arc::clone(&world.assigned[&0]);
    world.rig.kafka().seek(&partition, 300);
    world.poll(0, 10).await;
    world.rig.drained().await;
    world.rig.after(Duration::from_secs(2)).await;
    assert_eq!(world.number_of_rows(), 110);
    world.group.lock().unwrap().look(&world.rig.kafka().story);
    let (offset, note) = world.group.lock().unwrap().committed[&0].clone();
    assert_eq!((offset, note.unwrap().split(' ').count()), (310, 3));
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_which_clickhouse_kept_only_the_token_is_sent_under_another() {
    let config = once("");
    for restarts in [false, true] {
        let mut world = begin_unanswered(&config, 1, Mode::Die).await;
        assert_eq!(world.number_of_rows(), 0);
        if restarts {
            world.restart(&config).await;
        }
        world.poll(0, 400).await;
        world.catch_up().await;
        world.everything_is_there_once();
        let attempts = world.rig.sink.attempts("once");
        let tokens: Vec<&str> = attempts.iter().map(|attempt| attempt.token.as_str()).collect();
        assert!(tokens.iter().any(|token| token.ends_with(":0-99~1")), "{tokens:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_token_that_took_the_place_of_another_is_noted_and_found_by_the_next_owner() {
    let config = once("");
    let mut world = World::begin(&config, 1).await;
    world.rig.sink.once("once", Mode::Die);
    world.rig.sink.once("once", Mode::Accept);
    world.rig.sink.once("once", Mode::FailAfterWrite);
    world.rig.sink.table("once", Mode::Hold);
    world.poll(0, 100).await;
    world.rig.after(Duration::from_secs(4)).await;
    assert_eq!(world.number_of_rows(), 100, "under the second token, without an answer");
    world.rig.sink.table("once", Mode::Accept);
    world.restart(&once(SMALLER)).await;
    world.catch_up().await;
    world.everything_is_there_once();
}

/// A dead letter among what was noted; it can't be written.
async fn begin_with_a_letter_that_waits() -> World {
    let kind_at = |offset| if offset == 5 { Kind::Broken } else { Kind::Good };
    let mut world = World::begin_with(&once(""), 1, kind_at).await;
    world.rig.sink.table(DEAD_LETTERS, down());
    world.poll(0, 100).await;
    world
}

/// Else the next owner would begin at the dead letter, and insert again what lies behind it.
#[tokio::test(start_paused = true)]
async fn a_range_that_was_found_landed_stays_noted_until_its_dead_letters_are_durable() {
    let mut world = begin_with_a_letter_that_waits().await;
    world.rig.after(Duration::from_secs(2)).await;
    assert_eq!(world.number_of_rows(), 99);
    world.kind_at = |offset| match offset {
        5 => Kind::Broken,
        7 => Kind::Tombstone, // gone: the batch is not what was noted
        _ => Kind::Good,
    };
    world.restart(&once("")).await;
    world.poll(0, 100).await;
    world.rig.after(Duration::from_secs(4)).await;
    assert_eq!(world.rig.sink.questions().len(), 1, "it was looked for");
    world.restart(&once("")).await;
    world.rig.sink.table(DEAD_LETTERS, Mode::Accept);
    world.catch_up().await;
    assert_eq!(world.number_of_rows(), 99);
    assert!(world.rig.sink.ids("once").values().all(|times| *times == 1));
    assert_eq!(world.rig.sink.ids(DEAD_LETTERS).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_insert_that_ends_after_its_partition_was_lost_leaves_its_dead_letters_to_the_next_owner()
 {
    let mut world = begin_with_a_letter_that_waits().await;
    world.rig.sink.table(DEAD_LETTERS, Mode::Accept);
    world.rig.sink.once("once", Mode::Hold);
    world.rig.after(Duration::from_millis(1_200)).await;
    assert_eq!(world.number_of_rows(), 0);
    world.lose(0).await;
    world.group.lock().unwrap().look(&world.rig.kafka().story);
    world.assign(0).await;
    world.poll(0, 100).await;
    world.rig.after(Duration::from_secs(4)).await;
    world.everything_is_there_once();
    let letters = world.rig.sink.attempts(DEAD_LETTERS).len();
    // What was held goes on: it is in the table by now, and so is its letter.
    world.rig.sink.table("once", Mode::Accept);
    world.rig.drained().await;
    assert_eq!(world.rig.sink.attempts(DEAD_LETTERS).len(), letters);
    world.everything_is_there_once();
}

fn once_with_credits(pull_limit: usize) -> Arc<Config> {
    once(&format!(
        "[backpressure]\nmax_buffer_size = {}\npause_threshold = {pull_limit}\n\
         resume_threshold = 20\n[writers.aggregate]\nbatch_rows = 30\n[writers.external]\nbatch_rows = 30\n",
        pull_limit + 10,
    ))
}

/// After a restart each partition has a noted range of 30 records, and there are credits for one.
async fn begin_beyond_the_credits(partitions: i32, kind_at: fn(i64) -> Kind) -> World {
    let mut world = World::begin_with(&once_with_credits(300), partitions, kind_at).await;
    world.rig.sink.table("once", Mode::FailAfterWrite);
    for partition in 0..partitions {
        world.poll(partition, 30).await;
        world.rig.moment().await;
    }
    world.rig.sink.table("once", Mode::Accept);
    world.restart(&once_with_credits(50)).await;
    world
}

impl World {
    fn waits(&mut self, number: i32) -> bool {
        let partition = Arc::clone(&self.assigned[&number]);
        self.rig.kafka().is_held(&partition)
    }

    async fn lose(&mut self, number: i32) {
        let lost = Arc::clone(&self.assigned[&number]);
        self.rig.kafka().send(SourceEvent::Lost(vec![lost])).await;
        self.rig.moment().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_leaves_makes_room_for_the_noted_range_of_another() {
    let mut world = begin_beyond_the_credits(2, |_| Kind::Good).await;
    world.rig.moment().await;
    assert_eq!((world.waits(0), world.waits(1)), (false, true));
    world.lose(0).await;
    assert!(!world.waits(1));
}

/// Else what it holds by then would be missing to the other, and neither would ever be whole.
#[tokio::test(start_paused = true)]
async fn a_noted_range_that_was_begun_does_not_wait_for_a_partition_that_comes_later() {
    let mut world = begin_beyond_the_credits(2, |_| Kind::Good).await;
    world.lose(0).await;
    assert_eq!(world.poll(1, 25).await, 25);
    world.assign(0).await;
    world.rig.moment().await;
    assert_eq!((world.waits(0), world.waits(1)), (true, false));
    world.catch_up().await;
    world.everything_is_there_once();
}

async fn taken_up_one_after_the_other(kind_at: fn(i64) -> Kind) {
    let mut world = begin_beyond_the_credits(6, kind_at).await;
    for _ in 0..40 {
        for partition in 0..6 {
            world.poll(partition, 4).await;
        }
        world.rig.moment().await;
    }
    world.catch_up().await;
    world.everything_is_there_once();
}

#[tokio::test(start_paused = true)]
async fn noted_ranges_that_together_exceed_the_credits_are_taken_up_one_after_the_other() {
    taken_up_one_after_the_other(|_| Kind::Good).await;
}

/// What is refused was read too, and holds a credit until it is a dead letter.
#[tokio::test(start_paused = true)]
async fn noted_ranges_of_few_rows_and_many_dead_letters_exceed_the_credits_as_well() {
    let kind_at = |offset| if offset % 10 == 0 { Kind::Good } else { Kind::Broken };
    taken_up_one_after_the_other(kind_at).await;
}

#[tokio::test(start_paused = true)]
async fn a_noted_range_larger_than_all_credits_says_what_to_do() {
    let mut world = begin_unanswered(&once(""), 1, Mode::FailAfterWrite).await;
    world.restart(&once_with_credits(50)).await;
    world.rig.after(Duration::from_secs(6)).await;
    assert_eq!(world.poll(0, 10).await, 0, "nothing of it is taken");
    let said = world.rig.now().needs_person.join("\n");
    assert!(said.contains("pull_limit above 100"), "{said}");
    world.restart(&once("")).await;
    world.catch_up().await;
    world.everything_is_there_once();
}

/// Of its 100 records 10 became rows, and the note counts only those.
#[tokio::test(start_paused = true)]
async fn a_noted_range_larger_than_all_credits_by_what_was_refused_of_it_says_so() {
    let kind_at = |offset| if offset % 10 == 0 { Kind::Good } else { Kind::Broken };
    let mut world = World::begin_with(&once(""), 1, kind_at).await;
    world.rig.sink.table("once", Mode::FailAfterWrite);
    world.poll(0, 100).await;
    world.rig.after(Duration::from_secs(4)).await;
    world.rig.sink.table("once", Mode::Accept);
    world.restart(&once_with_credits(50)).await;
    world.poll(0, 100).await;
    world.rig.after(Duration::from_secs(6)).await;
    let said = world.rig.now().needs_person.join("\n");
    assert!(said.contains("pull_limit above 100"), "{said}");
    world.restart(&once("")).await;
    world.catch_up().await;
    world.everything_is_there_once();
}

#[tokio::test(start_paused = true)]
async fn a_note_of_a_later_version_is_not_passed_over() {
    let config = once("");
    let mut world = World::begin(&config, 1).await;
    world.rig.kill().await;
    let later = (0, Some("db7 what is this".to_owned()));
    world.group.lock().unwrap().committed.insert(0, later);
    world.restart(&config).await;
    world.rig.after(Duration::from_secs(6)).await;
    assert_eq!(world.poll(0, 10).await, 0, "nothing of it is taken");
    let said = world.rig.now().needs_person.join("\n");
    assert!(said.contains("version db7"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_stop_in_the_middle_of_taking_up_what_was_noted_is_clean() {
    let config = once("");
    let mut world = begin_unanswered(&config, 1, Mode::FailAfterWrite).await;
    world.restart(&config).await;
    world.poll(0, 40).await; // the range is not whole
    world.rig.moment().await;
    let ending = world.rig.stop().await;
    assert_eq!((ending.abandoned, ending.closed), (0, true));
    world.restart(&config).await;
    world.catch_up().await;
    world.everything_is_there_once();
}
