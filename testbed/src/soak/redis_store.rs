//! Redis: registers are keys, collections are lists.

use std::time::Duration;

use super::collection::Order;
use super::history::{Key, Value};
use super::store::{Answer, Store, Trouble};
use crate::dial::Dialer;
use crate::redis::{Client, Reply, greet};

/// A connection.
#[derive(Debug)]
pub(super) struct RedisStore {
    client: Client,
    patience: Duration,
}

impl RedisStore {
    fn call(&mut self, words: &[&[u8]]) -> Answer<Reply> {
        match self.client.call_within(words, self.patience) {
            Ok(Reply::Error(error)) => Err(Trouble::Refused(error)),
            Ok(reply) => Ok(reply),
            Err(error) => Err(Trouble::Lost(error.to_string())),
        }
    }
}

impl Store for RedisStore {
    const ORDER: Order = Order::Kept;

    fn connect(dialer: &Dialer, patience: Duration) -> Option<Self> {
        let (_, stream) = dialer.try_once(0, greet)?;
        Some(Self { client: Client::over(stream), patience })
    }

    fn prepare(&mut self) -> Answer<()> {
        Ok(())
    }

    fn identity(&mut self) -> Answer<String> {
        let info = match self.call(&[b"INFO", b"server"])? {
            Reply::Bulk(Some(info)) => String::from_utf8_lossy(&info).into_owned(),
            other => return Err(strange("INFO", &other)),
        };
        let id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
        id.map(str::to_owned).ok_or_else(|| Trouble::Wrong("INFO names no run_id".to_owned()))
    }

    fn write(&mut self, key: Key, value: Value) -> Answer<()> {
        match self.call(&[b"SET", &name("r", key), value.0.to_string().as_bytes()])? {
            Reply::Simple(word) if word == "OK" => Ok(()),
            other => Err(strange("SET", &other)),
        }
    }

    fn read(&mut self, key: Key) -> Answer<Option<Value>> {
        match self.call(&[b"GET", &name("r", key)])? {
            Reply::Bulk(None) => Ok(None),
            other => number(&other).map(Some).ok_or_else(|| strange("GET", &other)),
        }
    }

    fn append(&mut self, key: Key, value: Value) -> Answer<Option<u64>> {
        match self.call(&[b"RPUSH", &name("l", key), value.0.to_string().as_bytes()])? {
            Reply::Integer(length) => Ok(u64::try_from(length).ok()),
            other => Err(strange("RPUSH", &other)),
        }
    }

    fn read_all(&mut self, key: Key) -> Answer<Vec<Value>> {
        match self.call(&[b"LRANGE", &name("l", key), b"0", b"-1"])? {
            Reply::Array(Some(list)) => {
                list.iter().map(|reply| number(reply).ok_or_else(|| strange("LRANGE", reply))).collect()
            }
            other => Err(strange("LRANGE", &other)),
        }
    }

    fn audit(&mut self) -> Answer<()> {
        Ok(())
    }
}

fn name(kind: &str, key: Key) -> Vec<u8> {
    format!("{kind}:{}", key.0).into_bytes()
}

fn number(reply: &Reply) -> Option<Value> {
    match reply {
        Reply::Bulk(Some(text)) => std::str::from_utf8(text).ok()?.parse().ok().map(Value),
        _ => None,
    }
}

fn strange(command: &str, reply: &Reply) -> Trouble {
    Trouble::Wrong(format!("a strange answer to {command}: {reply:?}"))
}
