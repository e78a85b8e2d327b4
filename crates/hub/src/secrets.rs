//! Secrets: where they are asked for, and where they rest, encrypted.

mod redactor;
mod vault;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::Failure;

pub use redactor::Redactor;
pub use vault::{Vault, VaultError, key_file};

/// Where secrets are asked for.
pub trait SecretSource: Send + Sync {
    /// The secret `name` of exactly that system, or the global one; `resolve_secrets` asks for
    /// both.
    fn get(&self, system: Option<&str>, name: &str) -> Option<String>;

    /// Every value that is known, for hiding them in what is told.
    fn values(&self) -> Vec<String>;

    /// Keeps what a system learned itself, such as a token that took the place of another, under
    /// a name that begins with `~`. Others of the system whose name begins the same, up to a
    /// colon, go. Whether it is kept beyond this process; durable then when it returns.
    ///
    /// # Errors
    /// When it cannot be written.
    fn keep(&self, _system: &str, _name: &str, _value: &str) -> Result<bool, Failure> {
        Ok(false)
    }
}

/// Names and values of secrets, by system; `None` are the global ones.
pub(crate) type Scopes = BTreeMap<Option<String>, BTreeMap<String, String>>;

/// Secrets in memory.
#[derive(Clone, Default)]
pub struct MemorySecrets {
    scopes: Scopes,
}

impl MemorySecrets {
    /// Secrets as in a project's file: an object of names and values; an object as a value, under
    /// the id of a system, holds the secrets of that system.
    pub fn from_json(file: &Map<String, Json>) -> MemorySecrets {
        let mut secrets = MemorySecrets::default();
        for (name, value) in file {
            match value {
                Json::Object(own) => {
                    for (inner, value) in own {
                        secrets.set(Some(name), inner, &as_text(value));
                    }
                }
                other => secrets.set(None, name, &as_text(other)),
            }
        }
        secrets
    }

    /// Sets one secret.
    pub fn set(&mut self, system: Option<&str>, name: &str, value: &str) {
        let scope = self.scopes.entry(system.map(str::to_owned)).or_default();
        scope.insert(name.to_owned(), value.to_owned());
    }
}

impl SecretSource for MemorySecrets {
    fn get(&self, system: Option<&str>, name: &str) -> Option<String> {
        self.scopes
            .get(&system.map(str::to_owned))?
            .get(name)
            .cloned()
    }

    fn values(&self) -> Vec<String> {
        self.scopes
            .values()
            .flat_map(|own| own.values().cloned())
            .collect()
    }
}

impl std::fmt::Debug for MemorySecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self
            .scopes
            .iter()
            .map(|(system, own)| (system, own.keys().collect::<Vec<_>>()));
        f.debug_map().entries(names).finish()
    }
}

/// Several places to ask, the first that knows answers.
#[derive(Clone, Default)]
pub struct SecretChain(pub Vec<Arc<dyn SecretSource>>);

impl SecretSource for SecretChain {
    fn get(&self, system: Option<&str>, name: &str) -> Option<String> {
        self.0.iter().find_map(|source| source.get(system, name))
    }

    fn values(&self) -> Vec<String> {
        self.0.iter().flat_map(|source| source.values()).collect()
    }

    fn keep(&self, system: &str, name: &str, value: &str) -> Result<bool, Failure> {
        for source in &self.0 {
            if source.keep(system, name, value)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Global secrets in environment variables: `api-key` is in `TAHINI_SECRET_API_KEY`.
#[derive(Clone, Default)]
pub struct EnvironmentSecrets {
    variables: BTreeMap<String, String>,
}

impl EnvironmentSecrets {
    /// Takes those of the process's variables that are secrets.
    pub fn of(variables: impl IntoIterator<Item = (String, String)>) -> EnvironmentSecrets {
        let variables = variables.into_iter();
        EnvironmentSecrets {
            variables: variables
                .filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX))
                .collect(),
        }
    }
}

const ENVIRONMENT_PREFIX: &str = "TAHINI_SECRET_";

impl SecretSource for EnvironmentSecrets {
    fn get(&self, system: Option<&str>, name: &str) -> Option<String> {
        if system.is_some() {
            return None;
        }
        let name: String = name
            .chars()
            .map(|one| {
                if one.is_ascii_alphanumeric() {
                    one.to_ascii_uppercase()
                } else {
                    '_'
                }
            })
            .collect();
        self.variables
            .get(&format!("{ENVIRONMENT_PREFIX}{name}"))
            .cloned()
    }

    fn values(&self) -> Vec<String> {
        self.variables.values().cloned().collect()
    }
}

/// A secret's value: text as it is, anything else as JSON.
pub(crate) fn as_text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_file_of_secrets_has_global_ones_and_those_of_systems() {
        let file = json!({"token": "t", "port": 5, "crm": {"token": "own"}});
        let secrets = MemorySecrets::from_json(file.as_object().unwrap());
        assert_eq!(secrets.get(None, "token").as_deref(), Some("t"));
        assert_eq!(secrets.get(None, "port").as_deref(), Some("5"));
        assert_eq!(secrets.get(Some("crm"), "token").as_deref(), Some("own"));
        assert_eq!(secrets.get(Some("crm"), "port"), None);
        assert_eq!(secrets.get(None, "crm"), None);
        assert!(!format!("{secrets:?}").contains("own"));
    }

    #[test]
    fn the_first_that_knows_answers() {
        let environment = EnvironmentSecrets::of([
            (
                "TAHINI_SECRET_API_KEY".to_owned(),
                "from environment".to_owned(),
            ),
            ("API_KEY".to_owned(), "no secret".to_owned()),
        ]);
        let mut memory = MemorySecrets::default();
        memory.set(None, "api-key", "from memory");
        memory.set(None, "other", "o");
        let chain = SecretChain(vec![Arc::new(environment), Arc::new(memory)]);
        assert_eq!(
            chain.get(None, "api-key").as_deref(),
            Some("from environment")
        );
        assert_eq!(chain.get(None, "other").as_deref(), Some("o"));
        assert_eq!(chain.get(Some("s"), "api-key"), None);
    }
}
