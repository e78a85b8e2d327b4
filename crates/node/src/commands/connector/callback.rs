//! The address to which a service sends the browser back after somebody logged in.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tahini_hub::Cancel;

/// The path of that address.
const PATH: &str = "/login_callback";
/// The most bytes of a request that are looked at.
const REQUEST_BYTES: u64 = 64 << 10;
/// How often it is looked whether the browser is there.
const LOOK: Duration = Duration::from_millis(50);
/// The longest that one request may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A listener on loopback that waits for one browser.
pub(super) struct Callback {
    listener: TcpListener,
    /// What the service has to send back, so that nobody else's login is taken for ours.
    state: String,
}

impl Callback {
    /// Listens at the port, for the browser that brings back `state`.
    pub(super) fn listen(port: u16, state: &str) -> anyhow::Result<Callback> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .with_context(|| format!("cannot listen on port {port} of this machine"))?;
        listener.set_nonblocking(true)?;
        Ok(Callback {
            listener,
            state: state.to_owned(),
        })
    }

    /// The address, for the service.
    pub(super) fn address(&self) -> anyhow::Result<String> {
        let port = self.listener.local_addr()?.port();
        Ok(format!("http://localhost:{port}{PATH}"))
    }

    /// Waits for the code that the service gives for a login.
    pub(super) fn code(&self, patience: Duration) -> anyhow::Result<String> {
        let until = Instant::now() + patience;
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    if let Some(outcome) = self.visit(stream) {
                        return outcome;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    if Instant::now() > until {
                        bail!(
                            "expected a browser within {} seconds, none came; open the address \
                             and log in",
                            patience.as_secs()
                        );
                    }
                    let _ = Cancel::new().sleep(LOOK);
                }
                Err(error) => return Err(error).context("the browser could not be answered"),
            }
        }
    }

    /// One request; the end of the wait, if it is that.
    fn visit(&self, mut stream: TcpStream) -> Option<anyhow::Result<String>> {
        stream.set_nonblocking(false).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let target = target(&stream)?;
        let url = reqwest::Url::parse(&format!("http://localhost{target}")).ok()?;
        if url.path() != PATH {
            answer(&mut stream, "404 Not Found", "There is nothing here.");
            return None;
        }
        let value = |name: &str| {
            let found = url.query_pairs().find(|(known, _)| known == name);
            found.map(|(_, value)| value.into_owned())
        };
        if value("state").as_deref() != Some(self.state.as_str()) {
            let words = "This is not the login that was begun here.";
            answer(&mut stream, "400 Bad Request", words);
            return None;
        }
        if let Some(error) = value("error") {
            let detail = value("error_description").map(|detail| format!(": {detail}"));
            answer(&mut stream, "200 OK", "The service refused the login.");
            return Some(Err(anyhow::anyhow!(
                "the service refused the login: {error}{}",
                detail.unwrap_or_default()
            )));
        }
        let code = value("code")?;
        answer(&mut stream, "200 OK", "Done; this page can be closed.");
        Some(Ok(code))
    }
}

/// What a request asks for; its headers are read and forgotten.
fn target(stream: &TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream.take(REQUEST_BYTES));
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut line = String::new();
    while reader.read_line(&mut line).ok()? > 2 {
        line.clear();
    }
    let mut words = first.split_whitespace();
    match (words.next(), words.next()) {
        (Some("GET"), Some(target)) => Some(target.to_owned()),
        _ => None,
    }
}

fn answer(stream: &mut TcpStream, status: &str, words: &str) {
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{words}",
        words.len()
    );
    let _ = stream.write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(port: u16, target: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let text = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(text.as_bytes()).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    }

    #[test]
    fn only_the_login_that_was_begun_is_taken() {
        let callback = Callback::listen(0, "s1").unwrap();
        let port = callback.listener.local_addr().unwrap().port();
        let browser = std::thread::spawn(move || {
            [
                ask(port, "/favicon.ico"),
                ask(port, "/login_callback?code=other&state=s2"),
                ask(port, "/login_callback?code=a%2Fb&state=s1"),
            ]
        });
        assert_eq!(callback.code(Duration::from_secs(20)).unwrap(), "a/b");
        let [nothing, other, done] = browser.join().unwrap();
        assert!(nothing.starts_with("HTTP/1.1 404"), "{nothing}");
        assert!(other.starts_with("HTTP/1.1 400"), "{other}");
        assert!(done.contains("Done"), "{done}");
    }

    #[test]
    fn a_refusal_is_told() {
        let callback = Callback::listen(0, "s").unwrap();
        let port = callback.listener.local_addr().unwrap().port();
        let browser = std::thread::spawn(move || {
            ask(
                port,
                "/login_callback?state=s&error=access_denied&error_description=no+thanks",
            )
        });
        let error = callback
            .code(Duration::from_secs(20))
            .unwrap_err()
            .to_string();
        assert!(error.contains("access_denied: no thanks"), "{error}");
        browser.join().unwrap();
    }
}
