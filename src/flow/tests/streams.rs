//! Streams between tasks, in paused time.

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::*;

const PATIENCE: Duration = Duration::from_secs(3_600);

/// Four producers send 25,000 items each; the consumer takes a thousand a second.
async fn through(strategy: Strategy) -> (Vec<(u64, u64)>, Metrics, Ended) {
    let (producer, mut consumer) = Controller::new(1_000, strategy).stream();
    let mut producers = JoinSet::new();
    for number in 0..4_u64 {
        let producer = producer.clone();
        producers.spawn(async move {
            for item in 0..25_000_u64 {
                if producer.send((number, item)).await.is_err() {
                    break;
                }
                if !strategy.is_lossless() {
                    // 10,000 a second of all four: ten times too much.
                    sleep(Duration::from_micros(400)).await;
                }
            }
        });
    }
    drop(producer);
    let mut consumed = Vec::new();
    let (mut told, ended) = (0, async {
        loop {
            match consumer.next().await {
                Ok(taken) => consumed.push((taken.item, taken.missed)),
                Err(ended) => break ended,
            }
            sleep(Duration::from_millis(1)).await;
        }
    });
    let ended = timeout(PATIENCE, ended).await.expect("the stream comes to its end");
    let metrics = consumer.metrics();
    told += ended.missed + consumed.iter().map(|(_, missed)| missed).sum::<u64>();
    while let Some(done) = timeout(PATIENCE, producers.join_next()).await.unwrap() {
        done.unwrap();
    }
    assert_eq!(told, metrics.dropped_count.total());
    assert_eq!(metrics.produced_count, metrics.consumed_count + told);
    assert!(metrics.peak_depth <= 1_000);
    let items: Vec<_> = consumed.into_iter().map(|(item, _)| item).collect();
    for number in 0..4 {
        let own = items.iter().filter(|(of, _)| *of == number).map(|(_, item)| item);
        assert!(own.is_sorted_by(|a, b| a < b), "each producer's order is kept");
    }
    (items, metrics, ended)
}

#[tokio::test(start_paused = true)]
async fn what_waits_loses_none_of_a_hundred_thousand() {
    let adaptive = Steps { increase: 50.0, ..Steps::rate(500.0, 20_000.0) };
    for strategy in [Strategy::Block, Strategy::Adaptive(adaptive)] {
        let (items, _, ended) = through(strategy).await;
        assert_eq!(items.len(), 100_000, "{strategy:?}");
        assert_eq!(ended, Ended { why: Why::Finished, missed: 0 });
    }
}

#[tokio::test(start_paused = true)]
async fn what_drops_accounts_for_all_of_a_hundred_thousand() {
    let sample = Strategy::Sample { sampling: one_in(20), from: 0.5 };
    for strategy in
        [Strategy::DropNewest, Strategy::DropOldest, Strategy::Sliding { keep: 10 }, sample]
    {
        let (items, metrics, ended) = through(strategy).await;
        assert_eq!((metrics.produced_count, ended.why), (100_000, Why::Finished), "{strategy:?}");
        assert!(items.len() > 5_000, "{strategy:?}: {} items", items.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_is_cut_off_ends_at_once_and_its_producers_hear_of_it() {
    let (_, metrics, ended) = through(Strategy::Disconnect).await;
    assert_eq!(ended.why, Why::SlowConsumer);
    assert_eq!(metrics.dropped_count.disconnected, 1_001);
}

#[tokio::test(start_paused = true)]
async fn producers_that_wait_are_woken_one_for_each_item_taken() {
    let (producer, mut consumer) = Controller::new(2, Strategy::Block).stream();
    let mut sending = JoinSet::new();
    for item in 0..10 {
        let producer = producer.clone();
        sending.spawn(async move { producer.send(item).await });
    }
    // All of them are waiting or done: nothing else is left to run.
    sleep(Duration::from_secs(1)).await;
    assert_eq!(producer.metrics().current_depth, 2);
    for _ in 0..2 {
        consumer.next().await.unwrap();
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(producer.metrics().produced_count, 4, "two taken, two let in");
    for _ in 0..8 {
        timeout(PATIENCE, consumer.next()).await.expect("nobody sleeps through").unwrap();
    }
    while let Some(sent) = timeout(PATIENCE, sending.join_next()).await.unwrap() {
        assert_eq!(sent.unwrap(), Ok(Sent::Kept));
    }
}

#[tokio::test(start_paused = true)]
async fn a_producer_that_gives_up_waiting_leaves_its_turn_to_another() {
    let (producer, mut consumer) = Controller::new(1, Strategy::Block).stream();
    assert_eq!(producer.send(0).await, Ok(Sent::Kept));
    let short = timeout(Duration::from_millis(10), producer.send(1));
    let other = producer.clone();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { other.send(2).await });
    assert!(short.await.is_err(), "there is no room");
    assert_eq!(consumer.next().await.unwrap().item, 0);
    let sent = timeout(PATIENCE, waiting.join_next()).await.expect("it is woken");
    assert_eq!(sent.unwrap().unwrap(), Ok(Sent::Kept));
    assert_eq!(consumer.next().await.unwrap().item, 2);
}

#[tokio::test(start_paused = true)]
async fn a_paused_consumer_gets_nothing_and_goes_on_with_the_latest() {
    let (producer, mut consumer) = Controller::new(100, Strategy::Sliding { keep: 3 }).stream();
    let control = consumer.control();
    assert!(control.pause().is_empty() && control.is_paused());
    for item in 0..10 {
        drop(producer.send(item).await.unwrap());
    }
    assert!(timeout(PATIENCE, consumer.next()).await.is_err(), "paused is paused");
    control.resume();
    let next = timeout(PATIENCE, consumer.next()).await.expect("it is woken").unwrap();
    assert_eq!(next, Taken { item: 7, missed: 7 });
    assert_eq!(control.metrics().current_depth, 2);
}

#[tokio::test(start_paused = true)]
async fn producers_that_wait_hear_that_the_consumer_has_left() {
    let (producer, consumer) = Controller::new(1, Strategy::Block).stream();
    assert_eq!(producer.send(0).await, Ok(Sent::Kept));
    let mut sending = JoinSet::new();
    for item in 1..4 {
        let producer = producer.clone();
        sending.spawn(async move { producer.send(item).await });
    }
    sleep(Duration::from_secs(1)).await;
    drop(consumer);
    for _ in 1..4 {
        let sent = timeout(PATIENCE, sending.join_next()).await.expect("it is told");
        assert!(matches!(sent.unwrap().unwrap(), Err(Closed(1..4))));
    }
    assert_eq!(producer.metrics().dropped_count.left, 1);
    assert_eq!(producer.offer(9), Verdict::Closed(9));
}

/// On threads, and in real time: whoever waits for room that is there waits for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_sleeps_through_room_that_others_make() {
    let (producer, mut consumer) = Controller::new(2, Strategy::Block).stream();
    let mut producers = JoinSet::new();
    for _ in 0..8 {
        let producer = producer.clone();
        producers.spawn(async move {
            for item in 0..1_000 {
                assert_eq!(producer.send(item).await, Ok(Sent::Kept));
            }
        });
    }
    drop(producer);
    let all = async {
        let mut count = 0;
        while consumer.next().await.is_ok() {
            count += 1;
        }
        count
    };
    // 8,000 items take no second; the rest is for a machine that has other things to do.
    let count = timeout(Duration::from_secs(120), all).await.expect("nobody sleeps");
    assert_eq!(count, 8_000);
}
