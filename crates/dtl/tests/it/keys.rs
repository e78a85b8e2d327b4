//! Encryption with pairs of keys, both ways with the programs that everybody has for it.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

use crate::support;

/// Whether a program is there; says so when a test is left out.
fn has(program: &str) -> bool {
    let found = Command::new(program)
        .arg("version")
        .stdin(Stdio::null())
        .output()
        .is_ok();
    if !found {
        println!("SKIP: expected {program} on the path; tests/rig/prepare.sh crypto installs it");
    }
    found
}

/// What a program writes when it reads `input`.
fn run(command: &mut Command, input: &[u8]) -> Vec<u8> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complaint}");
    output.stdout
}

/// The value of an expression over properties.
fn value(expression: Json, source: &Json) -> Json {
    support::parse(&support::value(
        &expression.to_string(),
        &source.to_string(),
    ))
}

/// What `json` says in transit's form for bytes.
fn bytes(json: &Json) -> Vec<u8> {
    let base64 = json.as_str().unwrap().strip_prefix("~b").expect("bytes");
    STANDARD.decode(base64).unwrap()
}

fn openssl(folder: &Path, args: &str, input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.current_dir(folder).args(args.split(' '));
    run(&mut command, input)
}

#[test]
fn pki_agrees_with_openssl() {
    if !has("openssl") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    openssl(folder, "genrsa -traditional -out old.pem 2048", b"");
    openssl(
        folder,
        "pkcs8 -topk8 -nocrypt -in old.pem -out new.pem",
        b"",
    );
    let public = openssl(folder, "rsa -in old.pem -pubout", b"");
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let keys = json!({
        "public": String::from_utf8(public.clone()).unwrap(),
        "old": read("old.pem"),
        "new": read("new.pem"),
    });
    assert!(read("old.pem").starts_with("-----BEGIN RSA PRIVATE KEY-----"));
    fs::write(folder.join("public.pem"), public).unwrap();

    // 190 bytes is the most that a key of 2048 bits takes.
    for text in ["secret passphrase", "", "blåbær 😀", &"x".repeat(190)] {
        let sealed = value(json!(["encrypt-pki", "_S.public", text]), &keys);
        let ours = bytes(&sealed);
        assert_eq!(ours.len(), 256);
        let args = "pkeyutl -decrypt -inkey old.pem -pkeyopt rsa_padding_mode:oaep \
                    -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256";
        assert_eq!(openssl(folder, args, &ours), text.as_bytes());
        for (digest, key) in [("sha256", "old"), ("sha1", "new")] {
            let args = format!(
                "pkeyutl -encrypt -pubin -inkey public.pem -pkeyopt rsa_padding_mode:oaep \
                 -pkeyopt rsa_oaep_md:{digest} -pkeyopt rsa_mgf1_md:{digest}"
            );
            let theirs = openssl(folder, &args, text.as_bytes());
            let theirs = format!("~b{}", STANDARD.encode(theirs));
            let opened = value(json!(["decrypt-pki", format!("_S.{key}"), theirs]), &keys);
            assert_eq!(opened, text, "{digest}");
        }
    }

    let texts = json!(["list", "a", 1, "a"]);
    let sealed = value(json!(["encrypt-pki", "_S.public", texts]), &keys);
    assert_eq!(sealed.as_array().unwrap().len(), 2);
    assert_ne!(
        sealed[0], sealed[1],
        "equal texts are not to be seen as such"
    );
    let long = json!(["encrypt-pki", "_S.public", "x".repeat(191)]);
    let words = support::try_value(&long.to_string(), &keys.to_string()).unwrap_err();
    assert!(words.contains("expected at most 190 bytes"), "{words}");
}

#[test]
fn pairs_of_keys_make_results_depend_on_chance() {
    for (function, depends) in [
        ("encrypt-pki", true),
        ("encrypt-pgp", true),
        ("encrypt", false),
    ] {
        let rules = json!({"default": [["add", "r", [function, "_S.key", "x"]]]});
        let program = support::rules(&rules.to_string(), &tahini_dtl::Options::default()).unwrap();
        assert_eq!(program.is_deterministic(), !depends, "{function}");
    }
}

/// gpg with a folder of its own for keys.
struct Gpg(tempfile::TempDir);

impl Gpg {
    fn new() -> Gpg {
        let home = tempfile::tempdir().unwrap();
        // Few rounds: a debug build hashes slowly, and these keys guard nothing.
        fs::write(home.path().join("gpg-agent.conf"), "s2k-count 1024\n").unwrap();
        Gpg(home)
    }

    fn run(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let mut command = Command::new("gpg");
        command.env("GNUPGHOME", self.0.path());
        command.args(["--batch", "--quiet", "--pinentry-mode", "loopback"]);
        command.args(["--trust-model", "always", "--armor"]);
        run(command.args(args), input)
    }

    /// A new key: its public and its private block.
    fn key(&self, name: &str, passphrase: &str, algorithms: [&str; 2]) -> Json {
        let [main, sub] = algorithms;
        let secret = ["--passphrase", passphrase];
        self.run(
            &[
                &secret[..],
                &["--quick-gen-key", name, main, "cert", "never"],
            ]
            .concat(),
            b"",
        );
        let listing = self.run(&["--with-colons", "--list-keys", name], b"");
        let listing = String::from_utf8(listing).unwrap();
        let print = listing
            .lines()
            .find_map(|line| line.strip_prefix("fpr:::::::::"))
            .unwrap();
        let print = print.trim_end_matches(':');
        let add = ["--quick-add-key", print, sub, "encr", "never"];
        self.run(&[&secret[..], &add].concat(), b"");
        let export = [&secret[..], &["--export-secret-keys", name]].concat();
        json!({
            "public": String::from_utf8(self.run(&["--export", name], b"")).unwrap(),
            "private": String::from_utf8(self.run(&export, b"")).unwrap(),
            "passphrase": passphrase,
        })
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let mut command = Command::new("gpgconf");
        let command = command.env("GNUPGHOME", self.0.path());
        let _ = command.args(["--kill", "all"]).output();
    }
}

const DECRYPT: [&str; 3] = ["decrypt-pgp", "_S.private", "_S.passphrase"];

fn decrypted(message: &Json, keys: &Json) -> Json {
    value(json!([DECRYPT[0], DECRYPT[1], DECRYPT[2], message]), keys)
}

#[test]
fn pgp_agrees_with_gpg() {
    if !has("gpg") {
        return;
    }
    let gpg = Gpg::new();
    let keys = [
        gpg.key("old", "pass æ phrase", ["rsa2048", "rsa2048"]),
        gpg.key("open", "", ["rsa2048", "rsa2048"]),
        gpg.key("new", "passphrase", ["ed25519", "cv25519"]),
    ];
    let long = "All work and no play makes Jack a dull boy.\n".repeat(3000);
    for (keys, name) in keys.iter().zip(["old", "open", "new"]) {
        for text in ["secret message", "", "blåbær 😀\r\n", &long] {
            let message = value(json!(["encrypt-pgp", "_S.public", text]), keys);
            let passphrase = keys["passphrase"].as_str().unwrap();
            let opened = gpg.run(
                &["--passphrase", passphrase, "--decrypt"],
                message.as_str().unwrap().as_bytes(),
            );
            assert_eq!(String::from_utf8(opened).unwrap(), text, "{name}");
            assert_eq!(decrypted(&message, keys), text, "{name}");

            for how in [
                &["--compress-algo", "zip", "--recipient", name][..],
                &["--compress-algo", "zlib", "--recipient", name],
                &["--compress-algo", "none", "--hidden-recipient", name],
                &[
                    "--recipient",
                    "old",
                    "--recipient",
                    "new",
                    "--recipient",
                    "open",
                ],
                &["--cipher-algo", "AES128", "--recipient", name],
                &["--cipher-algo", "AES192", "--recipient", name],
            ] {
                let message = gpg.run(&[&["--encrypt"], how].concat(), text.as_bytes());
                let message = json!(String::from_utf8(message).unwrap());
                assert_eq!(decrypted(&message, keys), text, "{name} {how:?}");
            }
        }
    }
    what_does_not_open_is_ignored(&keys);
}

fn what_does_not_open_is_ignored([old, _, new]: &[Json; 3]) {
    let message = value(
        json!(["encrypt-pgp", "_S.public", ["list", "a", 1, "b"]]),
        old,
    );
    let messages = message.as_array().unwrap();
    assert_eq!(messages.len(), 2);
    assert_eq!(
        decrypted(&json!(["list", messages[0], "x", null, messages[1]]), old),
        json!(["a", "b"])
    );
    assert_eq!(decrypted(&messages[0], new), Json::Null, "for another key");

    // One character changed, with the checksum of the armour left out.
    let text = messages[0].as_str().unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.retain(|line| !line.starts_with('='));
    assert_eq!(
        decrypted(&json!(lines.join("\n")), old),
        "a",
        "the checksum may be missing"
    );
    let last = lines.len() - 2;
    let other = if lines[last].starts_with('A') {
        "B"
    } else {
        "A"
    };
    lines[last].replace_range(..1, other);
    assert_eq!(
        decrypted(&json!(lines.join("\n")), old),
        Json::Null,
        "changed on the way"
    );

    let secret = old["private"].as_str().unwrap();
    let call = json!(["decrypt-pgp", secret, "wrong", "x"]);
    let found = support::try_value(&call.to_string(), "{}").unwrap_err();
    assert!(
        found.contains("expected a PASSPHRASE that unlocks"),
        "{found}"
    );
}
