//! PostgreSQL: registers are rows, collections are sets of rows. Each row of a collection is a transfer of money, made in
//! one transaction with the change of two accounts, so that a transaction of which a part was lost or done twice shows.

use std::time::Duration;

use super::collection::Order;
use super::history::{Key, Value};
use super::store::{Answer, Store, Trouble};
use crate::dial::Dialer;
use crate::postgres::{Client, QueryError, Row};

/// How long a server may take to welcome a client: one that was stopped takes connections and says nothing.
const GREETING: Duration = Duration::from_secs(1);
const ACCOUNTS: u64 = 8;
const DEPOSIT: u64 = 1000;

const TABLES: &str = "
    CREATE TABLE register (key bigint PRIMARY KEY, value bigint NOT NULL);
    CREATE TABLE account (id bigint PRIMARY KEY, balance bigint NOT NULL);
    CREATE TABLE transfer (value bigint PRIMARY KEY, key bigint NOT NULL, payer bigint NOT NULL,
        payee bigint NOT NULL, amount bigint NOT NULL);
    CREATE INDEX ON transfer (key);";

/// A connection.
#[derive(Debug)]
pub(super) struct PostgresStore {
    client: Client,
    patience: Duration,
}

impl PostgresStore {
    fn query(&mut self, text: &str) -> Answer<Vec<Row>> {
        self.client.query(text, self.patience).map_err(|error| match error {
            QueryError::Refused { code, message } => Trouble::Refused(format!("{message} ({code})")),
            QueryError::Lost(why) => Trouble::Lost(why),
        })
    }

    fn numbers(&mut self, text: &str) -> Answer<Vec<u64>> {
        let rows = self.query(text)?;
        let number = |row: &Row| row.first()?.as_deref()?.parse().ok();
        let all = rows.iter().map(|row| number(row).ok_or_else(|| strange(text, row)));
        all.collect()
    }
}

impl Store for PostgresStore {
    const ORDER: Order = Order::None;

    fn connect(dialer: &Dialer, patience: Duration) -> Option<Self> {
        let client = Client::try_once(dialer, "postgres", "", patience.min(GREETING))?;
        Some(Self { client, patience })
    }

    fn prepare(&mut self) -> Answer<()> {
        let accounts = format!(
            "{TABLES} INSERT INTO account SELECT id, {DEPOSIT} FROM generate_series(0, {ACCOUNTS} - 1) AS id"
        );
        self.query(&accounts).map(drop)
    }

    fn identity(&mut self) -> Answer<String> {
        let rows = self.query("SELECT pg_postmaster_start_time()")?;
        let text = rows.into_iter().flatten().flatten().next();
        text.ok_or_else(|| Trouble::Wrong("the server does not say when it was started".to_owned()))
    }

    fn write(&mut self, key: Key, value: Value) -> Answer<()> {
        let (Key(key), Value(value)) = (key, value);
        self.query(&format!(
            "INSERT INTO register VALUES ({key}, {value}) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
        ))
        .map(drop)
    }

    fn read(&mut self, key: Key) -> Answer<Option<Value>> {
        let found = self.numbers(&format!("SELECT value FROM register WHERE key = {}", key.0))?;
        Ok(found.first().copied().map(Value))
    }

    fn append(&mut self, key: Key, value: Value) -> Answer<Option<u64>> {
        let (Key(key), Value(value)) = (key, value);
        // All follows from the value; two accounts that are never the same, changed in one order so that nobody waits
        // for somebody who waits for him.
        let payer = value % ACCOUNTS;
        let payee = (payer + 1 + value / ACCOUNTS % (ACCOUNTS - 1)) % ACCOUNTS;
        let amount = 1 + value % 50;
        let change = |account: u64| {
            let sign = if account == payer { '-' } else { '+' };
            format!("UPDATE account SET balance = balance {sign} {amount} WHERE id = {account}")
        };
        let insert = format!("INSERT INTO transfer VALUES ({value}, {key}, {payer}, {payee}, {amount})");
        let statements = [
            "BEGIN".to_owned(),
            change(payer.min(payee)),
            change(payer.max(payee)),
            insert,
            "COMMIT".to_owned(),
        ];
        // Half of them one by one, so that a migration finds open transactions.
        let joined = statements.join("; ");
        let texts = if value % 2 == 0 {
            vec![joined.as_str()]
        } else {
            statements.iter().map(String::as_str).collect()
        };
        for text in texts {
            if let Err(trouble) = self.query(text) {
                if matches!(trouble, Trouble::Refused(_)) {
                    self.query("ROLLBACK")?;
                }
                return Err(trouble);
            }
        }
        Ok(None)
    }

    fn read_all(&mut self, key: Key) -> Answer<Vec<Value>> {
        let sums = self.query("SELECT sum(balance), count(*) FROM account")?;
        let expected = [(ACCOUNTS * DEPOSIT).to_string(), ACCOUNTS.to_string()].map(Some);
        if sums.first().map(Vec::as_slice) != Some(&expected) {
            return Err(Trouble::Wrong(format!("money and accounts were {sums:?} instead of {expected:?}")));
        }
        let values = self.numbers(&format!("SELECT value FROM transfer WHERE key = {}", key.0))?;
        Ok(values.into_iter().map(Value).collect())
    }

    fn audit(&mut self) -> Answer<()> {
        let wrong = self.query(&format!(
            "SELECT id, balance, due FROM (SELECT id, balance, {DEPOSIT}
                - coalesce((SELECT sum(amount) FROM transfer WHERE payer = id), 0)
                + coalesce((SELECT sum(amount) FROM transfer WHERE payee = id), 0) AS due FROM account) AS all_of_them
             WHERE balance <> due"
        ))?;
        match wrong.is_empty() {
            true => Ok(()),
            false => {
                Err(Trouble::Wrong(format!("accounts (id, balance, balance by all transfers): {wrong:?}")))
            }
        }
    }
}

fn strange(query: &str, row: &Row) -> Trouble {
    Trouble::Wrong(format!("a strange answer to {query}: {row:?}"))
}
