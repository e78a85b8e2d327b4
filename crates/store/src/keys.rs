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

/// The places of `count` keys in the order of the keys; equal ones in the order of their places.
///
/// Ids of a dataset begin alike, so that comparing them whole walks over the same bytes again and
/// again. What all have in common is left out, and the eight bytes behind it are compared as a
/// number.
pub(crate) fn key_order<'k>(count: usize, key: impl Fn(usize) -> &'k [u8]) -> Vec<u32> {
    let in_order = (1..count).all(|at| key(at - 1) <= key(at));
    if in_order {
        return (0..count as u32).collect();
    }
    let first = key(0);
    let common = (1..count).fold(first.len(), |common, at| {
        let pairs = first[..common].iter().zip(key(at));
        pairs.take_while(|(one, two)| one == two).count()
    });
    let mut heads: Vec<(u64, u32)> = (0..count)
        .map(|at| (head(&key(at)[common..]), at as u32))
        .collect();
    heads.sort_unstable_by(|(one, at), (two, other)| {
        one.cmp(two).then_with(|| {
            let rest = |at: u32| &key(at as usize)[common..];
            rest(*at).cmp(rest(*other)).then(at.cmp(other))
        })
    });
    heads.into_iter().map(|(_, at)| at).collect()
}

/// The first eight bytes as a number that sorts as they do.
fn head(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let len = key.len().min(8);
    bytes[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(bytes)
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
    fn keys_are_ordered_as_whole_ones_are_and_equal_ones_stay() {
        let all: [&[&str]; 5] = [
            &[],
            &["b", "a", "a", "", "a\0", "b"],
            &[
                "id:2",
                "id:10",
                "id:1",
                "id:",
                "id:1",
                "id:12345678",
                "id:123456789",
            ],
            &["same", "same", "other"],
            &[
                "prefix:12345678:b",
                "prefix:12345678:a",
                "prefix:1234567",
                "prefix:12345678",
            ],
        ];
        for keys in all {
            let mut expected: Vec<u32> = (0..keys.len() as u32).collect();
            expected.sort_by_key(|at| keys[*at as usize].as_bytes());
            assert_eq!(key_order(keys.len(), |at| keys[at].as_bytes()), expected);
        }
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
