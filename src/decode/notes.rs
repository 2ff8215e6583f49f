//! Where the parts of arrays and objects lie, noted while they are read, so that nobody reads them
//! twice.
//!
//! Owns the order of the notes: each part's own, then those of what is in it.

use super::json::{Kind, Read, Span, place};

/// Which notes are those of an array's elements, or of an object's keys and values by turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parts {
    first: u32,
    end: u32,
}

/// Where the parts of arrays and objects are noted.
pub(super) trait Notes {
    fn len(&self) -> usize;

    /// The parts that were noted since there were so many.
    fn since(&self, before: usize) -> Parts {
        Parts { first: place(before), end: place(self.len()) }
    }

    /// Notes what has no parts.
    fn push(&mut self, part: Span);

    /// Notes what `read` reads, before whatever that notes.
    fn note(&mut self, read: impl FnOnce(&mut Self) -> Read<Span>) -> Read<()>;
}

impl Notes for Vec<Span> {
    fn len(&self) -> usize {
        self.len()
    }

    #[inline]
    fn push(&mut self, part: Span) {
        self.push(part);
    }

    fn note(&mut self, read: impl FnOnce(&mut Self) -> Read<Span>) -> Read<()> {
        let at = self.len();
        self.push(Span::ABSENT);
        self[at] = read(self)?;
        Ok(())
    }
}

/// Nobody wants to know.
impl Notes for () {
    fn len(&self) -> usize {
        0
    }

    fn push(&mut self, _: Span) {}

    fn note(&mut self, read: impl FnOnce(&mut Self) -> Read<Span>) -> Read<()> {
        read(self).map(drop)
    }
}

/// A text that was read, and what was noted of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Document<'a> {
    pub(super) json: &'a [u8],
    notes: &'a [Span],
}

impl<'a> Document<'a> {
    pub(super) fn new(json: &'a [u8], notes: &'a [Span]) -> Self {
        Self { json, notes }
    }

    /// The elements of an array, or the keys and values of an object.
    #[inline]
    pub(super) fn parts(self, of: Parts) -> impl Iterator<Item = Span> + Clone {
        let mut at = of.first;
        std::iter::from_fn(move || {
            let part = self.notes[..of.end as usize].get(at as usize)?;
            at = match part.kind {
                Kind::Array(within) | Kind::Object(within) => within.end,
                _ => at + 1,
            };
            Some(*part)
        })
    }

    /// Each key of an object with its value.
    #[inline]
    pub(super) fn members(self, of: Parts) -> impl Iterator<Item = (Span, Span)> + Clone {
        let mut parts = self.parts(of);
        std::iter::from_fn(move || Some((parts.next()?, parts.next()?)))
    }
}
