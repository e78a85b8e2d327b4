//! Messages: a session key for each reader, and the text under the session key.

use std::io::Read;

use rsa::rand_core::{OsRng, RngCore};

use super::cipher::{AES256, Aes, digest, key_len};
use super::packet::{Packet, Reader, packets, put, tag};
use super::{PrivateKeys, PublicKey, armor};
use crate::limits::{self, Limit, MAX_STRING};

/// The head of the packet that ends an encrypted text: its hash follows.
const HASH_HEAD: [u8; 2] = [0xd3, 20];
const HASH: usize = 20;
/// Random bytes before the text, of which the last two are repeated.
const PREFIX: usize = 16 + 2;
/// How often compressed packets may lie in each other.
const MAX_COMPRESSED: usize = 4;

/// The text as a message in armour; `None` when the key asks for a cipher or hash that we lack.
///
/// # Errors
/// When the message is too long.
pub(crate) fn encrypt(key: &PublicKey, text: &str) -> Result<Option<String>, Limit> {
    limits::string(text.len() * 3 / 2)?;
    let mut secret = [0; 32];
    OsRng.fill_bytes(&mut secret);
    let session = [&[AES256], secret.as_slice(), &super::sum(&secret)].concat();
    let Some(sealed) = key.seal(&session) else {
        return Ok(None);
    };
    let mut message = Vec::new();
    put(tag::SESSION_KEY, &sealed, &mut message);

    let mut plain = vec![0; PREFIX - 2];
    OsRng.fill_bytes(&mut plain);
    plain.extend_from_within(PREFIX - 4..);
    // Without a file's name and time, and as bytes: readers change the line ends of text.
    let literal = [b"b\0\0\0\0\0", text.as_bytes()].concat();
    put(tag::LITERAL, &literal, &mut plain);
    plain.extend(HASH_HEAD);
    let hash = digest(2, &[&plain]).expect("SHA-1 is one of the hashes");
    plain.extend(hash);
    let aes = Aes::new(&secret).expect("the session key has 32 bytes");
    aes.stream_in([0; 16], &mut plain);
    put(
        tag::ENCRYPTED,
        &[&[1], plain.as_slice()].concat(),
        &mut message,
    );
    Ok(Some(armor::close(&message, "MESSAGE")))
}

/// The text of a message in armour; `None` when it is no such message, is for other keys, was
/// changed on the way, or does not hold UTF-8.
///
/// # Errors
/// When the text is too long.
pub(crate) fn decrypt(keys: &PrivateKeys, message: &str) -> Result<Option<String>, Limit> {
    let inner = armor::open(message, "MESSAGE")
        .and_then(|bytes| packets(&bytes))
        .and_then(|packets| opened(keys, &packets));
    match inner.and_then(|bytes| packets(&bytes)) {
        Some(packets) => text(packets, 0),
        None => Ok(None),
    }
}

/// The packets inside, still as bytes.
fn opened(keys: &PrivateKeys, packets: &[Packet]) -> Option<Vec<u8>> {
    let body = |tag: u8| packets.iter().filter(move |packet| packet.tag == tag);
    let (&1, encrypted) = body(tag::ENCRYPTED).next()?.body.split_first()? else {
        return None;
    };
    body(tag::SESSION_KEY)
        .filter_map(|packet| session_key(&keys.open(&packet.body)?))
        .find_map(|aes| verified(&aes, encrypted))
}

fn session_key(session: &[u8]) -> Option<Aes> {
    let mut from = Reader(session);
    let len = key_len(from.byte()?)?;
    let key = from.take(len)?;
    if super::sum(key) == from.0 {
        Aes::new(key)
    } else {
        None
    }
}

/// The decrypted packets, when the hash at the end says that nothing was changed.
fn verified(aes: &Aes, encrypted: &[u8]) -> Option<Vec<u8>> {
    let mut plain = encrypted.to_vec();
    aes.stream_out([0; 16], &mut plain);
    let (hashed, hash) = plain.split_at_checked(plain.len().checked_sub(HASH)?)?;
    let inner = hashed.get(PREFIX..)?.strip_suffix(&HASH_HEAD)?.to_vec();
    (digest(2, &[hashed])? == hash).then_some(inner)
}

fn text(packets: Vec<Packet>, depth: usize) -> Result<Option<String>, Limit> {
    for Packet { tag, body } in packets {
        match tag {
            tag::LITERAL => return Ok(literal(&body)),
            tag::COMPRESSED if depth < MAX_COMPRESSED => {
                let inner = inflated(&body)?.and_then(|bytes| self::packets(&bytes));
                return inner.map_or(Ok(None), |packets| text(packets, depth + 1));
            }
            _ => {}
        }
    }
    Ok(None)
}

fn literal(body: &[u8]) -> Option<String> {
    let mut from = Reader(body);
    from.byte()?;
    let name = from.byte()?;
    from.take(name.into())?;
    from.take(4)?;
    String::from_utf8(from.0.to_vec()).ok()
}

fn inflated(body: &[u8]) -> Result<Option<Vec<u8>>, Limit> {
    let Some((&algorithm, compressed)) = body.split_first() else {
        return Ok(None);
    };
    let most = MAX_STRING as u64 + 1;
    let mut out = Vec::new();
    let read = match algorithm {
        0 => {
            out.extend_from_slice(compressed);
            Ok(0)
        }
        1 => flate2::read::DeflateDecoder::new(compressed)
            .take(most)
            .read_to_end(&mut out),
        2 => flate2::read::ZlibDecoder::new(compressed)
            .take(most)
            .read_to_end(&mut out),
        _ => return Ok(None),
    };
    limits::string(out.len())?;
    Ok(read.is_ok().then_some(out))
}
