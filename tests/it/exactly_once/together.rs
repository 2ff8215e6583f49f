//! While the process lives: what is noted, what is sent, and what happens at a revocation.

use std::sync::Arc;
use std::time::Duration;

use data_bridge::pipeline::{Ending, Stop};
use tokio::time::timeout;

use super::{World, once};
use crate::rig::sink::{Mode, down};
use crate::rig::source::Kind;

#[tokio::test(start_paused = true)]
async fn every_batch_is_noted_before_it_is_sent_and_no_longer_once_all_is_durable() {
    let config = once("");
    let mut world = World::begin(&config, 2).await;
    world.poll(0, 900).await;
    world.poll(1, 300).await;
    world.rig.drained().await;
    world.everything_is_there_once();
    world.rig.after(Duration::from_secs(2)).await;
    world.group.lock().unwrap().look(&world.rig.kafka().story);
    let group = world.group.lock().unwrap();
    let (offset, note) = &group.committed[&0];
    assert_eq!(*offset, 900);
    assert_eq!(note.as_deref().unwrap().split(' ').count(), 3, "{note:?} lists a range");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_while_its_note_is_refused() {
    let config = once("");
    let mut world = World::begin(&config, 1).await;
    world.rig.kafka().refuse_commits(Some("no coordinator")).await;
    world.poll(0, 50).await;
    world.rig.after(Duration::from_secs(60)).await;
    assert_eq!(world.rig.sink.attempts("once").len(), 0, "nobody would know of it");
    world.rig.kafka().refuse_commits(None).await;
    world.rig.drained().await;
    world.everything_is_there_once();
}

#[tokio::test(start_paused = true)]
async fn a_batch_holds_records_of_one_partition_only() {
    let config = once("");
    let mut world = World::begin(&config, 3).await;
    for _ in 0..5 {
        for partition in 0..3 {
            world.poll(partition, 40).await;
        }
    }
    world.rig.drained().await;
    let attempts = world.rig.sink.attempts("once");
    assert_eq!(attempts.len(), 3);
    assert!(attempts.iter().all(|attempt| attempt.rows == 200), "{attempts:?}");
    world.everything_is_there_once();
}

/// Announcing takes about as long as inserting: with two batches on their way ClickHouse would be idle
/// half of the time.
#[tokio::test(start_paused = true)]
async fn without_credits_as_many_batches_go_as_there_are_slots_and_announcements() {
    let limits = "[backpressure]\nmax_buffer_size = 1_300\npause_threshold = 1_200\n\
                  resume_threshold = 600\n[writers.aggregate]\nbatch_rows = 600\nlinger = \"60s\"\n\
                  [writers.external]\nbatch_rows = 100\n";
    let mut world = World::begin(&once(limits), 12).await;
    world.rig.sink.table("once", Mode::Hold);
    for partition in 0..12 {
        assert_eq!(world.poll(partition, 100).await, 100);
    }
    world.rig.moment().await;
    assert_eq!(world.rig.sink.attempts("once").len(), 2, "as many as there are slots");
    world.group.lock().unwrap().look(&world.rig.kafka().story);
    let listed = |world: &World, partition| {
        let note = world.group.lock().unwrap().note(partition);
        note.map_or(0, |note| note.split(' ').count() - 3)
    };
    let announced: usize = (0..12).map(|partition| listed(&world, partition)).sum();
    assert_eq!(announced, 2 + 4);
    world.rig.sink.table("once", Mode::Accept);
    world.rig.drained().await;
    world.everything_is_there_once();
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_is_asked_for_with_the_same_token_and_bytes() {
    let config = once("");
    let mut world = World::begin(&config, 1).await;
    world.rig.sink.once("once", Mode::FailAfterWrite);
    world.rig.sink.once("once", down());
    world.poll(0, 100).await;
    world.rig.drained().await;
    let attempts = world.rig.sink.attempts("once");
    assert_eq!(attempts.len(), 3);
    let first = &attempts[0];
    let same = |a: &&crate::rig::sink::Attempt| (&a.token, a.body) == (&first.token, first.body);
    assert!(attempts.iter().all(|attempt| same(&attempt)), "{attempts:?}");
    world.everything_is_there_once();
}

#[tokio::test(start_paused = true)]
async fn refused_rows_become_letters_once_and_their_neighbours_land() {
    let config = once("");
    let kinds = |offset| match offset {
        17 => Kind::Poison,
        40 => Kind::Broken,
        41 => Kind::Tombstone,
        _ => Kind::Good,
    };
    let mut world = World::begin_with(&config, 1, kinds).await;
    world.poll(0, 64).await;
    world.rig.drained().await;
    world.everything_is_there_once();
    world.rig.after(Duration::from_secs(2)).await;
    world.group.lock().unwrap().look(&world.rig.kafka().story);
    assert_eq!(world.group.lock().unwrap().committed[&0].0, 64);
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_which_every_row_is_refused_is_all_letters() {
    let config = once("");
    let mut world = World::begin_with(&config, 1, |_| Kind::Broken).await;
    world.poll(0, 30).await;
    world.rig.drained().await;
    world.everything_is_there_once();
}

#[tokio::test(start_paused = true)]
async fn a_revocation_sends_nothing_new_and_hands_over_what_is_noted() {
    let config = once("");
    let mut world = World::begin(&config, 1).await;
    world.rig.sink.table("once", Mode::Hold);
    world.poll(0, 50).await;
    world.rig.after(Duration::from_millis(1_500)).await;
    assert_eq!(world.rig.sink.attempts("once").len(), 1, "noted and sent");
    world.poll(0, 20).await;
    world.rig.moment().await;
    let going = Arc::clone(&world.assigned[&0]);
    let answer = world.rig.kafka().revoke(&[&going], Duration::from_secs(3)).await;
    world.rig.after(Duration::from_secs(1)).await;
    world.rig.sink.table("once", Mode::Accept);
    let answer = timeout(Duration::from_secs(1), answer).await.unwrap().unwrap();
    assert_eq!(world.rig.sink.attempts("once").len(), 1, "the open batch was not sent any more");
    assert_eq!(answer[0].offset, 50);
    world.group.lock().unwrap().look(&world.rig.kafka().story);
    world.group.lock().unwrap().commit(&answer[0]);
    world.assign(0).await;
    world.catch_up().await;
    world.everything_is_there_once();
    assert_eq!(world.rig.accounts_close().sources["kafka"].released, 20);
}

#[tokio::test(start_paused = true)]
async fn an_insert_that_outlives_its_revocation_lands_once() {
    let config = once("");
    let mut world = World::begin(&config, 1).await;
    world.rig.sink.table("once", Mode::Hold);
    world.poll(0, 50).await;
    world.rig.after(Duration::from_millis(1_500)).await;
    let going = Arc::clone(&world.assigned[&0]);
    let answer = world.rig.kafka().revoke(&[&going], Duration::from_secs(1)).await;
    let answer = timeout(Duration::from_secs(2), answer).await.unwrap().unwrap();
    assert_eq!(answer[0].offset, 0, "nothing of it is durable");
    world.group.lock().unwrap().look(&world.rig.kafka().story);
    world.group.lock().unwrap().commit(&answer[0]);
    world.assign(0).await;
    world.rig.sink.table("once", Mode::Accept);
    world.catch_up().await;
    world.everything_is_there_once();
    let tokens: std::collections::BTreeSet<String> =
        world.rig.sink.attempts("once").into_iter().map(|attempt| attempt.token).collect();
    assert_eq!(tokens.len(), 1, "both owners sent it as the same");
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_gives_up_hands_over_what_is_noted_too() {
    let config = once("");
    let mut world = World::begin(&config, 1).await;
    world.poll(0, 50).await;
    world.rig.after(Duration::from_millis(1_500)).await;
    world.rig.sink.table("once", Mode::Hold);
    world.poll(0, 20).await;
    world.rig.after(Duration::from_millis(1_500)).await;
    assert_eq!(world.rig.sink.attempts("once").len(), 2, "the second is under way");
    world.group.lock().unwrap().look(&world.rig.kafka().story);
    let noted = world.group.lock().unwrap().note(0).unwrap();
    let going = Arc::clone(&world.assigned[&0]);
    let answer = world.rig.kafka().revoke(&[&going], Duration::from_secs(600)).await;
    world.rig.moment().await;
    world.rig.tell(Stop::Abort);
    let answer = timeout(Duration::from_secs(1), answer).await.unwrap().unwrap();
    let [position] = answer.as_slice() else { panic!("{answer:?}") };
    assert_eq!(position.note.as_deref(), Some(noted.as_str()), "{position:?}");
    assert_eq!(world.rig.ending().await.abandoned, 20);
}

#[tokio::test(start_paused = true)]
async fn a_clean_stop_leaves_nothing_noted() {
    let config = once("");
    let mut world = World::begin(&config, 2).await;
    world.poll(0, 500).await;
    world.poll(1, 5).await;
    let ending = world.rig.stop().await;
    assert_eq!(ending, Ending { abandoned: 0, closed: true, aborted: false });
    world.group.lock().unwrap().look(&world.rig.kafka().story);
    let group = world.group.lock().unwrap();
    for (partition, end) in [(0, 500), (1, 5)] {
        let (offset, note) = &group.committed[&partition];
        assert_eq!((*offset, note.as_deref().unwrap().split(' ').count()), (end, 3), "{note:?}");
    }
    drop(group);
    world.everything_is_there_once();
}
