//! Webhooks that others registered: who is told that a dataset has new data (`?webhook=`).
//!
//! Registrations live in memory. Whoever registers does so with every request that it makes, so
//! that one which was lost comes again; it asks for the data itself, and a message that does not
//! arrive costs no more than time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::Url;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Call, Node, Problem};

/// Registrations that there may be.
const MOST: usize = 100;
/// How often datasets with registrations are looked at.
const GLANCE: Duration = Duration::from_millis(500);
/// How long whoever is told may take to answer.
const WITHIN: Duration = Duration::from_secs(10);
/// The longest pause before somebody is told again who did not listen.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Failures one after another behind which a registration is forgotten.
const PATIENCE: u32 = 20;

/// The registrations.
pub struct Subscribers {
    known: Mutex<BTreeMap<Key, Subscriber>>,
    client: reqwest::Client,
}

/// The dataset, and the address that is told.
type Key = (String, Url);

#[derive(Clone)]
struct Subscriber {
    token: String,
    /// Versions before this one are no news.
    told: u64,
    failures: u32,
    not_before: Instant,
}

impl Subscribers {
    /// No registrations yet.
    ///
    /// # Errors
    /// When the system's certificates cannot be read.
    pub fn new() -> reqwest::Result<Subscribers> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(WITHIN)
            .build()?;
        Ok(Subscribers {
            known: Mutex::default(),
            client,
        })
    }

    /// Registers what a request asks for, if it has `webhook`; `next` is the number of the version
    /// that the dataset gets next.
    ///
    /// # Errors
    /// 400 where the address is none or `token` is missing; 503 where there are too many.
    pub fn register(&self, call: &Call, dataset: &str, next: u64) -> Result<(), Problem> {
        let Some(text) = call.get("webhook") else {
            return Ok(());
        };
        let url = Url::parse(text).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.ok_or_else(|| {
            Problem::bad(format!(
                "expected `webhook` to be an http or https address, found {text:?}"
            ))
        })?;
        let token = call.get("token").filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| {
            Problem::bad("expected `token` beside `webhook`, which is told with it, found none")
        })?;
        // What is there behind the offset of whoever asks is news already.
        let since = call.number("since")?;
        let subscriber = Subscriber {
            token: token.to_owned(),
            told: since.map_or(next, |since| next.min(since.saturating_add(1))),
            failures: 0,
            not_before: Instant::now(),
        };
        let mut known = self.lock();
        let key = (dataset.to_owned(), url);
        if known.len() >= MOST && !known.contains_key(&key) {
            let words = format!("{MOST} webhooks are registered already");
            return Err(Problem::later(words, 60));
        }
        known.insert(key, subscriber);
        Ok(())
    }

    /// How many registrations there are.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Subscriber>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The registrations that may be looked at now.
    fn due(&self) -> Vec<(Key, Subscriber)> {
        let now = Instant::now();
        let known = self.lock();
        let due = known.iter().filter(|(_, one)| one.not_before <= now);
        due.map(|(key, one)| (key.clone(), one.clone())).collect()
    }

    /// Tells one of its news; `next` is the number of the version that comes next.
    async fn tell(&self, key: Key, one: Subscriber, next: u64) {
        let (dataset, url) = &key;
        let body = json!({"token": one.token}).to_string();
        let request = self.client.post(url.clone()).body(body);
        let request = request.header("content-type", "application/json");
        let answer = request.send().await;
        let mut known = self.lock();
        // It may have been registered anew meanwhile.
        let Some(current) = known.get_mut(&key).filter(|it| it.token == one.token) else {
            return;
        };
        match answer.map(|answer| answer.status().as_u16()) {
            Ok(200..=299) => {
                current.told = current.told.max(next);
                current.failures = 0;
            }
            Ok(404 | 410) => {
                tracing::info!(%dataset, host = url.host_str(), "a webhook is not wanted any more");
                known.remove(&key);
            }
            _ if current.failures + 1 >= PATIENCE => {
                tracing::warn!(%dataset, host = url.host_str(), "a webhook never listens: forgotten");
                known.remove(&key);
            }
            _ => {
                current.failures += 1;
                let pause = GLANCE.saturating_mul(1 << current.failures.min(10));
                current.not_before = Instant::now() + pause.min(LONGEST_PAUSE);
            }
        }
    }
}

/// Tells those who registered of new data, until the node stops.
pub async fn watch(node: Arc<Node>, mut stopped: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return,
            () = round(&node) => {}
        }
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return,
            () = tokio::time::sleep(GLANCE) => {}
        }
    }
}

async fn round(node: &Arc<Node>) {
    let due = node.subscribers.due();
    if due.is_empty() {
        return;
    }
    let names: Vec<String> = due.iter().map(|((name, _), _)| name.clone()).collect();
    let heads = node.work(move |node| {
        let heads = names.iter().map(|name| node.head(name));
        heads.collect::<Vec<_>>()
    });
    let Ok(heads) = heads.await else {
        return;
    };
    let told = due
        .into_iter()
        .zip(heads)
        .map(|((key, one), head)| async move {
            match head {
                Ok(Some(head)) if head.next > one.told => {
                    node.subscribers.tell(key, one, head.next).await;
                }
                Ok(Some(_)) | Err(_) => {}
                Ok(None) => {
                    node.subscribers.lock().remove(&key);
                }
            }
        });
    futures_util::future::join_all(told).await;
}
