//! From files to one tree of values: each file over the one before it. Tables are merged key by
//! key; everything else, lists too, is replaced whole.

use std::path::{Path, PathBuf};

use config::{File, FileFormat, Map, Source, Value, ValueKind};

use super::kafka_client;
use super::problem::ConfigError;

/// Read when no `--config` is given.
pub const DEFAULT_FILE: &str = "config/data-bridge.toml";

/// The files to read: those given, else the default one, which must then be there.
///
/// # Errors
///
/// When none is given and the default file is missing.
pub fn files(given: &[PathBuf]) -> Result<Vec<PathBuf>, ConfigError> {
    if !given.is_empty() {
        return Ok(given.to_vec());
    }
    let default = PathBuf::from(DEFAULT_FILE);
    if default.is_file() {
        return Ok(vec![default]);
    }
    Err(ConfigError::file(format!(
        "no --config given and ./{DEFAULT_FILE} is not there; give --config PATH, or start in the \
         directory that holds config/"
    )))
}

/// A layer that came by another way than a file: what it says, and in which language.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Where it came from, for messages.
    pub origin: &'static str,
    /// `toml`, `yaml` or `json`, as a file's extension says it.
    pub extension: &'static str,
    pub text: String,
}

/// The files, merged, and over them the layer, if there is one.
pub(super) fn read(files: &[PathBuf], over: Option<&Layer>) -> Result<Value, ConfigError> {
    let mut tree = Value::new(None, Map::<String, Value>::new());
    for file in files {
        merge(&mut tree, read_one(file)?);
    }
    if let Some(Layer { origin, extension, text }) = over {
        merge(&mut tree, parse(origin, format(Some(extension)), text)?);
    }
    Ok(tree)
}

fn format(extension: Option<&str>) -> FileFormat {
    match extension {
        Some("yaml" | "yml") => FileFormat::Yaml,
        Some("json") => FileFormat::Json,
        _ => FileFormat::Toml,
    }
}

fn read_one(path: &Path) -> Result<Value, ConfigError> {
    let shown = path.display();
    let fail = |text: String| Err(ConfigError::file(text));
    let format = format(path.extension().and_then(|extension| extension.to_str()));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(_) if path.is_dir() => {
            return fail(format!("--config {shown}: is a directory; give the file in it"));
        }
        Err(error) => return fail(format!("--config {shown}: cannot be read: {error}")),
    };
    parse(&shown.to_string(), format, &text)
}

fn parse(origin: &str, format: FileFormat, text: &str) -> Result<Value, ConfigError> {
    let mut tree = match File::from_str(text, format).collect() {
        Ok(table) => from_here(&origin.to_owned(), table.into()),
        Err(error) => {
            let why = without_source(&error.to_string());
            return Err(ConfigError::file(format!("{origin}: {why}")));
        }
    };
    kafka_client::flatten(&mut tree);
    Ok(tree)
}

/// What is wrong and where, without the line itself: a secret may stand in it.
fn without_source(error: &str) -> String {
    let quotes = |line: &&str| {
        let rest = line.trim_start().trim_start_matches(|c: char| c.is_ascii_digit());
        rest.trim_start().starts_with('|')
    };
    let said: Vec<&str> = error.lines().filter(|line| !quotes(line)).map(str::trim).collect();
    let mut said = said.join(": ");
    // what TOML makes of a bare word that begins as `true` or `false` does
    if said.contains("invalid boolean") {
        said.push_str("; a text stands in quotes");
    }
    said
}

/// The value, saying of every part of it that it comes from this file.
fn from_here(file: &String, kind: ValueKind) -> Value {
    let kind = match kind {
        ValueKind::Table(table) => {
            let items = table.into_iter();
            ValueKind::Table(items.map(|(key, v)| (key, from_here(file, v.kind))).collect())
        }
        ValueKind::Array(items) => {
            ValueKind::Array(items.into_iter().map(|v| from_here(file, v.kind)).collect())
        }
        other => other,
    };
    Value::new(Some(file), kind)
}

/// Lays `over` over `tree`.
fn merge(tree: &mut Value, over: Value) {
    let ValueKind::Table(base) = &mut tree.kind else {
        *tree = over;
        return;
    };
    match over.kind {
        ValueKind::Table(table) => {
            for (key, value) in table {
                match base.get_mut(&key) {
                    Some(known) => merge(known, value),
                    None => {
                        base.insert(key, value);
                    }
                }
            }
        }
        _ => *tree = over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Value {
        let table = File::from_str(text, FileFormat::Toml).collect().unwrap();
        Value::new(None, table)
    }

    #[test]
    fn a_slip_in_the_file_is_told_without_its_line() {
        let text = "a = 1\n[clickhouse]\npassword = \"s3cr3t\nuser = \"x\"\n";
        let error = File::from_str(text, FileFormat::Toml).collect().unwrap_err().to_string();
        assert!(error.contains("s3cr3t"), "it would be shown: {error}");
        let said = without_source(&error);
        assert!(said.contains("line 3, column") && said.contains("invalid"), "{said}");
        assert!(!said.contains("s3cr3t") && !said.contains('|'), "{said}");
    }

    #[test]
    fn a_word_without_its_quotes_is_told_as_such() {
        for (text, hint) in [("a = temp", "stands in quotes"), ("a = word", "must be quoted")] {
            let error = parse("c.toml", FileFormat::Toml, text).unwrap_err().to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn a_later_file_replaces_lists_whole_and_merges_tables() {
        let mut merged = tree("a = [1, 2]\n[t]\nx = 1\ny = 2");
        merge(&mut merged, tree("a = [3]\n[t]\ny = 5"));
        assert_eq!(merged, tree("a = [3]\n[t]\nx = 1\ny = 5"));
    }
}
