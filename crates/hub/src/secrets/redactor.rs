//! Known secrets are taken out of text before anybody can read it.

use std::borrow::Cow;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// What stands in the place of a secret.
const MASK: &str = "***";
/// Shorter values are not redacted: they would blank out ordinary words and still be guessed.
const MIN_CHARS: usize = 4;
/// Shorter pieces of base64 are not looked for: they turn up by chance.
const MIN_BASE64: usize = 6;
/// One character takes at most this many bytes of escaped text: `\uD83D\uDE00`, escaped once more.
const MAX_ESCAPED_CHAR: usize = 14;

/// Replaces known secret values in text with `***`.
///
/// A value is found as it is, URL-encoded (any choice of encoded characters, `+` for a space),
/// JSON-escaped (once or twice) and inside base64 (alone or within a longer text, such as basic
/// authentication). A value of several lines is also looked for line by line, since logs are.
/// Values of fewer than four characters are not redacted.
#[derive(Default, Clone)]
pub struct Redactor {
    plain: Vec<Vec<char>>,
    encoded: Vec<Encoded>,
    /// Which patterns can begin with a byte, so that most positions cost one look.
    starts: Vec<Vec<u32>>,
    reach: usize,
}

/// The part of a value's base64 form that does not depend on what stands around the value.
#[derive(Clone)]
struct Encoded {
    core: Vec<u8>,
    /// A neighbouring character carries bits of the value, too, and is hidden with it.
    before: bool,
    after: bool,
}

impl Redactor {
    /// A redactor for these secret values.
    pub fn new(values: impl IntoIterator<Item = String>) -> Redactor {
        let mut texts: Vec<String> = Vec::new();
        for value in values {
            if value.contains('\n') {
                texts.extend(value.lines().map(|line| line.trim().to_owned()));
            }
            texts.push(value);
        }
        texts.retain(|text| text.chars().count() >= MIN_CHARS);
        texts.sort();
        texts.dedup();

        let mut redactor = Redactor::default();
        for text in &texts {
            redactor.encoded.extend(base64_forms(text.as_bytes()));
            let mut forms = vec![text.clone(), json_escaped(text), ascii_escaped(text)];
            forms.dedup();
            redactor
                .plain
                .extend(forms.iter().map(|form| form.chars().collect()));
        }
        redactor.index();
        redactor
    }

    fn index(&mut self) {
        self.starts = vec![Vec::new(); 256];
        for (at, chars) in self.plain.iter().enumerate() {
            self.reach = self.reach.max(chars.len() * MAX_ESCAPED_CHAR);
            let mut first = [0; 4];
            let mut bytes = vec![chars[0].encode_utf8(&mut first).as_bytes()[0], b'%', b'\\'];
            if chars[0] == ' ' {
                bytes.push(b'+');
            }
            bytes.sort_unstable();
            bytes.dedup();
            for byte in bytes {
                self.starts[usize::from(byte)].push(at as u32);
            }
        }
        for (at, form) in self.encoded.iter().enumerate() {
            self.reach = self.reach.max(form.core.len() + 2);
            self.starts[usize::from(form.core[0])].push((self.plain.len() + at) as u32);
        }
    }

    /// True when there is nothing to hide.
    pub fn is_empty(&self) -> bool {
        self.plain.is_empty()
    }

    /// The longest text, in bytes, that one value can take: how much of an unfinished line must be
    /// held back so that no value is cut in two.
    pub fn reach(&self) -> usize {
        self.reach
    }

    /// The text with every known value replaced by `***`; borrowed when there was none.
    pub fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let found = self.find(text);
        if found.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut out = String::with_capacity(text.len());
        let mut from = 0;
        for range in found {
            out.push_str(&text[from..range.start]);
            out.push_str(MASK);
            from = range.end;
        }
        out.push_str(&text[from..]);
        Cow::Owned(out)
    }

    /// The JSON value with every string and every property name redacted.
    pub fn redact_json(&self, value: &mut serde_json::Value) {
        use serde_json::Value;
        match value {
            Value::String(text) => {
                if let Cow::Owned(clean) = self.redact(text) {
                    *text = clean;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.redact_json(item)),
            Value::Object(map) => {
                let old = std::mem::take(map);
                for (name, mut item) in old {
                    self.redact_json(&mut item);
                    map.insert(self.redact(&name).into_owned(), item);
                }
            }
            Value::Number(_) | Value::Bool(_) | Value::Null => {}
        }
    }

    /// Where values stand in the text: byte ranges, in order, apart from each other.
    pub fn find(&self, text: &str) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        if self.is_empty() {
            return found;
        }
        let bytes = text.as_bytes();
        // Every position is looked at, also inside a match: a second value may begin there and
        // end later, and its tail must not stay.
        for (at, byte) in bytes.iter().enumerate() {
            for &pattern in &self.starts[usize::from(*byte)] {
                let Some(range) = self.match_at(pattern as usize, bytes, at) else {
                    continue;
                };
                match found.last_mut() {
                    Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                    _ => found.push(range),
                }
            }
        }
        // A base64 match reaches one character back, so it may begin before an earlier one.
        found.sort_by_key(|range| range.start);
        found.dedup_by(|next, kept| {
            let touching = next.start <= kept.end;
            if touching {
                kept.end = kept.end.max(next.end);
            }
            touching
        });
        found
    }

    fn match_at(&self, pattern: usize, text: &[u8], at: usize) -> Option<Range<usize>> {
        if let Some(chars) = self.plain.get(pattern) {
            let end = match_plain(chars, text, at, false)
                .or_else(|| match_plain(chars, text, at, true).filter(|_| chars.contains(&'\\')));
            return end.map(|end| at..end);
        }
        let form = &self.encoded[pattern - self.plain.len()];
        text[at..].starts_with(&form.core).then(|| {
            let end = at + form.core.len();
            let before = form.before && at > 0 && is_base64(text[at - 1]);
            let after = form.after && text.get(end).is_some_and(|byte| is_base64(*byte));
            at - usize::from(before)..end + usize::from(after)
        })
    }
}

/// The end of the value when the text at `at` spells it, each character as it is or escaped.
/// A backslash of the value is one backslash, or two where the text is `doubled`.
fn match_plain(chars: &[char], text: &[u8], mut at: usize, doubled: bool) -> Option<usize> {
    for &c in chars {
        at += match c {
            '\\' if doubled => text[at..].starts_with(b"\\\\").then_some(2)?,
            _ => char_width(c, &text[at..])?,
        };
    }
    Some(at)
}

/// How many bytes of the text spell the character: raw, percent-encoded, `+`, or JSON-escaped.
fn char_width(c: char, text: &[u8]) -> Option<usize> {
    let mut buffer = [0; 4];
    let raw = c.encode_utf8(&mut buffer).as_bytes();
    let first = *text.first()?;
    if first == b'\\' && c != '\\' {
        return json_width(c, text);
    }
    if text.starts_with(raw) {
        return Some(raw.len());
    }
    if c == ' ' && first == b'+' {
        return Some(1);
    }
    if first != b'%' || text.len() < raw.len() * 3 {
        return None;
    }
    for (byte, escape) in raw.iter().zip(text.chunks_exact(3)) {
        if escape[0] != b'%' || hex(&escape[1..])? != u32::from(*byte) {
            return None;
        }
    }
    Some(raw.len() * 3)
}

fn json_width(c: char, text: &[u8]) -> Option<usize> {
    let second = *text.get(1)?;
    let short = match c {
        '"' => b'"',
        '/' => b'/',
        '\u{8}' => b'b',
        '\u{c}' => b'f',
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        _ => 0,
    };
    if second == short {
        return Some(2);
    }
    let mut units = [0; 2];
    let mut at = 0;
    for unit in c.encode_utf16(&mut units) {
        let escape = text.get(at..at + 6)?;
        if &escape[..2] != b"\\u" || hex(&escape[2..])? != u32::from(*unit) {
            return None;
        }
        at += 6;
    }
    Some(at)
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |sum, digit| {
        Some(sum * 16 + char::from(*digit).to_digit(16)?)
    })
}

/// The value as it stands inside a JSON string, which is also what a second escaping starts from.
fn json_escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// The same with every character beyond ASCII as `\uXXXX`, as many libraries write it.
fn ascii_escaped(text: &str) -> String {
    let mut out = String::new();
    for c in json_escaped(text).chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

/// The value's base64 at each of the three places it can take within a group of three bytes.
fn base64_forms(value: &[u8]) -> Vec<Encoded> {
    let mut forms: Vec<Encoded> = Vec::new();
    for lead in 0..3 {
        let mut padded = vec![0; lead];
        padded.extend_from_slice(value);
        // With `lead` bytes in front, the first character that holds only bits of the value.
        let skip = [0, 2, 3][lead];
        let whole = padded.len() * 8 / 6;
        let after = padded.len() % 3 != 0;
        for text in [
            STANDARD_NO_PAD.encode(&padded),
            URL_SAFE_NO_PAD.encode(&padded),
        ] {
            let core = text.as_bytes()[skip.min(whole)..whole].to_vec();
            if core.len() >= MIN_BASE64 && forms.iter().all(|form| form.core != core) {
                forms.push(Encoded {
                    core,
                    before: lead > 0,
                    after,
                });
            }
        }
    }
    forms
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(secret: &str, text: &str, expected: &str) {
        let redactor = Redactor::new([secret.to_owned()]);
        assert_eq!(redactor.redact(text), expected, "{secret:?} in {text:?}");
    }

    #[test]
    fn finds_a_value_as_it_is() {
        check("hunter22", "login hunter22, hunter22!", "login ***, ***!");
        check("hunter22", "nothing here", "nothing here");
        check("blåbær", "syltetøy av blåbær", "syltetøy av ***");
    }

    #[test]
    fn finds_url_encoded_values_whatever_was_encoded() {
        check("p@ss word/1", "?key=p%40ss%20word%2F1&x=1", "?key=***&x=1");
        check("p@ss word/1", "?key=p%40ss+word%2f1", "?key=***");
        check("p@ss word/1", "?key=p@ss%20word/1", "?key=***");
        check("blåbær", "q=bl%C3%A5b%c3%a6r;", "q=***;");
        check("abcd", "%61%62%63%64", "***");
    }

    #[test]
    fn finds_json_escaped_values() {
        check("say \"hi\"", r#"{"k": "say \"hi\""}"#, r#"{"k": "***"}"#);
        check(
            "say \"hi\"",
            r#"{\"k\": \"say \\\"hi\\\"\"}"#,
            r#"{\"k\": \"***\"}"#,
        );
        check("back\\slash", r"back\\slash and back\slash", "*** and ***");
        check(
            r"two\\slashes",
            r"two\\slashes and two\\\\slashes",
            "*** and ***",
        );
        check(
            "blåbær",
            r#"{\"k\": \"bl\\u00e5b\\u00e6r\"}"#,
            r#"{\"k\": \"***\"}"#,
        );
        check("blåbær😀", r"bl\u00e5b\u00E6r\ud83d\ude00.", "***.");
        check("line\nbreak", r"line\nbreak", "***");
        check("a/b/c", r"a\/b\/c", "***");
    }

    #[test]
    fn finds_base64_alone_and_within_a_longer_text() {
        // The expected encodings come from Python's base64 module.
        check("s3cr3t-token", "czNjcjN0LXRva2Vu", "***");
        check(
            "s3cr3t-token",
            "Basic dXNlcjpzM2NyM3QtdG9rZW4=",
            "Basic dXNlcj***=",
        );
        check("s3cr3t-token", "YTpzM2NyM3QtdG9rZW46eg==", "YT***6eg==");
        check("s3cr3t-token", "YWI6czNjcjN0LXRva2VuOno=", "YWI6***Ono=");
        check("????>>>>", "Pz8_Pz4-Pj4 Pz8/Pz4+Pj4=", "*** ***=");
    }

    #[test]
    fn finds_the_lines_of_a_value_of_several_lines() {
        let key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\n-----END KEY-----\n";
        check(key, "read MIIEvQIBADANBg ok", "read *** ok");
    }

    #[test]
    fn hides_all_of_two_values_that_overlap() {
        let redactor = Redactor::new(["abcdef".to_owned(), "defghi".to_owned()]);
        assert_eq!(redactor.redact("<abcdefghi>"), "<***>");
        let prefix = Redactor::new(["abcd".to_owned(), "abcdefgh".to_owned()]);
        assert_eq!(prefix.redact("<abcdefgh>"), "<***>");
    }

    #[test]
    fn leaves_short_values_alone() {
        check("abc", "abc", "abc");
        check("", "anything", "anything");
        check("blå", "blå", "blå");
    }

    #[test]
    fn borrows_when_there_is_nothing_to_hide() {
        let redactor = Redactor::new(["secret".to_owned()]);
        assert!(matches!(redactor.redact("plain"), Cow::Borrowed("plain")));
    }

    #[test]
    fn redacts_json_in_names_and_values() {
        let redactor = Redactor::new(["s3cr3t".to_owned()]);
        let mut value = serde_json::json!({"as3cr3t": ["x s3cr3t", 1, null]});
        redactor.redact_json(&mut value);
        assert_eq!(value, serde_json::json!({"a***": ["x ***", 1, null]}));
    }

    #[test]
    fn the_reach_covers_the_longest_form() {
        let secret = "😀\"😀\"";
        let redactor = Redactor::new([secret.to_owned()]);
        let twice = r#"\\ud83d\\ude00\\\"\\ud83d\\ude00\\\""#;
        assert!(redactor.reach() >= twice.len());
    }
}
