//! Data to carry: random values, which no compression makes smaller.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ums_model::names::Bytes;

use super::client::Client;
use super::resp::Reply;
use super::verify::{Expected, Verified, verify};
use crate::dial::Dialer;
use crate::pattern::Random;

/// Values are at least this long, and at most [`LONGEST`].
const SHORTEST: u64 = 4 * 1024;
const LONGEST: u64 = 64 * 1024;
/// Values sent before their replies are read: about 1 MiB.
const WINDOW: u64 = 32;

/// Values that were put into Redis and must stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    seed: u64,
    values: u64,
    bytes: u64,
}

impl Fill {
    /// Puts random values into Redis until they are at least `size` together. Their keys follow from `seed`.
    pub fn put(dialer: &Dialer, size: Bytes, seed: u64, deadline: Duration) -> Result<Self> {
        let mut client = Client::connect(dialer, deadline).context("cannot fill Redis")?;
        let mut fill = Self { seed, values: 0, bytes: 0 };
        while fill.bytes < size.get() {
            let begin = fill.values;
            while fill.bytes < size.get() && fill.values < begin + WINDOW {
                let value = value(seed, fill.values);
                client.queue(&[b"SET", &key(seed, fill.values), &value]);
                fill.values += 1;
                fill.bytes += value.len() as u64;
            }
            client.flush().context("cannot fill Redis")?;
            for _ in begin..fill.values {
                let reply = client.next_reply().context("cannot fill Redis")?;
                ensure!(reply == Reply::Simple("OK".to_owned()), "a strange reply to SET: {reply:?}");
            }
        }
        Ok(fill)
    }

    /// How much was put, without keys and Redis' own bookkeeping.
    pub fn size(&self) -> Bytes {
        Bytes(self.bytes)
    }

    /// Reads everything back; see [`super::Load::verify`].
    pub fn verify(&self, dialer: &Dialer, deadline: Duration) -> Result<Verified> {
        let entry = |number| Expected {
            key: key(self.seed, number),
            value: value(self.seed, number),
            must_exist: true,
        };
        verify(dialer, (0..self.values).map(entry), deadline)
    }
}

fn key(seed: u64, number: u64) -> Vec<u8> {
    format!("f:{seed}:{number}").into_bytes()
}

fn value(seed: u64, number: u64) -> Vec<u8> {
    let mut random = Random::of(seed, number, 0);
    let length = SHORTEST + random.below(LONGEST - SHORTEST + 1);
    let mut value = vec![0; usize::try_from(length).expect("at most 64 KiB")];
    random.fill(&mut value);
    value
}
