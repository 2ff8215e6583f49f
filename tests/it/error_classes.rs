//! What an error of ClickHouse means, class by class, with a real one: nothing is lost or called a
//! dead letter that should not be, somebody is told what to do, and once it is done work goes on
//! by itself. A wrong password, a missing table and changed columns are in `starting`; one bad row
//! among many in `faults`.

use std::time::Duration;

use serde_json::Value as Json;

use crate::bridge::Bridge;
use crate::faults::proxy::{Proxy, Wire};
use crate::lab::{Lab, assert_accounts, number, settled};

/// So many numbers are sent at a time.
const SENT: u64 = 1_000;

const BY_THOUSANDS: &str = "writers.aggregate = { batch_rows = 1000, linger = \"500ms\" }";

/// For tests that count inserts: a thousand are one batch, however slowly they come.
const WHOLE_THOUSANDS: &str = "writers.aggregate = { batch_rows = 1000, linger = \"60s\" }";

fn users(database: &str, profile: &str, grants: &[&str]) -> String {
    let grants: String = grants
        .iter()
        .map(|grant| format!("<query>GRANT {grant} ON {database}.*</query>"))
        .collect();
    format!(
        "<clickhouse>
           <profiles><default/><bridge>{profile}</bridge></profiles>
           <quotas><default/></quotas>
           <users>
             <default>
               <password></password><networks><ip>127.0.0.1</ip></networks>
               <profile>default</profile><quota>default</quota>
             </default>
             <bridge>
               <password>secret</password><networks><ip>127.0.0.1</ip></networks>
               <profile>bridge</profile><quota>default</quota>
               <grants>{grants}</grants>
             </bridge>
           </users>
         </clickhouse>"
    )
}

/// Restarts ClickHouse with these users: they can't be changed while it runs.
async fn restart(lab: &Lab, users: &str) {
    let file = lab.file("users.xml", users);
    lab.kill_clickhouse().await;
    let file = file.to_str().unwrap();
    tokio::task::block_in_place(|| {
        lab.own.as_ref().unwrap().run(&["start", "--users-file", file, "clickhouse"])
    });
}

fn reason(health: &Json) -> &str {
    health["metrics"]["routes"]["numbers"]["reason"].as_str().unwrap_or_default()
}

async fn all_is_stored_once(lab: &Lab, bridge: &Bridge, sent: u64) {
    let health = bridge.wait_until("all is stored", |h| settled(h, "kafka", sent)).await;
    assert_accounts(&health);
    assert_eq!(health["metrics"]["dead_letters"], 0, "{health:#}");
    assert_eq!(lab.stored_numbers(&(0..sent)).await, (sent, sent));
    bridge.wait_until("it is healthy", |h| h["status"] == "healthy").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_grant_a_readonly_user_and_a_memory_limit_are_waited_for() {
    let lab = Lab::with_own_clickhouse().await;
    lab.profile_tables().await; // among them the dead letters': this user may not create any
    lab.numbers_places().await;
    let well = users(&lab.name, "", &["ALL"]);
    restart(&lab, &well).await;
    let over = "clickhouse.user = \"bridge\"\nclickhouse.password = \"secret\"";
    let bridge = lab.start(&lab.numbers("kafka"), over).await;
    lab.numbers_to_kafka(0..SENT, u64::MAX).await;
    all_is_stored_once(&lab, &bridge, SENT).await;
    let needs = |h: &Json| h["needs_person"].to_string();
    let critical = |h: &Json, part: &str| h["status"] == "critical" && needs(h).contains(part);

    restart(&lab, &users(&lab.name, "", &["SELECT"])).await;
    lab.numbers_to_kafka(SENT..2 * SENT, u64::MAX).await;
    let told = |h: &Json| critical(h, "GRANT SELECT, INSERT ON");
    bridge.wait_until("a grant is missed", told).await;
    restart(&lab, &well).await;
    all_is_stored_once(&lab, &bridge, 2 * SENT).await;

    restart(&lab, &users(&lab.name, "<readonly>1</readonly>", &["ALL"])).await;
    lab.numbers_to_kafka(2 * SENT..3 * SENT, u64::MAX).await;
    let told = |h: &Json| critical(h, "may only read: set readonly = 0");
    bridge.wait_until("it may only read", told).await;
    restart(&lab, &well).await;
    all_is_stored_once(&lab, &bridge, 3 * SENT).await;

    let little =
        "<max_memory_usage>20000</max_memory_usage><max_untracked_memory>1</max_untracked_memory>";
    restart(&lab, &users(&lab.name, little, &["ALL"])).await;
    lab.numbers_to_kafka(3 * SENT..4 * SENT, u64::MAX).await;
    let told = |h: &Json| reason(h).contains("code 241") && h["status"] == "degraded";
    bridge.wait_until("it lacks memory", told).await;
    // overload is about all of ClickHouse
    bridge.wait_for_log("circuit breaker open").await;
    restart(&lab, &well).await;
    all_is_stored_once(&lab, &bridge, 4 * SENT).await;
    for part in ["user `bridge` lacks a privilege", "user `bridge` may only read"] {
        let logged = bridge.log_lines().into_iter().filter(|line| {
            line["level"] == "ERROR" && line["message"].as_str().unwrap_or_default().contains(part)
        });
        assert!(logged.count() >= 1, "{part}\n{}", bridge.log_tail());
    }
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_parts_of_one_table_are_waited_for_and_are_its_own_fault() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let bridge = lab.start(&lab.numbers("kafka"), WHOLE_THOUSANDS).await;
    lab.numbers_to_kafka(0..SENT, u64::MAX).await;
    all_is_stored_once(&lab, &bridge, SENT).await;
    let full = "parts_to_throw_insert = 1, parts_to_delay_insert = 1";
    lab.clickhouse.query(&format!("ALTER TABLE numbers MODIFY SETTING {full}")).await;
    lab.numbers_to_kafka(SENT..2 * SENT, u64::MAX).await;
    let refused = |h: &Json| {
        let failed = &h["metrics"]["writers"]["aggregate"]["failed_inserts"];
        reason(h).contains("Too many parts") && number(failed) >= 5
    };
    let health = bridge.wait_until("it is refused for a while", refused).await;
    assert_eq!(health["status"], "degraded", "{health:#}");
    assert_eq!(health["metrics"]["breaker"]["openings"], 0, "{health:#}");
    let full = "parts_to_throw_insert, parts_to_delay_insert";
    lab.clickhouse.query(&format!("ALTER TABLE numbers RESET SETTING {full}")).await;
    all_is_stored_once(&lab, &bridge, 2 * SENT).await;
    // nothing was cut up: two batches, two inserts
    let health = bridge.health().await;
    assert!(number(&health["metrics"]["writers"]["aggregate"]["inserts"]) <= 4, "{health:#}");
    bridge.stop().await;
}

/// Up to a thousand partitions in one insert, as many parts as there would be anyway; beyond that
/// the batch is halved, and each row lands once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_more_partitions_than_an_insert_may_have_land_all_the_same() {
    let lab = Lab::new().await;
    let table = "CREATE TABLE numbers (n UInt64, _partition Nullable(Int32), \
                 _offset Nullable(Int64)) ENGINE = MergeTree PARTITION BY n ORDER BY n \
                 SETTINGS non_replicated_deduplication_window = 10000";
    lab.clickhouse.query(table).await;
    lab.create_topics(&[lab.topic("numbers")], 6).await;
    let over = "writers.aggregate = { batch_rows = 2000, linger = \"2s\" }";
    let bridge = lab.start(&lab.numbers("kafka"), over).await;
    lab.numbers_to_kafka(0..300, u64::MAX).await;
    all_is_stored_once(&lab, &bridge, 300).await;
    let failed = |h: &Json| number(&h["metrics"]["writers"]["aggregate"]["failed_inserts"]);
    assert_eq!(failed(&bridge.health().await), 0, "one insert, of 300 partitions");
    lab.numbers_to_kafka(300..1_800, u64::MAX).await;
    all_is_stored_once(&lab, &bridge, 1_800).await;
    bridge.stop().await;
}

/// ClickHouse writes the table before its views: what fails in one of them is in the table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_fails_makes_no_dead_letters_and_no_row_twice() {
    let lab = Lab::new().await;
    lab.numbers_places().await;
    let target = "CREATE TABLE squares (n UInt64) ENGINE = MergeTree ORDER BY n \
                  SETTINGS non_replicated_deduplication_window = 1000";
    lab.clickhouse.query(target).await;
    let view = "CREATE MATERIALIZED VIEW squaring TO squares AS \
                SELECT n * n + throwIf(n = 777, 'no square of 777') AS n FROM numbers";
    lab.clickhouse.query(view).await;
    let bridge = lab.start(&lab.numbers("kafka"), BY_THOUSANDS).await;
    lab.numbers_to_kafka(0..SENT, u64::MAX).await;
    let told = |h: &Json| {
        let failed = &h["metrics"]["writers"]["aggregate"]["failed_inserts"];
        h["needs_person"].to_string().contains("squaring") && number(failed) >= 3
    };
    let health = bridge.wait_until("the view is named", told).await;
    assert_eq!(health["status"], "critical", "{health:#}");
    assert!(reason(&health).contains("correct or drop the view"), "{health:#}");
    assert_eq!(lab.stored_numbers(&(0..SENT)).await, (SENT, SENT), "already, and once");
    lab.clickhouse.query("ALTER TABLE squaring MODIFY QUERY SELECT n * n AS n FROM numbers").await;
    all_is_stored_once(&lab, &bridge, SENT).await;
    lab.clickhouse.until("SELECT count() FROM squares", SENT).await;
    bridge.stop().await;
}

/// Whether the first attempt landed cannot be told from a refusal of the second: columns are looked
/// at before tokens. The batch that is encoded anew keeps its token and its rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_that_goes_while_the_outcome_is_unknown_doubles_nothing() {
    let mut lab = Lab::new().await;
    let direct = lab.clickhouse.clone();
    let proxy = Proxy::before(&lab.at.clickhouse).await;
    lab.at.clickhouse = proxy.url();
    let table = "CREATE TABLE numbers (n UInt64, extra UInt64 DEFAULT 7, \
                 _partition Nullable(Int32), _offset Nullable(Int64)) ENGINE = MergeTree \
                 ORDER BY n SETTINGS non_replicated_deduplication_window = 1000";
    direct.query(table).await;
    lab.create_topics(&[lab.topic("numbers")], 6).await;
    // long enough for the column to go before the second attempt
    let over = format!("{WHOLE_THOUSANDS}\nclickhouse.insert_timeout = \"15s\"");
    let bridge = lab.start(&lab.numbers("kafka"), &over).await;
    proxy.inject(Wire::SwallowAnswer, 1);
    let sender = lab.kafka();
    for n in 0..SENT {
        let payload = format!("{{\"n\":{n},\"extra\":8}}");
        sender.send(&lab.topic("numbers"), Some(0), None, Some(payload.as_bytes()));
    }
    sender.flush().await;
    direct.until("SELECT count() FROM numbers", SENT).await;
    direct.query("ALTER TABLE numbers DROP COLUMN extra").await;
    all_is_stored_once(&lab, &bridge, SENT).await;
    let inserts = proxy.counts().inserts;
    assert_eq!(inserts, 3, "unanswered, refused for its columns, encoded anew");
    bridge.stop().await;
}

/// The same bytes that are refused for their values now were refused before: that is definite, and
/// the guilty row is found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_row_is_found_also_where_the_first_answer_was_lost() {
    let mut lab = Lab::new().await;
    let proxy = Proxy::before(&lab.at.clickhouse).await;
    lab.at.clickhouse = proxy.url();
    let table = "CREATE TABLE numbers (n UInt64, _partition Nullable(Int32), \
                 _offset Nullable(Int64), CONSTRAINT small CHECK n != 777) ENGINE = MergeTree \
                 ORDER BY n SETTINGS non_replicated_deduplication_window = 1000";
    lab.clickhouse.query(table).await;
    lab.create_topics(&[lab.topic("numbers")], 6).await;
    let over = format!("{BY_THOUSANDS}\nclickhouse.insert_timeout = \"2s\"");
    let bridge = lab.start(&lab.numbers("kafka"), &over).await;
    proxy.inject(Wire::SwallowAnswer, 2);
    lab.numbers_to_kafka(0..SENT, u64::MAX).await;
    let health = bridge.wait_until("all is settled", |h| settled(h, "kafka", SENT)).await;
    assert_eq!(health["metrics"]["dead_letters"], 1, "{health:#}");
    assert_eq!(lab.stored_numbers(&(0..SENT)).await, (SENT - 1, SENT - 1));
    bridge.stop().await;
}

/// An answer of 200 that carries an exception is a failure like any other, wherever it carries it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_200_with_an_exception_is_believed_to_be_a_failure() {
    let mut lab = Lab::new().await;
    lab.numbers_places().await;
    let proxy = Proxy::before(&lab.at.clickhouse).await;
    lab.at.clickhouse = proxy.url();
    let bridge = lab.start(&lab.numbers("kafka"), BY_THOUSANDS).await;
    proxy.inject(Wire::Exception200, 1);
    proxy.inject(Wire::ExceptionBody200, 1);
    lab.numbers_to_kafka(0..SENT, u64::MAX).await;
    tokio::time::timeout(Duration::from_secs(60), proxy.until_used_up()).await.unwrap();
    all_is_stored_once(&lab, &bridge, SENT).await;
    let health = bridge.health().await;
    let failed = &health["metrics"]["writers"]["aggregate"]["failed_inserts"];
    assert_eq!(number(failed), 2, "{health:#}");
    bridge.stop().await;
}
