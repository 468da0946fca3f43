//! The protocol of Redis, as much as a client needs: commands out, replies in.

use std::fmt;

/// Longest value or array that is believed: Redis' own limit is 512 MiB.
const LONGEST: i64 = 512 << 20;
/// Deepest nesting of arrays that is followed.
const DEEPEST: usize = 8;

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`
    Simple(String),
    /// `-ERR ...`
    Error(String),
    /// `:42`
    Integer(i64),
    /// A value; `None` is the null value.
    Bulk(Option<Vec<u8>>),
    /// Several; `None` is the null array.
    Array(Option<Vec<Reply>>),
}

/// Bytes that are no reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RespError(String);

impl fmt::Display for RespError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a Redis reply: {}", self.0)
    }
}

impl std::error::Error for RespError {}

/// Appends a command to `out`.
pub fn encode(words: &[&[u8]], out: &mut Vec<u8>) {
    out.extend(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend(b"\r\n");
    }
}

/// Reads one reply from the begin of `bytes`: the reply and its length, or `None` if more bytes are needed.
pub fn parse(bytes: &[u8]) -> Result<Option<(Reply, usize)>, RespError> {
    parse_nested(bytes, 0)
}

fn parse_nested(bytes: &[u8], depth: usize) -> Result<Option<(Reply, usize)>, RespError> {
    let Some((line, start)) = line(bytes) else {
        return if bytes.len() > 64 * 1024 { Err(RespError("a line without end".into())) } else { Ok(None) };
    };
    let text = || String::from_utf8_lossy(&line[1..]).into_owned();
    let reply = match line.first() {
        Some(b'+') => Reply::Simple(text()),
        Some(b'-') => Reply::Error(text()),
        Some(b':') => Reply::Integer(integer(&text())?),
        Some(b'$') => return bulk(bytes, start, length(&text())?),
        Some(b'*') if depth < DEEPEST => return array(bytes, start, length(&text())?, depth),
        _ => return Err(RespError(format!("{:?}", String::from_utf8_lossy(&line[..line.len().min(40)])))),
    };
    Ok(Some((reply, start)))
}

fn bulk(bytes: &[u8], start: usize, length: Option<usize>) -> Result<Option<(Reply, usize)>, RespError> {
    let Some(length) = length else { return Ok(Some((Reply::Bulk(None), start))) };
    let end = start + length;
    match bytes.get(end..end + 2) {
        Some(b"\r\n") => Ok(Some((Reply::Bulk(Some(bytes[start..end].to_vec())), end + 2))),
        Some(_) => Err(RespError("a value longer than it says".into())),
        None => Ok(None),
    }
}

fn array(
    bytes: &[u8],
    start: usize,
    length: Option<usize>,
    depth: usize,
) -> Result<Option<(Reply, usize)>, RespError> {
    let Some(length) = length else { return Ok(Some((Reply::Array(None), start))) };
    let mut replies = Vec::new();
    let mut end = start;
    for _ in 0..length {
        let Some((reply, used)) = parse_nested(&bytes[end..], depth + 1)? else { return Ok(None) };
        replies.push(reply);
        end += used;
    }
    Ok(Some((Reply::Array(Some(replies)), end)))
}

fn line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&bytes[..end], end + 2))
}

/// -1 stands for null.
fn length(text: &str) -> Result<Option<usize>, RespError> {
    match integer(text)? {
        -1 => Ok(None),
        length @ 0..=LONGEST => Ok(Some(usize::try_from(length).expect("at most 512 Mi"))),
        length => Err(RespError(format!("length {length}"))),
    }
}

fn integer(text: &str) -> Result<i64, RespError> {
    text.parse().map_err(|_| RespError(format!("number {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[u8] = b"+OK\r\n-ERR no\r\n:42\r\n$3\r\na\r\n\r\n$-1\r\n*2\r\n$0\r\n\r\n*-1\r\n";

    fn replies(mut bytes: &[u8]) -> Vec<Reply> {
        let mut list = Vec::new();
        while let Some((reply, used)) = parse(bytes).unwrap() {
            list.push(reply);
            bytes = &bytes[used..];
        }
        assert!(bytes.is_empty());
        list
    }

    #[test]
    fn every_kind_of_reply_is_read() {
        let expected = [
            Reply::Simple("OK".into()),
            Reply::Error("ERR no".into()),
            Reply::Integer(42),
            Reply::Bulk(Some(b"a\r\n".to_vec())),
            Reply::Bulk(None),
            Reply::Array(Some(vec![Reply::Bulk(Some(vec![])), Reply::Array(None)])),
        ];
        // "a\r\n" is three bytes long and contains the end of a line.
        assert_eq!(replies(ALL), expected);
    }

    #[test]
    fn a_reply_that_is_cut_waits_for_the_rest() {
        for reply in [&b"+OK\r\n"[..], b"$3\r\na\r\n\r\n", b"*2\r\n$1\r\nx\r\n:1\r\n"] {
            for end in 0..reply.len() {
                assert_eq!(parse(&reply[..end]), Ok(None), "cut at {end}");
            }
            assert_eq!(parse(reply).unwrap().unwrap().1, reply.len());
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let deep = b"*1\r\n".repeat(20);
        for bytes in
            [&b"hello\r\n"[..], b"\r\n", b":x\r\n", b"$-2\r\n", b"$999999999999\r\n", b"$1\r\nabc\r\n", &deep]
        {
            assert!(parse(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_command_is_an_array_of_values() {
        let mut out = Vec::new();
        encode(&[b"SET", b"k", b"\r\n"], &mut out);
        assert_eq!(out, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\n\r\n\r\n");
    }
}
