//! When the image of a running service is to be looked at.

use std::time::Duration;

use jiff::Timestamp;
use tahini_hub::cron::Cron;
use tokio::sync::watch;
use tokio::time::sleep;

use super::keeper::Wish;
use super::spec::ServiceSpec;

/// The longest sleep until an image is due: a clock that was set is noticed within it.
const DUE_LOOK: Duration = Duration::from_secs(300);

/// Returns at the next moment at which the image is to be looked at, as the spec says that is
/// wanted now; never, when there is none.
pub(super) async fn image_is_due(wish: &mut watch::Receiver<Wish>) {
    loop {
        let due = next_look(wish.borrow_and_update().spec.as_deref(), Timestamp::now());
        let Some(due) = due else {
            if wish.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            continue;
        };
        // The clock of the wall may be set while this waits.
        loop {
            let left = Duration::try_from(due.duration_since(Timestamp::now()));
            let Ok(left) = left.map(|left| left.min(DUE_LOOK)) else {
                return;
            };
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = sleep(left) => {}
                changed = wish.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => std::future::pending().await,
                },
            }
        }
    }
}

/// Whether there was a moment after `looked` at which the image was to be looked at.
pub(super) fn was_due(spec: Option<&ServiceSpec>, looked: Timestamp, now: Timestamp) -> bool {
    next_look(spec, looked).is_some_and(|due| due <= now)
}

/// When the image is to be looked at next; never, when it is never pulled.
fn next_look(spec: Option<&ServiceSpec>, now: Timestamp) -> Option<Timestamp> {
    let docker = spec?.docker.as_ref().filter(|docker| !docker.skip_pull)?;
    let text = docker.pull_image_cron_expression.as_deref()?;
    Cron::parse(text).ok()?.next_after(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_looked_at_when_its_schedule_says_so() {
        let now: Timestamp = "2024-05-01T11:59:30Z".parse().unwrap();
        let spec = |more: &str| {
            let text = format!(r#"{{"docker": {{"image": "a", "port": 1{more}}}}}"#);
            let config = serde_json::from_str(&text).unwrap();
            ServiceSpec::from_config("one", &config, std::path::Path::new("/")).unwrap()
        };
        let next = |more: &str| next_look(Some(&spec(more)), now).map(|at| at.to_string());
        let daily = r#", "pull_image_cron_expression": "0 12 * * *""#;
        assert_eq!(next(daily).as_deref(), Some("2024-05-01T12:00:00Z"));
        assert_eq!(next(""), None);
        assert_eq!(next(&format!(r#"{daily}, "skip_pull": true"#)), None);
        let was = |more: &str, seconds: i64| {
            let later = now + jiff::SignedDuration::from_secs(seconds);
            was_due(Some(&spec(more)), now, later)
        };
        assert_eq!([was(daily, 29), was(daily, 30)], [false, true]);
        assert!(!was("", 1_000_000) && !was_due(None, now, now));
    }
}
