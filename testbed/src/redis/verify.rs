//! Reading back, many keys at a time.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::client::Client;
use super::resp::Reply;
use crate::dial::Dialer;

/// Bytes of values asked for at once: enough to be fast, little enough for every buffer.
const BATCH_BYTES: usize = 1 << 20;
/// Keys asked for at once.
const BATCH_KEYS: usize = 1000;
/// Wrong keys that the error names.
const NAMED: usize = 5;

/// What was found. There is no field for what must not be: that is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verified {
    /// Keys that had to be there, and are, with the right value.
    pub present: u64,
    /// Keys of uncertain writes that are there, with the right value.
    pub uncertain_present: u64,
    /// Keys of uncertain writes that are not there.
    pub uncertain_absent: u64,
    /// Bytes of values compared.
    pub bytes: u64,
}

#[derive(Debug)]
pub(super) struct Expected {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    pub(super) must_exist: bool,
}

/// Compares every expected key. On `Err` Redis did not answer, or at least one key is missing or wrong.
pub(super) fn verify(
    dialer: &Dialer,
    expected: impl IntoIterator<Item = Expected>,
    deadline: Duration,
) -> Result<Verified> {
    let mut client = Client::connect(dialer, deadline).context("cannot read back")?;
    let mut tally = Tally::default();
    let mut batch = Vec::new();
    let mut bytes = 0;
    for entry in expected {
        bytes += entry.value.len();
        batch.push(entry);
        if bytes >= BATCH_BYTES || batch.len() >= BATCH_KEYS {
            compare(&mut client, &batch, &mut tally)?;
            batch.clear();
            bytes = 0;
        }
    }
    compare(&mut client, &batch, &mut tally)?;
    let Tally { verified, missing, wrong, names } = tally;
    if missing + wrong > 0 {
        bail!(
            "{missing} acknowledged writes are lost and {wrong} values are wrong (for example {}); {verified:?}",
            names.join(", ")
        );
    }
    Ok(verified)
}

#[derive(Default)]
struct Tally {
    verified: Verified,
    missing: u64,
    wrong: u64,
    names: Vec<String>,
}

fn compare(client: &mut Client, batch: &[Expected], tally: &mut Tally) -> Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    let mut words: Vec<&[u8]> = vec![b"MGET"];
    words.extend(batch.iter().map(|entry| entry.key.as_slice()));
    let Reply::Array(Some(values)) = client.call(&words).context("cannot read back")? else {
        bail!("a strange reply to MGET");
    };
    ensure!(values.len() == batch.len(), "{} values for {} keys", values.len(), batch.len());
    for (entry, value) in batch.iter().zip(values) {
        let Reply::Bulk(value) = value else { bail!("a strange value in the reply to MGET") };
        let verified = &mut tally.verified;
        match value {
            Some(value) if value == entry.value => {
                verified.bytes += value.len() as u64;
                *(if entry.must_exist { &mut verified.present } else { &mut verified.uncertain_present }) +=
                    1;
                continue;
            }
            None if !entry.must_exist => {
                verified.uncertain_absent += 1;
                continue;
            }
            None => tally.missing += 1,
            Some(_) => tally.wrong += 1,
        }
        if tally.names.len() < NAMED {
            tally.names.push(String::from_utf8_lossy(&entry.key).into_owned());
        }
    }
    Ok(())
}
