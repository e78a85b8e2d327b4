//! Packets, of which keys and messages are made (RFC 4880, chapter 4), and what they hold.

/// The numbers of the packets that we know.
pub(super) mod tag {
    pub(crate) const SESSION_KEY: u8 = 1;
    pub(crate) const SIGNATURE: u8 = 2;
    pub(crate) const SECRET_KEY: u8 = 5;
    pub(crate) const PUBLIC_KEY: u8 = 6;
    pub(crate) const SECRET_SUBKEY: u8 = 7;
    pub(crate) const COMPRESSED: u8 = 8;
    pub(crate) const LITERAL: u8 = 11;
    pub(crate) const PUBLIC_SUBKEY: u8 = 14;
    pub(crate) const ENCRYPTED: u8 = 18;
}

/// One packet.
pub(super) struct Packet {
    pub(super) tag: u8,
    pub(super) body: Vec<u8>,
}

/// All packets in order; `None` when the bytes are not such.
pub(super) fn packets(bytes: &[u8]) -> Option<Vec<Packet>> {
    let (mut from, mut packets) = (Reader(bytes), Vec::new());
    while !from.0.is_empty() {
        packets.push(packet(&mut from)?);
    }
    Some(packets)
}

fn packet(from: &mut Reader<'_>) -> Option<Packet> {
    let head = from.byte()?;
    let mut body = Vec::new();
    let tag = match head >> 6 {
        // The older form, whose length may be "up to the end".
        2 => {
            let len = match head & 3 {
                0 => from.byte()?.into(),
                1 => from.number::<2>()?,
                2 => from.number::<4>()?,
                _ => from.0.len(),
            };
            body.extend_from_slice(from.take(len)?);
            head >> 2 & 15
        }
        3 => {
            loop {
                let (len, last) = match from.byte()? {
                    len @ 0..192 => (len.into(), true),
                    len @ 192..224 => {
                        let low: usize = from.byte()?.into();
                        ((usize::from(len) - 192) * 256 + low + 192, true)
                    }
                    255 => (from.number::<4>()?, true),
                    part => (1 << (part & 31), false),
                };
                body.extend_from_slice(from.take(len)?);
                if last {
                    break;
                }
            }
            head & 63
        }
        _ => return None,
    };
    Some(Packet { tag, body })
}

/// Appends a packet.
pub(super) fn put(tag: u8, body: &[u8], out: &mut Vec<u8>) {
    let len = u32::try_from(body.len()).expect("a text of the language is shorter than 4 GB");
    out.extend_from_slice(&[0xc0 | tag, 255]);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(body);
}

/// Appends a number of any size, big-endian, after the count of its bits.
pub(super) fn put_mpi(number: &[u8], out: &mut Vec<u8>) {
    let zeros = number.iter().take_while(|&&byte| byte == 0).count();
    let number = &number[zeros..];
    let bits = number.len() * 8
        - number
            .first()
            .map_or(0, |byte| byte.leading_zeros() as usize);
    out.extend_from_slice(&(bits as u16).to_be_bytes());
    out.extend_from_slice(number);
}

/// Bytes to take from the front of.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// A big-endian number of `N` bytes.
    pub(super) fn number<const N: usize>(&mut self) -> Option<usize> {
        let bytes = self.take(N)?;
        Some(
            bytes
                .iter()
                .fold(0, |sum, &byte| sum << 8 | usize::from(byte)),
        )
    }

    /// A number of any size, big-endian, without the count of its bits.
    pub(super) fn mpi(&mut self) -> Option<&'a [u8]> {
        let bits = self.number::<2>()?;
        self.take(bits.div_ceil(8))
    }
}
