//! Encryption with a password: Fernet tokens (AES-128-CBC, signed with HMAC-SHA256).
//!
//! Two things differ from most uses of Fernet, so that a pipe that runs again gives the same
//! bytes again and nothing counts as changed: the initialisation vector is made from the key and
//! the content, and the time in the token is 0. Equal values under equal keys have equal tokens.

use std::sync::Arc;

use aes::Aes128;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};
use ecow::EcoVec;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use tahini_entity::Value;
use tahini_entity::json::{self, Numbers};

use super::{Call, ENCRYPTED, Function, VALUES, eg, key};
use crate::expr::{Cost, Item, ItemResult};
use crate::limits::{self, Limit};
use crate::text;

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "decrypt",
        args: &[key("KEY"), VALUES],
        doc: "What \"encrypt\" encrypted with the same KEY. Values that are no such bytes, or were \
              encrypted with another key, are ignored.",
        examples: &[
            eg(
                r#"["decrypt", "k", ["encrypt", "k", ["list", "a", 1, "~rx:y"]]]"#,
                r#"["a", 1, "~rx:y"]"#,
            ),
            eg(r#"["decrypt", "other", ["encrypt", "k", "a"]]"#, "null"),
        ],
        call: Call::With(decrypt),
    },
    Function {
        name: "encrypt",
        args: &[key("KEY"), ENCRYPTED],
        doc: "All the values, as bytes that \"decrypt\" reads with the same KEY, which is a \
              password. Equal values give equal bytes.",
        examples: &[eg(
            r#"["is-bytes", ["encrypt", "k", ["list", "a"]]]"#,
            "true",
        )],
        call: Call::Costly(Cost::Made, encrypt),
    },
];

const VERSION: u8 = 0x80;
/// Version, time and initialisation vector.
const HEAD: usize = 1 + 8 + 16;
const SIGNATURE: usize = 32;

/// The two halves of a key: one signs, one encrypts.
struct Key {
    signing: [u8; 16],
    encrypting: [u8; 16],
}

impl Key {
    /// The SHA-256 of the password.
    fn of(password: &str) -> Key {
        let digest = Sha256::digest(password.as_bytes());
        let (mut signing, mut encrypting) = ([0; 16], [0; 16]);
        signing.copy_from_slice(&digest[..16]);
        encrypting.copy_from_slice(&digest[16..]);
        Key {
            signing,
            encrypting,
        }
    }

    fn mac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&self.signing)
            .expect("a signing key may have any length");
        parts.iter().for_each(|part| mac.update(part));
        mac
    }

    fn seal(&self, plain: &[u8]) -> String {
        let seed = self.mac(&[b"iv", plain]).finalize().into_bytes();
        let mut iv = [0; 16];
        iv.copy_from_slice(&seed[..16]);
        let cipher = cbc::Encryptor::<Aes128>::new(&self.encrypting.into(), &iv.into());
        let mut token = vec![VERSION, 0, 0, 0, 0, 0, 0, 0, 0];
        token.extend_from_slice(&iv);
        token.extend(cipher.encrypt_padded_vec_mut::<Pkcs7>(plain));
        let signature = self.mac(&[&token]).finalize().into_bytes();
        token.extend_from_slice(&signature);
        URL_SAFE.encode(token)
    }

    fn open(&self, token: &[u8]) -> Option<Vec<u8>> {
        let token = URL_SAFE.decode(token).ok()?;
        let (signed, signature) = token.split_at_checked(token.len().checked_sub(SIGNATURE)?)?;
        if signed.len() < HEAD || signed[0] != VERSION {
            return None;
        }
        self.mac(&[signed]).verify_slice(signature).ok()?;
        let mut iv = [0; 16];
        iv.copy_from_slice(&signed[HEAD - 16..HEAD]);
        let cipher = cbc::Decryptor::<Aes128>::new(&self.encrypting.into(), &iv.into());
        cipher.decrypt_padded_vec_mut::<Pkcs7>(&signed[HEAD..]).ok()
    }
}

fn encrypt(args: &[Value]) -> Result<Value, Limit> {
    let (Value::String(password), value) = (crate::values::first(&args[0]), &args[1]) else {
        return Ok(Value::Null);
    };
    if value.is_null() {
        return Ok(Value::Null);
    }
    let plain = text::json(value, true)?;
    limits::string(plain.len() * 2)?;
    let token = Key::of(password).seal(plain.as_bytes());
    Ok(Value::Bytes(EcoVec::from(token.as_bytes())))
}

fn decrypt(args: &[Value]) -> Result<Item, String> {
    let Value::String(password) = &args[0] else {
        return Err(format!(
            "expected a string for KEY, found {}",
            crate::values::a_kind(&args[0])
        ));
    };
    let key = Key::of(password);
    Ok(Arc::new(move |value: &Value| open(&key, value)))
}

fn open(key: &Key, value: &Value) -> ItemResult {
    let token = match value {
        Value::Bytes(bytes) => bytes.as_slice(),
        Value::String(text) => text.as_bytes(),
        _ => return Ok(None),
    };
    let plain = key.open(token);
    Ok(plain.and_then(|plain| json::parse_value(&plain, Numbers::FLOATS).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Fernet specification, whose key halves are given.
    #[test]
    fn a_token_of_the_specification_opens() {
        let secret = URL_SAFE
            .decode("cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=")
            .unwrap();
        let mut key = Key {
            signing: [0; 16],
            encrypting: [0; 16],
        };
        key.signing.copy_from_slice(&secret[..16]);
        key.encrypting.copy_from_slice(&secret[16..]);
        let token = "gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA==";
        assert_eq!(key.open(token.as_bytes()).unwrap(), b"hello");
        let mut broken = token.to_owned().into_bytes();
        broken[30] ^= 1;
        assert_eq!(key.open(&broken), None);
    }
}
