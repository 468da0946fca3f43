//! Bytes to messages. What the schema does not say is refused.

use std::fmt;

use super::{Kind, Label, Message, MessageType, Value};

/// How deep messages may lie in each other; the directories of a cgroup are the only ones that could without end.
const MAX_DEPTH: usize = 16;

/// Bytes that are not what the schema says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::images) struct DecodeError {
    /// Names from the outermost message to the field.
    pub(in crate::images) path: String,
    /// What is wrong with it.
    pub(in crate::images) reason: String,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)
    }
}

fn wrong(reason: impl Into<String>) -> DecodeError {
    DecodeError { path: String::new(), reason: reason.into() }
}

fn within(name: &str, error: DecodeError) -> DecodeError {
    let path = if error.path.is_empty() { name.to_owned() } else { format!("{name}.{}", error.path) };
    DecodeError { path, ..error }
}

impl MessageType {
    /// Reads a whole message. On `Ok` every byte of it was understood.
    pub(in crate::images) fn decode(&'static self, bytes: &[u8]) -> Result<Message, DecodeError> {
        self.decode_at(bytes, 0).map_err(|error| within(self.name, error))
    }

    fn decode_at(&'static self, mut bytes: &[u8], depth: usize) -> Result<Message, DecodeError> {
        if depth > MAX_DEPTH {
            return Err(wrong("messages lie too deep in each other"));
        }
        let mut fields: Vec<(u16, Value)> = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes)?;
            let number = u32::try_from(key >> 3).map_err(|_| wrong("a field has an impossible number"))?;
            let place = self.fields.binary_search_by_key(&number, |field| field.number);
            let place = place.map_err(|_| wrong(format!("unknown field {number}")))?;
            let field = &self.fields[place];
            let value =
                value(field.kind, key & 7, &mut bytes, depth).map_err(|error| within(field.name, error))?;
            let place = u16::try_from(place).expect("messages have few fields");
            if field.label != Label::Repeated && fields.iter().any(|(at, _)| *at == place) {
                return Err(within(field.name, wrong("it is there twice")));
            }
            fields.push((place, value));
        }
        // Stable: repeated fields keep their order.
        fields.sort_by_key(|(place, _)| *place);
        for (place, field) in
            self.fields.iter().enumerate().filter(|(_, field)| field.label == Label::Required)
        {
            if fields.binary_search_by_key(&place, |(at, _)| usize::from(*at)).is_err() {
                return Err(within(field.name, wrong("it is missing")));
            }
        }
        Ok(Message { of: self, fields })
    }
}

fn value(kind: Kind, wire: u64, bytes: &mut &[u8], depth: usize) -> Result<Value, DecodeError> {
    let expected = match kind {
        Kind::Fixed64 => 1,
        Kind::Text | Kind::Bytes | Kind::Message(_) => 2,
        _ => 0,
    };
    if wire != expected {
        return Err(wrong(format!("wire type {wire} where {expected} belongs")));
    }
    match kind {
        Kind::Fixed64 => {
            let (number, rest) = bytes.split_first_chunk().ok_or_else(cut)?;
            *bytes = rest;
            Ok(Value::Number(u64::from_le_bytes(*number)))
        }
        Kind::Text | Kind::Bytes | Kind::Message(_) => {
            let length = usize::try_from(varint(bytes)?).map_err(|_| cut())?;
            let (content, rest) = bytes.split_at_checked(length).ok_or_else(cut)?;
            *bytes = rest;
            match kind {
                Kind::Message(place) => Ok(MessageType::at(place).decode_at(content, depth + 1)?.into()),
                // What follows a NUL is not seen by who reads it as a string of C.
                Kind::Text if content.contains(&0) => Err(wrong("a text with NUL")),
                Kind::Text if std::str::from_utf8(content).is_err() => Err(wrong("a text that is no UTF-8")),
                _ => Ok(Value::Bytes(content.into())),
            }
        }
        _ => {
            let number = varint(bytes)?;
            let fits = match kind {
                Kind::Bool => number <= 1,
                Kind::Unsigned32 | Kind::ZigZag32 => u32::try_from(number).is_ok(),
                Kind::Signed32 => i32::try_from(number.cast_signed()).is_ok(),
                _ => true,
            };
            if !fits {
                return Err(wrong(format!("{number} is out of its range")));
            }
            let signed = matches!(kind, Kind::ZigZag32 | Kind::ZigZag64);
            Ok(Value::Number(if signed { (number >> 1) ^ (number & 1).wrapping_neg() } else { number }))
        }
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or_else(cut)?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(wrong("a number has too many bits"))
}

fn cut() -> DecodeError {
    wrong("it ends in the middle")
}
