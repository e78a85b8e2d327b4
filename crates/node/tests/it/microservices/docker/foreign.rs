//! Images for other machines than the engine's.

use bollard::Docker;
use bollard::query_parameters::ImportImageOptions;
use futures_util::StreamExt;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::super::place::{TestHost, engine_is_there, on_engine};
use super::images::tar_of;
use super::spec;

const NAME: &str = "localhost/tahini-test-foreign:1";

/// An image whose only program is for a machine that is not this one.
fn load_foreign(architecture: &str) {
    // The head of a program for 64 bits, little-endian; byte 18 says for which processor: none that
    // was ever built.
    let mut program = vec![0; 64];
    program[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    program[16] = 2;
    program[18] = 0xee;
    program[20] = 1;
    let mut layer = tar_of("program", &program);
    layer.resize(layer.len() + 1024, 0);
    let hash = Sha256::digest(&layer);
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {"Cmd": ["/program"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{hash}")]}
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]);
    let text = |value: Value| value.to_string().into_bytes();
    let mut archive = tar_of("layer.tar", &layer);
    archive.extend(tar_of("config.json", &text(config)));
    archive.extend(tar_of("manifest.json", &text(manifest)));
    archive.resize(archive.len() + 1024, 0);
    on_engine(|docker: Docker| async move {
        let body = bollard::body_full(archive.into());
        let options = ImportImageOptions::default();
        let mut steps = docker.import_image(options, body, None).boxed_local();
        while let Some(step) = steps.next().await {
            step.unwrap();
        }
    });
}

#[test]
fn an_image_for_another_machine_is_told_to_be_one() {
    if !engine_is_there() {
        return;
    }
    load_foreign("s390x");
    let node = TestHost::new();
    node.host.apply(vec![spec(
        json!({"image": NAME, "port": 80, "skip_pull": true}),
    )]);
    let message = node.try_url("one").unwrap_err();
    assert!(
        message.contains("the image is for s390x, and the engine's machine is"),
        "{message}"
    );
    assert!(node.log("one").contains("the image is for s390x"));
    let exit = node.status("one")["last_exit"]["reason"].clone();
    // Some engines refuse to start it, others find out when it has started.
    if let Some(reason) = exit.as_str() {
        assert!(reason.contains("for s390x"), "{reason}");
    }
}
