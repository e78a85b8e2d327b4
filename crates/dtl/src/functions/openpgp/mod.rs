//! OpenPGP messages: text encrypted to a public key, and decrypted with the private one.
//!
//! As much of RFC 4880 and RFC 6637 as that takes: version 4 keys with RSA or Curve25519, AES,
//! messages with an integrity check, in armour. The primitives are crates; signatures are not
//! looked at, since a key comes from the configuration and is trusted for that.

mod armor;
mod cipher;
mod curve25519;
mod key;
mod message;
mod packet;

pub(crate) use key::{PrivateKeys, PublicKey};
pub(crate) use message::{decrypt, encrypt};

/// The sum of all bytes, modulo 65,536.
fn sum(bytes: &[u8]) -> [u8; 2] {
    let sum = bytes
        .iter()
        .fold(0u16, |sum, &byte| sum.wrapping_add(byte.into()));
    sum.to_be_bytes()
}
