//! The table of routes. What is not here does not exist; what is here is described at
//! `/api/openapi.json`.

use super::{
    Access, Handle, Param, Place, Route, Verb, datasets, entities, page, pipes, publishers, pump,
    receivers, status,
};

const fn path(name: &'static str) -> Param {
    Param { name, place: Place::Path }
}

const fn query(name: &'static str) -> Param {
    Param { name, place: Place::Query }
}

const fn form(name: &'static str) -> Param {
    Param { name, place: Place::Form }
}

const fn route(
    method: Verb,
    path: &'static str,
    params: &'static [Param],
    handle: Handle,
    summary: &'static str,
) -> Route {
    Route { method, path, summary, params, access: Access::Usual, handle }
}

const fn open(path: &'static str, handle: Handle, summary: &'static str) -> Route {
    Route { method: Verb::Get, path, summary, params: &[], access: Access::Open, handle }
}

const PIPE: Param = path("pipe_id");
const DATASET: Param = path("dataset_id");

/// All routes.
pub static ROUTES: &[Route] = &[
    open("/", Handle::Now(page::show), "The status page."),
    open("/livez", Handle::Now(status::live), "Whether the process lives."),
    open("/readyz", Handle::Now(status::ready), "Whether the node takes requests."),
    open("/healthz", Handle::Now(status::ready), "Whether the node takes requests."),
    open("/api/health", Handle::Now(status::health), "Whether the node does its work."),
    open("/api/ping", Handle::Now(status::ping), "Whether anybody is there."),
    route(Verb::Get, "/api", &[], Handle::Now(status::root), "What this is."),
    route(Verb::Get, "/api/", &[], Handle::Now(status::root), "What this is."),
    route(Verb::Get, "/api/status", &[], Handle::Now(status::status), "When the node started."),
    route(Verb::Get, "/api/metrics", &[], Handle::Work(status::metrics), "Metrics as text."),
    route(Verb::Get, "/api/openapi.json", &[], Handle::Now(status::openapi), "This description."),
    route(
        Verb::Get,
        "/api/pipes",
        &[query("fields")],
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
        &[PIPE, form("operation"), form("last-seen"), form("comment")],
        Handle::Work(pump::operate),
        "Starts, stops, enables, disables or resets a pipe.",
    ),
    route(
        Verb::Get,
        "/api/pipes/{pipe_id}/entities",
        &[PIPE, query("limit"), query("since"), query("stage")],
        Handle::Flow(|node, call| Box::pin(publishers::look(node, call))),
        "What a pipe would give its sink, or has at another stage.",
    ),
    route(
        Verb::Get,
        "/api/pipes/{pipe_id}/log",
        &[PIPE, query("limit"), query("since"), query("history"), query("reverse"), query("deleted")],
        Handle::Flow(|node, call| Box::pin(entities::of_log(node, call))),
        "A pipe's execution log.",
    ),
    route(Verb::Get, "/api/datasets", &[], Handle::Work(datasets::list), "All datasets."),
    route(
        Verb::Get,
        "/api/datasets/{dataset_id}",
        &[DATASET],
        Handle::Work(datasets::one),
        "One dataset.",
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
        ],
        Handle::Flow(|node, call| Box::pin(entities::of_dataset(node, call))),
        "What a dataset holds (JSON pull protocol).",
    ),
    route(
        Verb::Get,
        "/api/datasets/{dataset_id}/entity",
        &[DATASET, query("entity_id"), query("offset")],
        Handle::Work(datasets::entity),
        "One entity: its latest version or the one at an offset.",
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
    route(
        Verb::Post,
        "/api/receivers/{pipe_id}/entities",
        &[
            PIPE,
            query("sequence_id"),
            query("is_full"),
            query("request_id"),
            query("previous_request_id"),
            query("is_first"),
            query("is_last"),
        ],
        Handle::Flow(|node, call| Box::pin(receivers::take(node, call))),
        "Takes what is posted to a pipe (JSON push protocol).",
    ),
];
