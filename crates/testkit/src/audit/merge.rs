//! Two sorted streams of rows, compared as multisets.

use std::cmp::Ordering;
use std::fmt;

use super::Table;

/// How many differences of a table are shown. All are counted.
const EXAMPLES_MAX: usize = 10;

/// A row that one side has once more than the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub only_on: Side,
    pub row: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Source,
    Target,
}

/// Both streams must be sorted by bytes.
pub(crate) fn merge(
    name: &str,
    mut source: impl Iterator<Item = String>,
    mut target: impl Iterator<Item = String>,
) -> Table {
    let mut table =
        Table { name: name.into(), rows_source: 0, rows_target: 0, differences: 0, examples: Vec::new() };
    let mut left = Ascending::new(&mut source);
    let mut right = Ascending::new(&mut target);
    loop {
        let order = match (&left.head, &right.head) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(left), Some(right)) => left.as_bytes().cmp(right.as_bytes()),
        };
        let difference = match order {
            Ordering::Equal => {
                left.step();
                right.step();
                table.rows_source += 1;
                table.rows_target += 1;
                continue;
            }
            Ordering::Less => {
                table.rows_source += 1;
                left.step().map(|row| Difference { only_on: Side::Source, row })
            }
            Ordering::Greater => {
                table.rows_target += 1;
                right.step().map(|row| Difference { only_on: Side::Target, row })
            }
        };
        table.differences += 1;
        if table.examples.len() < EXAMPLES_MAX {
            table.examples.extend(difference);
        }
    }
    table
}

/// A table that only one side has, or that the two have with other columns: that is one difference.
pub(crate) fn unlike(name: &str, source: Option<&Vec<String>>, target: Option<&Vec<String>>) -> Table {
    let say =
        |only_on, columns: &Vec<String>| Difference { only_on, row: format!("({})", columns.join(", ")) };
    let source = source.map(|columns| say(Side::Source, columns));
    let target = target.map(|columns| say(Side::Target, columns));
    let examples = source.into_iter().chain(target).collect();
    Table { name: name.into(), rows_source: 0, rows_target: 0, differences: 1, examples }
}

/// A stream with its next row at hand. Unsorted input would make a comparison that finds nothing worthless.
struct Ascending<'a> {
    rows: &'a mut dyn Iterator<Item = String>,
    head: Option<String>,
}

impl<'a> Ascending<'a> {
    fn new(rows: &'a mut dyn Iterator<Item = String>) -> Ascending<'a> {
        let head = rows.next();
        Ascending { rows, head }
    }

    fn step(&mut self) -> Option<String> {
        let next = self.rows.next();
        let row = std::mem::replace(&mut self.head, next);
        if let (Some(row), Some(next)) = (&row, &self.head) {
            assert!(row.as_bytes() <= next.as_bytes(), "rows are not sorted: {row:?} before {next:?}");
        }
        row
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.only_on {
            Side::Source => "source",
            Side::Target => "target",
        };
        match self.row.char_indices().nth(300) {
            Some((end, _)) => write!(f, "only on {side}: {}… ({} bytes)", &self.row[..end], self.row.len()),
            None => write!(f, "only on {side}: {}", self.row),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> impl Iterator<Item = String> + '_ {
        text.split_ascii_whitespace().map(Into::into)
    }

    /// Source, target, what only the source has, what only the target has.
    const CASES: &[(&str, &str, &str, &str)] = &[
        ("", "", "", ""),
        ("a b c", "a b c", "", ""),
        ("a b c", "a c", "b", ""),
        ("a c", "a b c", "", "b"),
        ("a b1 c", "a b2 c", "b1", "b2"),
        ("a a b", "a b", "a", ""),
        ("a b", "a b b b", "", "b b"),
        ("a", "", "a", ""),
        ("", "z", "", "z"),
        ("a b", "b c", "a", "c"),
    ];

    #[test]
    fn finds_missing_extra_changed_and_duplicate_rows() {
        for &(source, target, only_source, only_target) in CASES {
            let table = merge("t", rows(source), rows(target));
            let only = |side| {
                let found: Vec<_> =
                    table.examples.iter().filter(|one| one.only_on == side).map(|one| &*one.row).collect();
                found.join(" ")
            };
            assert_eq!(only(Side::Source), only_source, "{source:?} against {target:?}");
            assert_eq!(only(Side::Target), only_target, "{source:?} against {target:?}");
            assert_eq!(table.differences, table.examples.len() as u64);
            assert_eq!(table.rows_source, rows(source).count() as u64);
            assert_eq!(table.rows_target, rows(target).count() as u64);
        }
    }

    #[test]
    #[should_panic(expected = "not sorted")]
    fn refuses_rows_that_are_not_sorted() {
        merge("t", rows("b a"), rows("a b"));
    }
}
