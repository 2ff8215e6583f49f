//! How the service that this one replaces failed (domain.md, section 5): the rows that only real
//! servers can show. Each test has the row's number in its name.

use data_bridge::generate::{Kind, Plan, Recipe, Target, record};
use serde_json::{Value as Json, json};

use crate::bridge::{PATIENCE, program};
use crate::lab::{Lab, assert_accounts, number, settled};

async fn profile_lab() -> Lab {
    let lab = Lab::new().await;
    lab.profile_tables().await;
    lab.profile_topics().await;
    lab
}

async fn publish(lab: &Lab, messages: &[(&str, &Json)]) {
    let client = lab.nats().await;
    for (subject, message) in messages {
        client.publish(lab.subject(subject), message.to_string().into()).await.unwrap();
    }
    client.flush().await.unwrap();
}

/// Row 9: one message matched two subscriptions and also became a zero-price candle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failure_09_a_record_that_two_subscriptions_match_is_handled_once() {
    let lab = profile_lab().await;
    let config = lab.profile("kafka nats");
    // `market.*.*` and `market.external.>` overlap already; now everything does
    let wider = config.replace(
        &format!("nats_subjects = [\"{}.market.*.*\"", lab.name),
        &format!("nats_subjects = [\"{0}.market.>\", \"{0}.market.*.*\"", lab.name),
    );
    assert_ne!(config, wider);
    let bridge = lab.start(&wider, "").await;
    let gold = json!({
        "data": { "symbol": "GC=F", "name": "Gold", "currency": "USD", "price": 2000.5,
                  "updated_at": "2026-01-01T00:00:00Z" },
        "metadata": { "timestamp": "2026-01-01T00:00:00Z" },
    });
    let unknown = json!({ "data": {}, "metadata": {} });
    for _ in 0..50 {
        publish(
            &lab,
            &[
                ("market.external.commodity_prices", &gold),
                ("market.external.tick", &unknown),
                ("market.external.never.heard.of", &unknown),
            ],
        )
        .await;
    }
    let health = bridge.wait_until("all is settled", |h| settled(h, "nats", 150)).await;
    assert_accounts(&health);
    assert_eq!(health["metrics"]["sources"]["nats"]["received"], 150, "{health:#}");
    let routes = &health["metrics"]["routes"];
    assert_eq!(routes["commodity_prices"]["inserted"], 50, "{routes:#}");
    assert_eq!(routes["unknown_external"]["received"], 100, "{routes:#}");
    assert_eq!(routes["candles"]["received"], 0, "{routes:#}");
    assert_eq!(routes["ticks"]["received"], 0, "{routes:#}");
    assert_eq!(lab.clickhouse.number("SELECT count() FROM aggregates").await, 0);
    assert_eq!(lab.clickhouse.number("SELECT count() FROM dead_letters").await, 0);
    bridge.stop().await;
}

/// Row 10: the first version of a candle won, the final one was discarded; ML columns were written
/// as 0.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failure_10_the_last_version_of_a_candle_wins_and_its_indicators_are_stored() {
    let lab = profile_lab().await;
    let recipe = Recipe { revisions: 5, ..Recipe::new(10) };
    let wanted = [(Target::Kafka, Kind::Candles, 4_500), (Target::Nats, Kind::Candles, 4_500)];
    let plan = Plan::new(recipe, 0, &wanted);
    let bridge = lab.start(&lab.profile("kafka nats"), "").await;
    tokio::join!(lab.send_to_kafka(&plan), lab.send_to_nats(&plan, 5_000));
    let stored = |h: &Json| settled(h, "kafka", 4_500) && settled(h, "nats", 4_500);
    bridge.wait_until("all is stored", stored).await;
    lab.assert_exact(&plan).await;
    // early versions come again, late
    let again = Plan { streams: vec![plan.streams[0]], ..plan.clone() };
    let early = Plan {
        streams: vec![data_bridge::generate::Stream { count: 90, ..again.streams[0] }],
        ..again
    };
    lab.send_to_kafka(&early).await;
    bridge.wait_until("they are stored", |h| settled(h, "kafka", 4_590)).await;
    let bars = "SELECT count() FROM aggregates FINAL";
    assert_eq!(lab.clickhouse.number(bars).await, 1_800);
    assert_eq!(lab.clickhouse.number(&format!("{bars} WHERE is_complete = 0")).await, 0);
    assert_indicators(&lab, &recipe).await;
    bridge.stop().await;
}

/// The indicators of finished bars are what was sent, each of them.
async fn assert_indicators(lab: &Lab, recipe: &Recipe) {
    let mut seen = 0;
    for seq in (0..4_500).filter(|seq| seq / 18 % 5 == 4) {
        let mut payload = Vec::new();
        recipe.write(Kind::Candles, seq, &mut payload);
        let sent: Json = serde_json::from_slice(&payload).unwrap();
        let Some(sent) = sent["indicators"].as_object().filter(|sent| !sent.is_empty()) else {
            continue;
        };
        seen += 1;
        if seen > 20 {
            return;
        }
        let sql = format!("SELECT indicators FROM aggregates FINAL WHERE _seq = {seq}");
        let stored = lab.clickhouse.row(&sql).await;
        let stored = stored["indicators"].as_object().unwrap();
        assert_eq!(stored.len(), sent.len(), "{seq}");
        for (name, value) in sent {
            assert_eq!(stored[name].as_f64(), value.as_f64(), "{seq} {name}");
        }
    }
    assert!(seen > 0, "no bar with indicators was sent");
}

/// Row 12: a null price became 0.0, "All day" became now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failure_12_what_is_null_stays_null_and_all_day_stays_a_word() {
    let lab = profile_lab().await;
    let metadata = json!({ "type": "t", "timestamp": "2026-01-02T03:04:05.678901Z" });
    let price = json!({
        "data": { "symbol": "GC=F", "name": "Gold", "currency": "USD", "price": null,
                  "volume": null, "updated_at": "2026-01-01T00:00:00Z" },
        "metadata": metadata,
    });
    let event = json!({
        "data": { "date": "2025-10-06", "time": "All day", "currency": "JPY", "event": "Holiday",
                  "forecast": null, "impact": null },
        "metadata": metadata,
    });
    let series = json!({
        "data": { "series_id": "GDP", "value": null, "date": "2025-Q1",
                  "updated_at": "2026-01-01T00:00:00Z" },
        "metadata": metadata,
    });
    let bridge = lab.start(&lab.profile("kafka nats"), "").await;
    publish(
        &lab,
        &[
            ("market.external.commodity_prices", &price),
            ("market.external.economic_calendar", &event),
            ("market.external.fred_economic", &series),
        ],
    )
    .await;
    let kafka = lab.kafka();
    for (topic, message) in
        [("commodity_prices", &price), ("economic_calendar", &event), ("fred_economic", &series)]
    {
        let topic = lab.topic(&format!("market.external.{topic}"));
        kafka.send(&topic, None, None, Some(message.to_string().as_bytes()));
    }
    kafka.flush().await;
    let stored = |h: &Json| settled(h, "kafka", 3) && settled(h, "nats", 3);
    let health = bridge.wait_until("all is stored", stored).await;
    assert_eq!(health["metrics"]["dead_letters"], 0, "{health:#}");
    // the same over both: one row each after FINAL
    let row = lab.clickhouse.row("SELECT price, volume FROM commodity_prices FINAL").await;
    assert_eq!(row, json!({ "price": null, "volume": null }));
    let row = lab
        .clickhouse
        .row(
            "SELECT toString(event_date) AS date, event_time, forecast, impact, \
              toString(published_at) AS at FROM economic_calendar FINAL",
        )
        .await;
    let expected = json!({ "date": "2025-10-06", "event_time": "All day", "forecast": null,
                           "impact": null, "at": "2026-01-02 03:04:05.678901" });
    assert_eq!(row, expected);
    let row = lab.clickhouse.row("SELECT date, value FROM fred_economic FINAL").await;
    assert_eq!(row, json!({ "date": "2025-Q1", "value": null }));
    bridge.stop().await;
}

/// Row 14: three replicas with plain NATS subscriptions stored everything three times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failure_14_three_instances_store_everything_once() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let config = lab.numbers("kafka nats");
    let bridges = [
        lab.start(&config, "instance = \"one\"").await,
        lab.start(&config, "instance = \"two\"").await,
        lab.start(&config, "instance = \"three\"").await,
    ];
    tokio::join!(lab.numbers_to_nats(0..6_000, 3_000), lab.numbers_to_kafka(6_000..12_000, 5_000));
    lab.clickhouse.until("SELECT uniqExact(n) FROM numbers", 12_000).await;
    let mut received = Vec::new();
    for bridge in &bridges {
        let health = bridge.wait_until("nothing is held", |h| settled(h, "nats", 0)).await;
        received.push(number(&health["metrics"]["sources"]["nats"]["received"]));
    }
    for bridge in bridges {
        bridge.stop().await;
    }
    assert_eq!(lab.stored_numbers(&(0..12_000)).await, (12_000, 12_000));
    assert_eq!(received.iter().sum::<u64>(), 6_000, "{received:?}");
    assert!(received.iter().all(|&share| share > 0), "{received:?}");
}

/// Row 15: SQL was built from message content.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failure_15_content_is_never_sql() {
    let lab = profile_lab().await;
    let nasty = "x'); DROP TABLE ticks; -- \\' \" ` \\\\ \u{0} \u{1f4a5} %s {}\r\n\t";
    let tick = |seq: u64| {
        json!({ "symbol": nasty, "bid": "1.1", "ask": 1.2, "timestamp_ms": 1_700_000_000_000_u64 + seq,
                "source": nasty, "event_type": nasty, "_seq": seq })
    };
    let bridge = lab.start(&lab.profile("kafka nats"), "").await;
    let subject = "market.a'b\"c\\d`;--DROP.tick";
    publish(&lab, &[(subject, &tick(1)), (subject, &json!({ "symbol": nasty, "bid": nasty }))])
        .await;
    let (kafka, topic) = (lab.kafka(), lab.topic("tick_archive"));
    kafka.send(&topic, None, Some(nasty.as_bytes()), Some(tick(2).to_string().as_bytes()));
    kafka.send(&topic, None, Some(nasty.as_bytes()), Some(b"'"));
    kafka.flush().await;
    let stored = |h: &Json| settled(h, "kafka", 2) && settled(h, "nats", 2);
    let health = bridge.wait_until("all is stored", stored).await;
    assert_accounts(&health);
    for seq in [1, 2] {
        let sql = format!("SELECT symbol, source, event_type FROM ticks WHERE _seq = {seq}");
        let row = lab.clickhouse.row(&sql).await;
        assert_eq!(row, json!({ "symbol": nasty, "source": nasty, "event_type": nasty }));
    }
    let letter = "SELECT topic_or_subject, key, payload FROM dead_letters FINAL WHERE source =";
    let row = lab.clickhouse.row(&format!("{letter} 'nats'")).await;
    assert_eq!(row["topic_or_subject"], lab.subject(subject));
    let row = lab.clickhouse.row(&format!("{letter} 'kafka'")).await;
    assert_eq!(row["key"], nasty);
    assert_eq!(row["payload"], "'");
    bridge.stop().await;
}

/// Row 17: `/health` was documented and did not exist; the container check tested the
/// dependencies, not the bridge.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failure_17_health_is_that_of_the_bridge_itself() {
    let lab = Lab::with_own_clickhouse().await;
    lab.numbers_places().await;
    let mut bridge = lab.start(&lab.numbers("kafka nats"), "").await;
    let url = format!("http://{}", bridge.address());
    let once = async || {
        let command = program().args(["health", "--url", &url]).output();
        tokio::time::timeout(PATIENCE, command).await.unwrap().unwrap().status.code()
    };
    // A busy machine may be silent for the 3 s that the command waits: it is asked once more.
    let check = async || match once().await {
        Some(1) => once().await,
        code => code,
    };
    bridge.wait_until("it is healthy", |h| h["status"] == "healthy").await;
    assert_eq!(check().await, Some(0));
    // what it depends on goes away; it does not
    lab.kill_clickhouse().await;
    lab.numbers_to_kafka(0..100, u64::MAX).await;
    bridge.wait_until("it notices", |h| h["status"] == "degraded").await;
    assert_eq!(check().await, Some(0));
    for page in ["/health", "/livez", "/readyz"] {
        assert_eq!(bridge.status(page).await.unwrap(), 200, "{page}");
    }
    // it stands still, with its port open
    bridge.signal("STOP");
    assert_eq!(check().await, Some(1));
    bridge.signal("CONT");
    bridge.wait_until("it goes on", |h| h["status"] == "degraded").await;
    bridge.kill().await;
    assert_eq!(check().await, Some(1));
}

/// Row 18: 178-fold duplicates from gap filling; 23.7 % duplicate ticks from reconnects.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failure_18_what_comes_again_is_one_row() {
    let lab = profile_lab().await;
    let wanted = [(Target::Kafka, Kind::Candles, 3_600), (Target::Kafka, Kind::Ticks, 3_600)];
    let plan = Plan::new(Recipe::new(18), 0, &wanted);
    let bridge = lab.start(&lab.profile("kafka nats"), "").await;
    for _ in 0..3 {
        lab.send_to_kafka(&plan).await;
    }
    // and the same over the other transport
    let client = lab.nats().await;
    for seq in 0..3_600 {
        for kind in [Kind::Candles, Kind::Ticks] {
            let subject = lab.subject(&plan.recipe.nats_subject(kind, seq));
            client.publish(subject, record(18, kind, seq).into()).await.unwrap();
        }
    }
    client.flush().await.unwrap();
    let stored = |h: &Json| settled(h, "kafka", 21_600) && settled(h, "nats", 7_200);
    bridge.wait_until("all is stored", stored).await;
    for line in lab.audit(&plan).await {
        for key in ["missing", "unexpected", "wrong"] {
            assert_eq!(number(&line[key]), 0, "{key}: {line}");
        }
    }
    for table in ["aggregates", "ticks"] {
        let sql = format!("SELECT count() FROM {table} FINAL");
        assert_eq!(lab.clickhouse.number(&sql).await, 3_600, "{table}");
    }
    bridge.stop().await;
}
