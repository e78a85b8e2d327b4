//! Entities as rows of CSV, byte for byte as Python's `csv` module writes them.

use tahini_entity::{Record, Value};
use tahini_hub::Failure;
use tahini_hub::config::Props;

use crate::formats::charset::{Charset, Instead, MARK};
use crate::formats::table::Table;
use crate::formats::{Document, bare, opt_char, skips_deleted};

/// Which fields stand in quotes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Quoting {
    All,
    Minimal,
    NonNumeric,
    None,
}

/// How rows are written.
struct Style {
    quoting: Quoting,
    delimiter: char,
    quote: char,
    doublequote: bool,
    escape: Option<char>,
    terminator: String,
}

/// A document of rows.
pub struct Csv {
    table: Table,
    style: Style,
    charset: Charset,
    instead: Instead,
    skips_deleted: bool,
    line: String,
    out: Vec<u8>,
}

impl Csv {
    /// A document in which the header stands already, by the configuration of a `csv_endpoint`.
    ///
    /// # Errors
    /// Config, when a property is not what it has to be.
    pub fn of(props: Props<'_>) -> Result<Csv, Failure> {
        let charset = Charset::from(props)?;
        let mut csv = Csv {
            table: Table::of(props)?,
            style: Style::of(props)?,
            instead: Instead::from(props)?,
            skips_deleted: skips_deleted(props)?,
            line: String::new(),
            out: charset.mark().to_vec(),
            charset,
        };
        if props.bool("byte_order_mark", false)? {
            if !csv.charset.is_utf8() {
                let expected = "false, as the encoding is not utf-8";
                let found = props.get("byte_order_mark");
                return Err(props.wrong("byte_order_mark", expected, found));
            }
            csv.out = MARK.to_vec();
        }
        if props.bool("include_header", true)? {
            let names = csv.table.columns().iter();
            let header: Vec<Value> = names.map(|name| Value::string(name.as_str())).collect();
            csv.row(&header);
        }
        Ok(csv)
    }

    fn row(&mut self, values: &[Value]) {
        self.line.clear();
        for (at, value) in values.iter().enumerate() {
            if at > 0 {
                self.line.push(self.style.delimiter);
            }
            let is_number = matches!(
                value,
                Value::Int(_) | Value::BigInt(_) | Value::Float(_) | Value::Decimal(_)
            );
            self.style.put(&bare(value), is_number, &mut self.line);
        }
        // A row of one empty field would be a blank line, which is no row.
        if self.line.is_empty() && self.style.quoting != Quoting::None {
            self.line.push(self.style.quote);
            self.line.push(self.style.quote);
        }
        self.line.push_str(&self.style.terminator);
        self.charset.encode(&self.line, self.instead, &mut self.out);
    }
}

impl Document for Csv {
    fn media_type(&self) -> String {
        format!("text/csv; charset={}", self.charset.name())
    }

    fn put(&mut self, record: Record<'_>) -> Result<bool, Failure> {
        if record.meta.deleted && self.skips_deleted {
            return Ok(false);
        }
        let values = self.table.row(record);
        self.row(&values);
        Ok(true)
    }

    fn end(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn waiting(&self) -> usize {
        self.out.len()
    }

    fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }
}

impl Style {
    fn of(props: Props<'_>) -> Result<Style, Failure> {
        let quoting = match props.opt_str("quoting")? {
            None | Some("minimal") => Quoting::Minimal,
            Some("all") => Quoting::All,
            Some("non-numeric") => Quoting::NonNumeric,
            Some("none") => Quoting::None,
            Some(_) => {
                let expected = "all, minimal, non-numeric or none";
                return Err(props.wrong("quoting", expected, props.get("quoting")));
            }
        };
        let doublequote = props.bool("doublequote", true)?;
        let escape = opt_char(props, "escapechar")?;
        Ok(Style {
            quoting,
            delimiter: opt_char(props, "delimiter")?.unwrap_or(','),
            quote: opt_char(props, "quotechar")?.unwrap_or('"'),
            doublequote,
            escape: escape.or((!doublequote).then_some('\\')),
            terminator: props
                .opt_str("lineterminator")?
                .unwrap_or("\r\n")
                .to_owned(),
        })
    }

    /// Appends a field.
    fn put(&self, text: &str, is_number: bool, line: &mut String) {
        let start = line.len();
        let mut quoted = match self.quoting {
            Quoting::All => true,
            Quoting::NonNumeric => !is_number,
            Quoting::Minimal | Quoting::None => false,
        };
        for c in text.chars() {
            if self.is_special(c) {
                let escaped = match self.quoting {
                    Quoting::None => true,
                    _ if c == self.quote => !self.doublequote,
                    _ => Some(c) == self.escape,
                };
                match (escaped, self.escape) {
                    (true, Some(escape)) => line.push(escape),
                    // Quoting `none` without a character for it: the field is as it is.
                    (true, None) => {}
                    (false, _) => {
                        quoted = true;
                        if c == self.quote {
                            line.push(c);
                        }
                    }
                }
            }
            line.push(c);
        }
        if quoted {
            line.insert(start, self.quote);
            line.push(self.quote);
        }
    }

    fn is_special(&self, c: char) -> bool {
        c == self.delimiter
            || c == self.quote
            || c == '\n'
            || c == '\r'
            || Some(c) == self.escape
            || self.terminator.contains(c)
    }
}
