//! The `csv` source: the rows of a file behind a URL.

use std::io;

use tahini_entity::{Batch, Str};
use tahini_hub::config::{Kind, Property, Props};
use tahini_hub::registry::{ContinuationDef, SourceDef};
use tahini_hub::source::From;
use tahini_hub::{Ctx, Failure};

use super::columns::{Columns, Wanted, listed};
use super::dialect::{Dialect, Known, SAMPLE_BYTES, guess};
use super::rows::{Row, Rows};
use crate::formats::charset::Charset;
use crate::formats::file::{File, Format};
use crate::formats::rows::{ENCODING, IF_SOURCE_EMPTY, SYSTEM, URL};
use crate::formats::text::{Manners, Text};
use crate::http::Body;

/// The row of the `csv` source.
pub const SOURCE: SourceDef = SourceDef {
    name: "csv",
    summary: "The rows of a CSV file behind a URL; every value is text.",
    properties: &[
        SYSTEM,
        URL,
        Property::new(
            "has_header",
            Kind::Boolean,
            "Whether the first row holds the names of the columns; without it, `field_names` does.",
        )
        .or("true"),
        Property::new(
            "field_names",
            Kind::Strings,
            "The names of the columns, before those that the file has.",
        ),
        Property::new(
            "auto_dialect",
            Kind::Boolean,
            "Whether delimiter and quotes are guessed from the start of the file, where `dialect` \
             is not set.",
        )
        .or("true"),
        Property::new(
            "dialect",
            Kind::Enum(&["excel", "excel_tab", "unix_dialect"]),
            "How the file is written; `excel` where nothing is guessed.",
        ),
        ENCODING,
        Property::new(
            "decode_error_strategy",
            Kind::Enum(&["strict", "replace"]),
            "Whether bytes that are no text fail the run, or are replaced by U+FFFD with a warning.",
        )
        .or("\"strict\""),
        Property::required(
            "primary_key",
            Kind::StringOrList,
            "The column of the id; of several ones, their values with colons between them.",
        ),
        Property::new(
            "whitelist",
            Kind::Strings,
            "The columns that become properties; all by default.",
        ),
        Property::new(
            "blacklist",
            Kind::Strings,
            "Columns that become no properties, though the whitelist may have them.",
        ),
        Property::new(
            "preserve_empty_strings",
            Kind::Boolean,
            "Whether empty values become empty strings; they are left out by default.",
        )
        .or("false"),
        Property::new(
            "delimiter",
            Kind::String,
            "The text between two fields; that of the dialect by default.",
        ),
        Property::new(
            "escape_null_bytes",
            Kind::Boolean,
            "Whether null characters become `\\0`; they fail the run by default.",
        )
        .or("false"),
        IF_SOURCE_EMPTY,
    ],
    continuation: ContinuationDef {
        supports_since: false,
        is_since_comparable: true,
        is_chronological: false,
        configurable: false,
    },
    open: |ctx, _: From| Ok(Box::new(File::open(ctx, CsvFormat::of(ctx)?)?)),
};

/// How the files of a pipe are written, and what is wanted of them.
struct CsvFormat {
    pipe: String,
    layout: Layout,
    wanted: Wanted,
    charset: Charset,
    manners: Manners,
    /// The row that was read last.
    row: Row,
}

/// What the configuration says of how the file is written.
struct Layout {
    has_header: bool,
    field_names: Option<Vec<String>>,
    /// `None` when it is guessed.
    dialect: Option<Dialect>,
    delimiter: Option<String>,
}

/// A file in the middle of being read.
struct Reading {
    rows: Rows<Body>,
    columns: Columns,
}

impl Layout {
    fn of(props: Props<'_>) -> Result<Layout, Failure> {
        let has_header = props.bool("has_header", true)?;
        let field_names = listed(props, "field_names")?;
        if !has_header && field_names.is_none() {
            let expected = "the names of the columns, as has_header is false";
            return Err(props.wrong("field_names", expected, None));
        }
        let delimiter = props.opt_str("delimiter")?;
        if delimiter.is_some_and(|text| text.is_empty() || text.contains(['\n', '\r', '"'])) {
            let expected = "a delimiter without line ends and quotes";
            return Err(props.wrong("delimiter", expected, props.get("delimiter")));
        }
        let named = props.opt_str("dialect")?;
        let auto = props.bool("auto_dialect", true)?;
        let mut dialect = match named {
            Some(name) => Some(Dialect::named(name).ok_or_else(|| {
                let expected = "excel, excel_tab or unix_dialect";
                props.wrong("dialect", expected, props.get("dialect"))
            })?),
            None if auto => None,
            None => Some(Dialect::excel()),
        };
        if let (Some(dialect), Some(delimiter)) = (&mut dialect, delimiter) {
            dialect.delimiter = delimiter.to_owned();
        }
        Ok(Layout {
            has_header,
            field_names,
            dialect,
            delimiter: delimiter.map(str::to_owned),
        })
    }
}

impl CsvFormat {
    fn of(ctx: &Ctx<'_>) -> Result<CsvFormat, Failure> {
        let props = ctx.props;
        Ok(CsvFormat {
            pipe: ctx.owner.to_owned(),
            layout: Layout::of(props)?,
            wanted: Wanted::of(props)?,
            charset: Charset::from(props)?,
            manners: Manners {
                replace: props.opt_str("decode_error_strategy")? == Some("replace"),
                escape_nulls: props.bool("escape_null_bytes", false)?,
            },
            row: Row::default(),
        })
    }

    /// Settles the dialect and the columns.
    fn look<R: io::Read>(&mut self, rows: &mut Rows<R>) -> Result<Option<Columns>, Failure> {
        let dialect = match &self.layout.dialect {
            Some(dialect) => dialect.clone(),
            None => {
                let known = Known {
                    delimiter: self.layout.delimiter.as_deref(),
                    width: self.layout.field_names.as_ref().map(Vec::len),
                };
                let (sample, whole) = rows.look_ahead(SAMPLE_BYTES)?;
                guess(sample, whole, known)
            }
        };
        tracing::debug!(pipe = self.pipe, ?dialect, "reading rows");
        rows.set_dialect(dialect);
        if self.layout.has_header && !rows.next(&mut self.row)? {
            return Ok(None);
        }
        let names: Vec<Str> = match &self.layout.field_names {
            Some(names) => names.iter().map(Str::from).collect(),
            None => self.row.fields().map(Str::from).collect(),
        };
        self.wanted.columns(names).map(Some)
    }
}

impl Format for CsvFormat {
    const ACCEPT: &'static str = "text/csv, */*;q=0.8";
    type Reading = Reading;

    /// Reads the header.
    fn begin(&mut self, body: Body) -> Result<Option<Reading>, Failure> {
        let text = Text::new(body, self.charset.clone(), self.manners);
        let mut rows = Rows::new(text, Dialect::excel());
        let columns = self.look(&mut rows)?;
        Ok(columns.map(|columns| Reading { rows, columns }))
    }

    fn next(&mut self, reading: &mut Reading, out: &mut Batch) -> Result<bool, Failure> {
        if !reading.rows.next(&mut self.row)? {
            return Ok(false);
        }
        let entity = reading.columns.entity(&self.row)?;
        out.push_entity(&entity)
            .map_err(|error| Failure::entity(error.to_string()))?;
        Ok(true)
    }
}
