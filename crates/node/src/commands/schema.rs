//! `tahini schema`: the configuration as JSON Schema, for editors.

use tahini_hub::config::{Subject, schema as schema_of};

use crate::assembly::REGISTRY;
use crate::cli::{OK, Schema, SchemaSubject};
use crate::say;

/// Prints the schema.
pub fn schema(options: &Schema) -> anyhow::Result<u8> {
    let subject = match options.subject {
        SchemaSubject::Pipe => Subject::Pipe,
        SchemaSubject::System => Subject::System,
        SchemaSubject::Rules => Subject::Rules,
        SchemaSubject::All => Subject::All,
    };
    say::line(&serde_json::to_string_pretty(&schema_of(
        subject, &REGISTRY,
    ))?);
    Ok(OK)
}
