//! Nothing that stands in a record, and no name in a table, becomes part of a statement.

use crate::lab::{Lab, assert_accounts, settled};

/// What would end a quoted name, a string or a statement.
const HOSTILE: &str = "`x`) VALUES ('1'); DROP TABLE bystander; -- \\' \" ` \\";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_columns_keys_and_values_are_only_stored() {
    let lab = Lab::new().await;
    let sql = |name: &str| format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"));
    let (column, topic) = (sql(HOSTILE), lab.topic("hostile"));
    lab.clickhouse.query("CREATE TABLE bystander (n UInt8) ENGINE = MergeTree ORDER BY n").await;
    for table in ["typed", "passed"] {
        let statement = format!(
            "CREATE TABLE {table} (n UInt64, {column} String, k String) ENGINE = MergeTree ORDER BY n"
        );
        lab.clickhouse.query(&statement).await;
    }
    lab.create_topics(&[topic.clone(), format!("{topic}.json")], 1).await;
    let routes = format!(
        "[[routes]]\nname = \"typed\"\nkafka_topics = [\"{topic}\"]\ntable = \"typed\"\n\
         [routes.columns]\nk = \"@key\"\n\
         [[routes]]\nname = \"passed\"\nkafka_topics = [\"{topic}.json\"]\ntable = \"passed\"\n\
         format = \"json\"\n"
    );
    let bridge = lab.start(&(lab.sections("kafka") + &routes), "").await;
    let sender = lab.kafka();
    for n in 0..10 {
        let good = serde_json::json!({ "n": n, HOSTILE: HOSTILE, "k": HOSTILE }).to_string();
        let bad = serde_json::json!({ "n": HOSTILE, HOSTILE: HOSTILE }).to_string();
        for (topic, payload) in [(&topic, &good), (&topic, &bad), (&format!("{topic}.json"), &good)]
        {
            sender.send(topic, Some(0), Some(HOSTILE.as_bytes()), Some(payload.as_bytes()));
        }
    }
    sender.flush().await;
    let health = bridge.wait_until("all settled", |health| settled(health, "kafka", 30)).await;
    assert_accounts(&health);
    assert_eq!(health["metrics"]["sources"]["kafka"]["inserted"], 20, "{health:#}");
    assert_eq!(health["metrics"]["sources"]["kafka"]["dead_lettered"], 10, "{health:#}");
    let text = format!("'{}'", HOSTILE.replace('\\', "\\\\").replace('\'', "\\'"));
    for table in ["typed", "passed"] {
        let same = format!("SELECT count() FROM {table} WHERE {column} = {text} AND k = {text}");
        assert_eq!(lab.clickhouse.number(&same).await, 10, "{table}");
    }
    let kept = format!("SELECT count() FROM dead_letters WHERE key = {text}");
    assert_eq!(lab.clickhouse.number(&kept).await, 10);
    assert_eq!(lab.clickhouse.number("SELECT count() FROM bystander").await, 0, "it is there");
    bridge.stop().await;
}
