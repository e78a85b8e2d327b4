//! Names of component types that the manual of the reference documents, deprecated ones too:
//! a configuration that uses one that is not here yet loads, with a warning.

/// What a component of a pipe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Where entities come from.
    Source,
    /// What happens on the way.
    Transform,
    /// Where entities go.
    Sink,
    /// What the others connect to.
    System,
}

impl Role {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Source => "source",
            Role::Transform => "transform",
            Role::Sink => "sink",
            Role::System => "system",
        }
    }

    /// The documented types of this role, sorted.
    pub fn documented(self) -> &'static [&'static str] {
        match self {
            Role::Source => SOURCES,
            Role::Transform => TRANSFORMS,
            Role::Sink => SINKS,
            Role::System => SYSTEMS,
        }
    }
}

const SOURCES: &[&str] = &[
    "binary",
    "conditional",
    "csv",
    "dataset",
    "diff_datasets",
    "embedded",
    "empty",
    "http_endpoint",
    "json",
    "kafka",
    "ldap",
    "merge",
    "merge_datasets",
    "rdf",
    "rest",
    "sdshare",
    "sparql",
    "sql",
    "union_datasets",
];

const SINKS: &[&str] = &[
    "conditional",
    "csv_endpoint",
    "dataset",
    "elasticsearch",
    "http_endpoint",
    "json",
    "kafka",
    "mail",
    "null",
    "replicated_dataset",
    "rest",
    "sdshare",
    "sms",
    "solr",
    "sparql",
    "sql",
    "xml_endpoint",
];

const TRANSFORMS: &[&str] = &[
    "chained",
    "conditional",
    "dtl",
    "emit_children",
    "http",
    "json_schema",
    "lower_keys",
    "properties_to_curies",
    "rdf",
    "rest",
    "template",
    "undirected_graph",
    "upper_keys",
    "uris_to_curies",
    "xml",
];

const SYSTEMS: &[&str] = &[
    "system:elasticsearch",
    "system:kafka",
    "system:ldap",
    "system:microservice",
    "system:mssql",
    "system:mysql",
    "system:oracle",
    "system:oracle_tns",
    "system:postgresql",
    "system:rest",
    "system:smtp",
    "system:solr",
    "system:sqlserver",
    "system:twilio",
    "system:url",
];

/// Sources that read datasets of this node.
pub const DATASET_SOURCES: &[&str] = &[
    "dataset",
    "diff_datasets",
    "merge",
    "merge_datasets",
    "union_datasets",
];

/// Whether the offset of a source of that type tells how far it has read each of its datasets.
pub fn keeps_places(source: &str) -> bool {
    DATASET_SOURCES.contains(&source)
}

/// Sources for which a pipe with namespaces adds them unless told otherwise.
pub const ADDS_NAMESPACES: &[&str] = &[
    "csv",
    "embedded",
    "http_endpoint",
    "json",
    "kafka",
    "ldap",
    "sql",
    "xml",
];

/// Sinks for which a pipe with namespaces removes them unless told otherwise.
pub const REMOVES_NAMESPACES: &[&str] = &[
    "csv_endpoint",
    "elasticsearch",
    "http_endpoint",
    "json",
    "kafka",
    "mail",
    "rest",
    "sms",
    "solr",
    "sql",
];

const HTTP: &[&str] = &["system:microservice", "system:rest", "system:url"];
const REST: &[&str] = &["system:rest"];
const SQL: &[&str] = &[
    "system:mssql",
    "system:mysql",
    "system:oracle",
    "system:oracle_tns",
    "system:postgresql",
    "system:sqlserver",
];

/// The types of system that a component type can use; `None` when anything goes.
pub fn systems_for(role: Role, kind: &str) -> Option<&'static [&'static str]> {
    match (role, kind) {
        (Role::Source, "binary" | "csv" | "xml")
        | (Role::Source | Role::Sink, "json")
        | (Role::Transform, "http" | "json_schema") => Some(HTTP),
        (_, "rest") => Some(REST),
        (_, "sql") => Some(SQL),
        (_, "ldap") => Some(&["system:ldap"]),
        (_, "kafka") => Some(&["system:kafka"]),
        (Role::Sink, "elasticsearch") => Some(&["system:elasticsearch"]),
        (Role::Sink, "solr") => Some(&["system:solr"]),
        (Role::Sink, "mail") => Some(&["system:smtp"]),
        (Role::Sink, "sms") => Some(&["system:twilio"]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted() {
        for table in [
            SOURCES,
            SINKS,
            TRANSFORMS,
            SYSTEMS,
            DATASET_SOURCES,
            ADDS_NAMESPACES,
        ] {
            assert!(table.is_sorted(), "{table:?}");
        }
    }
}
