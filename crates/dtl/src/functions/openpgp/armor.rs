//! Armour: binary content as lines of base64 between a header and a footer (RFC 4880, 6.2).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const LINE: usize = 64;

/// The first block of that kind in a text, such as `MESSAGE`; `None` when there is none, or its
/// checksum is wrong.
pub(super) fn open(text: &str, kind: &str) -> Option<Vec<u8>> {
    let (_, after) = text.split_once(&format!("-----BEGIN PGP {kind}-----"))?;
    let (block, _) = after.split_once(&format!("-----END PGP {kind}-----"))?;
    let (mut base64, mut sum) = (String::new(), None);
    // Base64 has no colon, so that lines with one are headers.
    let lines = block.lines().map(str::trim);
    for line in lines.filter(|line| !line.is_empty() && !line.contains(':')) {
        match line.strip_prefix('=') {
            Some(rest) if rest.len() == 4 => sum = Some(rest),
            _ => base64.push_str(line),
        }
    }
    let content = STANDARD.decode(base64).ok()?;
    let sound = sum.is_none_or(|sum| STANDARD.encode(crc24(&content)) == sum);
    sound.then_some(content)
}

/// The content in armour.
pub(super) fn close(content: &[u8], kind: &str) -> String {
    let base64 = STANDARD.encode(content);
    let mut out = format!("-----BEGIN PGP {kind}-----\n\n");
    for line in base64.as_bytes().chunks(LINE) {
        out.extend(line.iter().map(|&byte| char::from(byte)));
        out.push('\n');
    }
    out + &format!(
        "={}\n-----END PGP {kind}-----\n",
        STANDARD.encode(crc24(content))
    )
}

/// RFC 4880, 6.1.
fn crc24(content: &[u8]) -> [u8; 3] {
    let sum = content.iter().fold(0x00b7_04ceu32, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte) << 16, |sum, _| {
            let next = sum << 1;
            if next & 0x0100_0000 == 0 {
                next
            } else {
                next ^ 0x0186_4cfb
            }
        })
    });
    let [_, a, b, c] = sum.to_be_bytes();
    [a, b, c]
}
