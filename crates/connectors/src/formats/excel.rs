//! Entities as the rows of a workbook (Office Open XML). The one sheet is compressed and sent
//! while it is written, with its texts in the cells and not in a table that had to be kept.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::civil::{Date, DateTime, date};
use tahini_entity::{Record, Value};
use tahini_hub::Failure;
use tahini_hub::config::Props;
use zip::write::{SimpleFileOptions, StreamWriter};
use zip::{CompressionMethod, ZipWriter};

use super::table::Table;
use super::{Document, bare, skips_deleted};

/// What a sheet holds at most, as the format says.
const MAX_ROWS: u32 = 1_048_576;
const MAX_COLUMNS: usize = 16_384;
/// The longest text of a cell, in units of UTF-16.
const MAX_TEXT: usize = 32_767;
/// Rows are handed on to the compressor in portions of this size, in bytes.
const PORTION: usize = 32 * 1024;

const CONTENT_TYPES: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/><Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/><Override PartName="/xl/worksheets/sheet1.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/><Override PartName="/xl/styles.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.styles+xml"/></Types>"#;
const RELATIONSHIPS: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="xl/workbook.xml"/></Relationships>"#;
const WORKBOOK: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"><sheets><sheet name="Entities" sheetId="1" r:id="rId1"/></sheets></workbook>"#;
const WORKBOOK_RELATIONSHIPS: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" Target="worksheets/sheet1.xml"/><Relationship Id="rId2" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/styles" Target="styles.xml"/></Relationships>"#;
/// Style 0 is the usual one, 1 a date, 2 a date with time, 3 the header's.
const STYLES: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<styleSheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><numFmts count="2"><numFmt numFmtId="164" formatCode="yyyy\-mm\-dd"/><numFmt numFmtId="165" formatCode="yyyy\-mm\-dd\ hh:mm:ss"/></numFmts><fonts count="2"><font><sz val="11"/><name val="Calibri"/></font><font><b/><sz val="11"/><name val="Calibri"/></font></fonts><fills count="2"><fill><patternFill patternType="none"/></fill><fill><patternFill patternType="gray125"/></fill></fills><borders count="1"><border><left/><right/><top/><bottom/><diagonal/></border></borders><cellStyleXfs count="1"><xf numFmtId="0" fontId="0" fillId="0" borderId="0"/></cellStyleXfs><cellXfs count="4"><xf numFmtId="0" fontId="0" fillId="0" borderId="0" xfId="0"/><xf numFmtId="164" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/><xf numFmtId="165" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/><xf numFmtId="0" fontId="1" fillId="0" borderId="0" xfId="0" applyFont="1"/></cellXfs></styleSheet>"#;
const SHEET: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>"#;
const SHEET_END: &str = "</sheetData></worksheet>";

const STYLE_DATE: &str = " s=\"1\"";
const STYLE_DATETIME: &str = " s=\"2\"";
const STYLE_HEADER: &str = " s=\"3\"";

/// A workbook with one sheet.
pub(super) struct Workbook {
    table: Table,
    skips_deleted: bool,
    sheet: Option<ZipWriter<StreamWriter<Sent>>>,
    sent: Sent,
    rows: u32,
    text: String,
}

/// The bytes that the archive consists of, as far as nobody took them.
#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Vec<u8>>>);

impl Sent {
    fn with<T>(&self, work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Sent {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|all| all.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Workbook {
    /// A workbook in which the header stands already, by the configuration of a `csv_endpoint`.
    ///
    /// # Errors
    /// Config, when a property is not what it has to be.
    pub(super) fn of(props: Props<'_>) -> Result<Workbook, Failure> {
        let table = Table::of(props)?;
        if table.columns().len() > MAX_COLUMNS {
            return Err(Failure::config(format!(
                "{}.columns: expected at most the {MAX_COLUMNS} columns of a sheet, found {}",
                props.path(),
                table.columns().len()
            )));
        }
        let sent = Sent::default();
        let sheet = begin(sent.clone()).map_err(broken)?;
        let mut workbook = Workbook {
            table,
            skips_deleted: skips_deleted(props)?,
            sheet: Some(sheet),
            sent,
            rows: 0,
            text: SHEET.to_owned(),
        };
        if props.bool("include_header", true)? {
            let names = workbook.table.columns().iter();
            let header: Vec<Value> = names.map(|name| Value::string(name.as_str())).collect();
            workbook.row(&header, STYLE_HEADER)?;
        }
        Ok(workbook)
    }

    fn row(&mut self, values: &[Value], style: &str) -> Result<(), Failure> {
        if self.rows == MAX_ROWS {
            return Err(Failure::entity(format!(
                "expected at most the {MAX_ROWS} rows of a sheet, found more; `since` and `limit` \
                 publish a part"
            )));
        }
        self.rows += 1;
        self.text.push_str("<row>");
        for (at, value) in values.iter().enumerate() {
            cell(value, style, &mut self.text).map_err(|failure| {
                failure.context(format_args!("column {:?}", self.table.columns()[at]))
            })?;
        }
        self.text.push_str("</row>");
        match self.text.len() < PORTION {
            true => Ok(()),
            false => self.hand_on(),
        }
    }

    fn hand_on(&mut self) -> Result<(), Failure> {
        if let Some(sheet) = &mut self.sheet {
            sheet.write_all(self.text.as_bytes()).map_err(broken)?;
        }
        self.text.clear();
        Ok(())
    }
}

impl Document for Workbook {
    fn media_type(&self) -> String {
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet".to_owned()
    }

    fn put(&mut self, record: Record<'_>) -> Result<bool, Failure> {
        if record.meta.deleted && self.skips_deleted {
            return Ok(false);
        }
        let values = self.table.row(record);
        self.row(&values, "").map_err(|failure| {
            let id = record.id.unwrap_or_default();
            failure.context(format_args!("entity {id:?}"))
        })?;
        Ok(true)
    }

    fn end(&mut self) -> Result<(), Failure> {
        self.text.push_str(SHEET_END);
        self.hand_on()?;
        if let Some(sheet) = self.sheet.take() {
            sheet.finish().map_err(broken)?;
        }
        Ok(())
    }

    fn waiting(&self) -> usize {
        self.sent.with(|all| all.len())
    }

    fn take(&mut self) -> Vec<u8> {
        self.sent.with(std::mem::take)
    }
}

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::fatal(format!("the workbook cannot be written: {error}"))
}

/// Everything before the rows, with the sheet open.
fn begin(sent: Sent) -> zip::result::ZipResult<ZipWriter<StreamWriter<Sent>>> {
    let mut archive = ZipWriter::new_stream(sent);
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, text) in [
        ("[Content_Types].xml", CONTENT_TYPES),
        ("_rels/.rels", RELATIONSHIPS),
        ("xl/workbook.xml", WORKBOOK),
        ("xl/_rels/workbook.xml.rels", WORKBOOK_RELATIONSHIPS),
        ("xl/styles.xml", STYLES),
    ] {
        archive.start_file(name, options)?;
        archive.write_all(text.as_bytes())?;
    }
    archive.start_file("xl/worksheets/sheet1.xml", options)?;
    Ok(archive)
}

/// Appends a cell: numbers that a sheet holds exactly as numbers, dates as dates, else text.
fn cell(value: &Value, style: &str, out: &mut String) -> Result<(), Failure> {
    let number = |text: &str, style: &str, out: &mut String| {
        out.push_str(&format!("<c{style}><v>{text}</v></c>"));
        Ok(())
    };
    match value {
        Value::Null => {
            out.push_str("<c/>");
            Ok(())
        }
        Value::Bool(flag) => {
            let digit = u8::from(*flag);
            out.push_str(&format!("<c t=\"b\"><v>{digit}</v></c>"));
            Ok(())
        }
        Value::Int(_) | Value::Float(_) | Value::Decimal(_) if is_exact(&bare(value)) => {
            number(&bare(value), style, out)
        }
        Value::Date(day) => match serial(DateTime::from_parts(*day, jiff::civil::Time::midnight()))
        {
            Some(serial) => number(&serial, STYLE_DATE, out),
            None => text(&bare(value), style, out),
        },
        Value::Datetime(at) => match serial(at.civil()) {
            Some(serial) => number(&serial, STYLE_DATETIME, out),
            None => text(&bare(value), style, out),
        },
        other => text(&bare(other), style, out),
    }
}

/// Whether a sheet, which keeps 15 digits, keeps all of this number's.
fn is_exact(number: &str) -> bool {
    let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
    let digits = mantissa.chars().filter(char::is_ascii_digit);
    digits.skip_while(|digit| *digit == '0').count() <= 15
}

/// Days since the end of 1899, as sheets count them; `None` for days that they count wrongly.
fn serial(at: DateTime) -> Option<String> {
    const FIRST: Date = date(1900, 3, 1);
    const ZERO: Date = date(1899, 12, 30);
    if at.date() < FIRST {
        return None;
    }
    let days = ZERO.until((jiff::Unit::Day, at.date())).ok()?.get_days();
    let time = at.time();
    let seconds = f64::from(time.hour()) * 3600.0
        + f64::from(time.minute()) * 60.0
        + f64::from(time.second())
        + f64::from(time.subsec_nanosecond()) / 1e9;
    Some((f64::from(days) + seconds / 86_400.0).to_string())
}

fn text(text: &str, style: &str, out: &mut String) -> Result<(), Failure> {
    if text.encode_utf16().count() > MAX_TEXT {
        return Err(Failure::entity(format!(
            "expected at most the {MAX_TEXT} characters of a cell, found more"
        )));
    }
    out.push_str(&format!(
        "<c t=\"inlineStr\"{style}><is><t xml:space=\"preserve\">"
    ));
    for (at, c) in text.char_indices() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\t' | '\n' => out.push(c),
            // What XML cannot hold is written by its code, and what looks like such a code, too.
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {
                out.push_str(&format!("_x{:04X}_", u32::from(c)));
            }
            '_' if is_code(&text[at..]) => out.push_str("_x005F_"),
            other => out.push(other),
        }
    }
    out.push_str("</t></is></c>");
    Ok(())
}

/// Whether the text begins like `_x000A_`.
fn is_code(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 7
        && bytes[1] == b'x'
        && bytes[2..6].iter().all(u8::is_ascii_hexdigit)
        && bytes[6] == b'_'
}
