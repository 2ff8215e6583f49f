//! What the configuration takes and refuses of the policy, and what it says then.

use data_bridge::config::{self, Config};

const ROUTES: &str = r#"
[kafka]
[nats]
[[routes]]
name = "ticks"
nats_subjects = ["market.>"]
class = "market"
table = "t"
[[routes]]
name = "archive"
kafka_topics = ["archive"]
class = "archive"
table = "t"
[[routes]]
name = "health"
nats_subjects = ["system.>"]
class = "system"
action = "count"
"#;

fn load(text: &str) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    std::fs::write(&file, text).unwrap();
    config::load(&[file]).map_err(|error| error.to_string())
}

fn refused(policy: &str, wanted: &[&str]) {
    let error = load(&format!("{policy}{ROUTES}")).expect_err(policy);
    assert!(wanted.iter().all(|part| error.contains(part)), "{policy}: {error}");
}

fn refused_of_route(route: &str, wanted: &[&str]) {
    let error = load(&format!("{ROUTES}[[routes]]\nname = \"x\"\n{route}")).expect_err(route);
    assert!(wanted.iter().all(|part| error.contains(part)), "{route}: {error}");
}

fn tier(keys: &str) -> String {
    format!("[[overload.tiers]]\n{keys}\n")
}

#[test]
fn without_a_word_every_class_but_system_is_dropped_while_paused() {
    let overload = load(ROUTES).unwrap().overload;
    assert_eq!(overload.tiers.len(), 0);
    let dropped: Vec<&String> = overload.drop_while_paused.iter().collect();
    assert_eq!(dropped, ["archive", "external", "market", "signal"]);
    assert_eq!(overload.priorities.last().unwrap(), "archive", "what is not listed comes last");
}

#[test]
fn a_tier_ends_ten_percent_below_its_beginning_unless_it_says_otherwise() {
    let one = tier("at_percent = 50\nsample = { market = 2 }");
    let two = tier("at_percent = 95\nuntil_percent = 60\ndrop_below = \"signal\"");
    let tiers = load(&format!("{one}{two}{ROUTES}")).unwrap().overload.tiers;
    assert_eq!((tiers[0].until_percent, tiers[1].until_percent), (40, 60));
    let dropped: Vec<&String> = tiers[1].drop.iter().collect();
    assert_eq!(dropped, ["archive", "external", "market"]);
}

#[test]
fn what_would_lose_records_of_kafka_is_refused_with_a_clear_word() {
    let archive = tier("at_percent = 50\nsample = { archive = 2 }");
    let wanted =
        ["overload.tiers[0].sample.archive", "Kafka", "wait instead", "overload.may_drop = true"];
    refused(&archive, &wanted);
    refused(&tier("at_percent = 50\ndrop = [\"archive\"]"), &wanted[1..]);
    let lossy =
        ROUTES.replace("class = \"archive\"", "class = \"archive\"\noverload.may_drop = true");
    assert!(load(&format!("{archive}{lossy}")).is_ok());
    let strategy = "kafka_topics = [\"x\"]\ntable = \"t\"\noverload.strategy = \"drop_newest\"";
    refused_of_route(strategy, &["routes[3].overload.strategy", "lose nothing"]);
    let exact = "kafka_topics = [\"x\"]\ntable = \"t\"\ndelivery = \"exactly_once\"\n\
                 overload.may_drop = true";
    refused_of_route(exact, &["routes[3].overload.may_drop = true", "exactly_once"]);
    let pushed = "nats_subjects = [\"x\"]\ntable = \"t\"\noverload.may_drop = true";
    refused_of_route(pushed, &["may_drop = true", "only says something of kafka_topics"]);
}

#[test]
fn system_is_never_dropped_by_whatever_name() {
    refused(&tier("at_percent = 50\ndrop = [\"system\"]"), &["drop[0] = \"system\"", "never"]);
    refused("[overload]\ndrop_while_paused = [\"system\"]\n", &["never dropped"]);
    refused("[overload]\npriorities = [\"market\", \"system\"]\n", &["it comes first"]);
}

#[test]
fn slips_are_told_with_what_would_be_right() {
    refused(&tier("at_percent = 50\nsample = { marked = 2 }"), &["did you mean \"market\""]);
    refused(&tier("at_percent = 50\nsample = { market = 1 }"), &["sample.market = 1", "from 2 to"]);
    refused(&tier("at_percent = 100\ndrop = [\"market\"]"), &["at_percent = 100", "1 to 99"]);
    refused(&tier("at_percent = 50"), &["overload.tiers[0]", "does nothing"]);
    refused(&tier("at_percent = 50\nuntil_percent = 50\ndrop = [\"market\"]"), &["would flap"]);
    let twice = tier("at_percent = 50\ndrop = [\"market\"]").repeat(2);
    refused(&twice, &["overload.tiers[1].at_percent = 50", "above"]);
    let both = tier("at_percent = 50\ndrop = [\"market\"]\nsample = { market = 2 }");
    refused(&both, &["leave one of them out"]);
    refused(&tier("at_percent = 50\ndrop_below = \"sytem\""), &["drop_below = \"sytem\""]);
    refused("[overload]\npriorities = [\"a\", \"a\"]\n", &["is there already"]);
}

#[test]
fn a_window_must_leave_room_for_the_pause_to_end() {
    let route = "nats_subjects = [\"x\"]\ntable = \"t\"\n";
    let sliding = |keep| format!("{route}overload = {{ strategy = \"sliding\", keep = {keep} }}");
    refused_of_route(&sliding(10_001), &["routes[3].overload.keep = 10001", "at most 10000"]);
    assert!(load(&format!("{ROUTES}[[routes]]\nname = \"x\"\n{}", sliding(10_000))).is_ok());
    refused_of_route(&format!("{route}overload.strategy = \"sliding\""), &["keep", "is missing"]);
    refused_of_route(&format!("{route}overload.keep = 5"), &["is for strategy = \"sliding\""]);
    refused_of_route(&format!("{route}overload.strategy = \"sample\""), &["one_in", "is missing"]);
}
