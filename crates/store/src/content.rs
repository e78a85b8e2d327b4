//! What of a row is stored.

use std::borrow::Cow;
use std::sync::Arc;

use tahini_entity::{Record, Shape, Str, encoding};

/// The properties of a row that a dataset keeps.
pub(crate) struct Content<'a> {
    pub shape: Cow<'a, Arc<Shape>>,
    pub body: Cow<'a, [u8]>,
}

impl<'a> Content<'a> {
    /// All properties, or all but the root's `_…` names where the row says that it has such.
    pub(crate) fn of(record: &Record<'a>) -> Content<'a> {
        if !record.meta.reserved {
            return Content {
                shape: Cow::Borrowed(record.shape),
                body: Cow::Borrowed(record.body),
            };
        }
        let mut names: Vec<Str> = Vec::with_capacity(record.shape.names().len());
        let mut body = Vec::with_capacity(record.body.len());
        let mut rest = record.body;
        for name in record.shape.names() {
            let before = rest;
            encoding::skip(&mut rest);
            if !name.starts_with('_') {
                names.push(name.clone());
                body.extend_from_slice(&before[..before.len() - rest.len()]);
            }
        }
        Content {
            shape: Cow::Owned(Arc::new(Shape::new(names))),
            body: Cow::Owned(body),
        }
    }
}
