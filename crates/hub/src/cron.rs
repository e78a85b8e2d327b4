//! Cron expressions as pumps use them: five fields and an optional year, in UTC.
//!
//! Minutes, hours, day of month, month, day of week, year (1970–2099). Day of month AND day of
//! week must match. `0/5` starts at 0 and goes on in fives; `?` is `*`; `L` is a month's last day,
//! and `5L`, `L5` or `FRIL` its last Friday, with weekdays from 0, Sunday.

use std::fmt;

use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// A cron expression.
#[derive(Clone, Debug)]
pub struct Cron {
    text: String,
    pattern: croner::Cron,
}

impl Cron {
    /// Reads an expression.
    ///
    /// # Errors
    /// What was expected, what was found, and what to write instead.
    pub fn parse(text: &str) -> Result<Cron, String> {
        let normal = normalise(text).map_err(|why| format!("cron expression {text:?}: {why}"))?;
        let parser = CronParser::builder()
            .seconds(Seconds::Required)
            .year(Year::Required)
            .dom_and_dow(true)
            .sloppy_ranges(true)
            .build();
        match parser.parse(&normal) {
            Ok(pattern) => Ok(Cron {
                text: text.to_owned(),
                pattern,
            }),
            Err(error) => Err(format!("cron expression {text:?}: {error}")),
        }
    }

    /// The first moment after `time` that matches, a whole minute; `None` when there is none ever
    /// again, up to the last year that an expression can name.
    pub fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        let from = time.to_zoned(TimeZone::UTC);
        let next: Result<Zoned, CronError> = self.pattern.find_next_occurrence(&from, false);
        // The search ends with an error when the years ahead hold no match.
        let next = next.ok().filter(|moment| moment.year() <= LAST_YEAR)?;
        Some(next.timestamp())
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Cron {
    fn eq(&self, other: &Cron) -> bool {
        self.text == other.text
    }
}

/// The last year that an expression can name.
const LAST_YEAR: i16 = 2099;

/// One field of an expression.
struct Field {
    name: &'static str,
    least: u16,
    most: u16,
    /// Names in the order of their numbers.
    names: &'static [&'static str],
    /// Whether it knows `?` and `L`.
    is_day: bool,
}

const WEEKDAYS: &[&str] = &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
const MONTHS: &[&str] = &[
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
];

const fn field(name: &'static str, least: u16, most: u16) -> Field {
    Field {
        name,
        least,
        most,
        names: &[],
        is_day: false,
    }
}

const FIELDS: [Field; 6] = [
    field("minute", 0, 59),
    field("hour", 0, 23),
    Field {
        is_day: true,
        ..field("day of month", 1, 31)
    },
    Field {
        names: MONTHS,
        ..field("month", 1, 12)
    },
    // 7 is Sunday, too, as everywhere.
    Field {
        names: WEEKDAYS,
        is_day: true,
        ..field("day of week", 0, 7)
    },
    field("year", 1970, 2099),
];

/// Short forms of whole expressions.
const NICKNAMES: [(&str, &str); 6] = [
    ("@YEARLY", "0 0 1 1 *"),
    ("@ANNUALLY", "0 0 1 1 *"),
    ("@MONTHLY", "0 0 1 * *"),
    ("@WEEKLY", "0 0 * * 0"),
    ("@DAILY", "0 0 * * *"),
    ("@HOURLY", "0 * * * *"),
];

/// The expression in the library's words: seconds in front, names as numbers, the year behind.
fn normalise(text: &str) -> Result<String, String> {
    let upper = text.trim().to_uppercase();
    let nickname = NICKNAMES.iter().find(|(name, _)| *name == upper);
    let upper = nickname.map_or(upper.as_str(), |(_, expression)| expression);
    let parts: Vec<&str> = upper.split_whitespace().collect();
    if !(5..=6).contains(&parts.len()) {
        return Err(format!(
            "expected five fields (minute, hour, day of month, month, day of week) and perhaps a \
             year, found {}",
            parts.len()
        ));
    }
    let mut normal = vec!["0".to_owned()];
    for (field, part) in FIELDS.iter().zip(&parts) {
        let items: Result<Vec<String>, String> =
            part.split(',').map(|item| field.item(item)).collect();
        normal.push(items?.join(","));
    }
    if parts.len() == 5 {
        normal.push("*".to_owned());
    }
    Ok(normal.join(" "))
}

impl Field {
    /// One item of a field's list: a range with an optional step, or a last day.
    fn item(&self, item: &str) -> Result<String, String> {
        if item.contains('W') && !item.contains("WED") {
            return Err(format!(
                "{item:?}: nearest weekdays (W) are not supported; name the days"
            ));
        }
        if item.contains('#') {
            return Err(format!(
                "{item:?}: numbered weekdays (#) are not supported, the manual gives them two \
                 meanings; the third Friday is day of month 15-21 and day of week FRI"
            ));
        }
        if self.is_day && item.contains('L') {
            return self.last(item);
        }
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        let range = match range {
            "*" => "*".to_owned(),
            "?" if self.is_day && step.is_none() => "*".to_owned(),
            _ => match range.split_once('-') {
                None => self.number(range)?.to_string(),
                Some((from, to)) => self.range(item, from, to)?,
            },
        };
        match step {
            None => Ok(range),
            Some(_) if self.name == "year" => {
                Err(format!("{item:?}: years have no steps; list them"))
            }
            Some(step) => match step.parse::<u16>() {
                Ok(count) if count > 0 && count <= self.most => match range.parse::<u16>() {
                    // The library would go on to 7, a second Sunday.
                    Ok(first) if self.is_weekday() => Ok(format!("{}-6/{count}", first % 7)),
                    _ => Ok(format!("{range}/{count}")),
                },
                _ => Err(format!(
                    "{item:?}: expected a step from 1 to {}, found {step:?}",
                    self.most
                )),
            },
        }
    }

    fn range(&self, item: &str, from: &str, to: &str) -> Result<String, String> {
        let (first, mut last) = (self.number(from)?, self.number(to)?);
        if self.is_weekday() && last == 0 && first > 0 {
            last = 7;
        }
        if first > last {
            return Err(format!(
                "{item:?} runs backwards; write {from}-{},{}-{to}",
                if self.is_weekday() { 6 } else { self.most },
                self.least
            ));
        }
        Ok(format!("{first}-{last}"))
    }

    /// `L`, the last day of a month, or `5L`, `L5`, `FRIL`, its last Friday.
    fn last(&self, item: &str) -> Result<String, String> {
        if item == "L" {
            return match self.is_weekday() {
                true => {
                    Err("\"L\" alone says no day of the week; write FRIL or the like".to_owned())
                }
                false => Ok(item.to_owned()),
            };
        }
        let behind = item.strip_suffix('L');
        let day = behind
            .or_else(|| item.strip_prefix('L'))
            .filter(|_| self.is_weekday());
        let Some(day) = day else {
            return Err(format!("{item:?}: expected \"L\" alone in {}", self.name));
        };
        if behind == Some("6") {
            return Err(
                "\"6L\" is the last Friday in the manual's example and the last Saturday by its \
                 table; write FRIL or SATL"
                    .to_owned(),
            );
        }
        Ok(format!("{}L", self.number(day)? % 7))
    }

    fn number(&self, text: &str) -> Result<u16, String> {
        if let Some(at) = self.names.iter().position(|name| *name == text) {
            return Ok(self.least + u16::try_from(at).expect("there are at most twelve names"));
        }
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse::<u16>() {
            Ok(number) if digits && (self.least..=self.most).contains(&number) => Ok(number),
            _ => {
                let names = match (self.names.first(), self.names.last()) {
                    (Some(first), Some(last)) => format!(" or {first}-{last}"),
                    _ => String::new(),
                };
                let most = if self.is_weekday() { 6 } else { self.most };
                Err(format!(
                    "expected {} {}-{most}{names}, found {text:?}",
                    self.name, self.least
                ))
            }
        }
    }

    fn is_weekday(&self) -> bool {
        self.name == "day of week"
    }
}

#[cfg(test)]
mod tests;
