//! The properties that the parts of a pipe share which perform operations.

use tahini_hub::config::{Kind, Property};

/// `system`.
pub(super) const SYSTEM: Property =
    Property::required("system", Kind::System, "The rest system to ask.");

/// `operation` of a source.
pub(super) const OPERATION: Property =
    Property::required("operation", Kind::String, "The operation to perform.");

/// `operation` of a transform or sink.
pub(super) const DEFAULT_OPERATION: Property = Property::new(
    "operation",
    Kind::String,
    "The operation for entities that name none in their property operation.",
);

/// `operations`.
pub(super) const OPERATIONS: Property = Property::new(
    "operations",
    Kind::Each(OPERATION_ROWS),
    "Operations by name; they win over those of the system.",
);

/// `properties`.
pub(super) const PROPERTIES: Property = Property::new(
    "properties",
    Kind::Object,
    "What templates find in `properties`, unless an entity brings its own.",
);

/// `payload`.
pub(super) const PAYLOAD: Property = Property::new(
    "payload",
    Kind::Templates,
    "What is sent, with templates in its texts, unless an entity brings its own; the operation's \
     by default.",
);

/// `response_property`.
pub(super) const RESPONSE_PROPERTY: Property = Property::new(
    "response_property",
    Kind::String,
    "The property for what an answer says; the operation's, or else `response`. A source puts \
     there what is no JSON object.",
);

/// `response_headers_property`.
pub(super) const RESPONSE_HEADERS_PROPERTY: Property = Property::new(
    "response_headers_property",
    Kind::String,
    "The property for the headers of an answer.",
);

/// `response_status_property`.
pub(super) const RESPONSE_STATUS_PROPERTY: Property = Property::new(
    "response_status_property",
    Kind::String,
    "The property for the status of an answer.",
);

/// `response_include_content_type`.
pub(super) const RESPONSE_INCLUDE_CONTENT_TYPE: Property = Property::new(
    "response_include_content_type",
    Kind::Boolean,
    "Whether entities get the Content-Type of the answer in `content-type`.",
)
.or("false");

/// `payload_property`.
pub(super) const PAYLOAD_PROPERTY: Property = Property::new(
    "payload_property",
    Kind::String,
    "The property of a JSON answer, or the path to it, that holds what is asked for.",
);

/// `id_expression`.
pub(super) const ID_EXPRESSION: Property = Property::new(
    "id_expression",
    Kind::Template,
    "A template that gives the `_id` where an answer has none.",
);

/// `updated_expression`.
pub(super) const UPDATED_EXPRESSION: Property = Property::new(
    "updated_expression",
    Kind::Template,
    "A template that gives `_updated` where an answer has none.",
);

/// `rate_limiting_retries`.
pub(super) const RATE_LIMITING_RETRIES: Property = Property::new(
    "rate_limiting_retries",
    Kind::Integer(0),
    "How often a request is sent again that is answered with 429; the system's by default, or \
     else never.",
);

/// `rate_limiting_delay`.
pub(super) const RATE_LIMITING_DELAY: Property = Property::new(
    "rate_limiting_delay",
    Kind::Integer(0),
    "How many seconds pass before that, unless the answer says so itself (`Retry-After`); 1 by \
     default.",
);

/// `trace`.
pub(super) const TRACE: Property = Property::new(
    "trace",
    Kind::Any,
    "Whether requests and answers are told in the run's log, without secrets: true, or an object \
     of log_request_headers, log_request_body_maxsize, log_response_headers, \
     log_response_body_maxsize and log_secret_redacted_bytes.",
)
.or("false");

/// What an operation may have.
pub(super) const OPERATION_ROWS: &[Property] = &[
    Property::required(
        "url",
        Kind::Template,
        "The address, relative to the system's or absolute.",
    ),
    Property::required("method", Kind::Enum(METHODS), "The method."),
    Property::new("headers", Kind::Templates, "Headers, name to text."),
    Property::new(
        "params",
        Kind::Templates,
        "Parameters of the address, name to value.",
    ),
    PAYLOAD,
    Property::new("payload-type", PAYLOAD_TYPE, "How the payload is sent.").or("\"json\""),
    Property::new("payload_type", PAYLOAD_TYPE, "The same as payload-type."),
    PROPERTIES,
    PAYLOAD_PROPERTY,
    ID_EXPRESSION,
    UPDATED_EXPRESSION,
    Property::new(
        "error_expression",
        Kind::Template,
        "A template that says something about a JSON answer that is an error.",
    ),
    Property::new(
        "next_page_link",
        Kind::Template,
        "A template that gives the address of the next page.",
    ),
    Property::new(
        "next_page_termination_strategy",
        Kind::StringOrList,
        "When paging is over: empty-result, same-next-page-link, next-page-link-empty, \
         same-next-page-request, same-response or not-full-page, or several of them.",
    ),
    Property::new(
        "page_size",
        Kind::StringOrInteger,
        "How many entities a page has.",
    ),
    RESPONSE_PROPERTY,
    RESPONSE_HEADERS_PROPERTY,
    RESPONSE_STATUS_PROPERTY,
    SINCE_PROPERTY_NAME,
    SINCE_PROPERTY_LOCATION,
    ALLOWED_STATUS_CODES,
    IGNORED_STATUS_CODES,
    RATE_LIMITING_RETRIES,
    RATE_LIMITING_DELAY,
    Property::new(
        "parallel_requests",
        Kind::Integer(1),
        "How many of a sink's requests may be under way at once, for different entities, at most \
         32.",
    )
    .or("1"),
];

/// The methods that an operation may have.
pub(super) const METHODS: &[&str] = &["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"];

const PAYLOAD_TYPE: Kind = Kind::Enum(&["text", "json", "json-transit", "form", "multipart-form"]);

/// `since_property_name`.
pub(super) const SINCE_PROPERTY_NAME: Property = Property::new(
    "since_property_name",
    Kind::String,
    "The name of the parameter or header that the offset is sent in; the operation's, or \
     else `since`.",
);

/// `since_property_location`.
pub(super) const SINCE_PROPERTY_LOCATION: Property = Property::new(
    "since_property_location",
    Kind::Enum(&["query", "header", "manual"]),
    "Where the offset is sent: in a parameter, in a header, or only where templates do; \
     the operation's, or else in a parameter.",
);

/// `allowed_status_codes`.
pub(super) const ALLOWED_STATUS_CODES: Property = Property::new(
    "allowed_status_codes",
    Kind::Any,
    "Statuses and ranges of them whose answers a transform passes on; all others are failures.",
);

/// `ignored_status_codes`.
pub(super) const IGNORED_STATUS_CODES: Property = Property::new(
    "ignored_status_codes",
    Kind::Any,
    "Statuses and ranges of them whose answers, and the entities with them, a transform leaves \
     out.",
);
