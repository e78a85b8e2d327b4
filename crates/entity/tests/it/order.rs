//! The total order, the equalities and the join key.

use std::cmp::Ordering;

use proptest::prelude::*;
use tahini_entity::{Value, order};

use crate::{arbitrary, value, written};

/// From the lowest to the highest, each of them above all before it.
const ASCENDING: &[&str] = &[
    "null",
    "false",
    "true",
    "-1e308",
    "-9223372036854775809",
    "-9223372036854775808",
    "-1.5",
    "\"~f-1.4999999999999999999999999999999999\"",
    "-1",
    "0",
    "5e-324",
    "\"~f0.1\"",
    // The double next to one tenth is a little more than one tenth.
    "0.1",
    "1",
    "\"~f1.0000000000000000000000000000000001\"",
    "9007199254740992.0",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "\"~f9223372036854775808.5\"",
    "18446744073709551616",
    "1e300",
    "\"~f1E+400\"",
    "\"~t0001-01-01\"",
    "\"~t0001-01-01T00:00:00Z\"",
    "\"~t0001-01-01T00:00:00.000000001Z\"",
    "\"~t2015-12-30T23:59:59.999999999Z\"",
    "\"~t2015-12-31\"",
    "\"~t2015-12-31T00:00:00Z\"",
    "\"~t2016-01-01\"",
    "\"~t9999-12-30T22:00:00.999999999Z\"",
    "\"~t9999-12-31\"",
    "\"~t9999-12-31T00:00:00Z\"",
    "\"~t9999-12-31T23:59:59.999999998Z\"",
    "\"~t9999-12-31T23:59:59.999999999Z\"",
    "\"~u00000000-0000-0000-0000-000000000000\"",
    "\"~u00000000-0000-0000-0000-000000000001\"",
    "\"~:a:a\"",
    "\"~:a:b\"",
    "\"~ra:a\"",
    "\"~ra:b\"",
    "\"\"",
    "\"A\"",
    "\"a\"",
    "\"aa\"",
    "\"\u{ffff}\"",
    "\"\u{10000}\"",
    "{}",
    "{\"a\":1}",
    "{\"b\":0,\"a\":1}",
    "{\"a\":1,\"c\":0}",
    "{\"a\":2}",
    "{\"b\":0}",
    "[]",
    "[1]",
    "[1,1]",
    "[2]",
    "\"~bAA==\"",
    "\"~bAAE=\"",
];

#[test]
fn values_of_all_types_have_the_documented_order() {
    let values: Vec<Value> = ASCENDING.iter().map(|json| value(json)).collect();
    for (at, low) in values.iter().enumerate() {
        assert_eq!(order::compare(low, low), Ordering::Equal);
        for high in &values[at + 1..] {
            let (low_text, high_text) = (written(low), written(high));
            assert_eq!(
                order::compare(low, high),
                Ordering::Less,
                "{low_text} {high_text}"
            );
            assert_eq!(
                order::compare(high, low),
                Ordering::Greater,
                "{low_text} {high_text}"
            );
            assert!(!order::eq(low, high) && !order::same(low, high));
            assert_ne!(order::key(low), order::key(high), "{low_text} {high_text}");
        }
    }
}

#[test]
fn numbers_are_equal_by_value_across_their_types() {
    for equal in [
        &[
            "1",
            "1.0",
            "\"~f1\"",
            "\"~f1.0\"",
            "\"~f1.00\"",
            "\"~f10E-1\"",
        ][..],
        &[
            "0",
            "0.0",
            "\"~f0\"",
            "\"~f0.00\"",
            "\"~f0E+7\"",
            "-0",
            "-0.0",
        ],
        &["-2.5", "\"~f-2.5\"", "\"~f-2.50\""],
        &["1200", "1.2e3", "\"~f1.2E+3\"", "\"~f12E+2\""],
        &["1e22", "10000000000000000000000", "\"~f1E+22\""],
        &[
            "9223372036854775808",
            "9223372036854775808.0",
            "\"~f9223372036854775808\"",
        ],
        &["-9223372036854775808", "-9223372036854775808.0"],
        &["9007199254740993", "\"~f9007199254740993.0\""],
    ] {
        for one in equal {
            for other in equal {
                let (one, other) = (value(one), value(other));
                assert!(order::eq(&one, &other), "{one:?} {other:?}");
                assert_eq!(order::key(&one), order::key(&other), "{one:?} {other:?}");
                assert_eq!(order::same(&one, &other), written(&one) == written(&other));
            }
        }
    }
}

#[test]
fn a_list_is_not_a_tuple_and_comes_first() {
    let items = || [Value::Int(1), Value::string("a")].into();
    let (list, tuple) = (Value::List(items()), Value::Tuple(items()));
    assert_eq!(order::compare(&list, &tuple), Ordering::Less);
    assert!(!order::eq(&list, &tuple));
    assert_ne!(order::key(&list), order::key(&tuple));
}

#[test]
fn the_order_of_names_makes_no_dict_unequal() {
    let (one, other) = (
        value(r#"{"a":1,"b":[{"c":2,"d":3}]}"#),
        value(r#"{"b":[{"d":3.0,"c":2}],"a":1}"#),
    );
    assert!(order::eq(&one, &other));
    assert_eq!(order::key(&one), order::key(&other));
    assert!(
        !order::same(&one, &other),
        "3 and 3.0 are not the same content"
    );
    assert!(order::same(
        &value(r#"{"a":1,"b":2}"#),
        &value(r#"{"b":2,"a":1}"#)
    ));
}

#[test]
fn exponents_are_not_written_out() {
    // Each comparison would need a hundred thousand digits if they were.
    let huge = value("\"~f1E+99999\"");
    let tiny = value("\"~f1E-99999\"");
    let started = std::time::Instant::now();
    for _ in 0..1000 {
        assert_eq!(order::compare(&huge, &tiny), Ordering::Greater);
        assert_eq!(order::compare(&huge, &value("12345")), Ordering::Greater);
        assert_ne!(order::key(&huge), order::key(&tiny));
    }
    assert!(started.elapsed().as_secs() < 5);
}

proptest! {
    #[test]
    fn it_is_a_total_order(a in arbitrary::value(), b in arbitrary::value(), c in arbitrary::value()) {
        check_order(&a, &b, &c)?;
    }

    #[test]
    fn numbers_are_a_total_order(a in arbitrary::number(), b in arbitrary::number(), c in arbitrary::number()) {
        check_order(&a, &b, &c)?;
    }

    #[test]
    fn floats_and_integers_compare_as_python_compares_them(a in any::<i64>(), b in -1e19..1e19f64) {
        // Both as integers of 128 bits, and the fraction where those are equal.
        let whole = (a as i128).cmp(&(b.trunc() as i128));
        let expected = whole.then(0.0.partial_cmp(&b.fract()).unwrap());
        prop_assert_eq!(order::compare(&Value::Int(a), &Value::Float(b)), expected);
    }

    #[test]
    fn same_values_are_equal(a in arbitrary::value(), b in arbitrary::value()) {
        prop_assert!(order::same(&a, &a) && order::eq(&a, &a));
        if order::same(&a, &b) {
            prop_assert!(order::eq(&a, &b));
        }
    }
}

fn check_order(a: &Value, b: &Value, c: &Value) -> Result<(), TestCaseError> {
    let ab = order::compare(a, b);
    prop_assert_eq!(order::compare(b, a), ab.reverse());
    prop_assert_eq!(order::eq(a, b), ab == Ordering::Equal);
    prop_assert_eq!(order::key(a) == order::key(b), ab == Ordering::Equal);
    let mut sorted = [a, b, c];
    sorted.sort_by(|x, y| order::compare(x, y));
    prop_assert_ne!(order::compare(sorted[0], sorted[2]), Ordering::Greater);
    prop_assert_ne!(order::compare(sorted[0], sorted[1]), Ordering::Greater);
    prop_assert_ne!(order::compare(sorted[1], sorted[2]), Ordering::Greater);
    Ok(())
}
