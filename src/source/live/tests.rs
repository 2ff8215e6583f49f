//! The intake by itself: the test is the pipeline.

use std::sync::Arc;

use super::*;
use crate::config::RateLimit;
use crate::credits::Credits;
use crate::receipt::Outcome;
use crate::record::Chunk;
use crate::source::{Delivery, SourceEvent, SourceHandle, SourceId, Stage, connect};

struct Rig {
    publisher: Publisher,
    handle: SourceHandle,
    events: mpsc::Receiver<(SourceId, SourceEvent)>,
    credits: Arc<Credits>,
    running: Running,
}

fn rig(room: usize, rate: Option<RateLimit>) -> Rig {
    let (publisher, hall) = super::connect(&small_limits());
    let (sender, events) = mpsc::channel(4);
    let (handle, port) = connect(SourceId(0), "live", Delivery::Offered, sender);
    let credits = Arc::new(Credits::new(room, room));
    let gate = Gate::from(Arc::clone(&credits));
    gate.set_limit(rate);
    let routes = ["a", "b"].map(str::to_owned).into();
    Rig { publisher, handle, events, credits, running: start(hall, &routes, port, gate) }
}

impl Rig {
    async fn event(&mut self) -> SourceEvent {
        let event = timeout(Duration::from_secs(600), self.events.recv()).await;
        event.expect("an event comes").expect("the source runs").1
    }

    async fn assigned(&mut self) -> Vec<String> {
        let SourceEvent::Assigned(all) = self.event().await else { panic!("not assigned first") };
        all.iter().map(|assigned| assigned.partition.topic.clone()).collect()
    }

    async fn chunk(&mut self) -> Chunk {
        let SourceEvent::Records(chunk) = self.event().await else { panic!("no records") };
        chunk
    }
}

fn payloads(count: usize) -> Vec<Bytes> {
    (0..count).map(|n| Bytes::from(n.to_string())).collect()
}

/// Admits what comes, and says so.
async fn admitted(rig: &mut Rig, count: usize) -> Chunk {
    let chunk = rig.chunk().await;
    assert_eq!(chunk.len(), count);
    chunk.tell(Outcome::Admitted, count);
    chunk
}

#[tokio::test(start_paused = true)]
async fn records_come_in_order_each_with_its_number_and_never_before_their_partition() {
    let mut rig = rig(100, None);
    assert_eq!(rig.assigned().await, ["live:a", "live:b"]);
    let publisher = rig.publisher.clone();
    let both = async {
        let first = publisher.publish("a", payloads(3), Until::Admitted).await.unwrap();
        let second = publisher.publish("a", payloads(2), Until::Admitted).await.unwrap();
        (first.taken, second.taken)
    };
    let take = async { (admitted(&mut rig, 3).await, admitted(&mut rig, 2).await) };
    let (taken, (first, second)) = tokio::join!(both, take);
    assert_eq!(taken, (3, 2));
    let places = first.records().chain(second.records()).map(|r| r.place().unwrap().1);
    let places: Vec<i64> = places.collect();
    assert!(places.windows(2).all(|two| two[1] == two[0] + 1), "{places:?}");
    assert_eq!(first.record(1).payload(), Some(&b"1"[..]));
    assert_eq!(first.record(0).topic_or_subject(), "live:a");
}

#[tokio::test(start_paused = true)]
async fn two_bridges_never_give_two_records_one_place() {
    let (mut one, mut other) = (rig(1, None), rig(1, None));
    let place = async |rig: &mut Rig| {
        let SourceEvent::Assigned(all) = rig.event().await else { panic!("not assigned first") };
        all[0].partition.number
    };
    assert_ne!(place(&mut one).await, place(&mut other).await, "their numbers may be the same");
}

#[tokio::test(start_paused = true)]
async fn what_its_publisher_calls_a_record_goes_with_it() {
    let mut rig = rig(100, None);
    rig.assigned().await;
    let (publisher, id) = (rig.publisher.clone(), Uuid::from_u128(7));
    let message = Message { payload: Bytes::from_static(b"1"), id: Some(id) };
    let entry = publisher.enter("a", Until::Durable, 1).await.unwrap();
    let (taken, chunk) = tokio::join!(entry.offer(vec![message]), admitted(&mut rig, 1));
    let headers: Vec<_> = chunk.record(0).headers().collect();
    assert_eq!(headers, [("message-id", id.to_string().as_bytes())]);
    assert_eq!(publisher.waiting.available_permits(), 1, "it waits for what becomes of it");
    drop(taken);
    assert_eq!(publisher.waiting.available_permits(), 2, "and does no more");
}

#[tokio::test(start_paused = true)]
async fn no_more_is_taken_than_there_are_credits_and_nothing_is_kept_of_the_rest() {
    let mut rig = rig(4, None);
    rig.assigned().await;
    let publisher = rig.publisher.clone();
    let publish = publisher.publish("a", payloads(10), Until::Admitted);
    let (ack, chunk) = tokio::join!(publish, admitted(&mut rig, 4));
    let ack = ack.unwrap();
    assert_eq!((ack.taken, ack.retry_after), (4, Some(COME_AGAIN)));
    let refused = || rig.handle.observed.refused_requests.load(Ordering::Relaxed);
    assert_eq!(refused(), 1, "a part of it is to be published again");
    assert_eq!(rig.credits.used(), 4);
    drop(chunk);
    rig.credits.release(4);
    // The first request is over: what is free now is not taken for it.
    let publish = publisher.publish("b", payloads(1), Until::Admitted);
    let (ack, _) = tokio::join!(publish, admitted(&mut rig, 1));
    assert_eq!(ack.unwrap().taken, 1);
}

#[tokio::test(start_paused = true)]
async fn room_that_comes_in_time_is_used() {
    let mut rig = rig(4, None);
    rig.assigned().await;
    let (publisher, credits) = (rig.publisher.clone(), Arc::clone(&rig.credits));
    let publish = publisher.publish("a", payloads(10), Until::Admitted);
    let take = async {
        admitted(&mut rig, 4).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        credits.release(4);
        admitted(&mut rig, 4).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        credits.release(4);
        admitted(&mut rig, 2).await;
    };
    let (ack, ()) = tokio::join!(publish, take);
    assert_eq!(ack.unwrap().taken, 10);
}

#[tokio::test(start_paused = true)]
async fn what_the_receipt_says_is_what_the_publisher_hears() {
    let mut rig = rig(100, None);
    rig.assigned().await;
    let publisher = rig.publisher.clone();
    let publish = publisher.publish("a", payloads(4), Until::Durable);
    let tell = async {
        let chunk = admitted(&mut rig, 4).await;
        chunk.extract(&[0]).tell(Outcome::Inserted, 3);
        chunk.tell(Outcome::DeadLettered, 1);
    };
    let (ack, ()) = tokio::join!(publish, tell);
    let ack = ack.unwrap();
    assert!(ack.is_durable() && !ack.ended, "{ack:?}");
    assert_eq!((ack.became.inserted, ack.became.dead_lettered), (3, 1));
    // The last of them is gone, and nobody spoke of it.
    let publish = publisher.publish("a", payloads(2), Until::Durable);
    let (ack, _) =
        tokio::join!(publish, async { admitted(&mut rig, 2).await.tell(Outcome::Inserted, 1) });
    let ack = ack.unwrap();
    assert!(ack.ended && !ack.is_durable() && ack.pending() == 1, "{ack:?}");
}

#[tokio::test(start_paused = true)]
async fn before_the_start_and_after_the_stop_nothing_is_taken() {
    let (publisher, hall) = super::connect(&small_limits());
    let early = publisher.publish("a", payloads(1), Until::Admitted).await;
    assert_eq!(early, Err(NOT_RUNNING));
    hall.stay_empty();
    let nowhere = publisher.publish("a", payloads(1), Until::Admitted).await;
    assert_eq!(nowhere, Err(Refusal::NoSuchTopic));
    let mut rig = rig(0, None);
    rig.assigned().await;
    let publisher = rig.publisher.clone();
    let handle = &rig.handle;
    let publish = publisher.publish("a", payloads(1), Until::Admitted);
    let stop = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        handle.want_stage(Stage::Draining);
    };
    let (waited, ()) = tokio::join!(publish, stop);
    assert_eq!(waited, Err(NOT_RUNNING), "it waited for room");
    let late = publisher.publish("a", payloads(1), Until::Admitted).await;
    assert_eq!(late, Err(NOT_RUNNING));
    rig.handle.want_stage(Stage::Closing);
    assert!(matches!(rig.event().await, SourceEvent::Closed { error: None }));
    timeout(Duration::from_secs(600), rig.running.join()).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_requests_keep_in_memory_has_a_weight_and_those_that_weigh_little_pass() {
    let mut rig = rig(100, None);
    rig.assigned().await;
    let enter = |bytes| rig.publisher.enter("a", Until::Admitted, bytes);
    let mut inside = Vec::new();
    for _ in 0..3 {
        inside.push(enter(AT_THE_DOOR / 3).await.unwrap());
    }
    for _ in 0..100 {
        inside.push(enter(SMALL).await.unwrap());
    }
    assert!(matches!(enter(SMALL + 1).await, Err(Refusal::Busy { .. })));
    assert_eq!(rig.handle.observed.refused_requests.load(Ordering::Relaxed), 1);
    drop(inside);
    assert!(enter(AT_THE_DOOR).await.is_ok());
    assert!(enter(usize::MAX).await.is_ok(), "one alone may weigh all");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_wait_for_the_answer_leaves_nothing_behind() {
    let mut rig = rig(100, None);
    rig.assigned().await;
    let publisher = rig.publisher.clone();
    let publish = publisher.publish("a", payloads(2), Until::Durable);
    let given_up = timeout(Duration::from_millis(10), publish).await;
    assert!(given_up.is_err());
    let chunk = admitted(&mut rig, 2).await;
    chunk.tell(Outcome::Inserted, 2);
    assert_eq!(publisher.waiting.available_permits(), small_limits().max_waiting);
    assert_eq!(publisher.door.available_permits(), AT_THE_DOOR);
}
