//! Names of encodings, as Python knows them, and text to bytes and back by them.

use encoding_rs::Encoding;
use tahini_hub::Failure;
use tahini_hub::config::Props;

/// How text stands in bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Charset {
    /// The name as it is told to clients.
    name: String,
    way: Way,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Way {
    Utf8,
    /// UTF-16; the first is the more significant byte if `big`.
    Utf16 {
        big: bool,
    },
    /// One byte a character: ASCII, and these 128 above it; `U+FFFD` where there is none.
    Single(Vec<char>),
    /// One of the encodings of the WHATWG.
    Other(&'static Encoding),
}

/// The byte order mark of UTF-8.
pub(super) const MARK: [u8; 3] = *b"\xef\xbb\xbf";

/// Bytes in the upper half of a table of single bytes.
const UPPER: u8 = 128;

/// The upper half of the DOS code page of the USA.
const CP437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";
/// The upper half of that of western Europe.
const CP850: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜø£Ø×ƒáíóúñÑªº¿®¬½¼¡«»░▒▓│┤ÁÂÀ©╣║╗╝¢¥┐└┴┬├─┼ãÃ╚╔╩╦╠═╬¤ðÐÊËÈıÍÎÏ┘┌█▄¦Ì▀ÓßÔÒõÕµþÞÚÛÙýÝ¯´\u{ad}±‗¾¶§÷¸°¨·¹³²■\u{a0}";
/// The upper half of the same with the euro sign.
const CP858: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜø£Ø×ƒáíóúñÑªº¿®¬½¼¡«»░▒▓│┤ÁÂÀ©╣║╗╝¢¥┐└┴┬├─┼ãÃ╚╔╩╦╠═╬¤ðÐÊËÈ€ÍÎÏ┘┌█▄¦Ì▀ÓßÔÒõÕµþÞÚÛÙýÝ¯´\u{ad}±‗¾¶§÷¸°¨·¹³²■\u{a0}";
/// The upper half of that of the Nordic countries.
const CP865: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜø£Ø₧ƒáíóúñÑªº¿⌐¬½¼¡«¤░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// What ISO 8859-9 has instead of characters of ISO 8859-1.
const TURKISH: &[(u8, char)] = &[
    (0xd0, 'Ğ'),
    (0xdd, 'İ'),
    (0xde, 'Ş'),
    (0xf0, 'ğ'),
    (0xfd, 'ı'),
    (0xfe, 'ş'),
];

impl Charset {
    /// UTF-8.
    pub fn utf8() -> Charset {
        Charset {
            name: "utf-8".to_owned(),
            way: Way::Utf8,
        }
    }

    /// The encoding of that name; case, `-`, `_` and spaces do not count. `None` when there is none.
    pub fn of(name: &str) -> Option<Charset> {
        let key: String = name
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .map(|c| c.to_ascii_lowercase())
            .collect();
        let way = match key.as_str() {
            "utf8" | "utf" | "u8" | "utf8sig" | "cp65001" => Way::Utf8,
            "utf16" | "u16" | "utf16le" | "unicodelittleunmarked" => Way::Utf16 { big: false },
            "utf16be" | "unicodebigunmarked" => Way::Utf16 { big: true },
            "ascii" | "usascii" | "646" => Way::Single(vec![char::REPLACEMENT_CHARACTER; 128]),
            "latin1" | "latin" | "l1" | "iso88591" | "8859" | "cp819" | "ibm819" => {
                Way::Single(latin1())
            }
            "latin5" | "l5" | "iso88599" => Way::Single(turkish()),
            "cp437" | "437" | "ibm437" => Way::Single(CP437.chars().collect()),
            "cp850" | "850" | "ibm850" => Way::Single(CP850.chars().collect()),
            "cp858" | "858" | "ibm858" => Way::Single(CP858.chars().collect()),
            "cp865" | "865" | "ibm865" => Way::Single(CP865.chars().collect()),
            key => Way::Other(labelled(name, key)?),
        };
        Some(Charset {
            name: name.to_ascii_lowercase().replace('_', "-"),
            way,
        })
    }

    /// The encoding that the property `encoding` names; UTF-8 without it.
    ///
    /// # Errors
    /// Config, when there is none of that name.
    pub fn from(props: Props<'_>) -> Result<Charset, Failure> {
        let Some(name) = props.opt_str("encoding")? else {
            return Ok(Charset::utf8());
        };
        Charset::of(name).ok_or_else(|| {
            let expected = "the name of an encoding, such as utf-8, utf-16, iso-8859-1, \
                            windows-1252 or cp850";
            props.wrong("encoding", expected, props.get("encoding"))
        })
    }

    /// Its name, as it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is UTF-8.
    pub fn is_utf8(&self) -> bool {
        self.way == Way::Utf8
    }

    pub(super) fn way(&self) -> &Way {
        &self.way
    }

    /// What a stream in it begins with by its name alone: `utf-8-sig` and `utf-16` have a mark.
    pub fn mark(&self) -> &'static [u8] {
        let name = self.name.replace(['-', ' '], "");
        match (&self.way, name.as_str()) {
            (Way::Utf8, "utf8sig") => &MARK,
            (Way::Utf16 { .. }, "utf16" | "u16") => b"\xff\xfe",
            _ => b"",
        }
    }

    /// Appends text in this encoding; `instead` says what stands for characters that it lacks.
    pub fn encode(&self, text: &str, instead: Instead, out: &mut Vec<u8>) {
        match &self.way {
            Way::Utf8 => out.extend_from_slice(text.as_bytes()),
            Way::Utf16 { big } => {
                for unit in text.encode_utf16() {
                    let bytes = if *big {
                        unit.to_be_bytes()
                    } else {
                        unit.to_le_bytes()
                    };
                    out.extend_from_slice(&bytes);
                }
            }
            Way::Single(upper) => {
                for c in text.chars() {
                    match single(c, upper) {
                        Some(byte) => out.push(byte),
                        None => instead.put(c, out),
                    }
                }
            }
            Way::Other(encoding) => put_other(encoding, text, instead, out),
        }
    }
}

fn latin1() -> Vec<char> {
    (UPPER..=u8::MAX).map(char::from).collect()
}

fn turkish() -> Vec<char> {
    let mut table = latin1();
    for (byte, c) in TURKISH {
        table[usize::from(byte - UPPER)] = *c;
    }
    table
}

fn single(c: char, upper: &[char]) -> Option<u8> {
    if c.is_ascii() {
        return u8::try_from(c).ok();
    }
    let at = upper.iter().position(|known| *known == c)?;
    let known = c != char::REPLACEMENT_CHARACTER;
    u8::try_from(at).ok().filter(|_| known).map(|at| at + UPPER)
}

/// The encodings of the WHATWG under the names that Python has for them.
fn labelled(name: &str, key: &str) -> Option<&'static Encoding> {
    let latin = |number: &str| match number {
        "2" | "3" | "4" => Some(number.to_owned()),
        "6" => Some("10".to_owned()),
        "7" => Some("13".to_owned()),
        "8" => Some("14".to_owned()),
        "9" => Some("15".to_owned()),
        "10" => Some("16".to_owned()),
        _ => None,
    };
    let strip = |prefix: &str| key.strip_prefix(prefix);
    let label = if let Some(number) = strip("latin").or(strip("l")).and_then(latin) {
        format!("iso-8859-{number}")
    } else if let Some(number) = strip("iso8859") {
        format!("iso-8859-{number}")
    } else if let Some(number) = strip("windows")
        .or(strip("cp"))
        .or(Some(key))
        .filter(|it| it.starts_with("125"))
    {
        format!("windows-{number}")
    } else {
        match key {
            "koi8r" => "koi8-r".to_owned(),
            "koi8u" => "koi8-u".to_owned(),
            "macroman" | "macintosh" => "macintosh".to_owned(),
            "maccyrillic" => "x-mac-cyrillic".to_owned(),
            "cp866" | "866" | "ibm866" => "ibm866".to_owned(),
            "cp874" => "windows-874".to_owned(),
            "cp932" | "932" | "ms932" | "shiftjis" | "sjis" => "shift_jis".to_owned(),
            "cp936" | "936" | "gbk" | "gb2312" => "gbk".to_owned(),
            "cp949" | "949" | "euckr" => "euc-kr".to_owned(),
            "cp950" | "950" | "big5" => "big5".to_owned(),
            "eucjp" | "ujis" => "euc-jp".to_owned(),
            _ => name.to_owned(),
        }
    };
    let found = Encoding::for_label(label.as_bytes())?;
    // One that only refuses to decode is none.
    (found != encoding_rs::REPLACEMENT).then_some(found)
}

fn put_other(encoding: &'static Encoding, text: &str, instead: Instead, out: &mut Vec<u8>) {
    let mut encoder = encoding.new_encoder();
    let mut rest = text;
    loop {
        let room = encoder
            .max_buffer_length_from_utf8_without_replacement(rest.len())
            .unwrap_or(rest.len() * 4);
        out.reserve(room);
        let (result, read) = encoder.encode_from_utf8_to_vec_without_replacement(rest, out, true);
        rest = &rest[read..];
        match result {
            encoding_rs::EncoderResult::InputEmpty => return,
            encoding_rs::EncoderResult::OutputFull => {}
            encoding_rs::EncoderResult::Unmappable(c) => instead.put(c, out),
        }
    }
}

/// What stands for a character that an encoding lacks (`encode_error_strategy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instead {
    /// Nothing.
    Ignore,
    /// A question mark.
    Replace,
    /// `&#281;`
    Reference,
    /// `\u0119`
    Backslash,
}

/// The names of the strategies.
pub(super) const STRATEGIES: &[&str] =
    &["backslashreplace", "ignore", "replace", "xmlcharrefreplace"];

impl Instead {
    /// The strategy that `encode_error_strategy` names.
    ///
    /// # Errors
    /// Config, when there is none of that name.
    pub fn from(props: Props<'_>) -> Result<Instead, Failure> {
        let name = "encode_error_strategy";
        match props.opt_str(name)? {
            None | Some("backslashreplace") => Ok(Instead::Backslash),
            Some("ignore") => Ok(Instead::Ignore),
            Some("replace") => Ok(Instead::Replace),
            Some("xmlcharrefreplace") => Ok(Instead::Reference),
            Some(_) => {
                let expected = format!("one of {}", STRATEGIES.join(", "));
                Err(props.wrong(name, &expected, props.get(name)))
            }
        }
    }

    /// Everything that it writes is ASCII, which all encodings share but UTF-16, which lacks nothing.
    fn put(self, c: char, out: &mut Vec<u8>) {
        let code = u32::from(c);
        let text = match self {
            Instead::Ignore => return,
            Instead::Replace => "?".to_owned(),
            Instead::Reference => format!("&#{code};"),
            Instead::Backslash if code < 0x100 => format!("\\x{code:02x}"),
            Instead::Backslash if code < 0x1_0000 => format!("\\u{code:04x}"),
            Instead::Backslash => format!("\\U{code:08x}"),
        };
        out.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(name: &str, text: &str, instead: Instead) -> Vec<u8> {
        let mut out = Vec::new();
        Charset::of(name).unwrap().encode(text, instead, &mut out);
        out
    }

    /// What Python's codecs write.
    #[test]
    fn text_is_encoded_as_python_encodes_it() {
        let backslash = Instead::Backslash;
        assert_eq!(
            bytes("ISO-8859-1", "Blåbær €", backslash),
            b"Bl\xe5b\xe6r \\u20ac"
        );
        assert_eq!(bytes("latin_1", "ę", Instead::Reference), b"&#281;");
        assert_eq!(bytes("cp1252", "€ę", Instead::Replace), b"\x80?");
        assert_eq!(bytes("ascii", "aåb😀", backslash), b"a\\xe5b\\U0001f600");
        assert_eq!(bytes("us-ascii", "aåb", Instead::Ignore), b"ab");
        assert_eq!(bytes("cp850", "ÆØÅ", backslash), b"\x92\x9d\x8f");
        assert_eq!(bytes("cp865", "øæå", backslash), b"\x9b\x91\x86");
        assert_eq!(bytes("iso8859_15", "€", backslash), b"\xa4");
        assert_eq!(bytes("iso-8859-9", "ş€", backslash), b"\xfe\\u20ac");
        assert_eq!(bytes("utf-16-le", "aé", backslash), b"a\0\xe9\0");
        assert_eq!(bytes("utf_16_be", "😀", backslash), b"\xd8\x3d\xde\x00");
        assert_eq!(bytes("shift_jis", "あ", backslash), b"\x82\xa0");
    }

    #[test]
    fn names_are_told_apart_and_unknown_ones_are_none() {
        assert!(Charset::of("UTF8").unwrap().is_utf8());
        assert!(Charset::of("klingon").is_none() && Charset::of("iso-2022-kr").is_none());
        assert_eq!(Charset::of("utf-8-sig").unwrap().mark(), b"\xef\xbb\xbf");
        assert_eq!(Charset::of("utf_16").unwrap().mark(), b"\xff\xfe");
        assert_eq!(Charset::of("utf-16-le").unwrap().mark(), b"");
        for table in [CP437, CP850, CP858, CP865] {
            assert_eq!(table.chars().count(), 128);
        }
    }
}
