//! Keys: which one to encrypt with, and private ones behind their passphrase.

use rsa::traits::PublicKeyParts;
use rsa::{BigUint, Pkcs1v15Encrypt, RsaPrivateKey, RsaPublicKey, rand_core::OsRng};

use super::armor;
use super::cipher::{Aes, digest, key_len};
use super::curve25519::{self, Point};
use super::packet::{Packet, Reader, packets, put_mpi, tag};

/// How many bytes of a repeated passphrase are hashed at once.
const PIECE: usize = 64 * 1024;
const HAVE: &str = "an RSA key of at most 4096 bits or a Curve25519 key";

/// A key that texts are encrypted to.
#[derive(Clone)]
pub(crate) struct PublicKey {
    material: Public,
    fingerprint: [u8; 20],
}

#[derive(Clone)]
enum Public {
    Rsa(RsaPublicKey),
    Curve(Point),
}

impl PublicKey {
    /// The key in armour that is meant for encryption: the newest such subkey that was not
    /// revoked, otherwise the main key. Rules know no time, so that an expired key counts.
    ///
    /// # Errors
    /// What was expected instead.
    pub(crate) fn read(armored: &str) -> Result<PublicKey, String> {
        let wrong = || "expected a PGP PUBLIC KEY BLOCK, found other text".to_owned();
        let bytes = armor::open(armored, "PUBLIC KEY BLOCK").ok_or_else(wrong)?;
        let packets = packets(&bytes).ok_or_else(wrong)?;
        let mut best = None;
        let mut all = Candidate::all(&packets);
        if all.first().is_some_and(|main| main.revoked) {
            return Err("expected a PGP key in use, found one that was revoked".to_owned());
        }
        all.retain(|key| key.encrypts && !key.revoked);
        for candidate in all {
            if let Some((key, _)) = public(candidate.body)
                && best
                    .as_ref()
                    .is_none_or(|(rank, _)| *rank <= candidate.rank())
            {
                best = Some((candidate.rank(), key));
            }
        }
        let none = || format!("expected {HAVE} that is meant for encryption, found none");
        best.map(|(_, key)| key).ok_or_else(none)
    }

    fn id(&self) -> &[u8] {
        &self.fingerprint[12..]
    }

    /// The body of a session key packet for this key.
    pub(super) fn seal(&self, session: &[u8]) -> Option<Vec<u8>> {
        let mut body = [&[3], self.id()].concat();
        match &self.material {
            Public::Rsa(key) => {
                body.push(1);
                let sealed = key.encrypt(&mut OsRng, Pkcs1v15Encrypt, session).ok()?;
                put_mpi(&sealed, &mut body);
            }
            Public::Curve(point) => {
                body.push(18);
                body.extend(point.seal(&self.fingerprint, session)?);
            }
        }
        Some(body)
    }
}

/// A main key or subkey, and what its signatures say of it.
struct Candidate<'p> {
    body: &'p [u8],
    main: bool,
    encrypts: bool,
    revoked: bool,
}

impl<'p> Candidate<'p> {
    fn all(packets: &'p [Packet]) -> Vec<Candidate<'p>> {
        let mut all: Vec<Candidate<'_>> = Vec::new();
        for Packet { tag, body } in packets {
            match (*tag, all.last_mut()) {
                (tag::PUBLIC_KEY | tag::PUBLIC_SUBKEY, _) => all.push(Candidate {
                    body,
                    main: *tag == tag::PUBLIC_KEY,
                    encrypts: true,
                    revoked: false,
                }),
                (tag::SIGNATURE, Some(key)) => key.learn(body),
                _ => {}
            }
        }
        all
    }

    /// Grows with preference: the main key, then subkeys by age.
    fn rank(&self) -> (bool, u32) {
        let made = self.body.get(1..5).and_then(|made| made.try_into().ok());
        (!self.main, made.map_or(0, u32::from_be_bytes))
    }

    fn learn(&mut self, signature: &[u8]) {
        match signature {
            [4, 0x20 | 0x28, ..] => self.revoked = true,
            [4, 0x10..=0x13 | 0x18 | 0x1f, ..] => {
                if let Some(flags) = flags(signature) {
                    self.encrypts = flags & 0x0c != 0;
                }
            }
            _ => {}
        }
    }
}

/// What a signature says a key may be used for: its first subpacket 27.
fn flags(signature: &[u8]) -> Option<u8> {
    let mut from = Reader(signature.get(4..)?);
    let len = from.number::<2>()?;
    let mut from = Reader(from.take(len)?);
    loop {
        let len = match from.byte()? {
            len @ 0..192 => len.into(),
            255 => from.number::<4>()?,
            len => {
                let low: usize = from.byte()?.into();
                (usize::from(len) - 192) * 256 + low + 192
            }
        };
        if let [kind, flags, ..] = *from.take(len)?
            && kind & 127 == 27
        {
            return Some(flags);
        }
    }
}

/// The public part of a key packet, and what follows it.
fn public(body: &[u8]) -> Option<(PublicKey, &[u8])> {
    let mut from = Reader(body);
    if from.byte()? != 4 {
        return None;
    }
    from.take(4)?;
    let material = match from.byte()? {
        1 | 2 => {
            let n = BigUint::from_bytes_be(from.mpi()?);
            let e = BigUint::from_bytes_be(from.mpi()?);
            Public::Rsa(RsaPublicKey::new(n, e).ok()?)
        }
        18 => {
            let len = from.byte()?;
            if from.take(len.into())? != curve25519::OID {
                return None;
            }
            Public::Curve(Point::read(&mut from)?)
        }
        _ => return None,
    };
    let public = &body[..body.len() - from.0.len()];
    let len = u16::try_from(public.len()).ok()?.to_be_bytes();
    let fingerprint = digest(2, &[&[0x99], &len, public])?.try_into().ok()?;
    Some((
        PublicKey {
            material,
            fingerprint,
        },
        from.0,
    ))
}

/// The private keys of one block of armour that decrypt, unlocked.
pub(crate) struct PrivateKeys(Vec<(PublicKey, Private)>);

enum Private {
    Rsa(Box<RsaPrivateKey>),
    Curve([u8; 32]),
}

impl PrivateKeys {
    /// # Errors
    /// What was expected instead, also when the passphrase does not unlock any of the keys.
    pub(crate) fn read(armored: &str, passphrase: &str) -> Result<PrivateKeys, String> {
        let wrong = || "expected a PGP PRIVATE KEY BLOCK, found other text".to_owned();
        let bytes = armor::open(armored, "PRIVATE KEY BLOCK").ok_or_else(wrong)?;
        let packets = packets(&bytes).ok_or_else(wrong)?;
        let secret = |packet: &&Packet| matches!(packet.tag, tag::SECRET_KEY | tag::SECRET_SUBKEY);
        let known: Vec<_> = packets
            .iter()
            .filter(secret)
            .filter_map(|packet| public(&packet.body))
            .collect();
        if known.is_empty() {
            return Err(format!(
                "expected {HAVE}, found none in the PGP PRIVATE KEY BLOCK"
            ));
        }
        let keys: Vec<_> = known
            .into_iter()
            .filter_map(|(key, rest)| {
                let private = unlock(&key, rest, passphrase)?;
                Some((key, private))
            })
            .collect();
        if keys.is_empty() {
            return Err(
                "expected a PASSPHRASE that unlocks the private key (AES and SHA are known, \
                        older ciphers are not), found another one"
                    .to_owned(),
            );
        }
        Ok(PrivateKeys(keys))
    }

    /// The session key in the body of a session key packet, when it is for one of these keys.
    pub(super) fn open(&self, body: &[u8]) -> Option<Vec<u8>> {
        let mut from = Reader(body);
        if from.byte()? != 3 {
            return None;
        }
        let id = from.take(8)?;
        let algorithm = from.byte()?;
        // An id of zeros leaves open whom the message is for.
        let meant = self
            .0
            .iter()
            .filter(|(key, _)| id == key.id() || id == [0; 8]);
        meant
            .filter_map(|(key, private)| {
                let mut from = Reader(from.0);
                match (algorithm, private, &key.material) {
                    (1 | 2, Private::Rsa(private), _) => {
                        let size = private.size();
                        let mpi = from.mpi()?;
                        let mut sealed = vec![0; size.checked_sub(mpi.len())?];
                        sealed.extend_from_slice(mpi);
                        private
                            .decrypt_blinded(&mut OsRng, Pkcs1v15Encrypt, &sealed)
                            .ok()
                    }
                    (18, Private::Curve(secret), Public::Curve(point)) => {
                        point.open(*secret, &key.fingerprint, &mut from)
                    }
                    _ => None,
                }
            })
            .find(|session| !session.is_empty())
    }
}

/// The private part of a key packet: `rest` is what follows the public one.
fn unlock(key: &PublicKey, rest: &[u8], passphrase: &str) -> Option<Private> {
    let (&usage, rest) = rest.split_first()?;
    let plain = match usage {
        0 => rest.to_vec(),
        254 | 255 => decrypted(rest, passphrase)?,
        _ => return None,
    };
    let mut from = Reader(checked(&plain, usage == 254)?);
    match &key.material {
        Public::Rsa(public) => {
            let mut number = || Some(BigUint::from_bytes_be(from.mpi()?));
            let (d, primes) = (number()?, vec![number()?, number()?]);
            let (n, e) = (public.n().clone(), public.e().clone());
            let key = RsaPrivateKey::from_components(n, e, d, primes).ok()?;
            Some(Private::Rsa(Box::new(key)))
        }
        Public::Curve(_) => curve25519::secret(from.mpi()?).map(Private::Curve),
    }
}

fn decrypted(locked: &[u8], passphrase: &str) -> Option<Vec<u8>> {
    let mut from = Reader(locked);
    let len = key_len(from.byte()?)?;
    let key = passphrase_key(&mut from, passphrase, len)?;
    let before = from.take(16)?.try_into().ok()?;
    let mut plain = from.0.to_vec();
    Aes::new(&key)?.stream_out(before, &mut plain);
    Some(plain)
}

/// The numbers of a private key without the sum behind them, when that is right.
fn checked(plain: &[u8], hashed: bool) -> Option<&[u8]> {
    let (numbers, sum) =
        plain.split_at_checked(plain.len().checked_sub(if hashed { 20 } else { 2 })?)?;
    let right = if hashed {
        digest(2, &[numbers])? == sum
    } else {
        super::sum(numbers) == sum
    };
    right.then_some(numbers)
}

/// The key that a passphrase stands for (RFC 4880, 3.7).
fn passphrase_key(from: &mut Reader<'_>, passphrase: &str, len: usize) -> Option<Vec<u8>> {
    let (kind, hash) = (from.byte()?, from.byte()?);
    let salt = if kind == 0 { &[] } else { from.take(8)? };
    let text = [salt, passphrase.as_bytes()].concat();
    let mut count = text.len();
    match kind {
        0 | 1 => {}
        3 => {
            let code = from.byte()?;
            count = count.max((16 + usize::from(code & 15)) << ((code >> 4) + 6));
        }
        _ => return None,
    }
    // The text over and over, up to `count` bytes; a long piece of it keeps the parts few.
    let piece = text.repeat(1 + PIECE / text.len().max(1));
    let mut parts = vec![piece.as_slice(); count / piece.len().max(1)];
    parts.push(&piece[..count - parts.len() * piece.len()]);
    let mut key = Vec::new();
    // A digest that is too short is followed by that of the same with a zero more before it.
    for zeros in 0.. {
        let zeros = vec![0; zeros];
        let before = std::iter::once(zeros.as_slice());
        let parts: Vec<&[u8]> = before.chain(parts.iter().copied()).collect();
        key.extend(digest(hash, &parts)?);
        if key.len() >= len {
            break;
        }
    }
    key.truncate(len);
    Some(key)
}
