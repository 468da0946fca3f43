//! Records of a pax extended header: `LENGTH KEY=VALUE\n`, where the value may hold any byte, newlines too.

/// Prefix of the key under which an extended attribute is kept, as GNU tar, Go and libarchive write it.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// What one or more extended headers say about the entry that follows them. The last word on a key counts; an empty
/// value takes a key back.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) modified: Option<super::Moment>,
    pub(super) xattrs: super::Xattrs,
    /// The body is one of GNU tar's sparse formats, so `size` and `path` do not mean what they say.
    pub(super) sparse: bool,
}

impl Extended {
    /// Adds the records in `data`. `Err` names what is wrong with them.
    pub(super) fn read(&mut self, data: &[u8]) -> Result<(), &'static str> {
        let mut rest = data;
        while !rest.is_empty() {
            let (key, value, after) = record(rest).ok_or("malformed extended header")?;
            self.apply(key, value)?;
            rest = after;
        }
        Ok(())
    }

    fn apply(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let given = (!value.is_empty()).then_some(value);
        match key {
            b"path" => self.path = given.map(<[u8]>::to_vec),
            b"linkpath" => self.link = given.map(<[u8]>::to_vec),
            b"size" => self.size = given.map(number).transpose()?,
            b"uid" => self.uid = given.map(number).transpose()?,
            b"gid" => self.gid = given.map(number).transpose()?,
            b"mtime" => self.modified = given.map(moment).transpose()?,
            _ if key.starts_with(b"GNU.sparse.") => self.sparse = true,
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.xattrs.retain(|(known, _)| known != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// Key and value of the first record, and what follows it.
fn record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = data.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&data[..space]).ok()?.parse().ok()?;
    let body = data.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some((&body[..equals], &body[equals + 1..], &data[length..]))
}

fn number(value: &[u8]) -> Result<u64, &'static str> {
    let text = std::str::from_utf8(value).map_err(|_| "a number in an extended header is not one")?;
    text.parse().map_err(|_| "a number in an extended header is not one")
}

/// `12.5`, `-0.25`, `7`: decimal seconds with up to nine digits that count.
fn moment(value: &[u8]) -> Result<super::Moment, &'static str> {
    const WRONG: &str = "a time in an extended header is not one";
    let text = std::str::from_utf8(value).map_err(|_| WRONG)?;
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) || !whole.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Err(WRONG);
    }
    let seconds: i64 = whole.parse().map_err(|_| WRONG)?;
    let nanoseconds = fraction
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(9)
        .fold(0_u32, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    Ok(match (negative, nanoseconds) {
        (false, _) => super::Moment { seconds, nanoseconds },
        (true, 0) => super::Moment { seconds: -seconds, nanoseconds: 0 },
        // A quarter second before 1970 is second -1 and three quarters.
        (true, _) => super::Moment { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

/// Appends one record to `header`.
pub(super) fn append(header: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // The length counts its own digits: try until it agrees with itself.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    header.extend_from_slice(length.to_string().as_bytes());
    header.push(b' ');
    header.extend_from_slice(key);
    header.push(b'=');
    header.extend_from_slice(value);
    header.push(b'\n');
}

/// Appends an extended attribute to `header`.
pub(super) fn append_xattr(header: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    append(header, &[XATTR, name].concat(), value);
}

/// Appends a modification time to `header`.
pub(super) fn append_modified(header: &mut Vec<u8>, modified: super::Moment) {
    let super::Moment { seconds, nanoseconds } = modified;
    let text = match (seconds < 0, nanoseconds) {
        (_, 0) => seconds.to_string(),
        (false, _) => format!("{seconds}.{nanoseconds:09}"),
        (true, _) => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds),
    };
    append(header, b"mtime", text.as_bytes());
}
