//! A node of its own process, which a test may kill.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::place::{LIMIT, until};

/// `tahini serve` with a project.
pub struct Served {
    child: Child,
    pub port: u16,
    pub data: PathBuf,
}

impl Served {
    /// A node on a free port with the project and the data in this folder.
    pub fn start(folder: &Path) -> Served {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        Served::start_on(folder, port)
    }

    /// The same on a port of one's choice.
    pub fn start_on(folder: &Path, port: u16) -> Served {
        let data = folder.join("data");
        let child = Command::new(env!("CARGO_BIN_EXE_tahini"))
            .args(["serve", "--no-schedule", "--listen"])
            .arg(format!("127.0.0.1:{port}"))
            .arg("--data")
            .arg(&data)
            .arg(folder.join("project"))
            .env("TAHINI_MASTER_KEY_FILE", folder.join("keys/master.key"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut node = Served { child, port, data };
        until("the node", || {
            assert!(node.child.try_wait().unwrap().is_none(), "the node ended");
            node.get("/readyz").ok()
        });
        node
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the node as a power cut would: it does nothing any more.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks the node to end, and waits until it has.
    pub fn stop(&mut self) {
        let pid = self.pid().to_string();
        let asked = Command::new("kill").args(["-s", "TERM", &pid]).status();
        assert!(asked.unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }

    /// The body of an answer that is 200; what else came, otherwise.
    pub fn get(&self, path: &str) -> Result<String, String> {
        let told = |error: std::io::Error| error.to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(told)?;
        stream.set_read_timeout(Some(LIMIT)).map_err(told)?;
        // Nothing is sent in chunks to a client of HTTP 1.0, and the end is the end.
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").map_err(told)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(told)?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.contains(" 200 ") => Ok(body.to_owned()),
            _ => Err(format!("{path}: {answer}")),
        }
    }

    pub fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path).unwrap()).unwrap()
    }

    /// The status of a service that is to run.
    pub fn running(&self, id: &str) -> Value {
        until(&format!("{id} to run"), || {
            let status = self.json(&format!("/api/systems/{id}/status"));
            (status["running"] == true).then_some(status)
        })
    }

    /// Asks a service through the node.
    pub fn ask(&self, id: &str, path: &str) -> Value {
        self.json(&format!("/api/systems/{id}/proxy{path}"))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes the systems of the project in this folder.
pub fn write_project(folder: &Path, systems: &[Value]) {
    let place = folder.join("project/systems");
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir_all(&place).unwrap();
    for system in systems {
        let file = place.join(format!("{}.conf.json", system["_id"].as_str().unwrap()));
        std::fs::write(file, system.to_string()).unwrap();
    }
}
