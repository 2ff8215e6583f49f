//! Loads a configuration: files, variables, check, validate. All or a message.

use std::path::PathBuf;

use super::Config;
use super::change::{self, Change, Leaves};
use super::check::check;
use super::env::{self, Variables};
use super::layers::{self, Layer};
use super::limits::Shares;
use super::print;
use super::problem::{ConfigError, Origins, Problems};
use super::raw::Raw;
use super::schema::json_schema;
use super::validate;

/// The configuration of these files (of the default file if there are none), under the process's
/// environment.
///
/// # Errors
///
/// When a file cannot be read, or anything in it or in the environment is wrong.
pub fn load(given: &[PathBuf]) -> Result<Config, ConfigError> {
    Ok(load_from(given, None, &std::env::vars_os().collect())?.0)
}

/// A configuration, and what tells it from another.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// As TOML, every default filled in and secrets hidden.
    pub text: String,
    leaves: Leaves,
    shares: Shares,
}

impl Loaded {
    /// The same for the same settings, whatever files and variables they come from.
    #[must_use]
    pub fn hash(&self) -> String {
        format!("{:016x}", xxhash_rust::xxh3::xxh3_64(self.text.as_bytes()))
    }

    /// What is different in `new`, by key.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        self.leaves.changes(&new.leaves)
    }

    /// Why `new` cannot take the place of this one while the bridge runs: the keys that need a
    /// restart, each with what to do. Empty if it can.
    #[must_use]
    pub fn needs_restart(&self, new: &Self) -> Vec<String> {
        change::needs_restart(&self.config, &new.config, &self.changes(new))
    }

    /// What this configuration leaves to be chosen once, at the start.
    #[must_use]
    pub fn shares(&self) -> Shares {
        self.shares
    }
}

/// The same, with a layer over the files.
///
/// # Errors
///
/// As for [`load`].
pub fn load_over(given: &[PathBuf], over: Option<&Layer>) -> Result<Loaded, ConfigError> {
    load_after(Shares::default(), given, over)
}

/// The same for a bridge that runs: what was chosen at its start stays where nothing is given.
///
/// # Errors
///
/// As for [`load`].
pub fn load_after(
    running: Shares,
    given: &[PathBuf],
    over: Option<&Layer>,
) -> Result<Loaded, ConfigError> {
    let vars = std::env::vars_os().collect();
    let (config, raw, shares) = load_beside(running, given, over, &vars)?;
    let text = print::effective(raw, &config);
    let leaves = Leaves::new(&text, &config);
    Ok(Loaded { config, text, leaves, shares })
}

/// The same as TOML, every default filled in and secrets hidden.
///
/// # Errors
///
/// As for [`load`].
pub fn effective(given: &[PathBuf]) -> Result<String, ConfigError> {
    let (config, raw) = load_from(given, None, &std::env::vars_os().collect())?;
    Ok(print::effective(raw, &config))
}

pub(super) fn load_from(
    given: &[PathBuf],
    over: Option<&Layer>,
    vars: &Variables,
) -> Result<(Config, Raw), ConfigError> {
    let (config, raw, _) = load_beside(Shares::default(), given, over, vars)?;
    Ok((config, raw))
}

fn load_beside(
    running: Shares,
    given: &[PathBuf],
    over: Option<&Layer>,
    vars: &Variables,
) -> Result<(Config, Raw, Shares), ConfigError> {
    let mut tree = layers::read(&layers::files(given)?, over)?;
    let schema = json_schema();
    let mut problems = Problems::default();
    env::apply(&mut tree, &schema, vars, &mut problems);
    let origins = Origins::new(&tree);
    let json = check(&schema, &tree, &mut problems);
    // what has the wrong shape cannot be read, and its consequences would hide the cause
    problems.settle(&origins)?;
    let mut raw: Raw = serde_json::from_value(json)
        .map_err(|error| ConfigError::file(format!("the configuration: {error}")))?;
    let shares = running.keep(&mut raw);
    let mut problems = Problems::default();
    let config = validate::build(&raw, &mut problems);
    problems.settle(&origins)?;
    let config = config.expect("what cannot be built has been reported");
    Ok((config, raw, shares))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::super::NatsAuth;
    use super::*;

    const ROUTE: &str =
        "[[routes]]\nname = 'x'\nkafka_topics = ['x']\nnats_subjects = ['x']\ntable = 't'\n";

    fn load(text: &str, vars: &[(&str, &str)]) -> Result<Config, String> {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, format!("{text}\n{ROUTE}")).unwrap();
        let vars = vars.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let loaded = load_from(&[file], None, &vars).map_err(|error| error.to_string())?;
        Ok(loaded.0)
    }

    fn clickhouse_password(config: &Config) -> &str {
        config.clickhouse.password.as_ref().unwrap().expose_secret()
    }

    #[test]
    fn an_all_digits_password_stays_text() {
        let vars = [("DATA_BRIDGE__CLICKHOUSE__PASSWORD", "0012345")];
        let config = load("[kafka]", &vars).unwrap();
        assert_eq!(clickhouse_password(&config), "0012345");
    }

    #[test]
    fn a_secret_comes_from_its_file_without_the_last_newline() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("secret");
        let name = path.to_str().unwrap().to_owned();
        std::fs::write(&path, " 12 34\n").unwrap();
        let vars = [
            ("DATA_BRIDGE__CLICKHOUSE__PASSWORD_FILE", name.as_str()),
            ("DATA_BRIDGE__NATS__TOKEN_FILE", name.as_str()),
            ("DATA_BRIDGE__KAFKA__CLIENT__SASL_PASSWORD_FILE", name.as_str()),
        ];
        let config = load("[kafka]", &vars).unwrap();
        assert_eq!(clickhouse_password(&config), " 12 34");
        let Some(NatsAuth::Token(token)) = config.nats.map(|nats| nats.auth) else {
            panic!("the variable makes the nats table appear");
        };
        assert_eq!(token.expose_secret(), " 12 34");
        assert_eq!(config.kafka.unwrap().client["sasl.password"], " 12 34");

        std::fs::write(&path, "\n").unwrap();
        let error = load("[kafka]", &vars[..1]).unwrap_err();
        assert!(error.contains(&name) && error.contains("empty"), "{error}");
    }

    #[test]
    fn kafka_fills_the_buffer_only_half_way_to_the_pause_beside_nats() {
        let limit = |text: &str| load(text, &[]).unwrap().backpressure.pull_limit;
        assert_eq!(limit("[kafka]"), 40_000);
        assert_eq!(limit("[nats]"), 40_000);
        assert_eq!(limit("[kafka]\n[nats]"), 30_000);
        assert_eq!(limit("[kafka]\n[backpressure]\npull_limit = 50_000"), 50_000);
        assert!(load("[kafka]\n[backpressure]\npull_limit = 20_000", &[]).is_err());
    }

    #[test]
    fn what_a_writer_does_not_say_fits_a_small_cap() {
        let small = "[kafka]\n[writers.x]\nlinger = '2s'\n[backpressure]\n\
                     max_buffer_size = 1000\npause_threshold = 800\nresume_threshold = 400\n\
                     max_buffer_bytes = '8MiB'";
        let writers = load(small, &[]).unwrap().writers;
        assert_eq!(writers["x"].batch_rows, 500);
        assert_eq!(writers["default"].batch_bytes, 4 << 20);
        let lower = [("DATA_BRIDGE__WRITERS__X__BATCH_ROWS", "7")];
        assert_eq!(load(small, &lower).unwrap().writers["x"].batch_rows, 7);
    }

    #[test]
    fn the_heartbeat_follows_the_clients_poll_interval() {
        let short = "[kafka.client]\nmax.poll.interval.ms = 12000";
        let error = load(short, &[]).unwrap_err();
        assert!(error.contains("heartbeat.interval = \"5s\"") && error.contains("12s"), "{error}");
        assert!(load(short, &[("DATA_BRIDGE__HEARTBEAT__INTERVAL", "3s")]).is_ok());
        let error = load("[kafka.client]\nmax.poll.interval.ms = 'soon'", &[]).unwrap_err();
        assert!(error.contains("max.poll.interval.ms = \"soon\""), "{error}");
    }

    #[test]
    fn properties_dotted_and_quoted_are_the_same_and_layers_merge_them() {
        let text = "[kafka.client]\nsasl.mechanism = 'PLAIN'\n\"session.timeout.ms\" = 9000";
        let vars = [("DATA_BRIDGE__KAFKA__CLIENT__SASL_MECHANISM", "SCRAM-SHA-512")];
        let client = load(text, &vars).unwrap().kafka.unwrap().client;
        assert_eq!(client["sasl.mechanism"], "SCRAM-SHA-512");
        assert_eq!(client["session.timeout.ms"], "9000");
        assert_eq!(client.len(), 2);
    }

    #[test]
    fn a_server_without_a_scheme_is_a_nats_server() {
        let nats = load("[nats]\nservers = ['a:4222', 'tls://b']", &[]).unwrap().nats.unwrap();
        assert_eq!(nats.servers, ["nats://a:4222", "tls://b"]);
    }

    #[test]
    fn debug_shows_no_secret() {
        let text = "[kafka.client]\nsasl.password = 's3cr3t'\n[clickhouse]\npassword = 's3cr3t'";
        assert!(!format!("{:?}", load(text, &[]).unwrap()).contains("s3cr3t"));
    }
}
