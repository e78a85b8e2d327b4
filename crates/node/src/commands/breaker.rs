//! `tahini breaker`: what became of a run that changed more than it should.

use std::sync::Arc;

use anyhow::anyhow;
use tahini_hub::Clock;
use tahini_hub::breaker::{self, Reset};
use tahini_hub::execution_log::User;
use tahini_store::{Backend, Files, StoreError};

use crate::assembly::SystemClock;
use crate::cli::{Breaker, BreakerAction, OK};
use crate::say;

/// Shows, commits or rolls back.
pub fn breaker(options: &Breaker) -> anyhow::Result<u8> {
    let folder = &options.store.data;
    if !folder.is_dir() {
        return Err(anyhow!(
            "expected a store in {}, found no such folder; give --data DIR",
            folder.display()
        ));
    }
    let store: Arc<dyn Backend> = match Files::open(folder, Default::default()) {
        Err(error @ StoreError::InUse { .. }) => return Err(ask_the_node(error, options)),
        opened => Arc::new(opened?),
    };
    let name = &options.dataset;
    match options.action {
        BreakerAction::Show => {}
        BreakerAction::Commit => reset(&store, name, Reset::Commit)?,
        BreakerAction::Rollback => reset(&store, name, Reset::RollBack)?,
    }
    let dataset = store.open(name, false)?;
    match breaker::tripped(dataset.as_ref())? {
        None => say::line(&format!("the circuit breaker of {name} is not tripped")),
        Some(tripped) => say::line(&format!(
            "the circuit breaker of {name} is tripped since {} by pipe {}, with {} versions held \
             back: {}",
            tripped.at, tripped.pipe, tripped.versions, tripped.message
        )),
    }
    store.close()?;
    Ok(OK)
}

fn reset(store: &Arc<dyn Backend>, name: &str, how: Reset) -> anyhow::Result<()> {
    let user = User {
        user_id: "tahini breaker".to_owned(),
        remote_addr: String::new(),
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Ok(breaker::reset_stored(store, name, how, &user, &clock)?)
}

fn ask_the_node(error: StoreError, options: &Breaker) -> anyhow::Error {
    let path = format!("/api/datasets/{}", options.dataset);
    let asked = match options.action {
        BreakerAction::Show => format!("GET {path}"),
        BreakerAction::Commit => format!("POST {path} with operation=commit-circuit-breaker"),
        BreakerAction::Rollback => format!("POST {path} with operation=rollback-circuit-breaker"),
    };
    anyhow!(
        "{error}. When that is a running node, ask it: {asked} (http://127.0.0.1:9042{path} where \
         it listens by default)"
    )
}
