//! A strict JSON reader (RFC 8259) over borrowed bytes that keeps no tree: it says where values
//! lie and of what kind they are, and of those that are asked for also where all their parts lie.
//!
//! Owns the grammar. Never interprets a number and never copies a string; whoever needs a value
//! reads it from its span. The bytes must be UTF-8, which the caller checks once for the payload.

use super::notes::{Notes, Parts};
use super::number::{self, Number, Plain};

/// How deep arrays and objects may nest. The reader recurses, so that this bounds its stack; no
/// known producer nests past 10, and ClickHouse types nest far less.
pub(super) const MAX_DEPTH: u32 = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Absent,
    Null,
    False,
    True,
    Number(Plain),
    /// A number with an exponent, or with more digits than 64 bits hold: read it from its text.
    LongNumber,
    /// A string without escapes: its bytes are its value.
    Text,
    /// A string that has to be unescaped.
    EscapedText,
    Array(Parts),
    Object(Parts),
}

/// Where a value lies. A string's span is without its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    start: u32,
    end: u32,
    pub(super) kind: Kind,
}

impl Span {
    pub(super) const ABSENT: Self = Self::new(Kind::Absent, 0, 0);

    const fn new(kind: Kind, start: usize, end: usize) -> Self {
        Self { start: place(start), end: place(end), kind }
    }

    /// Its bytes in the text that was read.
    #[inline]
    pub(super) fn of(self, json: &[u8]) -> &[u8] {
        &json[self.start as usize..self.end as usize]
    }
}

#[expect(clippy::cast_possible_truncation, reason = "checked the line before")]
pub(super) const fn place(at: usize) -> u32 {
    assert!(at <= u32::MAX as usize, "a payload is a few MiB: sources bound what one poll takes");
    at as u32
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JsonError {
    /// What was expected, and at which byte.
    Syntax(&'static str, usize),
    TooDeep(usize),
}

pub(super) type Read<T> = Result<T, JsonError>;

/// A place in a text; everything before it was valid.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    pub(super) fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    #[cold]
    fn expected<T>(&self, what: &'static str) -> Read<T> {
        Err(JsonError::Syntax(what, self.at))
    }

    /// Nothing but space may follow the value.
    pub(super) fn end(&mut self) -> Read<()> {
        self.skip_space();
        if self.at == self.bytes.len() { Ok(()) } else { self.expected("the end") }
    }

    /// Reads the value that starts here, space before it included, and everything in it, which is
    /// noted.
    pub(super) fn value(&mut self, depth: u32, notes: &mut impl Notes) -> Read<Span> {
        self.skip_space();
        let start = self.at;
        let kind = match self.peek() {
            Some(b'"') => return self.string(),
            Some(b'-' | b'0'..=b'9') => return self.number(),
            Some(b'{') => {
                self.open_object(depth)?;
                let before = notes.len();
                let mut first = true;
                while self.seek_key(first)? {
                    notes.push(self.any_key()?);
                    self.part(depth + 1, notes)?;
                    first = false;
                }
                Kind::Object(notes.since(before))
            }
            Some(b'[') => {
                self.open_array(depth)?;
                let before = notes.len();
                let mut first = true;
                while self.next_element(first)? {
                    self.part(depth + 1, notes)?;
                    first = false;
                }
                Kind::Array(notes.since(before))
            }
            Some(b't') => self.word(b"true", Kind::True)?,
            Some(b'f') => self.word(b"false", Kind::False)?,
            Some(b'n') => self.word(b"null", Kind::Null)?,
            _ => return self.expected("a value"),
        };
        Ok(Span::new(kind, start, self.at))
    }

    /// Reads the value that starts here, and notes it: nearly all have no parts of their own.
    #[inline]
    fn part(&mut self, depth: u32, notes: &mut impl Notes) -> Read<()> {
        self.skip_space();
        notes.push(match self.peek() {
            Some(b'"') => self.string()?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => return notes.note(|notes| self.value(depth, notes)),
        });
        Ok(())
    }

    /// Reads the number that starts here.
    #[inline]
    fn number(&mut self) -> Read<Span> {
        let start = self.at;
        let number = number::read(self.bytes, start);
        let Number { end, plain } =
            number.map_err(|at| JsonError::Syntax("a digit of a number", at))?;
        self.at = end;
        Ok(Span::new(plain.map_or(Kind::LongNumber, Kind::Number), start, end))
    }

    fn word(&mut self, word: &'static [u8], kind: Kind) -> Read<Kind> {
        if !self.bytes[self.at..].starts_with(word) {
            return self.expected("a value");
        }
        self.at += word.len();
        Ok(kind)
    }

    /// Steps into the object that starts here; [`Self::seek_key`] goes on.
    pub(super) fn open_object(&mut self, depth: u32) -> Read<()> {
        self.open(b'{', "an object", depth)
    }

    /// Steps into the array that starts here; [`Self::next_element`] goes on.
    fn open_array(&mut self, depth: u32) -> Read<()> {
        self.open(b'[', "an array", depth)
    }

    fn open(&mut self, bracket: u8, what: &'static str, depth: u32) -> Read<()> {
        if self.peek() != Some(bracket) {
            return self.expected(what);
        }
        if depth >= MAX_DEPTH {
            return Err(JsonError::TooDeep(self.at));
        }
        self.at += 1;
        Ok(())
    }

    /// Goes to the next key of an object: true if the reader now stands at its opening quote,
    /// false if the object ended.
    #[inline]
    pub(super) fn seek_key(&mut self, first: bool) -> Read<bool> {
        self.skip_space();
        match self.peek() {
            Some(b'}') => {
                self.at += 1;
                return Ok(false);
            }
            Some(b',') if !first => {
                self.at += 1;
                self.skip_space();
            }
            _ if !first => return self.expected("',' or '}'"),
            _ => {}
        }
        if self.peek() == Some(b'"') { Ok(true) } else { self.expected("a key in quotes") }
    }

    /// Reads exactly this key and the colon, if it stands here.
    #[inline]
    pub(super) fn known_key(&mut self, key: &Key) -> bool {
        let known = key.begins(&self.bytes[self.at + 1..]);
        if known {
            self.at += 1 + key.text.len();
        }
        known
    }

    /// Reads whatever key stands here, and the colon.
    pub(super) fn any_key(&mut self) -> Read<Span> {
        let key = self.string()?;
        self.colon()?;
        Ok(key)
    }

    #[inline]
    fn colon(&mut self) -> Read<()> {
        self.skip_space();
        if self.peek() != Some(b':') {
            return self.expected("':'");
        }
        self.at += 1;
        Ok(())
    }

    /// Goes to the next element of an array; false at its end.
    #[inline]
    fn next_element(&mut self, first: bool) -> Read<bool> {
        self.skip_space();
        match self.peek() {
            Some(b']') => {
                self.at += 1;
                Ok(false)
            }
            Some(b',') if !first => {
                self.at += 1;
                Ok(true)
            }
            _ if first => Ok(true),
            _ => self.expected("',' or ']'"),
        }
    }

    /// Reads the string whose opening quote stands here.
    #[inline]
    fn string(&mut self) -> Read<Span> {
        let start = self.at + 1;
        let mut kind = Kind::Text;
        let mut at = start;
        loop {
            at = skip_plain(self.bytes, at);
            match self.bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    kind = Kind::EscapedText;
                    at = escape_end(self.bytes, at)?;
                }
                Some(_) => return Err(JsonError::Syntax("no bare control character", at)),
                None => return Err(JsonError::Syntax("the end of a string", at)),
            }
        }
        self.at = at + 1;
        Ok(Span::new(kind, start, at))
    }
}

/// The first byte from `at` that is a quote, a backslash or a control character.
///
/// Eight bytes at a time: most strings are shorter than what a call into memchr would pay for.
#[inline]
fn skip_plain(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    while let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*eight);
        let quote = word ^ (ONES * 0x22);
        let backslash = word ^ (ONES * 0x5c);
        // A borrow can only spoil bytes above the first hit, and only the first hit is used.
        let hits = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        let hits = hits & HIGHS;
        if hits != 0 {
            return at + (hits.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while let Some(&byte) = bytes.get(at) {
        if byte == b'"' || byte == b'\\' || byte < 0x20 {
            break;
        }
        at += 1;
    }
    at
}

/// Where the escape whose backslash is at `at` ends; a pair of surrogates is one escape.
fn escape_end(bytes: &[u8], at: usize) -> Read<usize> {
    match bytes.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => match hex4(bytes, at + 2) {
            Some(0xd800..=0xdbff) => match (bytes.get(at + 6..at + 8), hex4(bytes, at + 8)) {
                (Some(b"\\u"), Some(0xdc00..=0xdfff)) => Ok(at + 12),
                _ => Err(JsonError::Syntax("the second half of a surrogate pair", at + 6)),
            },
            Some(0xdc00..=0xdfff) => {
                Err(JsonError::Syntax("the first half of a surrogate pair", at))
            }
            Some(_) => Ok(at + 6),
            None => Err(JsonError::Syntax("four hex digits", at + 2)),
        },
        _ => Err(JsonError::Syntax("an escape that JSON knows", at + 1)),
    }
}

fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..at + 4)?
        .iter()
        .try_fold(0, |value, &digit| Some(value * 16 + char::from(digit).to_digit(16)?))
}

/// A key without escapes, made to be compared quickly.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// The key, its closing quote, and the colon.
    text: Box<[u8]>,
    /// Its first bytes, zero behind its end, and which bits of them count.
    words: [u64; 2],
    masks: [u64; 2],
}

impl Key {
    const END: &[u8] = b"\":";

    /// `raw` is the key as it stands between its quotes.
    pub(super) fn new(raw: &[u8]) -> Self {
        let text = [raw, Self::END].concat();
        let word = |from: usize, byte: fn(u8) -> u8| {
            let mut bytes = text.iter().skip(from).map(|&it| byte(it)).chain([0; 8]);
            u64::from_le_bytes([(); 8].map(|()| bytes.next().unwrap_or_default()))
        };
        let words = [word(0, |it| it), word(8, |it| it)];
        let masks = [word(0, |_| 0xff), word(8, |_| 0xff)];
        Self { text: text.into(), words, masks }
    }

    /// Whether it is what was read there, with nothing between the quote and the colon.
    #[inline]
    pub(super) fn is(&self, json: &[u8], read: Span) -> bool {
        self.begins(&json[read.start as usize..])
    }

    #[inline]
    fn begins(&self, text: &[u8]) -> bool {
        let ([first, second], [first_mask, second_mask]) = (self.words, self.masks);
        match text.first_chunk::<16>() {
            Some(begin) => {
                let [a, b, c, d, e, f, g, h, rest @ ..] = *begin;
                u64::from_le_bytes([a, b, c, d, e, f, g, h]) & first_mask == first
                    && u64::from_le_bytes(rest) & second_mask == second
                    && (self.text.len() <= 16 || text.starts_with(&self.text))
            }
            None => text.starts_with(&self.text),
        }
    }
}

/// Appends the value of a string that the reader has accepted.
pub(super) fn unescape(escaped: &[u8], into: &mut Vec<u8>) {
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'\\', &escaped[at..]) {
        into.extend_from_slice(&escaped[at..at + found]);
        at += found;
        let plain = match escaped.get(at + 1) {
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                at += unescape_unicode(escaped, at, into);
                continue;
            }
            Some(&other) => other,
            None => break,
        };
        into.push(plain);
        at += 2;
    }
    into.extend_from_slice(&escaped[at..]);
}

/// Appends the character of the `\u` escape at `at`; returns the length of the escape.
fn unescape_unicode(escaped: &[u8], at: usize, into: &mut Vec<u8>) -> usize {
    let unit = hex4(escaped, at + 2).unwrap_or(0xfffd);
    let (code, length) = match (unit, hex4(escaped, at + 8)) {
        (0xd800..=0xdbff, Some(low @ 0xdc00..=0xdfff)) => {
            (0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00), 12)
        }
        _ => (unit, 6),
    };
    let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    into.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    length.min(escaped.len() - at)
}
