//! One statement for many rows, in one message and with one answer. MariaDB's own; a row costs the server half of what it
//! costs alone.
//!
//! The server goes through the rows and stops at the first that it refuses, without saying which; what was before it is done.
//! Its answer has the sum of the rows that were hit.
//!
//! <https://mariadb.com/kb/en/com_stmt_bulk_execute/>.

use bytes::{BufMut, BytesMut};
use connector::Result;

use crate::prepared::{Param, Statement};
use crate::wire::Client;

const COM_STMT_BULK_EXECUTE: u8 = 0xfa;
/// The types of the values come first.
const SEND_TYPES: u16 = 128;

// In front of each value:
const VALUE: u8 = 0;
const NULL: u8 = 1;

/// The values of some rows for one statement.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    types: Vec<[u8; 2]>,
    values: BytesMut,
    rows: u64,
}

impl Batch {
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// The values of all rows, as they travel.
    pub(crate) fn values(&self) -> &[u8] {
        &self.values
    }

    pub(crate) fn clear(&mut self) {
        self.types.clear();
        self.values.clear();
        self.rows = 0;
    }

    /// Adds a row, unless a value of it is of another type than those above it: all have one.
    #[must_use]
    pub(crate) fn push(&mut self, params: &[Param<'_>]) -> bool {
        let null = Param::Null.types();
        let agree = |(known, param): (&[u8; 2], &Param<'_>)| {
            *param == Param::Null || *known == null || *known == param.types()
        };
        if self.rows == 0 {
            self.types.resize(params.len(), null);
        } else if params.len() != self.types.len() || !self.types.iter().zip(params).all(agree) {
            return false;
        }
        for (known, param) in self.types.iter_mut().zip(params) {
            match param {
                Param::Null => self.values.put_u8(NULL),
                param => {
                    *known = param.types();
                    self.values.put_u8(VALUE);
                    param.put(&mut self.values);
                }
            }
        }
        self.rows += 1;
        true
    }
}

impl Client {
    /// Queues one statement for all rows of a batch, which is one answer.
    pub(crate) fn queue_batch(&mut self, statement: &Statement, batch: &Batch) -> Result<()> {
        self.queue_with(&statement.sql, |client| {
            client.command(COM_STMT_BULK_EXECUTE, |out| {
                out.put_u32_le(statement.id);
                out.put_u16_le(SEND_TYPES);
                batch.types.iter().for_each(|types| out.put_slice(types));
                out.put_slice(&batch.values);
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepared::tests::insert;
    use crate::wire::tests::connected;

    #[test]
    fn a_type_is_that_of_the_values() {
        let mut batch = Batch::default();
        assert!(batch.push(&[Param::Null, Param::Integer(1)]));
        assert!(batch.push(&[Param::Bytes(b"a"), Param::Null]));
        assert!(!batch.push(&[Param::Bytes(b"b"), Param::Unsigned(1)]));
        assert!(!batch.push(&[Param::Blob(b"b"), Param::Null]));
        assert!(!batch.push(&[Param::Null]));
        assert!(batch.push(&[Param::Null, Param::Null]));
        assert_eq!((batch.rows(), batch.values().len()), (3, 16));
        assert_eq!(batch.types, [[0xfd, 0], [0x08, 0]]);
        batch.clear();
        assert!(batch.push(&[Param::Unsigned(1)]));
    }

    #[tokio::test]
    async fn a_batch_is_one_message() {
        let (mut client, _server) = connected();
        let mut batch = Batch::default();
        assert!(batch.push(&[Param::Bytes(b"ab")]));
        assert!(batch.push(&[Param::Null]));
        client.queue_batch(&insert(), &batch).unwrap();
        assert_eq!(
            &client.outgoing[..],
            b"\x0e\x00\x00\x00\xfa\x05\x00\x00\x00\x80\x00\xfd\x00\x00\x02ab\x01"
        );
    }
}
