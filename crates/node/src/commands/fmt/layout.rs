//! The layout itself: JSON in, text out.
//!
//! Objects take a line for each property and lists stay on one line, but a list in a list begins
//! a line of its own. That makes rules read well: a statement a line.

use std::cmp::Ordering;

use serde_json::{Map, Number, Value as Json};

use super::Style;

/// The names that come first in an object, in this order.
const FIRST: [&str; 19] = [
    "_id",
    "type",
    "name",
    "description",
    "source",
    "sink",
    "transform",
    "pump",
    "metadata",
    "system",
    "datasets",
    "where",
    "return",
    "recurse",
    "max_depth",
    "exclude_root",
    "track-dependencies",
    "trace",
    "default",
];

/// A file of configuration or test data.
pub fn configuration(json: &Json, style: &Style) -> String {
    let mut page = Page {
        style,
        text: String::new(),
        indent: 0,
    };
    page.value(json, None);
    page.text.push('\n');
    page.text
}

/// What a value stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Around {
    Object,
    List,
}

struct Page<'s> {
    style: &'s Style,
    text: String,
    indent: usize,
}

impl Page<'_> {
    fn value(&mut self, json: &Json, around: Option<Around>) {
        match json {
            Json::Object(pairs) => self.object(pairs, around),
            Json::Array(items) => self.list(items, around),
            Json::Number(number) => self.text.push_str(&number_text(number)),
            other => self.text.push_str(&other.to_string()),
        }
    }

    fn object(&mut self, pairs: &Map<String, Json>, around: Option<Around>) {
        let style = self.style;
        let in_list = around == Some(Around::List);
        let is_deeper = !(in_list && style.collapse_indent_for_dict_inside_array);
        self.indent += usize::from(is_deeper);
        let own_line = match around {
            None => false,
            Some(Around::Object) => style.new_line_before_dict_as_value,
            Some(Around::List) => {
                style.new_line_before_dict_as_value || style.newline_before_dict_in_array
            }
        };
        if own_line {
            self.break_line(self.indent.saturating_sub(1));
        }
        if pairs.is_empty() {
            self.text.push_str("{}");
            self.indent -= usize::from(is_deeper);
            return;
        }
        self.text.push('{');
        for (at, (name, value)) in self.sorted(pairs).into_iter().enumerate() {
            if at > 0 {
                self.text.push(',');
            }
            self.new_line(self.indent);
            self.text.push_str(&Json::from(name.as_str()).to_string());
            self.text.push(':');
            if style.space_after_colon {
                self.text.push(' ');
            }
            self.value(value, Some(Around::Object));
        }
        self.indent -= usize::from(is_deeper);
        // The end of an object in a list stands where the list does.
        let back = in_list && style.collapse_indent_for_dict_inside_array;
        self.new_line(self.indent - usize::from(back));
        self.text.push('}');
    }

    fn list(&mut self, items: &[Json], around: Option<Around>) {
        let style = self.style;
        self.indent += 1;
        if around == Some(Around::List) {
            self.break_line(self.indent - 1);
        }
        self.text.push('[');
        let separate =
            around == Some(Around::Object) && style.elements_of_array_as_value_on_separate_lines;
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                self.text.push(',');
                if separate {
                    self.new_line(self.indent);
                } else if style.space_after_comma {
                    self.text.push(' ');
                }
            }
            self.value(item, Some(Around::List));
        }
        self.indent -= 1;
        let ends_with_list = matches!(items.last(), Some(Json::Array(_)));
        if ends_with_list && style.close_nested_array_on_new_line {
            self.new_line(self.indent);
        }
        self.text.push(']');
    }

    fn sorted<'j>(&self, pairs: &'j Map<String, Json>) -> Vec<(&'j String, &'j Json)> {
        let mut pairs: Vec<_> = pairs.iter().collect();
        pairs.sort_by(|(a, _), (b, _)| match self.style.sort_keys_by_convention {
            true => by_convention(a, b),
            false => a.cmp(b),
        });
        pairs
    }

    /// Begins a line in the place of spaces and an empty line that are there.
    fn break_line(&mut self, indent: usize) {
        let kept = self.text.trim_end().len();
        self.text.truncate(kept);
        self.new_line(indent);
    }

    fn new_line(&mut self, indent: usize) {
        self.text.push('\n');
        for _ in 0..indent {
            match self.style.use_tab_for_indent {
                true => self.text.push('\t'),
                false => (0..self.style.spaces_for_indent).for_each(|_| self.text.push(' ')),
            }
        }
    }
}

/// Well-known names in their order, then all others, then those that the system writes.
fn by_convention(a: &str, b: &str) -> Ordering {
    let rank = |name: &str| {
        let internal = name.starts_with('_') && name != "_id";
        if internal || matches!(name, "$audit" | "$principals-from-user") {
            return (FIRST.len() + 1, 0);
        }
        match FIRST.iter().position(|first| *first == name) {
            Some(place) => (0, place),
            None => (FIRST.len(), 0),
        }
    };
    rank(a).cmp(&rank(b)).then_with(|| a.cmp(b))
}

/// A number as the reference's client writes it after reading it: integers as they are, others in
/// the shortest form of their double. Where a double would be another number, the digits stay.
fn number_text(number: &Number) -> String {
    let text = number.as_str();
    if !text.contains(['.', 'e', 'E']) {
        return if text == "-0" {
            "0".to_owned()
        } else {
            text.to_owned()
        };
    }
    match text.parse::<f64>() {
        Ok(double) if double.is_finite() => {
            let short = double_text(double);
            if Digits::of(&short) == Digits::of(text) {
                short
            } else {
                text.to_owned()
            }
        }
        _ => text.to_owned(),
    }
}

/// A double with as few digits as tell it from others, in exponents from 16 digits before the
/// point and from 4 zeros after it: `1.5`, `1e+16`, `1e-05`.
fn double_text(double: f64) -> String {
    let scientific = format!("{double:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = double.to_string();
        return if plain.contains('.') {
            plain
        } else {
            format!("{plain}.0")
        };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// A decimal number by its value: sign, digits without zeros at the ends, place of the point.
#[derive(Debug, PartialEq, Eq)]
struct Digits {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Digits {
    fn of(text: &str) -> Option<Digits> {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let exponent: i64 = exponent.parse().ok()?;
        let negative = mantissa.starts_with('-');
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{}{fraction}", whole.trim_start_matches('-'));
        let digits = all.trim_start_matches('0').trim_end_matches('0');
        if digits.is_empty() {
            return Some(Digits {
                negative,
                digits: String::new(),
                exponent: 0,
            });
        }
        let zeros = all.len() - all.trim_end_matches('0').len();
        let exponent = exponent.checked_sub(fraction.len() as i64)?;
        Some(Digits {
            negative,
            digits: digits.to_owned(),
            exponent: exponent.checked_add(zeros as i64)?,
        })
    }
}

/// A file of expected output: every value on a line, names sorted, and no character that would
/// mean something in HTML.
pub fn expected(json: &Json) -> String {
    let mut text = String::new();
    write_expected(json, 0, &mut text);
    text.push('\n');
    text
}

fn write_expected(json: &Json, level: usize, text: &mut String) {
    let line = |level: usize, text: &mut String| {
        text.push('\n');
        (0..level).for_each(|_| text.push_str("  "));
    };
    match json {
        Json::Array(items) if !items.is_empty() => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                line(level + 1, text);
                write_expected(item, level + 1, text);
            }
            line(level, text);
            text.push(']');
        }
        Json::Object(pairs) if !pairs.is_empty() => {
            let mut pairs: Vec<_> = pairs.iter().collect();
            pairs.sort_by_key(|(name, _)| *name);
            text.push('{');
            for (at, (name, value)) in pairs.into_iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                line(level + 1, text);
                text.push_str(&safe(&Json::from(name.as_str()).to_string()));
                text.push_str(": ");
                write_expected(value, level + 1, text);
            }
            line(level, text);
            text.push('}');
        }
        Json::Number(number) => text.push_str(&number_text(number)),
        other => text.push_str(&safe(&other.to_string())),
    }
}

fn safe(text: &str) -> String {
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}
