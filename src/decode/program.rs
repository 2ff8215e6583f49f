//! A mapping and a table's schema, compiled: where each column's value comes from, and what to do
//! without one.
//!
//! Owns every check that needs no record. What it accepts can only fail because of a value.

use super::column::Data;
use super::convert::{Convert, Value};
use super::json::{Kind, Reader, Span};
use super::keys::Keys;
use super::mapping::{ColumnMapping, Letter, Mapping, Metadata, Source};
use super::notes::Document;
use super::quick::Quick;
use super::time::TimeFormat;
use super::types::Type;
use crate::schema::{ColumnDefault, ColumnSchema, TableSchema};

/// What fills one column.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) name: String,
    /// As it is sent; `Nullable` around a type is how ClickHouse is asked for a DEFAULT.
    pub(super) ty: Type,
    pub(super) quick: Quick,
    pub(super) from: Vec<From>,
    pub(super) format: Option<TimeFormat>,
    pub(super) without: Without,
}

#[derive(Debug, Clone)]
pub(super) enum From {
    Slot(usize),
    Meta(Metadata),
}

/// What to do when no source has a value.
#[derive(Debug, Clone)]
pub(super) enum Without {
    /// The mapping's default.
    Default(Constant),
    Null,
    /// ClickHouse's own zero: only for dead letters, which are never refused.
    Zero,
    /// The sentence says what to do about it.
    Reject(String),
}

/// A value that is not from a record, as JSON.
#[derive(Debug, Clone)]
pub(super) struct Constant {
    json: Vec<u8>,
    notes: Vec<Span>,
    span: Span,
}

impl Constant {
    pub(super) fn value(&self) -> Value<'_> {
        Value::of(Document::new(&self.json, &self.notes), self.span)
    }
}

/// The plans of all columns to send, and the keys that they read. Err lists every problem.
pub(super) fn compile(
    schema: &TableSchema,
    mapping: &Mapping,
) -> Result<(Vec<Plan>, Keys), Vec<String>> {
    let mut problems = Vec::new();
    let mut keys = Keys::new();
    let mut plans = Vec::new();
    for (name, mapped) in mapping.columns() {
        if let Err(problem) = check_target(schema, name, mapped) {
            problems.push(problem);
        }
    }
    for column in &schema.columns {
        let mapped = mapping.columns().get(&column.name);
        let inserted = match column.default {
            ColumnDefault::None | ColumnDefault::Default => {
                mapped.is_some() || !mapping.is_exclusive()
            }
            ColumnDefault::Ephemeral => mapped.is_some(),
            ColumnDefault::Materialized | ColumnDefault::Alias => false,
        };
        if !inserted {
            continue;
        }
        let plan = plan(&schema.table, column, mapped, mapping.is_exclusive(), &mut keys);
        match plan {
            Ok(plan) => plans.push(plan),
            Err(problem) => problems.push(problem),
        }
    }
    if plans.is_empty() && problems.is_empty() {
        problems.push(format!("table {}: it has no column to insert into", schema.table));
    }
    if problems.is_empty() { Ok((plans, keys)) } else { Err(problems) }
}

/// Whether the table has such a column, and it may be inserted.
fn check_target(schema: &TableSchema, name: &str, mapped: &ColumnMapping) -> Result<(), String> {
    let table = &schema.table;
    let Some(column) = schema.columns.iter().find(|column| column.name == name) else {
        let nearest = schema
            .columns
            .iter()
            .map(|column| (strsim::damerau_levenshtein(&column.name, name), &column.name))
            .filter(|&(distance, _)| distance <= 2)
            .min();
        let hint = nearest.map_or_else(String::new, |(_, name)| format!(" (did you mean {name}?)"));
        return Err(format!(
            "table {table} has no column {name}{hint}: remove it from the mapping, or add it to the table"
        ));
    };
    let kind = match column.default {
        ColumnDefault::Materialized => "MATERIALIZED",
        ColumnDefault::Alias => "ALIAS",
        _ => return check_times(table, column, mapped),
    };
    Err(format!(
        "column {name} of table {table} is {kind}, ClickHouse computes it: remove it from the mapping"
    ))
}

fn check_times(table: &str, column: &ColumnSchema, mapped: &ColumnMapping) -> Result<(), String> {
    let Some(format) = &mapped.format else { return Ok(()) };
    match Type::parse(&column.type_name) {
        Ok(ty) if !ty.holds_times() => Err(format!(
            "column {} of table {table} is {ty}, which holds no time: remove format = \"{format}\"",
            column.name
        )),
        _ => Ok(()),
    }
}

fn plan(
    table: &str,
    column: &ColumnSchema,
    mapped: Option<&ColumnMapping>,
    exclusive: bool,
    keys: &mut Keys,
) -> Result<Plan, String> {
    let name = &column.name;
    let ty = Type::parse(&column.type_name).map_err(|unknown| {
        format!(
            "column {name} of table {table} is {}, and the decoder cannot fill {unknown}: \
             use format = \"json\" for the route",
            column.type_name
        )
    })?;
    let own = [Source::Path(vec![name.clone()])];
    let sources = match mapped {
        Some(mapped) if !mapped.from.is_empty() => mapped.from.as_slice(),
        _ => &own,
    };
    let mut from = Vec::with_capacity(sources.len());
    for source in sources {
        from.push(match source {
            Source::Path(path) if path.is_empty() => {
                return Err(format!("column {name} of table {table}: an empty path"));
            }
            Source::Path(path) => From::Slot(keys.slot(path)),
            Source::Meta(meta) => {
                check_metadata(meta, &ty).map_err(|takes| {
                    format!(
                        "column {name} of table {table} is {ty}, but {source} needs {takes}: map \
                         something else, or change the column"
                    )
                })?;
                From::Meta(meta.clone())
            }
        });
    }
    let format = mapped.and_then(|mapped| mapped.format.clone());
    let (ty, without) = match mapped.and_then(|mapped| mapped.default.as_ref()) {
        Some(default) => {
            let without = default_of(default, &ty, format.as_ref()).map_err(|why| {
                format!("column {name} of table {table}: its default does not fit: {why}")
            })?;
            (ty, without)
        }
        None => without(column, ty, exclusive),
    };
    let quick = Quick::new(&ty, format.as_ref());
    Ok(Plan { name: name.clone(), ty, quick, from, format, without })
}

/// Err says which types this metadata needs.
fn check_metadata(meta: &Metadata, ty: &Type) -> Result<(), &'static str> {
    match meta {
        Metadata::Raw if !ty.takes_bytes() => Err("a String"),
        Metadata::Letter(Letter::Headers) => match ty {
            Type::Map(key, value) if key.takes_bytes() && value.takes_bytes() => Ok(()),
            _ if ty.takes_bytes() => Ok(()),
            _ => Err("a Map(String, String) or a String"),
        },
        _ => Ok(()),
    }
}

/// Checks the default by converting it once.
fn default_of(
    default: &serde_json::Value,
    ty: &Type,
    format: Option<&TimeFormat>,
) -> Result<Without, String> {
    let (json, mut notes) = (default.to_string().into_bytes(), Vec::new());
    let read = Reader::new(&json, 0).value(0, &mut notes);
    let span = read.map_err(|_| "it nests too deep".to_owned())?;
    let constant = Constant { json, notes, span };
    // What is written by hand in the configuration is not held to the records' format only.
    let mut convert = Convert::default();
    let put = convert.put(ty, &mut Data::new(ty), constant.value(), format);
    put.map_err(|reject| reject.error)?;
    if convert.rounded > 0 {
        return Err(format!("{default} would be rounded to fit {ty}"));
    }
    Ok(if span.kind == Kind::Null { Without::Null } else { Without::Default(constant) })
}

/// The type to send and what to do without a value, when the mapping has no default.
fn without(column: &ColumnSchema, ty: Type, exclusive: bool) -> (Type, Without) {
    let computed = matches!(column.default, ColumnDefault::Default | ColumnDefault::Ephemeral);
    if ty.is_nullable() {
        return (ty, Without::Null);
    }
    if let Some(nullable) = ty.nullable().filter(|_| computed) {
        // With input_format_null_as_default, NULL in such a column means its DEFAULT.
        return (nullable, Without::Null);
    }
    if exclusive {
        return (ty, Without::Zero);
    }
    let why = if computed {
        format!("ClickHouse cannot be asked for the DEFAULT of a {ty}")
    } else {
        "the column is not Nullable and has no DEFAULT".to_owned()
    };
    let sentence = format!("no value, and {why}; a mapping may give it a `default`");
    (ty, Without::Reject(sentence))
}
