//! Date and time.

use std::sync::Arc;

use jiff::civil::DateTime;
use jiff::fmt::temporal::Pieces;
use jiff::tz::TimeZone;
use num_bigint::BigInt;
use num_traits::ToPrimitive;
use tahini_entity::{Datetime, Value};

use super::time::{Format, Part, shift, unknown_zone, zone};
use super::{Call, Function, Kind, VALUES, checked, eg, one, optional};
use crate::expr::{Expr, Item, ItemResult};

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "datetime",
        args: &[optional("FUNCTION", Kind::Default), VALUES],
        doc: "Casts to datetimes: text such as \"2015-07-28T09:46:00.12Z\", integers as nanoseconds \
              since 1970, dates as their first instant in UTC. Other values are replaced by \
              FUNCTION, or ignored without it.",
        examples: &[
            eg(
                r#"["datetime", 1438076760123450000]"#,
                r#""~t2015-07-28T09:46:00.12345Z""#,
            ),
            eg(
                r#"["datetime", ["list", "2015-07-28T09:46:00Z", "hello"]]"#,
                r#"["~t2015-07-28T09:46:00Z"]"#,
            ),
        ],
        call: Call::Cast(datetime),
    },
    Function {
        name: "datetime-diff",
        args: &[
            one("DATEPART", Kind::DatePart),
            one("START", Kind::Value),
            one("END", Kind::Value),
        ],
        doc: "How many whole DATEPARTs START is after END, cut toward zero. DATEPART is year, \
              month, week, day, hour, minute, second, millisecond, microsecond or nanosecond.",
        examples: &[
            eg(
                r#"["datetime-diff", "day", "~t2015-07-28T00:00:00Z", "~t2015-07-29T00:00:00Z"]"#,
                "-1",
            ),
            eg(
                r#"["datetime-diff", "month", "~t2016-07-29T00:00:00Z", "~t2015-03-02T00:00:00Z"]"#,
                "16",
            ),
        ],
        call: Call::With(difference),
    },
    Function {
        name: "datetime-format",
        args: &[
            checked(optional("TIMEZONE", Kind::String), unknown_zone),
            one("FORMAT", Kind::String),
            VALUES,
        ],
        doc: "Datetimes as text by a format, in a time zone or UTC. The tokens are those of \
              \"datetime-parse\". Other values are ignored.",
        examples: &[
            eg(
                r#"["datetime-format", "Europe/Oslo", "%d.%m.%Y %H:%M", "~t2018-08-18T12:39:01Z"]"#,
                r#""18.08.2018 14:39""#,
            ),
            eg(
                r#"["datetime-format", "%e/%m/%y %I:%M %p", "~t2018-08-08T12:05:00Z"]"#,
                r#""8/08/18 12:05 PM""#,
            ),
        ],
        call: Call::With(format),
    },
    Function {
        name: "datetime-parse",
        args: &[
            checked(optional("TIMEZONE", Kind::String), unknown_zone),
            one("FORMAT", Kind::String),
            VALUES,
        ],
        doc: "Reads strings by a format, in a time zone or UTC: %d %e day, %m month, %Y year, %y its \
              last two digits (69 is 1969, 68 is 2068), %H hour, %I hour of twelve with %p am or pm, \
              %M minute, %S second, %f fraction of a second, %z offset (last), %% a percent sign. \
              What does not fit is ignored.",
        examples: &[
            eg(
                r#"["datetime-parse", "%d.%m.%Y", ["list", "28.07.2015", "x"]]"#,
                r#"["~t2015-07-28T00:00:00Z"]"#,
            ),
            eg(
                r#"["datetime-parse", "Europe/Oslo", "%Y-%m-%dT%H:%M:%S", "2018-08-18T12:39:01"]"#,
                r#""~t2018-08-18T10:39:01Z""#,
            ),
        ],
        call: Call::With(parse),
    },
    Function {
        name: "datetime-plus",
        args: &[
            one("DATEPART", Kind::DatePart),
            one("VALUE", Kind::Integer),
            VALUES,
        ],
        doc: "Datetimes VALUE DATEPARTs later, or earlier when it is negative. A day that its month \
              does not have becomes the month's last.",
        examples: &[
            eg(
                r#"["datetime-plus", "hour", -1, "~t2016-03-01T00:00:00Z"]"#,
                r#""~t2016-02-29T23:00:00Z""#,
            ),
            eg(
                r#"["datetime-plus", "month", 1, "~t2015-01-31T00:00:00Z"]"#,
                r#""~t2015-02-28T00:00:00Z""#,
            ),
        ],
        call: Call::With(plus),
    },
    Function {
        name: "datetime-shift",
        args: &[
            checked(one("FROM_TIMEZONE", Kind::String), unknown_zone),
            checked(one("TO_TIMEZONE", Kind::String), unknown_zone),
            VALUES,
        ],
        doc: "Takes datetimes as wall times in one time zone and gives the wall times of the same \
              instants in another one. Other values are ignored.",
        examples: &[eg(
            r#"["datetime-shift", "Europe/Oslo", "UTC", "~t2015-07-28T09:46:00Z"]"#,
            r#""~t2015-07-28T07:46:00Z""#,
        )],
        call: Call::With(shifted),
    },
    Function {
        name: "is-datetime",
        args: &[VALUES],
        doc: "True when the value, or the first item of a list, is a datetime.",
        examples: &[
            eg(r#"["is-datetime", ["now"]]"#, "true"),
            eg(r#"["is-datetime", "~t2015-07-28"]"#, "false"),
        ],
        call: Call::Test(|value| matches!(value, Value::Datetime(_))),
    },
    Function {
        name: "now",
        args: &[],
        doc: "The current time, the same one for a whole batch.",
        examples: &[eg(r#"["now"]"#, r#""~t2024-02-29T12:30:00.5Z""#)],
        call: Call::Special(|_, _| Expr::Now),
    },
];

/// A datetime, or a date's first instant.
fn instant(value: &Value) -> Option<Datetime> {
    match value {
        Value::Datetime(at) => Some(*at),
        Value::Date(date) => Datetime::from_date(*date),
        _ => None,
    }
}

fn datetime(value: &Value) -> ItemResult {
    let at = match value {
        Value::String(text) => text.parse().ok().or_else(|| with_offset(text)),
        Value::Int(nanoseconds) => Datetime::from_nanosecond((*nanoseconds).into()),
        Value::BigInt(nanoseconds) => nanoseconds.to_i128().and_then(Datetime::from_nanosecond),
        other => instant(other),
    };
    Ok(at.map(Value::Datetime))
}

/// Other texts of RFC 3339 and ISO 8601 that say a date, a time and an offset from UTC.
fn with_offset(text: &str) -> Option<Datetime> {
    let pieces = Pieces::parse(text).ok()?;
    let civil = DateTime::from_parts(pieces.date(), pieces.time()?);
    Datetime::from_civil_at(civil, pieces.to_numeric_offset()?)
}

/// A function over datetimes; everything else is ignored.
fn over_datetimes(
    call: impl Fn(Datetime) -> Option<Value> + Send + Sync + 'static,
) -> Result<Item, String> {
    Ok(Arc::new(move |value: &Value| {
        Ok(instant(value).and_then(&call))
    }))
}

fn part(value: &Value) -> Result<Part, String> {
    let named = value.as_str().and_then(Part::named);
    named.ok_or_else(|| "expected the name of a date part".to_owned())
}

fn difference(args: &[Value]) -> Result<Item, String> {
    let part = part(&args[0])?;
    let Some(start) = instant(&args[1]) else {
        return Ok(Arc::new(|_| Ok(None)));
    };
    over_datetimes(move |end| Some(Value::integer(BigInt::from(part.between(start, end)))))
}

fn plus(args: &[Value]) -> Result<Item, String> {
    let part = part(&args[0])?;
    let count = match &args[1] {
        Value::Int(count) => *count,
        Value::BigInt(count) => {
            return Err(format!(
                "expected a VALUE between the years 1 and 9999, found {}",
                crate::compile::cut(&count.to_string())
            ));
        }
        other => {
            return Err(format!(
                "expected an integer for VALUE, found {}",
                crate::values::a_kind(other)
            ));
        }
    };
    over_datetimes(move |at| part.plus(at, count).map(Value::Datetime))
}

/// A time zone and a format from the two arguments before the values.
fn zone_and_format(args: &[Value]) -> Result<(TimeZone, Format), String> {
    let zone = match &args[0] {
        Value::Null => TimeZone::UTC,
        Value::String(name) => zone(name)?,
        other => {
            return Err(format!(
                "expected a time zone's name, found {}",
                crate::values::a_kind(other)
            ));
        }
    };
    match &args[1] {
        Value::String(format) => Ok((zone, Format::new(format)?)),
        other => Err(format!(
            "expected a FORMAT, found {}",
            crate::values::a_kind(other)
        )),
    }
}

fn format(args: &[Value]) -> Result<Item, String> {
    let (zone, format) = zone_and_format(args)?;
    over_datetimes(move |at| format.write(at, &zone).map(Value::string))
}

fn parse(args: &[Value]) -> Result<Item, String> {
    let (zone, format) = zone_and_format(args)?;
    Ok(Arc::new(move |value: &Value| {
        let at = value.as_str().and_then(|text| format.parse(text, &zone));
        Ok(at.map(Value::Datetime))
    }))
}

fn shifted(args: &[Value]) -> Result<Item, String> {
    let named = |value: &Value| match value {
        Value::String(name) => zone(name),
        other => Err(format!(
            "expected a time zone's name, found {}",
            crate::values::a_kind(other)
        )),
    };
    let (from, to) = (named(&args[0])?, named(&args[1])?);
    over_datetimes(move |at| shift(at, &from, &to).map(Value::Datetime))
}
