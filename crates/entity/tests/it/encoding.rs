//! The storage encoding gives back what it got, and survives bytes that it did not write.

use std::sync::Arc;

use proptest::prelude::*;
use tahini_entity::encoding::{self, DecodeError, MAX_DEPTH};
use tahini_entity::{Value, order};

use crate::arbitrary;

fn encoded(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    encoding::encode(value, &mut out).unwrap();
    out
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(Value::Null, |inner, _| Value::List([inner].into()))
}

proptest! {
    #[test]
    fn decoding_gives_back_the_value(value in arbitrary::value()) {
        let bytes = encoded(&value);
        let mut rest = bytes.as_slice();
        let back = encoding::decode(&mut rest);
        prop_assert!(rest.is_empty());
        prop_assert!(order::same(&back, &value), "{value:?} became {back:?}");
        // The order of names is kept as well, which `same` does not see.
        prop_assert_eq!(encoded(&back), bytes);
    }

    #[test]
    fn skipping_ends_where_decoding_ends(value in arbitrary::value(), tail in any::<Vec<u8>>()) {
        let mut bytes = encoded(&value);
        let len = bytes.len();
        bytes.extend_from_slice(&tail);
        let mut rest = bytes.as_slice();
        prop_assert_eq!(encoding::take(&mut rest), &bytes[..len]);
        prop_assert_eq!(rest, tail.as_slice());
    }

    #[test]
    fn a_cut_encoding_is_an_error(value in arbitrary::value()) {
        let bytes = encoded(&value);
        for len in 0..bytes.len() {
            prop_assert!(encoding::try_decode(&mut &bytes[..len]).is_err());
        }
    }

    #[test]
    fn any_bytes_are_a_value_or_an_error(bytes in any::<Vec<u8>>()) {
        let _ = encoding::try_decode(&mut bytes.as_slice());
        let _ = encoding::try_skip(&mut bytes.as_slice());
    }

    #[test]
    fn changed_bytes_are_a_value_or_an_error(
        value in arbitrary::value(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = encoded(&value);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = encoding::try_decode(&mut bytes.as_slice());
    }
}

#[test]
fn the_format_does_not_drift() {
    // Bytes that stores on disk hold; written by hand from the table in the module's docs.
    for (json, bytes) in [
        ("null", &[0][..]),
        ("false", &[1]),
        ("true", &[2]),
        ("-1", &[3, 1]),
        ("64", &[3, 128, 1]),
        ("9223372036854775808", &[4, 9, 0, 128, 0, 0, 0, 0, 0, 0, 0]),
        (
            "-9223372036854775809",
            &[4, 9, 255, 127, 255, 255, 255, 255, 255, 255, 255],
        ),
        ("1.5", &[5, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f]),
        (r#""~f1.50""#, &[6, 4, 2, 0, 150]),
        (r#""~f-1.28""#, &[6, 4, 1, 128]),
        (r#""~f1E+2""#, &[6, 3, 1, 1]),
        (r#""hi""#, &[7, 2, b'h', b'i']),
        (r#""~bAAE=""#, &[8, 2, 0, 1]),
        (r#""~t1970-01-01T00:00:01.000000005Z""#, &[9, 2, 5]),
        (
            r#""~t1969-12-31T23:59:59.5Z""#,
            &[9, 1, 0x80, 0xca, 0xb5, 0xee, 1],
        ),
        // The first instant of the year 1 is 62,135,596,800 seconds before 1970: as zigzag
        // 124,271,193,599.
        (
            r#""~t0001-01-01T00:00:00Z""#,
            &[9, 0xff, 0xdb, 0x8f, 0xf9, 0xce, 3, 0],
        ),
        // 253,402,300,799 seconds after 1970, as zigzag 506,804,601,598.
        (
            r#""~t9999-12-31T23:59:59.999999999Z""#,
            &[
                9, 0xfe, 0x85, 0xa2, 0xff, 0xdf, 14, 0xff, 0x93, 0xeb, 0xdc, 3,
            ],
        ),
        (r#""~:a:b""#, &[10, 3, b'a', b':', b'b']),
        (r#""~ra:b""#, &[11, 3, b'a', b':', b'b']),
        (
            r#""~u00000000-0000-0000-0000-00000000000f""#,
            &[12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 15],
        ),
        ("[null,[]]", &[13, 4, 2, 0, 13, 0, 0]),
        (r#"{"a":true}"#, &[15, 3, 1, 1, b'a', 2]),
        (r#"[{}]"#, &[18, 3, 1, 15, 0, 0]),
        // 2 × (2015 × 512 + 12 × 32 + 31) = 2,064,190
        (r#""~t2015-12-31""#, &[16, 0xbe, 0xfe, 0x7d]),
    ] {
        assert_eq!(encoded(&crate::value(json)), bytes, "{json}");
    }
    assert_eq!(encoded(&Value::Tuple([Value::Null].into())), [17, 1, 1, 0]);
    assert_eq!(
        encoded(&Value::Tuple([crate::value("{}")].into())),
        [19, 3, 1, 15, 0, 0]
    );
}

#[test]
fn large_containers_have_long_headers() {
    let list = Value::List((0..1000).map(Value::Int).collect());
    let outer = Value::List([list.clone(), list].into());
    let bytes = encoded(&outer);
    assert!(order::same(
        &encoding::decode(&mut bytes.as_slice()),
        &outer
    ));
}

#[test]
fn values_take_their_one_form() {
    for (odd, usual) in [
        (Value::Float(f64::NAN), "null"),
        (Value::Float(f64::INFINITY), "null"),
        (Value::Float(-0.0), "0.0"),
        (Value::BigInt(Arc::new(5.into())), "5"),
    ] {
        assert_eq!(encoded(&odd), encoded(&crate::value(usual)), "{odd:?}");
    }
}

#[test]
fn depth_is_limited_both_ways() {
    let mut bytes = encoded(&nested(MAX_DEPTH));
    assert!(encoding::encode(&nested(MAX_DEPTH + 1), &mut Vec::new()).is_err());
    assert!(encoding::try_decode(&mut bytes.as_slice()).is_ok());
    // One more list around what is allowed, by hand: all lengths here need two bytes.
    let len = bytes.len();
    assert!(len >= 128);
    let mut deeper = vec![13, (len & 127) as u8 | 128, (len >> 7) as u8, 1];
    deeper.append(&mut bytes);
    assert_eq!(
        encoding::try_decode(&mut deeper.as_slice()).unwrap_err(),
        DecodeError::TooDeep
    );
}

#[test]
fn datetimes_outside_the_years_1_to_9999_are_no_encoding() {
    for bytes in [
        // One second before the first one, and one after the last one.
        &[9, 0x81, 0xdc, 0x8f, 0xf9, 0xce, 3, 0][..],
        &[9, 0x80, 0x86, 0xa2, 0xff, 0xdf, 14, 0],
        // 1,000,000,000 nanoseconds.
        &[9, 2, 0x80, 0x94, 0xeb, 0xdc, 3],
    ] {
        assert_eq!(
            encoding::try_decode(&mut &bytes[..]).unwrap_err(),
            DecodeError::Payload("a datetime")
        );
    }
}
