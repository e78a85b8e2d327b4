//! Images: pulled from registries, with and without credentials, and looked at again in time.

use std::time::Duration;

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::models::{ContainerConfig, ContainerCreateBody};
use bollard::query_parameters::{
    CommitContainerOptions, CreateContainerOptions, CreateImageOptions, PushImageOptions,
    RemoveContainerOptions, RemoveImageOptions, TagImageOptions,
};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tahini_node::microservices::{HostOptions, ServiceSpec, State};

use super::super::place::{
    CONTAINER_PORT, SCRIPT, TestHost, engine_is_there, image, on_engine, try_get, until,
};
use super::spec;

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("expected {name} beside TEST_IMAGE"))
}

/// The error with which a service does not start.
fn start_error(docker: Value) -> String {
    let node = TestHost::new();
    node.host.apply(vec![spec(docker)]);
    let message = node.try_url("one").unwrap_err();
    let begin = "microservice one is failed: ";
    assert!(message.starts_with(begin), "{message}");
    message
}

/// A name in a registry that no other test uses.
fn fresh_name(registry: &str) -> String {
    format!("{registry}/pulled-{}", uuid::Uuid::new_v4())
}

/// Puts an image of the engine into a registry as `repo:1`, and takes that name out of the engine.
fn publish(from: &str, repo: &str, credentials: Option<(&str, &str)>) {
    let credentials = credentials.map(|(name, password)| DockerCredentials {
        username: Some(name.to_owned()),
        password: Some(password.to_owned()),
        ..DockerCredentials::default()
    });
    on_engine(|docker: Docker| async move {
        tag(&docker, from, repo).await;
        let options = PushImageOptions {
            tag: Some("1".to_owned()),
            ..PushImageOptions::default()
        };
        let mut steps = docker
            .push_image(repo, Some(options), credentials)
            .boxed_local();
        while let Some(step) = steps.next().await {
            step.unwrap();
        }
        docker
            .remove_image(&format!("{repo}:1"), None::<RemoveImageOptions>, None)
            .await
            .unwrap();
    });
}

async fn tag(docker: &Docker, from: &str, repo: &str) {
    let options = TagImageOptions {
        repo: Some(repo.to_owned()),
        tag: Some("1".to_owned()),
    };
    docker.tag_image(from, Some(options)).await.unwrap();
}

#[test]
fn an_image_is_pulled_from_its_registry() {
    if !engine_is_there() {
        return;
    }
    let repo = fresh_name(&variable("TEST_REGISTRY"));
    let remote = format!("{repo}:1");
    publish(image(), &repo, None);
    let config = json!({"image": remote, "port": CONTAINER_PORT, "cpu_quota": 100});

    // Without pulling there is nothing.
    let mut without = config.clone();
    without["skip_pull"] = json!(true);
    let message = start_error(without);
    assert!(
        message.contains("skip_pull") && message.contains(&remote),
        "{message}"
    );

    let node = TestHost::new();
    node.host.apply(vec![spec(config.clone())]);
    node.url("one");
    let status = node.status("one");
    let digest = status["digest"].as_str().unwrap();
    assert!(digest.starts_with(&format!("{repo}@sha256:")), "{digest}");
    let log = node.log("one");
    assert!(log.contains(&format!("pulling {remote}")), "{log}");
    assert!(log.contains("Digest: sha256:"), "{log}");
    // A crash is no reason to ask the registry again.
    try_get(&node.url("one"), "/exit?code=1");
    node.until("one", |snapshot| {
        snapshot.restarts == 1 && snapshot.state == State::Running
    });
    assert_eq!(node.log("one").matches("pulling ").count(), 1);

    // The same by its digest, which the registry keeps whatever becomes of the tag.
    let mut exact = config;
    exact["image"] = json!(digest);
    let other = TestHost::new();
    other.host.apply(vec![spec(exact)]);
    other.url("one");
    assert_eq!(other.status("one")["image_id"], status["image_id"]);
}

#[test]
fn an_image_that_cannot_be_pulled_says_why() {
    if !engine_is_there() {
        return;
    }
    let repo = fresh_name(&variable("TEST_REGISTRY"));
    publish(image(), &repo, None);
    for missing in [format!("{repo}:no-such-tag"), format!("{repo}-other:1")] {
        let message = start_error(json!({"image": missing, "port": 80}));
        assert!(
            message.contains(&missing) && message.contains("check the name and tag"),
            "{message}"
        );
    }
    let message = start_error(json!({"image": "127.0.0.1:1/no/registry:1", "port": 80}));
    assert!(message.contains("can reach the registry"), "{message}");
}

/// What is in the engine is good enough where the registry cannot be reached.
#[test]
fn a_registry_that_is_down_does_not_keep_what_is_here_from_starting() {
    if !engine_is_there() {
        return;
    }
    let repo = format!("127.0.0.1:1/kept-{}", uuid::Uuid::new_v4());
    on_engine(async |docker: Docker| tag(&docker, image(), &repo).await);
    let node = TestHost::new();
    let config = json!({"image": format!("{repo}:1"), "port": CONTAINER_PORT, "cpu_quota": 100});
    node.host.apply(vec![spec(config)]);
    node.url("one");
    let log = node.log("one");
    assert!(log.contains("the engine's own is used"), "{log}");
}

#[test]
fn a_private_image_needs_the_right_credentials() {
    if !engine_is_there() {
        return;
    }
    let repo = fresh_name(&variable("TEST_PRIVATE_REGISTRY"));
    let (user, password) = ("reader", "open-sesame");
    publish(image(), &repo, Some((user, password)));
    let config = |more: Value| {
        let mut config =
            json!({"image": format!("{repo}:1"), "port": CONTAINER_PORT, "cpu_quota": 100});
        for (name, value) in more.as_object().unwrap() {
            config[name] = value.clone();
        }
        config
    };
    let message = start_error(config(json!({})));
    assert!(
        message.contains("needs docker.username and docker.password"),
        "{message}"
    );
    let wrong = config(json!({"username": user, "password": "closed-sesame"}));
    let message = start_error(wrong);
    assert!(
        message.contains("check docker.username and docker.password"),
        "{message}"
    );
    assert!(!message.contains("closed-sesame"), "{message}");
    let node = TestHost::new();
    let right = config(json!({"username": user, "password": password}));
    node.host.apply(vec![spec(right)]);
    node.url("one");
    assert!(!node.log("one").contains(password));
}

/// The image of the test's service, with one more variable: another image, under a name that keeps it.
fn other_image(variable: &str) -> String {
    let variable = variable.to_owned();
    let tag = uuid::Uuid::new_v4().to_string();
    on_engine(|docker: Docker| async move {
        let body = ContainerCreateBody {
            image: Some(image().to_owned()),
            ..ContainerCreateBody::default()
        };
        let made = docker
            .create_container(None::<CreateContainerOptions>, body)
            .await
            .unwrap();
        let options = CommitContainerOptions {
            container: Some(made.id.clone()),
            repo: Some("localhost/tahini-test-other".to_owned()),
            tag: Some(tag.clone()),
            ..CommitContainerOptions::default()
        };
        let config = ContainerConfig {
            cmd: Some(["python3", "-c", SCRIPT].map(str::to_owned).to_vec()),
            env: Some(vec![variable]),
            ..ContainerConfig::default()
        };
        docker.commit_container(options, config).await.unwrap();
        docker
            .remove_container(&made.id, None::<RemoveContainerOptions>)
            .await
            .unwrap();
        format!("localhost/tahini-test-other:{tag}")
    })
}

/// The schedule's unit is the minute, so that this test takes one.
#[test]
fn a_schedule_brings_a_newer_image_and_leaves_the_others_alone() {
    if !engine_is_there() {
        return;
    }
    let registry = variable("TEST_REGISTRY");
    let repos = ["new", "old", "crashing", "deaf"].map(|_| fresh_name(&registry));
    let spec_of = |id: &str, repo: &str| {
        let config = json!({"docker": {
            "image": format!("{repo}:1"), "port": CONTAINER_PORT, "cpu_quota": 100,
            "pull_image_cron_expression": "* * * * *"
        }});
        ServiceSpec::from_config(id, &config, std::path::Path::new("/")).unwrap()
    };
    let [dies, deaf] = ["dies", "deaf"].map(|mode| other_image(&format!("MODE={mode}")));
    for (repo, from) in repos.iter().zip([image(), image(), &dies, &deaf]) {
        publish(from, repo, None);
    }
    let node = TestHost::with(|options| {
        let pace = &mut options.pace;
        (pace.first_pause, pace.last_pause) = (Duration::from_secs(2), Duration::from_secs(4));
    });
    let ids = ["new", "old", "crashing", "deaf"];
    let specs = ids.iter().zip(&repos).map(|(id, repo)| spec_of(id, repo));
    node.host.apply(specs.collect());
    node.until("crashing", |now| now.restarts > 0);
    node.until_logged("deaf", "listening to nobody");
    let born = [node.get("new", "/born"), node.get("old", "/born")];
    let before = node.status("new");

    // The registry gets another one; the engine keeps the name for what it has.
    let other = other_image(&format!("IMAGE={}", uuid::Uuid::new_v4()));
    // The look of a minute that begins meanwhile would find the name at one, then at the other.
    let begins = || (jiff::Timestamp::now().as_second() % 60 < 30).then_some(());
    super::super::place::until_within(Duration::from_secs(60), "half a minute of calm", begins);
    for repo in [&repos[0], &repos[2], &repos[3]] {
        publish(&other, repo, None);
    }
    let repo = repos[0].clone();
    on_engine(async |docker: Docker| tag(&docker, image(), &repo).await);

    let look = || {
        let changed = node
            .host
            .snapshot("new")
            .is_some_and(|now| now.restarts == 1 && now.state == State::Running);
        let looked = node.log("old").contains("newer image and found none");
        (changed && looked).then_some(())
    };
    super::super::place::until_within(Duration::from_secs(120), "the minute", look);
    assert_ne!(node.get("new", "/born"), born[0]);
    let after = node.status("new");
    assert_ne!(after["image_id"], before["image_id"]);
    assert!(node.get("new", "/env")["IMAGE"].is_string());
    assert!(node.log("new").contains("there is a newer image"));
    assert_eq!(node.get("old", "/born"), born[1]);
    assert_eq!(node.status("old")["restarts"], 0);

    // Those that never ran get what was mended, too.
    for id in ["crashing", "deaf"] {
        node.until(id, |now| now.state == State::Running);
        assert_eq!(node.status(id)["image_id"], after["image_id"]);
    }
    node.shutdown();
    on_engine(|docker: Docker| async move {
        for name in [dies, deaf, other] {
            let removed = docker.remove_image(&name, None::<RemoveImageOptions>, None);
            removed.await.unwrap();
        }
    });
}

#[test]
fn a_pull_shows_how_far_it_is() {
    if !engine_is_there() {
        return;
    }
    let repo = fresh_name(&variable("TEST_REGISTRY"));
    let big = on_engine(|docker: Docker| async move {
        // Bytes that do not get smaller, so that a pull takes its time.
        let mut bytes = vec![0; 96 << 20];
        rand::RngCore::fill_bytes(&mut rand::rng(), &mut bytes);
        let mut archive = tar_of("noise", &bytes);
        archive.resize(archive.len() + 1024, 0);
        let options = CreateImageOptions {
            from_src: Some("-".to_owned()),
            repo: Some("localhost/tahini-test-noise".to_owned()),
            tag: Some("1".to_owned()),
            ..CreateImageOptions::default()
        };
        let body = bollard::body_full(archive.into());
        let mut steps = docker
            .create_image(Some(options), Some(body), None)
            .boxed_local();
        while let Some(step) = steps.next().await {
            step.unwrap();
        }
        "localhost/tahini-test-noise:1"
    });
    publish(big, &repo, None);
    on_engine(|docker: Docker| async move {
        docker
            .remove_image(big, None::<RemoveImageOptions>, None)
            .await
            .unwrap();
    });
    let node = TestHost::new();
    node.host.apply(vec![spec(
        json!({"image": format!("{repo}:1"), "port": 80}),
    )]);
    let pull = until("the pull", || {
        let pull = node.status("one")["pull"].clone();
        (pull["bytes"].as_u64()? > 0).then_some(pull)
    });
    assert_eq!(pull["layers"], 1, "{pull}");
    let number = |name: &str| pull[name].as_u64().unwrap();
    assert!(number("bytes") <= number("total_bytes"), "{pull}");
    // There is no program in it, and no pull any more.
    assert!(node.try_url("one").is_err());
    assert_eq!(node.status("one")["pull"], Value::Null);
}

/// An archive of one file, without its end.
pub fn tar_of(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000755");
    header[108..115].copy_from_slice(b"0000000");
    header[116..123].copy_from_slice(b"0000000");
    header[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
    header[136..147].copy_from_slice(b"00000000000");
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut archive = header.to_vec();
    archive.extend_from_slice(bytes);
    archive.resize(archive.len().next_multiple_of(512), 0);
    archive
}

#[test]
fn an_engine_behind_tls_is_reached_with_certificates_only() {
    if !engine_is_there() {
        return;
    }
    let at = |folder: Option<String>| {
        move |options: &mut HostOptions| {
            options.docker_host = Some(variable("TEST_ENGINE_TLS"));
            options.docker_certificates = folder.map(Into::into);
        }
    };
    let config =
        || json!({"image": image(), "port": CONTAINER_PORT, "skip_pull": true, "cpu_quota": 100});
    let node = TestHost::with(at(Some(variable("TEST_ENGINE_CERTIFICATES"))));
    node.host.apply(vec![spec(config())]);
    assert!(node.get("one", "/born").is_string());
    let without = TestHost::with(at(None));
    without.host.apply(vec![spec(config())]);
    let message = without.try_url("one").unwrap_err();
    assert!(
        message.contains("expected a container engine at tcp://"),
        "{message}"
    );
}
