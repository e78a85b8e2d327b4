//! Datetimes as text by a format, and parts of datetimes.

use jiff::ToSpan;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use tahini_entity::{Datetime, Value};

use crate::compile::suggest;

/// A compiled format.
#[derive(Clone, Debug)]
pub(super) struct Format(Vec<Token>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Literal(char),
    Space,
    /// The letter after `%`.
    Field(char),
}

/// The letters that a format may have after `%`.
const FIELDS: &str = "deHImMpSfyYz";

/// The field that another letter may be meant for: in other dialects of formats, or in the other
/// case.
fn like(letter: char) -> Option<char> {
    let meant = match letter {
        'D' => 'd',
        'h' | 'k' | 'K' => 'H',
        'l' => 'I',
        'P' => 'p',
        's' => 'S',
        'F' | 'N' | 'L' => 'f',
        'Z' => 'z',
        'G' => 'Y',
        'n' | 'i' => 'M',
        _ => return None,
    };
    Some(meant)
}

impl Format {
    /// # Errors
    /// Which token is unknown, or that `%z` is not last.
    pub(super) fn new(text: &str) -> Result<Format, String> {
        let mut tokens = Vec::new();
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            tokens.push(match letter {
                '%' => match letters.next() {
                    Some('%') => Token::Literal('%'),
                    Some(field) if FIELDS.contains(field) => Token::Field(field),
                    found => {
                        let near = found.and_then(like);
                        let help = near.map(|near| format!("; did you mean \"%{near}\"?"));
                        let found = found.map(String::from).unwrap_or_default();
                        return Err(format!(
                            "expected one of %d %e %H %I %m %M %p %S %f %y %Y %z %% in the \
                             FORMAT, found \"%{found}\"{}",
                            help.unwrap_or_default()
                        ));
                    }
                },
                space if space.is_whitespace() => Token::Space,
                other => Token::Literal(other),
            });
        }
        let offset = tokens.iter().position(|token| *token == Token::Field('z'));
        if offset.is_some_and(|at| at + 1 < tokens.len()) {
            return Err("expected %z last in the FORMAT, found it earlier".to_owned());
        }
        Ok(Format(tokens))
    }

    /// The instant that a text says; without an offset in it, in `zone`.
    pub(super) fn parse(&self, text: &str, zone: &TimeZone) -> Option<Datetime> {
        let mut parts = Parts::default();
        let mut rest = text;
        for token in &self.0 {
            rest = match token {
                Token::Literal(letter) => rest.strip_prefix(*letter)?,
                Token::Space => {
                    let after = rest.trim_start();
                    if after.len() == rest.len() {
                        return None;
                    }
                    after
                }
                Token::Field(field) => parts.read(*field, rest)?,
            };
        }
        if rest.is_empty() {
            parts.instant(zone)
        } else {
            None
        }
    }

    /// The text of an instant in `zone`; `None` when the year there is not one of 1 to 9999.
    pub(super) fn write(&self, at: Datetime, zone: &TimeZone) -> Option<String> {
        let offset = zone.to_offset(at.timestamp());
        let civil = at.civil_at(offset)?;
        let mut out = String::new();
        for token in &self.0 {
            match token {
                Token::Literal(letter) => out.push(*letter),
                Token::Space => out.push(' '),
                Token::Field(field) => out.push_str(&field_text(*field, civil, offset)),
            }
        }
        Some(out)
    }
}

fn field_text(field: char, civil: DateTime, offset: Offset) -> String {
    let hour12 = (civil.hour() + 11) % 12 + 1;
    match field {
        'd' => format!("{:02}", civil.day()),
        'e' => civil.day().to_string(),
        'H' => format!("{:02}", civil.hour()),
        'I' => format!("{hour12:02}"),
        'm' => format!("{:02}", civil.month()),
        'M' => format!("{:02}", civil.minute()),
        'p' => if civil.hour() < 12 { "AM" } else { "PM" }.to_owned(),
        'S' => format!("{:02}", civil.second()),
        'f' => format!("{:06}", civil.subsec_nanosecond() / 1000),
        'y' => format!("{:02}", civil.year().rem_euclid(100)),
        'Y' => format!("{:04}", civil.year()),
        _ => offset_text(offset),
    }
}

fn offset_text(offset: Offset) -> String {
    let minutes = offset.seconds() / 60;
    let sign = if minutes < 0 { '-' } else { '+' };
    format!("{sign}{:02}{:02}", minutes.abs() / 60, minutes.abs() % 60)
}

/// What was read so far. What a format leaves out is the start of the year 1900.
#[derive(Default)]
struct Parts {
    year: Option<i16>,
    month: Option<i8>,
    day: Option<i8>,
    hour: Option<i8>,
    hour12: Option<i8>,
    afternoon: Option<bool>,
    minute: i8,
    second: i8,
    nanosecond: i32,
    offset: Option<Offset>,
}

impl Parts {
    /// Reads a field off the front of `text`; gives the rest.
    fn read<'t>(&mut self, field: char, text: &'t str) -> Option<&'t str> {
        match field {
            'f' => {
                let count = text.bytes().take_while(u8::is_ascii_digit).count().min(9);
                let (digits, rest) = text.split_at(count);
                let number: i32 = digits.parse().ok()?;
                self.nanosecond = number * 10i32.pow(9 - count as u32);
                return Some(rest);
            }
            'p' => {
                let (half, rest) = text.split_at_checked(2)?;
                self.afternoon = match half.to_ascii_lowercase().as_str() {
                    "am" => Some(false),
                    "pm" => Some(true),
                    _ => return None,
                };
                return Some(rest);
            }
            'z' => {
                self.offset = Some(offset(text)?);
                return Some("");
            }
            _ => {}
        }
        let most = if field == 'Y' { 4 } else { 2 };
        let count = text
            .bytes()
            .take_while(u8::is_ascii_digit)
            .count()
            .min(most);
        if field == 'Y' && count != 4 {
            return None;
        }
        let (digits, rest) = text.split_at(count);
        let number: i16 = digits.parse().ok()?;
        let small = number as i8;
        match field {
            'Y' => self.year = Some(number),
            'y' => {
                self.year = Some(if number < 69 {
                    2000 + number
                } else {
                    1900 + number
                })
            }
            'm' => self.month = Some(small),
            'd' | 'e' => self.day = Some(small),
            'H' => self.hour = Some(small),
            'I' if (1..=12).contains(&small) => self.hour12 = Some(small),
            'M' => self.minute = small,
            'S' => self.second = small,
            _ => return None,
        }
        Some(rest)
    }

    fn instant(&self, zone: &TimeZone) -> Option<Datetime> {
        let year = self.year.unwrap_or(1900);
        let date = Date::new(year, self.month.unwrap_or(1), self.day.unwrap_or(1)).ok()?;
        let afternoon = if self.afternoon == Some(true) { 12 } else { 0 };
        let hour = match (self.hour, self.hour12) {
            (Some(hour), _) => hour,
            (None, Some(hour)) => hour % 12 + afternoon,
            (None, None) => 0,
        };
        let time = Time::new(hour, self.minute, self.second, self.nanosecond).ok()?;
        let civil = DateTime::from_parts(date, time);
        match self.offset {
            Some(offset) => Datetime::from_civil_at(civil, offset),
            None => in_zone(civil, zone),
        }
    }
}

/// The instant at which the clocks of `zone` show `civil`. What a clock change skips is read with
/// the offset before it, and of two instants that show the same the second one counts: both are
/// standard time where summer time is what comes and goes.
fn in_zone(civil: DateTime, zone: &TimeZone) -> Option<Datetime> {
    let offset = match zone.to_ambiguous_timestamp(civil).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset,
        AmbiguousOffset::Gap { before, .. } => before,
        AmbiguousOffset::Fold { after, .. } => after,
    };
    Datetime::from_civil_at(civil, offset)
}

/// `Z`, `+HHMM` or `+HH:MM`, all of the text.
fn offset(text: &str) -> Option<Offset> {
    if text == "Z" {
        return Some(Offset::UTC);
    }
    let (sign, rest) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let digits = rest.replacen(':', "", 1);
    if digits.len() != 4 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes): (i32, i32) = (digits[..2].parse().ok()?, digits[2..].parse().ok()?);
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
}

/// A time zone by its name.
///
/// # Errors
/// That there is none of that name.
pub(super) fn zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name).map_err(|_| {
        format!("expected the name of a time zone such as \"Europe/Oslo\", found \"{name}\"")
    })
}

/// What is wrong with a literal that names a time zone.
pub(super) fn unknown_zone(name: &Value) -> Option<String> {
    let name = name.as_str()?;
    let words = zone(name).err()?;
    let known: Vec<String> = jiff::tz::db()
        .available()
        .map(|zone| zone.to_string())
        .collect();
    let help = suggest::nearest(name, known.iter().map(String::as_str));
    Some(format!("{words}{help}"))
}

/// A unit in which datetimes are moved and compared.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    /// So many months.
    Months(i64),
    /// So many nanoseconds.
    Nanoseconds(i128),
}

/// The names of the parts.
pub(super) const PARTS: [&str; 10] = [
    "year",
    "month",
    "week",
    "day",
    "hour",
    "minute",
    "second",
    "millisecond",
    "microsecond",
    "nanosecond",
];

const SECOND: i128 = 1_000_000_000;

impl Part {
    /// A part by its name.
    pub(super) fn named(name: &str) -> Option<Part> {
        Some(match name {
            "year" => Part::Months(12),
            "month" => Part::Months(1),
            "week" => Part::Nanoseconds(7 * 86_400 * SECOND),
            "day" => Part::Nanoseconds(86_400 * SECOND),
            "hour" => Part::Nanoseconds(3_600 * SECOND),
            "minute" => Part::Nanoseconds(60 * SECOND),
            "second" => Part::Nanoseconds(SECOND),
            "millisecond" => Part::Nanoseconds(SECOND / 1_000),
            "microsecond" => Part::Nanoseconds(SECOND / 1_000_000),
            "nanosecond" => Part::Nanoseconds(1),
            _ => return None,
        })
    }

    /// How many whole parts lie from `end` to `start`, toward zero.
    pub(super) fn between(self, start: Datetime, end: Datetime) -> i128 {
        match self {
            Part::Nanoseconds(unit) => (start.as_nanosecond() - end.as_nanosecond()) / unit,
            Part::Months(unit) => {
                let (a, b) = (start.civil(), end.civil());
                let month = |at: DateTime| i64::from(at.year()) * 12 + i64::from(at.month());
                let within = |at: DateTime| (at.day(), at.time());
                let months = month(a) - month(b);
                let whole = if months > 0 && within(a) < within(b) {
                    months - 1
                } else if months < 0 && within(a) > within(b) {
                    months + 1
                } else {
                    months
                };
                i128::from(whole / unit)
            }
        }
    }

    /// An instant so many parts later; a day that its month does not have becomes the month's
    /// last. `None` outside the years 1 to 9999.
    pub(super) fn plus(self, at: Datetime, count: i64) -> Option<Datetime> {
        match self {
            Part::Nanoseconds(unit) => {
                let sum = at
                    .as_nanosecond()
                    .checked_add(unit.checked_mul(i128::from(count))?)?;
                Datetime::from_nanosecond(sum)
            }
            Part::Months(unit) => {
                let months = unit.checked_mul(count)?;
                let months = i32::try_from(months).ok().filter(|m| m.abs() <= 120_000)?;
                let civil = at.civil().checked_add(months.months()).ok()?;
                Datetime::from_civil(civil)
            }
        }
    }
}

/// The same wall time in another zone, both read as if they were UTC. `None` when that, or the
/// instant, lies outside the years 1 to 9999.
pub(super) fn shift(at: Datetime, from: &TimeZone, to: &TimeZone) -> Option<Datetime> {
    let instant = in_zone(at.civil(), from)?;
    Datetime::from_civil(instant.civil_at(to.to_offset(instant.timestamp()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(format: &str, text: &str) -> Option<String> {
        let at = Format::new(format).unwrap().parse(text, &TimeZone::UTC)?;
        Some(at.to_string())
    }

    #[test]
    fn texts_are_read_by_their_format() {
        for (format, text, expected) in [
            ("%Y-%m-%d", "2015-07-28", "2015-07-28T00:00:00Z"),
            ("%d.%m.%y", "1.2.69", "1969-02-01T00:00:00Z"),
            ("%d.%m.%y", "1.2.68", "2068-02-01T00:00:00Z"),
            ("%I:%M %p", "12:05 am", "1900-01-01T00:05:00Z"),
            ("%I:%M %p", "12:05   PM", "1900-01-01T12:05:00Z"),
            ("%H:%M:%S.%f", "01:02:03.5", "1900-01-01T01:02:03.5Z"),
            (
                "%Y%m%d%H%M%S%z",
                "20150728094600+02:00",
                "2015-07-28T07:46:00Z",
            ),
            ("100%% %Y", "100% 2000", "2000-01-01T00:00:00Z"),
        ] {
            assert_eq!(
                parsed(format, text).as_deref(),
                Some(expected),
                "{format} {text}"
            );
        }
        for (format, text) in [
            ("%Y-%m-%d", "2015-02-29"),
            ("%Y-%m-%d", "15-02-28"),
            ("%Y-%m-%d", "2015-02-28 "),
            ("%H", "24"),
            ("%Y", "0000"),
            ("%z", "+02"),
            ("%p", "å"),
        ] {
            assert_eq!(parsed(format, text), None, "{format} {text}");
        }
    }

    #[test]
    fn formats_with_unknown_tokens_are_refused() {
        for format in ["%q", "%", "%z%Y"] {
            assert!(Format::new(format).is_err(), "{format}");
        }
    }

    #[test]
    fn parts_are_cut_toward_zero() {
        let at = |text: &str| text.parse::<Datetime>().unwrap();
        for (part, start, end, expected) in [
            ("year", "2015-03-02T00:00:00Z", "2016-02-29T00:00:00Z", 0),
            ("month", "2016-07-29T00:00:00Z", "2015-03-30T00:00:00Z", 15),
            ("week", "2015-01-01T00:00:00Z", "2015-01-09T00:00:00Z", -1),
            ("day", "2015-01-02T23:59:59Z", "2015-01-01T00:00:00Z", 1),
        ] {
            let part = Part::named(part).unwrap();
            assert_eq!(part.between(at(start), at(end)), expected, "{start} {end}");
        }
    }
}
