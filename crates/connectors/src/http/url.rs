//! The `url` system: a web server that somebody else runs.

use tahini_hub::config::{Kind, Property};
use tahini_hub::registry::SystemDef;

use super::system::{HttpSystem, Place};
use super::tokens;

/// The row of `system:url`.
pub const URL: SystemDef = SystemDef {
    name: "system:url",
    summary: "A web server, over HTTP or HTTPS, that sources, transforms and sinks talk to.",
    properties: &[
        URL_PATTERN,
        BASE_URL,
        VERIFY_SSL,
        CUSTOM_CA,
        CLIENT_CERTIFICATE,
        USERNAME,
        PASSWORD,
        AUTHENTICATION,
        JWT_TOKEN,
        Property::new(
            "headers",
            Kind::Object,
            "Headers of every request, name to text; those of a source, transform or sink win.",
        ),
        OAUTH2,
        TRIPLETEX,
        PROXIES,
        CONNECT_TIMEOUT,
        READ_TIMEOUT,
        CONTENT_LENGTH,
        RETRY_STRATEGY,
    ],
    open: |ctx| HttpSystem::open(ctx, Place::of(ctx.props)?),
};

/// `url_pattern`.
pub(crate) const URL_PATTERN: Property = Property::new(
    "url_pattern",
    Kind::String,
    "The server's address; `%s` stands where relative URLs go, and where there is none they are \
     appended. Exactly one of this and base_url must be there.",
);

/// `base_url`.
pub(crate) const BASE_URL: Property = Property::new(
    "base_url",
    Kind::String,
    "Deprecated in favour of url_pattern. The address that relative URLs are resolved against; it \
     usually ends with a slash.",
);

/// `custom_ca_pem_chain`.
pub(crate) const CUSTOM_CA: Property = Property::new(
    "custom_ca_pem_chain",
    Kind::String,
    "Certificates in PEM form to trust beside the operating system's, with verify_ssl on.",
);

/// `client_certificate_pem`.
pub(crate) const CLIENT_CERTIFICATE: Property = Property::new(
    "client_certificate_pem",
    Kind::String,
    "The certificate that is shown to the server, and its key, in PEM form; best as a secret.",
);

/// `jwt_token`.
pub(crate) const JWT_TOKEN: Property = Property::new(
    "jwt_token",
    Kind::String,
    "The token, when authentication is \"jwt\".",
);

/// `oauth2`.
pub(crate) const OAUTH2: Property = Property::new(
    "oauth2",
    Kind::Nested(tokens::OAUTH2),
    "How to fetch access tokens: with a refresh token, with user and password, or else with the \
     client's own credentials.",
);

/// `tripletex`.
pub(crate) const TRIPLETEX: Property = Property::new(
    "tripletex",
    Kind::Nested(tokens::TRIPLETEX),
    "How to create sessions, when authentication is \"tripletex\".",
);

/// `proxies`.
pub(crate) const PROXIES: Property = Property::new(
    "proxies",
    Kind::Object,
    "Proxies (`http://…`, `https://…` or `socks5://user:password@host:port`) for the keys http \
     and https.",
);

/// `ignore_invalid_content_length_response_header`.
pub(crate) const CONTENT_LENGTH: Property = Property::new(
    "ignore_invalid_content_length_response_header",
    Kind::Boolean,
    "Without effect: an answer whose length is not what it says is a failed read.",
)
.or("false");

/// `verify_ssl`.
pub(crate) const VERIFY_SSL: Property = Property::new(
    "verify_ssl",
    Kind::Boolean,
    "Whether certificates are verified. Off unless it or global_defaults.verify_ssl says true; \
     the log warns about HTTPS without it.",
)
.or("false");

/// `username`.
pub(crate) const USERNAME: Property = Property::new(
    "username",
    Kind::String,
    "The user's name, when authentication is \"basic\" or \"digest\"; ignored without authentication.",
);

/// `password`.
pub(crate) const PASSWORD: Property = Property::new(
    "password",
    Kind::String,
    "The user's password, when authentication is \"basic\" or \"digest\"; ignored without authentication.",
);

/// `authentication`.
pub(crate) const AUTHENTICATION: Property = Property::new(
    "authentication",
    Kind::Enum(&["none", "basic", "digest", "ntlm", "tripletex", "jwt"]),
    "How to authenticate; not at all by default.",
)
.only(&["none", "basic", "digest", "tripletex", "jwt"]);

/// `connect_timeout`.
pub(crate) const CONNECT_TIMEOUT: Property = Property::new(
    "connect_timeout",
    Kind::Number,
    "The longest wait for a connection, in seconds.",
)
.or("60");

/// `read_timeout`.
pub(crate) const READ_TIMEOUT: Property = Property::new(
    "read_timeout",
    Kind::Number,
    "The longest wait for an answer to begin, and the longest silence in the middle of it, in \
     seconds. A long answer that keeps coming is never cut.",
)
.or("1800");

/// `retry_strategy`.
pub(crate) const RETRY_STRATEGY: Property = Property::new(
    "retry_strategy",
    Kind::Object,
    "Retry properties by HTTP status: keys are statuses (429), ranges (400-428), lists of them \
     (500,502-504) or default. Properties that the pump sets itself win.",
);
