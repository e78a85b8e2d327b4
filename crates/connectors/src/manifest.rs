//! Connectors in the public format: a manifest that says which data types a system has, and
//! templates of the configuration for them, in which `{{@ name @}}` is a variable. They expand as
//! the reference's client expands them.

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Value as Seen};
use serde_json::{Map, Value as Json, json};

/// What a connector expands to.
#[derive(Debug, Default)]
pub struct Expanded {
    /// Its components, in the order of the manifest: the system, and for each data type its pipes
    /// and the one that stands in for what a hub would want there.
    pub components: Vec<Json>,
    /// The variables that its configuration needs, which the manifest lists as
    /// `additional_parameters`.
    pub variables: Vec<String>,
    /// What is allowed and probably not meant.
    pub warnings: Vec<String>,
}

/// Why a connector does not expand.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ManifestError(String);

/// Reads a file of the connector by the path that the manifest gives.
pub type Read<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// Expands a connector whose system gets the id `system`.
///
/// # Errors
/// Where the manifest or a template is not what was expected, with the file's name.
pub fn expand(
    manifest: &Map<String, Json>,
    system: &str,
    read: Read<'_>,
) -> Result<Expanded, ManifestError> {
    let mut out = Expanded::default();
    let mut known = Map::new();
    known.insert("system".to_owned(), json!(system));
    for name in object(manifest, "additional_parameters")?.keys() {
        known.insert(name.clone(), json!(format!("$ENV({name})")));
        out.variables.push(name.clone());
    }
    if let Some(path) = text(manifest, "system-template")? {
        let components = render(path, &known, read, &mut out.warnings)?;
        out.components.extend(components);
    }
    for (name, datatype) in object(manifest, "datatypes")? {
        let Json::Object(datatype) = datatype else {
            return Err(wrong(format!(
                "manifest.json: expected an object as data type {name:?}"
            )));
        };
        let path = text(datatype, "template")?.ok_or_else(|| {
            wrong(format!(
                "manifest.json: the data type {name:?} has no template"
            ))
        })?;
        // As in the reference's client, a parameter stays known to the data types that follow.
        known.extend(object(datatype, "parameters")?.clone());
        let mut own = known.clone();
        own.insert("datatype".to_owned(), json!(name));
        if let Some(parent) = datatype.get("parent") {
            own.insert("parent".to_owned(), parent.clone());
        }
        let mut pipes = render(path, &own, read, &mut out.warnings)?;
        if stem(path) != name {
            for pipe in pipes.iter_mut().filter_map(Json::as_object_mut) {
                pipe.insert("comment".to_owned(), json!(shared(stem(path))));
            }
        }
        out.components.extend(pipes);
        out.components.push(stand_in(system, name));
    }
    if manifest.get("use_webhook_secret") == Some(&Json::Bool(true)) {
        let components = out.components.iter_mut();
        components.for_each(|one| open_to_webhooks(one, &mut out.warnings));
    }
    Ok(out)
}

/// The file that holds the variables of an expanded connector where there is none yet.
pub fn blank_profile(expanded: &Expanded) -> Json {
    let mut profile = Map::new();
    profile.insert("node-env".to_owned(), json!("test"));
    for name in &expanded.variables {
        profile.insert(name.clone(), json!(""));
    }
    Json::Object(profile)
}

fn wrong(words: String) -> ManifestError {
    ManifestError(words)
}

fn object<'a>(
    map: &'a Map<String, Json>,
    name: &str,
) -> Result<&'a Map<String, Json>, ManifestError> {
    static NONE: std::sync::OnceLock<Map<String, Json>> = std::sync::OnceLock::new();
    match map.get(name) {
        None | Some(Json::Null) => Ok(NONE.get_or_init(Map::new)),
        Some(Json::Object(object)) => Ok(object),
        Some(_) => Err(wrong(format!(
            "manifest.json: expected an object as {name:?}"
        ))),
    }
}

fn text<'a>(map: &'a Map<String, Json>, name: &str) -> Result<Option<&'a str>, ManifestError> {
    match map.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(text)),
        Some(other) => Err(wrong(format!(
            "manifest.json: expected the path of a template as {name:?}, found {other}"
        ))),
    }
}

/// A file's name without folders and ending.
fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

fn shared(datatype: &str) -> String {
    format!(
        "Expanded from the template of the data type '{datatype}', which others share: a change \
         here does not find its way back there. Change the template."
    )
}

/// The components that a template gives under these variables.
fn render(
    path: &str,
    variables: &Map<String, Json>,
    read: Read<'_>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Json>, ManifestError> {
    let source = read(path.trim_start_matches('/')).map_err(wrong)?;
    let failed = |error: minijinja::Error| {
        let detail = error.detail().map(|detail| format!(": {detail}"));
        let line = error.line().map(|line| format!(", line {line}"));
        wrong(format!(
            "{path}{}: {}{}",
            line.unwrap_or_default(),
            error.kind(),
            detail.unwrap_or_default()
        ))
    };
    let env = environment().map_err(failed)?;
    let template = env.template_from_str(&source).map_err(failed)?;
    let used = template.undeclared_variables(false).into_iter();
    let mut missing: Vec<String> = used.filter(|name| !variables.contains_key(name)).collect();
    missing.sort_unstable();
    for name in missing {
        let words = format!("{path}: the manifest says nothing of {name:?}; it becomes nothing");
        if !warnings.contains(&words) {
            warnings.push(words);
        }
    }
    let bound = variables.iter().map(|(name, value)| {
        let value = match value {
            // Put in when it is JSON again.
            Json::Bool(_) => place(name),
            value => printed(value, false),
        };
        (name.clone(), Seen::from(value))
    });
    let text = template.render(Seen::from_pairs(bound)).map_err(failed)?;
    let json: Json = serde_json::from_str(&text).map_err(|error| {
        wrong(format!(
            "{path}: expected JSON when it is expanded, found: {error}"
        ))
    })?;
    let mut components = match json {
        Json::Array(list) => list,
        one => vec![one],
    };
    for (name, value) in variables.iter().filter(|(_, value)| value.is_boolean()) {
        let place = place(name);
        components
            .iter_mut()
            .for_each(|one| put(one, &place, value));
    }
    for component in &components {
        if !component.get("_id").is_some_and(Json::is_string) {
            return Err(wrong(format!("{path}: a component has no _id")));
        }
    }
    Ok(components)
}

/// Jinja with the delimiters of connectors; those of Jinja itself are for the hub.
fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut env = Environment::new();
    let syntax = SyntaxConfig::builder()
        .variable_delimiters("{{@", "@}}")
        .block_delimiters("{{%", "%}}")
        .build()?;
    env.set_syntax(syntax);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    Ok(env)
}

/// What stands for a variable that is true or false until the text around it is JSON.
fn place(name: &str) -> String {
    format!("{{{{@ {name} @}}}}")
}

fn put(json: &mut Json, place: &str, value: &Json) {
    match json {
        Json::String(text) if text == place => *json = value.clone(),
        Json::Array(list) => list.iter_mut().for_each(|one| put(one, place, value)),
        Json::Object(map) => map.values_mut().for_each(|one| put(one, place, value)),
        _ => {}
    }
}

/// A value as the reference's client prints it: text as it is, everything else as Python does.
fn printed(value: &Json, nested: bool) -> String {
    match value {
        Json::String(text) if !nested => text.clone(),
        Json::String(text) if text.contains('\'') && !text.contains('"') => format!("\"{text}\""),
        Json::String(text) => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")),
        Json::Null => "None".to_owned(),
        Json::Bool(true) => "True".to_owned(),
        Json::Bool(false) => "False".to_owned(),
        Json::Number(number) => number.to_string(),
        Json::Array(list) => {
            let items: Vec<String> = list.iter().map(|one| printed(one, true)).collect();
            format!("[{}]", items.join(", "))
        }
        Json::Object(map) => {
            let items = map.iter().map(|(name, one)| {
                let name = printed(&json!(name), true);
                format!("{name}: {}", printed(one, true))
            });
            format!("{{{}}}", items.collect::<Vec<_>>().join(", "))
        }
    }
}

/// The pipe that stands in for what a hub would make of a data type: what was collected comes back
/// as what is to be shared, with what it is based on.
fn stand_in(system: &str, datatype: &str) -> Json {
    json!({
        "_id": format!("{system}-{datatype}-transform"),
        "type": "pipe",
        "source": {
            "type": "dataset",
            "dataset": format!("{system}-{datatype}-collect"),
            "supports_signalling": false
        },
        "transform": {
            "type": "dtl",
            "rules": {
                "default": [["add", "$based_on", ["apply", "based-on", "_S."]], ["copy", "*"]],
                "based-on": [["copy", "*", ["list", "_*", "$*"]]]
            }
        }
    })
}

/// A pipe that takes the events of webhooks is open to those who have no token.
fn open_to_webhooks(component: &mut Json, warnings: &mut Vec<String>) {
    let is_endpoint = component["source"]["type"] == "http_endpoint";
    let id = component["_id"].as_str().unwrap_or_default().to_owned();
    if component["type"] != "pipe" || !is_endpoint || !id.ends_with("event") {
        return;
    }
    let permissions = json!([["allow", ["group:Anonymous"], ["write_data"]]]);
    let before = component.get("permissions");
    if before.is_some_and(|before| !before.is_null() && *before != permissions) {
        warnings.push(format!(
            "the pipe {id:?} has permissions of its own; those for webhooks take their place"
        ));
    }
    component["permissions"] = permissions;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(manifest: Json, files: &[(&str, &str)]) -> Result<Expanded, ManifestError> {
        let read = |path: &str| {
            let found = files.iter().find(|(name, _)| *name == path);
            found
                .map(|(_, text)| (*text).to_owned())
                .ok_or_else(|| format!("there is no file {path}"))
        };
        expand(manifest.as_object().unwrap(), "xxxxxx", &read)
    }

    #[test]
    fn variables_are_those_of_the_manifest() {
        let manifest = json!({
            "additional_parameters": {"token_url": {}},
            "system-template": "templates/system.json",
            "datatypes": {
                "contact": {"template": "templates/contact.json",
                    "parameters": {"fast": true, "size": 7, "list": ["a", null, 1.5]}},
                "lead": {"template": "templates/contact.json", "parent": "contact"}
            }
        });
        let system = r#"{"_id": "{{@ system @}}", "type": "system:rest",
            "oauth2": {"token_url": "{{@ token_url @}}"}, "headers": {"X": "{{ entity.x }}"}}"#;
        let contact = r#"{"_id": "{{@ system @}}-{{@ datatype @}}-all", "type": "pipe",
            "source": {"fast": "{{@ fast @}}", "said": "is {{@ fast @}}", "size": "{{@size@}}"},
            "list": "{{@ list @}}", "parent": "{{@ parent @}}{{% if parent %}}!{{% endif %}}"}"#;
        let files = [
            ("templates/system.json", system),
            ("templates/contact.json", contact),
        ];
        let found = expanded(manifest, &files).unwrap();
        assert_eq!(
            found.components[0]["oauth2"]["token_url"],
            "$ENV(token_url)"
        );
        assert_eq!(found.components[0]["headers"]["X"], "{{ entity.x }}");
        let pipe = &found.components[1];
        assert_eq!(pipe["_id"], "xxxxxx-contact-all");
        assert_eq!(
            pipe["source"],
            json!({
                "fast": true, "said": "is {{@ fast @}}", "size": "7"
            })
        );
        assert_eq!(pipe["list"], "['a', None, 1.5]");
        assert_eq!(pipe["parent"], "");
        assert_eq!(found.components[2]["_id"], "xxxxxx-contact-transform");
        // The parameters of one data type stay for the next.
        assert_eq!(found.components[3]["source"]["fast"], true);
        assert_eq!(found.components[3]["parent"], "contact!");
        assert!(
            found.components[3]["comment"]
                .as_str()
                .unwrap()
                .contains("'contact'")
        );
        assert_eq!(found.warnings.len(), 1, "{:?}", found.warnings);
    }

    #[test]
    fn what_does_not_expand_says_where() {
        let one = |template: &str| {
            let manifest = json!({"datatypes": {"a": {"template": "templates/a.json"}}});
            let words = expanded(manifest, &[("templates/a.json", template)]);
            words.unwrap_err().to_string()
        };
        assert!(one("{\"_id\": \"{{@ x \"}").contains("templates/a.json, line 1"));
        assert!(one("{\"_id\": \"x\",}").contains("templates/a.json: expected JSON"));
        assert!(one("{}").contains("no _id"));
        let missing = expanded(json!({"datatypes": {"a": {"template": "b.json"}}}), &[]);
        assert!(missing.unwrap_err().to_string().contains("no file b.json"));
        let wrong = expanded(json!({"datatypes": {"a": {}}}), &[]);
        assert!(wrong.unwrap_err().to_string().contains("has no template"));
    }

    #[test]
    fn pipes_of_webhooks_are_open() {
        let manifest = json!({"use_webhook_secret": true,
            "datatypes": {"a": {"template": "templates/a.json"}}});
        let pipes = r#"[{"_id": "a-event", "type": "pipe", "source": {"type": "http_endpoint"}},
            {"_id": "a-all", "type": "pipe", "source": {"type": "http_endpoint"}}]"#;
        let found = expanded(manifest, &[("templates/a.json", pipes)]).unwrap();
        let open = json!([["allow", ["group:Anonymous"], ["write_data"]]]);
        assert_eq!(found.components[0]["permissions"], open);
        assert_eq!(found.components[1].get("permissions"), None);
    }
}
