//! Messages to bytes: fields in the order of their numbers, numbers as short as they can be.

use super::{Kind, Message, Value};

impl Message {
    /// All of it, as bytes.
    pub(in crate::images) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode_to(&mut bytes);
        bytes
    }

    fn encode_to(&self, bytes: &mut Vec<u8>) {
        for (place, value) in &self.fields {
            let field = &self.of.fields[usize::from(*place)];
            let key = |wire: u64| u64::from(field.number) << 3 | wire;
            match (field.kind, value) {
                (Kind::Fixed64, Value::Number(number)) => {
                    varint(key(1), bytes);
                    bytes.extend_from_slice(&number.to_le_bytes());
                }
                (Kind::ZigZag32 | Kind::ZigZag64, Value::Number(number)) => {
                    varint(key(0), bytes);
                    let signed = number.cast_signed();
                    varint(((signed << 1) ^ (signed >> 63)).cast_unsigned(), bytes);
                }
                (_, Value::Number(number)) => {
                    varint(key(0), bytes);
                    varint(*number, bytes);
                }
                (_, Value::Bytes(content)) => {
                    varint(key(2), bytes);
                    varint(content.len() as u64, bytes);
                    bytes.extend_from_slice(content);
                }
                (_, Value::Message(message)) => {
                    varint(key(2), bytes);
                    let content = message.encode();
                    varint(content.len() as u64, bytes);
                    bytes.extend_from_slice(&content);
                }
            }
        }
    }
}

fn varint(mut number: u64, bytes: &mut Vec<u8>) {
    while number >= 0x80 {
        // The lowest seven bits, and that more follow.
        bytes.push(u8::try_from(number & 0x7f).expect("seven bits") | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).expect("less than eight bits"));
}
