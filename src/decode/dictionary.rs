//! The values of a `LowCardinality(String)`: each text once, and its number for every row.
//!
//! Owns that layout. ClickHouse would make the same of plain Strings, row by row; here a row costs a
//! look into a hash table, and a byte or two on the wire.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use super::column::put_text;

/// The version of the layout: with its own texts in each block.
const VERSION: u64 = 1;
/// The block brings its texts, which are to be added to those of the table.
const BRINGS_TEXTS: u64 = 0x600;

#[derive(Debug, Clone)]
pub(super) struct Dictionary {
    /// The texts, as Strings lie in a column. Where NULL may be, the first stands for it.
    texts: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
    /// The numbers of the texts, found by their content; not that of NULL.
    known: HashTable<u32>,
    /// The number of each row, in four bytes.
    rows: Vec<u8>,
    nullable: bool,
    /// How many rows and texts there were.
    mark: (usize, usize),
}

impl Dictionary {
    pub(super) fn new(nullable: bool) -> Self {
        let (texts, ends, rows) = (Vec::new(), Vec::new(), Vec::new());
        let mut new = Self { texts, ends, known: HashTable::new(), rows, nullable, mark: (0, 0) };
        new.clear();
        new
    }

    #[inline]
    pub(super) fn push(&mut self, text: &[u8]) {
        let hash = xxh3_64(text);
        let known = self.known.find(hash, |&number| self.text(number) == text);
        let number = known.copied().unwrap_or_else(|| self.learn(hash, text));
        self.push_number(number);
    }

    pub(super) fn push_null(&mut self) {
        debug_assert!(self.nullable, "the first text stands for NULL");
        self.push_number(0);
    }

    fn push_number(&mut self, number: u32) {
        self.rows.extend_from_slice(&number.to_le_bytes());
    }

    #[cold]
    fn learn(&mut self, hash: u64, text: &[u8]) -> u32 {
        let number = self.add(text);
        let Self { texts, ends, known, .. } = self;
        known.insert_unique(hash, number, |&number| xxh3_64(text_of(texts, ends, number)));
        number
    }

    fn add(&mut self, text: &[u8]) -> u32 {
        put_text(text, &mut self.texts);
        self.ends.push(self.texts.len());
        u32::try_from(self.ends.len() - 1).expect("a batch has fewer rows")
    }

    fn text(&self, number: u32) -> &[u8] {
        text_of(&self.texts, &self.ends, number)
    }

    pub(super) fn mark(&mut self) {
        self.mark = (self.rows.len(), self.ends.len());
    }

    /// Takes back everything since [`Self::mark`].
    pub(super) fn rollback(&mut self) {
        let (rows, texts) = self.mark;
        self.rows.truncate(rows);
        while self.ends.len() > texts {
            let number = u32::try_from(self.ends.len() - 1).expect("a batch has fewer rows");
            let hash = xxh3_64(self.text(number));
            if let Ok(known) = self.known.find_entry(hash, |&known| known == number) {
                known.remove();
            }
            self.ends.pop();
            self.texts.truncate(self.ends.last().copied().unwrap_or(0));
        }
    }

    /// Keeps the memory.
    pub(super) fn clear(&mut self) {
        self.texts.clear();
        self.ends.clear();
        self.known.clear();
        self.rows.clear();
        if self.nullable {
            self.add(&[]);
        }
    }

    /// What grows with the rows.
    pub(super) fn buffers(&self) -> [&Vec<u8>; 2] {
        [&self.texts, &self.rows]
    }

    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        let width = match self.ends.len() {
            ..=0x100 => 1,
            0x101..=0x1_0000 => 2,
            _ => 4_usize,
        };
        for head in [VERSION, BRINGS_TEXTS | u64::from(width.ilog2()), self.ends.len() as u64] {
            into.extend_from_slice(&head.to_le_bytes());
        }
        into.extend_from_slice(&self.texts);
        let (rows, _) = self.rows.as_chunks::<4>();
        into.extend_from_slice(&(rows.len() as u64).to_le_bytes());
        match width {
            1 => into.extend(rows.iter().map(|row| row[0])),
            2 => into.extend(rows.iter().flat_map(|row| [row[0], row[1]])),
            _ => into.extend_from_slice(&self.rows),
        }
    }
}

/// Without the length that stands before it.
fn text_of<'a>(texts: &'a [u8], ends: &[usize], number: u32) -> &'a [u8] {
    let number = number as usize;
    let start = number.checked_sub(1).map_or(0, |before| ends[before]);
    let text = &texts[start..ends[number]];
    let length = text.iter().position(|byte| byte & 0x80 == 0).map_or(0, |last| last + 1);
    &text[length..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What ClickHouse reads: the values of the rows, the first text being NULL where that may be.
    fn read(mut block: &[u8], nullable: bool) -> (usize, Vec<Option<Vec<u8>>>) {
        let mut take = |count: usize| block.split_off(..count).unwrap();
        let number = |bytes: &[u8]| {
            usize::from_str_radix(
                &bytes.iter().rev().map(|byte| format!("{byte:02x}")).collect::<String>(),
                16,
            )
            .unwrap()
        };
        assert_eq!(number(take(8)), 1);
        let kind = number(take(8));
        assert_eq!(kind & !0xff, 0x600);
        let width = 1 << (kind & 0xff);
        let texts: Vec<_> = (0..number(take(8)))
            .map(|_| {
                let mut length = 0;
                for shift in (0..).step_by(7) {
                    let byte = take(1)[0];
                    length |= usize::from(byte & 0x7f) << shift;
                    if byte & 0x80 == 0 {
                        break;
                    }
                }
                take(length).to_vec()
            })
            .collect();
        let rows = (0..number(take(8))).map(|_| match number(take(width)) {
            0 if nullable => None,
            text => Some(texts[text].clone()),
        });
        let rows = rows.collect();
        assert!(block.is_empty());
        (texts.len(), rows)
    }

    proptest! {
        /// Rows of which each is pushed, and some are taken back.
        #[test]
        fn the_rows_are_those_that_were_pushed(
            nullable in any::<bool>(),
            rows in prop::collection::vec((prop::option::of("[ab]{0,2}|x{126,130}|[0-9]{3}"), any::<bool>()), 0..700),
        ) {
            let mut dictionary = Dictionary::new(nullable);
            for _batch in 0..2 {
                let mut expected = Vec::new();
                for (text, stays) in &rows {
                    dictionary.mark();
                    let text = text.as_ref().map(|text| text.as_bytes().to_vec());
                    match &text {
                        None if nullable => dictionary.push_null(),
                        text => dictionary.push(text.as_deref().unwrap_or_default()),
                    }
                    if *stays {
                        expected.push(if nullable { text } else { text.or(Some(Vec::new())) });
                    } else {
                        dictionary.rollback();
                    }
                }
                let mut block = Vec::new();
                dictionary.encode(&mut block);
                let (texts, read) = read(&block, nullable);
                let different: std::collections::BTreeSet<_> = expected.iter().flatten().collect();
                prop_assert_eq!(texts, different.len() + usize::from(nullable), "each once, and no other");
                prop_assert_eq!(read, expected);
                dictionary.clear();
            }
        }
    }

    #[test]
    fn many_texts_have_wide_numbers() {
        for count in [256, 257, 65_536, 65_537] {
            let mut dictionary = Dictionary::new(false);
            let texts: Vec<_> = (0..count).map(|n| Some(format!("{n}").into_bytes())).collect();
            texts.iter().flatten().for_each(|text| dictionary.push(text));
            let mut block = Vec::new();
            dictionary.encode(&mut block);
            assert_eq!(read(&block, false), (count, texts));
        }
    }
}
