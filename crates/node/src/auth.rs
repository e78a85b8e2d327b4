//! Tokens for the API, signed with the node's own key.

use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use rand::TryRngCore as _;
use serde::{Deserialize, Serialize};

use crate::cli::Role;

const KEY_BYTES: usize = 32;
/// Tokens are valid this long at most.
const MAX_SECONDS: u64 = 10 * YEAR;
const DAY: u64 = 24 * 60 * 60;
const YEAR: u64 = 365 * DAY;

/// The key that the node's tokens are signed with.
pub struct TokenKey {
    secret: Vec<u8>,
}

/// What a valid token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Whose token it is, for logs.
    pub subject: String,
    /// What the bearer may do.
    pub role: Role,
}

/// The token's content. There is no `principals` claim: clients send what stands there to others.
#[derive(Serialize, Deserialize)]
struct Content {
    sub: String,
    role: String,
    iat: u64,
    exp: u64,
    jti: String,
}

/// The file of the key that signs tokens: `TAHINI_TOKEN_KEY_FILE`, else `token.key` beside the
/// master key.
pub fn key_file(variable: impl Fn(&str) -> Option<OsString>) -> anyhow::Result<PathBuf> {
    if let Some(file) = variable("TAHINI_TOKEN_KEY_FILE").filter(|value| !value.is_empty()) {
        return Ok(PathBuf::from(file));
    }
    let master = tahini_hub::secrets::key_file(variable)?;
    Ok(master.with_file_name("token.key"))
}

/// Makes a token, and the node's key when there is none. `expires` is a number with a unit:
/// `90m`, `12h`, `30d`, `2w`, `1y`.
pub fn create_token(role: Role, expires: &str) -> anyhow::Result<String> {
    let file = key_file(|name| std::env::var_os(name))?;
    TokenKey::open_or_create(&file)?.issue(role, seconds_of(expires)?, now())
}

impl TokenKey {
    /// The key in `file`; `None` when there is no such file.
    pub fn open(file: &Path) -> anyhow::Result<Option<TokenKey>> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| file.display().to_string()),
        };
        let secret = BASE64
            .decode(text.trim())
            .ok()
            .filter(|secret| secret.len() == KEY_BYTES);
        let secret = secret.ok_or_else(|| {
            anyhow!(
                "{} is no key: expected {KEY_BYTES} bytes in base64",
                file.display()
            )
        })?;
        Ok(Some(TokenKey { secret }))
    }

    /// The key in `file`, made there, for its owner only, when there is none.
    pub fn open_or_create(file: &Path) -> anyhow::Result<TokenKey> {
        if let Some(key) = TokenKey::open(file)? {
            return Ok(key);
        }
        let mut secret = vec![0; KEY_BYTES];
        let random = rand::rngs::OsRng.try_fill_bytes(&mut secret);
        random.map_err(|error| anyhow!("no random bytes: {error}"))?;
        match write_key(file, &secret) {
            // Somebody else made it in the meantime: theirs is the key.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => TokenKey::open(file)?
                .ok_or_else(|| anyhow!("{} appeared and vanished", file.display())),
            Err(error) => Err(error).with_context(|| file.display().to_string()),
            Ok(()) => Ok(TokenKey { secret }),
        }
    }

    /// A token that holds for `seconds` from `now` (seconds since 1970 UTC).
    pub fn issue(&self, role: Role, seconds: u64, now: u64) -> anyhow::Result<String> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let content = Content {
            sub: format!("{}-{}", role_name(role), &id[..8]),
            role: role_name(role).to_owned(),
            iat: now,
            exp: now + seconds,
            jti: id,
        };
        let key = EncodingKey::from_secret(&self.secret);
        Ok(encode(&Header::new(Algorithm::HS256), &content, &key)?)
    }

    /// What a token says, when this key signed it and it has not expired. The signature is
    /// compared in constant time.
    ///
    /// # Errors
    /// Words that do not tell how a signature was wrong.
    pub fn verify(&self, token: &str) -> Result<Claims, String> {
        let mut rules = Validation::new(Algorithm::HS256);
        rules.leeway = 0;
        let key = DecodingKey::from_secret(&self.secret);
        let content = decode::<Content>(token, &key, &rules).map_err(|error| {
            use jsonwebtoken::errors::ErrorKind;
            match error.kind() {
                ErrorKind::ExpiredSignature => "the token has expired".to_owned(),
                _ => "expected a token that this node's key signed, found another".to_owned(),
            }
        })?;
        let content = content.claims;
        let role = match content.role.as_str() {
            "admin" => Role::Admin,
            "reader" => Role::Reader,
            "proxy" => Role::Proxy,
            other => {
                return Err(format!(
                    "expected the role admin, reader or proxy, found {other:?}"
                ));
            }
        };
        Ok(Claims {
            subject: content.sub,
            role,
        })
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Admin => "admin",
        Role::Reader => "reader",
        Role::Proxy => "proxy",
    }
}

fn write_key(file: &Path, secret: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut open = options.open(file)?;
    writeln!(open, "{}", BASE64.encode(secret))?;
    open.sync_all()
}

/// Now, in seconds since 1970 UTC.
fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default()
}

/// How many seconds a duration such as `30d` has.
fn seconds_of(text: &str) -> anyhow::Result<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => DAY,
        "w" => 7 * DAY,
        "y" => YEAR,
        _ => bail!("expected a duration such as 12h, 30d or 1y, found {text:?}"),
    };
    let count: u64 = digits
        .parse()
        .map_err(|_| anyhow!("expected a duration such as 12h, 30d or 1y, found {text:?}"))?;
    match count.checked_mul(unit) {
        Some(seconds) if (1..=MAX_SECONDS).contains(&seconds) => Ok(seconds),
        _ => bail!("expected a duration of at most 10 years and more than nothing, found {text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> TokenKey {
        TokenKey {
            secret: vec![byte; KEY_BYTES],
        }
    }

    #[test]
    fn durations() {
        assert_eq!(seconds_of("30d").unwrap(), 2_592_000);
        assert_eq!(seconds_of("90m").unwrap(), 5_400);
        for wrong in ["", "d", "0d", "-1d", "30", "1.5h", "11y", "30 days"] {
            assert!(seconds_of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_says_its_role_until_it_expires() {
        let token = key(1).issue(Role::Reader, 60, now()).unwrap();
        let claims = key(1).verify(&token).unwrap();
        assert_eq!(claims.role, Role::Reader);
        assert!(claims.subject.starts_with("reader-"));
        let old = key(1).issue(Role::Admin, 60, now() - 61).unwrap();
        assert_eq!(key(1).verify(&old).unwrap_err(), "the token has expired");
    }

    #[test]
    fn only_our_signature_counts() {
        let token = key(1).issue(Role::Admin, 60, now()).unwrap();
        assert!(key(2).verify(&token).is_err());
        let parts: Vec<&str> = token.split('.').collect();
        let none = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .encode(br#"{"alg":"none","typ":"JWT"}"#);
        assert!(key(1).verify(&format!("{none}.{}.", parts[1])).is_err());
        assert!(key(1).verify("not a token").is_err());
    }

    #[test]
    fn the_content_names_nobody_to_others() {
        let token = key(1).issue(Role::Admin, 60, now()).unwrap();
        let middle = token.split('.').nth(1).unwrap();
        let text = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(middle)
            .unwrap();
        let content: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert!(content.is_object() && content.get("principals").is_none());
    }

    #[test]
    fn the_key_is_made_once_and_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config").join("token.key");
        assert!(TokenKey::open(&file).unwrap().is_none());
        let token = TokenKey::open_or_create(&file)
            .unwrap()
            .issue(Role::Admin, 60, now())
            .unwrap();
        let again = TokenKey::open_or_create(&file).unwrap();
        assert!(again.verify(&token).is_ok());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        fs::write(&file, "short").unwrap();
        assert!(TokenKey::open(&file).is_err());
    }
}
