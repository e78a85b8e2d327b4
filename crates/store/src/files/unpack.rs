//! Unpacking a block's LZ4 a part at a time: whoever wants one row needs what stands before it and
//! no more, which is half a block.

/// Copies are made in pieces of one size, and may write so many bytes too many.
pub(crate) const SPARE: usize = 32;
/// The least that is repeated.
const LEAST: usize = 4;
/// A length that goes on in the next bytes.
pub(super) const LONG: usize = 15;

/// How far a block is unpacked.
#[derive(Clone, Copy, Default)]
pub(crate) struct Unpacked {
    /// Bytes of the packed ones that were taken.
    taken: usize,
    /// Bytes that are there.
    pub done: usize,
}

impl Unpacked {
    /// Goes on until `until` bytes are there, or some more. `out` is longer by `SPARE` than the
    /// whole will be. `None` when `packed` is not what becomes so many bytes.
    pub fn reach(&mut self, packed: &[u8], out: &mut [u8], until: usize) -> Option<()> {
        let whole = out.len().checked_sub(SPARE)?;
        let Unpacked {
            mut taken,
            mut done,
        } = *self;
        while done < until {
            let token = usize::from(*packed.get(taken)?);
            taken += 1;
            let mut literals = token >> 4;
            let offset = match packed.get(taken..)?.first_chunk::<18>() {
                // The usual case, without a question that depends on how many there are.
                Some(next) if literals < LONG => {
                    put::<16>(out, done, *next.first_chunk()?)?;
                    taken += literals;
                    done += literals;
                    [next[literals], next[literals + 1]]
                }
                _ => {
                    if literals == LONG {
                        literals += length(packed, &mut taken)?;
                    }
                    let from = packed.get(taken..taken.checked_add(literals)?)?;
                    out[..whole]
                        .get_mut(done..done + literals)?
                        .copy_from_slice(from);
                    taken += literals;
                    done += literals;
                    if taken == packed.len() {
                        break;
                    }
                    *packed.get(taken..)?.first_chunk()?
                }
            };
            taken += 2;
            let mut len = token & LONG;
            if len == LONG {
                len += length(packed, &mut taken)?;
            }
            len += LEAST;
            if len > whole.checked_sub(done)? {
                return None;
            }
            let offset = usize::from(u16::from_le_bytes(offset));
            repeat(out, offset, done, len)?;
            done += len;
        }
        *self = Unpacked { taken, done };
        (done >= until).then_some(())
    }
}

/// The rest of a length: bytes that are added up, the last of which is not 255.
pub(super) fn length(packed: &[u8], taken: &mut usize) -> Option<usize> {
    let mut length = 0;
    loop {
        let byte = *packed.get(*taken)?;
        *taken += 1;
        length += usize::from(byte);
        if byte < u8::MAX {
            return Some(length);
        }
    }
}

/// Repeats `len` bytes at `to`, those which begin `offset` before it; these may reach beyond it.
#[inline]
fn repeat(out: &mut [u8], offset: usize, to: usize, len: usize) -> Option<()> {
    let from = to.checked_sub(offset)?;
    match offset {
        16.. => {
            // Without asking how many there are: most are not longer.
            copy::<16>(out, from, to)?;
            copy::<16>(out, from + 16, to + 16)?;
            if len > 32 {
                repeat_by::<16>(out, from + 32, to + 32, len - 32)?;
            }
            Some(())
        }
        8.. => repeat_by::<8>(out, from, to, len),
        0 => None,
        _ => repeat_by::<1>(out, from, to, len),
    }
}

/// The same in pieces of `N` bytes, no more than the offset.
#[inline]
fn repeat_by<const N: usize>(out: &mut [u8], from: usize, to: usize, len: usize) -> Option<()> {
    for at in (0..len).step_by(N) {
        copy::<N>(out, from + at, to + at)?;
    }
    Some(())
}

#[inline(always)]
fn copy<const N: usize>(out: &mut [u8], from: usize, to: usize) -> Option<()> {
    let chunk = *out.get(from..)?.first_chunk::<N>()?;
    put(out, to, chunk)
}

#[inline(always)]
fn put<const N: usize>(out: &mut [u8], at: usize, chunk: [u8; N]) -> Option<()> {
    *out.get_mut(at..)?.first_chunk_mut::<N>()? = chunk;
    Some(())
}

#[cfg(test)]
mod tests {
    use lz4_flex::block::compress;
    use proptest::prelude::*;

    use super::*;

    /// What is unpacked in steps of so many bytes.
    fn unpack(packed: &[u8], whole: usize, step: usize) -> Option<Vec<u8>> {
        let mut out = vec![0xEE; whole + SPARE];
        let mut unpacked = Unpacked::default();
        let mut until = 0;
        while until < whole {
            until = (until + step).min(whole);
            unpacked.reach(packed, &mut out, until)?;
            assert!((until..=whole).contains(&unpacked.done));
        }
        out.truncate(whole);
        Some(out)
    }

    /// Bytes that repeat themselves at all distances, in runs of all lengths.
    fn rows() -> impl Strategy<Value = Vec<u8>> {
        let part = (any::<[u8; 3]>(), 1..400usize, 1..40usize);
        proptest::collection::vec(part, 0..60).prop_map(|parts| {
            let mut bytes = Vec::new();
            for (seed, len, distance) in parts {
                match seed[0] % 3 {
                    0 => {
                        bytes.extend((0..len).map(|at| (at * usize::from(seed[1])) as u8 ^ seed[2]))
                    }
                    _ => {
                        for _ in 0..len {
                            let from = bytes
                                .len()
                                .checked_sub(distance * usize::from(seed[1] % 9 + 1));
                            bytes.push(from.map_or(seed[2], |from| bytes[from]));
                        }
                    }
                }
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_back_in_steps_of_any_length(bytes in rows(), step in 1..5_000usize) {
            let packed = compress(&bytes);
            prop_assert_eq!(unpack(&packed, bytes.len(), step), Some(bytes.clone()));
            prop_assert_eq!(unpack(&packed, bytes.len(), usize::MAX / 2), Some(bytes));
        }

        #[test]
        fn other_bytes_end_the_work_and_not_the_process(packed: Vec<u8>, whole in 0..3_000usize) {
            let _ = unpack(&packed, whole, 100);
        }

        #[test]
        fn what_is_too_short_or_too_long_is_refused(bytes in rows(), by in 1..50usize) {
            let packed = compress(&bytes);
            prop_assert_eq!(unpack(&packed, bytes.len() + by, 1_000), None);
            if let Some(cut) = packed.len().checked_sub(by) && !bytes.is_empty() {
                prop_assert_eq!(unpack(&packed[..cut], bytes.len(), 1_000), None);
            }
        }
    }
}
