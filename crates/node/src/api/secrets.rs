//! `/api/secrets` and those of systems: written and used, never given out again.

use serde_json::{Value as Json, json};
use tahini_hub::config::ComponentKind;

use super::answer::json_answer;
use super::{Answer, Call, Node, Problem};

/// The system that the path names; `None` for the global secrets.
fn scope(node: &Node, call: &Call) -> Result<Option<String>, Problem> {
    if !call.path.iter().any(|(name, _)| name == "system_id") {
        return Ok(None);
    }
    let id = call.id("system_id");
    let configuration = node.assembly.hub.configuration();
    match configuration
        .get(id)
        .filter(|one| one.kind == ComponentKind::System)
    {
        Some(_) => Ok(Some(id.to_owned())),
        None => Err(Problem::missing("system", id)),
    }
}

/// The names of the secrets that were set here.
pub fn names(node: &Node, call: &Call) -> Answer {
    let scope = scope(node, call)?;
    json_answer(&json!(node.vault.names(scope.as_deref())))
}

/// Sets secrets. Those of a system are replaced altogether; global ones that are not among the
/// new ones stay.
pub fn put(node: &Node, call: &Call) -> Answer {
    let replace = scope(node, call)?.is_some();
    write(node, call, replace)
}

/// Adds secrets, or overwrites those of the same name.
pub fn add(node: &Node, call: &Call) -> Answer {
    write(node, call, false)
}

fn write(node: &Node, call: &Call, replace: bool) -> Answer {
    let scope = scope(node, call)?;
    let values = call.object()?;
    if let Some(name) = values
        .keys()
        .find(|name| name.is_empty() || name.contains(')'))
    {
        let words = format!("expected a name that fits in $SECRET(…), found {name:?}");
        return Err(Problem::bad(words));
    }
    let judged = node
        .stored
        .judge_secrets(&node.assembly, scope.as_deref(), &values);
    judged?;
    node.vault.put(scope.as_deref(), &values, replace)?;
    took_effect(node, call)
}

/// Takes a secret away.
pub fn delete(node: &Node, call: &Call) -> Answer {
    let scope = scope(node, call)?;
    let name = call.id("secret_key");
    if !node.vault.delete(scope.as_deref(), name)? {
        return Err(Problem::missing("secret", name));
    }
    took_effect(node, call)
}

/// Systems are opened anew, and services whose environment changed are restarted.
fn took_effect(node: &Node, call: &Call) -> Answer {
    node.stored.apply(&node.assembly)?;
    node.assembly.hub.secrets_changed();
    let scope = scope(node, call)?;
    tracing::info!(
        user = %call.user.user_id,
        from = %call.user.remote_addr,
        system = scope.as_deref().unwrap_or("all"),
        "secrets changed"
    );
    let names = node.vault.names(scope.as_deref());
    json_answer(&Json::from(names))
}
