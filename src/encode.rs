//! From a batch to the body of one insert.
//!
//! Pure. Decodes each record into columns; a record that does not fit is handed back with the
//! reason, and never keeps its neighbours from landing.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use crate::batch::{Batch, Letter, LooseRow, Refused, Row};
use crate::config::RouteFormat;
use crate::dead_letter::letter::DeadLetter;
use crate::decode::{Columns, Decoder, Extra, Reason, Reject};
use crate::record::Record;
use crate::route::RouteId;
use crate::schema::TableSchema;
use crate::sink::{AfterRestart, Insert};

/// How the records of a table become a body.
#[derive(Debug)]
pub enum Program {
    /// Decoded into typed columns, sent as one block in ClickHouse's Native format.
    Columns(Box<Columnar>),
    /// Passed through, one JSON object a row.
    Json,
    /// Dead letters, one JSON object each.
    Letters,
}

impl Program {
    /// Every problem between the route and its table, in words.
    pub fn new(schema: &TableSchema, format: &RouteFormat) -> Result<Self, Vec<String>> {
        match format {
            RouteFormat::Columns(mapping) => {
                Ok(Self::Columns(Box::new(Columnar::new(Decoder::new(schema, mapping)?))))
            }
            RouteFormat::Json => Ok(Self::Json),
            RouteFormat::Letters => Ok(Self::Letters),
        }
    }
}

/// A decoder, and what earlier batches left behind.
#[derive(Debug)]
pub struct Columnar {
    decoder: Decoder,
    /// As many as batches were decoded at a time. Taken for a batch, and put back.
    idle: Mutex<Vec<Workspace>>,
}

/// A decoder that has learned the keys of the records, and columns that have grown to the size of
/// a batch: the next one needs no new memory.
#[derive(Debug)]
struct Workspace {
    decoder: Decoder,
    columns: Columns,
}

impl Columnar {
    fn new(decoder: Decoder) -> Self {
        Self { decoder, idle: Mutex::new(Vec::new()) }
    }

    #[must_use]
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    fn take(&self) -> Workspace {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(|| {
            let decoder = self.decoder.clone();
            Workspace { columns: decoder.columns(), decoder }
        })
    }

    /// Keeps the workspace, unless its columns are mostly room: one large batch must not hold its
    /// memory for ever.
    fn put_back(&self, mut workspace: Workspace) {
        const SPARE: usize = 4;
        if workspace.columns.capacity() <= SPARE * workspace.columns.bytes() {
            workspace.columns.clear();
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(workspace);
        }
    }
}

/// What the insert and its dead letters are called.
#[derive(Debug, Clone)]
pub struct Naming {
    pub table: String,
    pub token: String,
    /// Somebody else knows the token.
    pub noted: bool,
    pub instance: String,
    /// By route id; only dead letters need them.
    pub routes: Vec<String>,
}

/// How many values were rounded, by route.
#[derive(Debug, Clone, Default)]
pub struct Rounded(Vec<(RouteId, u64)>);

impl Rounded {
    fn add(&mut self, route: RouteId, count: u32) {
        if count == 0 {
            return;
        }
        match self.0.iter_mut().find(|(known, _)| *known == route) {
            Some((_, total)) => *total += u64::from(count),
            None => self.0.push((route, u64::from(count))),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (RouteId, u64)> {
        self.0.iter().copied()
    }
}

/// A batch, encoded.
#[derive(Debug)]
pub struct Encoded {
    /// None if no row is left.
    pub insert: Option<Insert>,
    /// Taken out of the batch.
    pub rejected: Vec<(LooseRow, Refused)>,
    pub rounded: Rounded,
}

/// Encodes a batch; rows that do not fit are taken out of it.
///
/// # Errors
/// A dead letter that does not fit its own table stays in the batch: nothing is left to put it
/// into, so the table has to be mended. The text says what is wrong with it.
pub fn encode(batch: &mut Batch, program: &Program, naming: Naming) -> Result<Encoded, String> {
    let (body, format, columns, refused, rounded) = match program {
        Program::Columns(columnar) => {
            let (body, refused, rounded) = native(batch, columnar, &naming);
            (body, "Native", columnar.decoder.column_names().to_vec(), refused, rounded)
        }
        Program::Json => {
            let (body, refused) = json_lines(batch);
            (body, "JSONEachRow", Vec::new(), refused, Rounded::default())
        }
        Program::Letters => {
            let body = letters(batch, &naming);
            (body, "JSONEachRow", Vec::new(), RefusedRows::new(), Rounded::default())
        }
    };
    if let Some((_, why)) = refused.first().filter(|_| batch.is_of_letters()) {
        let why = &why.outline;
        return Err(format!("the table takes no dead letters: {why}; correct its columns"));
    }
    let indices: Vec<usize> = refused.iter().map(|(index, _)| *index).collect();
    let loose = if indices.is_empty() { Vec::new() } else { batch.take(&indices) };
    let rejected = loose.into_iter().zip(refused.into_iter().map(|(_, why)| why)).collect();
    let Naming { table, token, noted, .. } = naming;
    let (rows, after_restart) = (batch.len(), after_restart(batch, noted));
    let insert = Insert { table, format, columns, body, token, after_restart, rows };
    Ok(Encoded { insert: (rows > 0).then_some(insert), rejected, rounded })
}

/// Letters can be told from all others by their ids; of rows only the pipeline can say more.
fn after_restart(batch: &Batch, noted: bool) -> AfterRestart {
    if !noted {
        return AfterRestart::OtherToken;
    }
    if batch.is_of_letters() {
        let id = |row| letter_id(&batch.record(row));
        AfterRestart::UnlessThere(id(0), id(batch.len() - 1))
    } else {
        AfterRestart::SameToken
    }
}

type RefusedRows = Vec<(usize, Refused)>;

fn native(batch: &Batch, columnar: &Columnar, naming: &Naming) -> (Bytes, RefusedRows, Rounded) {
    let mut workspace = columnar.take();
    let Workspace { decoder, columns } = &mut workspace;
    let (mut refused, mut rounded) = (Vec::new(), Rounded::default());
    for (number, row) in batch.rows().enumerate() {
        let extra = row.letter.map(|letter| extra(&row, letter, naming));
        match decoder.decode(&row.record, extra.as_ref(), columns) {
            Ok(decoded) => rounded.add(row.ticket.route(), decoded.rounded),
            Err(Reject { reason, error, outline }) => {
                refused.push((number, Refused { reason: reason.as_str(), error, outline }));
            }
        }
    }
    let body = columns.encode();
    columnar.put_back(workspace);
    (body, refused, rounded)
}

fn extra<'a>(row: &Row<'_>, letter: &'a Letter, naming: &'a Naming) -> Extra<'a> {
    Extra {
        id: letter_id(&row.record),
        time: letter.time,
        instance: &naming.instance,
        source: letter.source,
        route: naming.routes.get(row.ticket.route().index()).map_or("", String::as_str),
        reason: letter.refused.reason,
        error: &letter.refused.error,
    }
}

/// One line a letter; every record can be one.
fn letters(batch: &Batch, naming: &Naming) -> Bytes {
    let mut body = Vec::with_capacity(batch.bytes());
    for row in batch.rows() {
        let letter = row.letter.expect("only dead letters are written this way");
        let extra = extra(&row, letter, naming);
        DeadLetter::new(&row.record, &extra).write(&mut body);
    }
    body.into()
}

/// The same for the same record whenever it is refused: from its position, or else from its
/// subject, its content and the moment when it came.
fn letter_id(record: &Record<'_>) -> uuid::Uuid {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    hash.update(record.topic_or_subject().as_bytes());
    match record.place().zip(record.offset()) {
        Some(((partition, _), offset)) => {
            hash.update(&partition.number.to_le_bytes());
            hash.update(&offset.to_le_bytes());
        }
        None => {
            hash.update(&record.received_at().to_le_bytes());
            hash.update(record.payload().unwrap_or_default());
        }
    }
    uuid::Uuid::from_u128(hash.digest128())
}

/// One line a record. Only whole JSON objects: anything else could become several rows or none.
fn json_lines(batch: &Batch) -> (Bytes, RefusedRows) {
    let mut body = Vec::with_capacity(batch.bytes());
    let mut refused = Vec::new();
    for (number, row) in batch.rows().enumerate() {
        let payload = row.record.payload().unwrap_or_default();
        match check_object(payload) {
            Ok(()) => {
                body.extend_from_slice(payload);
                body.push(b'\n');
            }
            Err(why) => refused.push((number, why)),
        }
    }
    (body.into(), refused)
}

/// Whether a payload can be passed through as it is.
pub fn check_object(payload: &[u8]) -> Result<(), Refused> {
    let refused = |reason: Reason, error: String| Refused {
        reason: reason.as_str(),
        outline: error.clone(),
        error,
    };
    if payload.is_empty() {
        return Err(refused(Reason::EmptyPayload, "the payload is empty".to_owned()));
    }
    serde_json::from_slice::<serde::de::IgnoredAny>(payload)
        .map_err(|error| refused(Reason::InvalidJson, error.to_string()))?;
    if payload.trim_ascii_start().first() == Some(&b'{') {
        Ok(())
    } else {
        Err(refused(Reason::NotAnObject, "the payload is not a JSON object".to_owned()))
    }
}
