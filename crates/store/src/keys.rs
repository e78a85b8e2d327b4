//! How ids and state keys become keys of the index, whose keys have a limit.

use std::borrow::Cow;

use xxhash_rust::xxh3::xxh3_128;

/// Longer keys are cut and hashed: LMDB's keys end at 511 bytes.
const LONGEST: usize = 400;
/// How much of a longer key stays readable, so that prefixes still sort together.
const KEPT: usize = 380;
/// Fills a cut key up to a length that no whole key has.
const FILL: [u8; 5] = [0xFF; 5];

/// The index key of an id: the id itself, or its first 380 bytes, five bytes `FF` and its
/// xxh3-128. A cut key is 401 bytes long and a whole one at most 400, so they never meet.
pub(crate) fn index_key(whole: &[u8]) -> Cow<'_, [u8]> {
    if whole.len() <= LONGEST {
        return Cow::Borrowed(whole);
    }
    let mut key = Vec::with_capacity(KEPT + FILL.len() + 16);
    key.extend_from_slice(&whole[..KEPT]);
    key.extend_from_slice(&FILL);
    key.extend_from_slice(&xxh3_128(whole).to_be_bytes());
    Cow::Owned(key)
}

/// Whether `key` stands for something longer than itself.
pub(crate) fn is_cut(key: &[u8]) -> bool {
    key.len() > LONGEST
}

/// The part of a prefix that index keys are sure to start with.
pub(crate) fn sure_prefix(prefix: &[u8]) -> &[u8] {
    &prefix[..prefix.len().min(KEPT)]
}

/// A state key with its space in front; a space holds no NUL, so the border is certain.
pub(crate) fn state_key(space: &str, key: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(space.len() + 1 + key.len());
    whole.extend_from_slice(space.as_bytes());
    whole.push(0);
    whole.extend_from_slice(key);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_up_to_the_limit_stay_whole() {
        let id = "x".repeat(400);
        assert_eq!(index_key(id.as_bytes()).as_ref(), id.as_bytes());
        assert!(!is_cut(&index_key(id.as_bytes())));
    }

    #[test]
    fn longer_keys_differ_by_their_end_and_fit() {
        let one = index_key("x".repeat(401).as_bytes()).into_owned();
        let two = index_key(format!("{}y", "x".repeat(400)).as_bytes()).into_owned();
        assert_ne!(one, two);
        assert_eq!(one.len(), 401);
        assert_eq!(&one[..380], "x".repeat(380).as_bytes());
        assert!(is_cut(&one) && is_cut(&two));
    }
}
