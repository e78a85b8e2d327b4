//! Instants as entities hold them: nanoseconds over the whole years 1 to 9999.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::Offset;

use crate::json::transit;

const NANOSECONDS: i128 = 1_000_000_000;
const DAY: i64 = 86_400;

/// An instant with nanoseconds, always UTC, from 0001-01-01T00:00:00Z to
/// 9999-12-31T23:59:59.999999999Z.
///
/// jiff's own `Timestamp` leaves room for every offset at both ends and stops 26 hours earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Datetime {
    /// Whole seconds since 1970, rounded down.
    second: i64,
    /// Below 1,000,000,000.
    nanosecond: u32,
}

impl Datetime {
    /// The first instant of the year 1.
    pub const MIN: Datetime = Datetime {
        second: -62_135_596_800,
        nanosecond: 0,
    };
    /// The last nanosecond of the year 9999.
    pub const MAX: Datetime = Datetime {
        second: 253_402_300_799,
        nanosecond: 999_999_999,
    };

    /// So many seconds since 1970, rounded down, and nanoseconds (below 1,000,000,000) after
    /// that; `None` outside the years 1 to 9999.
    pub fn new(second: i64, nanosecond: u32) -> Option<Datetime> {
        let known = Datetime::MIN.second..=Datetime::MAX.second;
        (known.contains(&second) && i128::from(nanosecond) < NANOSECONDS)
            .then_some(Datetime { second, nanosecond })
    }

    /// So many nanoseconds since 1970; `None` outside the years 1 to 9999.
    pub fn from_nanosecond(nanosecond: i128) -> Option<Datetime> {
        let second = i64::try_from(nanosecond.div_euclid(NANOSECONDS)).ok()?;
        Datetime::new(second, nanosecond.rem_euclid(NANOSECONDS) as u32)
    }

    /// The instant that a wall clock in UTC shows as `civil`; `None` outside the years 1 to 9999.
    pub fn from_civil(civil: DateTime) -> Option<Datetime> {
        let time = civil.time();
        let second = i64::from(time.hour()) * 3600
            + i64::from(time.minute()) * 60
            + i64::from(time.second());
        let second = days_before(civil.date()) * DAY + second;
        Datetime::new(second, time.subsec_nanosecond().unsigned_abs())
    }

    /// The first instant of a day in UTC; `None` outside the years 1 to 9999.
    pub fn from_date(date: Date) -> Option<Datetime> {
        Datetime::from_civil(DateTime::from_parts(date, Time::midnight()))
    }

    /// What a wall clock in UTC shows.
    pub fn civil(self) -> DateTime {
        let day = date_after(self.second.div_euclid(DAY));
        let second = self.second.rem_euclid(DAY);
        let time = Time::constant(
            (second / 3600) as i8,
            (second / 60 % 60) as i8,
            (second % 60) as i8,
            self.nanosecond as i32,
        );
        DateTime::from_parts(day, time)
    }

    /// What a wall clock ahead of UTC by `offset` shows; `None` outside the years 1 to 9999.
    pub fn civil_at(self, offset: Offset) -> Option<DateTime> {
        let ahead = self.second.checked_add(offset.seconds().into())?;
        Datetime::new(ahead, self.nanosecond).map(Datetime::civil)
    }

    /// The instant at which a wall clock ahead of UTC by `offset` shows `civil`; `None` outside
    /// the years 1 to 9999.
    pub fn from_civil_at(civil: DateTime, offset: Offset) -> Option<Datetime> {
        let wall = Datetime::from_civil(civil)?;
        let second = wall.second.checked_sub(offset.seconds().into())?;
        Datetime::new(second, wall.nanosecond)
    }

    /// Whole seconds since 1970, rounded down.
    pub fn as_second(self) -> i64 {
        self.second
    }

    /// Nanoseconds after `as_second`.
    pub fn subsec_nanosecond(self) -> u32 {
        self.nanosecond
    }

    /// Nanoseconds since 1970; at the ends more than 64 bits hold.
    pub fn as_nanosecond(self) -> i128 {
        i128::from(self.second) * NANOSECONDS + i128::from(self.nanosecond)
    }

    /// The same instant as jiff has it, for its time zones; in the last 26 hours of the year
    /// 9999 the last instant that it knows.
    pub fn timestamp(self) -> Timestamp {
        Timestamp::from_nanosecond(self.as_nanosecond()).unwrap_or(Timestamp::MAX)
    }
}

/// A clock that shows a year before 1 gives the first instant of the year 1.
impl From<Timestamp> for Datetime {
    fn from(at: Timestamp) -> Datetime {
        Datetime::from_nanosecond(at.as_nanosecond()).unwrap_or(Datetime::MIN)
    }
}

/// As on the wire, without the tag: `2015-01-02T03:04:05.12Z`.
impl fmt::Display for Datetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Vec::with_capacity(30);
        transit::put_datetime(*self, &mut out);
        out.iter()
            .try_for_each(|&byte| fmt::Write::write_char(f, char::from(byte)))
    }
}

/// Text is not the wire's form of a datetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a datetime such as 2015-01-02T03:04:05.12Z, found other text")]
pub struct NotADatetime;

impl FromStr for Datetime {
    type Err = NotADatetime;

    fn from_str(text: &str) -> Result<Datetime, NotADatetime> {
        transit::datetime(text).ok_or(NotADatetime)
    }
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar.
///
/// Years count from March, so that the leap day is a year's last day, in eras of 400 years,
/// which all have the same length: 146,097 days.
fn days_before(date: Date) -> i64 {
    let (month, day) = (i64::from(date.month()), i64::from(date.day()));
    let year = i64::from(date.year()) - i64::from(month <= 2);
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let month = (month + 9) % 12;
    let of_year = (153 * month + 2) / 5 + day - 1;
    let of_era = year * 365 + year / 4 - year / 100 + of_year;
    era * 146_097 + of_era - 719_468
}

/// The date so many days after 1970-01-01, the other way round.
fn date_after(days: i64) -> Date {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + i64::from(month <= 2);
    Date::constant(year as i16, month as i8, day as i8)
}
