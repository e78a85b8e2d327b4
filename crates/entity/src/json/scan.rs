//! Finding the next byte of interest inside a JSON string, eight bytes at a time.

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The high bit of each byte of `word` that equals `byte`. Above the lowest hit there may be
/// wrong ones, so that only the lowest may be used.
#[inline(always)]
fn equal(word: u64, byte: u8) -> u64 {
    let difference = word ^ (LOW * byte as u64);
    difference.wrapping_sub(LOW) & !difference & HIGH
}

/// The same for bytes below 32.
#[inline(always)]
fn control(word: u64) -> u64 {
    word.wrapping_sub(LOW * 32) & !word & HIGH
}

#[inline(always)]
fn find(bytes: &[u8], mut at: usize, hits: impl Fn(u64) -> u64) -> usize {
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let found = hits(u64::from_le_bytes(*chunk));
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    // The last bytes, with zeros behind them: a hit there is the end.
    let found = hits(last(&bytes[at..]));
    let place = match found {
        0 => bytes.len(),
        found => at + (found.trailing_zeros() / 8) as usize,
    };
    place.min(bytes.len())
}

/// Up to seven bytes as the low ones of a word. Those in the middle may be taken twice.
#[inline(always)]
fn last(bytes: &[u8]) -> u64 {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let last = u64::from(u32::from_le_bytes(*last));
        return u64::from(u32::from_le_bytes(*first)) | last << (8 * (bytes.len() - 4));
    }
    match *bytes {
        [a, b, c] => u64::from(a) | u64::from(b) << 8 | u64::from(c) << 16,
        [a, b] => u64::from(a) | u64::from(b) << 8,
        [a] => u64::from(a),
        _ => 0,
    }
}

/// The place of the first quote, backslash or control character from `at` on, or the end.
#[inline]
pub(super) fn string_special(bytes: &[u8], at: usize) -> usize {
    find(bytes, at, |word| {
        equal(word, b'"') | equal(word, b'\\') | control(word)
    })
}

/// The place of the first quote or backslash from `at` on, or the end.
#[inline]
pub(super) fn quote_or_backslash(bytes: &[u8], at: usize) -> usize {
    find(bytes, at, |word| equal(word, b'"') | equal(word, b'\\'))
}

/// The place of the first byte from `at` on that is no JSON white space, or the end.
#[inline]
pub(super) fn past_space(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_and_neighbour_is_found() {
        // A hit next to each byte value, at each place of a word and beyond it.
        for special in [b'"', b'\\', 0, 9, 31] {
            for other in (32..=255u8).filter(|byte| *byte != b'"' && *byte != b'\\') {
                for len in [1, 7, 8, 9, 16, 19] {
                    for at in 0..len {
                        let mut bytes = vec![other; len];
                        bytes[at] = special;
                        assert_eq!(string_special(&bytes, 0), at);
                        let quote = if special < 32 { len } else { at };
                        assert_eq!(quote_or_backslash(&bytes, 0), quote);
                    }
                }
            }
        }
    }
}
