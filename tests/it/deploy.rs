//! The image and the compose file agree with each other and with the program, as far as that shows
//! without an engine. `deploy/` holds the same of what lies in the folder of that name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use yaml_rust2::{Yaml, YamlLoader};

use crate::bridge::program;

mod image;
mod kubernetes;
mod monitoring;
mod systemd;

const OURS: &str = "data-bridge";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn compose() -> Yaml {
    let mut documents = documents("docker-compose.yml");
    assert_eq!(documents.len(), 1);
    merged(documents.remove(0))
}

/// What a YAML file holds.
fn documents(name: &str) -> Vec<Yaml> {
    YamlLoader::load_from_str(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Resolves `<<: *other`, which the parser leaves to us: own keys win over merged ones.
fn merged(yaml: Yaml) -> Yaml {
    match yaml {
        Yaml::Hash(hash) => {
            let mut result = yaml_rust2::yaml::Hash::new();
            for (key, value) in &hash {
                if key.as_str() == Some("<<") {
                    let Yaml::Hash(base) = merged(value.clone()) else {
                        panic!("<< merges maps: {value:?}");
                    };
                    result.extend(base);
                }
            }
            for (key, value) in hash {
                if key.as_str() != Some("<<") {
                    result.insert(key, merged(value));
                }
            }
            Yaml::Hash(result)
        }
        Yaml::Array(items) => Yaml::Array(items.into_iter().map(merged).collect()),
        other => other,
    }
}

fn texts(yaml: &Yaml) -> Vec<&str> {
    yaml.as_vec().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
}

/// A scalar as compose hands it over, `${NAME:-value}` as the value.
fn scalar(yaml: &Yaml) -> String {
    let text = match yaml {
        Yaml::Integer(number) => number.to_string(),
        Yaml::Boolean(truth) => truth.to_string(),
        Yaml::Real(text) | Yaml::String(text) => text.clone(),
        other => panic!("no scalar: {other:?}"),
    };
    with_defaults(&text)
}

fn with_defaults(text: &str) -> String {
    let Some((before, rest)) = text.split_once("${") else { return text.to_owned() };
    let (variable, after) = rest.split_once('}').unwrap();
    let (_, value) = variable.split_once(":-").unwrap_or_else(|| {
        panic!("${{{variable}}} has no default: the file must work without any setting")
    });
    format!("{before}{value}{}", with_defaults(after))
}

fn environment(service: &Yaml) -> BTreeMap<String, String> {
    let variables = service["environment"].as_hash().unwrap();
    variables
        .iter()
        .map(|(name, value)| (name.as_str().unwrap().to_owned(), scalar(value)))
        .collect()
}

/// `30s`, `1m30s`.
fn duration(text: &str) -> Duration {
    humantime::parse_duration(text).unwrap()
}

/// The lines of the Dockerfile, those that are continued in one, without comments.
fn dockerfile() -> Vec<String> {
    let text = read("Dockerfile");
    let lines: Vec<&str> =
        text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    joined.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn instructions(lines: &[String], name: &str) -> Vec<String> {
    let start = format!("{name} ");
    lines.iter().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
}

/// What `data-bridge config` says with a service's variables on the shipped file.
async fn config_with(variables: &BTreeMap<String, String>) -> (bool, String) {
    let mut command = program();
    command.current_dir(path("")).arg("config").envs(variables);
    let done = tokio::time::timeout(Duration::from_secs(20), command.output());
    let done = done.await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    (done.status.success(), said.into_owned())
}

/// A limit of memory as compose, Kubernetes and systemd write it (`1g`, `1Gi`, `1G`) as the bridge does.
fn size(limit: &str) -> String {
    format!("{}iB", limit.trim_end_matches('i').to_uppercase())
}

/// What may be held fits into what the process may take, by the bridge's own sum; and less would not do.
async fn assert_fits(mut variables: BTreeMap<String, String>, limit: &str) {
    let name = |key: &str| format!("DATA_BRIDGE__BACKPRESSURE__{key}");
    // Said, so that it does not follow from the budget.
    variables.entry(name("MAX_BUFFER_BYTES")).or_insert_with(|| "256MiB".to_owned());
    variables.insert(name("MEMORY_BUDGET"), size(limit));
    let (ok, said) = config_with(&variables).await;
    assert!(ok, "{limit}: {said}");
    variables.insert(name("MEMORY_BUDGET"), "800MiB".to_owned());
    let (ok, said) = config_with(&variables).await;
    assert!(!ok && said.contains("memory_budget"), "{said}");
}

#[tokio::test]
async fn the_limit_of_memory_in_compose_fits_what_may_be_held() {
    let bridge = &compose()["services"][OURS];
    let mut variables = environment(bridge);
    variables.retain(|name, _| name.starts_with("DATA_BRIDGE_"));
    assert_fits(variables, &scalar(&bridge["mem_limit"])).await;
}

#[test]
fn compose_has_the_bridge_and_all_it_needs() {
    let compose = compose();
    let services = &compose["services"];
    for name in ["kafka", "nats", "clickhouse", OURS] {
        assert!(!services[name].is_badvalue(), "no service {name}");
    }
    let bridge = &services[OURS];
    assert_eq!(texts(&bridge["ports"]), ["127.0.0.1:8080:8080"]);
    for (name, service) in services.as_hash().unwrap() {
        let ports = service["ports"].as_vec().map_or(&[][..], Vec::as_slice);
        for port in ports.iter().filter_map(Yaml::as_str) {
            assert!(port.starts_with("127.0.0.1:"), "{name:?}: {port} is open to the network");
        }
    }
    assert_eq!(environment(bridge)["RUST_LOG"], "", "`log.level` would decide nothing");
    assert_eq!(environment(bridge)["DATA_BRIDGE__HTTP__LISTEN"], "0.0.0.0:8080");
    for name in ["kafka", "nats", "clickhouse"] {
        let condition = &bridge["depends_on"][name]["condition"];
        assert_eq!(condition.as_str(), Some("service_healthy"), "{name}");
        assert!(!services[name]["healthcheck"]["test"].is_badvalue(), "{name} has a health check");
    }
    // While the image makes user and database, it answers on 127.0.0.1, and nobody else.
    let check = texts(&services["clickhouse"]["healthcheck"]["test"]);
    assert!(check.last().unwrap().contains("//clickhouse:"), "{check:?}");
}

/// The bridge makes no topic, so the first thing a new user would see were routes without one.
#[tokio::test]
async fn compose_makes_the_topics_that_the_bridge_reads() {
    let compose = compose();
    let services = &compose["services"];
    let (ok, said) = config_with(&environment(&services[OURS])).await;
    assert!(ok, "{said}");
    let config: toml::Table = said.parse().unwrap();
    let routes = config["routes"].as_array().unwrap();
    let read: BTreeSet<_> = routes
        .iter()
        .filter_map(|route| route.get("kafka_topics")?.as_array())
        .flatten()
        .map(|topic| topic.as_str().unwrap())
        .collect();
    assert!(!read.is_empty());
    let topics = &services["topics"];
    let made = &environment(topics)["TOPICS"];
    assert_eq!(made.split_whitespace().collect::<BTreeSet<_>>(), read);
    assert_eq!(topics["image"], services["kafka"]["image"]);
    for once in ["schema", "topics"] {
        let condition = &services[OURS]["depends_on"][once]["condition"];
        assert_eq!(condition.as_str(), Some("service_completed_successfully"), "{once}");
        assert_eq!(services[once]["restart"].as_str(), Some("no"), "{once} ends");
    }
}

#[test]
fn compose_keeps_what_the_servers_store() {
    let compose = compose();
    let declared = compose["volumes"].as_hash().unwrap();
    for name in ["kafka", "nats", "clickhouse"] {
        let volumes = texts(&compose["services"][name]["volumes"]);
        let named = volumes.iter().filter_map(|volume| volume.split_once(':'));
        let kept =
            named.filter(|(volume, _)| declared.contains_key(&Yaml::String((*volume).into())));
        assert_eq!(kept.count(), 1, "{name}: {volumes:?}");
    }
    let kafka = environment(&compose["services"]["kafka"]);
    let place = &kafka["KAFKA_LOG_DIRS"];
    let volumes = texts(&compose["services"]["kafka"]["volumes"]);
    assert!(volumes.iter().any(|volume| volume.ends_with(place)), "{volumes:?} {place}");
    assert!(kafka["KAFKA_PROCESS_ROLES"].contains("controller"), "KRaft");
    let nats = compose["configs"]["nats"]["content"].as_str().unwrap();
    assert!(nats.contains("jetstream") && nats.contains("store_dir: /data"), "{nats}");
    assert!(texts(&compose["services"]["nats"]["volumes"])[0].ends_with(":/data"));
}

#[test]
fn every_image_is_pinned() {
    let compose = compose();
    for (name, service) in compose["services"].as_hash().unwrap() {
        let Some(image) = service["image"].as_str() else { continue };
        if service["build"].is_badvalue() {
            assert_pinned(image, name.as_str().unwrap());
        }
    }
    let lines = dockerfile();
    for from in instructions(&lines, "FROM") {
        assert_pinned(from.split(' ').next().unwrap(), "the Dockerfile");
    }
}

fn assert_pinned(image: &str, place: &str) {
    let tag = image.rsplit_once(':').map(|(_, tag)| tag);
    let tag = tag.unwrap_or_else(|| panic!("{place}: {image} names no version"));
    assert!(!tag.contains("latest"), "{place}: {image}");
    let number = tag.strip_prefix('v').unwrap_or(tag);
    let is_version = number.starts_with(|c: char| c.is_ascii_digit());
    assert!(is_version || tag.starts_with("bookworm"), "{place}: {image}");
}

#[test]
fn the_versions_are_those_that_the_tests_run_on() {
    let compose = compose();
    let downloads = read("scripts/lib/devstack/downloads.py");
    let version = |name: &str| {
        let start = format!("{name} = \"");
        let (_, rest) = downloads.split_once(&start).unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    let image = |name: &str| compose["services"][name]["image"].as_str().unwrap().to_owned();
    assert_eq!(image("kafka"), format!("apache/kafka:{}", version("KAFKA_VERSION")));
    let nats = version("NATS_WHEEL");
    let nats = nats.split("==").nth(1).unwrap();
    assert!(image("nats").starts_with(&format!("nats:{nats}")), "{nats}");
    let clickhouse = image("clickhouse");
    let clickhouse = clickhouse.rsplit_once(':').unwrap().1;
    assert!(version("CLICKHOUSE_VERSION").starts_with(clickhouse), "{clickhouse}");
}

/// Each service that runs our program has variables that it takes, alone and together.
#[tokio::test]
async fn every_variable_in_compose_is_accepted() {
    let compose = compose();
    let mut seen = 0;
    for (name, service) in compose["services"].as_hash().unwrap() {
        if service["build"].is_badvalue() {
            continue;
        }
        let variables: BTreeMap<_, _> = environment(service)
            .into_iter()
            .filter(|(name, _)| name.starts_with("DATA_BRIDGE_"))
            .collect();
        seen += variables.len();
        let (ok, said) = config_with(&variables).await;
        assert!(ok, "{name:?}: {said}");
        // a password that is all digits is a text all the same
        let mut digits = variables.clone();
        digits.insert("DATA_BRIDGE__CLICKHOUSE__PASSWORD".to_owned(), "0123".to_owned());
        let (ok, said) = config_with(&digits).await;
        assert!(ok, "{name:?}: {said}");
    }
    assert!(seen >= 10, "{seen}");
    // and this test would see one that is not
    let wrong = BTreeMap::from([("DATA_BRIDGE__BACKPRESSURE__PAUSE".to_owned(), "1".to_owned())]);
    assert!(!config_with(&wrong).await.0);
}

/// What the variables amount to: the services' own names and ports, and thresholds of 80 % / 40 %.
#[tokio::test]
async fn the_variables_point_at_the_services() {
    let compose = compose();
    let variables = environment(&compose["services"][OURS]);
    let (_, said) = config_with(&variables).await;
    let config: toml::Table = said.parse().unwrap_or_else(|error| panic!("{error}\n{said}"));
    let kafka = environment(&compose["services"]["kafka"]);
    let broker = config["kafka"]["brokers"][0].as_str().unwrap();
    assert!(kafka["KAFKA_ADVERTISED_LISTENERS"].contains(&format!("://{broker}")), "{broker}");
    assert_eq!(config["nats"]["servers"][0].as_str(), Some("nats://nats:4222"));
    assert_eq!(config["clickhouse"]["url"].as_str(), Some("http://clickhouse:8123"));
    let clickhouse = environment(&compose["services"]["clickhouse"]);
    assert_eq!(clickhouse["CLICKHOUSE_DB"], config["clickhouse"]["database"].as_str().unwrap());
    assert_eq!(clickhouse["CLICKHOUSE_USER"], config["clickhouse"]["user"].as_str().unwrap());
    let password = &variables["DATA_BRIDGE__CLICKHOUSE__PASSWORD"];
    assert_eq!(&clickhouse["CLICKHOUSE_PASSWORD"], password);
    assert!(!said.contains(&format!("password = \"{password}\"")), "the password is printed");
    let threshold = |name: &str| config["backpressure"][name].as_integer().unwrap();
    let cap = threshold("max_buffer_size");
    assert_eq!(
        (threshold("pause_threshold"), threshold("resume_threshold")),
        (cap / 5 * 4, cap / 5 * 2)
    );
    for name in ["MAX_BUFFER_SIZE", "PAUSE_THRESHOLD", "RESUME_THRESHOLD"] {
        let raw = &compose["services"][OURS]["environment"];
        let value = raw[format!("DATA_BRIDGE__BACKPRESSURE__{name}").as_str()].as_str().unwrap();
        assert!(value.starts_with(&format!("${{{name}:-")), "tunable by the environment: {value}");
    }
    let grace = duration(config["shutdown"]["grace"].as_str().unwrap());
    let killed = duration(compose["services"][OURS]["stop_grace_period"].as_str().unwrap());
    assert!(killed >= grace + Duration::from_secs(5), "{killed:?} {grace:?}");
}

/// Whoever breaks into the bridge finds nothing to write to, no privilege, and no way to get one.
#[test]
fn our_containers_run_read_only_and_without_privileges() {
    let compose = compose();
    let lines = dockerfile();
    let user = instructions(&lines, "USER").pop().unwrap();
    let mut ours = 0;
    for (name, service) in compose["services"].as_hash().unwrap() {
        let options = &service["security_opt"];
        assert!(texts(options).contains(&"no-new-privileges:true"), "{name:?}");
        assert!(service["privileged"].is_badvalue(), "{name:?}");
        if service["build"].is_badvalue() {
            continue;
        }
        ours += 1;
        assert_eq!(service["read_only"].as_bool(), Some(true), "{name:?}");
        assert_eq!(texts(&service["cap_drop"]), ["ALL"], "{name:?}");
        assert!(service["cap_add"].is_badvalue(), "{name:?}");
        assert_eq!(service["user"].as_str(), Some(user.as_str()), "{name:?}: as in the image");
        assert!(service["pids_limit"].as_i64().is_some(), "{name:?}");
        assert!(service["mem_limit"].as_str().is_some(), "{name:?}");
        let volumes = &service["volumes"];
        assert!(volumes.is_badvalue(), "{name:?} writes nothing: {volumes:?}");
    }
    assert!(ours >= 2, "{ours}");
}

/// The check asks the bridge, with nothing but its own binary.
#[tokio::test]
async fn the_health_checks_are_a_command_that_exists() {
    let lines = dockerfile();
    let check = instructions(&lines, "HEALTHCHECK").pop().expect("a HEALTHCHECK");
    let (_, command) = check.split_once("CMD ").unwrap();
    let image: Vec<String> = serde_json::from_str(command).unwrap();
    let compose = compose();
    let compose = texts(&compose["services"][OURS]["healthcheck"]["test"]);
    assert_eq!(compose[0], "CMD");
    assert_eq!(compose[1..], image, "both ask the same");
    let (binary, arguments) = image.split_first().unwrap();
    assert!(binary.ends_with("/data-bridge"), "{binary}");
    // nobody listens there: a check that exists says so with 1; one that does not, with 64
    let mut command = program();
    command.args(arguments).current_dir(path(""));
    command.env("DATA_BRIDGE__HTTP__LISTEN", "127.0.0.1:9");
    let done = tokio::time::timeout(Duration::from_secs(60), command.output()).await;
    let done = done.unwrap().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{said}");
}
