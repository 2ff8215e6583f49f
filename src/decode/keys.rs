//! The first pass over a payload: validates all of it, and notes where the wanted values lie.
//!
//! Owns which keys are wanted, and which key came after which: producers write the same keys in
//! the same few orders, so that the next key can be guessed and compared instead of looked up. Of
//! equal keys in one object the last wins, as in serde_json and Python.

use std::collections::HashMap;

use super::json::{JsonError, Key, Kind, Reader, Span, unescape};
use super::notes::Document;
use super::reject::{Reason, Reject};

/// Keys of one object that are remembered. Beyond it they are looked up.
const MAX_REMEMBERED: usize = 256;
/// Notes of a payload for which memory is kept: 1.5 MiB.
const MAX_KEPT_NOTES: usize = 65_536;
/// Longer keys are not remembered: no wanted key is likely to be, and memory stays bounded.
const MAX_REMEMBERED_BYTES: usize = 64;

/// Wanted values by their paths, and where they lie in the payload read last.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// Objects with wanted members; the first is the payload itself.
    nodes: Vec<Node>,
    slots: Vec<Span>,
    /// Of the wanted values' parts.
    notes: Vec<Span>,
    unescaped: Vec<u8>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    /// Sorted by length, then bytes: comparing lengths is enough for most keys.
    wanted: Vec<Wanted>,
    /// What came first, the last two times that it was not the same.
    first: Guesses,
    known: Vec<Known>,
    /// Where a key is in `known`.
    by_key: HashMap<Box<[u8]>, usize>,
}

/// The two keys that came last at one place: an optional key that is missing now and then, and
/// forms of a record that take turns, are still guessed. Places in [`Node::known`]; past its end
/// there is none.
#[derive(Debug, Clone, Copy)]
struct Guesses {
    last: usize,
    before: usize,
}

impl Default for Guesses {
    fn default() -> Self {
        Self { last: usize::MAX, before: usize::MAX }
    }
}

/// A key that came, wanted or not.
#[derive(Debug, Clone)]
struct Known {
    key: Key,
    wanted: Option<usize>,
    next: Guesses,
}

/// Where an object is being read.
#[derive(Debug, Clone, Copy)]
enum Place {
    Beginning,
    /// Behind this known key.
    After(usize),
    /// Behind a key that is not remembered.
    Unknown,
}

impl Node {
    #[inline]
    fn guesses(&self, place: Place) -> Guesses {
        match place {
            Place::Beginning => self.first,
            Place::After(known) => self.known[known].next,
            Place::Unknown => Guesses::default(),
        }
    }

    /// Remembers the key, and that it came at this place; says where the object is now.
    fn remember(&mut self, place: Place, raw: &[u8], wanted: Option<usize>) -> Place {
        let known = match self.by_key.get(raw) {
            Some(&known) => known,
            None if raw.len() > MAX_REMEMBERED_BYTES || self.known.len() >= MAX_REMEMBERED => {
                return Place::Unknown;
            }
            None => {
                self.known.push(Known { key: Key::new(raw), wanted, next: Guesses::default() });
                self.by_key.insert(raw.into(), self.known.len() - 1);
                self.known.len() - 1
            }
        };
        let guesses = match place {
            Place::Beginning => &mut self.first,
            Place::After(known) => &mut self.known[known].next,
            Place::Unknown => return Place::After(known),
        };
        *guesses = Guesses { last: known, before: guesses.last };
        Place::After(known)
    }
}

#[derive(Debug, Clone)]
struct Wanted {
    key: String,
    slot: usize,
    /// The value itself is wanted, and not only members of it.
    whole: bool,
    /// The object below, if members of it are wanted.
    child: Option<usize>,
    /// Slots of everything below.
    below: Vec<usize>,
}

impl Wanted {
    fn rank(key: &[u8]) -> (usize, &[u8]) {
        (key.len(), key)
    }
}

impl Keys {
    pub(super) fn new() -> Self {
        let nodes = vec![Node::default()];
        Self { nodes, slots: Vec::new(), notes: Vec::new(), unescaped: Vec::new() }
    }

    /// The slot in which the value at this path will be found.
    pub(super) fn slot(&mut self, path: &[String]) -> usize {
        let mut node = 0;
        let mut passed: Vec<(usize, usize)> = Vec::new();
        for (depth, key) in path.iter().enumerate() {
            let index = self.wanted(node, key, &mut passed);
            if depth + 1 == path.len() {
                let wanted = &mut self.nodes[node].wanted[index];
                wanted.whole = true;
                return wanted.slot;
            }
            passed.push((node, index));
            node = self.child(node, index);
        }
        unreachable!("a path has at least one key")
    }

    /// The index of the key among those wanted in this object; inserted if it is new.
    fn wanted(&mut self, node: usize, key: &str, passed: &mut [(usize, usize)]) -> usize {
        let wanted = &mut self.nodes[node].wanted;
        let rank = Wanted::rank(key.as_bytes());
        match wanted.binary_search_by(|other| Wanted::rank(other.key.as_bytes()).cmp(&rank)) {
            Ok(index) => index,
            Err(index) => {
                let slot = self.slots.len();
                self.slots.push(Span::ABSENT);
                let (key, below) = (key.to_owned(), Vec::new());
                wanted.insert(index, Wanted { key, slot, whole: false, child: None, below });
                for &mut (node, index) in passed {
                    self.nodes[node].wanted[index].below.push(slot);
                }
                index
            }
        }
    }

    fn child(&mut self, node: usize, index: usize) -> usize {
        let next = self.nodes.len();
        let child = *self.nodes[node].wanted[index].child.get_or_insert(next);
        if child == next {
            self.nodes.push(Node::default());
        }
        child
    }

    /// Where the value of this slot lies in the payload read last.
    #[inline]
    pub(super) fn found(&self, slot: usize) -> Span {
        self.slots[slot]
    }

    /// The payload read last, with the parts of what was found.
    #[inline]
    pub(super) fn document<'a>(&'a self, payload: &'a [u8]) -> Document<'a> {
        Document::new(payload, &self.notes)
    }

    /// Reads a whole payload.
    pub(super) fn read(&mut self, payload: &[u8]) -> Result<(), Reject> {
        self.slots.fill(Span::ABSENT);
        self.notes.clear();
        self.notes.shrink_to(MAX_KEPT_NOTES);
        if payload.is_empty() {
            return Err(Reject::new(Reason::EmptyPayload, "there is no payload"));
        }
        if let Err(error) = simdutf8::basic::from_utf8(payload) {
            // The quick check does not say where; this one does, and refusals may take their time.
            let at = str::from_utf8(payload).err().map_or(0, |exact| exact.valid_up_to());
            return Err(Reject::new(Reason::InvalidUtf8, format!("{error} at byte {at}")));
        }
        let mut reader = Reader::new(payload, 0);
        reader.skip_space();
        let read = if reader.peek() == Some(b'{') {
            self.object(&mut reader, 0, 0).and_then(|()| reader.end())
        } else {
            match reader.value(0, &mut ()).and_then(|span| reader.end().map(|()| span)) {
                Ok(span) => return Err(not_an_object(span)),
                Err(error) => Err(error),
            }
        };
        read.map_err(|error| invalid(error, payload))
    }

    fn object(
        &mut self,
        reader: &mut Reader<'_>,
        node: usize,
        depth: u32,
    ) -> Result<(), JsonError> {
        reader.open_object(depth)?;
        let mut first = true;
        let mut place = Place::Beginning;
        while reader.seek_key(first)? {
            first = false;
            match self.key(reader, node, &mut place)? {
                None => {
                    reader.value(depth + 1, &mut ())?;
                }
                Some(index) => self.member(reader, node, index, depth + 1)?,
            }
        }
        Ok(())
    }

    /// Reads a key: which of the wanted ones it is.
    #[inline]
    fn key(
        &mut self,
        reader: &mut Reader<'_>,
        node: usize,
        place: &mut Place,
    ) -> Result<Option<usize>, JsonError> {
        let Guesses { last, before } = self.nodes[node].guesses(*place);
        for guess in [last, before] {
            let Some(known) = self.nodes[node].known.get(guess) else { break };
            if reader.known_key(&known.key) {
                *place = Place::After(guess);
                return Ok(known.wanted);
            }
        }
        self.unexpected_key(reader, node, place)
    }

    fn unexpected_key(
        &mut self,
        reader: &mut Reader<'_>,
        node: usize,
        place: &mut Place,
    ) -> Result<Option<usize>, JsonError> {
        let span = reader.any_key()?;
        let raw = span.of(reader.bytes());
        let escaped = span.kind == Kind::EscapedText;
        if escaped {
            self.unescaped.clear();
            unescape(raw, &mut self.unescaped);
        }
        let key = if escaped { self.unescaped.as_slice() } else { raw };
        let node = &mut self.nodes[node];
        let rank = Wanted::rank(key);
        let found =
            node.wanted.binary_search_by(|other| Wanted::rank(other.key.as_bytes()).cmp(&rank));
        let found = found.ok();
        *place = if escaped { Place::Unknown } else { node.remember(*place, raw, found) };
        Ok(found)
    }

    fn member(
        &mut self,
        reader: &mut Reader<'_>,
        node: usize,
        index: usize,
        depth: u32,
    ) -> Result<(), JsonError> {
        let Wanted { slot, whole, child, ref below, .. } = self.nodes[node].wanted[index];
        let Some(child) = child else {
            self.slots[slot] = reader.value(depth, &mut self.notes)?;
            return Ok(());
        };
        for &below in below {
            // The key came before: what was found in that object counts no more.
            self.slots[below] = Span::ABSENT;
        }
        reader.skip_space();
        if whole {
            let mut ahead = Reader::new(reader.bytes(), reader.at());
            self.slots[slot] = ahead.value(depth, &mut self.notes)?;
        }
        if reader.peek() == Some(b'{') {
            return self.object(reader, child, depth);
        }
        reader.value(depth, &mut ()).map(drop)
    }
}

fn not_an_object(span: Span) -> Reject {
    let found = match span.kind {
        Kind::Array(_) => "an array",
        Kind::Text | Kind::EscapedText => "a string",
        Kind::Number(_) | Kind::LongNumber => "a number",
        Kind::True | Kind::False => "a bool",
        _ => "null",
    };
    Reject::new(Reason::NotAnObject, format!("expected a JSON object, found {found}"))
}

fn invalid(error: JsonError, payload: &[u8]) -> Reject {
    match error {
        JsonError::TooDeep(at) => Reject::new(
            Reason::TooDeep,
            format!("nested deeper than {} at byte {at}", super::json::MAX_DEPTH),
        ),
        JsonError::Syntax(expected, at) => {
            let rest = super::reject::shortened(&payload[at.min(payload.len())..]);
            let found = if rest.is_empty() { "the end".to_owned() } else { rest };
            let outline = format!("no valid JSON at byte {at}: expected {expected}");
            Reject::new(Reason::InvalidJson, outline).found(&found)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_large_array_does_not_keep_its_memory() {
        let mut keys = Keys::new();
        let slot = keys.slot(&["a".to_owned()]);
        let elements = |count| format!("{{\"a\":[{}]}}", vec!["1"; count].join(","));
        for count in [3 * MAX_KEPT_NOTES, 2] {
            let payload = elements(count).into_bytes();
            keys.read(&payload).unwrap();
            let Kind::Array(parts) = keys.found(slot).kind else { panic!("an array is one") };
            assert_eq!(keys.document(&payload).parts(parts).count(), count);
        }
        assert!(keys.notes.capacity() <= MAX_KEPT_NOTES, "{}", keys.notes.capacity());
    }
}
