//! The content hash once more, written from its definition over trees, sharing nothing with
//! the crate but the hash function itself.

use tahini_entity::{Entity, Value};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

pub fn content(entity: &Entity) -> u128 {
    let mut seed = 0;
    if entity.deleted {
        seed += 1;
    }
    if entity.id.is_none() {
        seed += 2;
    }
    let id = entity.id.clone().unwrap_or_default();
    let mut sum = xxh3_128_with_seed(id.as_bytes(), seed);
    for (name, value) in entity.properties.iter() {
        if !name.starts_with('_') {
            sum = sum.wrapping_add(field(name, value));
        }
    }
    xxh3_128_with_seed(&sum.to_le_bytes(), 0)
}

fn field(name: &str, value: &Value) -> u128 {
    xxh3_128_with_seed(&canonical(value), xxh3_64(name.as_bytes()))
}

fn holds_dict(value: &Value) -> bool {
    match value {
        Value::Dict(_) => true,
        Value::List(items) | Value::Tuple(items) => items.iter().any(holds_dict),
        _ => false,
    }
}

fn canonical(value: &Value) -> Vec<u8> {
    match value {
        Value::Null => vec![0],
        Value::Bool(false) => vec![1],
        Value::Bool(true) => vec![2],
        Value::Int(number) => [vec![3], signed((*number).into())].concat(),
        Value::BigInt(number) => [vec![4], counted(&number.to_signed_bytes_be())].concat(),
        Value::Float(number) => [vec![5], number.to_bits().to_le_bytes().to_vec()].concat(),
        Value::Decimal(number) => {
            let (digits, scale) = number.as_bigint_and_exponent();
            [
                vec![6],
                signed(scale.into()),
                counted(&digits.to_signed_bytes_be()),
            ]
            .concat()
        }
        Value::String(text) => [vec![7], counted(text.as_bytes())].concat(),
        Value::Bytes(bytes) => [vec![8], counted(bytes)].concat(),
        Value::Datetime(at) => {
            let all = at.as_nanosecond();
            let nanoseconds = (all % 1_000_000_000 + 1_000_000_000) % 1_000_000_000;
            let seconds = (all - nanoseconds) / 1_000_000_000;
            [vec![9], signed(seconds), unsigned(nanoseconds as u128)].concat()
        }
        Value::Ni(text) => [vec![10], counted(text.as_bytes())].concat(),
        Value::Uri(text) => [vec![11], counted(text.as_bytes())].concat(),
        Value::Uuid(uuid) => [vec![12], uuid.as_bytes().to_vec()].concat(),
        Value::Date(date) => {
            let (year, month, day) = (date.year(), date.month(), date.day());
            let packed = i128::from(year) * 512 + i128::from(month) * 32 + i128::from(day);
            [vec![16], signed(packed)].concat()
        }
        Value::List(items) => list(if holds_dict(value) { 18 } else { 13 }, items),
        Value::Tuple(items) => list(if holds_dict(value) { 19 } else { 17 }, items),
        Value::Dict(dict) => {
            let mut sum = 0u128;
            for (name, value) in dict.iter() {
                sum = sum.wrapping_add(field(name, value));
            }
            [vec![15], sum.to_le_bytes().to_vec()].concat()
        }
    }
}

fn list(tag: u8, items: &[Value]) -> Vec<u8> {
    let bytes = items.iter().map(canonical).collect::<Vec<_>>().concat();
    [
        vec![tag],
        unsigned(bytes.len() as u128),
        unsigned(items.len() as u128),
        bytes,
    ]
    .concat()
}

fn counted(bytes: &[u8]) -> Vec<u8> {
    [unsigned(bytes.len() as u128), bytes.to_vec()].concat()
}

fn signed(number: i128) -> Vec<u8> {
    unsigned(if number < 0 {
        (-number) as u128 * 2 - 1
    } else {
        number as u128 * 2
    })
}

fn unsigned(number: u128) -> Vec<u8> {
    let low = (number % 128) as u8;
    if number < 128 {
        vec![low]
    } else {
        [vec![low + 128], unsigned(number / 128)].concat()
    }
}
