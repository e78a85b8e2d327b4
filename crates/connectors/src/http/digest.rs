//! Digest authentication (RFC 7616): what answers a server's challenge.

use std::collections::HashMap;
use std::fmt::Write as _;

use md5::Md5;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use sha2::{Digest as _, Sha256};

/// What a server asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    realm: String,
    nonce: String,
    opaque: Option<String>,
    algorithm: Option<String>,
    sha256: bool,
    session: bool,
    /// The server knows the quality of protection `auth`, which counts requests.
    counted: bool,
}

impl Challenge {
    /// The first challenge among the headers that we can answer.
    pub(super) fn of(headers: &HeaderMap) -> Option<Challenge> {
        let mut texts = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok());
        texts.find_map(Challenge::read)
    }

    fn read(text: &str) -> Option<Challenge> {
        let at = text.to_ascii_lowercase().find("digest ")?;
        let fields = fields(&text[at + "digest ".len()..]);
        let algorithm = fields.get("algorithm").cloned();
        let name = algorithm.clone().unwrap_or_default().to_ascii_uppercase();
        let (sha256, session) = match name.as_str() {
            "" | "MD5" => (false, false),
            "MD5-SESS" => (false, true),
            "SHA-256" => (true, false),
            "SHA-256-SESS" => (true, true),
            _ => return None,
        };
        let qualities = fields.get("qop").map(String::as_str);
        let counted = qualities.is_some_and(|all| all.split(',').any(|one| one.trim() == "auth"));
        if qualities.is_some() && !counted {
            return None;
        }
        Some(Challenge {
            realm: fields.get("realm").cloned().unwrap_or_default(),
            nonce: fields.get("nonce")?.clone(),
            opaque: fields.get("opaque").cloned(),
            algorithm,
            sha256,
            session,
            counted,
        })
    }

    /// The header `Authorization` of a request; `target` is its path and query, `count` how many
    /// requests have used this challenge, this one counted.
    pub(super) fn answer(
        &self,
        (user, password): (&str, &str),
        (method, target): (&str, &str),
        count: u32,
        cnonce: &str,
    ) -> String {
        let mut first = self.hash(&format!("{user}:{}:{password}", self.realm));
        if self.session {
            first = self.hash(&format!("{first}:{}:{cnonce}", self.nonce));
        }
        let second = self.hash(&format!("{method}:{target}"));
        let nonce = &self.nonce;
        let response = if self.counted {
            self.hash(&format!(
                "{first}:{nonce}:{count:08x}:{cnonce}:auth:{second}"
            ))
        } else {
            self.hash(&format!("{first}:{nonce}:{second}"))
        };
        let mut header = format!(
            "Digest username=\"{}\", realm=\"{}\", nonce=\"{nonce}\", uri=\"{target}\", \
             response=\"{response}\"",
            escaped(user),
            escaped(&self.realm),
        );
        if let Some(algorithm) = &self.algorithm {
            header.push_str(&format!(", algorithm={algorithm}"));
        }
        if let Some(opaque) = &self.opaque {
            header.push_str(&format!(", opaque=\"{opaque}\""));
        }
        if self.counted {
            header.push_str(&format!(", qop=auth, nc={count:08x}, cnonce=\"{cnonce}\""));
        }
        header
    }

    fn hash(&self, text: &str) -> String {
        if self.sha256 {
            hex(&Sha256::digest(text.as_bytes()))
        } else {
            hex(&Md5::digest(text.as_bytes()))
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

/// `name=value` and `name="value"`, separated by commas, names in lower case.
fn fields(text: &str) -> HashMap<String, String> {
    let mut fields = HashMap::new();
    let mut rest = text;
    while let Some((name, behind)) = rest.split_once('=') {
        let name = name.trim_matches([' ', ',', '\t']).to_ascii_lowercase();
        let (value, next) = match behind.strip_prefix('"') {
            Some(quoted) => unquoted(quoted),
            None => {
                let (value, next) = behind.split_once(',').unwrap_or((behind, ""));
                (value.trim().to_owned(), next)
            }
        };
        fields.insert(name, value);
        rest = next;
    }
    fields
}

/// What stands before the closing quote, and what stands behind it.
fn unquoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, one)) = chars.next() {
        match one {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, next)| next)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CNONCE: &str = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
    const NONCE: &str = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";

    /// The example of RFC 7616, section 3.9.1.
    #[test]
    fn the_example_of_the_standard_is_answered() {
        for (algorithm, response) in [
            ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
            (
                "SHA-256",
                "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
            ),
        ] {
            let text = format!(
                "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", \
                 algorithm={algorithm}, nonce=\"{NONCE}\", \
                 opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
            );
            let challenge = Challenge::read(&text).unwrap();
            let header = challenge.answer(
                ("Mufasa", "Circle of Life"),
                ("GET", "/dir/index.html"),
                1,
                CNONCE,
            );
            assert!(
                header.contains(&format!("response=\"{response}\"")),
                "{header}"
            );
            assert!(header.contains("nc=00000001"), "{header}");
        }
    }

    #[test]
    fn a_challenge_of_another_kind_is_none_of_ours() {
        for text in [
            "Basic realm=\"x\"",
            "Digest realm=\"x\", nonce=\"n\", algorithm=SHA-512-256",
            "Digest realm=\"x\", nonce=\"n\", qop=\"auth-int\"",
            "Digest realm=\"x\"",
        ] {
            assert_eq!(Challenge::read(text), None, "{text}");
        }
    }
}
