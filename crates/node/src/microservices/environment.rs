//! Variables that every service gets from the node: where the node and the other services are.

use super::spec::ServiceSpec;

/// The node's names within containers; the second is what existing services expect.
pub(super) const NODE_NAMES: [&str; 2] = ["tahini", "sesam-node"];

/// The variable with the node's own URL.
pub(super) const NODE_URL: &str = "TAHINI_URL";

/// The variable with a microservice's base URL: `SYSTEM_<ID>_URL`, the id in upper case, every
/// character that is neither letter nor digit as `_`.
pub fn system_url_variable(id: &str) -> String {
    let name: String = id
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect();
    format!("SYSTEM_{name}_URL")
}

/// One microservice as the others see it.
pub(super) struct Peer<'a> {
    pub spec: &'a ServiceSpec,
    pub port: u16,
    pub as_process: bool,
}

/// The variables of a service that runs as a process (`as_process`) or as a container.
///
/// A process reaches its peers on loopback. A container reaches other containers by their ids, where
/// their network knows names (`by_name`), and processes, which listen on the machine's loopback only,
/// through the node's proxy.
pub(super) fn node_environment(
    as_process: bool,
    by_name: bool,
    node_url: Option<&str>,
    peers: &[Peer<'_>],
) -> Vec<(String, String)> {
    let node = node_url.map(|url| {
        if as_process {
            url.to_owned()
        } else {
            for_container(url)
        }
    });
    let mut variables: Vec<(String, String)> = node
        .iter()
        .map(|url| (NODE_URL.to_owned(), url.clone()))
        .collect();
    for peer in peers {
        let scheme = peer.spec.scheme();
        let url = match (&peer.spec.docker, as_process, peer.as_process) {
            (_, true, _) => Some(format!("{scheme}://127.0.0.1:{}", peer.port)),
            (Some(docker), false, false) if by_name => {
                Some(format!("{scheme}://{}:{}", peer.spec.id, docker.port))
            }
            _ => node
                .as_ref()
                .map(|node| format!("{node}/api/systems/{}/proxy", peer.spec.id)),
        };
        variables.extend(url.map(|url| (system_url_variable(&peer.spec.id), url)));
    }
    variables
}

/// The node's URL with the name that it has within containers.
fn for_container(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let authority = rest.split('/').next().unwrap_or(rest);
    let port = authority
        .rsplit_once(':')
        .map(|(_, port)| format!(":{port}"))
        .unwrap_or_default();
    format!("{scheme}://{}{port}", NODE_NAMES[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::path::Path;

    fn spec(id: &str, config: Value) -> ServiceSpec {
        ServiceSpec::from_config(id, &config, Path::new("/")).unwrap()
    }

    #[test]
    fn variables_are_named_after_the_system() {
        assert_eq!(
            system_url_variable("my-service_2"),
            "SYSTEM_MY_SERVICE_2_URL"
        );
    }

    #[test]
    fn everyone_gets_urls_that_work_where_they_are() {
        let process = spec("some-one", json!({"process": {"command": ["x"]}}));
        let image = spec(
            "two",
            json!({"use_https": true, "docker": {"image": "i", "port": 5000}}),
        );
        let peers = [
            Peer {
                spec: &process,
                port: 4001,
                as_process: true,
            },
            Peer {
                spec: &image,
                port: 4002,
                as_process: false,
            },
        ];
        let got = |as_process, by_name, node| -> Vec<String> {
            node_environment(as_process, by_name, node, &peers)
                .into_iter()
                .map(|(name, url)| format!("{name}={url}"))
                .collect()
        };
        let node = Some("http://127.0.0.1:9042");
        assert_eq!(
            got(true, true, node),
            [
                "TAHINI_URL=http://127.0.0.1:9042",
                "SYSTEM_SOME_ONE_URL=http://127.0.0.1:4001",
                "SYSTEM_TWO_URL=https://127.0.0.1:4002",
            ]
        );
        assert_eq!(
            got(false, true, node),
            [
                "TAHINI_URL=http://tahini:9042",
                "SYSTEM_SOME_ONE_URL=http://tahini:9042/api/systems/some-one/proxy",
                "SYSTEM_TWO_URL=https://two:5000",
            ]
        );
        assert_eq!(got(false, true, None), ["SYSTEM_TWO_URL=https://two:5000"]);
        // Without names there is only the way through the node.
        assert_eq!(
            got(false, false, node)[2],
            "SYSTEM_TWO_URL=http://tahini:9042/api/systems/two/proxy"
        );
    }
}
