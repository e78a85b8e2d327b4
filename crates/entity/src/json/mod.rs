//! Wire JSON, in and out: splitting a stream into entities, parsing an entity straight into a
//! batch, writing it back, and JSON values of configurations.
//!
//! | job | here |
//! | --- | --- |
//! | a stream of bytes into the text of one entity at a time | [`Splitter`], [`Elements`] |
//! | one entity's text into a batch | [`Parser`] |
//! | entities' text into the places of their properties, unread | [`Opened`], [`Raw`] |
//! | one value's text into a tree | [`parse_value`], [`parse_plain`], [`parse_entity`] |
//! | a configuration's JSON into values and back | [`from_config`], [`entity_from_config`], [`to_config`] |
//! | out | [`write_record`], [`write_entity`], [`write_value`], [`write_text`]; piece by piece [`write_name`], [`Raw::write`], [`write_start`] |

mod canonical;
mod config;
mod elements;
mod entity_error;
pub mod number;
mod opened;
mod parse;
mod raw;
mod scan;
mod split;
pub mod transit;
mod value;
mod write;

pub use config::{entity_from_config, from_config, to_config};
pub use elements::{Elements, Next, ReadError};
pub use entity_error::{EntityError, EntityFault};
pub use number::{MAX_DIGITS, Numbers, integer_fits};
pub use opened::{Line, Opened};
pub use parse::{Parser, is_reserved, parse_entity};
pub use raw::Raw;
pub use split::{Layout, MAX_ENTITY_BYTES, SplitError, Splitter};
pub use value::{ValueError, parse_plain, parse_value};
pub use write::{
    Fields, Text, write_entity, write_name, write_record, write_start, write_text, write_value,
};

/// Bytes of foreign input that a message shows.
const EXCERPT: usize = 80;

/// The start of `bytes` as a message shows it: one line, at most 80 bytes.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(EXCERPT)];
    let text = String::from_utf8_lossy(shown);
    // A character that the limit cut in half is not shown as a wrong one.
    let text = if shown.len() < bytes.len() {
        text.trim_end_matches('\u{fffd}')
    } else {
        &text
    };
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let dots = if shown.len() < bytes.len() {
        " …"
    } else {
        ""
    };
    format!("`{}`{dots}", text.trim())
}
