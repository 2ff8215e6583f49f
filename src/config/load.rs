//! Loads a configuration: files, variables, check, validate. All or a message.

use std::path::PathBuf;

use super::Config;
use super::check::check;
use super::env::{self, Variables};
use super::layers;
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
    Ok(load_from(given, &std::env::vars_os().collect())?.0)
}

/// The same as TOML, every default filled in and secrets hidden.
///
/// # Errors
///
/// As for [`load`].
pub fn effective(given: &[PathBuf]) -> Result<String, ConfigError> {
    let (config, raw) = load_from(given, &std::env::vars_os().collect())?;
    Ok(print::effective(raw, &config))
}

pub(super) fn load_from(given: &[PathBuf], vars: &Variables) -> Result<(Config, Raw), ConfigError> {
    let mut tree = layers::read(&layers::files(given)?)?;
    let schema = json_schema();
    let mut problems = Problems::default();
    env::apply(&mut tree, &schema, vars, &mut problems);
    let origins = Origins::new(&tree);
    let json = check(&schema, &tree, &mut problems);
    // what has the wrong shape cannot be read, and its consequences would hide the cause
    problems.settle(&origins)?;
    let raw: Raw = serde_json::from_value(json)
        .map_err(|error| ConfigError::file(format!("the configuration: {error}")))?;
    let mut problems = Problems::default();
    let config = validate::build(&raw, &mut problems);
    problems.settle(&origins)?;
    let config = config.expect("what cannot be built has been reported");
    Ok((config, raw))
}
