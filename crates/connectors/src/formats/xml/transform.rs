//! The `xml` transform: an entity as XML text in one of its properties.

use tahini_entity::{Batch, Value};
use tahini_hub::config::{Kind, Property};
use tahini_hub::registry::TransformDef;
use tahini_hub::{Ctx, Failure, Transform};

use super::sink::{DECLARATION, ROOT_ATTRIBUTES, WRAPPER};
use super::writer::Frame;
use crate::formats::rows::SKIP_DELETED;
use crate::http::trigger::{self, Trigger, passes};

/// The row of the `xml` transform.
pub const TRANSFORM: TransformDef = TransformDef {
    name: "xml",
    summary: "Renders entities of the shape of the xml_endpoint sink as XML text, which becomes \
              one of their properties.",
    properties: &[
        WRAPPER,
        ROOT_ATTRIBUTES,
        DECLARATION,
        Property::required(
            "xml-property",
            Kind::String,
            "The property that holds the text.",
        ),
        SKIP_DELETED,
        Property::new(
            "trigger_on",
            Kind::Nested(trigger::PROPERTIES),
            "Which entities to render; the others pass as they are.",
        ),
    ],
    stands_for: None,
    open: |ctx| Ok(Box::new(Rendering::open(ctx)?)),
};

/// An open transform.
struct Rendering {
    frame: Frame,
    property: String,
    trigger: Option<Trigger>,
}

impl Rendering {
    fn open(ctx: &Ctx<'_>) -> Result<Rendering, Failure> {
        Ok(Rendering {
            frame: Frame::of(ctx.props)?,
            property: ctx.props.str("xml-property")?.to_owned(),
            trigger: Trigger::of(ctx.props)?,
        })
    }
}

impl Transform for Rendering {
    fn apply(
        &mut self,
        input: &Batch,
        out: &mut Batch,
        origins: &mut Vec<u32>,
    ) -> Result<(), Failure> {
        for (position, record) in (0u32..).zip(input.iter()) {
            origins.push(position);
            let skipped = record.meta.deleted && self.frame.skips_deleted;
            if skipped || passes(self.trigger.as_ref(), record) {
                out.push(record);
                continue;
            }
            let mut entity = record.to_entity();
            // What an earlier run left there is no attribute.
            entity.properties.remove(&self.property);
            let mut text = String::new();
            self.frame.begin(&mut text);
            self.frame.put(&entity, &mut text)?;
            self.frame.end(&mut text);
            entity
                .properties
                .set(self.property.as_str(), Value::string(text));
            out.push_entity(&entity)
                .map_err(|error| Failure::entity(error.to_string()).with_entity(entity))?;
        }
        Ok(())
    }
}
