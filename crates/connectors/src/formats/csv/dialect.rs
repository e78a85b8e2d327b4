//! How rows are written: named dialects, and guessing one from the start of a file.

use std::io::Empty;

use super::rows::{Row, Rows};

/// What separates fields, and what they stand in.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Dialect {
    pub(super) delimiter: String,
    /// An ASCII character.
    pub(super) quote: u8,
    /// Spaces behind a delimiter do not count.
    pub(super) skip_space: bool,
}

impl Dialect {
    /// What spreadsheets write.
    pub(super) fn excel() -> Dialect {
        Dialect {
            delimiter: ",".to_owned(),
            quote: b'"',
            skip_space: false,
        }
    }

    /// The dialect of that name.
    pub(super) fn named(name: &str) -> Option<Dialect> {
        let delimiter = match name.replace('-', "_").as_str() {
            // The two differ in what they write only.
            "excel" | "unix_dialect" | "unix" => ",",
            "excel_tab" => "\t",
            _ => return None,
        };
        Some(Dialect {
            delimiter: delimiter.to_owned(),
            ..Dialect::excel()
        })
    }
}

/// How much of a file is looked at, in bytes.
pub(super) const SAMPLE_BYTES: usize = 64 * 1024;
/// How many of its rows.
const SAMPLE_ROWS: usize = 200;
/// What may separate fields where nobody says it, the likeliest first.
const DELIMITERS: &[&str] = &[",", ";", "\t", "|"];

/// What is known before somebody guesses.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known<'a> {
    pub(super) delimiter: Option<&'a str>,
    /// How many fields a row has.
    pub(super) width: Option<usize>,
}

/// Guesses the dialect of a text from its start; `whole` says that this is all of it. The dialect
/// is that by which most rows have as many fields as the first one, then that with more fields.
pub(super) fn guess(sample: &str, whole: bool, known: Known<'_>) -> Dialect {
    let wanted: Vec<&str> = match known.delimiter {
        Some(delimiter) => vec![delimiter],
        None => DELIMITERS.to_vec(),
    };
    let mut best: Option<(Fit, Dialect)> = None;
    for quote in [b'"', b'\''] {
        for delimiter in &wanted {
            let dialect = Dialect {
                delimiter: (*delimiter).to_owned(),
                quote,
                skip_space: is_spaced(sample, delimiter),
            };
            let Some(fit) = fit(sample, whole, &dialect, known.width) else {
                continue;
            };
            // An apostrophe at the start of a name makes no quote.
            let is_taken = quote == b'"' || fit.quoted > 0;
            if is_taken
                && best
                    .as_ref()
                    .is_none_or(|(known, _)| fit.is_better_than(known))
            {
                best = Some((fit, dialect));
            }
        }
    }
    let delimiter = known.delimiter.unwrap_or(",").to_owned();
    best.map_or(
        Dialect {
            delimiter,
            ..Dialect::excel()
        },
        |(_, dialect)| dialect,
    )
}

/// How well rows look in a dialect.
#[derive(Clone, Copy, Debug)]
struct Fit {
    /// Rows of the usual width, of a thousand.
    even: usize,
    width: usize,
    /// How many rows have a field in quotes.
    quoted: usize,
    rows: usize,
}

impl Fit {
    fn is_better_than(&self, other: &Fit) -> bool {
        let (own, others) = ((self.even, self.width), (other.even, other.width));
        // Apostrophes are quotes, too, where they stand around a field in every row.
        let always = self.quoted == self.rows && other.quoted == 0;
        own > others || (own == others && always)
    }
}

/// `None` when there are no several fields to a row.
fn fit(sample: &str, whole: bool, dialect: &Dialect, width: Option<usize>) -> Option<Fit> {
    let mut rows = Rows::<Empty>::of(sample, dialect.clone());
    let (mut row, mut widths, mut quoted) = (Row::default(), Vec::new(), 0);
    let mut cut = false;
    while widths.len() < SAMPLE_ROWS {
        match rows.next(&mut row) {
            Ok(true) => {
                widths.push(row.len());
                quoted += usize::from(row.quoted);
            }
            Ok(false) => {
                cut = !whole;
                break;
            }
            // A quote that stays open: cut off with the sample, or none at all.
            Err(_) if whole || dialect.quote != b'"' => return None,
            Err(_) => break,
        }
    }
    // The last one may be a part of a row.
    if cut && widths.len() > 1 {
        widths.pop();
    }
    let width = width.or(widths.first().copied())?;
    let even = widths.iter().filter(|one| **one == width).count();
    (width > 1 && even > 0).then(|| Fit {
        even: even * 1000 / widths.len(),
        width,
        quoted: quoted.min(widths.len()),
        rows: widths.len(),
    })
}

/// Whether a space follows every delimiter of the first line.
fn is_spaced(sample: &str, delimiter: &str) -> bool {
    let line = sample.trim_start_matches(['\r', '\n']).lines().next();
    let mut parts = line.unwrap_or_default().split(delimiter).skip(1).peekable();
    delimiter != " " && parts.peek().is_some() && parts.all(|part| part.starts_with(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guessed(sample: &str) -> (String, char, bool) {
        let dialect = guess(sample, true, Known::default());
        (
            dialect.delimiter,
            char::from(dialect.quote),
            dialect.skip_space,
        )
    }

    #[test]
    fn dialects_are_told_from_the_rows() {
        for (sample, delimiter, quote, skip_space) in [
            ("a,b\n1,2\n", ",", '"', false),
            ("a;b\n1,5;2,5\n", ";", '"', false),
            ("a\tb, c\n1\t2\n", "\t", '"', false),
            ("a|b|c\n1|2|3\n", "|", '"', false),
            ("name;note\n\"x\";\"a;b, c, d\"\n", ";", '"', false),
            ("a, b, c\n1, 2, 3\n", ",", '"', true),
            ("'a','b'\n'x,y','2'\n", ",", '\'', false),
            ("'a','b'\n1,'2'\n", ",", '\'', false),
            ("id;town\n1;'s-Hertogenbosch\n", ";", '"', false),
            ("one\ntwo\n", ",", '"', false),
            ("", ",", '"', false),
            ("id;text\n1;a,b,c\n2;d,e,f\n", ";", '"', false),
        ] {
            let expected = (delimiter.to_owned(), quote, skip_space);
            assert_eq!(guessed(sample), expected, "{sample:?}");
        }
    }

    #[test]
    fn what_is_known_goes_first() {
        let sample = "1,5;a,b\n2,5;c,d\n";
        assert_eq!(guess(sample, true, Known::default()).delimiter, ",");
        let known = Known {
            width: Some(2),
            ..Known::default()
        };
        assert_eq!(guess(sample, true, known).delimiter, ";");
        let known = Known {
            delimiter: Some("#"),
            ..Known::default()
        };
        assert_eq!(guess(sample, true, known).delimiter, "#");
        // A quote that the sample cuts off is still one.
        let cut = guess("a;b\n1;\"x\n2;y", false, Known::default());
        assert_eq!(cut.delimiter, ";");
    }
}
