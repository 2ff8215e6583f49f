//! A strict JSON reader (RFC 8259) over borrowed bytes that keeps no tree: it says where values
//! lie and of what kind they are.
//!
//! Owns the grammar. Never interprets a number and never copies a string; whoever needs a value
//! reads it from its span. The bytes must be UTF-8, which the caller checks once for the payload.

/// How deep arrays and objects may nest. The reader recurses, so that this bounds its stack; no
/// known producer nests past 10, and ClickHouse types nest far less.
pub(super) const MAX_DEPTH: u32 = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Absent,
    Null,
    False,
    True,
    Number,
    /// A string without escapes: its bytes are its value.
    Text,
    /// A string that has to be unescaped.
    EscapedText,
    Array,
    Object,
}

/// Where a value lies. A string's span is without its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Span {
    pub(super) const ABSENT: Self = Self { kind: Kind::Absent, start: 0, end: 0 };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JsonError {
    /// What was expected, and at which byte.
    Syntax(&'static str, usize),
    TooDeep(usize),
}

type Read<T> = Result<T, JsonError>;

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

    /// Reads the value that starts here, space before it included, and everything in it.
    pub(super) fn value(&mut self, depth: u32) -> Read<Span> {
        self.skip_space();
        let start = self.at;
        let kind = match self.peek() {
            Some(b'"') => return self.string(),
            Some(b'-' | b'0'..=b'9') => {
                self.at = number_end(self.bytes, start)
                    .map_err(|at| JsonError::Syntax("a digit of a number", at))?;
                Kind::Number
            }
            Some(b'{') => {
                self.open_object(depth)?;
                let mut first = true;
                while self.next_key(first)?.is_some() {
                    self.value(depth + 1)?;
                    first = false;
                }
                Kind::Object
            }
            Some(b'[') => {
                self.open_array(depth)?;
                let mut first = true;
                while self.next_element(first)? {
                    self.value(depth + 1)?;
                    first = false;
                }
                Kind::Array
            }
            Some(b't') => self.word(b"true", Kind::True)?,
            Some(b'f') => self.word(b"false", Kind::False)?,
            Some(b'n') => self.word(b"null", Kind::Null)?,
            _ => return self.expected("a value"),
        };
        Ok(Span { kind, start, end: self.at })
    }

    fn word(&mut self, word: &'static [u8], kind: Kind) -> Read<Kind> {
        if !self.bytes[self.at..].starts_with(word) {
            return self.expected("a value");
        }
        self.at += word.len();
        Ok(kind)
    }

    /// Steps into the object that starts here; [`Self::next_key`] goes on.
    pub(super) fn open_object(&mut self, depth: u32) -> Read<()> {
        self.open(b'{', "an object", depth)
    }

    /// Steps into the array that starts here; [`Self::next_element`] goes on.
    pub(super) fn open_array(&mut self, depth: u32) -> Read<()> {
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

    /// Reads exactly this key and the colon, if it stands here; the key has no escapes.
    #[inline]
    pub(super) fn this_key(&mut self, key: &[u8]) -> Read<bool> {
        let rest = &self.bytes[self.at + 1..];
        if rest.get(key.len()) != Some(&b'"') || !rest.starts_with(key) {
            return Ok(false);
        }
        self.at += key.len() + 2;
        self.colon()?;
        Ok(true)
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

    /// The next key of an object, or None at its end.
    pub(super) fn next_key(&mut self, first: bool) -> Read<Option<Span>> {
        if self.seek_key(first)? { self.any_key().map(Some) } else { Ok(None) }
    }

    /// Goes to the next element of an array; false at its end.
    #[inline]
    pub(super) fn next_element(&mut self, first: bool) -> Read<bool> {
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
        Ok(Span { kind, start, end: at })
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

/// Where the number that starts at `at` ends; Err says where it stops being one.
#[inline]
pub(super) fn number_end(bytes: &[u8], mut at: usize) -> Result<usize, usize> {
    let digits = |mut at: usize| -> Result<usize, usize> {
        let start = at;
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        if at == start { Err(at) } else { Ok(at) }
    };
    if bytes.get(at) == Some(&b'-') {
        at += 1;
    }
    // A zero ends the integer part: what follows another digit is refused by the next token.
    at = if bytes.get(at) == Some(&b'0') { at + 1 } else { digits(at)? };
    if bytes.get(at) == Some(&b'.') {
        at = digits(at + 1)?;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        let signed = matches!(bytes.get(at + 1), Some(b'+' | b'-'));
        at = digits(at + 1 + usize::from(signed))?;
    }
    Ok(at)
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
