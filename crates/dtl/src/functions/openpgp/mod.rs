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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> (PublicKey, PrivateKeys, String) {
        let keys: serde_json::Value =
            serde_json::from_str(super::super::public_keys::PGP_KEYS).unwrap();
        let text = |name: &str| keys[name].as_str().unwrap().to_owned();
        let private = PrivateKeys::read(&text("private-key"), "open sesame").unwrap();
        let public = PublicKey::read(&text("public-key")).unwrap();
        (public, private, text("private-key"))
    }

    /// Each of some bytes of a block takes another value, or the block ends there.
    fn broken(block: &str, kind: &str, changes: &[(prop::sample::Index, Option<u8>)]) -> String {
        let mut bytes = armor::open(block, kind).unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len().max(1));
            match byte {
                Some(byte) if at < bytes.len() => bytes[at] = *byte,
                _ => bytes.truncate(at),
            }
        }
        armor::close(&bytes, kind)
    }

    fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, Option<u8>)>> {
        let byte = prop_oneof![9 => any::<u8>().prop_map(Some), 1 => Just(None)];
        prop::collection::vec((any::<prop::sample::Index>(), byte), 1..4)
    }

    #[test]
    fn broken_messages_are_ignored() {
        let (public, private, _) = keys();
        let message = encrypt(&public, "the text").unwrap().unwrap();
        assert_eq!(
            decrypt(&private, &message).unwrap().as_deref(),
            Some("the text")
        );
        proptest!(|(changes in changes())| {
            let message = broken(&message, "MESSAGE", &changes);
            let text = decrypt(&private, &message).unwrap();
            // A change may leave everything as it was, but never give another text.
            prop_assert!(text.is_none_or(|text| text == "the text"));
        });
    }

    #[test]
    fn broken_keys_are_keys_or_errors() {
        let (_, _, private) = keys();
        proptest!(|(changes in changes(), any in any::<Vec<u8>>())| {
            let _ = PrivateKeys::read(&broken(&private, "PRIVATE KEY BLOCK", &changes), "open sesame");
            let _ = PrivateKeys::read(&armor::close(&any, "PRIVATE KEY BLOCK"), "");
            let _ = PublicKey::read(&armor::close(&any, "PUBLIC KEY BLOCK"));
        });
    }
}
