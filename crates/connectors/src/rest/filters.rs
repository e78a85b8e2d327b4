//! What templates may call beside Jinja's own filters.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use minijinja::value::{Kwargs, Rest};
use minijinja::{Environment, Error, ErrorKind, State, Value as Seen};
use sha2::Sha256;
use tahini_hub::Clock;
use tahini_hub::secrets::SecretSource;

use super::template::is_absent;

/// What lies outside a template: the clock and the secrets.
#[derive(Clone, Default)]
pub(super) struct World {
    /// The clock; a fixed moment of the tests where there is none.
    pub(super) clock: Option<Arc<dyn Clock>>,
    /// The secrets, and the system whose own ones count.
    pub(super) secrets: Option<(Arc<dyn SecretSource>, String)>,
}

/// Moments are whole numbers of nanoseconds since 1970 beside this one, so that durations can be
/// added to them and that they print as dates.
const MOMENTS: i128 = 1 << 100;
/// As far from `MOMENTS` as moments are: the years 1 to 9999.
const REACH: i128 = 1 << 70;

pub(super) fn add(env: &mut Environment<'static>, world: World) {
    env.add_filter("bytes", bytes);
    env.add_filter("base64_decode", base64_decode);
    env.add_filter("datetime", datetime);
    env.add_filter("datetime_format", datetime_format);
    let of_tokens = world.clock.clone();
    env.add_filter(
        "decode_jwt",
        move |token: String, key: Option<String>, arguments: Kwargs| {
            super::jwt::decode_jwt(&token, key, &arguments, of_tokens.as_ref())
        },
    );
    env.add_filter("base64_encode", base64_encode);
    env.add_filter("hex_encode", hex_encode);
    env.add_function("b64encode", base64_encode);
    env.add_function("hmacsha256digest", hmac_sha256);
    env.add_filter("default", default);
    env.add_filter("d", default);
    env.add_filter("truncate", truncate);
    env.add_filter("format", format);
    env.add_function("timedelta", timedelta);
    let clock = world.clock;
    env.add_function("now", move || {
        let now = clock.as_ref().map_or_else(
            || Timestamp::constant(1_714_564_800, 0),
            |clock| clock.now(),
        );
        moment(now)
    });
    let secrets = world.secrets;
    env.add_function("secret", move |name: String| -> Result<Seen, Error> {
        let found = secrets.as_ref().and_then(|(secrets, system)| {
            let own = secrets.get(Some(system), &name);
            own.or_else(|| secrets.get(None, &name))
        });
        found
            .map(Seen::from)
            .ok_or_else(|| wrong(format!("there is no secret {name:?}")))
    });
}

fn wrong(words: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, words.into())
}

fn moment(at: Timestamp) -> Seen {
    Seen::from(MOMENTS + at.as_nanosecond())
}

fn moment_of(value: &Seen) -> Option<Timestamp> {
    if !value.is_integer() {
        return None;
    }
    let number = i128::try_from(value.clone()).ok()? - MOMENTS;
    if number.abs() > REACH {
        return None;
    }
    Timestamp::from_nanosecond(number).ok()
}

/// How a value prints where that is not how Jinja prints it: null is nothing, a moment is a date.
pub(super) fn printed(value: &Seen) -> Option<String> {
    if value.is_none() {
        return Some(String::new());
    }
    moment_of(value).map(|at| at.to_string())
}

/// Methods of values: those of Python's text, lists and dicts, and those of moments.
pub(super) fn method(
    state: &mut State<'_, '_>,
    value: &Seen,
    name: &str,
    arguments: &[Seen],
) -> Result<Seen, Error> {
    let Some(at) = moment_of(value) else {
        return minijinja_contrib::pycompat::unknown_method_callback(state, value, name, arguments);
    };
    match (name, arguments) {
        ("strftime", [format]) => {
            let format = format
                .as_str()
                .ok_or_else(|| wrong("strftime expects a format"))?;
            strftime(at, format).map(Seen::from)
        }
        ("isoformat", []) => Ok(Seen::from(at.to_string())),
        ("timestamp", []) => Ok(Seen::from(at.as_nanosecond() as f64 / 1e9)),
        _ => Err(Error::new(
            ErrorKind::UnknownMethod,
            format!("a moment has strftime, isoformat and timestamp, not {name}"),
        )),
    }
}

fn strftime(at: Timestamp, format: &str) -> Result<String, Error> {
    let zoned = at.to_zoned(TimeZone::UTC);
    jiff::fmt::strtime::format(format, &zoned).map_err(|error| wrong(error.to_string()))
}

fn bytes(value: &Seen) -> Result<Seen, Error> {
    if let Some(text) = value.as_str() {
        return Ok(Seen::from_bytes(text.as_bytes().to_vec()));
    }
    match value.as_bytes() {
        Some(_) => Ok(value.clone()),
        None => Err(wrong("bytes expects text")),
    }
}

/// The HMAC of bytes or text with SHA-256 (RFC 2104) under a key, as bytes.
fn hmac_sha256(key: &Seen, message: &Seen) -> Result<Seen, Error> {
    let expected = || wrong("hmacsha256digest expects a key and a message, bytes or text");
    let (key, message) = (key.as_bytes(), message.as_bytes());
    let (key, message) = (key.ok_or_else(expected)?, message.ok_or_else(expected)?);
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|error| wrong(error.to_string()))?;
    mac.update(message);
    Ok(Seen::from_bytes(mac.finalize().into_bytes().to_vec()))
}

fn hex_encode(value: &Seen) -> Result<String, Error> {
    let bytes = value.as_bytes();
    let bytes = bytes.ok_or_else(|| wrong("hex_encode expects bytes or text"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn base64_encode(value: &Seen) -> Result<String, Error> {
    let bytes = value.as_bytes();
    let bytes = bytes.ok_or_else(|| wrong("base64_encode expects bytes or text"))?;
    Ok(STANDARD.encode(bytes))
}

fn base64_decode(text: &str) -> Result<Seen, Error> {
    let bytes = STANDARD
        .decode(text.trim())
        .map_err(|error| wrong(format!("base64_decode expects base64: {error}")))?;
    Ok(match String::from_utf8(bytes) {
        Ok(text) => Seen::from(text),
        Err(error) => Seen::from_bytes(error.into_bytes()),
    })
}

/// Nanoseconds since 1970, or the text of a date, as a moment.
fn datetime(value: &Seen) -> Result<Seen, Error> {
    if moment_of(value).is_some() {
        return Ok(value.clone());
    }
    let expected = || wrong("datetime expects nanoseconds since 1970 or the text of a date");
    if let Some(text) = value.as_str() {
        return parse_moment(text).map(moment).ok_or_else(expected);
    }
    let number = i128::try_from(value.clone()).map_err(|_| expected())?;
    let at = Timestamp::from_nanosecond(number).map_err(|_| expected())?;
    Ok(moment(at))
}

/// The moment that a text names: an instant with a zone, a date and time in UTC, or a date.
pub(super) fn parse_moment(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at);
    }
    if let Ok(at) = text.parse::<jiff::civil::DateTime>() {
        return at.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp());
    }
    let date = text.parse::<jiff::civil::Date>().ok()?;
    date.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp())
}

fn datetime_format(value: &Seen, format: Option<&str>) -> Result<String, Error> {
    let value = datetime(value)?;
    let at = moment_of(&value).ok_or_else(|| wrong("datetime_format expects a date"))?;
    match format {
        None => Ok(at.to_string()),
        Some(format) => strftime(at, format),
    }
}

fn default(value: &Seen, other: Option<Seen>, also_false: Option<bool>) -> Seen {
    let missing = value.is_undefined()
        || is_absent(value)
        || (also_false.unwrap_or(false) && !value.is_true());
    if missing {
        other.unwrap_or_else(|| Seen::from(""))
    } else {
        value.clone()
    }
}

/// Jinja2's `truncate(length=255, killwords=False, end='...', leeway=5)`.
fn truncate(text: &str, arguments: Rest<Seen>, named: Kwargs) -> Result<String, Error> {
    let argument = |at: usize, name: &str| -> Option<Seen> {
        let by_name = named.get(name).ok();
        arguments.get(at).cloned().or(by_name)
    };
    let count = |value: Option<Seen>, default: usize| {
        value.map_or(Ok(default), |value| {
            value
                .as_usize()
                .ok_or_else(|| wrong("truncate expects a whole number of characters"))
        })
    };
    let length = count(argument(0, "length"), 255)?;
    let killwords = argument(1, "killwords").is_some_and(|value| value.is_true());
    let end = argument(2, "end").map_or_else(|| "...".to_owned(), |end| end.to_string());
    let leeway = count(argument(3, "leeway"), 5)?;
    named.assert_all_used()?;
    let total = text.chars().count();
    let end_chars = end.chars().count();
    if total <= length.saturating_add(leeway) {
        return Ok(text.to_owned());
    }
    let kept: String = text
        .chars()
        .take(length.saturating_sub(end_chars))
        .collect();
    let kept = match kept.rsplit_once(' ') {
        Some((words, _)) if !killwords => words.to_owned(),
        _ => kept,
    };
    Ok(format!("{kept}{end}"))
}

/// Jinja2's `format`: what Python's `%` does with the values behind it.
fn format(pattern: &str, arguments: Rest<Seen>) -> Result<String, Error> {
    let mut out = String::new();
    let mut values = arguments.iter();
    let mut chars = pattern.chars().peekable();
    while let Some(one) = chars.next() {
        if one != '%' {
            out.push(one);
            continue;
        }
        let mut flags = String::new();
        while let Some(flag) = chars
            .peek()
            .filter(|next| "0123456789.-+ ".contains(**next))
        {
            flags.push(*flag);
            chars.next();
        }
        let kind = chars.next().ok_or_else(|| wrong("format ends with %"))?;
        if kind == '%' {
            out.push('%');
            continue;
        }
        let value = values
            .next()
            .ok_or_else(|| wrong("format has fewer values than places"))?;
        out.push_str(&formatted(kind, &flags, value)?);
    }
    Ok(out)
}

fn formatted(kind: char, flags: &str, value: &Seen) -> Result<String, Error> {
    let (width, digits) = flags.split_once('.').unwrap_or((flags, ""));
    let left = width.starts_with('-');
    let zeros = width.starts_with('0');
    let width: usize = width
        .trim_start_matches(['-', '+', ' '])
        .parse()
        .unwrap_or(0);
    let text = match kind {
        's' => value.to_string(),
        'd' | 'i' => i64::try_from(value.clone())
            .map_err(|_| wrong("%d expects a number"))?
            .to_string(),
        'f' => {
            let number = f64::try_from(value.clone()).map_err(|_| wrong("%f expects a number"))?;
            let digits = digits.parse().unwrap_or(6);
            format!("{number:.digits$}")
        }
        other => return Err(wrong(format!("format knows %s, %d and %f, not %{other}"))),
    };
    Ok(match (left, zeros && kind != 's') {
        (true, _) => format!("{text:<width$}"),
        (_, true) => format!("{text:0>width$}"),
        _ => format!("{text:>width$}"),
    })
}

/// A duration in nanoseconds.
fn timedelta(arguments: Kwargs) -> Result<Seen, Error> {
    let mut sum = 0.0;
    for (name, seconds) in [
        ("weeks", 604_800.0),
        ("days", 86_400.0),
        ("hours", 3_600.0),
        ("minutes", 60.0),
        ("seconds", 1.0),
        ("milliseconds", 1e-3),
    ] {
        if let Some(count) = arguments.get::<Option<f64>>(name)? {
            sum += count * seconds;
        }
    }
    arguments.assert_all_used()?;
    Ok(Seen::from((sum * 1e9) as i128))
}
