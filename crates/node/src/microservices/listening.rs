//! Whether a service listens yet, and what is wrong when it does not.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::runtime::Instance;
use super::spec::ServiceSpec;

/// The first pause between two looks whether a service listens yet; it doubles.
const FIRST_LOOK: Duration = Duration::from_millis(5);
/// The longest pause between two looks.
const LAST_LOOK: Duration = Duration::from_millis(100);
/// A service's own door that does not answer for so long is out of the node's reach.
const DOOR_LIMIT: Duration = Duration::from_millis(250);
/// A connection through an engine's proxy that stays open for so long has reached the service.
const PROXY_SETTLES: Duration = Duration::from_millis(150);
/// A connection that takes longer is tried anew.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// How long a message waits for what the place knows.
const TOLD_LIMIT: Duration = Duration::from_secs(3);

/// Returns when the service accepts connections.
pub(super) async fn until_it_listens(instance: &dyn Instance) {
    let mut pause = FIRST_LOOK;
    while !listens(instance).await {
        sleep(pause).await;
        pause = (pause * 2).min(LAST_LOOK);
    }
}

/// Whether a connection is accepted, and by the service itself.
pub(super) async fn listens(instance: &dyn Instance) -> bool {
    if let Some(door) = instance.door() {
        match timeout(DOOR_LIMIT, TcpStream::connect(door)).await {
            Ok(Ok(_)) => return true,
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => return false,
            // Out of reach from here, as on a machine whose containers live in another one.
            _ => {}
        }
    }
    let connected = timeout(CONNECT_LIMIT, TcpStream::connect(instance.address())).await;
    let Ok(Ok(mut connection)) = connected else {
        return false;
    };
    if !instance.behind_proxy() {
        return true;
    }
    // An engine's proxy accepts always and hangs up when the service is not there yet.
    let mut byte = [0];
    match timeout(PROXY_SETTLES, connection.read(&mut byte)).await {
        Err(_) => true,
        Ok(read) => matches!(read, Ok(1..)),
    }
}

/// What was expected of a service that does not listen after so long, what was found, and what
/// helps.
pub(super) async fn complaint(
    spec: &ServiceSpec,
    instance: &dyn Instance,
    limit: Duration,
) -> String {
    let elsewhere = timeout(TOLD_LIMIT, instance.listens_on()).await;
    let elsewhere = elsewhere.unwrap_or_default();
    let inside = spec.docker.as_ref().filter(|_| instance.behind_proxy());
    let (expected, found) = match inside {
        Some(docker) => (
            format!("port {} of its container", docker.port),
            found_in_container(docker.port, &elsewhere),
        ),
        None => (
            format!("{} (the variable PORT)", instance.address()),
            found_in_process(&elsewhere),
        ),
    };
    format!(
        "expected microservice {} to listen on {expected}, found {found} after {} s",
        spec.id,
        limit.as_secs_f64()
    )
}

fn found_in_container(port: u16, elsewhere: &[SocketAddr]) -> String {
    let within = |address: &&SocketAddr| address.port() == port && address.ip().is_loopback();
    if let Some(address) = elsewhere.iter().find(within) {
        return format!(
            "it listening on {address}, where nobody outside its container reaches it (have it \
             listen on 0.0.0.0),"
        );
    }
    match listed(elsewhere) {
        Some(list) => {
            format!("it listening on {list} instead (docker.port is to name the service's port)")
        }
        None => "nothing there".to_owned(),
    }
}

fn found_in_process(elsewhere: &[SocketAddr]) -> String {
    match listed(elsewhere) {
        Some(list) => format!(
            "it listening on {list} instead (have it listen on PORT, or give its port in \
             process.port)"
        ),
        None => "nothing there".to_owned(),
    }
}

fn listed(addresses: &[SocketAddr]) -> Option<String> {
    let mut all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    all.sort();
    all.dedup();
    (!all.is_empty()).then(|| all.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wrong_place_is_named_and_what_helps() {
        let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let inside = found_in_container(5000, &[at("127.0.0.1:5000"), at("0.0.0.0:9000")]);
        assert!(inside.contains("127.0.0.1:5000") && inside.contains("listen on 0.0.0.0"));
        let other = found_in_container(5000, &[at("0.0.0.0:8080"), at("[::]:8080")]);
        let words = "0.0.0.0:8080 and [::]:8080 instead (docker.port";
        assert!(other.contains(words), "{other}");
        assert!(found_in_process(&[at("127.0.0.1:5000")]).contains("process.port"));
        for nothing in [found_in_container(5000, &[]), found_in_process(&[])] {
            assert_eq!(nothing, "nothing there");
        }
    }
}
