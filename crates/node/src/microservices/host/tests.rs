//! What holds for a host wherever its services run.

use std::path::Path;

use serde_json::json;

use super::*;
use crate::microservices::runtime::{Instance, StartError, Task};

/// A place with a bug.
struct Broken;

impl Runtime for Broken {
    fn name(&self) -> &'static str {
        "process"
    }

    fn start<'a>(&'a self, _: &'a Launch) -> Task<'a, Result<Arc<dyn Instance>, StartError>> {
        Box::pin(async { panic!("a bug") })
    }

    fn clear<'a>(&'a self, _: &'a str) -> Task<'a, ()> {
        Box::pin(async {})
    }

    fn tidy<'a>(&'a self, _: &'a [String]) -> Task<'a, bool> {
        Box::pin(async { true })
    }

    fn close(&self) -> Task<'_, ()> {
        Box::pin(async {})
    }
}

/// A place where the first start fails, and the next one takes forever.
#[derive(Default)]
struct Stubborn(std::sync::atomic::AtomicBool);

impl Runtime for Stubborn {
    fn name(&self) -> &'static str {
        "process"
    }

    fn start<'a>(&'a self, _: &'a Launch) -> Task<'a, Result<Arc<dyn Instance>, StartError>> {
        Box::pin(async {
            if self.0.swap(true, std::sync::atomic::Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            Err(StartError::new("no such image"))
        })
    }

    fn clear<'a>(&'a self, _: &'a str) -> Task<'a, ()> {
        Box::pin(async {})
    }

    fn tidy<'a>(&'a self, _: &'a [String]) -> Task<'a, bool> {
        Box::pin(async { true })
    }

    fn close(&self) -> Task<'_, ()> {
        Box::pin(async {})
    }
}

#[test]
fn why_it_failed_is_shown_while_it_is_tried_again() {
    let runtime = runtime();
    let pace = Pace {
        first_pause: Duration::from_millis(1),
        ..Pace::default()
    };
    let options = HostOptions {
        pace,
        ..HostOptions::default()
    };
    let place: Arc<dyn Runtime> = Arc::new(Stubborn::default());
    let host = over(&runtime, options, place);
    host.apply(vec![spec()]);
    let mut shown = host.0.table().entries["one"].shown.clone();
    let again = |now: &Snapshot| now.restarts == 1 && now.state == State::Starting;
    runtime.block_on(async {
        let waited = timeout(Duration::from_secs(60), shown.wait_for(again)).await;
        let now = waited.unwrap().unwrap().clone();
        assert_eq!(now.message.as_deref(), Some("no such image"));
    });
    let words = host.ready_url("one", Duration::from_millis(10), &|| false);
    assert!(words.unwrap_err().contains("no such image"));
    runtime.block_on(host.shutdown());
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

fn over(runtime: &tokio::runtime::Runtime, options: HostOptions, place: Arc<dyn Runtime>) -> Host {
    let ledger = Arc::new(Ledger::open(None));
    let places = [place.clone(), place];
    let (_, gateway) = watch::channel(None);
    Host::over(runtime.handle().clone(), options, places, ledger, gateway)
}

fn spec() -> ServiceSpec {
    let config = json!({"process": {"command": ["x"]}});
    ServiceSpec::from_config("one", &config, Path::new("/")).unwrap()
}

#[test]
fn a_defect_does_not_leave_a_service_starting_forever() {
    let runtime = runtime();
    let host = over(&runtime, HostOptions::default(), Arc::new(Broken));
    host.apply(vec![spec()]);
    let words = host.ready_url("one", Duration::from_secs(60), &|| false);
    assert!(words.unwrap_err().contains("defect"));
    let status = runtime.block_on(host.status("one")).unwrap();
    assert_eq!(status["state"], "failed");
    // It is kept anew with the next configuration.
    host.apply(vec![spec()]);
    let words = host.ready_url("one", Duration::from_secs(60), &|| false);
    assert!(words.unwrap_err().contains("defect"));
    runtime.block_on(host.shutdown());
}

/// A place that is out of reach at first, and says what it was told to keep when it is tidied up.
#[derive(Default)]
struct Late(Mutex<Vec<Vec<String>>>);

impl Runtime for Late {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn start<'a>(&'a self, _: &'a Launch) -> Task<'a, Result<Arc<dyn Instance>, StartError>> {
        Box::pin(async { Err(StartError::new("out of reach")) })
    }

    fn clear<'a>(&'a self, _: &'a str) -> Task<'a, ()> {
        Box::pin(async {})
    }

    fn tidy<'a>(&'a self, wanted: &'a [String]) -> Task<'a, bool> {
        let mut asked = self.0.lock().unwrap();
        asked.push(wanted.to_vec());
        // The first to ask wants to tidy up processes, of which there are none.
        let is_there = asked.len() > 2;
        Box::pin(async move { is_there })
    }

    fn close(&self) -> Task<'_, ()> {
        Box::pin(async {})
    }
}

#[test]
fn a_place_that_comes_late_is_tidied_of_what_nobody_wants_by_then() {
    let runtime = runtime();
    let late = Arc::new(Late::default());
    let host = over(&runtime, HostOptions::default(), late.clone());
    let container = |id: &str| {
        let config = json!({"docker": {"image": "i", "port": 1}});
        ServiceSpec::from_config(id, &config, Path::new("/")).unwrap()
    };
    let lazy = ServiceSpec {
        eager_load: Some(false),
        ..container("lazy")
    };
    host.apply(vec![container("first"), container("both"), lazy]);
    let begun = std::time::Instant::now();
    let asked = || late.0.lock().unwrap().clone();
    while asked().len() < 2 {
        assert!(begun.elapsed().as_secs() < 60);
        std::thread::yield_now();
    }
    host.apply(vec![container("both")]);
    while asked().len() < 3 {
        assert!(begun.elapsed().as_secs() < 60);
        std::thread::yield_now();
    }
    assert_eq!(asked(), [vec![], vec!["both", "first"], vec!["both"]]);
    runtime.block_on(host.shutdown());
}
