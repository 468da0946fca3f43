//! Messages of PostgreSQL's protocol, version 3.0.

use std::fmt;

use super::Row;

/// Version 3.0, as the first message says it.
const VERSION: u32 = 3 << 16;
/// Longest message that is believed.
const LONGEST: usize = 64 << 20;

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Who this is was believed.
    Welcome,
    /// It wants a password, in clear.
    Password,
    /// One row.
    Row(Row),
    /// Something went wrong.
    Error {
        /// SQLSTATE.
        code: String,
        /// For people.
        message: String,
        /// Whether the server hangs up.
        fatal: bool,
    },
    /// It waits for a query.
    Ready,
    /// What needs no answer: a parameter, a notice, the end of one statement.
    Other(u8),
}

/// Bytes that are no message, or one that this client does not speak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireError(String);

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a message of PostgreSQL: {}", self.0)
    }
}

impl std::error::Error for WireError {}

/// The first message of a client.
pub fn startup(user: &str, database: &str) -> Vec<u8> {
    let mut body = VERSION.to_be_bytes().to_vec();
    for text in ["user", user, "database", database] {
        put_text(text, &mut body);
    }
    body.push(0);
    framed(None, &body)
}

/// Statements to be run.
pub fn query(text: &str) -> Vec<u8> {
    let mut body = Vec::new();
    put_text(text, &mut body);
    framed(Some(b'Q'), &body)
}

/// The answer to [`Message::Password`].
pub(super) fn password(text: &str) -> Vec<u8> {
    let mut body = Vec::new();
    put_text(text, &mut body);
    framed(Some(b'p'), &body)
}

/// Reads one message from the begin of `bytes`: the message and its length, or `None` if more bytes are needed.
pub fn parse(bytes: &[u8]) -> Result<Option<(Message, usize)>, WireError> {
    let Some((kind, rest)) = bytes.split_first() else { return Ok(None) };
    let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    let Some(body_length) = length.checked_sub(4).filter(|length| *length <= LONGEST) else {
        return Err(WireError(format!("a length of {length}")));
    };
    let Some(body) = rest.get(..body_length) else { return Ok(None) };
    let message = match kind {
        b'R' => authentication(body)?,
        b'D' => Message::Row(row(body).ok_or_else(|| WireError("a row that ends early".to_owned()))?),
        b'E' => error(body),
        b'Z' => Message::Ready,
        other => Message::Other(*other),
    };
    Ok(Some((message, 5 + body_length)))
}

fn authentication(body: &[u8]) -> Result<Message, WireError> {
    match body.first_chunk::<4>().map(|kind| u32::from_be_bytes(*kind)) {
        Some(0) => Ok(Message::Welcome),
        Some(3) => Ok(Message::Password),
        other => Err(WireError(format!("it wants to know who this is in the way {other:?}"))),
    }
}

fn row(body: &[u8]) -> Option<Row> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut row = Row::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>()?;
        rest = after;
        // -1 is null.
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            row.push(None);
            continue;
        };
        let (value, after) = rest.split_at_checked(length)?;
        row.push(Some(String::from_utf8_lossy(value).into_owned()));
        rest = after;
    }
    Some(row)
}

fn error(body: &[u8]) -> Message {
    let fields: Vec<&[u8]> = body.split(|byte| *byte == 0).collect();
    let field = |kind: u8| {
        let found = fields.iter().find(|field| field.first() == Some(&kind));
        found.map(|field| String::from_utf8_lossy(&field[1..]).into_owned()).unwrap_or_default()
    };
    // `V` is the severity in English, whatever language the rest is in.
    Message::Error { code: field(b'C'), message: field(b'M'), fatal: field(b'V') != "ERROR" }
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    out.extend(text.bytes().filter(|byte| *byte != 0));
    out.push(0);
}

fn framed(kind: Option<u8>, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("no statement is that long");
    kind.into_iter().chain(length.to_be_bytes()).chain(body.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        framed(Some(kind), body)
    }

    #[test]
    fn what_a_server_says_is_read() {
        let row = [&[0, 2, 0, 0, 0, 2][..], b"42", &[0xff; 4]].concat();
        let error = b"SFEHLER\0VERROR\0C40001\0Mtry again\0\0";
        let all = [
            message(b'R', &[0; 4]),
            message(b'R', &[0, 0, 0, 3]),
            message(b'S', b"a\0b\0"),
            message(b'D', &row),
            message(b'E', error),
            message(b'E', b"VFATAL\0C57P01\0Mbye\0\0"),
            message(b'Z', b"I"),
        ]
        .concat();
        let mut rest = &all[..];
        let mut read = Vec::new();
        while let Some((message, used)) = parse(rest).unwrap() {
            read.push(message);
            rest = &rest[used..];
        }
        assert!(rest.is_empty());
        let error = |code: &str, message: &str, fatal| Message::Error {
            code: code.to_owned(),
            message: message.to_owned(),
            fatal,
        };
        let expected = [
            Message::Welcome,
            Message::Password,
            Message::Other(b'S'),
            Message::Row(vec![Some("42".to_owned()), None]),
            error("40001", "try again", false),
            error("57P01", "bye", true),
            Message::Ready,
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn a_message_that_is_cut_waits_for_the_rest() {
        let whole = message(b'D', &[0, 1, 0, 0, 0, 1, b'x']);
        for end in 0..whole.len() {
            assert_eq!(parse(&whole[..end]), Ok(None), "cut at {end}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in
            [&message(b'D', &[0, 1, 0, 0, 0, 9])[..], b"Z\0\0\0\x01", b"Zzzzz", &message(b'R', &[0, 0, 0, 9])]
        {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn what_a_client_says_has_its_length() {
        assert_eq!(query("x"), b"Q\0\0\0\x06x\0");
        let startup = startup("u", "d");
        assert_eq!(startup.len(), usize::from(startup[3]));
        assert!(startup.ends_with(b"user\0u\0database\0d\0\0"));
    }
}
