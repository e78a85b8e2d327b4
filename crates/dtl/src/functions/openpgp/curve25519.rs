//! Session keys for Curve25519 (RFC 6637): a shared secret wraps the session key.

use curve25519_dalek::MontgomeryPoint;
use rsa::rand_core::{OsRng, RngCore};

use super::cipher::{Aes, digest, key_len};
use super::packet::{Reader, put_mpi};

/// The object identifier 1.3.6.1.4.1.3029.1.5.1.
pub(super) const OID: [u8; 10] = [0x2b, 6, 1, 4, 1, 0x97, 0x55, 1, 5, 1];
/// The byte before a point that has no second coordinate.
const NATIVE: u8 = 0x40;

/// A public key, with what its owner wants secrets to be hashed and session keys wrapped with.
#[derive(Clone)]
pub(super) struct Point {
    point: MontgomeryPoint,
    hash: u8,
    cipher: u8,
}

impl Point {
    /// The part of a key packet after the object identifier.
    pub(super) fn read(from: &mut Reader<'_>) -> Option<Point> {
        let point = point(from.mpi()?)?;
        let [3, 1, hash, cipher] = *from.take(4)? else {
            return None;
        };
        Some(Point {
            point,
            hash,
            cipher,
        })
    }

    /// What a session key packet holds for `session`: a point made for this message, and the
    /// wrapped session key. `None` when the key asks for what we do not have.
    pub(super) fn seal(&self, fingerprint: &[u8; 20], session: &[u8]) -> Option<Vec<u8>> {
        let mut secret = [0; 32];
        OsRng.fill_bytes(&mut secret);
        let key = self.wrapping_key(self.point.mul_clamped(secret), fingerprint)?;
        let padding = 8 - session.len() % 8;
        let mut padded = session.to_vec();
        padded.resize(session.len() + padding, padding as u8);
        let wrapped = key.wrap(&padded);
        let ours = MontgomeryPoint::mul_base_clamped(secret);
        let mut out = Vec::new();
        put_mpi(&[&[NATIVE], ours.as_bytes().as_slice()].concat(), &mut out);
        out.push(wrapped.len() as u8);
        out.extend(wrapped);
        Some(out)
    }

    /// The session key in a session key packet, by the secret half of this key.
    pub(super) fn open(
        &self,
        secret: [u8; 32],
        fingerprint: &[u8; 20],
        from: &mut Reader<'_>,
    ) -> Option<Vec<u8>> {
        let theirs = point(from.mpi()?)?;
        let len = from.byte()?;
        let wrapped = from.take(len.into())?;
        let key = self.wrapping_key(theirs.mul_clamped(secret), fingerprint)?;
        let mut session = key.unwrap(wrapped)?;
        let padding = usize::from(*session.last()?);
        let len = session.len().checked_sub(padding)?;
        session.truncate(len);
        Some(session)
    }

    /// Made from the shared secret and everything that says what it is for.
    fn wrapping_key(&self, shared: MontgomeryPoint, fingerprint: &[u8; 20]) -> Option<Aes> {
        // A point of low order would give a secret that everybody knows.
        if shared.as_bytes() == &[0; 32] {
            return None;
        }
        let kdf = [OID.len() as u8];
        let fields = [18, 3, 1, self.hash, self.cipher];
        let parts: [&[u8]; 7] = [
            &[0, 0, 0, 1],
            shared.as_bytes(),
            &kdf,
            &OID,
            &fields,
            b"Anonymous Sender    ",
            fingerprint,
        ];
        let digest = digest(self.hash, &parts)?;
        Aes::new(digest.get(..key_len(self.cipher)?)?)
    }
}

fn point(mpi: &[u8]) -> Option<MontgomeryPoint> {
    let (&NATIVE, point) = mpi.split_first()? else {
        return None;
    };
    Some(MontgomeryPoint(point.try_into().ok()?))
}

/// The secret number of a key, which is stored the other way round and without leading zeros.
pub(super) fn secret(mpi: &[u8]) -> Option<[u8; 32]> {
    let mut secret = [0; 32];
    let len = mpi.len();
    secret.get_mut(..len)?.copy_from_slice(mpi);
    secret[..len].reverse();
    Some(secret)
}
