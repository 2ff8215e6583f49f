//! Validates `[routes.columns]` into the mapping that the decoder works by.

use std::collections::BTreeMap;

use super::problem::Problems;
use super::raw_route::{Column, FullColumn, OneOrMany};
use crate::decode::{ColumnMapping, Mapping, Source, TimeFormat};

pub(super) fn mapping(
    route: &str,
    raw: &BTreeMap<String, Column>,
    problems: &mut Problems,
) -> Option<Mapping> {
    let mut columns = BTreeMap::new();
    let mut complete = true;
    for (name, column) in raw {
        let key = format!("{route}.columns.{name}");
        match self::column(&key, column, problems) {
            Some(column) => {
                columns.insert(name.clone(), column);
            }
            None => complete = false,
        }
    }
    complete.then(|| Mapping::new(columns))
}

fn column(key: &str, raw: &Column, problems: &mut Problems) -> Option<ColumnMapping> {
    let full = match raw {
        Column::Full(full) => full.clone(),
        Column::Source(from) => {
            FullColumn { from: Some(OneOrMany::One(from.clone())), ..FullColumn::default() }
        }
    };
    let sources = full.from.as_ref().map_or(&[][..], OneOrMany::as_slice);
    if full.from.is_some() && sources.is_empty() {
        let text = "names no source; leave it out for the payload's key of the column's name";
        problems.push(&format!("{key}.from"), "[]", text);
        return None;
    }
    let mut from = Vec::with_capacity(sources.len());
    for source in sources {
        match source.parse::<Source>() {
            Ok(source) => from.push(source),
            Err(error) => problems.text(&format!("{key}.from"), source, error),
        }
    }
    let format = match full.format.as_deref().map(str::parse::<TimeFormat>).transpose() {
        Ok(format) => format,
        Err(error) => {
            let given = full.format.unwrap_or_default();
            problems.text(&format!("{key}.format"), &given, error);
            return None;
        }
    };
    (from.len() == sources.len()).then_some(ColumnMapping { from, default: full.default, format })
}

/// A column that takes its value from this metadata.
pub(super) fn taken_from<'a>(raw: &'a BTreeMap<String, Column>, metadata: &str) -> Option<&'a str> {
    let takes = |column: &Column| match column {
        Column::Source(from) => from == metadata,
        Column::Full(full) => {
            full.from.as_ref().is_some_and(|from| from.as_slice().iter().any(|f| f == metadata))
        }
    };
    raw.iter().find(|(_, column)| takes(column)).map(|(name, _)| name.as_str())
}
