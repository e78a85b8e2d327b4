//! `connector authenticate`: the secrets and variables with which a connector's system is let in.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value as Json, json};
use tahini_connectors::http::runtime;

use super::callback::Callback;
use super::{expanded, manifest, profile, python, superoffice};
use crate::cli::{AuthenticateConnector, FAILED, OK};
use crate::{remote, say};

/// What a login gives.
#[derive(Default)]
struct Gained {
    secrets: Map<String, Json>,
    variables: Map<String, Json>,
}

/// Logs in as the manifest says, and hands over what that gave.
pub(super) fn authenticate(options: &AuthenticateConnector) -> anyhow::Result<u8> {
    let folder = &options.place.folder;
    let manifest = manifest(folder)?;
    if options.node.node.is_none() && options.into.is_none() {
        bail!(
            "expected --node with the address of a node, or --into with a file for the secrets, \
             found neither"
        );
    }
    let own = Own::read(folder)?;
    let word = |name: &str| {
        manifest
            .get(name)
            .and_then(Json::as_str)
            .unwrap_or_default()
    };
    let mut gained = match (word("auth"), word("auth_variant")) {
        (_, "tripletex") => tripletex(options, &own)?,
        ("oauth2", "superoffice-ticket") => with_ticket(options, &manifest, &own)?,
        ("oauth2", _) => oauth2(options, &manifest, &own)?.0,
        ("api_key", variant) => api_key(&manifest, variant, &own)?,
        (other, _) => bail!("expected the auth \"oauth2\" or \"api_key\", found {other:?}"),
    };
    if manifest.get("use_webhook_secret") == Some(&Json::Bool(true)) {
        let secret = uuid::Uuid::new_v4().simple().to_string();
        gained
            .secrets
            .insert("webhook_secret".to_owned(), json!(secret));
    }
    if manifest.get("requires_service_api_access") == Some(&Json::Bool(true)) {
        service_access(options, &mut gained)?;
    }
    match (&options.into, &options.node.node) {
        (Some(file), _) => into_file(options, file, gained),
        (None, Some(url)) => into_node(options, url, gained),
        (None, None) => Ok(FAILED),
    }
}

/// What the user has: from the connector's `.authconfig`, or `TAHINI_SECRET_<NAME>`.
struct Own(Map<String, Json>);

impl Own {
    fn read(folder: &Path) -> anyhow::Result<Own> {
        let file = folder.join(".authconfig");
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| file.display().to_string()),
        };
        let lines = text.lines().filter_map(|line| line.split_once('='));
        let pairs = lines.map(|(name, value)| {
            let value = value.trim();
            let bare = value
                .strip_prefix('"')
                .and_then(|rest| rest.strip_suffix('"'));
            (name.trim().to_owned(), json!(bare.unwrap_or(value)))
        });
        Ok(Own(pairs
            .filter(|(name, _)| !name.starts_with('#'))
            .collect()))
    }

    fn find(&self, name: &str) -> Option<String> {
        let written = self.0.get(name).and_then(Json::as_str);
        let written = written.map(str::to_owned);
        let variable = format!("TAHINI_SECRET_{}", name.to_uppercase());
        written.or_else(|| std::env::var(variable).ok())
    }

    fn get(&self, name: &str) -> anyhow::Result<String> {
        self.find(name).ok_or_else(|| {
            anyhow!(
                "expected {name} in the connector's .authconfig, or in the variable \
                 TAHINI_SECRET_{}, found neither",
                name.to_uppercase()
            )
        })
    }
}

fn oauth2(
    options: &AuthenticateConnector,
    manifest: &Map<String, Json>,
    own: &Own,
) -> anyhow::Result<(Gained, Json)> {
    let oauth2 = &manifest.get("oauth2").cloned().unwrap_or_default();
    let word = |name: &str| {
        oauth2[name]
            .as_str()
            .filter(|text| !text.is_empty())
            .ok_or_else(|| anyhow!("manifest.json: expected text as oauth2.{name}"))
    };
    let (login_url, token_url) = (word("login_url")?, word("token_url")?);
    let (client_id, client_secret) = (own.get("client_id")?, own.get("client_secret")?);
    let state = uuid::Uuid::new_v4().simple().to_string();
    let callback = Callback::listen(options.port, &state)?;
    let redirect = callback.address()?;
    let url = login_address(oauth2, login_url, [&client_id, &redirect, &state])?;
    say::error_line("Open this address in a browser and log in:");
    say::line(url.as_str());
    let code = callback.code(Duration::from_secs(options.timeout))?;
    let form = [
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("client_id", &client_id),
        ("client_secret", &client_secret),
        ("redirect_uri", &redirect),
    ];
    let answer = post_form(token_url, &form)?;
    let token = |name: &str| {
        let found = answer[name].as_str().map(|token| json!(token));
        found.ok_or_else(|| anyhow!("expected {name} in the answer of {token_url}, found none"))
    };
    let mut gained = Gained::default();
    let secrets = &mut gained.secrets;
    secrets.insert("oauth_access_token".to_owned(), token("access_token")?);
    if !options.ignore_refresh_token {
        secrets.insert("oauth_refresh_token".to_owned(), token("refresh_token")?);
    }
    secrets.insert("oauth_client_id".to_owned(), json!(client_id));
    secrets.insert("oauth_client_secret".to_owned(), json!(client_secret));
    let account = match options
        .account_id
        .clone()
        .or_else(|| own.find("account_id"))
    {
        Some(account) => Some(json!(account)),
        None => account_of(oauth2, &answer)?,
    };
    let variables = &mut gained.variables;
    variables.insert("token_url".to_owned(), json!(token_url));
    variables.insert("base_url".to_owned(), json!(base_url(options, token_url)?));
    variables.extend(account.map(|account| ("account_id".to_owned(), account)));
    Ok((gained, answer))
}

/// A login, and the ticket of a system user for it; the key is looked for before anybody logs in.
fn with_ticket(
    options: &AuthenticateConnector,
    manifest: &Map<String, Json>,
    own: &Own,
) -> anyhow::Result<Gained> {
    let key = own.get("rsa_private_key")?;
    let (mut gained, answer) = oauth2(options, manifest, own)?;
    let section = manifest.get("oauth2").cloned().unwrap_or_default();
    let given = superoffice::ticket(&section, &answer, &key, &own.get("client_secret")?)?;
    gained
        .secrets
        .insert("so_ticket".to_owned(), json!(given.ticket));
    let variables = &mut gained.variables;
    variables.insert("account_id".to_owned(), json!(given.account));
    variables.insert("base_url".to_owned(), json!(given.base_url));
    Ok(gained)
}

/// The address where somebody logs in, for this client, this redirect and this state.
fn login_address(
    oauth2: &Json,
    login_url: &str,
    [client_id, redirect, state]: [&str; 3],
) -> anyhow::Result<reqwest::Url> {
    let mut url = reqwest::Url::parse(login_url)
        .with_context(|| format!("manifest.json: oauth2.login_url {login_url:?}"))?;
    let scopes = |name: &str| match &oauth2[name] {
        Json::Array(list) => {
            let texts = list.iter().filter_map(Json::as_str);
            texts.collect::<Vec<_>>().join(" ")
        }
        Json::String(text) => text.clone(),
        _ => String::new(),
    };
    url.query_pairs_mut()
        .append_pair("client_id", client_id)
        .append_pair("scope", &scopes("scopes"))
        .append_pair("redirect_uri", redirect)
        .append_pair("response_type", "code")
        .append_pair("state", state);
    let optional = scopes("optional_scopes");
    if !optional.is_empty() {
        url.query_pairs_mut()
            .append_pair("optional_scopes", &optional);
    }
    Ok(url)
}

/// The address of the API: what was given, or that of the server which gives tokens.
fn base_url(options: &AuthenticateConnector, token_url: &str) -> anyhow::Result<String> {
    if let Some(url) = &options.base_url {
        return Ok(url.clone());
    }
    let url = reqwest::Url::parse(token_url).context("manifest.json: oauth2.token_url")?;
    Ok(url.origin().ascii_serialization())
}

/// The account that somebody logged in with, as the manifest says where it is told.
fn account_of(oauth2: &Json, answer: &Json) -> anyhow::Result<Option<Json>> {
    match &oauth2["tenant_id_expression"] {
        // [where, the name of the claim]: the answer's id_token says it.
        Json::Array(path) => {
            let claim = path.get(1).and_then(Json::as_str).unwrap_or_default();
            let token = answer["id_token"].as_str().unwrap_or_default();
            let middle = token.split('.').nth(1).unwrap_or_default();
            let bytes = URL_SAFE_NO_PAD.decode(middle.trim_end_matches('='));
            let claims = bytes.map(|bytes| serde_json::from_slice::<Json>(&bytes));
            Ok(match claims {
                Ok(Ok(claims)) => claims.get(claim).cloned(),
                _ => None,
            })
        }
        Json::String(name) => {
            if let Some(found) = answer.get(name) {
                return Ok(Some(found.clone()));
            }
            let (Some(url), Some(token)) = (
                oauth2["identity_url"].as_str(),
                answer["access_token"].as_str(),
            ) else {
                return Ok(None);
            };
            let client = client()?;
            let identity = runtime().block_on(async move {
                let answer = client.get(format!("{url}{token}")).send().await?;
                answer.error_for_status()?.json::<Json>().await
            });
            // The address holds the token.
            let identity = identity.map_err(|error| error.without_url());
            let identity = identity.context("the identity_url of the manifest")?;
            Ok(identity.get(name).cloned())
        }
        _ => Ok(None),
    }
}

fn client() -> anyhow::Result<reqwest::Client> {
    // The runtime brings what TLS needs.
    runtime();
    reqwest::Client::builder()
        .timeout(Duration::from_secs(60))
        .build()
        .context("cannot set up the HTTP client")
}

fn post_form(url: &str, form: &[(&str, &str)]) -> anyhow::Result<Json> {
    let mut body = reqwest::Url::parse("http://form/").context("a form")?;
    body.query_pairs_mut().extend_pairs(form);
    let body = body.query().unwrap_or_default().to_owned();
    post(
        url,
        &[("content-type", "application/x-www-form-urlencoded")],
        body,
    )
}

/// Asks for JSON.
pub(super) fn get(url: &str) -> anyhow::Result<Json> {
    let client = client()?;
    runtime().block_on(async {
        let request = client.get(url).header("accept", "application/json");
        let answer = request.send().await?.error_for_status()?;
        Ok(answer.json().await?)
    })
}

/// Posts and reads a JSON answer. What a refusal says may repeat what was sent: only its error is
/// told.
pub(super) fn post(url: &str, headers: &[(&str, &str)], body: String) -> anyhow::Result<Json> {
    let client = client()?;
    runtime().block_on(async {
        let mut request = client
            .post(url)
            .body(body)
            .header("accept", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.with_context(|| url.to_owned())?;
        let status = answer.status();
        let text = answer.text().await.with_context(|| url.to_owned())?;
        let json: Json = serde_json::from_str(&text).unwrap_or_default();
        if status.is_success() {
            return Ok(json);
        }
        let words = ["error", "error_description"].map(|name| json[name].as_str().unwrap_or(""));
        Err(anyhow!("{url} answered {status}: {}", words.join(" ")))
    })
}

fn api_key(manifest: &Map<String, Json>, variant: &str, own: &Own) -> anyhow::Result<Gained> {
    let key = own.get("api_key")?;
    let mut gained = Gained::default();
    if variant == "jwt" {
        let jwt = manifest.get("jwt").cloned().unwrap_or_default();
        let word = |name: &str| {
            let text = jwt[name].as_str().map(str::to_owned);
            text.ok_or_else(|| anyhow!("manifest.json: expected text as jwt.{name}"))
        };
        let (url, header) = (word("login_url")?, word("jwt_header_key")?);
        let answer = post(&url, &[(header.as_str(), key.as_str())], String::new())?;
        for (secret, name) in [
            ("jwt_access_token", "AccessToken"),
            ("jwt_refresh_token", "RefreshToken"),
        ] {
            let token = answer[name].as_str();
            let token = token.ok_or_else(|| anyhow!("{url}: expected {name}, found none"))?;
            gained.secrets.insert(secret.to_owned(), json!(token));
        }
    }
    gained.secrets.insert("api_key".to_owned(), json!(key));
    Ok(gained)
}

fn tripletex(options: &AuthenticateConnector, own: &Own) -> anyhow::Result<Gained> {
    let mut gained = Gained::default();
    for name in ["consumer_token", "employee_token"] {
        gained
            .secrets
            .insert(name.to_owned(), json!(own.get(name)?));
    }
    let base = options
        .base_url
        .as_deref()
        .unwrap_or("https://api.tripletex.io");
    let variables = &mut gained.variables;
    variables.insert("base_url".to_owned(), json!(base));
    let token_url = format!("{base}/v2/token/session/:create");
    variables.insert("token_url".to_owned(), json!(token_url));
    Ok(gained)
}

/// The node's own address and token, for connectors that ask it.
fn service_access(options: &AuthenticateConnector, gained: &mut Gained) -> anyhow::Result<()> {
    let (Some(url), Some(file)) = (&options.node.node, &options.node.token_file) else {
        bail!("the manifest wants access to the node: give --node and --token-file");
    };
    let token = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let url = format!("{}/api", url.trim_end_matches('/').trim_end_matches("/api"));
    gained
        .variables
        .insert("service_url".to_owned(), json!(url));
    gained
        .secrets
        .insert("service_jwt".to_owned(), json!(token.trim()));
    Ok(())
}

/// Hands everything over to a node, whose systems with the id have to be there.
fn into_node(options: &AuthenticateConnector, url: &str, gained: Gained) -> anyhow::Result<u8> {
    let token = options.node.token_file.as_deref();
    let connector = expanded(&options.place.folder, &options.place.system)?;
    let mut secrets = gained.secrets;
    let mut env = profile(&options.place.folder, &options.place.profile, &connector)?;
    if let Json::Object(env) = &mut env {
        env.extend(gained.variables);
    }
    for system in systems(&connector.components) {
        let path = format!("/api/systems/{system}/secrets");
        let known = match remote::get(url, token, &path) {
            Ok(known) => known,
            Err(unanswered) => return Ok(unanswered.told()),
        };
        let list = known.as_array();
        // Whoever was told of it signs with it.
        if list.is_some_and(|list| list.iter().any(|name| name == "webhook_secret")) {
            secrets.remove("webhook_secret");
        }
        if let Err(unanswered) = remote::post(url, token, &path, &Json::Object(secrets.clone())) {
            return Ok(unanswered.told());
        }
        say::line(&format!("{system}: {}", names(&secrets)));
    }
    if let Err(unanswered) = remote::post(url, token, "/api/env", &env) {
        return Ok(unanswered.told());
    }
    Ok(OK)
}

fn names(secrets: &Map<String, Json>) -> String {
    let names: Vec<&str> = secrets.keys().map(String::as_str).collect();
    names.join(", ")
}

fn systems(components: &[Json]) -> impl Iterator<Item = &str> {
    let systems = components.iter().filter(|one| {
        let kind = one["type"].as_str();
        kind.is_some_and(|kind| kind.starts_with("system:"))
    });
    systems.filter_map(|one| one["_id"].as_str())
}

/// Writes the secrets into a file for its owner only, and the variables into the profile's.
fn into_file(options: &AuthenticateConnector, file: &Path, gained: Gained) -> anyhow::Result<u8> {
    let folder = &options.place.folder;
    let connector = expanded(folder, &options.place.system)?;
    let mut all = match fs::read_to_string(file) {
        Ok(text) => serde_json::from_str::<Map<String, Json>>(&text)
            .with_context(|| file.display().to_string())?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Map::new(),
        Err(error) => return Err(error).with_context(|| file.display().to_string()),
    };
    for system in systems(&connector.components) {
        let before = all.entry(system).or_insert_with(|| json!({}));
        let before = before
            .as_object_mut()
            .ok_or_else(|| anyhow!("{}: expected secrets of {system:?}", file.display()))?;
        for (name, value) in &gained.secrets {
            let is_kept = name == "webhook_secret" && before.contains_key(name);
            if !is_kept {
                before.insert(name.clone(), value.clone());
            }
        }
    }
    write_private(file, &Json::Object(all))?;
    let mut env = profile(folder, &options.place.profile, &connector)?;
    if let Json::Object(env) = &mut env {
        env.extend(gained.variables);
    }
    let env_file = folder.join(format!("{}-env.json", options.place.profile));
    fs::write(&env_file, format!("{}\n", python::text(&env)))
        .with_context(|| env_file.display().to_string())?;
    say::line(&file.display().to_string());
    say::line(&env_file.display().to_string());
    Ok(OK)
}

fn write_private(file: &Path, json: &Json) -> anyhow::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut open = options
        .open(file)
        .with_context(|| file.display().to_string())?;
    open.set_permissions(fs::Permissions::from_mode(0o600))?;
    writeln!(open, "{}", python::text(json)).with_context(|| file.display().to_string())
}
