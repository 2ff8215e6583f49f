//! From a batch to the body of one insert.
//!
//! Pure. Decodes each record into columns; a record that does not fit is handed back with the
//! reason, and never keeps its neighbours from landing.

use bytes::Bytes;

use crate::batch::{Batch, LooseRow, Refused};
use crate::config::RouteFormat;
use crate::decode::{self, Decoder, Extra};
use crate::route::RouteId;
use crate::schema::TableSchema;
use crate::sink::Insert;

/// How the records of a table become a body.
#[derive(Debug)]
pub enum Program {
    /// Decoded into typed columns, sent as one block in ClickHouse's Native format.
    Columns(Box<Decoder>),
    /// Passed through, one JSON object a row.
    Json,
}

impl Program {
    /// Every problem between the route and its table, in words.
    pub fn new(schema: &TableSchema, format: &RouteFormat) -> Result<Self, Vec<String>> {
        match format {
            RouteFormat::Columns(mapping) => {
                Ok(Self::Columns(Box::new(Decoder::new(schema, mapping)?)))
            }
            RouteFormat::Json => Ok(Self::Json),
        }
    }
}

/// What the insert and its dead letters are called.
#[derive(Debug, Clone)]
pub struct Naming {
    pub table: String,
    pub token: String,
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
#[must_use]
pub fn encode(batch: &mut Batch, program: &Program, naming: Naming) -> Encoded {
    let (body, format, columns, refused, rounded) = match program {
        Program::Columns(decoder) => {
            let (body, refused, rounded) = native(batch, decoder, &naming);
            (body, "Native", decoder.column_names().to_vec(), refused, rounded)
        }
        Program::Json => {
            let (body, refused) = json_lines(batch);
            (body, "JSONEachRow", Vec::new(), refused, Rounded::default())
        }
    };
    let indices: Vec<usize> = refused.iter().map(|(index, _)| *index).collect();
    let loose = if indices.is_empty() { Vec::new() } else { batch.take(&indices) };
    let rejected = loose.into_iter().zip(refused.into_iter().map(|(_, why)| why)).collect();
    let Naming { table, token, .. } = naming;
    let rows = batch.len();
    let insert = (rows > 0).then_some(Insert { table, format, columns, body, token, rows });
    Encoded { insert, rejected, rounded }
}

type RefusedRows = Vec<(usize, Refused)>;

fn native(batch: &Batch, decoder: &Decoder, naming: &Naming) -> (Bytes, RefusedRows, Rounded) {
    let mut columns = decoder.columns();
    let mut state = decoder.state();
    let (mut refused, mut rounded) = (Vec::new(), Rounded::default());
    for row in 0..batch.len() {
        let record = batch.record(row);
        let extra = batch.refusal(row).map(|why| extra(batch, row, why, naming));
        match decoder.decode(&mut state, &record, extra.as_ref(), &mut columns) {
            Ok(decoded) => rounded.add(batch.route(row), decoded.rounded),
            Err(reject) => refused.push((row, reject.into())),
        }
    }
    (columns.encode(), refused, rounded)
}
