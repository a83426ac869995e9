//! Takes apart what SHOW CREATE TABLE says: into columns, keys, foreign keys and what follows the last bracket.
//!
//! No more is understood than has to be moved: everything else stays as the server wrote it. The text has to come from a
//! session without ANSI_QUOTES and NO_BACKSLASH_ESCAPES and with `sql_quote_show_create`, so that each name is in backquotes.

use crate::sql;

/// One CREATE TABLE.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Definition<'a> {
    pub(crate) name: String,
    /// What is between the outer brackets, in order.
    pub(crate) clauses: Vec<&'a str>,
    /// What follows them: the table's options and its partitions.
    pub(crate) options: &'a str,
}

/// What a clause of CREATE TABLE, or one that ALTER TABLE adds, is about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Clause {
    Column {
        name: String,
        /// AUTO_INCREMENT
        counts: bool,
    },
    Primary {
        first: Option<String>,
    },
    Key {
        name: String,
        /// As [`connector::SchemaItem::kind`].
        kind: &'static str,
        /// The column that it begins with, if that is one.
        first: Option<String>,
    },
    ForeignKey(ForeignKey),
    /// CHECK, PERIOD, and whatever else belongs to the columns.
    Other,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ForeignKey {
    pub(crate) name: String,
    pub(crate) columns: Vec<String>,
    /// Named only where it is not the table's own.
    pub(crate) parent_database: Option<String>,
    pub(crate) parent: String,
    pub(crate) referenced: Vec<String>,
}

pub(crate) const FOREIGN_KEY: &str = "FOREIGN KEY";
pub(crate) const FULLTEXT: &str = "FULLTEXT INDEX";

impl Definition<'_> {
    pub(crate) fn parse(text: &str) -> Option<Definition<'_>> {
        let mut tokens = Tokens { rest: text };
        tokens.words(&["CREATE", "TABLE"])?;
        let name = tokens.name()?;
        tokens.symbol('(')?;
        let inside = tokens.rest;
        let length = closing(inside)?;
        let (clauses, options) = (inside.get(..length)?, inside.get(length + 1..)?);
        Some(Definition { name, clauses: split(clauses, ','), options })
    }
}

impl Clause {
    pub(crate) fn parse(text: &str) -> Option<Clause> {
        let mut tokens = Tokens { rest: text };
        let first = match tokens.next()? {
            Token::Name(name) => {
                let counts = tokens.any(|token| token == Token::Word("AUTO_INCREMENT"));
                return Some(Clause::Column { name, counts });
            }
            Token::Word(word) => word,
            Token::Symbol(_) | Token::Text => return None,
        };
        let kind = match first {
            "CONSTRAINT" => {
                let name = tokens.name()?;
                return match tokens.next()? {
                    Token::Word("FOREIGN") => ForeignKey::parse(name, tokens).map(Clause::ForeignKey),
                    _ => Some(Clause::Other),
                };
            }
            "PRIMARY" => {
                tokens.words(&["KEY"])?;
                return Some(Clause::Primary { first: tokens.first_column() });
            }
            "KEY" => "INDEX",
            "UNIQUE" => "UNIQUE INDEX",
            "FULLTEXT" => FULLTEXT,
            "SPATIAL" => "SPATIAL INDEX",
            "VECTOR" => "VECTOR INDEX",
            _ => return Some(Clause::Other),
        };
        if first != "KEY" {
            tokens.words(&["KEY"])?;
        }
        Some(Clause::Key { name: tokens.name()?, kind, first: tokens.first_column() })
    }
}

impl ForeignKey {
    fn parse(name: String, mut tokens: Tokens<'_>) -> Option<ForeignKey> {
        tokens.words(&["KEY"])?;
        let columns = tokens.names()?;
        tokens.words(&["REFERENCES"])?;
        let first = tokens.name()?;
        let (parent_database, parent) = match tokens.rest.strip_prefix('.') {
            Some(rest) => {
                tokens.rest = rest;
                (Some(first), tokens.name()?)
            }
            None => (None, first),
        };
        Some(ForeignKey { name, columns, parent_database, parent, referenced: tokens.names()? })
    }
}

/// The statement that adds a clause to a table which is there.
pub(crate) fn add(table: &str, clause: &str) -> String {
    format!("ALTER TABLE {} ADD {clause}", sql::ident(table))
}

/// The table and the clause of such a statement.
pub(crate) fn added(statement: &str) -> Option<(String, &str)> {
    let mut tokens = Tokens { rest: statement };
    tokens.words(&["ALTER", "TABLE"])?;
    let table = tokens.name()?;
    tokens.words(&["ADD"])?;
    Some((table, tokens.rest.trim_start()))
}

/// What is between symbols that are in no bracket.
pub(crate) fn split(text: &str, at: char) -> Vec<&str> {
    let mut tokens = Tokens { rest: text };
    let (mut parts, mut part, mut depth) = (Vec::new(), text, 0_u32);
    while let Some(token) = tokens.next() {
        match token {
            Token::Symbol('(') => depth += 1,
            Token::Symbol(')') => depth = depth.saturating_sub(1),
            Token::Symbol(symbol) if symbol == at && depth == 0 => {
                let length = part.len() - tokens.rest.len() - symbol.len_utf8();
                parts.push(part[..length].trim());
                part = tokens.rest;
            }
            _ => {}
        }
    }
    parts.push(part.trim());
    parts.retain(|part| !part.is_empty());
    parts
}

/// Names in front of a dot: databases, and tables in front of their columns.
pub(crate) fn qualifiers(text: &str) -> Vec<String> {
    let mut tokens = Tokens { rest: text };
    let mut found = Vec::new();
    while let Some(token) = tokens.next() {
        if let Token::Name(name) = token
            && tokens.rest.starts_with('.')
        {
            found.push(name);
        }
    }
    found
}

/// Whether these words follow each other somewhere outside of quotes.
pub(crate) fn says(text: &str, first: &str, second: &str) -> bool {
    let mut last = None;
    Tokens { rest: text }.any(|token| {
        let found = last == Some(Token::Word(first)) && token == Token::Word(second);
        last = Some(token);
        found
    })
}

/// Where the bracket is closed that was opened in front of the text.
fn closing(text: &str) -> Option<usize> {
    let mut tokens = Tokens { rest: text };
    let mut depth = 1_u32;
    loop {
        match tokens.next()? {
            Token::Symbol('(') => depth += 1,
            Token::Symbol(')') if depth == 1 => return Some(text.len() - tokens.rest.len() - 1),
            Token::Symbol(')') => depth -= 1,
            _ => {}
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// A keyword or a number.
    Word(&'a str),
    /// A name, without its quotes.
    Name(String),
    Text,
    Symbol(char),
}

struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    /// A quote or a comment that is not closed goes to the end of the text.
    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            self.rest = self.rest.trim_start();
            let first = self.rest.chars().next()?;
            if let Some(comment) = self.rest.strip_prefix("/*") {
                let code = comment.strip_prefix('M').unwrap_or(comment).strip_prefix('!');
                self.rest = match code {
                    // Part of the statement for a server that is new enough: `/*!50100 WITH PARSER … */`.
                    Some(code) => code.trim_start_matches(|c: char| c.is_ascii_digit()),
                    None => comment.split_once("*/").map_or("", |(_, rest)| rest),
                };
                continue;
            }
            if let Some(rest) = self.rest.strip_prefix("*/") {
                self.rest = rest;
                continue;
            }
            return Some(match first {
                '`' => Token::Name(self.quoted('`').replace("``", "`")),
                '\'' | '"' => {
                    self.quoted(first);
                    Token::Text
                }
                _ if is_word(first) => {
                    let end = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
                    Token::Word(self.take(end))
                }
                _ => {
                    self.take(first.len_utf8());
                    Token::Symbol(first)
                }
            });
        }
    }
}

impl<'a> Tokens<'a> {
    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    /// What is between the quotes, as it is written. Backslashes count in strings only.
    fn quoted(&mut self, quote: char) -> &'a str {
        let inside = &self.rest[quote.len_utf8()..];
        let mut chars = inside.char_indices().peekable();
        while let Some((at, char)) = chars.next() {
            if char == '\\' && quote != '`' {
                chars.next();
            } else if char == quote && chars.next_if(|&(_, next)| next == quote).is_none() {
                self.rest = &inside[at + quote.len_utf8()..];
                return &inside[..at];
            }
        }
        self.rest = "";
        inside
    }

    fn words(&mut self, words: &[&str]) -> Option<()> {
        words.iter().try_for_each(|word| (self.next()? == Token::Word(word)).then_some(()))
    }

    fn symbol(&mut self, symbol: char) -> Option<()> {
        (self.next()? == Token::Symbol(symbol)).then_some(())
    }

    fn name(&mut self) -> Option<String> {
        match self.next()? {
            Token::Name(name) => Some(name),
            _ => None,
        }
    }

    /// Names in brackets.
    fn names(&mut self) -> Option<Vec<String>> {
        self.symbol('(')?;
        let mut names = vec![self.name()?];
        loop {
            match self.next()? {
                Token::Symbol(',') => names.push(self.name()?),
                Token::Symbol(')') => return Some(names),
                _ => return None,
            }
        }
    }

    /// The column that a key begins with; `None` for an expression.
    fn first_column(&mut self) -> Option<String> {
        self.find(|token| *token == Token::Symbol('('))?;
        self.name()
    }
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || matches!(char, '_' | '$')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As MariaDB 10.11 says it.
    const ODD: &str = r#"CREATE TABLE `odd ``name, (x` (
  `a``b` int(11) NOT NULL DEFAULT 5 COMMENT 'PRIMARY KEY, (',
  `c,d` varchar(20) DEFAULT 'a''b,c)\\',
  `e (f` varchar(10) DEFAULT 'q"uote',
  `sélect` enum('it''s, a) label','b\nc') GENERATED ALWAYS AS (concat(`c,d`,', KEY (')) STORED,
  `id` bigint(20) NOT NULL AUTO_INCREMENT COMMENT 'x;',
  UNIQUE KEY `u``1` (`a``b`),
  KEY `k,(` (`c,d`(3),`e (f` DESC),
  FULLTEXT KEY `ft` (`e (f`) /*!50100 WITH PARSER `ngram` */ ,
  CONSTRAINT `ck` CHECK (`a``b` >= 0 and `c,d` <> 'a,)')
) ENGINE=InnoDB DEFAULT CHARSET=latin1 COLLATE=latin1_swedish_ci COMMENT='it''s a, PRIMARY KEY (`x`) comment \\ here; '
 PARTITION BY RANGE (to_days(`created`))
(PARTITION `p0` VALUES LESS THAN (737790) COMMENT = 'a, b' ENGINE = InnoDB)"#;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn index(name: &str, kind: &'static str, first: Option<&str>) -> Clause {
        Clause::Key { name: name.to_owned(), kind, first: first.map(str::to_owned) }
    }

    fn column(name: &str, counts: bool) -> Clause {
        Clause::Column { name: name.to_owned(), counts }
    }

    #[test]
    fn odd_names_and_texts_stay_whole() {
        let definition = Definition::parse(ODD).unwrap();
        assert_eq!(definition.name, "odd `name, (x");
        assert!(
            definition.options.starts_with(" ENGINE=InnoDB DEFAULT")
                && definition.options.ends_with("InnoDB)")
        );
        let found: Vec<Clause> =
            definition.clauses.iter().map(|clause| Clause::parse(clause).unwrap()).collect();
        assert_eq!(
            found,
            [
                column("a`b", false),
                column("c,d", false),
                column("e (f", false),
                column("sélect", false),
                column("id", true),
                index("u`1", "UNIQUE INDEX", Some("a`b")),
                index("k,(", "INDEX", Some("c,d")),
                index("ft", FULLTEXT, Some("e (f")),
                Clause::Other,
            ]
        );
        assert_eq!(split(&format!("{ODD};\n{ODD};\n"), ';'), [ODD, ODD]);
    }

    #[test]
    fn clauses() {
        for (text, expected) in [
            ("PRIMARY KEY (`a`,`b`)", Some(Clause::Primary { first: Some("a".to_owned()) })),
            ("SPATIAL KEY `s` (`loc`)", Some(index("s", "SPATIAL INDEX", Some("loc")))),
            ("KEY `e` ((lower(`a`)))", Some(index("e", "INDEX", None))),
            ("UNIQUE KEY `t` (`t`) USING HASH", Some(index("t", "UNIQUE INDEX", Some("t")))),
            ("PERIOD FOR `p` (`a`, `b`)", Some(Clause::Other)),
            ("`key` text COMMENT 'AUTO_INCREMENT'", Some(column("key", false))),
            ("KEY (`a`)", None),
            ("UNIQUE `a`", None),
            ("CONSTRAINT `f` FOREIGN KEY (`a`) REFERENCES `p`", None),
            ("'text'", None),
            ("", None),
        ] {
            assert_eq!(Clause::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn foreign_keys_name_their_parent() {
        for (text, database) in [
            ("CONSTRAINT `f 1` FOREIGN KEY (`a`,`b,`) REFERENCES `p``q` (`x`,`y`) ON DELETE SET NULL", None),
            ("CONSTRAINT `f 1` FOREIGN KEY (`a`, `b,`) REFERENCES `o.d`.`p``q` (`x`, `y`)", Some("o.d")),
        ] {
            let key = ForeignKey {
                name: "f 1".to_owned(),
                columns: names(&["a", "b,"]),
                parent_database: database.map(str::to_owned),
                parent: "p`q".to_owned(),
                referenced: names(&["x", "y"]),
            };
            assert_eq!(Clause::parse(text), Some(Clause::ForeignKey(key)), "{text}");
        }
    }

    #[test]
    fn what_was_added_is_read_again() {
        let statement = add("a`b ADD", "KEY `k` (`a`)");
        assert_eq!(statement, "ALTER TABLE `a``b ADD` ADD KEY `k` (`a`)");
        assert_eq!(added(&statement), Some(("a`b ADD".to_owned(), "KEY `k` (`a`)")));
        assert_eq!(added("CREATE VIEW `v` AS select 1"), None);
    }

    #[test]
    fn words_and_qualifiers_count_outside_of_quotes_only() {
        assert!(says(") ENGINE=InnoDB WITH SYSTEM VERSIONING", "SYSTEM", "VERSIONING"));
        assert!(!says("COMMENT='WITH SYSTEM VERSIONING' /* SYSTEM VERSIONING */", "SYSTEM", "VERSIONING"));
        assert!(!says("`SYSTEM` VERSIONING", "SYSTEM", "VERSIONING"));
        assert_eq!(qualifiers("DEFAULT nextval(`shop`.`sq`), `a` 'x`y`.`z`'"), ["shop"]);
        assert!(qualifiers("`a` decimal(4,2) DEFAULT 4.99").is_empty());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(CREATE TABLE `a` \\()?[`'\"(),;./*!M\\\\ aé]{0,40}") {
            drop((Definition::parse(&text), Clause::parse(&text), added(&text)));
            drop((split(&text, ','), qualifiers(&text), says(&text, "a", "a")));
        }

        #[test]
        fn quoted_names_are_read_back(name in "[a`'\"(,)\\\\é]{1,8}") {
            let create = format!("CREATE TABLE {0} (\n  {0} int,\n  KEY {0} ({0})\n) ENGINE=InnoDB", sql::ident(&name));
            let definition = Definition::parse(&create).unwrap();
            prop_assert_eq!(&definition.name, &name);
            prop_assert_eq!(definition.clauses.len(), 2);
            prop_assert_eq!(Clause::parse(definition.clauses[0]), Some(column(&name, false)));
            prop_assert_eq!(Clause::parse(definition.clauses[1]), Some(index(&name, "INDEX", Some(&name))));
        }
    }
}
