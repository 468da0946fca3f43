//! Changes a few options of a restore request and leaves everything else as it is, byte for byte: also what a newer
//! runc sends that is not known here.

use prost::DecodeError;
use prost::bytes::Buf;
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, int32, skip_field,
};

use crate::criu::rpc::NetworkLock;

/// Field of a request with its options.
const OPTIONS: u32 = 2;
/// Fields of the options.
const IMAGES: u32 = 1;
const WORK: u32 = 17;
const CONFIG_FILE: u32 = 51;
const NETWORK_LOCK: u32 = 64;

/// The request that CRIU gets instead of runc's.
///
/// * The directories are those of the caller: CRIU looks numbers up in the process that made its socket, and that
///   is the proxy now.
/// * No network lock: the fence is not CRIU's business, and its rules would have to be removed.
/// * No configuration file: one on the host could change what a restore does.
pub(super) fn restore_request(request: &[u8], images: i32, work: i32) -> Result<Vec<u8>, DecodeError> {
    let mut rewritten = Vec::with_capacity(request.len() + 32);
    let mut options = Vec::new();
    for field in fields(request)? {
        match field.number {
            // More than one would be merged by the receiver, which is the same as one after the other.
            OPTIONS => options.extend_from_slice(field.content),
            _ => rewritten.extend_from_slice(field.whole),
        }
    }
    let mut own = Vec::with_capacity(options.len() + 32);
    int32::encode(IMAGES, &images, &mut own);
    for field in fields(&options)? {
        if ![IMAGES, WORK, CONFIG_FILE, NETWORK_LOCK].contains(&field.number) {
            own.extend_from_slice(field.whole);
        }
    }
    int32::encode(WORK, &work, &mut own);
    int32::encode(NETWORK_LOCK, &(NetworkLock::Skip as i32), &mut own);

    encode_key(OPTIONS, WireType::LengthDelimited, &mut rewritten);
    encode_varint(own.len() as u64, &mut rewritten);
    rewritten.extend_from_slice(&own);
    Ok(rewritten)
}

struct Field<'a> {
    number: u32,
    /// With its key.
    whole: &'a [u8],
    /// For nested messages, strings and the like; empty for others.
    content: &'a [u8],
}

fn fields(message: &[u8]) -> Result<Vec<Field<'_>>, DecodeError> {
    let mut rest = message;
    let mut fields = Vec::new();
    while rest.has_remaining() {
        let start = rest;
        let (number, kind) = decode_key(&mut rest)?;
        let value = rest;
        skip_field(kind, number, &mut rest, DecodeContext::default())?;
        let content = match kind {
            WireType::LengthDelimited => {
                let mut value = &value[..value.len() - rest.len()];
                decode_varint(&mut value)?;
                value
            }
            _ => &[],
        };
        fields.push(Field { number, whole: &start[..start.len() - rest.len()], content });
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::criu::rpc::{Kind, Options, Request};

    #[test]
    fn only_the_four_options_change() {
        let options = Options {
            images_dir_fd: 7,
            work_dir_fd: Some(9),
            root: Some("/run/x/criu-root".to_owned()),
            config_file: Some("/etc/criu/runc.conf".to_owned()),
            external: vec!["net[1]:x".to_owned(), "mnt[2]:y".to_owned()],
            ..Options::default()
        };
        let request =
            Request { kind: Kind::Restore as i32, opts: Some(options.clone()), notify_success: None };
        let mut bytes = request.encode_to_vec();
        // A field of a future version, both in the request and in its options.
        int32::encode(900, &1, &mut bytes);
        let mut unknown = Vec::new();
        int32::encode(901, &2, &mut unknown);
        encode_key(OPTIONS, WireType::LengthDelimited, &mut bytes);
        encode_varint(unknown.len() as u64, &mut bytes);
        bytes.extend_from_slice(&unknown);

        let rewritten = restore_request(&bytes, 20, 21).unwrap();
        let expected = Options {
            images_dir_fd: 20,
            work_dir_fd: Some(21),
            config_file: None,
            network_lock: Some(NetworkLock::Skip as i32),
            ..options
        };
        assert_eq!(Request::decode(&rewritten[..]).unwrap().opts, Some(expected));
        let number = |bytes: &[u8], number| fields(bytes).unwrap().iter().any(|field| field.number == number);
        assert!(number(&rewritten, 900));
        let inner = fields(&rewritten).unwrap().into_iter().find(|field| field.number == OPTIONS).unwrap();
        assert!(number(inner.content, 901));
    }

    #[test]
    fn a_cut_request_is_refused() {
        let options = Options { root: Some("/root".to_owned()), ..Options::default() };
        let request = Request { kind: Kind::Restore as i32, opts: Some(options), notify_success: None };
        let bytes = request.encode_to_vec();
        for length in 3..bytes.len() {
            assert!(restore_request(&bytes[..length], 1, 2).is_err(), "cut after {length} bytes");
        }
    }
}
