//! Load on MariaDB: short transactions in several sessions at once, which the server does by itself.

use std::thread;

use testkit::mariadb::Server;

use crate::host::{Host, unsynced};
use crate::section::grouped;
use crate::{Bench, sbtest};

pub(crate) const DATABASE: &str = "stream";

const SESSIONS: u64 = 8;
/// pgbench's: branches, with their tellers and accounts.
const SCALE: u64 = 20;
const TELLERS: u64 = 10;
const ACCOUNTS: u64 = 100_000;
const SBTEST_ROWS: u64 = 1_000_000;

/// A stream of so many transactions a round, each of them four changes.
#[derive(Clone, Copy)]
pub(crate) struct Oltp {
    mix: Mix,
    transactions: u64,
}

#[derive(Clone, Copy)]
enum Mix {
    /// As pgbench has it: the few branches and tellers are changed all the time.
    Tpcb,
    /// As sysbench's `oltp_write_only`: every row is as likely as any other.
    Sbtest,
}

impl Oltp {
    pub(crate) fn tpcb(transactions: u64) -> Oltp {
        Oltp { mix: Mix::Tpcb, transactions }
    }

    pub(crate) fn sbtest(transactions: u64) -> Oltp {
        Oltp { mix: Mix::Sbtest, transactions }
    }

    /// Creates the tables.
    pub(crate) fn prepare<T: Host>(self, bench: &Bench<Server, T>) {
        bench.pair.source.create_database(DATABASE);
        let statements = match self.mix {
            Mix::Tpcb => tpcb_tables(bench.scaled(SCALE)),
            Mix::Sbtest => {
                let [create, fill] = sbtest::table("sbtest", bench.scaled(SBTEST_ROWS));
                vec![create, fill, "ALTER TABLE sbtest ADD KEY k (k)".into()]
            }
        };
        bench.make(DATABASE, &statements.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// So many transactions, as fast as they come: nobody measures whether they wait for the disk.
    pub(crate) fn record<T: Host>(self, bench: &Bench<Server, T>) {
        let source = &bench.pair.source;
        unsynced(source, || {
            thread::scope(|scope| {
                for session in 0..SESSIONS {
                    let sql = self.sql(bench, session);
                    scope.spawn(move || source.run(DATABASE, &[&sql]));
                }
            });
        });
    }

    /// Of one round.
    pub(crate) fn changes<T: Host>(self, bench: &Bench<Server, T>) -> u64 {
        4 * SESSIONS * self.each(bench)
    }

    /// The transactions of one session.
    fn each<T: Host>(self, bench: &Bench<Server, T>) -> u64 {
        bench.scaled(self.transactions / SESSIONS)
    }

    pub(crate) fn what<T: Host>(self, bench: &Bench<Server, T>) -> String {
        let transactions = grouped(SESSIONS * self.each(bench));
        match self.mix {
            Mix::Tpcb => format!("TPC-B at scale {SCALE}: {transactions} transactions of 4 changes"),
            Mix::Sbtest => format!(
                "sysbench's oltp_write_only on a table of {} rows: {transactions} transactions of two updates, a delete \
                 and an insert",
                grouped(bench.scaled(SBTEST_ROWS))
            ),
        }
    }

    /// What [`Oltp::record`] runs, for the page.
    pub(crate) fn command<T: Host>(self, bench: &Bench<Server, T>) -> String {
        format!(
            "# in {SESSIONS} sessions at once\nmariadb $FROM --delimiter=// {DATABASE} <<< '{}'",
            self.sql(bench, 0)
        )
    }

    /// What one session does. The rows' order within a transaction, or the session's own part of them, keeps the sessions
    /// from waiting for each other in a circle.
    fn sql<T: Host>(self, bench: &Bench<Server, T>, session: u64) -> String {
        let transactions = self.each(bench);
        match self.mix {
            Mix::Tpcb => {
                let branches = bench.scaled(SCALE);
                format!(
                    "FOR i IN 1..{transactions} DO
  SET @account = 1 + FLOOR(RAND() * {accounts}), @teller = 1 + FLOOR(RAND() * {tellers}),
      @branch = 1 + FLOOR(RAND() * {branches}), @delta = FLOOR(RAND() * 10001) - 5000;
  START TRANSACTION;
  UPDATE accounts SET balance = balance + @delta WHERE id = @account;
  UPDATE tellers SET balance = balance + @delta WHERE id = @teller;
  UPDATE branches SET balance = balance + @delta WHERE id = @branch;
  INSERT INTO history (teller, branch, account, delta) VALUES (@teller, @branch, @account, @delta);
  COMMIT;
END FOR",
                    accounts = branches * ACCOUNTS,
                    tellers = branches * TELLERS,
                )
            }
            Mix::Sbtest => {
                let part = (bench.scaled(SBTEST_ROWS) / SESSIONS).max(1);
                let id = format!("{} + FLOOR(RAND() * {part})", 1 + session * part);
                format!(
                    "FOR i IN 1..{transactions} DO
  SET @indexed = {id}, @plain = {id}, @gone = {id};
  START TRANSACTION;
  UPDATE sbtest SET k = k + 1 WHERE id = @indexed;
  UPDATE sbtest SET c = LEFT(SHA2(RAND(), 512), 120) WHERE id = @plain;
  DELETE FROM sbtest WHERE id = @gone;
  INSERT INTO sbtest (id, k, c, pad)
    VALUES (@gone, 1 + FLOOR(RAND() * 1000000), LEFT(SHA2(RAND(), 512), 120), LEFT(SHA2(RAND(), 256), 60));
  COMMIT;
END FOR"
                )
            }
        }
    }
}

/// As pgbench creates them, but that the history has a key.
fn tpcb_tables(scale: u64) -> Vec<String> {
    let balances = |table: &str, rows: u64, each: u64| {
        [
            format!(
                "CREATE TABLE {table} (id INT PRIMARY KEY, branch INT NOT NULL, balance INT NOT NULL,
                                       filler CHAR(84) NOT NULL DEFAULT '')"
            ),
            format!(
                "INSERT INTO {table} (id, branch, balance) SELECT seq, 1 + (seq - 1) DIV {each}, 0 FROM seq_1_to_{rows}"
            ),
        ]
    };
    let history = "CREATE TABLE history (id BIGINT AUTO_INCREMENT PRIMARY KEY, teller INT, branch INT, account INT,
                                         delta INT, at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, filler CHAR(22))";
    [
        balances("branches", scale, 1),
        balances("tellers", scale * TELLERS, TELLERS),
        balances("accounts", scale * ACCOUNTS, ACCOUNTS),
    ]
    .into_iter()
    .flatten()
    .chain([history.to_owned()])
    .collect()
}
