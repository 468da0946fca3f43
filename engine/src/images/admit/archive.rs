//! What was in a tmpfs of a service's own, mostly its `/dev`: an archive that CRIU has unpacked by the `tar` of the host.
//!
//! It is read with the few kinds of entries that the `tar` at the source writes, checked, and packed anew.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

/// Largest content, in bytes: the size of a service's `/dev`.
const MAX_BYTES: u64 = 80 << 20;
const MAX_ENTRIES: usize = 100_000;
const MAX_PATH: usize = 4096;
const BLOCK: usize = 512;

/// Files, links, devices and directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Archive {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    kind: u8,
    path: String,
    link: String,
    mode: u64,
    owner: [u64; 2],
    time: u64,
    device: [u64; 2],
    content: Vec<u8>,
}

const FILE: u8 = b'0';
const HARD: u8 = b'1';
const SYMBOLIC: u8 = b'2';
const CHARACTER: u8 = b'3';
const DIRECTORY: u8 = b'5';
const FIFO: u8 = b'6';
/// Entries that hold the name or the target of the next one.
const LONG_LINK: u8 = b'K';
const LONG_PATH: u8 = b'L';

impl Archive {
    /// Reads a compressed archive to its end. The error is what is wrong with it.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut content = Vec::new();
        let unpacked = MultiGzDecoder::new(bytes).take(MAX_BYTES + 1).read_to_end(&mut content);
        unpacked.map_err(|error| format!("it cannot be unpacked: {error}"))?;
        if content.len() as u64 > MAX_BYTES {
            return Err(format!("it has more than {MAX_BYTES} bytes"));
        }
        parse(&content).map(|entries| Self { entries })
    }

    /// The same, packed by us.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        let written = self.entries.iter().try_for_each(|entry| packed.write_all(&entry.write()));
        let written = written.and_then(|()| packed.write_all(&[0; 2 * BLOCK])).and_then(|()| packed.finish());
        written.expect("writing to memory does not fail")
    }

    /// Whether a service may have all of it: `ids` owners, and files of these devices. The error is the path of what it
    /// may not have, and why.
    pub(super) fn check(&self, ids: u64, devices: &[(u32, u32)]) -> Result<(), (String, String)> {
        for entry in &self.entries {
            let refuse = |rule: &str| Err((entry.path.chars().take(200).collect(), rule.to_owned()));
            let inside = |path: &str| !path.split('/').any(|part| part == "..") && !path.starts_with('/');
            if !inside(&entry.path) || (entry.kind == HARD && !inside(&entry.link)) {
                return refuse("it leads out of its file system");
            }
            if entry.owner.iter().any(|id| *id >= ids) {
                return refuse("its owner is none of the ids of the service");
            }
            let listed = |(major, minor): &(u32, u32)| entry.device == [u64::from(*major), u64::from(*minor)];
            if entry.kind == CHARACTER && !devices.iter().any(listed) {
                return refuse("it is a device that the service does not have");
            }
        }
        Ok(())
    }
}

fn parse(mut bytes: &[u8]) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    let (mut path, mut link) = (None, None);
    loop {
        let (header, rest) = bytes.split_first_chunk::<BLOCK>().ok_or("it ends in the middle of a header")?;
        bytes = rest;
        if header.iter().all(|byte| *byte == 0) {
            return match path.is_none() && link.is_none() && bytes.iter().all(|byte| *byte == 0) {
                true => Ok(entries),
                false => Err("something stands behind its end".to_owned()),
            };
        }
        let summed: u64 = header
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) })
            .sum();
        if number(&header[148..156]) != Some(summed) {
            return Err("a header has the wrong sum".to_owned());
        }
        let field = |from: usize, to: usize| {
            number(&header[from..to]).ok_or_else(|| "a number is malformed".to_owned())
        };
        let kind = match header[156] {
            0 => FILE,
            kind => kind,
        };
        let size = match kind {
            FILE | LONG_LINK | LONG_PATH => {
                usize::try_from(field(124, 136)?).map_err(|_| "a size is malformed")?
            }
            HARD | SYMBOLIC | CHARACTER | DIRECTORY | FIFO => 0,
            b'4' => return Err("it has a device with blocks".to_owned()),
            b'S' => return Err("it has a file with holes, which UMS does not read".to_owned()),
            _ => return Err(format!("it has an entry of kind {}", char::from(kind).escape_default())),
        };
        let (content, rest) = size
            .checked_next_multiple_of(BLOCK)
            .and_then(|whole| bytes.split_at_checked(whole))
            .ok_or("it ends in the middle of a file")?;
        bytes = rest;
        let content = &content[..size];
        match kind {
            LONG_LINK => link = Some(name(content)?),
            LONG_PATH => path = Some(name(content)?),
            _ => entries.push(Entry {
                kind,
                path: match path.take() {
                    Some(path) => path,
                    None => name(&header[..100])?,
                },
                link: match link.take() {
                    Some(link) => link,
                    None => name(&header[157..257])?,
                },
                mode: field(100, 108)? & 0o7777,
                owner: [field(108, 116)?, field(116, 124)?],
                time: field(136, 148)?,
                device: if kind == CHARACTER { [field(329, 337)?, field(337, 345)?] } else { [0; 2] },
                content: content.to_vec(),
            }),
        }
        if entries.len() > MAX_ENTRIES {
            return Err(format!("it has more than {MAX_ENTRIES} entries"));
        }
    }
}

/// Octal digits, or eight bytes in binary as GNU writes what does not fit; empty is 0.
fn number(bytes: &[u8]) -> Option<u64> {
    if let Some((0x80, rest)) = bytes.split_first() {
        let add = |all: u64, byte: &u8| Some(all.checked_mul(256)? | u64::from(*byte));
        return rest.iter().try_fold(0, add);
    }
    let text = std::str::from_utf8(bytes).ok()?.trim_matches(|at| at == ' ' || at == '\0');
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

fn name(bytes: &[u8]) -> Result<String, String> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let name = std::str::from_utf8(&bytes[..end]).map_err(|_| "a name is no UTF-8")?;
    if name.len() > MAX_PATH { Err("a name is too long".to_owned()) } else { Ok(name.to_owned()) }
}

impl Entry {
    fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, text) in [(LONG_LINK, &self.link), (LONG_PATH, &self.path)] {
            if text.len() > 100 {
                let long = [text.as_bytes(), &[0]].concat();
                header(&mut bytes, kind, "././@LongLink", "", long.len() as u64, |_| {});
                pad(&mut bytes, &long);
            }
        }
        header(&mut bytes, self.kind, &self.path, &self.link, self.content.len() as u64, |header| {
            octal(&mut header[100..108], self.mode);
            octal(&mut header[108..116], self.owner[0]);
            octal(&mut header[116..124], self.owner[1]);
            octal(&mut header[136..148], self.time);
            octal(&mut header[329..337], self.device[0]);
            octal(&mut header[337..345], self.device[1]);
        });
        pad(&mut bytes, &self.content);
        bytes
    }
}

fn header(
    bytes: &mut Vec<u8>,
    kind: u8,
    path: &str,
    link: &str,
    size: u64,
    more: impl FnOnce(&mut [u8; BLOCK]),
) {
    let mut header = [0; BLOCK];
    let cut = |text: &str| text.as_bytes()[..text.len().min(100)].to_vec();
    let (path, link) = (cut(path), cut(link));
    header[..path.len()].copy_from_slice(&path);
    header[157..157 + link.len()].copy_from_slice(&link);
    octal(&mut header[124..136], size);
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar  \0");
    more(&mut header);
    header[148..156].fill(b' ');
    let sum = header.iter().map(|byte| u64::from(*byte)).sum();
    octal(&mut header[148..155], sum);
    bytes.extend_from_slice(&header);
}

fn pad(bytes: &mut Vec<u8>, content: &[u8]) {
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
}

/// As octal digits with a NUL behind them, or in binary where they do not fit.
fn octal(field: &mut [u8], number: u64) {
    let digits = field.len() - 1;
    let text = format!("{number:0digits$o}");
    if text.len() == digits {
        field[..digits].copy_from_slice(text.as_bytes());
        field[digits] = 0;
    } else {
        let bytes = number.to_be_bytes();
        field.fill(0);
        field[0] = 0x80;
        // Owners and devices end at 2^32, sizes and times have room for all.
        let width = digits.min(8);
        field[digits + 1 - width..].copy_from_slice(&bytes[8 - width..]);
    }
}

#[cfg(test)]
impl Archive {
    /// One with these paths, kinds, targets and devices.
    pub(super) fn forged(entries: &[(&str, u8, &str, [u64; 2])]) -> Self {
        let entries = entries.iter().map(|(path, kind, link, device)| Entry {
            kind: *kind,
            path: (*path).to_owned(),
            link: (*link).to_owned(),
            mode: 0o644,
            owner: [0; 2],
            time: 0,
            device: *device,
            content: Vec::new(),
        });
        Self { entries: entries.collect() }
    }
}
