//! ClickHouse's type names, as far as the decoder can fill them.
//!
//! Owns the grammar of type names and their spelling in a Native block. `SimpleAggregateFunction`
//! vanishes here, and so does `LowCardinality` but around the Strings of a whole column: the inner
//! type is sent and ClickHouse casts it.

use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Type {
    /// 1, 2, 4, 8, 16 or 32 bytes.
    Int {
        bytes: u8,
        signed: bool,
    },
    Float32,
    Float64,
    Bool,
    Decimal {
        precision: u8,
        scale: u8,
    },
    String,
    /// `LowCardinality(String)`: each value is sent once a block, and a number for each row.
    Dictionary {
        nullable: bool,
    },
    FixedString(usize),
    Date,
    Date32,
    /// With its zone, which only matters to whoever reads the column.
    DateTime(Option<String>),
    DateTime64(u8, Option<String>),
    Uuid,
    Ipv4,
    Ipv6,
    Enum {
        wide: bool,
        names: Vec<(String, i16)>,
    },
    Nullable(Box<Type>),
    Array(Box<Type>),
    Map(Box<Type>, Box<Type>),
    Tuple(Vec<Element>),
}

/// An element of a Tuple.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) name: Option<String>,
    pub(super) ty: Type,
}

impl Type {
    /// Err is the part that is unknown or malformed.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { rest: text };
        let is_dictionary = parser.rest.trim_start().starts_with("LowCardinality");
        let ty = match (is_dictionary, parser.ty()?) {
            (true, Self::String) => Self::Dictionary { nullable: false },
            (true, Self::Nullable(ty)) if *ty == Self::String => {
                Self::Dictionary { nullable: true }
            }
            (_, ty) => ty,
        };
        parser.skip_space();
        if parser.rest.is_empty() { Ok(ty) } else { Err(parser.rest.to_owned()) }
    }

    /// It takes NULL.
    pub(super) fn is_nullable(&self) -> bool {
        matches!(self, Self::Nullable(_) | Self::Dictionary { nullable: true })
    }

    /// The same that takes NULL; None where ClickHouse has none.
    pub(super) fn nullable(&self) -> Option<Self> {
        match self {
            Self::Nullable(_) | Self::Array(_) | Self::Map(..) | Self::Tuple(_) => None,
            Self::Dictionary { .. } => Some(Self::Nullable(Box::new(Self::String))),
            ty => Some(Self::Nullable(Box::new(ty.clone()))),
        }
    }

    /// The bytes of one value; None where they vary.
    pub(super) fn width(&self) -> Option<usize> {
        Some(match self {
            Self::Int { bytes, .. } => usize::from(*bytes),
            Self::Bool => 1,
            Self::Date => 2,
            Self::Float32 | Self::Date32 | Self::DateTime(_) | Self::Ipv4 => 4,
            Self::Float64 | Self::DateTime64(..) => 8,
            Self::Uuid | Self::Ipv6 => 16,
            Self::Decimal { precision: 0..=9, .. } => 4,
            Self::Decimal { precision: 10..=18, .. } => 8,
            Self::Decimal { precision: 19..=38, .. } => 16,
            Self::Decimal { .. } => 32,
            Self::FixedString(bytes) => *bytes,
            Self::Enum { wide, .. } => 1 + usize::from(*wide),
            _ => return None,
        })
    }

    /// Whether it is a time, or made of times.
    pub(super) fn holds_times(&self) -> bool {
        match self {
            Self::Date | Self::Date32 | Self::DateTime(_) | Self::DateTime64(..) => true,
            Self::Nullable(ty) | Self::Array(ty) | Self::Map(_, ty) => ty.holds_times(),
            Self::Tuple(elements) => elements.iter().any(|element| element.ty.holds_times()),
            _ => false,
        }
    }

    /// Whether it takes any bytes as they are.
    pub(super) fn takes_bytes(&self) -> bool {
        match self {
            Self::String | Self::Dictionary { .. } | Self::FixedString(_) => true,
            Self::Nullable(ty) => ty.takes_bytes(),
            _ => false,
        }
    }
}

/// As ClickHouse spells it.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zone = |zone: &Option<String>| zone.as_deref().map(quoted).unwrap_or_default();
        match self {
            Self::Int { bytes, signed } => {
                write!(f, "{}{}", if *signed { "Int" } else { "UInt" }, u32::from(*bytes) * 8)
            }
            Self::Float32 => f.write_str("Float32"),
            Self::Float64 => f.write_str("Float64"),
            Self::Bool => f.write_str("Bool"),
            Self::Decimal { precision, scale } => write!(f, "Decimal({precision}, {scale})"),
            Self::String => f.write_str("String"),
            Self::Dictionary { nullable: false } => f.write_str("LowCardinality(String)"),
            Self::Dictionary { nullable: true } => f.write_str("LowCardinality(Nullable(String))"),
            Self::FixedString(bytes) => write!(f, "FixedString({bytes})"),
            Self::Date => f.write_str("Date"),
            Self::Date32 => f.write_str("Date32"),
            Self::DateTime(None) => f.write_str("DateTime"),
            Self::DateTime(name) => write!(f, "DateTime({})", zone(name)),
            Self::DateTime64(precision, None) => write!(f, "DateTime64({precision})"),
            Self::DateTime64(precision, name) => {
                write!(f, "DateTime64({precision}, {})", zone(name))
            }
            Self::Uuid => f.write_str("UUID"),
            Self::Ipv4 => f.write_str("IPv4"),
            Self::Ipv6 => f.write_str("IPv6"),
            Self::Enum { wide, names } => {
                f.write_str(if *wide { "Enum16" } else { "Enum8" })?;
                list(f, names, |f, (name, value)| write!(f, "{} = {value}", quoted(name)))
            }
            Self::Nullable(ty) => write!(f, "Nullable({ty})"),
            Self::Array(ty) => write!(f, "Array({ty})"),
            Self::Map(key, value) => write!(f, "Map({key}, {value})"),
            Self::Tuple(elements) => {
                f.write_str("Tuple")?;
                list(f, elements, |f, element| match &element.name {
                    Some(name) => write!(f, "`{}` {}", escaped(name, '`'), element.ty),
                    None => write!(f, "{}", element.ty),
                })
            }
        }
    }
}

fn list<T>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    write: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    f.write_str("(")?;
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_str(", ")?;
        }
        write(f, item)?;
    }
    f.write_str(")")
}

fn quoted(text: &str) -> String {
    format!("'{}'", escaped(text, '\''))
}

fn escaped(text: &str, quote: char) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character == quote || character == '\\' {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

#[derive(Debug)]
struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, character: char) -> bool {
        self.skip_space();
        let Some(rest) = self.rest.strip_prefix(character) else { return false };
        self.rest = rest;
        true
    }

    fn need(&mut self, character: char) -> Result<(), String> {
        if self.eat(character) { Ok(()) } else { Err(self.rest.to_owned()) }
    }

    fn word(&mut self) -> &'a str {
        self.skip_space();
        let end = self.rest.find(|c: char| c != '_' && !c.is_ascii_alphanumeric());
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }

    fn number<N: std::str::FromStr>(&mut self) -> Result<N, String> {
        self.skip_space();
        let end = self.rest.find(|c: char| c != '-' && !c.is_ascii_digit());
        let (number, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        let value = number.parse().map_err(|_| self.rest.to_owned())?;
        self.rest = rest;
        Ok(value)
    }

    /// A text in these quotes, with backslash escapes or doubled quotes.
    fn quoted(&mut self, quote: char) -> Result<String, String> {
        self.need(quote)?;
        let mut text = String::new();
        let mut characters = self.rest.char_indices();
        while let Some((at, character)) = characters.next() {
            let after = &self.rest[at + character.len_utf8()..];
            if character == quote && !after.starts_with(quote) {
                self.rest = after;
                return Ok(text);
            }
            let escape = character == quote || character == '\\';
            text.push(match (escape, character) {
                (false, plain) => plain,
                (true, _) => match characters.next() {
                    Some((_, 'n')) if character == '\\' => '\n',
                    Some((_, 't')) if character == '\\' => '\t',
                    Some((_, 'r')) if character == '\\' => '\r',
                    Some((_, '0')) if character == '\\' => '\0',
                    Some((_, 'b')) if character == '\\' => '\u{8}',
                    Some((_, 'f')) if character == '\\' => '\u{c}',
                    Some((_, other)) => other,
                    None => break,
                },
            });
        }
        Err(self.rest.to_owned())
    }

    fn ty(&mut self) -> Result<Type, String> {
        self.skip_space();
        let start = self.rest;
        let word = self.word();
        self.named(word).map_err(|rest| {
            // What is not known is shown as a whole: `JSON(max_dynamic_paths = 8)`.
            if rest.is_empty() || rest == self.rest { start.to_owned() } else { rest }
        })
    }

    fn named(&mut self, word: &str) -> Result<Type, String> {
        if let Some(bits) = word.strip_prefix("UInt") {
            return int(bits, false);
        }
        if let Some(bits) = word.strip_prefix("Int") {
            return int(bits, true);
        }
        Ok(match word {
            "Float32" => Type::Float32,
            "Float64" => Type::Float64,
            "Bool" => Type::Bool,
            "String" => Type::String,
            "Date" => Type::Date,
            "Date32" => Type::Date32,
            "UUID" => Type::Uuid,
            "IPv4" => Type::Ipv4,
            "IPv6" => Type::Ipv6,
            "Decimal" => self.decimal()?,
            "Decimal32" => self.decimal_of(9)?,
            "Decimal64" => self.decimal_of(18)?,
            "Decimal128" => self.decimal_of(38)?,
            "Decimal256" => self.decimal_of(76)?,
            "FixedString" => Type::FixedString(self.in_brackets(Self::number)?),
            "DateTime" => self.date_time()?,
            "DateTime64" => self.date_time64()?,
            "Enum8" => self.names(false)?,
            "Enum16" => self.names(true)?,
            "Nullable" => Type::Nullable(Box::new(self.in_brackets(Self::ty)?)),
            "LowCardinality" => self.in_brackets(Self::ty)?,
            "SimpleAggregateFunction" => self.in_brackets(Self::aggregated)?,
            "Array" => Type::Array(Box::new(self.in_brackets(Self::ty)?)),
            "Map" => self.in_brackets(|parser| {
                let key = parser.ty()?;
                parser.need(',')?;
                Ok(Type::Map(Box::new(key), Box::new(parser.ty()?)))
            })?,
            "Tuple" => Type::Tuple(self.in_brackets(|parser| parser.list(Self::element))?),
            _ => return Err(String::new()),
        })
    }

    fn in_brackets<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, String>,
    ) -> Result<T, String> {
        self.need('(')?;
        let value = read(self)?;
        self.need(')')?;
        Ok(value)
    }

    fn list<T>(&mut self, read: impl Fn(&mut Self) -> Result<T, String>) -> Result<Vec<T>, String> {
        let mut items = vec![read(self)?];
        while self.eat(',') {
            items.push(read(self)?);
        }
        Ok(items)
    }

    fn decimal(&mut self) -> Result<Type, String> {
        let (precision, scale) = self.in_brackets(|parser| {
            let precision = parser.number()?;
            let scale = if parser.eat(',') { parser.number()? } else { 0 };
            Ok((precision, scale))
        })?;
        checked_decimal(precision, scale)
    }

    fn decimal_of(&mut self, precision: u8) -> Result<Type, String> {
        let scale = self.in_brackets(Self::number)?;
        checked_decimal(precision, scale)
    }

    fn date_time(&mut self) -> Result<Type, String> {
        if !self.rest.starts_with('(') {
            return Ok(Type::DateTime(None));
        }
        Ok(Type::DateTime(Some(self.in_brackets(|parser| parser.quoted('\''))?)))
    }

    fn date_time64(&mut self) -> Result<Type, String> {
        let (precision, zone) = self.in_brackets(|parser| {
            let precision: u8 = parser.number()?;
            let zone = if parser.eat(',') { Some(parser.quoted('\'')?) } else { None };
            Ok((precision, zone))
        })?;
        if precision > 9 {
            return Err(String::new());
        }
        Ok(Type::DateTime64(precision, zone))
    }

    fn names(&mut self, wide: bool) -> Result<Type, String> {
        let names = self.in_brackets(|parser| {
            parser.list(|parser| {
                let name = parser.quoted('\'')?;
                parser.need('=')?;
                Ok((name, parser.number()?))
            })
        })?;
        Ok(Type::Enum { wide, names })
    }

    /// `function, type`: the type is what is stored.
    fn aggregated(&mut self) -> Result<Type, String> {
        self.word();
        if self.rest.starts_with('(') {
            let end = self.rest.find(')').ok_or_else(String::new)?;
            self.rest = &self.rest[end + 1..];
        }
        self.need(',')?;
        self.ty()
    }

    fn element(&mut self) -> Result<Element, String> {
        self.skip_space();
        if self.rest.starts_with('`') {
            let name = self.quoted('`')?;
            return Ok(Element { name: Some(name), ty: self.ty()? });
        }
        let start = self.rest;
        let word = self.word();
        // A name is followed by its type; a type by a bracket or a comma.
        if self.rest.starts_with(' ') && !word.is_empty() {
            return Ok(Element { name: Some(word.to_owned()), ty: self.ty()? });
        }
        self.rest = start;
        Ok(Element { name: None, ty: self.ty()? })
    }
}

fn int(bits: &str, signed: bool) -> Result<Type, String> {
    let bytes = match bits {
        "8" => 1,
        "16" => 2,
        "32" => 4,
        "64" => 8,
        "128" => 16,
        "256" => 32,
        _ => return Err(String::new()),
    };
    Ok(Type::Int { bytes, signed })
}

fn checked_decimal(precision: u8, scale: u8) -> Result<Type, String> {
    if precision == 0 || precision > 76 || scale > precision {
        return Err(String::new());
    }
    Ok(Type::Decimal { precision, scale })
}
