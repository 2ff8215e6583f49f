//! Typed columns in the layout of ClickHouse's Native format, growing row by row.
//!
//! Owns the layout. Never looks at JSON: whoever pushes has converted and checked.

use std::sync::Arc;

use bytes::Bytes;

use super::dictionary::Dictionary;
use super::types::Type;

/// The values of one column, or of one part of a composed column.
#[derive(Debug, Clone)]
pub(super) enum Data {
    /// One value after the other: of fixed width, or each with its length before it.
    Flat { bytes: Vec<u8>, mark: usize },
    /// Each text once, and a number a row.
    Dictionary(Box<Dictionary>),
    /// A byte per row (1 is NULL), then as many values; under a NULL lies a placeholder.
    Nullable { nulls: Vec<u8>, mark: usize, values: Box<Data> },
    /// Array (one part) and Map (keys and values): where each row ends, then all elements.
    Repeated { ends: Vec<u8>, mark: usize, parts: Vec<Data> },
    /// Element by element.
    Tuple(Vec<Data>),
}

impl Data {
    pub(super) fn new(ty: &Type) -> Self {
        match ty {
            Type::Nullable(ty) => {
                Self::Nullable { nulls: Vec::new(), mark: 0, values: Box::new(Self::new(ty)) }
            }
            Type::Array(ty) => {
                Self::Repeated { ends: Vec::new(), mark: 0, parts: vec![Self::new(ty)] }
            }
            Type::Map(key, value) => {
                let parts = vec![Self::new(key), Self::new(value)];
                Self::Repeated { ends: Vec::new(), mark: 0, parts }
            }
            Type::Tuple(elements) => {
                Self::Tuple(elements.iter().map(|element| Self::new(&element.ty)).collect())
            }
            Type::Dictionary { nullable } => Self::Dictionary(Box::new(Dictionary::new(*nullable))),
            _ => Self::Flat { bytes: Vec::new(), mark: 0 },
        }
    }

    /// Remembers where the row begins, for [`Self::rollback`].
    pub(super) fn mark(&mut self) {
        match self {
            Self::Flat { bytes, mark } => *mark = bytes.len(),
            Self::Dictionary(dictionary) => dictionary.mark(),
            Self::Nullable { nulls, mark, values } => {
                *mark = nulls.len();
                values.mark();
            }
            Self::Repeated { ends, mark, parts } => {
                *mark = ends.len();
                parts.iter_mut().for_each(Self::mark);
            }
            Self::Tuple(parts) => parts.iter_mut().for_each(Self::mark),
        }
    }

    /// Takes back everything since [`Self::mark`].
    pub(super) fn rollback(&mut self) {
        match self {
            Self::Flat { bytes, mark } => bytes.truncate(*mark),
            Self::Dictionary(dictionary) => dictionary.rollback(),
            Self::Nullable { nulls, mark, values } => {
                nulls.truncate(*mark);
                values.rollback();
            }
            Self::Repeated { ends, mark, parts } => {
                ends.truncate(*mark);
                parts.iter_mut().for_each(Self::rollback);
            }
            Self::Tuple(parts) => parts.iter_mut().for_each(Self::rollback),
        }
    }

    fn clear(&mut self) {
        match self {
            Self::Flat { bytes, .. } => bytes.clear(),
            Self::Dictionary(dictionary) => dictionary.clear(),
            Self::Nullable { nulls, values, .. } => {
                nulls.clear();
                values.clear();
            }
            Self::Repeated { ends, parts, .. } => {
                ends.clear();
                parts.iter_mut().for_each(Self::clear);
            }
            Self::Tuple(parts) => parts.iter_mut().for_each(Self::clear),
        }
    }

    /// Sums a size over all buffers.
    fn size(&self, of: fn(&Vec<u8>) -> usize) -> usize {
        match self {
            Self::Flat { bytes, .. } => of(bytes),
            Self::Dictionary(dictionary) => dictionary.buffers().map(of).iter().sum(),
            Self::Nullable { nulls, values, .. } => of(nulls) + values.size(of),
            Self::Repeated { ends, parts, .. } => {
                of(ends) + parts.iter().map(|part| part.size(of)).sum::<usize>()
            }
            Self::Tuple(parts) => parts.iter().map(|part| part.size(of)).sum(),
        }
    }

    fn encode(&self, into: &mut Vec<u8>) {
        match self {
            Self::Flat { bytes, .. } => into.extend_from_slice(bytes),
            Self::Dictionary(dictionary) => dictionary.encode(into),
            Self::Nullable { nulls, values, .. } => {
                into.extend_from_slice(nulls);
                values.encode(into);
            }
            Self::Repeated { ends, parts, .. } => {
                into.extend_from_slice(ends);
                parts.iter().for_each(|part| part.encode(into));
            }
            Self::Tuple(parts) => parts.iter().for_each(|part| part.encode(into)),
        }
    }

    /// A value of fixed width, in the order of its bytes on the wire.
    #[inline]
    pub(super) fn push<const N: usize>(&mut self, value: [u8; N]) {
        self.flat().extend_from_slice(&value);
    }

    /// So many of the value's lower bytes.
    #[inline]
    pub(super) fn push_low(&mut self, value: u64, bytes: u8) {
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        match bytes {
            1 => self.push([a]),
            2 => self.push([a, b]),
            4 => self.push([a, b, c, d]),
            _ => self.push([a, b, c, d, e, f, g, h]),
        }
    }

    /// A String's value.
    #[inline]
    pub(super) fn push_text(&mut self, text: &[u8]) {
        match self {
            Self::Dictionary(dictionary) => dictionary.push(text),
            _ => put_text(text, self.flat()),
        }
    }

    /// A FixedString's value, which is at most `width` bytes.
    pub(super) fn push_padded(&mut self, text: &[u8], width: usize) {
        let bytes = self.flat();
        let end = bytes.len() + width;
        bytes.extend_from_slice(text);
        bytes.resize(end, 0);
    }

    #[inline]
    fn flat(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Flat { bytes, .. } => bytes,
            _ => unreachable!("the columns are made from the same types as the program"),
        }
    }

    /// The values behind the null map, after saying whether this one is NULL.
    #[inline]
    pub(super) fn nullable(&mut self, null: bool) -> &mut Self {
        match self {
            Self::Nullable { nulls, values, .. } => {
                nulls.push(u8::from(null));
                values
            }
            _ => unreachable!("the columns are made from the same types as the program"),
        }
    }

    pub(super) fn dictionary(&mut self) -> &mut Dictionary {
        match self {
            Self::Dictionary(dictionary) => dictionary,
            _ => unreachable!("the columns are made from the same types as the program"),
        }
    }

    /// The parts of an Array or a Map, to push elements to.
    pub(super) fn parts(&mut self) -> &mut [Self] {
        match self {
            Self::Repeated { parts, .. } | Self::Tuple(parts) => parts,
            _ => unreachable!("the columns are made from the same types as the program"),
        }
    }

    /// Ends a row of an Array or a Map that got `count` elements.
    pub(super) fn end_row(&mut self, count: usize) {
        let Self::Repeated { ends, .. } = self else {
            unreachable!("the columns are made from the same types as the program")
        };
        let last = ends.last_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        ends.extend_from_slice(&(last + count as u64).to_le_bytes());
    }

    /// The value that ClickHouse takes for nothing; also the placeholder under a NULL.
    pub(super) fn push_default(&mut self, ty: &Type) {
        match ty {
            Type::String | Type::Dictionary { nullable: false } => self.push_text(&[]),
            Type::Dictionary { nullable: true } => self.dictionary().push_null(),
            Type::Nullable(ty) => self.nullable(true).push_default(ty),
            Type::Array(_) | Type::Map(..) => self.end_row(0),
            Type::Tuple(elements) => {
                for (part, element) in self.parts().iter_mut().zip(elements) {
                    part.push_default(&element.ty);
                }
            }
            // Zero need not be among the names.
            Type::Enum { wide, names } => {
                let value = names.first().map_or(0, |&(_, value)| value).to_le_bytes();
                if *wide { self.push(value) } else { self.push([value[0]]) }
            }
            _ => self.push_padded(&[], ty.width().unwrap_or(0)),
        }
    }
}

/// As a String lies in a column: its length, then its bytes.
#[inline]
pub(super) fn put_text(text: &[u8], into: &mut Vec<u8>) {
    varint(text.len(), into);
    into.extend_from_slice(text);
}

fn varint(mut value: usize, into: &mut Vec<u8>) {
    loop {
        let low = u8::try_from(value & 0x7f).expect("seven bits");
        value >>= 7;
        if value == 0 {
            return into.push(low);
        }
        into.push(low | 0x80);
    }
}

/// What the columns of one decoder have in common.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) names: Vec<String>,
    /// Per column, what stands before its values: name and type.
    headers: Vec<Vec<u8>>,
    empty: Vec<Data>,
}

impl Layout {
    pub(super) fn new<'a>(columns: impl Iterator<Item = (&'a str, &'a Type)>) -> Self {
        let mut layout = Self { names: Vec::new(), headers: Vec::new(), empty: Vec::new() };
        for (name, ty) in columns {
            let mut header = Vec::new();
            put_text(name.as_bytes(), &mut header);
            put_text(ty.to_string().as_bytes(), &mut header);
            layout.names.push(name.to_owned());
            layout.headers.push(header);
            layout.empty.push(Data::new(ty));
        }
        layout
    }
}

/// Rows, column by column; made by [`super::Decoder::columns`] and filled by it alone.
#[derive(Debug, Clone)]
pub struct Columns {
    pub(super) layout: Arc<Layout>,
    pub(super) data: Vec<Data>,
    pub(super) rows: usize,
}

impl Columns {
    pub(super) fn new(layout: &Arc<Layout>) -> Self {
        Self { layout: Arc::clone(layout), data: layout.empty.clone(), rows: 0 }
    }

    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The bytes of the values: what an encoded block will take at most, but for its header. Costs
    /// a few nanoseconds a column.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data.iter().map(|data| data.size(Vec::len)).sum()
    }

    /// The memory held: [`Self::bytes`] and the room to grow, which stays after [`Self::clear`].
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.data.iter().map(|data| data.size(Vec::capacity)).sum()
    }

    /// Forgets the rows and keeps the memory.
    pub fn clear(&mut self) {
        self.data.iter_mut().for_each(Data::clear);
        self.rows = 0;
    }

    /// All rows as one block of `FORMAT Native` (client revision 0).
    #[must_use]
    pub fn encode(&self) -> Bytes {
        const VARINTS: usize = 20;
        let headers: usize = self.layout.headers.iter().map(Vec::len).sum();
        let mut block = Vec::with_capacity(VARINTS + headers + self.bytes());
        varint(self.data.len(), &mut block);
        varint(self.rows, &mut block);
        for (header, data) in self.layout.headers.iter().zip(&self.data) {
            block.extend_from_slice(header);
            data.encode(&mut block);
        }
        Bytes::from(block)
    }
}
