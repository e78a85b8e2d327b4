//! Phone numbers, as URIs of RFC 3966: `~rtel:+47-22-22-22-22`.

use std::sync::Arc;

use phonenumber::{Mode, PhoneNumber, country};
use tahini_entity::Value;

use super::{Call, Function, Kind, VALUES, eg, one, optional};
use crate::expr::Item;

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "phonenumber-format",
        args: &[one("FORMAT", Kind::String), VALUES],
        doc: "Phone numbers (URIs that start with \"tel:\") as text. FORMAT is e164 (country code and \
              number, only digits), rfc3966, national, international, national-e164 (the number \
              within its country, only digits), isocode (the two letters of the country) or \
              country-code. Other values are ignored.",
        examples: &[
            eg(
                r#"["phonenumber-format", "e164", ["list", "~rtel:+47-22-22-22-22", "x"]]"#,
                r#"["4722222222"]"#,
            ),
            eg(
                r#"["phonenumber-format", "international", "~rtel:+47-22-22-22-22"]"#,
                r#""+47 22 22 22 22""#,
            ),
            eg(
                r#"["phonenumber-format", "isocode", "~rtel:+47-22-22-22-22"]"#,
                r#""NO""#,
            ),
        ],
        call: Call::With(format),
    },
    Function {
        name: "phonenumber-parse",
        args: &[optional("DEFAULT_REGION", Kind::String), VALUES],
        doc: "Reads strings and integers as phone numbers: URIs that start with \"tel:\". \
              DEFAULT_REGION, two letters such as NO, is the country of numbers without a country \
              code. What does not read as a phone number is ignored.",
        examples: &[
            eg(
                r#"["phonenumber-parse", "+4722222222"]"#,
                r#""~rtel:+47-22-22-22-22""#,
            ),
            eg(
                r#"["phonenumber-parse", "NO", ["list", "22 22 55 55", "none"]]"#,
                r#"["~rtel:+47-22-22-55-55"]"#,
            ),
        ],
        call: Call::With(parse),
    },
];

/// The names of the formats, for messages.
const FORMATS: &str =
    "e164, rfc3966, national, international, national-e164, isocode or country-code";
/// No phone number is longer, with everything that is written around its digits.
const MAX_LEN: usize = 250;

fn parse(args: &[Value]) -> Result<Item, String> {
    let region = match &args[0] {
        Value::Null => None,
        region => Some(
            region
                .as_str()
                .and_then(|name| name.parse::<country::Id>().ok())
                .ok_or("expected two capital letters of a country such as NO for DEFAULT_REGION")?,
        ),
    };
    Ok(Arc::new(move |value: &Value| {
        let number = match value {
            Value::String(text) => read(region, text),
            Value::Int(digits) => read(region, &digits.to_string()),
            _ => None,
        };
        Ok(number.map(|number| Value::Uri(written(&number, Mode::Rfc3966).into())))
    }))
}

fn read(region: Option<country::Id>, text: &str) -> Option<PhoneNumber> {
    if text.len() > MAX_LEN {
        return None;
    }
    phonenumber::parse(region, text.trim()).ok()
}

fn written(number: &PhoneNumber, mode: Mode) -> String {
    number.format().mode(mode).to_string()
}

fn format(args: &[Value]) -> Result<Item, String> {
    let format: fn(&PhoneNumber) -> Option<String> = match args[0].as_str() {
        Some("e164") => |number| {
            Some(
                written(number, Mode::E164)
                    .trim_start_matches('+')
                    .to_owned(),
            )
        },
        Some("rfc3966") => |number| Some(written(number, Mode::Rfc3966)),
        Some("national") => |number| Some(written(number, Mode::National)),
        Some("international") => |number| Some(written(number, Mode::International)),
        Some("national-e164") => |number| Some(number.national().to_string()),
        Some("isocode") => |number| Some(number.country().id()?.as_ref().to_owned()),
        Some("country-code") => |number| Some(number.country().code().to_string()),
        _ => return Err(format!("expected {FORMATS} for FORMAT")),
    };
    Ok(Arc::new(move |value: &Value| {
        let number = match value {
            Value::Uri(uri) if uri.starts_with("tel:") => read(None, uri),
            _ => None,
        };
        Ok(number.as_ref().and_then(format).map(Value::string))
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_read_is_written_and_read_again(
            region in prop::option::of(prop::sample::select(vec!["NO", "US", "IT", "AR", "CN"])),
            text in prop_oneof![".{0,30}", "[+]?[0-9 ().-]{2,20}", "(tel:)?[+]?[0-9-]{2,16}(;[a-z]{1,8}=[+0-9a-z.]{0,8}){0,2}"],
        ) {
            let region = region.map(|name| name.parse::<country::Id>().unwrap());
            if let Some(number) = read(region, &text) {
                for name in ["e164", "rfc3966", "national", "international", "national-e164", "isocode", "country-code"] {
                    let write = format(&[Value::string(name), Value::Null]).unwrap();
                    write(&Value::Uri(written(&number, Mode::Rfc3966).into())).unwrap();
                }
                // Numbers that no country gives out may read differently with its rules for prefixes.
                if number.is_valid() {
                    let again = read(None, &written(&number, Mode::Rfc3966)).unwrap();
                    prop_assert_eq!(written(&again, Mode::E164), written(&number, Mode::E164));
                }
            }
        }
    }
}
