//! Entities on their way into an answer, in the form that the client asked for.

use axum::body::Bytes;
use tahini_connectors::formats::Document;
use tahini_entity::json::{Fields, write_record};
use tahini_entity::{Batch, packed};
use tahini_hub::Failure;

use super::Call;

/// A form of answers with many entities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A JSON array.
    Json,
    /// Packed entities (`docs/packed.md`).
    Packed,
}

impl Form {
    /// The form that a request asks for.
    pub fn wanted(call: &Call) -> Form {
        match call.accepts(packed::MEDIA_TYPE) {
            true => Form::Packed,
            false => Form::Json,
        }
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Form::Json => "application/json",
            Form::Packed => packed::MEDIA_TYPE,
        }
    }
}

/// What was written and not sent yet.
pub struct Listing {
    form: Form,
    first: bool,
    text: Vec<u8>,
}

impl Listing {
    /// The beginning of an answer.
    pub fn new(form: Form) -> Listing {
        let mut text = Vec::new();
        match form {
            Form::Json => text.push(b'['),
            Form::Packed => packed::begin(&mut text),
        }
        Listing {
            form,
            first: true,
            text,
        }
    }

    /// Appends entities.
    pub fn put(&mut self, batch: &Batch) {
        if self.form == Form::Packed {
            return packed::put(batch, &mut self.text);
        }
        for record in batch.iter() {
            if !std::mem::replace(&mut self.first, false) {
                self.text.extend_from_slice(b",\n");
            }
            write_record(record, Fields::ALL, &mut self.text);
        }
    }

    /// Appends the end.
    pub fn end(&mut self) {
        match self.form {
            Form::Json => self.text.push(b']'),
            Form::Packed => packed::end(&mut self.text),
        }
    }

    /// Bytes that wait to be sent.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// Takes what waits.
    pub fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.text).into()
    }
}

/// What a pipe gives on its way into an answer.
pub enum Out {
    /// Entities.
    Listing(Listing),
    /// A file of another format.
    Document(Box<dyn Document>),
}

impl Out {
    /// The media type of the answer.
    pub fn media_type(&self) -> String {
        match self {
            Out::Listing(listing) => listing.form.media_type().to_owned(),
            Out::Document(document) => document.media_type(),
        }
    }

    /// Appends at most so many entities; how many these were.
    pub fn put(&mut self, batch: &Batch, most: u64) -> Result<u64, Failure> {
        match self {
            Out::Listing(listing) if batch.len() as u64 <= most => {
                listing.put(batch);
                Ok(batch.len() as u64)
            }
            Out::Listing(listing) => {
                let mut first = Batch::new();
                let count = usize::try_from(most).unwrap_or(usize::MAX);
                let records = batch.iter().take(count);
                records.for_each(|record| first.push(record));
                listing.put(&first);
                Ok(most)
            }
            Out::Document(document) => {
                let mut count = 0;
                for record in batch.iter() {
                    if count == most {
                        break;
                    }
                    count += u64::from(document.put(record)?);
                }
                Ok(count)
            }
        }
    }

    /// Appends the end.
    pub fn end(&mut self) -> Result<(), Failure> {
        match self {
            Out::Listing(listing) => listing.end(),
            Out::Document(document) => document.end()?,
        }
        Ok(())
    }

    /// Bytes that wait to be sent.
    pub fn len(&self) -> usize {
        match self {
            Out::Listing(listing) => listing.len(),
            Out::Document(document) => document.waiting(),
        }
    }

    /// Takes what waits.
    pub fn take(&mut self) -> Bytes {
        match self {
            Out::Listing(listing) => listing.take(),
            Out::Document(document) => document.take().into(),
        }
    }
}
