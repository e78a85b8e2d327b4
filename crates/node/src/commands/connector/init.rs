//! `connector init`: the files that a connector begins with.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value as Json, json};

use super::{manifest, python};
use crate::cli::{ConnectorAuth, InitConnector, OK};
use crate::say;

/// Writes a connector, or adds data types to one that is there.
pub(super) fn init(options: &InitConnector) -> anyhow::Result<u8> {
    let folder = &options.folder;
    for name in &options.datatypes {
        let fits = name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        if name.is_empty() || !fits {
            bail!("expected data types of lower-case letters and digits, found {name:?}");
        }
    }
    fs::create_dir_all(folder.join("templates")).with_context(|| folder.display().to_string())?;
    let is_there = folder.join("manifest.json").exists();
    let (mut manifest, mut system) = match is_there {
        true => (
            manifest(folder)?,
            read(&folder.join("templates/system.json"))?,
        ),
        false => begin(options.auth),
    };
    for name in &options.datatypes {
        let file = folder.join(format!("templates/{name}.json"));
        if file.exists() {
            bail!("{}: expected no such file yet", file.display());
        }
        write(&file, &datatype(options.share))?;
        let entry = json!({"template": format!("templates/{name}.json")});
        let datatypes = manifest.entry("datatypes").or_insert_with(|| json!({}));
        datatypes[name.as_str()] = entry;
        for (operation, config) in operations(name, options.share) {
            system["operations"][operation] = config;
        }
    }
    write(&folder.join("manifest.json"), &Json::Object(manifest))?;
    write(&folder.join("templates/system.json"), &system)?;
    let readme = folder.join("README.md");
    if !readme.exists() {
        let name = folder
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_else(|| "connector".to_owned());
        let text = format!(
            "# {name}\n\n## Description\n\n## Configuration\n\n## Datatypes\n\n## Environment \
             variables\n\n## Authentication\n"
        );
        fs::write(&readme, text).with_context(|| readme.display().to_string())?;
        say::line(&readme.display().to_string());
    }
    Ok(OK)
}

fn read(file: &Path) -> anyhow::Result<Json> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    serde_json::from_str(&text).with_context(|| file.display().to_string())
}

fn write(file: &Path, json: &Json) -> anyhow::Result<()> {
    let text = format!("{}\n", python::text(json));
    fs::write(file, text).with_context(|| file.display().to_string())?;
    say::line(&file.display().to_string());
    Ok(())
}

fn begin(auth: ConnectorAuth) -> (Map<String, Json>, Json) {
    let mut manifest = Map::new();
    let mut system = json!({
        "_id": "{{@ system @}}",
        "type": "system:rest",
        "url_pattern": "{{@ base_url @}}/%s",
        "verify_ssl": true,
        "operations": {}
    });
    let kind = match auth {
        ConnectorAuth::Oauth2 => {
            let oauth2 = json!({"login_url": "", "token_url": "", "scopes": []});
            manifest.insert("oauth2".to_owned(), oauth2);
            system["oauth2"] = json!({
                "access_token": "$SECRET(oauth_access_token)",
                "client_id": "$SECRET(oauth_client_id)",
                "client_secret": "$SECRET(oauth_client_secret)",
                "refresh_token": "$SECRET(oauth_refresh_token)",
                "token_url": "{{@ token_url @}}"
            });
            "oauth2"
        }
        ConnectorAuth::ApiKey => {
            system["headers"] = json!({"Authorization": "Bearer $SECRET(api_key)"});
            "api_key"
        }
        ConnectorAuth::Jwt => {
            manifest.insert("auth_variant".to_owned(), json!("jwt"));
            let jwt = json!({"login_url": "", "jwt_header_key": ""});
            manifest.insert("jwt".to_owned(), jwt);
            system["headers"] = json!({"Authorization": "Bearer $SECRET(jwt_access_token)"});
            "api_key"
        }
    };
    manifest.insert("auth".to_owned(), json!(kind));
    let mut parameters = json!({"base_url": {}});
    if auth == ConnectorAuth::Oauth2 {
        parameters["token_url"] = json!({});
    }
    manifest.insert("additional_parameters".to_owned(), parameters);
    manifest.insert("datatypes".to_owned(), json!({}));
    manifest.insert("system-template".to_owned(), json!("templates/system.json"));
    (manifest, system)
}

/// The pipes of a data type: everything, what is collected, and what is shared.
fn datatype(share: bool) -> Json {
    let name = |part: &str| format!("{{{{@ system @}}}}-{{{{@ datatype @}}}}-{part}");
    let operation = |part: &str| format!("{{{{@ datatype @}}}}-{part}");
    let all = json!({
        "_id": name("all"),
        "type": "pipe",
        "namespaced_identifiers": false,
        "source": {
            "type": "rest", "system": "{{@ system @}}", "operation": operation("list")
        }
    });
    let mut collect = json!({
        "_id": name("collect"),
        "type": "pipe",
        "namespaced_identifiers": false,
        "source": {"type": "dataset", "dataset": name("all")}
    });
    if !share {
        return json!([all, collect]);
    }
    collect["exclude_completeness"] = json!([name("share")]);
    collect["transform"] = json!([{
        "type": "template",
        "template": "transform-collect-rest",
        "properties": {
            "rest_system": "{{@ system @}}",
            "operation_lookup_delete": operation("lookup"),
            "primary_key": "id",
            "share_dataset": name("share")
        }
    }]);
    let share = json!({
        "_id": name("share"),
        "type": "pipe",
        "batch_size": 1,
        "namespaced_identifiers": false,
        "source": {"type": "dataset", "dataset": name("transform")},
        "transform": {
            "type": "template",
            "template": "transform-share-rest",
            "properties": {
                "rest_system": "{{@ system @}}",
                "operation_lookup": operation("lookup"),
                "operation_insert": operation("insert"),
                "operation_update": operation("update"),
                "operation_delete": operation("delete"),
                "primary_key": "id",
                "share_dataset": name("share")
            }
        },
        "sink": {"deletion_tracking": false, "set_initial_offset": "onload"}
    });
    json!([all, collect, share])
}

fn operations(name: &str, share: bool) -> Vec<(String, Json)> {
    let one = format!("{name}/{{{{ entity.id }}}}");
    let mut operations = vec![(
        format!("{name}-list"),
        json!({"method": "GET", "url": name, "id_expression": "{{ id }}"}),
    )];
    if share {
        let more = [
            ("lookup", "GET", one.as_str()),
            ("insert", "POST", name),
            ("update", "PUT", &one),
            ("delete", "DELETE", &one),
        ];
        for (part, method, url) in more {
            let config = json!({"method": method, "url": url});
            operations.push((format!("{name}-{part}"), config));
        }
    }
    operations
}
