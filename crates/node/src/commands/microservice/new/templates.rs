//! The templates, each a file of its own in `templates/microservice/`, and what is written of them.

use crate::cli::{Language, ServiceKind};

/// Where a file goes, in the project's folder, and what is in it.
pub type Template = (&'static str, &'static str);

macro_rules! template {
    ($to:literal, $from:literal) => {
        (
            $to,
            include_str!(concat!("../../../../templates/microservice/", $from)),
        )
    };
}

/// Everything that is written for a service.
pub fn files(language: Language, kind: ServiceKind) -> Vec<Template> {
    let (common, own, records) = match language {
        Language::Python => (
            PYTHON,
            python(kind),
            template!("services/my-service/records.py", "python/common/records.py"),
        ),
        Language::Node => (
            NODE,
            node(kind),
            template!("services/my-service/records.mjs", "node/common/records.mjs"),
        ),
        Language::Rust => (
            RUST,
            rust(kind),
            template!(
                "services/my-service/src/records.rs",
                "rust/common/src/records.rs"
            ),
        ),
    };
    let mut files = [common, own, pipes(kind)].concat();
    files.push(container(language, kind));
    files.push(readme(language, kind));
    if kind != ServiceKind::Transform {
        files.push(records);
        files.push(match kind {
            ServiceKind::Sink => ("services/my-service/records.ndjson", ""),
            _ => template!("services/my-service/records.ndjson", "data/records.ndjson"),
        });
    }
    files.sort_unstable();
    files
}

const PYTHON: &[Template] = &[
    template!(
        "services/my-service/protocol.py",
        "python/common/protocol.py"
    ),
    template!("services/my-service/testing.py", "python/common/testing.py"),
    template!("systems/my-service.conf.json", "systems/python.conf.json"),
];

const NODE: &[Template] = &[
    template!(
        "services/my-service/protocol.mjs",
        "node/common/protocol.mjs"
    ),
    template!("services/my-service/testing.mjs", "node/common/testing.mjs"),
    template!("systems/my-service.conf.json", "systems/node.conf.json"),
];

const RUST: &[Template] = &[
    template!(
        "services/my-service/.dockerignore",
        "rust/common/.dockerignore"
    ),
    template!("services/my-service/.gitignore", "rust/common/.gitignore"),
    template!("services/my-service/Cargo.toml", "rust/common/Cargo.toml"),
    template!(
        "services/my-service/src/protocol.rs",
        "rust/common/src/protocol.rs"
    ),
    template!("systems/my-service.conf.json", "systems/rust.conf.json"),
];

fn python(kind: ServiceKind) -> &'static [Template] {
    match kind {
        ServiceKind::Source => &[
            template!("services/my-service/service.py", "python/source/service.py"),
            template!(
                "services/my-service/test_service.py",
                "python/source/test_service.py"
            ),
        ],
        ServiceKind::Sink => &[
            template!("services/my-service/service.py", "python/sink/service.py"),
            template!(
                "services/my-service/test_service.py",
                "python/sink/test_service.py"
            ),
        ],
        ServiceKind::Transform => &[
            template!(
                "services/my-service/service.py",
                "python/transform/service.py"
            ),
            template!(
                "services/my-service/test_service.py",
                "python/transform/test_service.py"
            ),
        ],
        ServiceKind::Both => &[
            template!(
                "services/my-service/service.py",
                "python/source+sink/service.py"
            ),
            template!(
                "services/my-service/test_service.py",
                "python/source+sink/test_service.py"
            ),
        ],
    }
}

fn node(kind: ServiceKind) -> &'static [Template] {
    match kind {
        ServiceKind::Source => &[
            template!("services/my-service/service.mjs", "node/source/service.mjs"),
            template!(
                "services/my-service/service.test.mjs",
                "node/source/service.test.mjs"
            ),
        ],
        ServiceKind::Sink => &[
            template!("services/my-service/service.mjs", "node/sink/service.mjs"),
            template!(
                "services/my-service/service.test.mjs",
                "node/sink/service.test.mjs"
            ),
        ],
        ServiceKind::Transform => &[
            template!(
                "services/my-service/service.mjs",
                "node/transform/service.mjs"
            ),
            template!(
                "services/my-service/service.test.mjs",
                "node/transform/service.test.mjs"
            ),
        ],
        ServiceKind::Both => &[
            template!(
                "services/my-service/service.mjs",
                "node/source+sink/service.mjs"
            ),
            template!(
                "services/my-service/service.test.mjs",
                "node/source+sink/service.test.mjs"
            ),
        ],
    }
}

fn rust(kind: ServiceKind) -> &'static [Template] {
    match kind {
        ServiceKind::Source => &[template!(
            "services/my-service/src/main.rs",
            "rust/source/src/main.rs"
        )],
        ServiceKind::Sink => &[template!(
            "services/my-service/src/main.rs",
            "rust/sink/src/main.rs"
        )],
        ServiceKind::Transform => &[template!(
            "services/my-service/src/main.rs",
            "rust/transform/src/main.rs"
        )],
        ServiceKind::Both => &[template!(
            "services/my-service/src/main.rs",
            "rust/source+sink/src/main.rs"
        )],
    }
}

/// A transform has no system behind it that a file would have to play.
fn container(language: Language, kind: ServiceKind) -> Template {
    match (language, kind) {
        (Language::Python, ServiceKind::Transform) => template!(
            "services/my-service/Dockerfile",
            "python/transform/Dockerfile"
        ),
        (Language::Python, _) => {
            template!("services/my-service/Dockerfile", "python/common/Dockerfile")
        }
        (Language::Node, ServiceKind::Transform) => template!(
            "services/my-service/Dockerfile",
            "node/transform/Dockerfile"
        ),
        (Language::Node, _) => {
            template!("services/my-service/Dockerfile", "node/common/Dockerfile")
        }
        (Language::Rust, ServiceKind::Transform) => template!(
            "services/my-service/Dockerfile",
            "rust/transform/Dockerfile"
        ),
        (Language::Rust, _) => {
            template!("services/my-service/Dockerfile", "rust/common/Dockerfile")
        }
    }
}

fn readme(language: Language, kind: ServiceKind) -> Template {
    match (language, kind) {
        (Language::Python, ServiceKind::Transform) => template!(
            "services/my-service/README.md",
            "python/transform/README.md"
        ),
        (Language::Python, _) => {
            template!("services/my-service/README.md", "python/common/README.md")
        }
        (Language::Node, ServiceKind::Transform) => {
            template!("services/my-service/README.md", "node/transform/README.md")
        }
        (Language::Node, _) => template!("services/my-service/README.md", "node/common/README.md"),
        (Language::Rust, ServiceKind::Transform) => {
            template!("services/my-service/README.md", "rust/transform/README.md")
        }
        (Language::Rust, _) => template!("services/my-service/README.md", "rust/common/README.md"),
    }
}

fn pipes(kind: ServiceKind) -> &'static [Template] {
    match kind {
        ServiceKind::Source => &[template!(
            "pipes/my-service-collect.conf.json",
            "pipes/source/my-service-collect.conf.json"
        )],
        ServiceKind::Sink => &[
            template!(
                "pipes/my-service-people.conf.json",
                "pipes/sink/my-service-people.conf.json"
            ),
            template!(
                "pipes/my-service-share.conf.json",
                "pipes/sink/my-service-share.conf.json"
            ),
        ],
        ServiceKind::Transform => &[
            template!(
                "pipes/my-service-people.conf.json",
                "pipes/transform/my-service-people.conf.json"
            ),
            template!(
                "pipes/my-service-transform.conf.json",
                "pipes/transform/my-service-transform.conf.json"
            ),
        ],
        ServiceKind::Both => &[
            template!(
                "pipes/my-service-changes.conf.json",
                "pipes/source+sink/my-service-changes.conf.json"
            ),
            template!(
                "pipes/my-service-collect.conf.json",
                "pipes/source+sink/my-service-collect.conf.json"
            ),
            template!(
                "pipes/my-service-share.conf.json",
                "pipes/source+sink/my-service-share.conf.json"
            ),
        ],
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn no_file_is_written_twice() {
        for language in Language::value_variants() {
            for kind in ServiceKind::value_variants() {
                let files = files(*language, *kind);
                let twice = files.windows(2).find(|pair| pair[0].0 == pair[1].0);
                assert_eq!(twice, None, "{language:?} {kind:?}");
            }
        }
    }
}
