//! XML: the `xml` source, what an `xml_endpoint` publishes, and the `xml` transform.

mod names;
mod reader;
mod sink;
mod source;
mod transform;
mod writer;

pub use sink::SINK;
pub use source::SOURCE;
pub use transform::TRANSFORM;
pub use writer::Xml;
