//! What became of entities on a pipe's way, as JSON for the API and the command line.

use serde_json::{Map, Value as Json, json};
use tahini_dtl::{JsonPath, Program, steps_json};
use tahini_entity::Batch;
use tahini_entity::json::{Fields, write_record};
use tahini_hub::preview::{Passed, Transformed};

/// Entities as JSON: `_id` first, `_deleted` and `_filtered` where they are true.
pub fn entities(batch: &Batch) -> Vec<Json> {
    let mut text = Vec::new();
    let json = |record: tahini_entity::Record<'_>| {
        text.clear();
        write_record(record, Fields::RESULT, &mut text);
        serde_json::from_slice(&text).unwrap_or_default()
    };
    batch.iter().map(json).collect()
}

/// What each transform gave, what the sink would get, the children among it, and the steps of
/// rules that tell them.
pub fn passed(source: &Batch, passed: &Passed, trace: bool) -> Json {
    let sink = entities(&passed.sink);
    let children: Vec<&Json> = sink
        .iter()
        .filter_map(|entity| entity["$children"].as_array())
        .flatten()
        .collect();
    let mut out = json!({
        "source": entities(source),
        "transformed": passed.transforms.iter().map(|one| entities(&one.outputs)).collect::<Vec<_>>(),
        "children": children,
        "sink": sink,
    });
    if let Some(why) = &passed.ended {
        out["ended"] = why.as_str().into();
    }
    if trace {
        out["trace"] = passed.transforms.iter().map(traced).collect();
    }
    out
}

/// The type of a transform, and for rules the steps of each entity that came in.
fn traced(one: &Transformed) -> Json {
    let entity = |explained: &tahini_dtl::Explained| {
        let mut out = Map::new();
        out.insert("steps".to_owned(), steps_json(&explained.steps));
        if explained.omitted > 0 {
            out.insert("omitted".to_owned(), explained.omitted.into());
        }
        if let Some(error) = &explained.error {
            out.insert("error".to_owned(), error.message.as_str().into());
            let path = error.path.as_ref();
            out.extend(path.map(|path| ("error_path".to_owned(), path.to_string().into())));
        }
        Json::Object(out)
    };
    let entities: Vec<Json> = one.explained.iter().map(entity).collect();
    json!({"type": one.kind, "path": one.place.to_string(), "entities": entities})
}

/// What rules read, whether equal entities give equal results, and why not. `place` says where a
/// path of the program stands for who wrote it.
pub fn analysis(program: &Program, place: &dyn Fn(&JsonPath) -> JsonPath) -> Json {
    let cause = |cause: &tahini_dtl::Cause| json!({"why": cause.why.to_string(), "path": place(&cause.path).to_string()});
    let warning =
        |warning: &tahini_dtl::Problem| format!("{}: {}", place(&warning.path), warning.message);
    let dataset =
        |read: &tahini_dtl::Read| json!({"dataset": read.dataset, "tracked": read.tracked});
    json!({
        "properties": program.properties().names().collect::<Vec<_>>(),
        "datasets": program.reads().iter().map(dataset).collect::<Vec<_>>(),
        "is_deterministic": program.is_deterministic(),
        "causes": program.causes().iter().map(cause).collect::<Vec<_>>(),
        "creates_children": program.creates_children(),
        "warnings": program.warnings().iter().map(warning).collect::<Vec<_>>(),
    })
}

/// The same for people, a line each.
pub fn analysis_text(program: &Program, place: &dyn Fn(&JsonPath) -> JsonPath) -> String {
    let list = |names: Vec<&str>| match names.as_slice() {
        [] => "nothing".to_owned(),
        ["*"] => "everything".to_owned(),
        names => names.join(", "),
    };
    let properties = match program.properties().is_all() {
        true => vec!["*"],
        false => program.properties().names().collect(),
    };
    let mut lines = vec![format!("reads of the entity: {}", list(properties))];
    if !program.reads().is_empty() {
        let reads = program.reads().iter().map(|read| read.dataset.as_str());
        lines.push(format!(
            "reads of other datasets: {}",
            list(reads.collect())
        ));
    }
    if program.is_deterministic() {
        lines.push("equal entities always give equal results".to_owned());
    }
    for cause in program.causes() {
        lines.push(format!("depends on {}: {}", cause.why, place(&cause.path)));
    }
    lines.join("\n")
}
