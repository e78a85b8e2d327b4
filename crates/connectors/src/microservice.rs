//! The `microservice` system: a web server that the node runs.

use std::sync::Arc;

use tahini_hub::config::{Kind, Property};
use tahini_hub::registry::SystemDef;

use crate::http::{HttpSystem, Place, url as rows};

/// The row of `system:microservice`. The node starts and stops the service itself; here is only
/// how to talk to it.
pub const MICROSERVICE: SystemDef = SystemDef {
    name: "system:microservice",
    summary: "A web server that the node runs, as a container or a local process.",
    properties: &[
        Property::new("docker", Kind::Nested(DOCKER), "The container to run."),
        Property::new(
            "process",
            Kind::Nested(PROCESS),
            "The local process to run instead of a container, for development.",
        ),
        Property::new(
            "use_https",
            Kind::Boolean,
            "Whether the service speaks HTTPS instead of HTTP.",
        )
        .or("false"),
        rows::VERIFY_SSL,
        rows::USERNAME,
        rows::PASSWORD,
        rows::AUTHENTICATION,
        rows::CONNECT_TIMEOUT,
        rows::READ_TIMEOUT,
        Property::new(
            "eager_load",
            Kind::Boolean,
            "Whether the service runs even when no pipe uses it.",
        )
        .or("true"),
        rows::RETRY_STRATEGY,
    ],
    open: |ctx| {
        let services = Arc::clone(ctx.services);
        let https = ctx.props.bool("use_https", false)?;
        HttpSystem::open(ctx, Place::Service { services, https })
    },
};

const DOCKER: &[Property] = &[
    Property::required("image", Kind::String, "The image's full name with its tag."),
    Property::required(
        "port",
        Kind::Integer(1),
        "The port that the service listens on.",
    ),
    Property::new(
        "environment",
        Kind::Object,
        "Environment variables; values that are no text are passed as JSON text.",
    ),
    Property::new(
        "username",
        Kind::String,
        "The user of a private image registry.",
    ),
    Property::new(
        "password",
        Kind::String,
        "The password of a private image registry.",
    ),
    Property::new("memory", Kind::Integer(1), "The memory limit in MB.").or("128"),
    Property::new(
        "cpu_quota",
        Kind::Integer(1),
        "The share of processor time in percent of one core, over all cores.",
    )
    .or("25"),
    Property::new(
        "cpu_period",
        Kind::Integer(1),
        "Deprecated. The scheduler's period.",
    )
    .or("100"),
    Property::new(
        "cpuset_cpus",
        Kind::String,
        "Deprecated. The cores to use, as in 0,4 or 0-4.",
    ),
    Property::new(
        "hosts",
        Kind::Object,
        "Host names to IP addresses, known inside the container.",
    )
    .or("{}"),
    Property::new(
        "skip_pull",
        Kind::Boolean,
        "Whether newer images are left alone.",
    )
    .or("false"),
    Property::new(
        "pull_image_cron_expression",
        Kind::Cron,
        "When to look for a newer image and restart with it.",
    ),
];

const PROCESS: &[Property] = &[
    Property::required("command", Kind::Strings, "The program and its arguments."),
    Property::new(
        "cwd",
        Kind::String,
        "The folder to start it in, relative to the project's folder.",
    ),
    Property::new(
        "port",
        Kind::Integer(1),
        "The port to listen on; a free one by default.",
    ),
    Property::new(
        "environment",
        Kind::Object,
        "Environment variables beside those of docker.",
    ),
];
