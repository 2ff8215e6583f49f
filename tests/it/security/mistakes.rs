//! Secrets in the wrong place: no message about a configuration quotes one.

use std::process::Output;
use std::time::Duration;

use serde_json::Value as Json;
use tempfile::TempDir;

use crate::bridge::program;

/// What must not be seen. Long enough that a part of it would be noticed too.
const SECRET: &str = "hunter2-correct-horse-battery-staple";
const ROUTE: &str = "[[routes]]\nname = \"x\"\nkafka_topics = [\"x\"]\ntable = \"x\"\n";

struct Said {
    code: i32,
    text: String,
}

async fn run(arguments: &[&str], file: (&str, &str), variables: &[(String, String)]) -> Said {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join(file.0);
    std::fs::write(&path, file.1).unwrap();
    let mut command = program();
    command.arg("--config").arg(&path).args(arguments).envs(variables.iter().cloned());
    command.env("RUST_LOG", "trace");
    let done = tokio::time::timeout(Duration::from_secs(20), command.output()).await;
    let Output { status, stdout, stderr } = done.unwrap().unwrap();
    let text = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
    Said { code: status.code().unwrap(), text: text.into_owned() }
}

fn assert_hidden(said: &Said, what: &str) {
    for part in [SECRET, "hunter2", "battery-staple"] {
        assert!(!said.text.contains(part), "{what}: {}", said.text);
    }
}

#[tokio::test]
async fn a_mistake_beside_a_secret_does_not_show_it() {
    let files = [
        ("c.toml", format!("[clickhouse]\npassword = \"{SECRET}\n")),
        ("c.toml", format!("[clickhouse]\npassword = {SECRET}\n")),
        ("c.toml", format!("[clickhouse]\npassword = \"a\"\npassword = \"{SECRET}\"\n")),
        ("c.toml", format!("[kafka.client]\n\"ssl.key.pem\" = \"\"\"\n{SECRET}\n\\q\n\"\"\"\n")),
        ("c.yaml", format!("clickhouse:\n  password: \"{SECRET}\n")),
        ("c.yaml", format!("clickhouse:\n  password: *{SECRET}\n")),
        ("c.yaml", format!("clickhouse:\n  password: {SECRET}: x\n")),
        ("c.json", format!("{{\"clickhouse\": {{\"password\": \"{SECRET}}}")),
        ("c.json", format!("{{\"clickhouse\": {{\"password\": {SECRET}}}}}")),
        // a slip in the key's name
        ("c.toml", format!("[clickhouse]\npasswrd = \"{SECRET}\"\n")),
        ("c.toml", format!("[nats]\ntokn = \"a\"\nnkey_seed = \"{SECRET}\"\n")),
        ("c.toml", format!("[http]\nbearer_token = \"{SECRET}\"\n")),
        ("c.toml", format!("[clickhouse.credentials]\npassword = \"{SECRET}\"\n")),
        ("c.toml", format!("[kafka.client]\nsasl_password = \"{SECRET}\"\n")),
        // the wrong type
        ("c.toml", format!("[clickhouse]\npassword = [\"{SECRET}\"]\n")),
        ("c.toml", format!("[clickhouse.password]\nvalue = \"{SECRET}\"\n")),
        ("c.toml", format!("[kafka.client]\n\"sasl.password\" = [\"{SECRET}\"]\n")),
        // the secret where its file belongs
        ("c.toml", format!("[clickhouse]\npassword_file = \"{SECRET}\"\n")),
        ("c.toml", format!("[nats]\nnkey_file = \"{SECRET}\"\n")),
        ("c.toml", format!("[nats]\ncredentials_file = \"-----BEGIN X-----\\n{SECRET}\"\n")),
        ("c.toml", format!("[nats.tls]\nkey_file = \"{SECRET}\"\ncert_file = \"{SECRET}\"\n")),
        ("c.toml", format!("[http.tls]\nkey_file = \"{SECRET}\"\ncert_file = \"{SECRET}\"\n")),
        ("c.toml", format!("[kafka.client]\n\"sasl.password_file\" = \"{SECRET}\"\n")),
        // twice
        (
            "c.toml",
            format!("[clickhouse]\npassword = \"{SECRET}\"\npassword_file = \"{SECRET}\"\n"),
        ),
        (
            "c.toml",
            format!("[nats]\nuser = \"u\"\npassword = \"{SECRET}\"\ntoken = \"{SECRET}\"\n"),
        ),
        ("c.toml", format!("[nats]\npassword = \"{SECRET}\"\n")),
        // in an address
        ("c.toml", format!("[clickhouse]\nurl = \"http://me:{SECRET}@localhost:8123\"\n")),
        ("c.toml", format!("[nats]\nservers = [\"nats://{SECRET}@localhost:4222\"]\n")),
        ("c.toml", format!("[kafka]\nbrokers = [\"sasl://me:{SECRET}@localhost:9092\"]\n")),
    ];
    for (name, text) in files {
        let text = if name == "c.toml" { text + ROUTE } else { text };
        for command in ["config", "check"] {
            let said = run(&[command], (name, &text), &[]).await;
            assert_eq!(said.code, 64, "{text}\n{}", said.text);
            assert_hidden(&said, &text);
        }
    }
}

#[tokio::test]
async fn a_mistake_in_a_variable_does_not_show_its_secret() {
    let good = format!("[kafka]\n{ROUTE}");
    for name in [
        "DATA_BRIDGE__CLICKHOUSE__PASSWRD",
        "DATA_BRIDGE__CLICKHOUSE_PASSWORD",
        "DATA_BRIDGE_CLICKHOUSE__PASSWORD",
        "DATA_BRIDGE__NATS__TOKENS",
        "DATA_BRIDGE__CLICKHOUSE__PASSWORD__VALUE",
        "DATA_BRIDGE__CLICKHOUSE__PASSWORD_FILE",
        "DATA_BRIDGE__KAFKA__CLIENT__SASL_PASSWORD_FILE",
        "DATA_BRIDGE__NATS__PASSWORD",
    ] {
        let variable = [(name.to_owned(), SECRET.to_owned())];
        let said = run(&["config"], ("c.toml", &good), &variable).await;
        assert_eq!(said.code, 64, "{name}: {}", said.text);
        assert_hidden(&said, name);
    }
}

/// The paths of all keys that the schema calls secret: what is added later is tried as well.
fn secret_keys(schema: &Json, path: &str, found: &mut Vec<String>) {
    if schema["format"] == "password" {
        found.push(path.to_owned());
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        secret_keys(property, &path, found);
    }
}

#[tokio::test]
async fn every_secret_is_hidden_where_the_configuration_is_shown() {
    let mut keys = Vec::new();
    secret_keys(&data_bridge::config::json_schema(), "", &mut keys);
    for known in ["clickhouse.password", "nats.password", "nats.token", "http.token"] {
        assert!(keys.iter().any(|key| key == known), "{known} is not in {keys:?}");
    }
    // all that librdkafka calls sensitive, but for names of users and files
    for property in [
        "sasl.password",
        "sasl.oauthbearer.config",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.assertion.private.key.passphrase",
        "sasl.oauthbearer.assertion.private.key.pem",
        "ssl.key.password",
        "ssl.key.pem",
        "ssl.ca.pem",
        "ssl.keystore.password",
    ] {
        assert!(data_bridge::config::is_secret_property(property), "{property}");
        keys.push(format!("kafka.client.{}", property.replace('.', "_")));
    }
    let file = format!("[kafka]\n{}", ROUTE.replace("table", "nats_subjects = [\"x\"]\ntable"));
    for key in keys {
        let name = format!("DATA_BRIDGE__{}", key.to_uppercase().replace('.', "__"));
        let mut variables = vec![(name, SECRET.to_owned())];
        if key == "nats.password" {
            variables.push(("DATA_BRIDGE__NATS__USER".to_owned(), "u".to_owned()));
        }
        let said = run(&["config"], ("c.toml", &file), &variables).await;
        assert_eq!(said.code, 0, "{key}: {}", said.text);
        assert!(said.text.contains("\"***\""), "{key}: {}", said.text);
        assert_hidden(&said, &key);
        let check = run(&["check"], ("c.toml", &file), &variables).await;
        assert_hidden(&check, &key);
    }
}
