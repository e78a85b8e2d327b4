//! Values and entities of any kind, for property tests.

use std::sync::Arc;

use bigdecimal::BigDecimal;
use jiff::civil::Date;
use num_bigint::BigInt;
use proptest::collection::vec;
use proptest::prelude::*;
use tahini_entity::{Datetime, Dict, Entity, Offset, Str, Value};

/// Text that the wire does not take for a tagged value.
pub fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z ]{0,12}",
        2 => any::<String>(),
        1 => "[a-z\"\\\\\n\t\u{1}\u{7f}é😀]{0,20}",
        1 => "[a-z]{100,300}",
    ]
    .prop_filter("no tag", |text| !text.starts_with('~'))
}

/// Names: few different ones, so that they repeat across dicts.
pub fn name() -> impl Strategy<Value = Str> {
    prop_oneof![3 => "[a-e$]{1,2}", 1 => "_[a-c]", 1 => any::<String>()].prop_map(Str::from)
}

fn integer() -> impl Strategy<Value = Value> {
    prop_oneof![
        (-300i64..300).prop_map(Value::Int),
        any::<i64>().prop_map(Value::Int),
        "-?[1-9][0-9]{15,40}".prop_map(|text| Value::integer(text.parse().unwrap())),
    ]
}

fn decimal() -> impl Strategy<Value = Value> {
    let digits = prop_oneof![
        (-2000i64..2000).prop_map(BigInt::from),
        any::<i64>().prop_map(BigInt::from),
        "-?[1-9][0-9]{17,30}0{0,3}".prop_map(|text| text.parse().unwrap()),
    ];
    (digits, prop_oneof![4 => 0i64..6, 1 => -30i64..60])
        .prop_map(|(digits, scale)| Value::Decimal(Arc::new(BigDecimal::new(digits, scale))))
}

fn float() -> impl Strategy<Value = Value> {
    prop_oneof![
        (-40i32..40).prop_map(|quarters| Value::float(f64::from(quarters) / 4.0)),
        any::<f64>()
            .prop_filter("finite", |float| float.is_finite())
            .prop_map(Value::float),
    ]
}

/// Numbers of all kinds, many of them equal across kinds.
pub fn number() -> impl Strategy<Value = Value> {
    prop_oneof![integer(), float(), decimal()]
}

fn date() -> impl Strategy<Value = Date> {
    (1i16..=9999, 1i8..=12, 1i8..=28)
        .prop_map(|(year, month, day)| Date::new(year, month, day).unwrap())
}

fn datetime() -> impl Strategy<Value = Datetime> {
    let seconds = -62_135_596_800i64..253_402_300_800;
    let nanoseconds = prop_oneof![Just(0), Just(120_000_000), 0u32..1_000_000_000];
    (seconds, nanoseconds)
        .prop_map(|(seconds, nanoseconds)| Datetime::new(seconds, nanoseconds).unwrap())
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        number(),
        text().prop_map(Value::string),
        vec(any::<u8>(), 0..20).prop_map(|bytes| Value::Bytes(bytes.as_slice().into())),
        date().prop_map(Value::Date),
        datetime().prop_map(Value::Datetime),
        any::<[u8; 16]>().prop_map(|bytes| Value::Uuid(uuid::Uuid::from_bytes(bytes))),
        "[a-z:]{1,9}".prop_map(|text| Value::Ni(text.into())),
        "[a-z:/]{1,9}".prop_map(|text| Value::Uri(text.into())),
    ]
}

fn nested(tuples: bool) -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 40, 6, move |inner| {
        let list = vec(inner.clone(), 0..6)
            .prop_map(|items| Value::List(items.into()))
            .boxed();
        let tuple = vec(inner.clone(), 0..4)
            .prop_map(|items| Value::Tuple(items.into()))
            .boxed();
        let dict = vec((name(), inner), 0..6)
            .prop_map(|pairs| Value::Dict(pairs.into_iter().collect()))
            .boxed();
        if tuples {
            prop_oneof![list, dict, tuple].boxed()
        } else {
            prop_oneof![list, dict].boxed()
        }
    })
}

/// Values of every kind.
pub fn value() -> impl Strategy<Value = Value> {
    nested(true)
}

/// Values that the wire gives back as they were: all but tuples.
pub fn wire_value() -> impl Strategy<Value = Value> {
    nested(false)
}

fn is_ours(name: &str) -> bool {
    [
        "_id",
        "_deleted",
        "_updated",
        "_previous",
        "_ts",
        "_hash",
        "_filtered",
    ]
    .contains(&name)
}

fn properties() -> impl Strategy<Value = Dict> {
    vec(
        (
            name().prop_filter("a property", |name| !is_ours(name)),
            wire_value(),
        ),
        0..8,
    )
    .prop_map(|pairs| pairs.into_iter().collect())
}

/// Entities that the wire gives back as they were.
pub fn entity() -> impl Strategy<Value = Entity> {
    let updated = prop_oneof![
        any::<i64>().prop_map(Offset::Int),
        any::<String>().prop_map(|text| Offset::Text(text.into()))
    ];
    (
        proptest::option::of(any::<String>()),
        any::<bool>(),
        proptest::option::of(updated),
        proptest::option::of(0u64..1 << 40),
        properties(),
    )
        .prop_map(|(id, deleted, updated, previous, properties)| Entity {
            id: id.map(Str::from),
            deleted,
            previous: previous.filter(|_| updated.is_some()),
            updated,
            properties,
            ..Entity::default()
        })
}
