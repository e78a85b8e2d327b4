//! AES as OpenPGP uses it: as a stream (CFB), and to wrap keys (RFC 3394); and its hashes.

use aes::cipher::{BlockDecrypt, BlockEncrypt, KeyInit};
use aes::{Aes128, Aes192, Aes256};
use sha1::Sha1;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

/// AES with 256 bits.
pub(super) const AES256: u8 = 9;
/// What RFC 3394 starts with; finding it again tells that nothing was changed.
const START: [u8; 8] = [0xa6; 8];

/// How many bytes the key of a cipher has; `None` for other ciphers than AES.
pub(super) fn key_len(cipher: u8) -> Option<usize> {
    match cipher {
        7 => Some(16),
        8 => Some(24),
        AES256 => Some(32),
        _ => None,
    }
}

/// The digest of some parts by the number of its hash; `None` for MD5 and other old ones.
pub(super) fn digest(hash: u8, parts: &[&[u8]]) -> Option<Vec<u8>> {
    fn of<D: Digest>(parts: &[&[u8]]) -> Vec<u8> {
        let digest = parts
            .iter()
            .fold(D::new(), |sum, part| sum.chain_update(part));
        digest.finalize().to_vec()
    }
    Some(match hash {
        2 => of::<Sha1>(parts),
        8 => of::<Sha256>(parts),
        9 => of::<Sha384>(parts),
        10 => of::<Sha512>(parts),
        11 => of::<Sha224>(parts),
        _ => return None,
    })
}

/// A key of AES.
pub(super) enum Aes {
    Short(Aes128),
    Middle(Aes192),
    Long(Aes256),
}

impl Aes {
    /// `None` unless the key has 16, 24 or 32 bytes.
    pub(super) fn new(key: &[u8]) -> Option<Aes> {
        Some(match key.len() {
            16 => Aes::Short(Aes128::new_from_slice(key).ok()?),
            24 => Aes::Middle(Aes192::new_from_slice(key).ok()?),
            32 => Aes::Long(Aes256::new_from_slice(key).ok()?),
            _ => return None,
        })
    }

    fn encrypt(&self, block: &mut [u8; 16]) {
        let block = block.into();
        match self {
            Aes::Short(aes) => aes.encrypt_block(block),
            Aes::Middle(aes) => aes.encrypt_block(block),
            Aes::Long(aes) => aes.encrypt_block(block),
        }
    }

    fn decrypt(&self, block: &mut [u8; 16]) {
        let block = block.into();
        match self {
            Aes::Short(aes) => aes.decrypt_block(block),
            Aes::Middle(aes) => aes.decrypt_block(block),
            Aes::Long(aes) => aes.decrypt_block(block),
        }
    }

    /// Encrypts in place: every block is mixed with the encryption of the one before it.
    pub(super) fn stream_in(&self, mut before: [u8; 16], content: &mut [u8]) {
        for block in content.chunks_mut(16) {
            self.encrypt(&mut before);
            for (byte, mask) in block.iter_mut().zip(&mut before) {
                *byte ^= *mask;
                *mask = *byte;
            }
        }
    }

    /// Decrypts in place what `stream_in` encrypted.
    pub(super) fn stream_out(&self, mut before: [u8; 16], content: &mut [u8]) {
        for block in content.chunks_mut(16) {
            self.encrypt(&mut before);
            for (byte, mask) in block.iter_mut().zip(&mut before) {
                let encrypted = *byte;
                *byte ^= *mask;
                *mask = encrypted;
            }
        }
    }

    /// Wraps a key, whose length is a multiple of 8; the result is 8 bytes longer.
    pub(super) fn wrap(&self, key: &[u8]) -> Vec<u8> {
        let count = key.len() / 8;
        let mut out = [&START, key].concat();
        for step in 0..6 * count {
            let at = 8 + step % count * 8;
            let mut block = [0; 16];
            block[..8].copy_from_slice(&out[..8]);
            block[8..].copy_from_slice(&out[at..at + 8]);
            self.encrypt(&mut block);
            out[..8].copy_from_slice(&counted(&block, step));
            out[at..at + 8].copy_from_slice(&block[8..]);
        }
        out
    }

    /// The key that was wrapped; `None` when it was not wrapped with this key.
    pub(super) fn unwrap(&self, wrapped: &[u8]) -> Option<Vec<u8>> {
        if wrapped.len() < 16 || !wrapped.len().is_multiple_of(8) {
            return None;
        }
        let count = wrapped.len() / 8 - 1;
        let mut out = wrapped.to_vec();
        for step in (0..6 * count).rev() {
            let at = 8 + step % count * 8;
            let mut block = [0; 16];
            block[..8].copy_from_slice(&out[..8]);
            block[8..].copy_from_slice(&out[at..at + 8]);
            let head = counted(&block, step);
            block[..8].copy_from_slice(&head);
            self.decrypt(&mut block);
            out[..8].copy_from_slice(&block[..8]);
            out[at..at + 8].copy_from_slice(&block[8..]);
        }
        let key = out.split_off(8);
        (out == START).then_some(key)
    }
}

/// The first half of a block with the number of the step mixed in; steps count from 1.
fn counted(block: &[u8; 16], step: usize) -> [u8; 8] {
    let mut half = (step as u64 + 1).to_be_bytes();
    half.iter_mut()
        .zip(block)
        .for_each(|(byte, &other)| *byte ^= other);
    half
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3394, 4.3 and 4.6: 128 bits of key data with a key of 256, and 256 with 256.
    #[test]
    fn keys_are_wrapped_as_the_standard_shows() {
        let key: Vec<u8> = (0..32).collect();
        let data: Vec<u8> = (0..16).map(|at| at * 17).chain(0..16).collect();
        for (len, wrapped) in [
            (16, "64E8C3F9CE0F5BA263E9777905818A2A93C8191E7D6E8AE7"),
            (
                32,
                "28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21",
            ),
        ] {
            let aes = Aes::new(&key).unwrap();
            let found = aes.wrap(&data[..len]);
            let hex: String = found.iter().map(|byte| format!("{byte:02X}")).collect();
            assert_eq!(hex, wrapped);
            assert_eq!(aes.unwrap(&found).unwrap(), data[..len]);
            let mut broken = found;
            broken[3] ^= 1;
            assert_eq!(aes.unwrap(&broken), None);
        }
    }
}
