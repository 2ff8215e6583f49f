//! Texts as ClickHouse 26.7 writes them.

use super::*;

fn row(name: &str, engine: &str, engine_full: &str, query: &str, views: &[&str]) -> Row {
    Row {
        database: "m".to_owned(),
        name: name.to_owned(),
        uuid: "09b96680-c1ae-4a6b-92fa-880a20a510d0".to_owned(),
        engine: engine.to_owned(),
        engine_full: engine_full.to_owned(),
        partition_key: String::new(),
        sorting_key: "a".to_owned(),
        create_table_query: query.to_owned(),
        dependencies_database: views.iter().map(|_| "m".to_owned()).collect(),
        dependencies_table: views.iter().map(|view| (*view).to_owned()).collect(),
    }
}

fn at(name: &str) -> Place {
    Place { database: "m".to_owned(), name: name.to_owned() }
}

fn server() -> Defaults {
    defaults(
        "{\"kind\":\"single\",\"name\":\"non_replicated_deduplication_window\",\"value\":\"3\"}\n\
         {\"kind\":\"replicated\",\"name\":\"replicated_deduplication_window\",\"value\":\"10000\"}\n\
         {\"kind\":\"replicated\",\"name\":\"replicated_deduplication_window_seconds\",\"value\":\"3600\"}\n",
    )
    .unwrap()
}

fn window_of(engine: &str, engine_full: &str) -> Option<Window> {
    window(&row("t", engine, engine_full, "", &[]), &server())
}

#[test]
fn the_window_is_the_tables_own_or_the_servers() {
    let own = "MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 77, \
               index_granularity = 8192";
    assert_eq!(window_of("MergeTree", own), Some(Window { entries: 77, seconds: None }));
    let none = "MergeTree ORDER BY a SETTINGS index_granularity = 8192";
    assert_eq!(window_of("MergeTree", none), Some(Window { entries: 3, seconds: None }));
    assert_eq!(
        window_of("ReplicatedMergeTree", own),
        Some(Window { entries: 10_000, seconds: Some(3600) })
    );
    let shared = "SharedMergeTree ORDER BY a SETTINGS replicated_deduplication_window_seconds = 9";
    assert_eq!(
        window_of("SharedMergeTree", shared),
        Some(Window { entries: 10_000, seconds: Some(9) })
    );
    assert_eq!(window_of("Memory", "Memory"), None);
}

#[test]
fn a_setting_inside_a_text_is_none() {
    let full = "MergeTree PARTITION BY ' SETTINGS non_replicated_deduplication_window = 7, ' \
                ORDER BY a SETTINGS index_granularity = 8192";
    assert_eq!(window_of("MergeTree", full), Some(Window { entries: 3, seconds: None }));
}

#[test]
fn a_view_writes_to_the_table_it_names_or_to_one_of_its_own() {
    let target = |query: &str| row("v", "MaterializedView", "", query, &[]).target().unwrap();
    let other = Place { database: "x".to_owned(), name: "agg".to_owned() };
    let named = "CREATE MATERIALIZED VIEW m.v TO x.agg (`k` UInt8) AS SELECT k FROM m.t";
    assert_eq!(target(named), other);
    let odd = "CREATE MATERIALIZED VIEW m.`v TO (x` TO m.`we.ir\\`d` (`a` UInt32) AS SELECT a";
    assert_eq!(target(odd), at("we.ir`d"));
    let own = "CREATE MATERIALIZED VIEW m.v (`k` UInt8) ENGINE = MergeTree ORDER BY k TTL d TO \
               DISK 'cold' AS SELECT k FROM m.agg";
    assert_eq!(target(own), at(".inner_id.09b96680-c1ae-4a6b-92fa-880a20a510d0"));
    let mut old = row("v", "MaterializedView", "", own, &[]);
    old.uuid = "00000000-0000-0000-0000-000000000000".to_owned();
    assert_eq!(old.target(), Some(at(".inner.v")));
    assert_eq!(row("t", "MergeTree", "", named, &[]).target(), None);
}

#[test]
fn facts_follow_the_views_and_say_what_is_hidden() {
    let mut answers = Answers::with(server());
    answers.columns = vec!["_topic".to_owned(), "_partition".to_owned(), "_offset".to_owned()];
    let view = |name, to| {
        let query = format!("CREATE MATERIALIZED VIEW m.{name} TO m.{to} (`a` UInt8) AS SELECT 1");
        row(name, "MaterializedView", "", &query, &[])
    };
    let plain = "MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 0";
    answers.keep(vec![
        row("t", "MergeTree", "MergeTree ORDER BY a", "", &["v", "w", "unseen"]),
        view("v", "u"),
        row("u", "MergeTree", plain, "", &["back"]),
        view("back", "t"),
        view("w", "nowhere"),
    ]);
    let found = facts(&at("t"), &answers).unwrap();
    assert!(found.positions.locate_kafka() && !found.positions.seq);
    let reached: Vec<_> = found.reached().iter().map(|table| table.place.name.clone()).collect();
    assert_eq!(reached, ["t", "u"]);
    assert_eq!(found.views[1].target, Target::Hidden(at("nowhere")));
    assert_eq!(found.views[2].target, Target::Unknown);
    assert_eq!(facts(&at("x"), &answers), None);
}

#[test]
fn only_what_deletes_is_a_time_to_live() {
    let of = |text: &str| ttl(&format!("MergeTree ORDER BY a TTL {text} SETTINGS x = 1"));
    let day = "toDateTime(t, 'UTC') + toIntervalDay(1)";
    assert_eq!(of(day).as_deref(), Some(day));
    assert_eq!(of(&format!("{day} TO VOLUME 'cold'")), None);
    assert_eq!(
        of(&format!("d TO DISK 'x', {day} DELETE WHERE s = ' TO DISK '")).as_deref(),
        Some("toDateTime(t, 'UTC') + toIntervalDay(1) DELETE WHERE s = ' TO DISK '")
    );
    assert_eq!(ttl("MergeTree ORDER BY a SETTINGS x = 1"), None);
}

#[test]
fn the_number_of_blocks_is_the_tables_or_the_sum_of_its_partitions() {
    let line = |engine: &str| {
        format!(r#"{{"single":"9","replicated":"12","engine":"{engine}","partitions":"2"}}"#)
    };
    assert_eq!(block_number(&line("ReplacingMergeTree")).unwrap(), Some(9));
    assert_eq!(block_number(&line("ReplicatedMergeTree")).unwrap(), Some(12));
    assert_eq!(block_number(&line("")).unwrap(), None);
}

#[test]
fn the_version_is_the_column_among_the_engines_arguments() {
    assert_eq!(version("ReplacingMergeTree ORDER BY (a, b)"), None);
    assert_eq!(version("ReplacingMergeTree(v, gone) ORDER BY a").as_deref(), Some("v"));
    let replicated = "ReplicatedReplacingMergeTree('/x/{shard}', '{replica}', v) ORDER BY a";
    assert_eq!(version(replicated).as_deref(), Some("v"));
    let replicated = "ReplicatedReplacingMergeTree('/x/{shard}', '{replica}') ORDER BY a";
    assert_eq!(version(replicated), None);
}
