//! `data-bridge schema`: the tables of `schema/*.sql` beside the configuration.
//! Prints them, or creates those that are missing. It never changes a table that exists.

mod apply;

use std::path::{Path, PathBuf};

use super::Failure;
use crate::config;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  data-bridge schema                    print the SQL, files in the order of their names
  data-bridge schema --apply            create the database and the tables that are missing
  data-bridge schema --dir ./my-tables --apply

The statements name no database: they run in clickhouse.database.")]
pub(super) struct Args {
    /// Where the .sql files are [default: schema/ beside the first configuration file]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Create the tables in the configured ClickHouse; those that exist are left as they are
    #[arg(long)]
    apply: bool,
}

pub(super) fn run(args: Args, files: &[PathBuf]) -> Result<(), Failure> {
    let dir = match args.dir {
        Some(dir) => dir,
        None => beside(&config::files(files)?),
    };
    let scripts = read(&dir)?;
    if !args.apply {
        let texts: Vec<_> = scripts.iter().map(|script| script.text.trim()).collect();
        return super::print(&format!("{}\n", texts.join("\n\n")));
    }
    let config = config::load(files)?;
    let statements = scripts.iter().flat_map(|script| statements(&script.text));
    apply::apply(&config.clickhouse, statements)
}

struct Script {
    name: PathBuf,
    text: String,
}

fn beside(files: &[PathBuf]) -> PathBuf {
    let first = files.first().map_or(Path::new(config::DEFAULT_FILE), PathBuf::as_path);
    first.parent().unwrap_or(Path::new("")).join("schema")
}

/// The .sql files in the order of their names.
fn read(dir: &Path) -> Result<Vec<Script>, Failure> {
    let shown = dir.display();
    let remedy = "give the directory of the .sql files by --dir";
    let entries = std::fs::read_dir(dir)
        .map_err(|error| Failure::usage(format!("{shown}: cannot be read: {error}; {remedy}")))?;
    let mut scripts = Vec::new();
    for entry in entries {
        let name = entry.map_err(|error| Failure::usage(format!("{shown}: {error}")))?.path();
        if name.extension().is_some_and(|extension| extension == "sql") {
            let text = std::fs::read_to_string(&name)
                .map_err(|error| Failure::usage(format!("{}: {error}", name.display())))?;
            scripts.push(Script { name, text });
        }
    }
    if scripts.is_empty() {
        return Err(Failure::usage(format!("{shown}: holds no .sql file; {remedy}")));
    }
    scripts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(scripts)
}

/// The statements of a script: cut at each `;` that is not part of a comment or a text.
fn statements(script: &str) -> Vec<&str> {
    let mut cuts = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < script.len() {
        let rest = &script[at..];
        let skip = match rest.as_bytes()[0] {
            b'-' if rest.starts_with("--") => rest.find('\n'),
            b'/' if rest.starts_with("/*") => rest.find("*/").map(|end| end + 2),
            quote @ (b'\'' | b'"' | b'`') => closing(rest, quote),
            b';' => {
                cuts.push(&script[start..at]);
                start = at + 1;
                Some(1)
            }
            _ => rest.chars().next().map(char::len_utf8),
        };
        at += skip.unwrap_or(rest.len());
    }
    cuts.push(&script[start..]);
    cuts.retain(|statement| has_code(statement));
    cuts.into_iter().map(str::trim).collect()
}

/// Where a quoted text ends: after its closing quote.
fn closing(text: &str, quote: u8) -> Option<usize> {
    let mut bytes = text.bytes().enumerate().skip(1);
    while let Some((index, byte)) = bytes.next() {
        if byte == b'\\' {
            bytes.next();
        } else if byte == quote {
            return Some(index + 1);
        }
    }
    None
}

/// Whether there is more than comments of whole lines.
fn has_code(statement: &str) -> bool {
    statement.lines().map(str::trim).any(|line| !line.is_empty() && !line.starts_with("--"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_semicolon_in_a_comment_or_a_text_does_not_end_a_statement() {
        let script = "-- a; b\nCREATE x DEFAULT 'a;\\'b';\n/* ; */ SELECT \";\";\n-- end;\n";
        assert_eq!(
            statements(script),
            ["-- a; b\nCREATE x DEFAULT 'a;\\'b'", "/* ; */ SELECT \";\""]
        );
    }

    #[test]
    fn each_shipped_script_creates_the_table_of_its_name_and_names_a_deduplication_window() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/schema");
        let scripts = read(&dir).unwrap();
        assert_eq!(scripts.len(), 10);
        for script in scripts {
            let table = script.name.file_stem().unwrap().to_str().unwrap().to_owned();
            let [statement] = statements(&script.text)[..] else {
                panic!("{table}: one statement")
            };
            assert_eq!(apply::table_of(statement), Some(table.as_str()));
            assert!(statement.contains("non_replicated_deduplication_window"), "{table}");
        }
    }
}
