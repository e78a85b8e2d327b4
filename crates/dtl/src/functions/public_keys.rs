//! Encryption with pairs of keys: RSA for short texts, OpenPGP for texts of any length.
//!
//! Both are random: equal texts give different results each time, since whoever has the public
//! key could otherwise find a short text by trying.

use std::sync::Arc;

use ecow::EcoVec;
use rsa::pkcs1::{DecodeRsaPrivateKey, DecodeRsaPublicKey};
use rsa::pkcs8::{DecodePrivateKey, DecodePublicKey};
use rsa::rand_core::OsRng;
use rsa::traits::PublicKeyParts;
use rsa::{Oaep, RsaPrivateKey, RsaPublicKey};
use sha1::Sha1;
use sha2::Sha256;
use tahini_entity::Value;

use super::openpgp::{self, PrivateKeys, PublicKey};
use super::{Call, ENCRYPTED, Function, VALUES, key, of};
use crate::expr::Item;
use crate::limits::Limit;

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "decrypt-pgp",
        args: &[key("PRIVATE_KEY"), key("PASSPHRASE"), VALUES],
        doc: "Decrypts OpenPGP messages, which start with \"-----BEGIN PGP MESSAGE-----\", to strings. \
              PRIVATE_KEY is a PGP PRIVATE KEY BLOCK with an RSA or Curve25519 key, PASSPHRASE \
              unlocks it. What it does not decrypt is ignored.",
        examples: &[of(
            r#"["decrypt-pgp", "_S.private-key", "open sesame", ["encrypt-pgp", "_S.public-key", ["list", "a", "b"]]]"#,
            PGP_KEYS,
            r#"["a", "b"]"#,
        )],
        call: Call::With(decrypt_pgp),
    },
    Function {
        name: "decrypt-pki",
        args: &[key("PRIVATE_KEY"), VALUES],
        doc: "Decrypts bytes to strings with an RSA key in PEM format: PRIVATE_KEY starts with \
              \"-----BEGIN RSA PRIVATE KEY-----\" or \"-----BEGIN PRIVATE KEY-----\". The bytes are \
              padded by OAEP with SHA-256 or SHA-1. What it does not decrypt is ignored.",
        examples: &[of(
            r#"["decrypt-pki", "_S.private-key", ["encrypt-pki", "_S.public-key", ["list", "a", "b"]]]"#,
            RSA_KEYS,
            r#"["a", "b"]"#,
        )],
        call: Call::With(decrypt_pki),
    },
    Function {
        name: "encrypt-pgp",
        args: &[key("PUBLIC_KEY"), ENCRYPTED],
        doc: "Encrypts strings as OpenPGP messages in ASCII armour. PUBLIC_KEY is a PGP PUBLIC KEY \
              BLOCK with an RSA or Curve25519 key. Each call gives other messages. Other values \
              are ignored.",
        examples: &[of(
            r#"["matches", "-----BEGIN PGP MESSAGE-----*", ["encrypt-pgp", "_S.public-key", "a"]]"#,
            PGP_KEYS,
            "true",
        )],
        call: Call::With(encrypt_pgp),
    },
    Function {
        name: "encrypt-pki",
        args: &[key("PUBLIC_KEY"), ENCRYPTED],
        doc: "Encrypts short strings to bytes with an RSA key in PEM format: PUBLIC_KEY starts with \
              \"-----BEGIN PUBLIC KEY-----\". They are padded by OAEP with SHA-256, so that a key of \
              2048 bits takes 190 bytes; a longer string is an error, and \"encrypt-pgp\" the \
              function for it. Each call gives other bytes. Other values are ignored.",
        examples: &[of(
            r#"["is-bytes", ["encrypt-pki", "_S.public-key", "a"]]"#,
            RSA_KEYS,
            "true",
        )],
        call: Call::With(encrypt_pki),
    },
];

/// What OAEP with SHA-256 takes of the key's length.
const PADDING: usize = 2 * 32 + 2;

/// The text of an argument, for a key or passphrase.
fn text<'v>(value: &'v Value, name: &str) -> Result<&'v str, String> {
    value.as_str().ok_or_else(|| {
        let found = crate::values::a_kind(value);
        format!("expected a string for {name}, found {found}")
    })
}

fn encrypt_pki(args: &[Value]) -> Result<Item, String> {
    let pem = text(&args[0], "PUBLIC_KEY")?.trim();
    let key = RsaPublicKey::from_public_key_pem(pem)
        .ok()
        .or_else(|| RsaPublicKey::from_pkcs1_pem(pem).ok())
        .filter(|key| key.size() > PADDING)
        .ok_or("expected an RSA public key in PEM format (\"-----BEGIN PUBLIC KEY-----\") of at most 4096 bits, found other text")?;
    let most = key.size() - PADDING;
    Ok(Arc::new(move |value: &Value| {
        let Value::String(text) = value else {
            return Ok(None);
        };
        if text.len() > most {
            return Err(Limit("bytes in a string for encrypt-pki", most as u64));
        }
        let sealed = key.encrypt(&mut OsRng, Oaep::new::<Sha256>(), text.as_bytes());
        Ok(sealed.ok().map(|bytes| Value::Bytes(EcoVec::from(bytes))))
    }))
}

fn decrypt_pki(args: &[Value]) -> Result<Item, String> {
    let pem = text(&args[0], "PRIVATE_KEY")?.trim();
    let key = RsaPrivateKey::from_pkcs1_pem(pem)
        .ok()
        .or_else(|| RsaPrivateKey::from_pkcs8_pem(pem).ok())
        .ok_or("expected an RSA private key in PEM format (\"-----BEGIN RSA PRIVATE KEY-----\"), found other text")?;
    Ok(Arc::new(move |value: &Value| {
        let Value::Bytes(bytes) = value else {
            return Ok(None);
        };
        let open = |padding| key.decrypt_blinded(&mut OsRng, padding, bytes).ok();
        let plain = open(Oaep::new::<Sha256>()).or_else(|| open(Oaep::new::<Sha1>()));
        let text = plain.and_then(|plain| String::from_utf8(plain).ok());
        Ok(text.map(Value::string))
    }))
}

fn encrypt_pgp(args: &[Value]) -> Result<Item, String> {
    let key = PublicKey::read(text(&args[0], "PUBLIC_KEY")?)?;
    Ok(Arc::new(move |value: &Value| match value {
        Value::String(text) => Ok(openpgp::encrypt(&key, text)?.map(Value::string)),
        _ => Ok(None),
    }))
}

fn decrypt_pgp(args: &[Value]) -> Result<Item, String> {
    let passphrase = text(&args[1], "PASSPHRASE")?;
    let keys = PrivateKeys::read(text(&args[0], "PRIVATE_KEY")?, passphrase)?;
    Ok(Arc::new(move |value: &Value| match value {
        Value::String(text) => Ok(openpgp::decrypt(&keys, text)?.map(Value::string)),
        _ => Ok(None),
    }))
}

/// Keys of the examples, too short for anything else.
const RSA_KEYS: &str = r#"{"public-key": "-----BEGIN PUBLIC KEY-----\nMIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDEOFjhOAL9SOD/YdxO6F+R4pkA\nPrfdKuyAPEHfTa/2Lr4DGfFhyaIemMdisOoA5zE8ArwMh0dtEKPN8TE7S1CliMzb\nIYLASP/jAFObC3m388rHv0OZq3wrswWwbDXH5AaEmnbMZN161gG3ii/a06uGvuJx\nVC4AVhu3dq6DvG5cMQIDAQAB\n-----END PUBLIC KEY-----\n", "private-key": "-----BEGIN RSA PRIVATE KEY-----\nMIICXAIBAAKBgQDEOFjhOAL9SOD/YdxO6F+R4pkAPrfdKuyAPEHfTa/2Lr4DGfFh\nyaIemMdisOoA5zE8ArwMh0dtEKPN8TE7S1CliMzbIYLASP/jAFObC3m388rHv0OZ\nq3wrswWwbDXH5AaEmnbMZN161gG3ii/a06uGvuJxVC4AVhu3dq6DvG5cMQIDAQAB\nAoGAaM5kAuAFEL6llyLxJqCNs4FiEbRuRs7PhespkBmRvB/ZVBS+TmoBkvAtx3QR\neSwDqzcWtGZpa0LxC2Yh0rb2upS1Q7szjMAkLNvXfrbFvEcXx3nIrbZZWxqQ1Zdd\nUZYsosYSUiH2g/JGu/IlMjv4ia2J2VmFllYe4z8lhpSbi9UCQQDjPgV5Lwmuu35f\nhSHDP1lUQiAZ6NfhrVnJgS098bgtOEHJcquk2YnDTpPG19/+nO3kleVg/iGRmdeL\nTCNr9mufAkEA3Q1MnH378vK0ROueyjA2DtGopqmXEGyOUuMjJiu3STyy2aNDNx01\nqHwOA61dzvWeHEK2EG7f8noKHdrIjmkmLwJBAK5g4qxaxzBZ2qEMNZtxmmgJEj8v\nqbIZZ4Q053XYbr/sorcmksa+1HOWcdotwErPO9KkoE+s1C+6AWh4ddocT/sCQCp5\nsLvtVWlki5EmuVdeljSYwtBri/SC94Ij1RAznD99Y1yAi5zehv3+AG9ic8Ed3yjN\nBND5jRy5qJH+BUWgHM8CQCpQ3Y7+LYZA3GUuCZn3R6PzFxpooBjdHHtkAyOgknhX\n3PvWz3NDfa0v7jEXfdbrTntqLhinRx00mXl0pEFOMMU=\n-----END RSA PRIVATE KEY-----\n"}"#;
/// Keys of the examples, with their passphrase in the example.
pub(super) const PGP_KEYS: &str = r#"{"public-key": "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDMEawFGxBYJKwYBBAHaRw8BAQdAbfrvvnj54mXhfhcKOHxJnvSUs+IkyVNWtzsz\n5ingr4O0AWuIkAQTFggAOBYhBM3wIWyeDnTBpE50C2txBf2xxGctBQJrAUbEAhsD\nBQsJCAcCBhUKCQgLAgQWAgMBAh4BAheAAAoJEGtxBf2xxGctsbcBAIauEL5penrs\n445+Tpf76D7Lqf4bSbobQwXGAur6ocEaAP0YyULofUSDHjAD6B2eI7aUcUgtlmaw\n9nDWj4PBj1U6A7g4BGsBRsQSCisGAQQBl1UBBQEBB0BGFi7yo1kJgZAamYnbFkgb\nP6iygnb06F/N9RZoQvNvHwMBCAeIeAQYFggAIBYhBM3wIWyeDnTBpE50C2txBf2x\nxGctBQJrAUbEAhsMAAoJEGtxBf2xxGct1+oBALs4L+4c/N7N24mUy5x5mcoS82sI\nyDGVX4V+SyssHH8wAPwJQkE5W1l0TmLV5WxkHlb+At3AXm+I68yOlwFYjSaxAw==\n=Au8L\n-----END PGP PUBLIC KEY BLOCK-----\n", "private-key": "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlIYEawFGxBYJKwYBBAHaRw8BAQdAbfrvvnj54mXhfhcKOHxJnvSUs+IkyVNWtzsz\n5ingr4P+BwMC6PuhEIMOEylg6TvejNHKI0PosPfCDo3npBQXNgohFF/iiOZfF2MC\nBl2z3fm/KRA5IAE+s4J/AtAabBSMjXM/CvNcbnqMvXTW2pcbdjOMWbQBa4iQBBMW\nCAA4FiEEzfAhbJ4OdMGkTnQLa3EF/bHEZy0FAmsBRsQCGwMFCwkIBwIGFQoJCAsC\nBBYCAwECHgECF4AACgkQa3EF/bHEZy2xtwEAhq4Qvml6euzjjn5Ol/voPsup/htJ\nuhtDBcYC6vqhwRoA/RjJQuh9RIMeMAPoHZ4jtpRxSC2WZrD2cNaPg8GPVToDnIsE\nawFGxBIKKwYBBAGXVQEFAQEHQEYWLvKjWQmBkBqZidsWSBs/qLKCdvToX831FmhC\n828fAwEIB/4HAwLrtlOAJrl082D8FOVIKY6ZeEisO5QwnSavonrNCCNH//1O45qf\ncqfWAjlxEYlABuYQeQ/o8jZH1wvOHSOUaxh2A7JzkGGWPJeesg36HsHciHgEGBYI\nACAWIQTN8CFsng50waROdAtrcQX9scRnLQUCawFGxAIbDAAKCRBrcQX9scRnLdfq\nAQC7OC/uHPzezduJlMuceZnKEvNrCMgxlV+FfksrLBx/MAD8CUJBOVtZdE5i1eVs\nZB5W/gLdwF5viOvMjpcBWI0msQM=\n=3iqe\n-----END PGP PRIVATE KEY BLOCK-----\n"}"#;
