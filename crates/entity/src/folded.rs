//! Maps by keys that are hashes already, as those of `order::key` are.
//!
//! What such a key was made of comes from outside, and the hash that made it is no secret: whoever
//! knows it can make values whose keys share the bits that a map would place them by. So a key is
//! not taken as it is but multiplied out with two numbers that are drawn for each map and that
//! nobody outside knows, and once more with one that everybody may know: keys in steps of the same
//! width would come to few places by one product. That takes two multiplications, where the usual
//! hash of a map takes as long as it took to make the key.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};

/// A map by keys that are hashes, or that hold one.
pub type FoldedMap<K, V> = HashMap<K, V, Fold>;

/// A set of keys that are hashes, or that hold one.
pub type FoldedSet<K> = HashSet<K, Fold>;

/// What a product is multiplied out with at the end: the golden ratio's bits.
const LAST: u64 = 0x9E37_79B9_7F4A_7C15;

/// The two numbers of a map.
#[derive(Clone)]
pub struct Fold {
    high: u64,
    low: u64,
}

impl Default for Fold {
    fn default() -> Fold {
        let drawn = RandomState::new();
        Fold {
            high: drawn.hash_one(0u8),
            low: drawn.hash_one(1u8),
        }
    }
}

impl BuildHasher for Fold {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded {
            secret: self.high,
            state: self.low,
        }
    }
}

/// A key that is being multiplied out.
pub struct Folded {
    secret: u64,
    state: u64,
}

impl Hasher for Folded {
    fn write_u128(&mut self, key: u128) {
        let (high, low) = ((key >> 64) as u64, key as u64);
        self.state = fold(high ^ self.secret, low ^ self.state);
    }

    fn write_u8(&mut self, part: u8) {
        self.write_u128(part.into());
    }

    fn write_u32(&mut self, part: u32) {
        self.write_u128(part.into());
    }

    fn write_u64(&mut self, part: u64) {
        self.write_u128(part.into());
    }

    fn write_usize(&mut self, part: usize) {
        self.write_u128(part as u128);
    }

    fn write(&mut self, bytes: &[u8]) {
        // The length is part of it: zeros are what a last piece is filled up with.
        self.write_usize(bytes.len());
        for piece in bytes.chunks(16) {
            let mut filled = [0; 16];
            filled[..piece.len()].copy_from_slice(piece);
            self.write_u128(u128::from_le_bytes(filled));
        }
    }

    fn finish(&self) -> u64 {
        fold(self.state, LAST)
    }
}

/// The halves of a product, one over the other.
fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `keys` share the place of another one in a table of 2^`bits` places.
    fn crowded(keys: impl Iterator<Item = u128>, bits: u32) -> usize {
        let fold = Fold::default();
        let mut places = HashSet::new();
        // A map takes the place from the last bits.
        let place = |key| fold.hash_one(key) % (1 << bits);
        keys.filter(|key| !places.insert(place(*key))).count()
    }

    #[test]
    fn keys_that_share_half_of_their_bits_do_not_share_a_place() {
        let count = 1 << 14;
        // By chance, of so many keys in 16 times as many places about one in 33 does.
        let most = count as usize / 20;
        // Maps whose numbers suit some keys badly are met in so many.
        for shift in [0, 32, 64, 96, 113].into_iter().cycle().take(100) {
            let found = crowded((0..count).map(|key: u128| key << shift), 18);
            assert!(found < most, "{found} of {count}, shifted by {shift}");
            // Both halves alike, and all other bits set.
            let found = crowded((0..count).map(|key| !(key | key << shift)), 18);
            assert!(found < most, "{found} of {count} twice, shifted by {shift}");
        }
    }

    #[test]
    fn each_map_has_numbers_of_its_own() {
        let places: HashSet<u64> = (0..100).map(|_| Fold::default().hash_one(5u128)).collect();
        assert_eq!(places.len(), 100);
    }

    #[test]
    fn all_of_a_key_counts() {
        let fold = Fold::default();
        let keys = [
            fold.hash_one((1u32, 2u128)),
            fold.hash_one((2u32, 2u128)),
            fold.hash_one((1u32, 3u128)),
            fold.hash_one("a text of more than sixteen bytes"),
            fold.hash_one("a text of more than sixteen bytez"),
            fold.hash_one("a\0"),
            fold.hash_one("a"),
            fold.hash_one(1u64),
            fold.hash_one((1u64, 1u64)),
        ];
        let all: HashSet<u64> = keys.into_iter().collect();
        assert_eq!(all.len(), keys.len());
    }
}
