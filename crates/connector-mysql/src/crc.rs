//! The checksum of the binary log: CRC-32 as in IEEE 802.3 and zlib, eight bytes a step.

/// The reversed polynomial 0x04C11DB7.
const POLYNOMIAL: u32 = 0xEDB8_8320;

/// `TABLES[n][byte]` is what `byte` does to the checksum when `n` more bytes follow it.
static TABLES: [[u32; 256]; 8] = tables();

pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    let (steps, rest) = bytes.as_chunks::<8>();
    let mut crc = u32::MAX;
    for step in steps {
        let mixed = (u64::from_le_bytes(*step) ^ u64::from(crc)).to_le_bytes();
        let tables = TABLES.iter().rev();
        crc = mixed.iter().zip(tables).fold(0, |crc, (&byte, table)| crc ^ table[usize::from(byte)]);
    }
    for &byte in rest {
        crc = (crc >> 8) ^ TABLES[0][usize::from(crc.to_le_bytes()[0] ^ byte)];
    }
    !crc
}

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut following = 1;
    while following < 8 {
        let mut byte = 0;
        while byte < 256 {
            let crc = tables[following - 1][byte];
            tables[following][byte] = (crc >> 8) ^ tables[0][(crc & 0xff) as usize];
            byte += 1;
        }
        following += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_checksums() {
        let cases: &[(&[u8], u32)] = &[
            (b"", 0),
            (b"a", 0xE8B7_BE43),
            (b"123456789", 0xCBF4_3926),
            (b"The quick brown fox jumps over the lazy dog", 0x414F_A339),
        ];
        for (bytes, expected) in cases {
            assert_eq!(crc32(bytes), *expected, "{bytes:?}");
        }
    }

    proptest! {
        /// The definition, bit by bit.
        #[test]
        fn eight_bytes_a_step_are_as_good_as_one_bit(bytes in vec(any::<u8>(), 0..100)) {
            let mut crc = u32::MAX;
            for &byte in &bytes {
                crc ^= u32::from(byte);
                for _ in 0..8 {
                    crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
                }
            }
            prop_assert_eq!(crc32(&bytes), !crc);
        }
    }
}
