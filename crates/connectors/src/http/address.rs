//! Addresses: how a component's `url` and its system's base make one, and how much of it may be
//! shown.

use reqwest::Url;
use tahini_hub::Failure;

/// What relative URLs are relative to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// `url_pattern`: `%s` is where the relative URL goes, the end where there is none.
    Pattern(String),
    /// `base_url`: relative URLs are resolved against it as RFC 3986 says.
    Join(String),
}

impl Base {
    /// The absolute address that `url` means; an absolute `url` means itself.
    ///
    /// A slash at both sides of the seam counts once, and a pattern that is a bare host gets the
    /// one it lacks: `http://h:1` and `a` make `http://h:1/a`.
    ///
    /// # Errors
    /// Config, when the outcome is not an `http` or `https` address.
    pub fn address(&self, url: &str) -> Result<Url, Failure> {
        if is_absolute(url) {
            return parse(url);
        }
        match self {
            Base::Pattern(pattern) => parse(&fill(pattern, url)),
            Base::Join(base) => {
                let joined = parse(base)?.join(url).map_err(|error| {
                    let base = shown_text(base);
                    let url = shown_text(url);
                    Failure::config(format!(
                        "expected a URL relative to {base}, found {url:?}: {error}"
                    ))
                })?;
                Ok(joined)
            }
        }
    }
}

fn is_absolute(url: &str) -> bool {
    let scheme = url
        .split("://")
        .next()
        .filter(|scheme| scheme.len() < url.len());
    scheme.is_some_and(|scheme| {
        scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
    })
}

fn fill(pattern: &str, url: &str) -> String {
    let (before, after) = pattern.split_once("%s").unwrap_or((pattern, ""));
    let bare_host = before.matches('/').count() == 2 && !before.contains('?');
    let url = if before.ends_with('/') {
        url.strip_prefix('/').unwrap_or(url)
    } else {
        url
    };
    let seam = if bare_host && !url.starts_with(['/', '?']) && !url.is_empty() {
        "/"
    } else {
        ""
    };
    format!("{before}{seam}{url}{after}")
}

/// The address that `text` is.
///
/// # Errors
/// Config, when it is not an `http` or `https` address.
pub fn parse(text: &str) -> Result<Url, Failure> {
    let wrong = |found: String| {
        let text = shown_text(text);
        Failure::config(format!(
            "expected an http or https address, found {text:?}: {found}"
        ))
    };
    let url = Url::parse(text).map_err(|error| wrong(error.to_string()))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(wrong(format!("the scheme is {other}"))),
    }
}

/// Whether an address is on this machine: no proxy leads there, and nobody listens on the way.
pub(crate) fn is_near(address: &Url) -> bool {
    let host = address.host_str().unwrap_or_default();
    let name = host.trim_start_matches('[').trim_end_matches(']');
    name == "localhost"
        || name
            .parse()
            .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// Adds a query parameter; everything but letters, digits and `-_.~` is percent-encoded, spaces
/// too, so that every server reads the same.
pub fn add_parameter(url: &mut Url, name: &str, value: &str) {
    let mut query =
        url.query()
            .filter(|query| !query.is_empty())
            .map_or_else(String::new, |query| {
                let mut query = query.to_owned();
                query.push('&');
                query
            });
    query.push_str(&encode(name));
    query.push('=');
    query.push_str(&encode(value));
    url.set_query(Some(&query));
}

/// A text as a part of a path or a query: everything but letters, digits and `-_.~` is
/// percent-encoded.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The address without user, password, fragment and the values of its query, for messages. The
/// values of the pull and push protocols' own parameters stay: they tell where a request was.
pub fn shown(url: &Url) -> String {
    const OURS: &[&str] = &[
        "since",
        "limit",
        "is_full",
        "is_first",
        "is_last",
        "request_id",
        "previous_request_id",
    ];
    let mut shown = format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default());
    if let Some(port) = url.port() {
        shown.push_str(&format!(":{port}"));
    }
    shown.push_str(url.path());
    let mut before = '?';
    for pair in url
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
    {
        let name = pair.split('=').next().unwrap_or_default();
        let pair = if OURS.contains(&name) {
            pair.to_owned()
        } else {
            format!("{name}=…")
        };
        shown.push(before);
        shown.push_str(&pair);
        before = '&';
    }
    shown
}

/// Text that was meant to be an address, cut before anything that may be secret.
fn shown_text(text: &str) -> String {
    let path = text.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = path
        .split_once("://")
        .map_or(("", path), |(scheme, rest)| (scheme, rest));
    let rest = rest.rsplit('@').next().unwrap_or_default();
    if scheme.is_empty() {
        rest.to_owned()
    } else {
        format!("{scheme}://{rest}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_url_goes_where_the_base_says() {
        let cases = [
            (
                "pattern",
                "http://h:1/path/%s",
                "a/b",
                "http://h:1/path/a/b",
            ),
            ("pattern", "http://h:1/path/%s", "/a", "http://h:1/path/a"),
            ("pattern", "http://h:1/%s?key=1", "a", "http://h:1/a?key=1"),
            ("pattern", "http://h:1/path-", "a", "http://h:1/path-a"),
            ("pattern", "http://h:1", "a", "http://h:1/a"),
            ("pattern", "http://h:1", "/a", "http://h:1/a"),
            ("pattern", "http://h:1/%s", "", "http://h:1/"),
            (
                "pattern",
                "http://h:1/%s",
                "https://other/x",
                "https://other/x",
            ),
            ("join", "http://h:1/files/", "a", "http://h:1/files/a"),
            ("join", "http://h:1/files", "a", "http://h:1/a"),
            ("join", "http://h:1/files/", "/a", "http://h:1/a"),
            (
                "join",
                "http://h:1/files/",
                "HTTP://other/x",
                "http://other/x",
            ),
        ];
        for (kind, base, url, expected) in cases {
            let base = match kind {
                "pattern" => Base::Pattern(base.to_owned()),
                _ => Base::Join(base.to_owned()),
            };
            assert_eq!(
                base.address(url).unwrap().as_str(),
                expected,
                "{base:?} {url}"
            );
        }
    }

    #[test]
    fn what_is_no_web_address_is_a_config_failure_without_its_secrets() {
        for base in ["ftp://u:pw@h/%s", "no address pw", "http://u:pw@h:port/%s"] {
            let failure = Base::Pattern(base.to_owned())
                .address("a?k=pw")
                .unwrap_err();
            assert_eq!(failure.class, tahini_hub::Class::Config);
            assert!(
                failure
                    .message
                    .starts_with("expected an http or https address"),
                "{failure}"
            );
            assert!(!failure.message.contains("u:pw"), "{failure}");
            assert!(!failure.message.contains("k=pw"), "{failure}");
        }
    }

    #[test]
    fn parameters_are_encoded_byte_by_byte() {
        let mut url = parse("http://h/a").unwrap();
        add_parameter(&mut url, "since", "2015-01-01T00:00:00+01:00 ø&x=1");
        add_parameter(&mut url, "limit", "5");
        assert_eq!(
            url.as_str(),
            "http://h/a?since=2015-01-01T00%3A00%3A00%2B01%3A00%20%C3%B8%26x%3D1&limit=5"
        );
        let mut url = parse("http://h/a?key=1").unwrap();
        add_parameter(&mut url, "since", "0");
        assert_eq!(url.as_str(), "http://h/a?key=1&since=0");
    }

    #[test]
    fn an_address_is_shown_without_what_may_be_secret() {
        let url = parse("https://user:pw@h:8/a?key=hush&since=7#frag").unwrap();
        assert_eq!(shown(&url), "https://h:8/a?key=…&since=7");
    }
}
