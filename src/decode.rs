//! From a record's payload to typed columns, in the layout of ClickHouse's Native format.
//!
//! ```text
//! TableSchema + Mapping --program--> Decoder
//! payload --keys (validate, find)--> spans --convert--> Columns --encode--> one Native block
//! ```
//!
//! Pure: owns nothing that runs and knows only records and schemas. A record becomes a whole row or
//! no row. There is no tree of the payload; on the way that succeeds nothing is allocated but the
//! columns' growth. What it expects of the insert: the columns named by [`Decoder::column_names`],
//! `FORMAT Native`, and `input_format_null_as_default=1`.

mod column;
mod convert;
mod dictionary;
mod json;
mod keys;
mod letter;
mod mapping;
mod nested;
mod notes;
mod number;
mod program;
mod quick;
mod reject;
mod time;
mod types;

use std::sync::Arc;

use self::column::{Data, Layout};
use self::convert::{Convert, Put, Value};
use self::keys::Keys;
use self::number::Digits;
use self::program::{From, Plan, Without};
use crate::record::Record;
use crate::schema::TableSchema;

pub use self::column::Columns;
pub use self::letter::{Extra, HeaderValue, dead_letter_mapping};
pub use self::mapping::{ColumnMapping, Letter, Mapping, Metadata, Source};
pub use self::reject::{Reason, Reject};
pub use self::time::TimeFormat;

/// A mapping compiled against a table: turns records into rows of [`Columns`].
#[derive(Debug, Clone)]
pub struct Decoder {
    plans: Vec<Plan>,
    keys: Keys,
    /// False: every value is metadata, and the payload may be anything.
    reads_payload: bool,
    convert: Convert,
    layout: Arc<Layout>,
}

/// What decoding a record has to say besides the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// Values of the row that lost digits beyond their column's scale or precision.
    pub rounded: u32,
}

impl Decoder {
    /// Err lists every problem, in sentences that say what to do.
    pub fn new(schema: &TableSchema, mapping: &Mapping) -> Result<Self, Vec<String>> {
        let (plans, keys) = program::compile(schema, mapping)?;
        let reads_payload =
            plans.iter().any(|plan| plan.from.iter().any(|from| matches!(from, From::Slot(_))));
        let layout = Layout::new(plans.iter().map(|plan| (plan.name.as_str(), &plan.ty)));
        let layout = Arc::new(layout);
        Ok(Self { plans, keys, reads_payload, convert: Convert::default(), layout })
    }

    /// The columns of the insert, in the order of the block.
    #[must_use]
    pub fn column_names(&self) -> &[String] {
        &self.layout.names
    }

    /// Empty columns to decode into.
    #[must_use]
    pub fn columns(&self) -> Columns {
        Columns::new(&self.layout)
    }

    /// Appends the record as one row; on Err `into` is as it was before.
    ///
    /// Panics if `into` was made by another decoder: a new schema begins a new batch.
    pub fn decode(
        &mut self,
        record: &Record<'_>,
        extra: Option<&Extra<'_>>,
        into: &mut Columns,
    ) -> Result<Decoded, Reject> {
        assert!(Arc::ptr_eq(&self.layout, &into.layout), "the columns of another decoder");
        let payload = record.payload().unwrap_or_default();
        if self.reads_payload {
            self.keys.read(payload)?;
        }
        self.convert.rounded = 0;
        for (index, (plan, data)) in self.plans.iter().zip(&mut into.data).enumerate() {
            data.mark();
            let sources = Sources { keys: &self.keys, payload, record, extra };
            if let Err(reject) = fill(plan, &sources, &mut self.convert, data) {
                into.data[..=index].iter_mut().for_each(Data::rollback);
                return Err(reject.of_column(&plan.name));
            }
        }
        into.rows += 1;
        Ok(Decoded { rounded: self.convert.rounded })
    }
}

/// All that a column's value can come from.
struct Sources<'a> {
    keys: &'a Keys,
    payload: &'a [u8],
    record: &'a Record<'a>,
    extra: Option<&'a Extra<'a>>,
}

/// Puts the first value that is there into the column.
#[inline]
fn fill(plan: &Plan, sources: &Sources<'_>, convert: &mut Convert, data: &mut Data) -> Put {
    let format = plan.format.as_ref();
    for from in &plan.from {
        match from {
            From::Slot(slot) => {
                let span = sources.keys.found(*slot);
                if plan.quick.put(sources.payload, span, data) {
                    return Ok(());
                }
                let value = Value::of(sources.keys.document(sources.payload), span);
                if !matches!(value, Value::Null) {
                    return convert.put(&plan.ty, data, value, format);
                }
            }
            From::Meta(meta) => {
                if let Some(put) = fill_metadata(meta, plan, sources, convert, data) {
                    return put;
                }
            }
        }
    }
    match &plan.without {
        Without::Default(constant) => convert.put(&plan.ty, data, constant.value(), format),
        Without::Null => convert.put(&plan.ty, data, Value::Null, format),
        Without::Zero => {
            data.push_default(&plan.ty);
            Ok(())
        }
        Without::Reject(sentence) => {
            Err(Box::new(Reject::new(Reason::MissingValue, sentence.as_str())))
        }
    }
}

/// None: the record has no such metadata.
fn fill_metadata(
    meta: &Metadata,
    plan: &Plan,
    sources: &Sources<'_>,
    convert: &mut Convert,
    data: &mut Data,
) -> Option<Put> {
    let record = sources.record;
    let mut put = |value| Some(convert.put(&plan.ty, data, value, plan.format.as_ref()));
    match meta {
        Metadata::Topic => put(Value::Text(record.topic()?.as_bytes())),
        Metadata::Partition => {
            let (partition, _) = record.place()?;
            put(Value::Number(Digits::new(i64::from(partition.number)).as_bytes()))
        }
        Metadata::Offset => put(Value::Number(Digits::new(record.offset()?).as_bytes())),
        Metadata::Key => put(Value::Text(record.key()?)),
        Metadata::Timestamp => put(Value::UnixMs(record.timestamp()?)),
        Metadata::Subject => put(Value::Text(record.subject()?.as_bytes())),
        Metadata::SubjectToken(index) => {
            put(Value::Text(record.subject()?.split('.').nth(*index)?.as_bytes()))
        }
        Metadata::Header(name) => {
            let (_, value) = record.headers().find(|(key, _)| key == name)?;
            put(Value::Text(value))
        }
        Metadata::ReceivedAt => put(Value::UnixMs(record.received_at())),
        Metadata::Raw => put(Value::Text(record.payload()?)),
        Metadata::Letter(letter) => {
            let extra = sources.extra?;
            match letter {
                Letter::Id => {
                    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
                    put(Value::Text(extra.id.hyphenated().encode_lower(&mut text).as_bytes()))
                }
                Letter::Time => put(Value::UnixMs(extra.time)),
                Letter::Instance => put(Value::Text(extra.instance.as_bytes())),
                Letter::Source => put(Value::Text(extra.source.as_bytes())),
                Letter::TopicOrSubject => put(Value::Text(record.topic_or_subject().as_bytes())),
                Letter::Headers => put(Value::Headers(*record)),
                Letter::Route => put(Value::Text(extra.route.as_bytes())),
                Letter::Reason => put(Value::Text(extra.reason.as_bytes())),
                Letter::Error => put(Value::Text(extra.error.as_bytes())),
            }
        }
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
