//! The scenarios, run; and what people write.

use proptest::prelude::*;

use super::*;
use crate::flow::Strategy as Overflow;

fn scenario(name: &str) -> Scenario {
    built_in().into_iter().find(|scenario| scenario.name == name).expect("it is built in")
}

fn run(scenario: &Scenario) -> (Summary, Vec<Point>) {
    let mut simulation = Simulation::new(scenario, 42);
    simulation.advance(scenario.duration);
    assert!(simulation.is_over());
    let summary = simulation.summary();
    let Summary { came, delivered, dropped, waiting, in_buffer, .. } = &summary;
    assert_eq!(*came, delivered + dropped + waiting + in_buffer, "{summary:?}");
    assert_eq!(summary.dropped_by.values().sum::<u64>(), *dropped);
    assert!(summary.peak_depth <= summary.capacity, "{summary:?}");
    (summary, simulation.points().to_vec())
}

#[test]
fn block_loses_nothing_and_delivers_what_is_old() {
    let (summary, _) = run(&scenario("block"));
    assert_eq!((summary.came, summary.delivered, summary.dropped), (6_000, 600, 0));
    // In the last step one was taken after the last was offered.
    assert_eq!((summary.in_buffer, summary.waiting), (99, 6_000 - 600 - 99));
    assert!(summary.age_ms.unwrap().max > 50_000, "{summary:?}");
}

#[test]
fn drop_oldest_loses_nine_in_ten_and_delivers_what_is_new() {
    let (summary, _) = run(&scenario("drop-oldest"));
    assert_eq!((summary.came, summary.delivered, summary.waiting), (6_000, 600, 0));
    assert_eq!(summary.dropped_by["oldest"], 6_000 - 600 - 99);
    assert!(summary.age_ms.unwrap().max <= 1_100, "a buffer of a second: {summary:?}");
}

#[test]
fn aimd_keeps_the_buffer_from_filling_and_loses_nothing() {
    let (summary, points) = run(&scenario("adaptive"));
    assert_eq!(summary.dropped, 0);
    assert_eq!(summary.backpressure_events, 0, "it is never full: {summary:?}");
    let limits: Vec<_> = points.iter().map(|point| point.rate_limits[0]).collect();
    assert!(limits.windows(2).any(|pair| pair[1] < pair[0] * 0.6), "it is halved at times");
}

#[test]
fn a_bucket_never_lets_more_through_than_its_rate_and_burst() {
    let (summary, points) = run(&scenario("bursts"));
    assert_eq!((summary.came, summary.dropped), (3_000, 0));
    for point in &points {
        let most = 50.0 * point.seconds + 200.0;
        assert!(float(point.admitted) <= most + 1e-6, "{point:?}");
    }
    assert!(points.iter().any(|point| point.waiting > 300), "the rest of a burst waits");
}

#[test]
fn two_sources_end_with_equal_shares_of_what_there_is() {
    let (summary, _) = run(&scenario("fair-share"));
    let [one, other] = summary.rate_limits[..] else { panic!("{summary:?}") };
    assert!((one - other).abs() < 5.0, "{one} and {other}");
    assert!((one + other - 100.0).abs() < 10.0, "{one} and {other}");
}

#[test]
fn a_comparison_is_a_run_for_each_strategy_on_the_same_load() {
    let runs = scenario("compare").runs();
    let names: Vec<_> = runs.iter().map(|run| run.name.trim_start_matches("compare/")).collect();
    let mut all = Overflow::NAMES;
    all.sort_unstable();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, all);
    let results: Vec<_> = runs.iter().map(|scenario| run(scenario).0).collect();
    assert!(results.windows(2).all(|pair| pair[0].came == pair[1].came));
    for (name, summary) in names.iter().zip(&results) {
        let lossless = ["block", "adaptive"].contains(name);
        assert_eq!(summary.dropped == 0, lossless, "{name}: {summary:?}");
    }
}

#[test]
fn the_bridge_holds_its_cap_pauses_once_and_catches_up() {
    let (summary, points) = run(&scenario("bridge"));
    assert_eq!(summary.backpressure_events, 1, "{:?}", summary.events);
    assert!(summary.paused_seconds > 1.0 && points.iter().any(|point| point.paused));
    assert_eq!(summary.waiting, 0, "Kafka lost nothing and waits for nothing: {summary:?}");
    assert_eq!(summary.dropped, summary.dropped_by["paused"], "and NATS only while paused");
    // Kafka starves first: nothing is settled for a heartbeat. NATS goes on up to the threshold.
    let texts: Vec<_> = summary.events.iter().map(|event| event.text.as_str()).collect();
    let [began, joined, ended] = texts[..] else { panic!("{texts:?}") };
    assert!(began.starts_with("BACKPRESSURE ACTIVE: Buffer high (3") && began.ends_with("starved"));
    assert!(joined.contains("level,starved (40,"), "{joined}");
    assert!(ended.starts_with("BACKPRESSURE RELEASED: Buffer normal (1"), "{ended}");
    assert!(points.last().is_some_and(|point| !point.paused));
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_one_another() {
    let adaptive = scenario("adaptive");
    let course = |seed, steps: u32| {
        let mut simulation = Simulation::new(&adaptive, seed);
        for step in 1..=steps {
            simulation.advance(adaptive.duration * step / steps);
        }
        let points = simulation.points().to_vec();
        (points.clone(), plot(&adaptive, &points), simulation.summary())
    };
    assert_eq!(course(1, 1), course(1, 1));
    assert_ne!(course(1, 1).0, course(2, 1).0);
    // How often somebody looks changes nothing; 97 is no divisor of anything here.
    assert_eq!(course(1, 1).0, course(1, 97).0);
}

const FILE: &str = r#"
[[scenarios]]
name = "lunch"
about = "the market opens, the warehouse is slow"
duration = "30s"
producer = { low = 50, high = 400, every = "10s", lasts = "2s" }
consumer = { rate = 100 }
stall = { after = "5s", lasts = "2s" }
capacity = 200
strategies = ["block", "drop_oldest", "sliding", "sample", "adaptive"]
keep = 20
sample = { share = 0.2, by = "key", from = 0.6 }
aimd = { start = 50, increase = 5 }

[[scenarios]]
name = "bridge"
bridge = { kafka = { rate = 1000 }, nats = { rate = 10 }, max_buffer_size = 10000 }
stall = { after = "5s", lasts = "20s" }

[[scenarios]]
name = "three"
share = { starts = [1, 10, 100] }
consumer = { rate = 50 }
capacity = 500
"#;

#[test]
fn scenarios_come_from_a_file_and_run() {
    let scenarios = parse(FILE).unwrap();
    let names: Vec<_> = scenarios.iter().map(|scenario| scenario.name.as_str()).collect();
    assert_eq!(names, ["lunch", "bridge", "three"]);
    for scenario in scenarios.iter().flat_map(Scenario::runs) {
        let (summary, points) = run(&scenario);
        assert!(summary.delivered > 0 && plot(&scenario, &points).ends_with("</svg>\n"));
    }
}

#[test]
fn what_is_wrong_in_a_file_names_the_key_the_value_and_what_is_valid() {
    let cases = [
        ("capacity = 200", "capacity = 0", "scenarios[0].capacity = 0: from 1 to 10,000,000"),
        ("\"block\"", "\"wait\"", "strategy = \"wait\": known: block, drop_newest"),
        ("keep = 20", "keep = 500", "keep = 500: from 1 to the capacity, 200"),
        ("share = 0.2", "share = 2.0", "sample.share = 2: above 0 and at most 1"),
        ("by = \"key\"", "by = \"luck\"", "sample.by = \"luck\": known: turn, key, random"),
        ("from = 0.6", "from = 6.0", "sample.from = 6: how full"),
        ("increase = 5", "decrease = 2.0", "aimd.decrease = 2: between 0 and 1"),
        ("\"30s\"", "\"30\"", "duration = \"30\": a duration with its unit"),
        ("\"30s\"", "\"2h\"", "duration = 2h: at most \"1h\""),
        ("consumer = { rate = 100 }", "consumer = { low = 5 }", "consumer = { low = 5 }: write {"),
        ("\"lunch\"", "\"bridge\"", "name = \"bridge\": another scenario has this name"),
        ("max_buffer_size = 10000", "pause_threshold = 9", "bridge.pause_threshold = 9 between"),
        ("[1, 10, 100]", "[0]", "share.starts = [0.0]: the first limit of each source, above 0"),
        ("share = { starts", "keep = 3\nshare = { starts", "has beside it only consumer, capacity"),
        ("stall = { after = \"5s\", lasts = \"2s\" }", "stal = 1", "unknown field `stal`"),
    ];
    for (from, to, expected) in cases {
        assert!(FILE.contains(from), "{from}");
        let error = parse(&FILE.replacen(from, to, 1)).expect_err(to);
        assert!(error.contains(expected), "{to}: {error}");
    }
    assert!(parse("scenarios = []").unwrap_err().contains("at least one"));
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let wrong = FILE.replace("capacity = 200", "capacity = 0").replace("\"30s\"", "\"soon\"");
    let error = parse(&wrong).unwrap_err();
    assert!(error.contains("capacity = 0") && error.contains("duration = \"soon\""), "{error}");
}

#[test]
fn advice_covers_the_delay_and_the_burst() {
    let needs = Needs {
        rate: 5_000.0,
        record_bytes: 500,
        delay: Duration::from_secs(10),
        safety: 2.0,
        burst: 20_000,
    };
    let advice = Advice::of(&needs);
    assert_eq!((advice.by_rate, advice.by_burst), (100_000, (40_000, 100_000)));
    assert_eq!(advice.max_buffer_size, 100_000);
    assert_eq!((advice.pause_threshold, advice.resume_threshold), (80_000, 40_000));
    assert_eq!(advice.max_buffer_bytes, 96 << 20, "100 MB, in whole MiB");
    let burst = Advice::of(&Needs { burst: 500_000, ..needs });
    assert_eq!(burst.max_buffer_size, 1_000_000);
    let risky = Advice::of(&Needs { safety: 1.0, burst: 0, ..needs });
    assert!(risky.notes.iter().any(|note| note.contains("within the expected delay")));
}

proptest! {
    /// 80 % and 40 %, batches that fit, whatever the load.
    #[test]
    fn advice_always_holds_together(
        rate in 0.1_f64..1e7,
        record_bytes in 1_u64..10_000_000,
        seconds in 1_u64..3_600,
        safety in 0.1_f64..10.0,
        burst in 0_u64..10_000_000,
    ) {
        let delay = Duration::from_secs(seconds);
        let advice = Advice::of(&Needs { rate, record_bytes, delay, safety, burst });
        let cap = advice.max_buffer_size;
        prop_assert!((100..=100_000_000).contains(&cap));
        prop_assert_eq!(advice.pause_threshold * 10, cap * 8);
        prop_assert_eq!(advice.resume_threshold * 10, cap * 4);
        prop_assert!((1..=cap / 2).contains(&advice.batch_rows));
        prop_assert!(advice.max_buffer_bytes >= cap * record_bytes);
        if cap < 100_000_000 {
            prop_assert!(cap >= advice.by_rate.max(advice.by_burst.0));
        }
    }
}
