//! The properties of pipes, pumps, systems and metadata that no component type owns.

use super::Kind::{
    Any, Boolean, Cron, Enum, Integer, Nested, Number, Object, String, StringOrInteger, Strings,
};
use super::{Kind, Property};

const fn row(name: &'static str, kind: Kind, doc: &'static str) -> Property {
    Property::new(name, kind, doc)
}

const NAME: Property = row("name", String, "A name for people.").noted();
const COMMENT: Property = row(
    "comment",
    Any,
    "A remark for people; text or a list of texts.",
)
.noted();
const DESCRIPTION: Property = row(
    "description",
    Any,
    "A description for people; text or a list of texts.",
)
.noted();
const PERMISSIONS: Property = row(
    "permissions",
    Any,
    "Who may do what: a list of [allow or deny, roles, permissions].",
)
.not_yet();
const PIPE_PERMISSIONS: Property = row(
    "permissions",
    Any,
    "Who may do what: a list of [allow or deny, roles, permissions]. The role `group:Anonymous` \
     with the permission `write_data` lets requests without a token post to the pipe's endpoint.",
);
const FREE: Property = row(
    "metadata",
    Object,
    "Anything that people or tools want to keep here.",
)
.noted();

/// A pipe's own properties, without what its source, transforms and sink say.
pub const PIPE: &[Property] = &[
    Property::required(
        "_id",
        String,
        "The id, unique among all components; without `/`.",
    ),
    Property::required("type", Enum(&["pipe"]), "`pipe`."),
    NAME,
    DESCRIPTION,
    COMMENT,
    row("source", Any, "Where the entities come from."),
    row(
        "transform",
        Any,
        "What happens on the way: one transform, or a list in order.",
    ),
    row(
        "sink",
        Any,
        "Where the entities go; without one, the dataset named like the pipe.",
    ),
    row(
        "pump",
        Nested(PUMP),
        "When the pipe runs, and what it does about failures.",
    ),
    row(
        "metadata",
        Object,
        "Anything that people or tools want to keep here. With `durable`, posts to the pipe are \
         answered when they are on the disk.",
    ),
    PIPE_PERMISSIONS,
    row(
        "batch_size",
        Integer(1),
        "Source entities in a batch; 100, and 1 for a rest sink.",
    ),
    row(
        "checkpoint_interval",
        Integer(1),
        "Batches from one saved offset to the next; as many as hold 10000 entities, or 1 when \
         `batch_size` is 1.",
    ),
    row(
        "disable_set_last_seen",
        Boolean,
        "Protects the offset from being set or reset.",
    )
    .or("false"),
    row(
        "enable_background_rescan",
        Boolean,
        "Rescans run beside incremental runs; with a dataset sink and a source that keeps its place.",
    ),
    row(
        "rescan_when_config_changes",
        Boolean,
        "A changed configuration resets the pipe.",
    ),
    row(
        "reprocessing_policy",
        Enum(&["continue", "automatic"]),
        "Whether a pipe that is out of step with its input resets itself.",
    ),
    row(
        "infer_pipe_entity_types",
        Boolean,
        "Whether entity types are inferred from what the source gives and the sink is given.",
    ),
    row(
        "dependency_tracking",
        Nested(DEPENDENCY_TRACKING),
        "Limits of dependency tracking.",
    )
    .or("{}"),
    row(
        "compaction",
        Nested(COMPACTION),
        "What may be removed from the sink's dataset.",
    )
    .or("{}"),
    row(
        "exclude_completeness",
        Strings,
        "Datasets whose completeness does not count for the sink's dataset.",
    )
    .or("[]"),
    row(
        "include_completeness",
        Strings,
        "The datasets whose completeness counts for the sink's dataset; all that source and rules \
         read by default.",
    ),
    row(
        "namespaced_identifiers",
        Boolean,
        "Switches the defaults of the two below on.",
    ),
    row(
        "namespaces",
        Nested(NAMESPACES),
        "The namespaces that are added; both the pipe's id.",
    ),
    row(
        "add_namespaces",
        Boolean,
        "Adds namespaces before the first transform.",
    ),
    row(
        "remove_namespaces",
        Boolean,
        "Removes namespaces after the last transform.",
    ),
    row(
        "short_config",
        String,
        "Deprecated: a source in one line, `sql://system/table`.",
    ),
];

const NAMESPACES: &[Property] = &[
    row("identity", String, "The namespace of `_id`."),
    row("property", String, "The namespace of property names."),
    row("default", Object, "URI prefixes by namespace."),
];

/// When a pipe runs, and what it does about failures.
pub const PUMP: &[Property] = &[
    row(
        "type",
        String,
        "`datasync`, or `noop` for a pipe that never runs; set by the node.",
    )
    .noted(),
    COMMENT,
    DESCRIPTION,
    NAME,
    row(
        "schedule_interval",
        Number,
        "Seconds from run to run; 30 between datasets, else 900.",
    ),
    row(
        "cron_expression",
        Cron,
        "When to run, in UTC; goes before `schedule_interval`.",
    ),
    row(
        "rescan_run_count",
        Integer(1),
        "Every how many runs is a rescan.",
    ),
    row("rescan_cron_expression", Cron, "When to rescan, in UTC."),
    row(
        "partial_rescan_run_count",
        Integer(1),
        "Every how many runs is a partial rescan: one that begins `partial_rescan_delta` before \
         the offset.",
    ),
    row(
        "partial_rescan_delta",
        Integer(1),
        "How far back a partial rescan goes: a number that is subtracted from the offset or, where \
         that is a time, seconds.",
    ),
    row("run_at_startup", Boolean, "Runs when the node starts, too.").or("false"),
    row(
        "run_at_startup_if_not_populated",
        Boolean,
        "Runs at start when the sink is not populated.",
    ),
    row(
        "use_dead_letter_dataset",
        Boolean,
        "Deprecated: `dead_letter_dataset` names one.",
    ),
    row(
        "dead_letter_dataset",
        Kind::Dataset,
        "Where entities go that were given up.",
    ),
    row(
        "track_dead_letters",
        Boolean,
        "A later success removes the dead letter.",
    )
    .or("false"),
    row(
        "max_read_retries",
        Integer(0),
        "How often a failed read is begun again.",
    )
    .or("0"),
    row(
        "max_seconds_per_entity",
        Number,
        "Fails a run whose transforms are slower.",
    ),
    row(
        "read_retry_delay",
        Number,
        "Seconds before a read is begun again.",
    )
    .or("0"),
    row(
        "write_retry_delay",
        Number,
        "Seconds before a write is tried again.",
    )
    .or("0"),
    row(
        "max_retries_per_entity",
        Integer(0),
        "Retries before an entity is given up.",
    )
    .or("5"),
    row(
        "max_consecutive_write_errors",
        Integer(0),
        "Write errors in a row that end a run.",
    )
    .or("1"),
    row(
        "max_write_errors_in_retry_dataset",
        Integer(0),
        "Failed entities that may wait for a retry; 0 switches retries off.",
    )
    .or("0"),
    row(
        "batch_retries",
        Integer(0),
        "How often a failed batch is sent again.",
    )
    .or("3"),
    row(
        "fallback_to_single_entities_on_batch_fail",
        Boolean,
        "A batch that keeps failing is sent entity by entity.",
    )
    .or("true"),
    row(
        "mode",
        Enum(&["scheduled", "manual", "off"]),
        "Who may start it.",
    )
    .or("\"scheduled\""),
    row(
        "log_events_noop_runs",
        Boolean,
        "Logs runs that did nothing, too.",
    )
    .or("false"),
    row(
        "log_events_noop_runs_changes_only",
        Boolean,
        "A run that changed nothing did nothing, even if it read something.",
    )
    .or("true"),
    row(
        "notification_granularity",
        Number,
        "Seconds after which a run is logged anyway.",
    )
    .or("999999999999999"),
];

const DEPENDENCY_TRACKING: &[Property] = &[
    row(
        "dependency_warning_threshold",
        Integer(0),
        "A run warns when changes of joined datasets concern more entities than this.",
    ),
    row(
        "dependency_error_threshold",
        Integer(0),
        "A run fails when they concern more than this.",
    ),
    row(
        "dependency_warning_threshold_total_bytes",
        Integer(0),
        "A run warns when the entities that they concern have more bytes than this.",
    ),
    row(
        "dependency_error_threshold_total_bytes",
        Integer(0),
        "A run fails when those have more than this.",
    ),
    row(
        "enable_hops_thresholds",
        Boolean,
        "The limits of entities hold for what `hops` joins with one entity of the source, too.",
    ),
];

const NODE_DEPENDENCY_TRACKING: &[Property] = &[
    DEPENDENCY_TRACKING[0].or("10000"),
    DEPENDENCY_TRACKING[1].or("50000"),
    DEPENDENCY_TRACKING[2].or("33554432"),
    DEPENDENCY_TRACKING[3].or("134217728"),
    DEPENDENCY_TRACKING[4].or("false"),
];

const COMPACTION: &[Property] = &[
    row(
        "automatic",
        Boolean,
        "The dataset may be compacted on schedule.",
    )
    .or("true"),
    row("sink", Boolean, "The sink compacts as it writes."),
    row(
        "keep_versions",
        Integer(0),
        "Versions of an entity that are kept.",
    )
    .or("2"),
    row(
        "time_threshold_hours",
        Integer(0),
        "Hours for which a version is kept anyway.",
    ),
    row(
        "time_threshold_hours_pump",
        Integer(0),
        "The same for the execution log.",
    )
    .or("720"),
    row(
        "growth_threshold",
        Number,
        "Growth before it is worth while.",
    )
    .or("1.0"),
    row(
        "compaction_interval",
        Number,
        "Seconds between compactions by the sink.",
    )
    .or("0"),
    row(
        "ttl_deletes_hours",
        Number,
        "Hours until a deleted entity may vanish wholly.",
    ),
    row(
        "ttl_deletes_timeout_seconds",
        Number,
        "Seconds a run may spend on that.",
    )
    .or("60"),
    row("retract", Boolean, "`$retract` removes earlier versions.").or("false"),
    row(
        "retract_timeout_seconds",
        Number,
        "Seconds a run may spend on that.",
    )
    .or("60"),
];

const SINCE: [Property; 7] = [
    row(
        "supports_since",
        Boolean,
        "The source can read from a place on.",
    ),
    row(
        "is_since_comparable",
        Boolean,
        "Any two values of `_updated` can be compared.",
    ),
    row(
        "is_chronological",
        Boolean,
        "Entities come in the order of `_updated`.",
    ),
    row(
        "initial_since_value",
        StringOrInteger,
        "Where to begin when there is no offset yet.",
    ),
    row(
        "updated_expression",
        String,
        "A template that gives `_updated`.",
    )
    .not_yet(),
    row(
        "since_property_name",
        String,
        "The name under which the offset is sent.",
    )
    .not_yet(),
    row(
        "since_property_location",
        Enum(&["query", "header", "manual"]),
        "How it is sent.",
    )
    .not_yet(),
];

/// What every source takes.
pub const SOURCE_COMMON: &[Property] = &[
    Property::required("type", String, "The type of the source."),
    NAME,
    COMMENT,
    DESCRIPTION,
    FREE,
    SINCE[0],
    SINCE[1],
    SINCE[2],
    SINCE[3],
    SINCE[4],
    SINCE[5],
    SINCE[6],
    row(
        "supports_signalling",
        Boolean,
        "A change of the input starts a run.",
    ),
    row(
        "if_source_empty",
        Enum(&["accept", "fail"]),
        "Whether a run that reads nothing fails.",
    ),
    // The tutorials set it on sources that do not know it.
    row(
        "completeness",
        Any,
        "For dataset sources; others ignore it.",
    )
    .noted(),
];

/// What every transform takes.
pub const TRANSFORM_COMMON: &[Property] = &[
    Property::required("type", String, "The type of the transform."),
    NAME,
    COMMENT,
    DESCRIPTION,
    FREE,
    row(
        "side_effects",
        Boolean,
        "The transform changes something outside; previews skip it.",
    )
    .or("false"),
];

/// What every sink takes.
pub const SINK_COMMON: &[Property] = &[
    row(
        "type",
        String,
        "The type of the sink; `dataset` by default.",
    ),
    NAME,
    COMMENT,
    DESCRIPTION,
    FREE,
    row(
        "batch_size",
        Integer(1),
        "Entities in one write, where transforms multiply them.",
    ),
    row(
        "deletion_tracking",
        Boolean,
        "A complete full run deletes what it did not see.",
    ),
];

/// What every system takes.
pub const SYSTEM_COMMON: &[Property] = &[
    Property::required(
        "_id",
        String,
        "The id, unique among all components; without `/`.",
    ),
    Property::required("type", String, "The type of the system."),
    NAME,
    DESCRIPTION,
    COMMENT,
    FREE,
    PERMISSIONS,
    row(
        "worker_threads",
        Integer(1),
        "Pipes that may use the system at the same time.",
    )
    .or("10"),
];

/// The node's own settings.
pub const METADATA: &[Property] = &[
    Property::required("_id", String, "The id; `node` by custom."),
    Property::required("type", Enum(&["metadata"]), "`metadata`."),
    NAME,
    DESCRIPTION,
    COMMENT,
    PERMISSIONS,
    FREE,
    row(
        "namespaced_identifiers",
        Boolean,
        "The default of the pipes' property.",
    )
    .or("false"),
    row(
        "namespaces",
        Nested(&[row("default", Object, "URI prefixes by namespace.")]),
        "Namespaces.",
    )
    .or("{}"),
    row(
        "global_defaults",
        Nested(GLOBAL_DEFAULTS),
        "Defaults of components' properties.",
    )
    .or("{}"),
    row(
        "dependency_tracking",
        Nested(NODE_DEPENDENCY_TRACKING),
        "Limits of dependency tracking.",
    )
    .or("{}"),
    row(
        "task_manager",
        Nested(TASK_MANAGER),
        "What the scheduler does.",
    )
    .or("{}"),
    row("rdf", Object, "Deprecated: prefixes for RDF.").noted(),
];

const TASK_MANAGER: &[Property] = &[
    row(
        "disable_user_pipes",
        Boolean,
        "Neither schedules nor signals start pipes.",
    )
    .or("false"),
    row(
        "disable_pump_scheduler",
        Boolean,
        "Schedules do not start pipes.",
    )
    .or("false"),
];

const GLOBAL_DEFAULTS: &[Property] = &[
    row(
        "use_signalling_internally",
        Boolean,
        "Changes start the pipes behind a dataset.",
    )
    .or("true"),
    row(
        "default_compaction_type",
        Enum(&["sink", "background"]),
        "Whether sinks compact as they write.",
    )
    .or("\"sink\""),
    row(
        "compaction_interval",
        Number,
        "The default of the pipes' property.",
    )
    .or("0"),
    row(
        "compaction_keep_versions",
        Integer(0),
        "The default of the pipes' property.",
    ),
    row(
        "compaction_time_threshold_hours",
        Integer(0),
        "The default of the pipes' property.",
    ),
    row(
        "compaction_time_threshold_hours_pump",
        Integer(0),
        "The default of the pipes' property.",
    ),
    row(
        "compaction_growth_threshold",
        Number,
        "The default of the pipes' property.",
    ),
    row(
        "max_entity_bytes_size",
        Integer(1),
        "The most bytes that an entity may take.",
    )
    .or("104857600"),
    row(
        "run_at_startup_if_not_populated",
        Boolean,
        "The default of the pumps' property.",
    )
    .or("false"),
    row(
        "infer_pipe_entity_types",
        Boolean,
        "The default of the pipes' property.",
    )
    .or("true"),
    row(
        "use_config_circuit_breaker",
        Boolean,
        "Refuses uploads that remove many components.",
    )
    .or("false")
    .not_yet(),
    row(
        "reprocessing_policy",
        Enum(&["continue", "automatic"]),
        "The default of the pipes' property.",
    )
    .or("\"continue\""),
    row(
        "rescan_when_config_changes",
        Boolean,
        "The default of the pipes' property.",
    )
    .or("false"),
    row(
        "enable_background_rescan",
        Boolean,
        "The default of the pipes' property.",
    )
    .or("false"),
    row(
        "eager_load_microservices",
        Boolean,
        "The default of the systems' `eager_load`.",
    )
    .or("true"),
    row(
        "symmetric_namespace_collapse",
        Boolean,
        "`ni` of a URI that no namespace stands for keeps the URI, so that it expands again.",
    )
    .or("false"),
    row(
        "max_merged",
        Integer(1),
        "The most entities that are merged into one.",
    )
    .or("50000"),
    row("always_index_ids", Boolean, "Dataset sinks index `$ids`.").or("false"),
    row(
        "if_source_empty",
        Enum(&["accept", "fail"]),
        "The default of the sources' property.",
    ),
    row(
        "require_populated_input",
        Boolean,
        "The default of the sources' property.",
    )
    .or("false"),
    row(
        "trace",
        Any,
        "The default of the same property of REST sources, transforms and sinks.",
    )
    .or("false"),
    row(
        "verify_ssl",
        Boolean,
        "The default of the URL systems' property.",
    )
    .or("false"),
    // The reference's client writes it into uploads.
    row("enable_cpp_extensions", Boolean, "Means nothing here.").noted(),
];
