//! The configuration as a user meets it: the real program, real files, real variables.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A configuration with nothing wrong in it.
const GOOD: &str = r#"
[kafka]
brokers = ["localhost:9092"]

[[routes]]
name = "candles"
kafka_topics = ["aggregate_archive"]
nats_subjects = ["bars.>"]
table = "aggregates"
"#;

/// A directory with files, and the program to run in it.
struct Bench {
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn run(&self, args: &[&str], vars: &[(&str, &str)]) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_data-bridge"));
        command.current_dir(self.dir.path()).args(args);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DATA_BRIDGE_") {
                command.env_remove(name);
            }
        }
        let start = Instant::now();
        let output = command.envs(vars.iter().copied()).output().unwrap();
        Run { output, took: start.elapsed() }
    }

    /// `config` of one file of this text.
    fn config(&self, text: &str, vars: &[(&str, &str)]) -> Run {
        self.file("c.toml", text);
        self.run(&["--config", "c.toml", "config"], vars)
    }
}

struct Run {
    output: Output,
    took: Duration,
}

impl Run {
    fn code(&self) -> i32 {
        self.output.status.code().unwrap()
    }

    fn out(&self) -> &str {
        std::str::from_utf8(&self.output.stdout).unwrap()
    }

    fn err(&self) -> &str {
        std::str::from_utf8(&self.output.stderr).unwrap().trim_end()
    }

    /// The effective configuration.
    fn effective(&self) -> toml::Table {
        assert_eq!(self.code(), 0, "{}", self.err());
        self.out().parse().unwrap()
    }

    /// A refusal, with one line that has all of these in it.
    fn refused(&self, what: &str, wanted: &[&str]) {
        let err = self.err();
        assert_eq!(self.code(), 64, "{what}: {err}");
        assert_eq!(self.out(), "", "{what}");
        assert_eq!(err.lines().count(), 1, "{what}: {err}");
        for wanted in wanted {
            assert!(err.contains(wanted), "{what}: no {wanted:?} in: {err}");
        }
    }
}

/// What is added to [`GOOD`], and what the message must have: key, value, remedy.
type Mistake = (&'static str, &'static str, &'static [&'static str]);

const MISTAKES: &[Mistake] = &[
    (
        "a key misspelt",
        "[backpressure]\npause_treshold = 30_000",
        &["c.toml", "backpressure.pause_treshold = 30000", "`pause_threshold`"],
    ),
    ("a section misspelt", "[clickhose]\nurl = 'http://x:8123'", &["clickhose", "`clickhouse`"]),
    (
        "a key in the wrong section",
        "[heartbeat]\npause_threshold = 9",
        &["heartbeat.pause_threshold = 9", "`backpressure.pause_threshold`"],
    ),
    (
        "pause above the cap",
        "[backpressure]\npause_threshold = 60_000",
        &["backpressure.pause_threshold = 60000", "below max_buffer_size (50000)", "40000"],
    ),
    (
        "resume above pause",
        "[backpressure]\nresume_threshold = 45_000",
        &["backpressure.resume_threshold = 45000", "below pause_threshold (40000)"],
    ),
    (
        "a cap lowered alone",
        "[backpressure]\nmax_buffer_size = 30_000",
        &["backpressure.pause_threshold = 40000", "below max_buffer_size (30000)", "24000"],
    ),
    (
        "a pull limit below resume",
        "[backpressure]\npull_limit = 10_000",
        &["backpressure.pull_limit = 10000", "above resume_threshold (20000)"],
    ),
    (
        "a duration without a unit",
        "[heartbeat]\ninterval = 5",
        &["heartbeat.interval = 5", "needs a unit", "\"5s\""],
    ),
    (
        "a size without a unit",
        "[backpressure]\nmax_buffer_bytes = 256",
        &["backpressure.max_buffer_bytes = 256", "\"256MiB\""],
    ),
    (
        "a number in quotes",
        "[clickhouse]\nmax_in_flight = '4'",
        &["clickhouse.max_in_flight = \"4\"", "without quotes: 4"],
    ),
    (
        "a heartbeat that costs the group membership",
        "[heartbeat]\ninterval = '2m'",
        &["heartbeat.interval = \"2m\"", "max.poll.interval.ms (5m)", "\"5s\""],
    ),
    (
        "batches larger than half the cap",
        "[writers.aggregate]\nbatch_rows = 40_000",
        &["writers.aggregate.batch_rows = 40000", "half of backpressure.max_buffer_size: 25000"],
    ),
    (
        "the native port of ClickHouse",
        "[clickhouse]\nurl = 'tcp://localhost:9000'",
        &["clickhouse.url = \"tcp://localhost:9000\"", "http://localhost:8123"],
    ),
    (
        "a ClickHouse server that is named twice",
        "[clickhouse]\nurl = ['http://a:8123', 'http://b:8123', 'http://a:8123/']",
        &["clickhouse.url[2] = \"http://a:8123\"", "twice"],
    ),
    (
        "an unknown compression",
        "[clickhouse]\ncompression = 'gzip'",
        &["clickhouse.compression = \"gzip\"", "\"none\" or \"lz4\" or \"zstd\""],
    ),
    (
        "an address without a port",
        "[http]\nlisten = '0.0.0.0'",
        &["http.listen = \"0.0.0.0\"", "\"0.0.0.0:8080\""],
    ),
    (
        "a property that the bridge sets",
        "[kafka.client]\nenable.auto.commit = true",
        &["kafka.client.enable.auto.commit = \"true\"", "the bridge commits", "group.id"],
    ),
    (
        "a user without a password",
        "[nats]\nuser = 'bridge'",
        &["nats.user = \"bridge\"", "nats.password"],
    ),
    (
        "a NATS server with the wrong scheme",
        "[nats]\nservers = ['http://localhost:4222']",
        &["nats.servers[0] = \"http://localhost:4222\"", "nats://"],
    ),
    (
        "two ways to authenticate",
        "[nats]\ntoken = 't'\nnkey_file = '/dev/null'",
        &["nats", "token; nkey_file", "give one"],
    ),
    (
        "a secret's file that is not there",
        "[clickhouse]\npassword_file = '/nope/secret'",
        &["clickhouse.password_file = \"/nope/secret\"", "cannot be read"],
    ),
    (
        "a secret given twice",
        "[clickhouse]\npassword = 'p'\npassword_file = '/dev/null'",
        &["clickhouse.password_file", "password or password_file, not both"],
    ),
    (
        "an unknown writer",
        "[[routes]]\nname = 'x'\nkafka_topics = ['x']\ntable = 't'\nwriter = 'defualt'",
        &["routes[1].writer = \"defualt\"", "\"default\"", "(route \"x\")"],
    ),
    (
        "a route without a table",
        "[[routes]]\nname = 'x'\nkafka_topics = ['x']",
        &["routes[1].table", "action = \"count\"", "(route \"x\")"],
    ),
    (
        "a counting route with a table",
        "[[routes]]\nname = 'x'\nkafka_topics = ['x']\naction = 'count'\ntable = 't'",
        &["routes[1].table = \"t\"", "stores nothing"],
    ),
    (
        "a route that takes nothing",
        "[[routes]]\nname = 'x'\ntable = 't'",
        &["routes[1]", "kafka_topics or nats_subjects"],
    ),
    (
        "one topic, not a list",
        "[[routes]]\nname = 'x'\nkafka_topics = 'x'\ntable = 't'",
        &["routes[1].kafka_topics = \"x\"", "[\"x\"]"],
    ),
    (
        "a route's key in the singular",
        "[[routes]]\nname = 'x'\nnats_subject = ['x']\ntable = 't'",
        &["routes[1].nats_subject = [\"x\"]", "`nats_subjects`"],
    ),
    (
        "the name of another route",
        "[[routes]]\nname = 'candles'\nkafka_topics = ['x']\ntable = 't'",
        &["routes[1].name = \"candles\"", "each needs its own"],
    ),
    (
        "a subject that continues after >",
        "[[routes]]\nname = 'x'\nnats_subjects = ['a.>.b']\ntable = 't'",
        &["routes[1].nats_subjects[0] = \"a.>.b\"", "`>` must be the last token"],
    ),
    (
        "a pattern that is no regular expression",
        "[[routes]]\nname = 'x'\nkafka_topics = ['^(']\ntable = 't'",
        &["routes[1].kafka_topics[0] = \"^(\"", "regular expression"],
    ),
    (
        "a topic with a wildcard",
        "[[routes]]\nname = 'x'\nkafka_topics = ['market.*']\ntable = 't'",
        &["routes[1].kafka_topics[0] = \"market.*\"", "starts with `^`"],
    ),
    (
        "a table's name that is SQL",
        "[[routes]]\nname = 'x'\nkafka_topics = ['x']\ntable = 't; DROP TABLE y'",
        &["routes[1].table = \"t; DROP TABLE y\"", "`database.table`"],
    ),
    (
        "a route that an earlier one hides",
        "[[routes]]\nname = 'x'\nkafka_topics = ['aggregate_archive']\ntable = 't'",
        &["routes[1].kafka_topics[0] = \"aggregate_archive\"", "\"candles\"", "move this one up"],
    ),
    (
        "exactly once from core NATS",
        "[[routes]]\nname = 'x'\nnats_subjects = ['x.>']\ntable = 't'\ndelivery = 'exactly_once'",
        &["routes[1].delivery", "not possible with nats_subjects", "JetStream"],
    ),
    (
        "exactly once of a column that is different each time",
        "[[routes]]\nname = 'x'\nkafka_topics = ['x']\ntable = 't'\ndelivery = 'exactly_once'\n\
         columns.seen = '@received_at'",
        &["routes[1].columns.seen", "@received_at is different", "@timestamp"],
    ),
    (
        "exactly once on servers that know nothing of each other",
        "[clickhouse]\nurl = ['http://a:8123', 'http://b:8123']\n\
         [[routes]]\nname = 'x'\nkafka_topics = ['x']\ntable = 't'\ndelivery = 'exactly_once'",
        &["routes[1].delivery", "several independent servers", "replicas"],
    ),
    (
        "a policy for what cannot happen",
        "[[routes]]\nname = 'x'\nkafka_topics = ['x']\ntable = 't'\non_uncertain = 'halt'",
        &["routes[1].on_uncertain", "delivery = \"exactly_once\"", "leave it out"],
    ),
    (
        "a breaker that never closes the circuit",
        "[breaker]\nmax_failures = 0",
        &["breaker.max_failures = 0", "a whole number from 1"],
    ),
    (
        "a delay above its bound",
        "[retry]\nbase_delay = '1m'",
        &["retry.base_delay = \"1m\"", "max_delay (\"30s\")"],
    ),
    (
        "dead letters nowhere",
        "[dead_letters]\nto = 'elsewhere'",
        &["dead_letters.to = \"elsewhere\"", "\"clickhouse\" or \"kafka\""],
    ),
    (
        "dead letters in a topic without a name",
        "[dead_letters]\nto = 'kafka'",
        &["dead_letters.topic", "is missing", "topic = \"dead_letters\""],
    ),
    (
        "dead letters in a topic that a route reads",
        "[dead_letters]\nto = 'kafka'\ntopic = 'aggregate_archive'",
        &["dead_letters.topic = \"aggregate_archive\"", "\"candles\"", "for ever"],
    ),
    (
        "dead letters in a topic that a route reads by its pattern",
        "[dead_letters]\nto = 'kafka'\ntopic = 'dead_letters'\n\
         [[routes]]\nname = 'all'\nkafka_topics = ['^dead.*']\ntable = 't'",
        &["dead_letters.topic = \"dead_letters\"", "\"all\"", "for ever"],
    ),
    (
        "dead letters in topics that are a pattern",
        "[dead_letters]\nto = 'kafka'\ntopic = '^dead'",
        &["dead_letters.topic = \"^dead\"", "not a topic's name"],
    ),
    (
        "dead letters on a subject without a server",
        "[dead_letters]\nto = 'nats'\nsubject = 'dead.letters'",
        &["dead_letters.to = \"nats\"", "needs a [nats] table"],
    ),
    (
        "dead letters on a subject that a route reads",
        "[nats]\n[dead_letters]\nto = 'nats'\nsubject = 'market.dead'\n\
         [[routes]]\nname = 'all'\nnats_subjects = ['market.>']\ntable = 't'",
        &["dead_letters.subject = \"market.dead\"", "\"all\"", "for ever"],
    ),
    (
        "dead letters on a subject that a route pulls from JetStream",
        "[nats.jetstream]\n[dead_letters]\nto = 'nats'\nsubject = 'market.dead'\n\
         [[routes]]\nname = 'all'\njetstream_subjects = ['market.*']\ntable = 't'",
        &["dead_letters.subject = \"market.dead\"", "\"all\"", "for ever"],
    ),
    (
        "dead letters on many subjects",
        "[nats]\n[dead_letters]\nto = 'nats'\nsubject = 'dead.>'\n\
         [[routes]]\nname = 'x'\nnats_subjects = ['x']\ntable = 't'",
        &["dead_letters.subject = \"dead.>\"", "must be one subject"],
    ),
    (
        "dead letters in a directory",
        "[dead_letters]\nto = 'file'\npath = '/tmp'",
        &["dead_letters.path = \"/tmp\"", "must be a file's path"],
    ),
    (
        "a key of another place for dead letters",
        "[dead_letters]\nto = 'file'\npath = '/tmp/x.jsonl'\ntable = 't'",
        &["dead_letters.table = t", "\"clickhouse\"", "leave it out"],
    ),
    (
        "metadata that does not exist",
        "[routes.columns]\nx = '@ofset'",
        &["routes[0].columns.x.from = \"@ofset\"", "@offset"],
    ),
];

#[test]
fn each_typical_mistake_gives_one_clear_message_and_exit_64() {
    // 100 ms is what users get. A machine that stalls may need longer now and then, not each time.
    const WITHIN: Duration = Duration::from_secs(2);
    const TRIES: u32 = 3;
    let bench = Bench::new();
    assert_eq!(bench.config(GOOD, &[]).code(), 0);
    let mut slowest = Duration::ZERO;
    for (what, text, wanted) in MISTAKES {
        let text = format!("{GOOD}\n{text}\n");
        let mut run = bench.config(&text, &[]);
        for _ in 1..TRIES {
            if run.took >= WITHIN {
                run = bench.config(&text, &[]);
            }
        }
        run.refused(what, wanted);
        slowest = slowest.max(run.took);
        println!("{what}:\n    {}", run.err());
    }
    println!("{} mistakes, the slowest took {slowest:?}", MISTAKES.len());
    assert!(slowest < WITHIN, "{slowest:?}");
}

const JETSTREAM: &str = "[nats]\n[nats.jetstream]\n[[routes]]\nname = 'a'\ntable = 't'\n\
                         jetstream_subjects = ['a.>']\n";

#[test]
fn each_record_of_jetstream_takes_one_route_by_one_consumer() {
    let bench = Bench::new();
    assert_eq!(bench.config(JETSTREAM, &[]).code(), 0);
    let route = "[[routes]]\nname = 'b'\ntable = 't'\n";
    for (what, keys, says) in [
        (
            "both modes",
            "nats_subjects = ['*.b']",
            &["routes[0].jetstream_subjects[0] = \"a.>\"", "*.b", "route \"b\"", "come twice"][..],
        ),
        ("two routes", "jetstream_subjects = ['a.b']", &["routes[1].jetstream_subjects[0]", "a.>"]),
        (
            "a consumer twice",
            "jetstream_subjects = ['b']\njetstream_consumer = 'data-bridge-a'",
            &["routes[1].jetstream_consumer = \"data-bridge-a\"", "of its own"],
        ),
        (
            "a name that the server refuses",
            "jetstream_subjects = ['b']\njetstream_stream = 'x.y'",
            &["routes[1].jetstream_stream = \"x.y\"", "without `.`"],
        ),
        (
            "a stream without subjects",
            "nats_subjects = ['b']\njetstream_stream = 'X'",
            &["jetstream_stream = \"X\"", "needs jetstream_subjects"],
        ),
        (
            "subjects that cross",
            "jetstream_subjects = ['b.*.c', 'b.d.*']",
            &["routes[1].jetstream_subjects", "\"b.*.c\"", "covers them"],
        ),
    ] {
        bench.config(&format!("{JETSTREAM}{route}{keys}\n"), &[]).refused(what, says);
    }
    let without = JETSTREAM.replace("[nats.jetstream]\n", "");
    bench.config(&without, &[]).refused("no settings", &["nats.jetstream", "an empty table"]);
    let both = "[nats.jetstream]\ndomain = 'x'\napi_prefix = '$JS.x.API'\n";
    let both = JETSTREAM.replace("[nats.jetstream]\n", both);
    bench.config(&both, &[]).refused("domain and prefix", &["api_prefix", "one of them"]);
    for (what, key, says) in [
        ("a short wait", "ack_wait = '10ms'", ["nats.jetstream.ack_wait = \"10ms\"", "2m"]),
        ("a short lease", "lease = '10ms'", ["nats.jetstream.lease = \"10ms\"", "10s"]),
        ("no bucket", "state_bucket = 'a.b'", ["state_bucket = \"a.b\"", "letters, digits"]),
        ("many replicas", "state_replicas = 6", ["state_replicas = 6", "from 1 to 5"]),
    ] {
        let keys = JETSTREAM.replace("[nats.jetstream]\n", &format!("[nats.jetstream]\n{key}\n"));
        bench.config(&keys, &[]).refused(what, &says);
    }
}

#[test]
fn no_source_no_route_and_no_file_are_said_plainly() {
    let bench = Bench::new();
    bench.run(&["config"], &[]).refused("no file", &["--config", "./config/data-bridge.toml"]);
    bench.run(&["--config", "no.toml", "config"], &[]).refused("no such file", &["no.toml"]);
    let route = "[[routes]]\nname='x'\nkafka_topics=['x']\ntable='t'\n";
    bench.config(route, &[]).refused("no source", &["[kafka] or a [nats]", "BROKERS"]);
    bench.config("[kafka]\n", &[]).refused("no route", &["routes", "[[routes]]"]);
    let idle = bench.config(&format!("[kafka]\n[nats]\n{route}"), &[]);
    idle.refused("a source without work", &["nats", "nats_subjects", "leave out [nats]"]);
}

#[test]
fn a_broken_file_is_told_with_its_line() {
    let bench = Bench::new();
    let run = bench.config("[kafka\nbrokers = 1", &[]);
    assert_eq!(run.code(), 64);
    assert!(run.err().contains("c.toml") && run.err().contains("line 1"), "{}", run.err());
}

#[test]
fn wrong_arguments_exit_64_and_help_exits_0() {
    let bench = Bench::new();
    for args in [&["confg"][..], &["--nope"], &[], &["config", "--log-format", "xml"]] {
        assert_eq!(bench.run(args, &[]).code(), 64, "{args:?}");
    }
    for args in [&["--help"][..], &["--version"], &["config", "--help"], &["schema", "--help"]] {
        assert_eq!(bench.run(args, &[]).code(), 0, "{args:?}");
    }
}

#[test]
fn a_later_file_and_then_the_environment_win() {
    let bench = Bench::new();
    bench.file("a.toml", &format!("{GOOD}[backpressure]\npause_threshold = 30_000\n"));
    bench
        .file("b.yaml", "backpressure:\n  pause_threshold: 35000\nkafka:\n  brokers: [b:1, c:2]\n");
    bench.file("c.json", r#"{"backpressure": {"resume_threshold": 11}}"#);
    let files = ["--config", "a.toml", "--config", "b.yaml", "--config", "c.json", "config"];
    let effective = bench.run(&files, &[]).effective();
    assert_eq!(effective["backpressure"]["pause_threshold"].as_integer(), Some(35_000));
    assert_eq!(effective["backpressure"]["resume_threshold"].as_integer(), Some(11));
    assert_eq!(effective["kafka"]["brokers"].as_array().unwrap().len(), 2);

    let vars = [
        ("DATA_BRIDGE__BACKPRESSURE__PAUSE_THRESHOLD", "24_000"),
        ("DATA_BRIDGE__KAFKA__BROKERS", "x:1, y:2,z:3"),
        ("DATA_BRIDGE__HEARTBEAT__INTERVAL", "2s"),
        ("DATA_BRIDGE__DEAD_LETTERS__CREATE", "false"),
        ("DATA_BRIDGE__WRITERS__AGGREGATE__BATCH_ROWS", "7000"),
        ("DATA_BRIDGE__KAFKA__CLIENT__SECURITY_PROTOCOL", "SASL_SSL"),
        ("DATA_BRIDGE__CLICKHOUSE__DATABASE", ""),
        ("DATA_BRIDGE_TEST_KAFKA", "not configuration"),
        ("DATA_BRIDGE_STACK_DIR", "not configuration"),
    ];
    let effective = bench.run(&files, &vars).effective();
    assert_eq!(effective["backpressure"]["pause_threshold"].as_integer(), Some(24_000));
    assert_eq!(effective["kafka"]["brokers"].as_array().unwrap().len(), 3);
    assert_eq!(effective["heartbeat"]["interval"].as_str(), Some("2s"));
    assert_eq!(effective["dead_letters"]["create"].as_bool(), Some(false));
    let writer = &effective["writers"]["aggregate"];
    assert_eq!(writer["batch_rows"].as_integer(), Some(7_000));
    assert_eq!(writer["linger"].as_str(), Some("1s"), "defaults fill a partial table");
    assert_eq!(effective["kafka"]["client"]["security.protocol"].as_str(), Some("SASL_SSL"));
    assert_eq!(effective["clickhouse"]["database"].as_str(), Some("default"), "empty is unset");
}

/// It is in no file: nobody would find it there.
#[test]
fn a_table_that_only_a_variable_makes_is_told_by_the_variable() {
    let nats = "[nats]\n[[routes]]\nname = 'a'\nnats_subjects = ['a']\ntable = 'a'\n";
    let run = Bench::new().config(nats, &[("DATA_BRIDGE__KAFKA__BROKERS", "localhost:9092")]);
    let said = "data-bridge: DATA_BRIDGE__KAFKA__BROKERS: kafka: no route has kafka_topics; ";
    assert!(run.code() == 64 && run.err().starts_with(said), "{}", run.err());
}

#[test]
fn a_wrong_variable_is_told_by_its_name() {
    let bench = Bench::new();
    let cases: [(&str, &str, &[&str]); 6] = [
        ("DATA_BRIDGE__KAFKA__BROKER", "x:1", &["\"x:1\"", "DATA_BRIDGE__KAFKA__BROKERS"]),
        ("DATA_BRIDGE__KAFKFA__BROKERS", "x:1", &["kafkfa", "DATA_BRIDGE__KAFKA"]),
        ("DATA_BRIDGE_KAFKA__BROKERS", "x:1", &["DATA_BRIDGE__KAFKA__BROKERS"]),
        ("DATA_BRIDGE__BACKPRESSURE__PULL_LIMIT", "many", &["\"many\"", "whole number"]),
        ("DATA_BRIDGE__ROUTES__0__TABLE", "t", &["routes are set in a file"]),
        ("DATA_BRIDGE__RETRY__MAX_DELAY", "30", &["retry.max_delay = \"30\"", "\"30s\""]),
    ];
    for (name, value, wanted) in cases {
        let run = bench.config(GOOD, &[(name, value)]);
        run.refused(name, wanted);
        assert!(run.err().contains(name), "{}", run.err());
    }
}

#[test]
fn no_secret_is_ever_shown() {
    let bench = Bench::new();
    bench.file("secret", "s3cr3t-file\n");
    let text = format!(
        "{GOOD}[kafka.client]\nsasl.password = 's3cr3t-a'\n[clickhouse]\npassword = 's3cr3t-b'\n\
         [nats]\nuser = 'u'\npassword_file = 'secret'\n[http]\ntoken = 's3cr3t-c'\n"
    );
    let run = bench.config(&text, &[("DATA_BRIDGE__CLICKHOUSE__PASSWORD", "12345678")]);
    assert!(!run.out().contains("s3cr3t") && !run.out().contains("12345678"), "{}", run.out());
    let effective = run.effective();
    assert_eq!(effective["clickhouse"]["password"].as_str(), Some("***"));
    assert_eq!(effective["kafka"]["client"]["sasl.password"].as_str(), Some("***"));

    let wrong = [
        "[clickhouse]\npassword = 53123",
        "[clickhouse]\npasswort = 's3cr3t'",
        "[clickhouse]\nurl = 'http://u:s3cr3t@h:8123'",
        "[nats]\nservers = ['nats://u:s3cr3t@h:4222']",
        "[kafka.client]\nsasl_password = 's3cr3t'",
        "[kafka.client]\nsasl.password = ['s3cr3t']",
    ];
    for text in wrong {
        let run = bench.config(&format!("{GOOD}{text}\n"), &[]);
        assert_eq!(run.code(), 64, "{text}");
        assert!(!run.err().contains("s3cr3t") && !run.err().contains("53123"), "{}", run.err());
    }
    let variable = [("DATA_BRIDGE__CLICKHOUSE__PASSWORT", "s3cr3t")];
    assert!(!bench.config(GOOD, &variable).err().contains("s3cr3t"));
}

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/data-bridge.toml")
}

#[test]
fn every_key_of_the_shipped_file_is_its_default() {
    let bench = Bench::new();
    let path = shipped();
    let file: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
    let bare = "[kafka]\n[nats]\n[[routes]]\nname='x'\nkafka_topics=['x']\nnats_subjects=['x']\ntable='t'\n";
    let defaults = bench.config(bare, &[]).effective();
    for (section, keys) in &file {
        if section == "routes" {
            continue;
        }
        for (key, value) in keys.as_table().unwrap() {
            let path = format!("{section}.{key}");
            // what the profile chooses for itself
            if ["clickhouse.database", "writers.aggregate", "writers.external"].contains(&&*path) {
                continue;
            }
            assert_eq!(defaults[section].get(key), Some(value), "{path}");
        }
    }
    // and the other way: every key that has a default is in the file, unless it follows from others
    for (section, keys) in &defaults {
        for key in keys.as_table().into_iter().flat_map(toml::Table::keys) {
            let follows =
                ["pull_limit", "max_buffer_bytes", "prefetch_bytes"].contains(&key.as_str());
            let there = file[section].get(key).is_some() || follows;
            assert!(there, "{section}.{key} is not in the shipped file");
        }
    }
}

#[test]
fn the_shipped_file_works_and_names_every_key_of_the_schema() {
    let bench = Bench::new();
    let path = shipped();
    let run = bench.run(&["--config", path.to_str().unwrap(), "config"], &[]);
    let effective = run.effective();
    assert_eq!(effective["backpressure"]["pull_limit"].as_integer(), Some(30_000));
    assert_eq!(effective["routes"].as_array().unwrap().len(), 11);

    // optional keys are there as comments
    let text = std::fs::read_to_string(&path).unwrap();
    let schema = bench.run(&["config", "--schema"], &[]);
    let schema: serde_json::Value = serde_json::from_str(schema.out()).unwrap();
    for (section, table) in schema["properties"].as_object().unwrap() {
        assert!(text.contains(section), "{section}");
        let keys = table["properties"].as_object();
        for key in keys.into_iter().flatten().map(|(key, _)| key) {
            assert!(text.contains(key), "{section}.{key}");
        }
    }
}

#[test]
fn the_effective_configuration_reads_back_as_itself() {
    let bench = Bench::new();
    let path = shipped();
    let first = bench.run(&["--config", path.to_str().unwrap(), "config"], &[]);
    let again = bench.config(first.out(), &[]);
    assert_eq!(first.effective(), again.effective());
}

#[test]
fn the_schema_command_prints_every_table_in_order() {
    let bench = Bench::new();
    let path = shipped();
    let run = bench.run(&["--config", path.to_str().unwrap(), "schema"], &[]);
    assert_eq!(run.code(), 0, "{}", run.err());
    let creates: Vec<_> = run
        .out()
        .lines()
        .filter_map(|line| line.strip_prefix("CREATE TABLE IF NOT EXISTS "))
        .collect();
    assert_eq!(creates.len(), 10);
    assert!(creates.is_sorted());
    bench.run(&["schema", "--dir", "nope"], &[]).refused("no directory", &["nope", "--dir"]);
    let off = [("DATA_BRIDGE__CLICKHOUSE__URL", "http://127.0.0.1:1")];
    let run = bench.run(&["--config", path.to_str().unwrap(), "schema", "--apply"], &off);
    assert_eq!(run.code(), 69, "{}", run.err());
    assert!(run.err().contains("http://127.0.0.1:1") && run.err().contains("clickhouse.url"));
}
