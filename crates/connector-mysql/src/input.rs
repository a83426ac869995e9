//! Reading the parts of an event: integers are little-endian, and nothing is copied.

use bytes::{Buf, Bytes};

/// Bytes that cannot be what the format of the log says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("{wanted} more bytes are expected and {left} are left")]
    Short { wanted: u64, left: usize },
    #[error("{0} bytes are left over at the end")]
    Long(usize),
    #[error("{what} is {found} and not {expected}")]
    Value { what: &'static str, expected: u64, found: u64 },
    #[error("{what} is {found}, more than {limit}")]
    Many { what: &'static str, limit: u64, found: u64 },
    #[error("a length begins with the byte {0}")]
    Length(u8),
    #[error("a name is not UTF-8")]
    Name,
    #[error("column type {0} has no place in a row")]
    ColumnType(u8),
}

/// An error unless both are the same.
pub(crate) fn expect(what: &'static str, expected: u64, found: u64) -> Result<(), Malformed> {
    if expected == found { Ok(()) } else { Err(Malformed::Value { what, expected, found }) }
}

/// An error if there are more than can be.
pub(crate) fn at_most(what: &'static str, limit: u64, found: u64) -> Result<(), Malformed> {
    if found <= limit { Ok(()) } else { Err(Malformed::Many { what, limit, found }) }
}

/// What is left to read.
#[derive(Debug)]
pub(crate) struct Input(pub(crate) Bytes);

impl Input {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self, count: u64) -> Result<Bytes, Malformed> {
        match usize::try_from(count) {
            Ok(count) if count <= self.0.len() => Ok(self.0.split_to(count)),
            _ => Err(Malformed::Short { wanted: count, left: self.0.len() }),
        }
    }

    pub(crate) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let short = Malformed::Short { wanted: N as u64, left: self.0.len() };
        let array = *self.0.first_chunk().ok_or(short)?;
        self.0.advance(N);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    /// Six bytes.
    pub(crate) fn u48(&mut self) -> Result<u64, Malformed> {
        let low = self.u32()?;
        let high = self.u16()?;
        Ok(u64::from(high) << 32 | u64::from(low))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// An integer of the protocol whose first byte says how many follow.
    pub(crate) fn lenenc(&mut self) -> Result<u64, Malformed> {
        Ok(match self.u8()? {
            small @ 0..=250 => u64::from(small),
            252 => u64::from(self.u16()?),
            253 => {
                let [a, b, c] = self.array()?;
                u64::from(u32::from_le_bytes([a, b, c, 0]))
            }
            254 => self.u64()?,
            other => return Err(Malformed::Length(other)),
        })
    }

    /// Bytes behind their length.
    pub(crate) fn lenenc_bytes(&mut self) -> Result<Bytes, Malformed> {
        let length = self.lenenc()?;
        self.take(length)
    }

    /// A name of so many bytes; names of the server are UTF-8.
    pub(crate) fn name(&mut self, length: u64) -> Result<String, Malformed> {
        text(&self.take(length)?)
    }

    pub(crate) fn finish(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed::Long(self.0.len())) }
    }
}

pub(crate) fn text(bytes: &[u8]) -> Result<String, Malformed> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed::Name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        let cases: &[(&[u8], Result<u64, Malformed>)] = &[
            (&[0], Ok(0)),
            (&[250], Ok(250)),
            (&[252, 251, 0], Ok(251)),
            (&[253, 1, 2, 3], Ok(0x03_0201)),
            (&[254, 0, 0, 0, 0, 1, 0, 0, 0], Ok(1 << 32)),
            (&[251], Err(Malformed::Length(251))),
            (&[255], Err(Malformed::Length(255))),
            (&[252, 1], Err(Malformed::Short { wanted: 2, left: 1 })),
            (&[], Err(Malformed::Short { wanted: 1, left: 0 })),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Input(Bytes::copy_from_slice(bytes)).lenenc(), *expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_length_is_not_believed() {
        let mut input = Input(Bytes::from_static(b"\xfe\xff\xff\xff\xff\xff\xff\xff\xffabc"));
        assert_eq!(input.lenenc_bytes(), Err(Malformed::Short { wanted: u64::MAX, left: 3 }));
        assert_eq!(input.name(3), Ok("abc".to_owned()));
        assert_eq!(input.finish(), Ok(()));
    }
}
