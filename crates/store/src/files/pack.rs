//! Packing a long row: LZ4 of two parts as if they stood behind each other, without a place in
//! memory where they do.

use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};

use super::unpack::{LONG, length};

/// Appends the LZ4 of `lead` and `body` to `out`. The lead is not made shorter: it is put before
/// what the body's first sequence takes over as it is, and nothing behind that has to change, since
/// what is repeated is named by how far back it is.
pub(crate) fn pack(lead: &[u8], body: &[u8], table: &mut CompressTable, out: &mut Vec<u8>) {
    let at = out.len();
    // The lead, and what the length of the first sequence may take more because of it.
    let from = at + lead.len() + lead.len() / 255 + 1;
    out.resize(from + get_maximum_output_size(body.len()), 0);
    let packed = compress_into_with_table(body, &mut out[from..], table)
        .expect("the room is as large as the worst case");
    out.truncate(from + packed);
    let (token, mut taken) = (usize::from(out[from]), 1);
    let mut literals = token >> 4;
    if literals == LONG {
        literals += length(&out[from..], &mut taken).expect("what was packed just now is whole");
    }
    let first = opening(literals + lead.len(), token & LONG, lead);
    let start = from + taken - first.len();
    out[start..from + taken].copy_from_slice(&first);
    out.copy_within(start.., at);
    out.truncate(out.len() - (start - at));
}

/// A sequence up to and with its first literals, of which there are so many in all.
fn opening(literals: usize, repeated: usize, lead: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(literals / 255 + 2 + lead.len());
    bytes.push((literals.min(LONG) << 4 | repeated) as u8);
    if let Some(more) = literals.checked_sub(LONG) {
        bytes.resize(bytes.len() + more / 255, u8::MAX);
        bytes.push((more % 255) as u8);
    }
    bytes.extend_from_slice(lead);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::unpack::{SPARE, Unpacked};
    use super::*;

    fn check(lead: &[u8], body: &[u8]) {
        let mut out = b"before".to_vec();
        pack(lead, body, &mut CompressTable::small(), &mut out);
        let packed = out.strip_prefix(b"before").unwrap();
        let whole = [lead, body].concat();
        assert_eq!(
            lz4_flex::block::decompress(packed, whole.len()).unwrap(),
            whole
        );
        let mut room = vec![0xEE; whole.len() + SPARE];
        let unpacked = Unpacked::default().reach(packed, &mut room, whole.len());
        assert_eq!(unpacked, Some(()));
        assert_eq!(&room[..whole.len()], whole);
    }

    proptest! {
        #[test]
        fn both_parts_come_back(
            lead in proptest::collection::vec(any::<u8>(), 0..900),
            parts in proptest::collection::vec((any::<[u8; 2]>(), 1..700usize), 0..12),
        ) {
            let repeated = parts.iter().flat_map(|(bytes, times)| bytes.repeat(*times));
            check(&lead, &repeated.collect::<Vec<_>>());
        }
    }

    #[test]
    fn lengths_at_every_border_come_back() {
        // Text without a repetition: all of it is the first sequence.
        let text: Vec<u8> = (0..2_000u32)
            .flat_map(|at| at.wrapping_mul(0x9E37_79B9).to_be_bytes())
            .collect();
        for lead in [
            0, 1, 14, 15, 16, 239, 240, 254, 255, 256, 269, 270, 271, 525,
        ] {
            for body in [
                0, 1, 13, 14, 15, 16, 254, 255, 269, 270, 271, 524, 525, 8_000,
            ] {
                check(&vec![b'x'; lead], &text[..body]);
            }
        }
    }
}
