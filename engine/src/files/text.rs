//! Bytes as text, without loss: names of files need not be UTF-8, JSON must be.
//!
//! Text stays as it is; `%`, quotes, backslashes, control characters and what is no UTF-8 become `%XX`. So a byte takes
//! at most three, in JSON as well.

use std::fmt::{self, Write};

/// Writes `bytes` as text.
pub(super) fn write(out: &mut impl Write, bytes: &[u8]) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_ascii_control() || matches!(character, '%' | '"' | '\\') {
                // Everything escaped here is one byte long.
                write!(out, "%{:02X}", character as u32)?;
            } else {
                out.write_char(character)?;
            }
        }
        for byte in chunk.invalid() {
            write!(out, "%{byte:02X}")?;
        }
    }
    Ok(())
}

/// `bytes` as text.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    // Writing into a string cannot fail.
    let _ = write(&mut out, bytes);
    out
}

/// The bytes that `text` stands for; `None` if a `%` is not followed by two hexadecimal digits.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let (digits, after) = after.split_first_chunk::<2>()?;
            out.push(hex_byte(*digits)?);
            rest = after;
        } else {
            out.push(byte);
            rest = after;
        }
    }
    Some(out)
}

/// `bytes` as two hexadecimal digits each.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing into a string cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// The reverse of [`hex`].
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if rest.is_empty() { pairs.iter().map(|digits| hex_byte(*digits)).collect() } else { None }
}

fn hex_byte(digits: [u8; 2]) -> Option<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()
}

/// Serde for bytes as [text](encode).
pub(super) mod lossless {
    use std::borrow::Cow;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in super::super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::encode(bytes))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        super::decode(&text)
            .ok_or_else(|| D::Error::custom("a % that is not followed by two hexadecimal digits"))
    }
}

/// Serde for bytes as [`hex`].
pub(super) mod hexadecimal {
    use std::borrow::Cow;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in super::super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::hex(bytes))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        super::unhex(&text).ok_or_else(|| D::Error::custom("not pairs of hexadecimal digits"))
    }
}
