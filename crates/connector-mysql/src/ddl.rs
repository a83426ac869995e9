//! What the text of a logged statement means for the stream.
//!
//! Rows come as row events; what comes as text begins or ends a transaction, changes a definition, or was written by a
//! session that logs statements. The text is split into tokens as the server does it (quotes, comments, `sql_mode`), and
//! only as much of it is understood as is needed to say which tables it touches.
//!
//! Promises: no bytes make it panic; what is not recognised is [`Statement::Unknown`], never harmless. Nothing here knows
//! which tables are ours: names are given as they are written, and the caller compares them as the server would
//! (`lower_case_table_names`).

use std::borrow::Cow;

use bytes::Bytes;
use model::TableName;

use crate::event::{Query, Xid};
use crate::family::Family;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    Begin,
    Commit,
    /// The rows of this transaction are undone.
    Rollback,
    /// Begins or forgets a part of a transaction.
    Savepoint,
    /// The rows since a savepoint are undone, and are in the log all the same.
    RollbackToSavepoint,
    Xa(XaStep, Xid),
    Truncate(TableName),
    /// Creates, changes, renames or drops these tables or their indexes. Old and new names are here.
    Definition {
        what: &'static str,
        tables: Vec<TableName>,
    },
    DropDatabase(String),
    /// Changes rows, which are not told. `table` is where they are written, if that is one table for sure; triggers, foreign
    /// keys and functions may write to others.
    Rows {
        what: &'static str,
        table: Option<TableName>,
    },
    /// Touches no table's rows and no table's definition, or those of temporary tables only.
    Harmless,
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum XaStep {
    Start,
    End,
    Prepare,
    Commit,
    Rollback,
}

/// The bits of `sql_mode` that change where a token ends.
const ANSI_QUOTES: u64 = 1 << 2;
const NO_BACKSLASH_ESCAPES: u64 = 1 << 20;

/// No statement that people write names so many; hostile bytes could.
const TABLES_MAX: usize = 1 << 16;

/// With CREATE, ALTER and DROP: what holds no rows, and the words in front of views, triggers and routines.
const WITHOUT_ROWS: &[&str] = &[
    "AGGREGATE",
    "ALGORITHM",
    "DEFINER",
    "EVENT",
    "FUNCTION",
    "INSTANCE",
    "JSON",
    "LIBRARY",
    "LOGFILE",
    "PACKAGE",
    "PREPARE",
    "PROCEDURE",
    "REFERENCE",
    "RESOURCE",
    "ROLE",
    "SEQUENCE",
    "SERVER",
    "SQL",
    "TABLESPACE",
    "TRIGGER",
    "UNDO",
    "USER",
    "VIEW",
];

pub(crate) fn recognise(query: &Query, family: Family) -> Statement {
    if is_ambiguous(query) {
        return Statement::Unknown;
    }
    let mut parser = Parser { tokens: Tokens::new(query, family), peeked: None, schema: &query.schema };
    parser.statement().unwrap_or(Statement::Unknown)
}

/// In these character sets the second byte of a character can look like a quote or a backslash: big5, sjis, gbk, cp932 and
/// gb18030, by the numbers of their collations.
fn is_ambiguous(query: &Query) -> bool {
    /// MariaDB numbers the collations without padding so much higher than those with it.
    const NOPAD: u16 = 1024;
    let unsafe_charset = match query.client_collation {
        None => true,
        Some(id) => {
            let padded = if (NOPAD..2 * NOPAD).contains(&id) { id - NOPAD } else { id };
            matches!(padded, 1 | 84 | 13 | 88 | 28 | 87 | 95 | 96 | 248..=250)
        }
    };
    unsafe_charset && !query.sql.is_ascii()
}

/// Reads one statement; `None` is one that is not understood.
struct Parser<'a> {
    tokens: Tokens<'a>,
    peeked: Option<Token<'a>>,
    schema: &'a str,
}

impl Parser<'_> {
    fn statement(&mut self) -> Option<Statement> {
        let mut first = self.word()?;
        // MariaDB: settings for one statement, which follows.
        while first == "SET" && self.keyword("STATEMENT") {
            self.past("FOR")?;
            first = self.word()?;
        }
        match first.as_str() {
            "BEGIN" => {
                self.skip(&["WORK"]);
                self.end(Statement::Begin)
            }
            "START" => self.keyword("TRANSACTION").then_some(Statement::Begin),
            "COMMIT" => {
                self.skip(&["WORK"]);
                self.end(Statement::Commit)
            }
            "ROLLBACK" => {
                self.skip(&["WORK"]);
                if self.keyword("TO") {
                    return Some(Statement::RollbackToSavepoint);
                }
                self.end(Statement::Rollback)
            }
            "SAVEPOINT" | "RELEASE" => Some(Statement::Savepoint),
            "XA" => self.xa(),
            "TRUNCATE" => {
                self.skip(&["TABLE"]);
                self.table().map(Statement::Truncate)
            }
            "CREATE" => self.create(),
            "ALTER" => self.alter(),
            "DROP" => self.drop(),
            "RENAME" => self.rename(),
            "INSERT" => self.insert("INSERT"),
            "REPLACE" => self.insert("REPLACE"),
            "UPDATE" => Some(Statement::Rows { what: "UPDATE", table: self.updated() }),
            "DELETE" => Some(Statement::Rows { what: "DELETE", table: self.deleted() }),
            "LOAD" => self.load(),
            // Functions and procedures that write: which tables, their text does not tell.
            "SELECT" => Some(Statement::Rows { what: "SELECT", table: None }),
            "WITH" => Some(Statement::Rows { what: "WITH", table: None }),
            "CALL" => Some(Statement::Rows { what: "CALL", table: None }),
            "DO" => Some(Statement::Rows { what: "DO", table: None }),
            "ANALYZE" | "OPTIMIZE" | "REPAIR" => {
                self.skip(&["NO_WRITE_TO_BINLOG", "LOCAL"]);
                // ANALYZE in front of another statement runs it.
                (self.keyword("TABLE") || self.keyword("TABLES")).then_some(Statement::Harmless)
            }
            "SET" | "GRANT" | "REVOKE" | "FLUSH" | "INSTALL" | "UNINSTALL" => Some(Statement::Harmless),
            _ => None,
        }
    }

    fn create(&mut self) -> Option<Statement> {
        let mut temporary = false;
        loop {
            match self.word()?.as_str() {
                "OR" | "REPLACE" | "ONLINE" | "OFFLINE" | "UNIQUE" | "FULLTEXT" | "SPATIAL" | "VECTOR" => {}
                "TEMPORARY" => temporary = true,
                "TABLE" => {
                    self.skip(&["IF", "NOT", "EXISTS"]);
                    let tables = vec![self.table()?];
                    let created = Statement::Definition { what: "CREATE TABLE", tables };
                    return Some(if temporary { Statement::Harmless } else { created });
                }
                "INDEX" => return self.index("CREATE INDEX"),
                "DATABASE" | "SCHEMA" => return Some(Statement::Harmless),
                object => return WITHOUT_ROWS.contains(&object).then_some(Statement::Harmless),
            }
        }
    }

    fn alter(&mut self) -> Option<Statement> {
        loop {
            match self.word()?.as_str() {
                "ONLINE" | "OFFLINE" | "IGNORE" => {}
                "TABLE" => return self.alter_table(),
                "DATABASE" | "SCHEMA" => return Some(Statement::Harmless),
                object => return WITHOUT_ROWS.contains(&object).then_some(Statement::Harmless),
            }
        }
    }

    /// Also finds the other tables: the new name, and those that partitions are exchanged with or made of.
    fn alter_table(&mut self) -> Option<Statement> {
        self.skip(&["IF", "EXISTS"]);
        let mut tables = vec![self.table()?];
        loop {
            match self.next() {
                Token::End => return Some(Statement::Definition { what: "ALTER TABLE", tables }),
                Token::Broken => return None,
                Token::Word(word) if word.eq_ignore_ascii_case(b"RENAME") => {
                    let is_part = ["COLUMN", "INDEX", "KEY"].iter().any(|part| self.keyword(part));
                    if is_part {
                        continue;
                    }
                    self.skip(&["TO", "AS"]);
                    self.symbol(b'=');
                    tables.push(self.table()?);
                }
                Token::Word(word) if word.eq_ignore_ascii_case(b"TABLE") => tables.push(self.table()?),
                _ => {}
            }
            bounded(&tables)?;
        }
    }

    fn drop(&mut self) -> Option<Statement> {
        loop {
            match self.word()?.as_str() {
                "ONLINE" | "OFFLINE" => {}
                "TEMPORARY" => return Some(Statement::Harmless),
                "TABLE" | "TABLES" => {
                    self.skip(&["IF", "EXISTS"]);
                    let mut tables = vec![self.table()?];
                    while self.symbol(b',') {
                        tables.push(self.table()?);
                        bounded(&tables)?;
                    }
                    return Some(Statement::Definition { what: "DROP TABLE", tables });
                }
                "INDEX" => return self.index("DROP INDEX"),
                "DATABASE" | "SCHEMA" => {
                    self.skip(&["IF", "EXISTS"]);
                    return self.name().map(Statement::DropDatabase);
                }
                object => return WITHOUT_ROWS.contains(&object).then_some(Statement::Harmless),
            }
        }
    }

    fn rename(&mut self) -> Option<Statement> {
        match self.word()?.as_str() {
            "USER" => return Some(Statement::Harmless),
            "TABLE" | "TABLES" => {}
            _ => return None,
        }
        self.skip(&["IF", "EXISTS"]);
        let mut tables = Vec::new();
        loop {
            tables.push(self.table()?);
            // MariaDB: how long to wait for the lock.
            if self.keyword("WAIT") {
                self.word()?;
            }
            self.skip(&["NOWAIT"]);
            if !self.keyword("TO") {
                return None;
            }
            tables.push(self.table()?);
            bounded(&tables)?;
            if !self.symbol(b',') {
                return Some(Statement::Definition { what: "RENAME TABLE", tables });
            }
        }
    }

    fn index(&mut self, what: &'static str) -> Option<Statement> {
        self.past("ON")?;
        Some(Statement::Definition { what, tables: vec![self.table()?] })
    }

    fn insert(&mut self, what: &'static str) -> Option<Statement> {
        self.skip(&["LOW_PRIORITY", "DELAYED", "HIGH_PRIORITY", "IGNORE", "INTO"]);
        Some(Statement::Rows { what, table: Some(self.table()?) })
    }

    fn load(&mut self) -> Option<Statement> {
        if self.keyword("INDEX") {
            return Some(Statement::Harmless);
        }
        self.past("INTO")?;
        if !self.keyword("TABLE") {
            return None;
        }
        Some(Statement::Rows { what: "LOAD", table: Some(self.table()?) })
    }

    /// The table of an UPDATE of one table.
    fn updated(&mut self) -> Option<TableName> {
        self.skip(&["LOW_PRIORITY", "IGNORE"]);
        let table = self.table()?;
        if self.keyword("SET") {
            return Some(table);
        }
        self.skip(&["AS"]);
        self.name()?;
        self.keyword("SET").then_some(table)
    }

    /// The table of a DELETE from one table.
    fn deleted(&mut self) -> Option<TableName> {
        self.skip(&["LOW_PRIORITY", "QUICK", "IGNORE", "HISTORY"]);
        if !self.keyword("FROM") {
            return None;
        }
        let table = self.table()?;
        let goes_on = ["WHERE", "ORDER", "LIMIT", "RETURNING"].iter().any(|word| self.keyword(word));
        if goes_on { Some(table) } else { self.end(table) }
    }

    /// `XA COMMIT X'67',X'62',1`, the only form in which both servers log it.
    fn xa(&mut self) -> Option<Statement> {
        let step = match self.word()?.as_str() {
            "START" | "BEGIN" => XaStep::Start,
            "END" => XaStep::End,
            "PREPARE" => XaStep::Prepare,
            "COMMIT" => XaStep::Commit,
            "ROLLBACK" => XaStep::Rollback,
            _ => return None,
        };
        let global = self.hexadecimal()?;
        let branch = if self.symbol(b',') { self.hexadecimal()? } else { return None };
        let format = if self.symbol(b',') { self.word()?.parse().ok()? } else { return None };
        self.end(Statement::Xa(step, Xid { format, global, branch }))
    }

    fn hexadecimal(&mut self) -> Option<Bytes> {
        if !self.keyword("X") {
            return None;
        }
        let Token::Text(digits) = self.next() else { return None };
        let (pairs, []) = digits.as_chunks::<2>() else { return None };
        pairs
            .iter()
            .map(|[high, low]| {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()
            })
            .collect()
    }

    /// A table's name with its schema, or in the session's.
    fn table(&mut self) -> Option<TableName> {
        let first = self.name()?;
        if self.symbol(b'.') {
            return Some(TableName::new(first, self.name()?));
        }
        if self.schema.is_empty() { None } else { Some(TableName::new(self.schema, first)) }
    }

    fn name(&mut self) -> Option<String> {
        match self.next() {
            Token::Word(word) => Some(lossy(word).into_owned()),
            Token::Name(name) => Some(name),
            _ => None,
        }
    }

    /// A word that is not quoted, in capitals.
    fn word(&mut self) -> Option<String> {
        match self.next() {
            Token::Word(word) => Some(lossy(word).to_ascii_uppercase()),
            _ => None,
        }
    }

    /// Takes the next token if it is this word.
    fn keyword(&mut self, keyword: &str) -> bool {
        let found = matches!(self.peek(), Token::Word(word) if word.eq_ignore_ascii_case(keyword.as_bytes()));
        self.take_if(found)
    }

    fn symbol(&mut self, symbol: u8) -> bool {
        let found = *self.peek() == Token::Symbol(symbol);
        self.take_if(found)
    }

    fn take_if(&mut self, found: bool) -> bool {
        if found {
            self.peeked = None;
        }
        found
    }

    /// Takes as many of these words as follow each other.
    fn skip(&mut self, keywords: &[&str]) {
        while keywords.iter().any(|keyword| self.keyword(keyword)) {}
    }

    /// Takes all up to this word and the word itself.
    fn past(&mut self, keyword: &str) -> Option<()> {
        loop {
            match self.next() {
                Token::Word(word) if word.eq_ignore_ascii_case(keyword.as_bytes()) => return Some(()),
                Token::End | Token::Broken => return None,
                _ => {}
            }
        }
    }

    /// `found`, if nothing follows.
    fn end<T>(&mut self, found: T) -> Option<T> {
        while self.symbol(b';') {}
        (*self.peek() == Token::End).then_some(found)
    }
}

impl<'a> Parser<'a> {
    fn peek(&mut self) -> &Token<'a> {
        let tokens = &mut self.tokens;
        self.peeked.get_or_insert_with(|| tokens.next())
    }

    fn next(&mut self) -> Token<'a> {
        self.peeked.take().unwrap_or_else(|| self.tokens.next())
    }
}

fn bounded(tables: &[TableName]) -> Option<()> {
    (tables.len() <= TABLES_MAX).then_some(())
}

/// Names are UTF-8; what is not cannot be the name of one of our tables.
fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// A keyword, a name or a number without quotes.
    Word(&'a [u8]),
    /// A name in quotes, without them.
    Name(String),
    /// What is between the quotes of a string, as it is written.
    Text(&'a [u8]),
    Symbol(u8),
    End,
    /// A quote or a comment is not closed.
    Broken,
}

struct Tokens<'a> {
    rest: &'a [u8],
    ansi_quotes: bool,
    backslash_escapes: bool,
    mariadb: bool,
    /// In a comment that the server executes.
    executing: bool,
}

impl<'a> Tokens<'a> {
    fn new(query: &'a Query, family: Family) -> Tokens<'a> {
        Tokens {
            rest: &query.sql,
            ansi_quotes: query.sql_mode & ANSI_QUOTES != 0,
            backslash_escapes: query.sql_mode & NO_BACKSLASH_ESCAPES == 0,
            mariadb: family.is_mariadb(),
            executing: false,
        }
    }

    fn next(&mut self) -> Token<'a> {
        loop {
            match self.rest {
                [] => return if self.executing { Token::Broken } else { Token::End },
                [0..=b' ', after @ ..] => self.rest = after,
                [b'#', ..] | [b'-', b'-'] | [b'-', b'-', 0..=b' ', ..] => self.skip_line(),
                [b'/', b'*', inside @ ..] => {
                    if !self.comment(inside) {
                        return Token::Broken;
                    }
                }
                [b'*', b'/', after @ ..] if self.executing => {
                    self.executing = false;
                    self.rest = after;
                }
                [b'`', inside @ ..] => return self.name(inside, b'`'),
                [b'"', inside @ ..] if self.ansi_quotes => return self.name(inside, b'"'),
                [quote @ (b'\'' | b'"'), inside @ ..] => return self.text(inside, *quote),
                [first, ..] if is_word(*first) => return self.word(),
                [symbol, after @ ..] => {
                    self.rest = after;
                    return Token::Symbol(*symbol);
                }
            }
        }
    }

    fn skip_line(&mut self) {
        let mut lines = self.rest.splitn(2, |byte| *byte == b'\n');
        self.rest = lines.nth(1).unwrap_or_default();
    }

    /// Passes over a comment, or into one that is executed; false if it has no end.
    ///
    /// A comment for a newer server than this one is not executed, but then it is logged without its exclamation mark
    /// (`yyUnput(' ')` in both servers' `sql_lex.cc`).
    fn comment(&mut self, inside: &'a [u8]) -> bool {
        let code = match inside {
            [b'!', code @ ..] => Some(code),
            [b'M', b'!', code @ ..] if self.mariadb => Some(code),
            _ => None,
        };
        match code {
            // One in another: nobody writes that.
            Some(_) if self.executing => false,
            Some(code) => {
                let version = code.iter().take(6).take_while(|byte| byte.is_ascii_digit()).count();
                self.rest = code.get(version..).unwrap_or_default();
                self.executing = true;
                true
            }
            None => {
                let Some(end) = inside.windows(2).position(|pair| pair == b"*/") else { return false };
                self.rest = inside.get(end + 2..).unwrap_or_default();
                true
            }
        }
    }

    /// A name, in which its quote is written twice.
    fn name(&mut self, inside: &'a [u8], quote: u8) -> Token<'a> {
        let mut name = Vec::new();
        let mut rest = inside;
        loop {
            rest = match rest {
                [first, second, after @ ..] if *first == quote && *second == quote => {
                    name.push(quote);
                    after
                }
                [first, after @ ..] if *first == quote => {
                    self.rest = after;
                    return Token::Name(lossy(&name).into_owned());
                }
                [first, after @ ..] => {
                    name.push(*first);
                    after
                }
                [] => return Token::Broken,
            };
        }
    }

    fn text(&mut self, inside: &'a [u8], quote: u8) -> Token<'a> {
        let mut rest = inside;
        loop {
            rest = match rest {
                [b'\\', _, after @ ..] if self.backslash_escapes => after,
                [first, second, after @ ..] if *first == quote && *second == quote => after,
                [first, after @ ..] if *first == quote => {
                    self.rest = after;
                    return Token::Text(inside.get(..inside.len() - rest.len()).unwrap_or_default());
                }
                [_, after @ ..] => after,
                [] => return Token::Broken,
            };
        }
    }

    fn word(&mut self) -> Token<'a> {
        let end = self.rest.iter().position(|byte| !is_word(*byte)).unwrap_or(self.rest.len());
        let (word, after) = self.rest.split_at_checked(end).unwrap_or_default();
        self.rest = after;
        Token::Word(word)
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..=0xff)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::sql;

    const UTF8MB4: Option<u16> = Some(45);

    fn query(sql: &[u8], sql_mode: u64, client_collation: Option<u16>) -> Query {
        let sql = Bytes::copy_from_slice(sql);
        Query { schema: "shop".to_owned(), sql_mode, client_collation, error_code: 0, sql }
    }

    fn mariadb() -> Family {
        Family::parse("10.11.19-MariaDB")
    }

    fn mysql() -> Family {
        Family::parse("9.7.4")
    }

    fn read(sql: &str) -> Statement {
        recognise(&query(sql.as_bytes(), 0, UTF8MB4), mariadb())
    }

    /// `item` is in the session's schema.
    fn table(name: &str) -> TableName {
        let (schema, name) = name.split_once('.').unwrap_or(("shop", name));
        TableName::new(schema, name)
    }

    fn definition(what: &'static str, tables: &[&str]) -> Statement {
        Statement::Definition { what, tables: tables.iter().map(|name| table(name)).collect() }
    }

    fn rows(what: &'static str, name: Option<&str>) -> Statement {
        Statement::Rows { what, table: name.map(table) }
    }

    #[test]
    fn the_frame_of_a_transaction() {
        use Statement as S;
        for (sql, expected) in [
            ("BEGIN", S::Begin),
            ("begin work;", S::Begin),
            ("START TRANSACTION", S::Begin),
            ("COMMIT", S::Commit),
            ("COMMIT /* by hand */ ;", S::Commit),
            ("ROLLBACK", S::Rollback),
            ("ROLLBACK WORK", S::Rollback),
            ("ROLLBACK TO `a`", S::RollbackToSavepoint),
            ("ROLLBACK WORK TO SAVEPOINT a", S::RollbackToSavepoint),
            ("SAVEPOINT `a`", S::Savepoint),
            ("RELEASE SAVEPOINT `a`", S::Savepoint),
            ("BEGIN NOT ATOMIC DELETE FROM item; END", S::Unknown),
            ("START SLAVE", S::Unknown),
        ] {
            assert_eq!(read(sql), expected, "{sql}");
        }
    }

    #[test]
    fn distributed_transactions() {
        let xa = |step, global: &'static str, branch: &'static str, format| {
            Statement::Xa(step, Xid { format, global: global.into(), branch: branch.into() })
        };
        for (sql, expected) in [
            ("XA START X'6774',X'62',1", xa(XaStep::Start, "gt", "b", 1)),
            ("XA END X'6774',X'',1", xa(XaStep::End, "gt", "", 1)),
            ("XA PREPARE X'67',X'62',4294967295", xa(XaStep::Prepare, "g", "b", u32::MAX)),
            ("xa commit x'67', x'62', 7", xa(XaStep::Commit, "g", "b", 7)),
            ("XA ROLLBACK X'4a4B',X'62',1", xa(XaStep::Rollback, "JK", "b", 1)),
            ("XA COMMIT 'gt'", Statement::Unknown),
            ("XA COMMIT X'6',X'62',1", Statement::Unknown),
            ("XA COMMIT X'6g',X'62',1", Statement::Unknown),
            ("XA COMMIT X'67',X'62'", Statement::Unknown),
            ("XA COMMIT X'67',X'62',1 ONE PHASE", Statement::Unknown),
            ("XA RECOVER", Statement::Unknown),
        ] {
            assert_eq!(read(sql), expected, "{sql}");
        }
    }

    #[test]
    fn definitions() {
        let cases: &[(&str, &'static str, &[&str])] = &[
            ("CREATE TABLE item (id INT)", "CREATE TABLE", &["item"]),
            ("create or replace table if not exists `shop` . `item` LIKE other", "CREATE TABLE", &["item"]),
            (
                "CREATE TABLE `item` (\n  `id` int(11) DEFAULT NULL\n) START TRANSACTION",
                "CREATE TABLE",
                &["item"],
            ),
            ("CREATE TABLE a.b SELECT * FROM item", "CREATE TABLE", &["a.b"]),
            ("CREATE UNIQUE INDEX IF NOT EXISTS i USING BTREE ON item (a)", "CREATE INDEX", &["item"]),
            ("DROP INDEX i ON a.item", "DROP INDEX", &["a.item"]),
            (
                "DROP TABLE IF EXISTS `item`,a.b , `c` /* generated by server */",
                "DROP TABLE",
                &["item", "a.b", "c"],
            ),
            ("DROP TABLES item CASCADE", "DROP TABLE", &["item"]),
            ("ALTER TABLE item ADD COLUMN c INT DEFAULT 5 COMMENT 'RENAME TO x'", "ALTER TABLE", &["item"]),
            ("ALTER ONLINE IGNORE TABLE IF EXISTS item WAIT 5 DROP c", "ALTER TABLE", &["item"]),
            ("ALTER TABLE item RENAME TO a.b", "ALTER TABLE", &["item", "a.b"]),
            ("ALTER TABLE item ADD c INT, RENAME = `b`", "ALTER TABLE", &["item", "b"]),
            ("ALTER TABLE item RENAME COLUMN a TO b, RENAME INDEX c TO d", "ALTER TABLE", &["item"]),
            ("ALTER TABLE a.b EXCHANGE PARTITION p WITH TABLE item", "ALTER TABLE", &["a.b", "item"]),
            ("ALTER TABLE a.b CONVERT PARTITION p TO TABLE item", "ALTER TABLE", &["a.b", "item"]),
            ("RENAME TABLE a TO b, item TO old.item", "RENAME TABLE", &["a", "b", "item", "old.item"]),
            ("RENAME TABLES IF EXISTS a WAIT 3 TO b", "RENAME TABLE", &["a", "b"]),
            (
                "SET STATEMENT max_statement_time=0, x='FOR' FOR ALTER TABLE item FORCE",
                "ALTER TABLE",
                &["item"],
            ),
            ("/*!40000 ALTER TABLE `item` DISABLE KEYS */", "ALTER TABLE", &["item"]),
            ("/*!50100 DROP */ /*M!100100 TABLE */ item", "DROP TABLE", &["item"]),
            ("-- a comment\n#another\nDROP/**/TABLE/* ` */item", "DROP TABLE", &["item"]),
        ];
        for (sql, what, tables) in cases {
            assert_eq!(read(sql), definition(what, tables), "{sql}");
        }
        assert_eq!(read("DROP DATABASE IF EXISTS `my shop`"), Statement::DropDatabase("my shop".to_owned()));
        for sql in ["TRUNCATE item", "truncate table `shop`.`item` NOWAIT", "TRUNCATE/**/shop.item;"] {
            assert_eq!(read(sql), Statement::Truncate(table("item")), "{sql}");
        }
    }

    #[test]
    fn statements_that_change_rows() {
        for (sql, what, name) in [
            ("INSERT INTO item VALUES (1, 'it''s')", "INSERT", Some("item")),
            ("INSERT IGNORE a.b SET c = 1", "INSERT", Some("a.b")),
            ("REPLACE LOW_PRIORITY INTO item SELECT 1", "REPLACE", Some("item")),
            ("UPDATE item SET a = 1", "UPDATE", Some("item")),
            ("UPDATE IGNORE a.b AS x SET x.a = 1", "UPDATE", Some("a.b")),
            ("UPDATE a, item SET item.a = 1", "UPDATE", None),
            ("UPDATE a JOIN item SET item.a = 1", "UPDATE", None),
            ("DELETE FROM item WHERE a = 1", "DELETE", Some("item")),
            ("DELETE QUICK FROM `a`.`b`", "DELETE", Some("a.b")),
            ("DELETE FROM a USING a JOIN item", "DELETE", None),
            ("DELETE item FROM item JOIN a", "DELETE", None),
            ("LOAD DATA LOCAL INFILE 'INTO TABLE x' REPLACE INTO TABLE item", "LOAD", Some("item")),
            ("WITH x AS (SELECT 1) DELETE FROM item", "WITH", None),
            ("SELECT `shop`.`f`()", "SELECT", None),
            ("CALL p()", "CALL", None),
        ] {
            assert_eq!(read(sql), rows(what, name), "{sql}");
        }
    }

    #[test]
    fn what_touches_no_rows() {
        for sql in [
            "CREATE TEMPORARY TABLE item (id INT)",
            "DROP TEMPORARY TABLE IF EXISTS `item` /* generated by server */",
            "CREATE DATABASE other",
            "ALTER DATABASE shop CHARACTER SET utf8mb4",
            "CREATE DEFINER=`root`@`localhost` TRIGGER t BEFORE INSERT ON item FOR EACH ROW SET NEW.a = 1",
            "/*!50003 CREATE*/ /*!50017 DEFINER=`a`@`b`*/ /*!50003 PROCEDURE p() DROP TABLE item */",
            "CREATE OR REPLACE ALGORITHM=MERGE SQL SECURITY INVOKER VIEW v AS SELECT * FROM item",
            "DROP VIEW v",
            "ALTER EVENT e DISABLE",
            "CREATE USER a@b IDENTIFIED BY 'x'",
            "RENAME USER a TO b",
            "GRANT ALL ON shop.* TO a",
            "REVOKE ALL ON shop.item FROM a",
            "SET PASSWORD FOR a = 'x'",
            "FLUSH TABLES item",
            "ANALYZE NO_WRITE_TO_BINLOG TABLE item",
            "OPTIMIZE TABLE item",
            "LOAD INDEX INTO CACHE item",
        ] {
            assert_eq!(read(sql), Statement::Harmless, "{sql}");
        }
    }

    #[test]
    fn what_is_not_understood() {
        for sql in [
            "",
            "/* DROP TABLE item */",
            "FROB TABLE item",
            "`DROP` TABLE item",
            "DROP 'TABLE' item",
            "DROP TABLE 'item'",
            "DROP TABLE \"item\"",
            "DROP TABLE [item]",
            "DROP TABLE `item",
            "DROP TABLE item, ",
            "RENAME TABLE a",
            "ALTER TABLE item RENAME TO 'b'",
            "ALTER TABLE item COMMENT 'x",
            "/*!50100 DROP /*!50200 TABLE */ item */",
            "CREATE FROBNICATED TABLE item (id INT)",
            "ANALYZE UPDATE item SET a = 1",
            "SET STATEMENT max_statement_time=0",
            "COMMIT AND CHAIN",
            "IMPORT TABLE FROM 'item.sdi'",
        ] {
            assert_eq!(read(sql), Statement::Unknown, "{sql}");
        }
        let mut nowhere = query(b"DROP TABLE item", 0, UTF8MB4);
        nowhere.schema.clear();
        assert_eq!(recognise(&nowhere, mariadb()), Statement::Unknown);
    }

    #[test]
    fn the_mode_of_the_session_says_what_quotes_mean() {
        let read = |sql: &str, mode| recognise(&query(sql.as_bytes(), mode, UTF8MB4), mysql());
        let item = definition("DROP TABLE", &["it\"em"]);
        assert_eq!(read(r#"DROP TABLE "it""em""#, ANSI_QUOTES), item);
        assert_eq!(read(r#"DROP TABLE "it""em""#, 0), Statement::Unknown);
        let escaped = r"ALTER TABLE item COMMENT 'a\', RENAME TO b -- '";
        assert_eq!(read(escaped, 0), definition("ALTER TABLE", &["item"]));
        assert_eq!(read(escaped, NO_BACKSLASH_ESCAPES), definition("ALTER TABLE", &["item", "b"]));
    }

    #[test]
    fn only_mariadb_executes_its_own_comments() {
        let sql = b"/*M!100100 DROP TABLE item */";
        assert_eq!(recognise(&query(sql, 0, UTF8MB4), mariadb()), definition("DROP TABLE", &["item"]));
        assert_eq!(recognise(&query(sql, 0, UTF8MB4), mysql()), Statement::Unknown);
    }

    #[test]
    fn a_charset_that_hides_quotes() {
        // In sjis 0x83 0x60 is one character, whose second byte is a backtick.
        let name = b"DROP TABLE `\x83\x60, `item`";
        for collation in [Some(13), Some(88), Some(28), Some(13 + 1024), Some(249), None] {
            assert_eq!(recognise(&query(name, 0, collation), mariadb()), Statement::Unknown, "{collation:?}");
            assert_eq!(recognise(&query(b"BEGIN", 0, collation), mariadb()), Statement::Begin);
        }
        let latin1 = recognise(&query(b"DROP TABLE caf\xe9, item", 0, Some(8)), mariadb());
        assert_eq!(latin1, definition("DROP TABLE", &["caf\u{fffd}", "item"]));
    }

    proptest! {
        #[test]
        fn every_quoted_name_is_found(schema in ".{1,20}", name in ".{1,20}") {
            let table = TableName::new(schema, name);
            let sql = format!("DROP TABLE {}, `z`", sql::table(&table));
            let tables = vec![table, TableName::new("shop", "z")];
            prop_assert_eq!(read(&sql), Statement::Definition { what: "DROP TABLE", tables });
        }

        #[test]
        fn comments_and_spaces_say_nothing(
            between in vec(select(vec![" ", "\n", "/**/", "/* ' */", "-- `\n", "#\"\n", "\t/* DROP */ "]), 8),
        ) {
            let words = ["DROP", "TABLE", "IF", "EXISTS", "shop", ".", "item", ";"];
            let sql: String = between.iter().zip(words).flat_map(|(space, word)| [*space, word]).collect();
            prop_assert_eq!(read(&sql), definition("DROP TABLE", &["item"]), "{}", sql);
        }

        /// Whatever it makes of it: it returns.
        #[test]
        fn no_bytes_make_it_panic(
            words in vec(select(vec![
                "DROP ", "ALTER ", "TABLE ", "RENAME ", "SET STATEMENT ", "FOR ", "XA COMMIT ", "X'", "'", "\"", "`", "/*", "/*!",
                "*/", "--", "\\", ",", ".", "item ", "UPDATE ", "DELETE FROM ", "CREATE ", "TO ",
            ]), 0..20),
            noise in vec(any::<u8>(), 0..20), mode in any::<u64>(), collation in any::<Option<u16>>(),
        ) {
            let sql = [words.concat().into_bytes(), noise].concat();
            recognise(&query(&sql, mode, collation), mariadb());
            recognise(&query(&sql, mode, collation), mysql());
        }
    }
}
