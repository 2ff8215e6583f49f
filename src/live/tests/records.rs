//! What routes carry: from the owner's chunks to subscribers.

use super::*;

#[tokio::test]
async fn what_a_route_carries_is_seen_by_those_who_listen() {
    let live = live_with("queue_size = 300");
    let (mut tap, feed) = tapped(&live, None);
    let one = subscribe(&live, json!({ "topic": "candles" })).await;
    admit(&mut tap, &chunk(0..200));
    admit(&mut tap, &chunk(200..201));
    fed(tap, feed).await;
    let expected: Vec<String> = (0..201).map(|n: u64| n.to_string()).collect();
    assert_eq!(seen(&one), expected);
    assert_eq!(topic(&live, "candles").messages, 201);
}

#[tokio::test]
async fn what_came_before_anybody_listened_is_replayed_and_keeps_little_memory() {
    let live = live_with("replay = 3");
    let (mut tap, feed) = tapped(&live, None);
    let large = chunk(0..1_000);
    admit(&mut tap, &large);
    admit(&mut tap, &chunk(1_000..1_001));
    fed(tap, feed).await;
    assert_eq!(Arc::strong_count(&large), 1, "nothing of it is kept for three of a thousand");
    let status = topic(&live, "candles");
    assert_eq!((status.messages, status.replay_depth), (1_001, 3));
    let late = subscribe(&live, json!({ "topic": "candles", "last_n": 10 })).await;
    assert_eq!(seen(&late), ["998", "999", "1000"]);
}

#[tokio::test]
async fn sub_topics_are_made_by_key_and_patterns_find_those_that_come_later() {
    let live = live_with("max_topics = 2");
    let (mut tap, feed) = tapped(&live, Some("@key"));
    let whole = subscribe(&live, json!({ "topic": "candles" })).await;
    let keys = subscribe(&live, json!({ "topic": "candles/*" })).await;
    admit(&mut tap, &chunk(0..4));
    fed(tap, feed).await;
    assert_eq!(seen(&whole), ["0", "1", "2", "3"]);
    assert_eq!(seen(&keys), ["0", "2"], "there was room for one more topic");
    let k0 = subscribe(&live, json!({ "topic": "candles/k0", "last_n": 9 })).await;
    let mail = mail(&k0);
    assert_eq!((mail.len(), &mail[1]["topic"]), (3, &json!("candles/k0")));
    assert_eq!(live.owner("candles/k0"), Some(Owner::Key));
}

/// One record of this key.
fn keyed(tap: &mut Tap, key: &str) {
    let mut chunk = Chunk::with_capacity(0, 1, 100);
    let (key, payload) = (Some(key.as_bytes()), Some(&b"1"[..]));
    chunk.push(NewRecord { subject: "s", key, payload, ..NewRecord::default() }, []);
    admit(tap, &Arc::new(chunk));
}

fn names(live: &Live) -> Vec<String> {
    live.topics().iter().map(|topic| topic.name.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_new_key_takes_the_place_of_the_one_that_had_nothing_for_the_longest() {
    let live = live_with("max_topics = 4");
    let (mut tap, feed) = tapped(&live, Some("@key"));
    let mut running = tokio::task::JoinSet::new();
    running.spawn(feed.run());
    let named = |key: &'static str| subscribe(&live, json!({ "topic": format!("candles/{key}") }));
    for key in ["a", "b", "c"] {
        keyed(&mut tap, key);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let (of_a, all) = (named("a").await, subscribe(&live, json!({ "topic": "candles/*" })).await);
    keyed(&mut tap, "d");
    tokio::time::sleep(Duration::from_secs(58)).await;
    assert_eq!(names(&live), ["candles", "candles/a", "candles/b", "candles/c"], "none is idle");
    assert_eq!(live.keyless(), 1);
    keyed(&mut tap, "b");
    tokio::time::sleep(Duration::from_secs(5)).await;
    keyed(&mut tap, "d");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(names(&live), ["candles", "candles/a", "candles/b", "candles/d"], "c had to go");
    keyed(&mut tap, "c");
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(live.keyless(), 2, "a is subscribed to by its name, b and d had something");
    keyed(&mut tap, "c");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(names(&live), ["candles", "candles/a", "candles/c", "candles/d"]);
    let events = |session: &Session| mail(session).iter().filter(|m| m["type"] == "event").count();
    assert_eq!((events(&of_a), events(&all)), (0, 3), "b, d and c, and no word of who went");
    drop((tap, of_a));
    timeout(Duration::from_secs(10), running.join_next()).await.unwrap();
}

#[tokio::test]
async fn what_the_feed_cannot_take_is_counted_and_told_and_the_owner_never_waits() {
    let live = live_with("");
    let (mut tap, feed) = tapped(&live, None);
    let one = subscribe(&live, json!({ "topic": "candles" })).await;
    // Nobody takes; this is no async function: it cannot wait.
    for n in 0..300 {
        admit(&mut tap, &chunk(n..n + 1));
    }
    assert_eq!(topic(&live, "candles").overrun, 44);
    fed(tap, feed).await;
    let seen = seen(&one);
    assert_eq!((seen.len(), &*seen[1], &*seen[256]), (257, "\"dropped\" 44", "255"));
    let status = topic(&live, "candles");
    assert_eq!((status.messages, status.overrun, status.dropped), (300, 44, 44));
}

#[tokio::test(start_paused = true)]
async fn those_who_listen_to_parts_are_told_too_each_once_and_at_once() {
    let live = live_with("");
    let (mut tap, feed) = tapped(&live, Some("@key"));
    keyed(&mut tap, "a");
    keyed(&mut tap, "b");
    let mut running = tokio::task::JoinSet::new();
    running.spawn(feed.run());
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut all = Vec::new();
    for topic in ["candles", "candles/a", "candles/*", "*/*", "other/*"] {
        all.push(subscribe(&live, json!({ "topic": topic })).await);
    }
    for _ in 0..300 {
        keyed(&mut tap, "b");
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    for (session, expected) in all.iter().zip([(256, 1), (0, 1), (256, 1), (256, 1), (0, 0)]) {
        let seen = seen(session);
        let told = seen.iter().filter(|said| *said == "\"dropped\" 44").count();
        assert_eq!((seen.len() - told, told), expected, "{seen:?}");
    }

    // Nothing comes behind what is lost last.
    let large = Arc::new(heavy(4, 3_000_000));
    admit(&mut tap, &large);
    admit(&mut tap, &large);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(seen(&all[1]), ["\"dropped\" 4"]);
    drop(tap);
    timeout(Duration::from_secs(10), running.join_next()).await.unwrap();
}

/// Records of so many bytes each.
fn heavy(count: usize, bytes: usize) -> Chunk {
    let mut chunk = Chunk::with_capacity(0, count, count * (bytes + 1));
    let payload = vec![b'x'; bytes];
    for _ in 0..count {
        let payload = Some(&*payload);
        chunk.push(NewRecord { subject: "s", payload, ..NewRecord::default() }, []);
    }
    chunk
}

#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_to_the_feed_has_a_weight() {
    let live = live_with("");
    let (mut tap, feed) = tapped(&live, None);
    let chunks: Vec<_> = (0..5).map(|_| Arc::new(heavy(4, 1_500_000))).collect();
    chunks.iter().for_each(|chunk| admit(&mut tap, chunk));
    assert_eq!(topic(&live, "candles").overrun, 12, "16 MiB are two of 6 MB, and no third");
    let mut running = tokio::task::JoinSet::new();
    running.spawn(feed.run());
    tokio::time::sleep(Duration::from_secs(1)).await;
    admit(&mut tap, &chunks[0]);
    drop(tap);
    timeout(Duration::from_secs(10), running.join_next()).await.unwrap();
    let status = topic(&live, "candles");
    assert_eq!((status.messages, status.overrun), (24, 12), "what has arrived weighs nothing");
}

#[tokio::test]
async fn what_nobody_listens_to_weighs_no_more_than_a_queue_and_keeps_nobody_waiting() {
    #[derive(Debug)]
    struct Deaf;
    impl crate::receipt::Receipt for Deaf {
        fn note(&self, _: crate::receipt::Outcome, _: usize) {}
    }
    let live = live_with("");
    let (mut tap, feed) = tapped(&live, None);
    let large = Arc::new(heavy(10, 500_000));
    admit(&mut tap, &large);
    let receipt = Arc::new(Deaf);
    let waited_for = heavy(3, 100).with_receipt(Arc::clone(&receipt) as _);
    admit(&mut tap, &Arc::new(waited_for));
    fed(tap, feed).await;
    assert_eq!(Arc::strong_count(&large), 1, "2 of 10 are a copy");
    assert_eq!(topic(&live, "candles").replay_depth, 5, "of 1 MiB: 2 of 500 kB, and the 3");
    assert_eq!(Arc::strong_count(&receipt), 1, "its publisher waits for nothing that is kept here");
}

#[tokio::test]
async fn who_takes_at_once_loses_nothing_of_what_comes_at_once() {
    for (more, chunk) in
        [("queue_size = 3", chunk(0..500)), ("queue_bytes = '64KiB'", Arc::new(heavy(100, 10_000)))]
    {
        let live = live_with(more);
        let (mut tap, feed) = tapped(&live, None);
        let one = subscribe(&live, json!({ "topic": "candles" })).await;
        admit(&mut tap, &chunk);
        let taking = async {
            let (mut taken, mut texts) = (0, Vec::new());
            while taken <= chunk.len() {
                one.mailbox().next(&mut texts, 1_000, || "now".to_owned()).await.unwrap();
                taken += texts.len();
                texts.clear();
            }
            taken
        };
        let all = async { tokio::join!(fed(tap, feed), taking) };
        let ((), taken) = timeout(Duration::from_secs(10), all).await.unwrap();
        assert_eq!(taken, chunk.len() + 1, "{more}: and the ack");
        assert_eq!(topic(&live, "candles").dropped, 0, "{more}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_room_gets_that_of_one_who_leaves() {
    let live = live_with("queue_size = 1\nblock_timeout = '5s'");
    live.create("t", TopicOptions::default()).unwrap();
    let full = subscribe(&live, json!({ "topic": "t" })).await;
    publish(&live, "t", 0..1);
    let (to, raw) = (live.topic_of_user("t").unwrap(), serde_json::value::RawValue::NULL);
    let began = tokio::time::Instant::now();
    let leaving = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        drop(full);
    };
    let (published, ()) = tokio::join!(live.publish_when_room(&to, Uuid::nil(), raw), leaving);
    assert_eq!(published, Ok(Published { subscribers: 0, dropped: 0 }));
    assert_eq!(began.elapsed(), Duration::from_millis(10));
}

#[tokio::test]
async fn the_last_losses_are_told_before_the_farewell() {
    let live = live_with("queue_size = 1");
    live.create("t", TopicOptions::default()).unwrap();
    let newest = json!({ "topic": "t", "policy": "drop_newest" });
    let (one, two) = (subscribe(&live, newest.clone()).await, subscribe(&live, newest).await);
    publish(&live, "t", 0..6);
    assert_eq!(seen(&two), ["0", "\"dropped\" 5"]);
    assert_eq!(live.delete("t"), Ok(()));
    assert_eq!(seen(&one), ["0", "\"dropped\" 5", "\"topic_deleted\" null"]);
    assert_eq!(seen(&two), ["\"topic_deleted\" null"]);
}

#[tokio::test]
async fn what_is_under_a_routes_name_is_the_routes() {
    let live = live_with("");
    let under = live.create("candles/EURUSD", TopicOptions::default());
    assert!(matches!(under, Err(Refusal::Invalid(why)) if why.contains("candles is a route")));
    live.create("bars/1m", TopicOptions::default()).unwrap();
    let (mut tap, _feed) = tapped(&live, None);
    let route = RouteTopic { name: "bars".to_owned(), key: None };
    tap.lay_routes([(RouteId(1), route)].into_iter());
    assert_eq!(names(&live), ["bars"], "a route that comes takes its names");
}

#[tokio::test]
async fn sub_topics_go_with_the_key_that_made_them() {
    let live = live_with("");
    let with = |key: Option<&str>| {
        let key = key.map(|key| Arc::new(key.parse().unwrap()));
        [(RouteId(0), RouteTopic { name: "candles".to_owned(), key })].into_iter()
    };
    for (next, left) in [(Some("@key"), 3), (Some("@subject"), 1), (None, 1)] {
        let (mut first, feed) = tapped(&live, Some("@key"));
        admit(&mut first, &chunk(0..2));
        fed(first, feed).await;
        assert_eq!(names(&live).len(), 3);
        let (mut again, _feed) = tap(&live);
        again.lay_routes(with(next));
        assert_eq!(names(&live).len(), left, "{next:?}");
    }
}
