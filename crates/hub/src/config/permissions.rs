//! `permissions`: a list of `[allow or deny, roles, permissions]`. A node knows one kind of user,
//! those with a token; what is acted upon is what everybody else may do.

use serde_json::{Map, Value as Json};
use tahini_dtl::JsonPath;

use super::problem::Problem;

/// The role of requests without a token.
const ANYBODY: &str = "group:Anonymous";
/// The permission to post to a pipe's endpoint.
pub const WRITE_DATA: &str = "write_data";

/// Whether requests without a token may do that with the component: some entry allows it, and none
/// denies it.
pub fn lets_anybody(component: &Map<String, Json>, permission: &str) -> bool {
    let entries = component.get("permissions").and_then(Json::as_array);
    let mut allowed = false;
    for entry in entries.into_iter().flatten() {
        let names = |at: usize, name: &str| {
            let list = entry.get(at).and_then(Json::as_array);
            list.is_some_and(|list| list.iter().any(|item| item == name))
        };
        if names(1, ANYBODY) && names(2, permission) {
            match entry.get(0).and_then(Json::as_str) {
                Some("allow") => allowed = true,
                _ => return false,
            }
        }
    }
    allowed
}

/// What is wrong with a pipe's permissions, and what in them is not acted upon.
pub(super) fn check(pipe: &Map<String, Json>, root: &JsonPath, problems: &mut Vec<Problem>) {
    let path = root.name("permissions");
    let list = match pipe.get("permissions") {
        None | Some(Json::Null) => return,
        Some(Json::Array(list)) => list,
        Some(_) => {
            let words = "expected a list of [\"allow\" or \"deny\", roles, permissions]";
            return problems.push(Problem::error(path, words));
        }
    };
    let mut idle = false;
    for (at, entry) in list.iter().enumerate() {
        let parts = entry.as_array().map_or(&[][..], Vec::as_slice);
        let texts = |part: &Json| {
            let list = part.as_array();
            list.is_some_and(|list| list.iter().all(Json::is_string))
        };
        let [verb, roles, permissions] = parts else {
            let words = "expected [\"allow\" or \"deny\", roles, permissions]";
            problems.push(Problem::error(path.at(at), words));
            continue;
        };
        if !matches!(verb.as_str(), Some("allow" | "deny")) {
            let words = format!("expected \"allow\" or \"deny\", found {verb}");
            problems.push(Problem::error(path.at(at).at(0), words));
        }
        for (part, value) in [(1, roles), (2, permissions)] {
            if !texts(value) {
                let words = "expected a list of texts";
                problems.push(Problem::error(path.at(at).at(part), words));
            }
        }
        let only = |value: &Json, name: &str| {
            let list = value.as_array();
            list.is_some_and(|list| list.iter().all(|item| item == name))
        };
        idle |= !only(roles, ANYBODY) || !only(permissions, WRITE_DATA);
    }
    if idle {
        let words = format!(
            "only the permission {WRITE_DATA:?} of {ANYBODY:?} is acted upon; all others are those \
             of the caller's token"
        );
        problems.push(Problem::warning(path, words).at_name());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lets(permissions: Json) -> bool {
        let pipe = json!({ "permissions": permissions });
        lets_anybody(pipe.as_object().unwrap(), WRITE_DATA)
    }

    #[test]
    fn anybody_may_what_is_allowed_and_not_denied() {
        let allowed = json!(["allow", ["group:Anonymous"], ["write_data"]]);
        assert!(lets(json!([allowed])));
        for closed in [
            json!(null),
            json!([]),
            json!("allow"),
            json!([["allow", ["group:Developer"], ["write_data"]]]),
            json!([["allow", ["group:Anonymous"], ["read_data"]]]),
            json!([["allow", "group:Anonymous", "write_data"]]),
            json!([allowed, ["deny", ["group:Anonymous"], ["write_data"]]]),
            json!([["allows", ["group:Anonymous"], ["write_data"]], allowed]),
        ] {
            assert!(!lets(closed.clone()), "{closed}");
        }
    }
}
