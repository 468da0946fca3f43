//! Our own schema of CRIU's images, and a strict decoder and encoder of protobuf.
//!
//! prost drops fields that it does not know. Here nothing may be dropped and nothing may be passed on that was not
//! understood: so the decoder works by the schema alone, refuses whatever that does not name, and says where it was.
//! Whoever writes with [`Message::encode`] what [`MessageType::decode`] returned writes all that was there, in one form.

mod decode;
mod encode;
mod message;
mod parse;

use std::sync::LazyLock;

pub(super) use message::{Message, Value};

/// Messages that images are made of, in the language of protobuf: a subset of what CRIU 4.2.1 itself has.
const TEXTS: [&str; 4] = [
    include_str!("schema/tasks.proto"),
    include_str!("schema/files.proto"),
    include_str!("schema/memory.proto"),
    include_str!("schema/surroundings.proto"),
];

static SCHEMA: LazyLock<Vec<MessageType>> =
    LazyLock::new(|| parse::parse(&TEXTS).expect("the schema is part of the program, and a test reads it"));

/// A kind of message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MessageType {
    name: &'static str,
    /// In the order of their numbers.
    fields: Vec<Field>,
}

#[derive(Debug, PartialEq, Eq)]
struct Field {
    number: u32,
    name: &'static str,
    label: Label,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Required,
    Optional,
    Repeated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    /// 32 bits without a sign; enumerations as well, whose members the rules know.
    Unsigned32,
    Signed32,
    ZigZag32,
    Bits64,
    ZigZag64,
    Fixed64,
    Text,
    Bytes,
    /// Its place in the schema.
    Message(usize),
}

impl MessageType {
    /// The kind of message with a name that the schema has.
    pub(super) fn named(name: &str) -> &'static Self {
        SCHEMA.iter().find(|of| of.name == name).expect("the program asks for messages of its schema only")
    }

    fn at(place: usize) -> &'static Self {
        &SCHEMA[place]
    }

    fn field(&self, name: &str) -> usize {
        let place = self.fields.iter().position(|field| field.name == name);
        place.expect("the program asks for fields of its schema only")
    }
}

#[cfg(test)]
mod tests;
