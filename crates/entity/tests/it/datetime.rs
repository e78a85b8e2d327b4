//! Datetimes from the first nanosecond of the year 1 to the last one of the year 9999.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone};
use proptest::prelude::*;
use tahini_entity::Datetime;

fn at(text: &str) -> Datetime {
    text.parse().unwrap()
}

#[test]
fn both_ends_are_exact() {
    assert_eq!(at("0001-01-01T00:00:00Z"), Datetime::MIN);
    assert_eq!(at("9999-12-31T23:59:59.999999999Z"), Datetime::MAX);
    for end in [Datetime::MIN, Datetime::MAX] {
        assert_eq!(at(&end.to_string()), end);
        assert_eq!(Datetime::from_nanosecond(end.as_nanosecond()), Some(end));
        assert_eq!(Datetime::from_civil(end.civil()), Some(end));
    }
    let (first, last) = (Datetime::MIN.as_nanosecond(), Datetime::MAX.as_nanosecond());
    assert_eq!(Datetime::from_nanosecond(first - 1), None);
    assert_eq!(Datetime::from_nanosecond(last + 1), None);
    assert_eq!(Datetime::from_nanosecond(i128::MIN), None);
    assert_eq!(Datetime::from_nanosecond(i128::MAX), None);
    // 9999 years of 365.2425 days, less one day in the era of 400 years that is not full.
    let days = 9999 * 365 + 9999 / 4 - 9999 / 100 + 9999 / 400;
    assert_eq!(last - first + 1, days * 86_400 * 1_000_000_000);
}

#[test]
fn text_outside_the_years_is_refused() {
    for text in [
        "0000-12-31T23:59:59.999999999Z",
        "10000-01-01T00:00:00Z",
        "9999-12-31T23:59:60Z",
        "9999-12-31T24:00:00Z",
        "9999-12-32T00:00:00Z",
        "9999-12-31",
    ] {
        assert!(text.parse::<Datetime>().is_err(), "{text}");
    }
}

#[test]
fn every_day_has_its_place() {
    let mut date = Date::new(1, 1, 1).unwrap();
    let mut second = Datetime::MIN.as_second();
    loop {
        let first = Datetime::from_date(date).unwrap();
        assert_eq!(first.as_second(), second, "{date}");
        assert_eq!(first.civil(), date.at(0, 0, 0, 0));
        let Ok(next) = date.tomorrow() else { break };
        date = next;
        second += 86_400;
    }
    assert_eq!(date, Date::new(9999, 12, 31).unwrap());
}

#[test]
fn walls_of_other_zones_end_where_the_years_end() {
    let ahead = Offset::from_seconds(3600).unwrap();
    let behind = Offset::from_seconds(-3600).unwrap();
    let civil = |text: &str| text.parse::<DateTime>().unwrap();
    assert_eq!(Datetime::MAX.civil_at(ahead), None);
    assert_eq!(Datetime::MIN.civil_at(behind), None);
    assert_eq!(
        Datetime::MAX.civil_at(behind),
        Some(civil("9999-12-31T22:59:59.999999999"))
    );
    let wall = civil("9999-12-31T23:30");
    assert_eq!(Datetime::from_civil_at(wall, behind), None);
    assert_eq!(
        Datetime::from_civil_at(wall, ahead),
        Some(at("9999-12-31T22:30:00Z"))
    );
    assert_eq!(Datetime::from_civil_at(civil("0001-01-01"), ahead), None);
}

#[test]
fn a_clock_out_of_range_counts_as_the_nearest_end() {
    assert_eq!(Datetime::from(Timestamp::MIN), Datetime::MIN);
    assert_eq!(Datetime::MAX.timestamp(), Timestamp::MAX);
}

proptest! {
    #[test]
    fn it_agrees_with_the_calendar_of_jiff(
        second in Datetime::MIN.as_second()..253_402_200_000,
        nanosecond in 0u32..1_000_000_000,
    ) {
        let datetime = Datetime::new(second, nanosecond).unwrap();
        let theirs = Timestamp::new(second, nanosecond as i32).unwrap();
        prop_assert_eq!(datetime.as_nanosecond(), theirs.as_nanosecond());
        prop_assert_eq!(datetime.civil(), TimeZone::UTC.to_datetime(theirs));
        prop_assert_eq!(datetime.to_string(), theirs.to_string());
        prop_assert_eq!(Datetime::from(theirs), datetime);
        prop_assert_eq!(datetime.timestamp(), theirs);
    }
}
