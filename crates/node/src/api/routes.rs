//! The table of routes. What is not here does not exist; what is here is described at
//! `/api/openapi.json`.

use super::{
    Access, Handle, Param, Place, Route, Verb, backups, components, config, datasets, entities,
    entity_types, env, idle, indexes, language, lineage, merge, page, pipes, preview, proxy,
    publishers, pump, receivers, secrets, status, systems,
};

const fn path(name: &'static str) -> Param {
    Param {
        name,
        place: Place::Path,
    }
}

const fn query(name: &'static str) -> Param {
    Param {
        name,
        place: Place::Query,
    }
}

const fn form(name: &'static str) -> Param {
    Param {
        name,
        place: Place::Form,
    }
}

const fn route(
    method: Verb,
    path: &'static str,
    params: &'static [Param],
    handle: Handle,
    summary: &'static str,
) -> Route {
    Route {
        method,
        path,
        summary,
        params,
        access: Access::Usual,
        handle,
    }
}

const fn open(path: &'static str, handle: Handle, summary: &'static str) -> Route {
    Route {
        method: Verb::Get,
        path,
        summary,
        params: &[],
        access: Access::Open,
        handle,
    }
}

/// A row for admins only, whatever the method.
const fn admin(
    method: Verb,
    path: &'static str,
    params: &'static [Param],
    handle: Handle,
    summary: &'static str,
) -> Route {
    Route {
        method,
        path,
        summary,
        params,
        access: Access::Admin,
        handle,
    }
}

const fn body() -> Param {
    Param {
        name: "body",
        place: Place::Body,
    }
}

/// The row of a method of the proxy, which has a permission of its own.
const fn proxied(method: Verb, path: &'static str, params: &'static [Param]) -> Route {
    Route {
        method,
        path,
        summary: "Passes the request on to a system's service.",
        params,
        access: Access::Proxy,
        handle: Handle::Flow(|node, call| Box::pin(proxy::pass(node, call))),
    }
}

const PIPE: Param = path("pipe_id");
const DATASET: Param = path("dataset_id");
const SYSTEM: Param = path("system_id");
const PROXY: &str = "/api/systems/{system_id}/proxy/{*rest_of_path}";
const PROXY_ROOT: &str = "/api/systems/{system_id}/proxy/";
const REST: &[Param] = &[SYSTEM, path("rest_of_path")];

/// All routes.
pub static ROUTES: &[Route] = &[
    open("/", Handle::Now(page::show), "The status page."),
    open(
        "/livez",
        Handle::Now(status::live),
        "Whether the process lives.",
    ),
    open(
        "/readyz",
        Handle::Now(status::ready),
        "Whether the node takes requests.",
    ),
    open(
        "/healthz",
        Handle::Now(status::ready),
        "Whether the node takes requests.",
    ),
    open(
        "/api/health",
        Handle::Now(status::health),
        "Whether the node does its work.",
    ),
    open(
        "/api/ping",
        Handle::Now(status::ping),
        "Whether anybody is there.",
    ),
    route(
        Verb::Get,
        "/api",
        &[],
        Handle::Now(status::root),
        "What this is.",
    ),
    route(
        Verb::Get,
        "/api/",
        &[query("aggregated")],
        Handle::Now(status::root),
        "What this is.",
    ),
    route(
        Verb::Get,
        "/api/status",
        &[],
        Handle::Work(status::status),
        "When the node started, and which datasets are damaged.",
    ),
    route(
        Verb::Get,
        "/api/metrics",
        &[],
        Handle::Work(status::metrics),
        "Metrics as text.",
    ),
    route(
        Verb::Get,
        "/api/openapi.json",
        &[],
        Handle::Now(status::openapi),
        "This description.",
    ),
    admin(
        Verb::Get,
        "/api/backups",
        &[],
        Handle::Work(backups::list),
        "The backups of this node.",
    ),
    admin(
        Verb::Post,
        "/api/backups",
        &[form("name"), body()],
        Handle::Work(backups::save),
        "Saves the node under a name, beside everything that runs; only what is new is copied.",
    ),
    admin(
        Verb::Get,
        "/api/backups/{backup_id}",
        &[path("backup_id"), query("check")],
        Handle::Work(backups::one),
        "One backup; with check, read through.",
    ),
    route(
        Verb::Get,
        "/api/pipes",
        &[query("fields"), query("verbose")],
        Handle::Work(pipes::list),
        "All pipes: configuration and how they are doing.",
    ),
    route(
        Verb::Get,
        "/api/pipes/{pipe_id}",
        &[PIPE, query("fields")],
        Handle::Work(pipes::one),
        "One pipe.",
    ),
    route(
        Verb::Get,
        "/api/pipes/{pipe_id}/pump",
        &[PIPE],
        Handle::Work(pump::show),
        "How a pipe's pump is doing.",
    ),
    route(
        Verb::Post,
        "/api/pipes/{pipe_id}/pump",
        &[
            PIPE,
            form("operation"),
            form("dont-wait-for-pump-to-start"),
            form("last-seen"),
            form("comment"),
            form("relation"),
            form("entity-id"),
        ],
        Handle::Work(pump::operate),
        "Starts, stops, enables, disables or resets a pipe, or gives its failed entities another chance.",
    ),
    route(
        Verb::Get,
        "/api/pipes/{pipe_id}/entities",
        &[PIPE, query("limit"), query("since"), query("stage")],
        Handle::Flow(|node, call| Box::pin(publishers::look(node, call))),
        "What a pipe would give its sink, or has at another stage.",
    ),
    route(
        Verb::Post,
        "/api/pipes/{pipe_id}/preview",
        &[PIPE, body()],
        Handle::Work(preview::preview),
        "What a pipe makes of a given entity, transform by transform; nothing is written.",
    ),
    route(
        Verb::Get,
        "/api/pipes/{pipe_id}/hops",
        &[PIPE],
        Handle::Work(lineage::hops),
        "How many entities share the keys that the pipe's hops join by.",
    ),
    route(
        Verb::Get,
        "/api/pipes/{pipe_id}/idle",
        &[PIPE],
        Handle::Work(idle::explained),
        "Why a pipe does nothing, back to the pipes where that begins.",
    ),
    route(
        Verb::Get,
        "/api/pipes/{pipe_id}/lineage",
        &[PIPE, query("property"), query("depth")],
        Handle::Work(lineage::told),
        "Where each property of what a pipe makes comes from, back to the sources.",
    ),
    route(
        Verb::Get,
        "/api/pipes/{pipe_id}/merge-explain",
        &[PIPE, query("entity_id")],
        Handle::Work(merge::explained),
        "What an entity was merged with, and which rule and value joined them.",
    ),
    route(
        Verb::Get,
        "/api/dtl/functions",
        &[query("name")],
        Handle::Now(language::functions),
        "The functions of the language: arguments, what they do, examples.",
    ),
    route(
        Verb::Get,
        "/api/pipes/{pipe_id}/entity-types",
        &[PIPE],
        Handle::Work(entity_types::all),
        "What a pipe's entities look like on both sides, as JSON Schema, and how that changed.",
    ),
    route(
        Verb::Get,
        "/api/pipes/{pipe_id}/entity-types/source",
        &[PIPE],
        Handle::Work(entity_types::source),
        "What a pipe's source gives, as JSON Schema.",
    ),
    route(
        Verb::Get,
        "/api/pipes/{pipe_id}/entity-types/sink",
        &[PIPE],
        Handle::Work(entity_types::sink),
        "What a pipe's sink is given, as JSON Schema.",
    ),
    route(
        Verb::Get,
        "/api/pipes/{pipe_id}/generate-schema-definition",
        &[PIPE, query("sample_size"), query("keys_only")],
        Handle::Work(entity_types::columns_of_pipe),
        "Columns for what a pipe gives, as the schema_definition of an SQL sink.",
    ),
    route(
        Verb::Get,
        "/api/datasets/{dataset_id}/generate-schema-definition",
        &[DATASET, query("sample_size"), query("keys_only")],
        Handle::Work(entity_types::columns_of_dataset),
        "Columns for what a dataset holds, as the schema_definition of an SQL sink.",
    ),
    route(
        Verb::Get,
        "/api/pipes/{pipe_id}/log",
        &[
            PIPE,
            query("limit"),
            query("since"),
            query("history"),
            query("reverse"),
            query("deleted"),
        ],
        Handle::Flow(|node, call| Box::pin(entities::of_log(node, call))),
        "A pipe's execution log.",
    ),
    route(
        Verb::Options,
        "/api/pipes/{pipe_id}/log",
        &[
            PIPE,
            query("since"),
            query("history"),
            query("reverse"),
            query("deleted"),
            query("webhook"),
            query("token"),
        ],
        Handle::Work(entities::log_options),
        "What can be done with a pipe's execution log, and how far it goes.",
    ),
    route(
        Verb::Get,
        "/api/datasets",
        &[query("verbose")],
        Handle::Work(datasets::list),
        "All datasets.",
    ),
    route(
        Verb::Get,
        "/api/datasets/{dataset_id}",
        &[DATASET],
        Handle::Work(datasets::one),
        "One dataset.",
    ),
    route(
        Verb::Post,
        "/api/datasets/{dataset_id}",
        &[DATASET, form("operation")],
        Handle::Work(datasets::operate),
        "Commits or rolls back a dataset's tripped circuit breaker.",
    ),
    route(
        Verb::Delete,
        "/api/datasets/{dataset_id}",
        &[DATASET],
        Handle::Work(datasets::delete),
        "Deletes a dataset with all its versions.",
    ),
    route(
        Verb::Get,
        "/api/datasets/{dataset_id}/entities",
        &[
            DATASET,
            query("limit"),
            query("since"),
            query("history"),
            query("reverse"),
            query("deleted"),
            query("populated"),
            query("uncommitted"),
            query("damaged"),
            query("subset"),
        ],
        Handle::Flow(|node, call| Box::pin(entities::of_dataset(node, call))),
        "What a dataset holds (JSON pull protocol).",
    ),
    route(
        Verb::Options,
        "/api/datasets/{dataset_id}/entities",
        &[
            DATASET,
            query("since"),
            query("history"),
            query("reverse"),
            query("deleted"),
            query("subset"),
            query("webhook"),
            query("token"),
        ],
        Handle::Work(entities::dataset_options),
        "What can be done with a dataset's entities, and how far they go.",
    ),
    route(
        Verb::Post,
        "/api/datasets/{dataset_id}/entities",
        &[DATASET, query("force"), body()],
        Handle::Work(datasets::repost),
        "Writes entities to a dataset by hand; with `force` also those that did not change.",
    ),
    route(
        Verb::Delete,
        "/api/datasets/{dataset_id}/entity",
        &[DATASET, query("entity_id")],
        Handle::Work(datasets::erase),
        "Removes entities with all their versions for good; `entity_id` once for each of them.",
    ),
    route(
        Verb::Get,
        "/api/datasets/{dataset_id}/entity",
        &[
            DATASET,
            query("entity_id"),
            query("offset"),
            query("uncommitted"),
            query("history"),
            query("limit"),
            query("subset"),
        ],
        Handle::Work(datasets::entity),
        "One entity: its latest version, the one at an offset, or the last ones.",
    ),
    route(
        Verb::Get,
        "/api/datasets/{dataset_id}/entities/{*rest_of_path}",
        &[DATASET, path("rest_of_path"), query("subset")],
        Handle::Work(datasets::entity_in_path),
        "One entity: its latest version.",
    ),
    route(
        Verb::Get,
        "/api/datasets/{dataset_id}/indexes",
        &[DATASET],
        Handle::Work(indexes::list),
        "The indexes of a dataset, and how far they are.",
    ),
    route(
        Verb::Delete,
        "/api/datasets/{dataset_id}/indexes/{index_int_id}",
        &[DATASET, path("index_int_id")],
        Handle::Work(indexes::delete),
        "Throws away what an index holds; it is built anew while a pipe wants it.",
    ),
    route(
        Verb::Get,
        "/api/publishers/{pipe_id}/entities",
        &[PIPE, query("since"), query("limit")],
        Handle::Flow(|node, call| Box::pin(publishers::publish(node, call))),
        "What a pipe publishes (JSON pull protocol).",
    ),
    route(
        Verb::Get,
        "/api/publishers/{pipe_id}/entities/{filename}",
        &[PIPE, path("filename"), query("since"), query("limit")],
        Handle::Flow(|node, call| Box::pin(publishers::publish(node, call))),
        "What a pipe publishes, under a file name.",
    ),
    Route {
        method: Verb::Post,
        path: "/api/receivers/{pipe_id}/entities",
        params: &[
            PIPE,
            query("sequence_id"),
            query("is_full"),
            query("request_id"),
            query("previous_request_id"),
            query("is_first"),
            query("is_last"),
        ],
        access: Access::Receiver,
        handle: Handle::Flow(|node, call| Box::pin(receivers::take(node, call))),
        summary: "Takes what is posted to a pipe (JSON push protocol).",
    },
    Route {
        method: Verb::Post,
        path: "/api/pipes/{pipe_id}/webhook",
        params: &[PIPE, body()],
        access: Access::Open,
        handle: Handle::Work(pump::webhook),
        summary: "Starts a pipe's pump for whoever knows the pipe's webhook token.",
    },
    route(
        Verb::Post,
        "/api/pipes",
        &[body(), query("force")],
        Handle::Work(components::add_pipes),
        "Adds pipes.",
    ),
    route(
        Verb::Delete,
        "/api/pipes/{pipe_id}",
        &[PIPE],
        Handle::Work(components::delete_pipe),
        "Deletes a pipe; its datasets stay.",
    ),
    route(
        Verb::Get,
        "/api/pipes/{pipe_id}/config",
        &[PIPE],
        Handle::Work(components::pipe_config),
        "A pipe's configuration as it was written.",
    ),
    route(
        Verb::Put,
        "/api/pipes/{pipe_id}/config",
        &[PIPE, query("force"), body()],
        Handle::Work(components::put_pipe),
        "Replaces a pipe's configuration.",
    ),
    route(
        Verb::Delete,
        "/api/pipes/{pipe_id}/config",
        &[PIPE],
        Handle::Work(components::delete_pipe),
        "Deletes a pipe; its datasets stay.",
    ),
    route(
        Verb::Get,
        "/api/systems",
        &[query("verbose")],
        Handle::Work(systems::list),
        "All systems.",
    ),
    route(
        Verb::Post,
        "/api/systems",
        &[body(), query("force")],
        Handle::Work(components::add_systems),
        "Adds systems.",
    ),
    route(
        Verb::Get,
        "/api/systems/{system_id}",
        &[SYSTEM],
        Handle::Work(systems::one),
        "One system.",
    ),
    route(
        Verb::Delete,
        "/api/systems/{system_id}",
        &[SYSTEM],
        Handle::Work(components::delete_system),
        "Deletes a system.",
    ),
    route(
        Verb::Get,
        "/api/systems/{system_id}/config",
        &[SYSTEM],
        Handle::Work(components::system_config),
        "A system's configuration as it was written.",
    ),
    route(
        Verb::Put,
        "/api/systems/{system_id}/config",
        &[SYSTEM, query("force"), body()],
        Handle::Work(components::put_system),
        "Replaces a system's configuration.",
    ),
    route(
        Verb::Delete,
        "/api/systems/{system_id}/config",
        &[SYSTEM],
        Handle::Work(components::delete_system),
        "Deletes a system.",
    ),
    route(
        Verb::Get,
        "/api/systems/{system_id}/status",
        &[SYSTEM],
        Handle::Flow(|node, call| Box::pin(systems::status(node, call))),
        "How a system's service is doing.",
    ),
    route(
        Verb::Get,
        "/api/systems/{system_id}/logs",
        &[SYSTEM, query("since"), query("last"), query("follow")],
        Handle::Flow(|node, call| Box::pin(systems::logs(node, call))),
        "What a system's service wrote, as text; with follow, what it writes from now on as well.",
    ),
    route(
        Verb::Post,
        "/api/systems/{system_id}/reload",
        &[SYSTEM],
        Handle::Work(systems::reload),
        "Restarts a system's service.",
    ),
    route(
        Verb::Get,
        "/api/systems/{system_id}/secrets",
        &[SYSTEM],
        Handle::Work(secrets::names),
        "The names of a system's secrets.",
    ),
    route(
        Verb::Put,
        "/api/systems/{system_id}/secrets",
        &[SYSTEM, body()],
        Handle::Work(secrets::put),
        "Replaces a system's secrets.",
    ),
    route(
        Verb::Post,
        "/api/systems/{system_id}/secrets",
        &[SYSTEM, body()],
        Handle::Work(secrets::add),
        "Adds secrets to a system.",
    ),
    route(
        Verb::Delete,
        "/api/systems/{system_id}/secrets/{secret_key}",
        &[SYSTEM, path("secret_key")],
        Handle::Work(secrets::delete),
        "Deletes a secret of a system.",
    ),
    route(
        Verb::Get,
        "/api/secrets",
        &[],
        Handle::Work(secrets::names),
        "The names of the global secrets.",
    ),
    route(
        Verb::Put,
        "/api/secrets",
        &[],
        Handle::Work(secrets::put),
        "Sets global secrets.",
    ),
    route(
        Verb::Post,
        "/api/secrets",
        &[],
        Handle::Work(secrets::add),
        "Adds global secrets.",
    ),
    route(
        Verb::Delete,
        "/api/secrets/{secret_key}",
        &[path("secret_key")],
        Handle::Work(secrets::delete),
        "Deletes a global secret.",
    ),
    route(
        Verb::Get,
        "/api/env",
        &[],
        Handle::Work(env::show),
        "The variables.",
    ),
    route(
        Verb::Put,
        "/api/env",
        &[],
        Handle::Work(env::replace),
        "Replaces all variables.",
    ),
    route(
        Verb::Post,
        "/api/env",
        &[],
        Handle::Work(env::add),
        "Adds variables.",
    ),
    route(
        Verb::Patch,
        "/api/env",
        &[],
        Handle::Work(env::add),
        "Adds variables.",
    ),
    route(
        Verb::Delete,
        "/api/env/{env_var}",
        &[path("env_var")],
        Handle::Work(env::delete),
        "Deletes a variable.",
    ),
    route(
        Verb::Get,
        "/api/config",
        &[],
        Handle::Work(config::show),
        "The whole configuration: a JSON array, or a zip.",
    ),
    route(
        Verb::Put,
        "/api/config",
        &[query("force")],
        Handle::Work(config::replace),
        "Replaces the whole configuration.",
    ),
    route(
        Verb::Get,
        "/api/config-all",
        &[],
        Handle::Work(config::show),
        "The whole configuration: a JSON array, or a zip.",
    ),
    route(
        Verb::Put,
        "/api/config-all",
        &[query("force")],
        Handle::Work(config::replace),
        "Replaces the whole configuration.",
    ),
    route(
        Verb::Get,
        "/api/metadata",
        &[],
        Handle::Work(components::metadata),
        "The node's metadata.",
    ),
    route(
        Verb::Put,
        "/api/metadata",
        &[],
        Handle::Work(components::put_metadata),
        "Replaces the metadata.",
    ),
    route(
        Verb::Delete,
        "/api/metadata",
        &[],
        Handle::Work(components::delete_metadata),
        "Deletes the metadata.",
    ),
    proxied(Verb::Get, PROXY, REST),
    proxied(Verb::Post, PROXY, REST),
    proxied(Verb::Put, PROXY, REST),
    proxied(Verb::Patch, PROXY, REST),
    proxied(Verb::Delete, PROXY, REST),
    proxied(Verb::Get, PROXY_ROOT, &[SYSTEM]),
    proxied(Verb::Post, PROXY_ROOT, &[SYSTEM]),
    proxied(Verb::Put, PROXY_ROOT, &[SYSTEM]),
    proxied(Verb::Patch, PROXY_ROOT, &[SYSTEM]),
    proxied(Verb::Delete, PROXY_ROOT, &[SYSTEM]),
];
