//! The systems of the running configuration, opened when first asked for.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLock, Weak};

use serde_json::Value as Json;
use tahini_store::Backend;

use crate::config::{Configuration, Props, resolve_secrets};
use crate::secrets::SecretSource;
use crate::{Cancel, Clock, Ctx, Failure, Registry, Services, System, Systems};

/// Opens systems on demand and keeps them until their configuration changes.
pub struct OpenSystems {
    this: Weak<OpenSystems>,
    store: Arc<dyn Backend>,
    services: Arc<dyn Services>,
    clock: Arc<dyn Clock>,
    secrets: Arc<dyn SecretSource>,
    registry: Registry,
    known: RwLock<HashMap<String, Known>>,
    open: Mutex<HashMap<String, Arc<dyn System>>>,
}

#[derive(Clone)]
struct Known {
    effective: Json,
    folder: Option<PathBuf>,
    refusal: Option<String>,
}

impl OpenSystems {
    /// Without any system yet; `apply` brings them.
    pub fn new(
        store: Arc<dyn Backend>,
        services: Arc<dyn Services>,
        clock: Arc<dyn Clock>,
        secrets: Arc<dyn SecretSource>,
        registry: Registry,
    ) -> Arc<OpenSystems> {
        Arc::new_cyclic(|this| OpenSystems {
            this: this.clone(),
            store,
            services,
            clock,
            secrets,
            registry,
            known: RwLock::default(),
            open: Mutex::default(),
        })
    }

    /// Takes over a configuration; systems whose effective configuration is the same stay open.
    pub fn apply(&self, configuration: &Configuration) {
        let fresh: HashMap<String, Known> = configuration
            .systems()
            .map(|system| {
                let refusal = if system.is_valid() {
                    system.unsupported.clone()
                } else {
                    Some("its configuration has errors".to_owned())
                };
                let known = Known {
                    effective: system.effective.clone(),
                    folder: system.folder.clone(),
                    refusal,
                };
                (system.id.clone(), known)
            })
            .collect();
        // `get` takes the two in this order, too.
        let mut open = self.open.lock().unwrap_or_else(|lock| lock.into_inner());
        let mut known = self.known.write().unwrap_or_else(|lock| lock.into_inner());
        open.retain(|id, _| match (known.get(id), fresh.get(id)) {
            (Some(old), Some(new)) => old.effective == new.effective,
            _ => false,
        });
        *known = fresh;
    }

    /// Closes every system, so that changed secrets are read anew.
    pub fn forget(&self) {
        self.open
            .lock()
            .unwrap_or_else(|lock| lock.into_inner())
            .clear();
    }
}

impl Systems for OpenSystems {
    fn get(&self, id: &str) -> Result<Arc<dyn System>, Failure> {
        let mut open = self.open.lock().unwrap_or_else(|lock| lock.into_inner());
        if let Some(system) = open.get(id) {
            return Ok(Arc::clone(system));
        }
        let known = self
            .known
            .read()
            .unwrap_or_else(|lock| lock.into_inner())
            .get(id)
            .cloned();
        let known = known
            .ok_or_else(|| Failure::config(format!("expected a system {id:?}, found none")))?;
        if let Some(refusal) = known.refusal {
            return Err(Failure::config(format!(
                "system {id:?} cannot be used: {refusal}"
            )));
        }
        let filled = resolve_secrets(&known.effective, self.secrets.as_ref(), Some(id))
            .map_err(|failure| failure.context(format_args!("system {id:?}")))?;
        let map = filled
            .as_object()
            .ok_or_else(|| Failure::config("a system is an object"))?;
        let props = Props::new("$", map);
        let kind = props.str("type")?;
        let def = self.registry.system(kind).ok_or_else(|| {
            Failure::config(format!(
                "system {id:?}: expected a known type, found {kind:?}"
            ))
        })?;
        let this: Arc<dyn Systems> = self
            .this
            .upgrade()
            .ok_or_else(|| Failure::fatal("the node is shutting down"))?;
        let ctx = Ctx {
            owner: id,
            props,
            place: &tahini_dtl::JsonPath::default(),
            whole: props,
            store: &self.store,
            known: &Arc::default(),
            joined: &[],
            systems: &this,
            services: &self.services,
            clock: &self.clock,
            secrets: &self.secrets,
            traced: &Arc::default(),
            cancel: &Cancel::new(),
            folder: known.folder.as_ref(),
            registry: &self.registry,
        };
        let system =
            (def.open)(&ctx).map_err(|failure| failure.context(format_args!("system {id:?}")))?;
        open.insert(id.to_owned(), Arc::clone(&system));
        Ok(system)
    }
}
