//! The `url` system: a web server that somebody else runs.

use tahini_hub::config::{Kind, Property};
use tahini_hub::registry::SystemDef;

use super::system::{HttpSystem, Place};

/// The row of `system:url`.
pub const URL: SystemDef = SystemDef {
    name: "system:url",
    summary: "A web server, over HTTP or HTTPS, that sources, transforms and sinks talk to.",
    properties: &[
        Property::new(
            "url_pattern",
            Kind::String,
            "The server's address; `%s` stands where relative URLs go, and where there is none \
             they are appended. Exactly one of this and base_url must be there.",
        ),
        Property::new(
            "base_url",
            Kind::String,
            "Deprecated in favour of url_pattern. The address that relative URLs are resolved \
             against; it usually ends with a slash.",
        ),
        VERIFY_SSL,
        Property::new(
            "custom_ca_pem_chain",
            Kind::String,
            "Certificates in PEM form to trust beside the operating system's, with verify_ssl on.",
        ),
        USERNAME,
        PASSWORD,
        AUTHENTICATION,
        Property::new(
            "jwt_token",
            Kind::String,
            "The token for authentication \"jwt\".",
        )
        .not_yet(),
        Property::new(
            "headers",
            Kind::Object,
            "Headers of every request, name to text; those of a source, transform or sink win.",
        ),
        Property::new("oauth2", Kind::Object, "How to fetch access tokens.").withheld(),
        Property::new("tripletex", Kind::Object, "How to fetch Tripletex tokens.").withheld(),
        Property::new(
            "proxies",
            Kind::Object,
            "Proxies (`http://…`, `https://…` or `socks5://user:password@host:port`) for the keys \
             http and https.",
        ),
        CONNECT_TIMEOUT,
        READ_TIMEOUT,
        Property::new(
            "ignore_invalid_content_length_response_header",
            Kind::Boolean,
            "Without effect: an answer whose length is not what it says is a failed read.",
        )
        .or("false"),
        RETRY_STRATEGY,
    ],
    open: |ctx| HttpSystem::open(ctx, Place::of(ctx.props)?),
};

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
    "The user's name, when authentication is \"basic\"; ignored without authentication.",
);

/// `password`.
pub(crate) const PASSWORD: Property = Property::new(
    "password",
    Kind::String,
    "The user's password, when authentication is \"basic\"; ignored without authentication.",
);

/// `authentication`.
pub(crate) const AUTHENTICATION: Property = Property::new(
    "authentication",
    Kind::Enum(&["none", "basic", "digest", "ntlm", "tripletex", "jwt"]),
    "How to authenticate; not at all by default.",
)
.only(&["none", "basic"]);

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
