//! What is looked at, a row each: the report, `--json` and the guide speak of them by these names.

/// The part of the protocols that a row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The service is asked for entities.
    Pull,
    /// The service is sent entities to keep.
    Push,
    /// The service is sent entities and answers with what they become.
    Transform,
}

impl Protocol {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Pull => "pull",
            Protocol::Push => "push",
            Protocol::Transform => "transform",
        }
    }
}

/// One thing that is looked at.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name in reports.
    pub name: &'static str,
    /// What a service should do.
    pub expected: &'static str,
    /// What helps one that does not.
    pub help: &'static str,
}

/// The status.
pub const STATUS: Row = Row {
    name: "status",
    expected: "a status of the 200s",
    help: "look at the service's log for why; where the service is a sink or a transform, say so with --kind",
};
/// The declared type.
pub const CONTENT_TYPE: Row = Row {
    name: "content-type",
    expected: "Content-Type application/json",
    help: "declare what the service sends; a page of HTML is mostly the framework's own error page",
};
/// The root of the body.
pub const ARRAY: Row = Row {
    name: "array",
    expected: "one JSON array of objects, and nothing around it",
    help: "send the array itself, also for a single entity, and [] when there is none",
};
/// The end of the body.
pub const WHOLE: Row = Row {
    name: "whole",
    expected: "an answer that comes to its end",
    help: "the service began with status 200 and broke off: its log says why. To break off is right when what it \
           reads from fails half-way, and the pipe fails with it; otherwise it is a crash",
};
/// How the end is told.
pub const MARKED_END: Row = Row {
    name: "marked-end",
    expected: "an answer whose end is marked, by Content-Length or chunks",
    help: "speak HTTP/1.1: where the end is only a closed connection, a crash looks like it",
};
/// Failures dressed as answers.
pub const ERRORS_INSIDE: Row = Row {
    name: "errors-inside",
    expected: "a failure to be a status of the 400s or 500s, not words inside a 200",
    help: "answer 500 with the reason where nothing was sent yet; once the array has begun, cut the connection \
           without its closing bracket: an array that ends neatly says that these were all",
};
/// The connection.
pub const CONNECTION: Row = Row {
    name: "connection",
    expected: "connections to stay open for the next request, or an answer with Connection: close",
    help: "say Connection: close before closing: a request that is sent meanwhile is lost, and fails the pipe",
};
/// `_id`.
pub const ID: Row = Row {
    name: "id",
    expected: "a string _id in every entity",
    help: "where the service cannot know it, the pipe's first transform must add it",
};
/// `_deleted`.
pub const DELETED: Row = Row {
    name: "deleted",
    expected: "_deleted to be true or false where it is there",
    help: "send true for what is gone; leave it out otherwise",
};
/// `_updated`.
pub const UPDATED: Row = Row {
    name: "updated",
    expected: "an _updated in every entity, all of them integers or all of them strings",
    help: "give each entity the number or time of its last change: the pipe sends the highest back as since",
};
/// The order of `_updated`.
pub const ORDER: Row = Row {
    name: "order",
    expected: "_updated to go up, or stay, from entity to entity",
    help: "sort by the time of change; a pipe that reads this must leave is_chronological off and page_size out",
};
/// `since`.
pub const SINCE: Row = Row {
    name: "since",
    expected: "since=X to give what was changed after X, all of it and little else",
    help: "compare each entity's _updated with the parameter since, after URL-decoding it; without since, everything \
           comes. A pipe may set supports_since only then",
};
/// `since` behind the end.
pub const NOTHING_NEW: Row = Row {
    name: "nothing-new",
    expected: "an array, such as [], when nothing came after since",
    help: "an empty result is the usual one: answer 200 with [], not with an empty body, null, 204 or 404",
};
/// `limit`.
pub const LIMIT: Row = Row {
    name: "limit",
    expected: "limit=N to give the first N entities",
    help: "only pipes with page_size ask for it; without it the service is read in one answer, which is fine when it \
           streams",
};
/// `limit` and `since`.
pub const PAGES: Row = Row {
    name: "pages",
    expected: "since and limit together to give the next entities in turn",
    help: "sort by _updated, take what is greater than since, then cut off at limit; in that order",
};
/// Streaming out.
pub const STREAMS: Row = Row {
    name: "streams",
    expected: "the first entity to arrive while the others are still being read",
    help: "write each entity as it is read, in chunks, instead of collecting a list: memory then does not grow with \
           the number of entities",
};
/// A reader that goes.
pub const HANG_UP: Row = Row {
    name: "hang-up",
    expected: "to go on serving after a reader has hung up half-way",
    help: "a pipe that is stopped closes its connection: let that end this one answer and nothing else",
};

/// An incremental sequence.
pub const INCREMENTAL: Row = Row {
    name: "incremental",
    expected: "a batch of changes to be taken: is_full=false, sequence_id, request_id",
    help: "the parameters may be ignored, and so may the reserved properties that begin with an underscore; the \
           service's log says what it tripped over",
};
/// A request that comes twice.
pub const AGAIN: Row = Row {
    name: "again",
    expected: "a request that comes a second time, with its request_id, to be taken",
    help: "write by _id: the node sends again what it got no answer for",
};
/// The empty batch.
pub const FINAL_BATCH: Row = Row {
    name: "final-batch",
    expected: "the empty batch to be taken that ends every sequence",
    help: "answer 200 to []; do not look at the first entity before knowing that there is one",
};
/// A full sequence.
pub const FULL: Row = Row {
    name: "full",
    expected: "a full sequence to be taken: is_first=true, then the next with previous_request_id, then is_last=true",
    help: "flags come as the texts true and false; what a sink does not need it may ignore",
};
/// A full sequence out of step.
pub const CONFLICT: Row = Row {
    name: "conflict",
    expected: "a service that keeps track of full sequences to refuse each request out of step with 409",
    help: "a wrong previous_request_id, another is_full and a second is_first within one sequence_id are conflicts; \
           only a sink that deletes what a full sequence lacks needs them",
};
/// Deletion.
pub const DELETION: Row = Row {
    name: "deletion",
    expected: "entities with _deleted true to be taken, also a second time",
    help: "delete by _id, and count one that is gone already as deleted; most of its other properties may be missing",
};
/// A large batch.
pub const LARGE_BATCH: Row = Row {
    name: "large-batch",
    expected: "a batch of 100 entities and 2 MB to be taken",
    help: "raise the framework's limit for bodies, or set batch_size in the pipe's sink lower",
};
/// A broken batch.
pub const BROKEN_BATCH: Row = Row {
    name: "broken-batch",
    expected: "a batch that breaks off, or is no array of entities, to be refused",
    help: "answer 400: with 200 the node believes that the batch was written",
};

/// What comes back.
pub const IDS_BACK: Row = Row {
    name: "ids-back",
    expected: "entities to come back under their _id",
    help: "copy the entity and add to it; entities that are left out or come under another _id are taken as new ones",
};
/// Deleted ones through a transform.
pub const DELETED_BACK: Row = Row {
    name: "deleted-back",
    expected: "a deleted entity to come back as deleted",
    help: "pass entities with _deleted true on as they are: otherwise deletions end here",
};
/// Nothing through a transform.
pub const EMPTY_BACK: Row = Row {
    name: "empty-back",
    expected: "[] to be answered with []",
    help: "do not look at the first entity before knowing that there is one",
};

/// Every row, in the order of the protocols.
#[cfg(test)]
pub const ALL: &[&Row] = &[
    &STATUS,
    &CONTENT_TYPE,
    &ARRAY,
    &WHOLE,
    &MARKED_END,
    &ERRORS_INSIDE,
    &CONNECTION,
    &ID,
    &DELETED,
    &UPDATED,
    &ORDER,
    &SINCE,
    &NOTHING_NEW,
    &LIMIT,
    &PAGES,
    &STREAMS,
    &HANG_UP,
    &INCREMENTAL,
    &AGAIN,
    &FINAL_BATCH,
    &FULL,
    &CONFLICT,
    &DELETION,
    &LARGE_BATCH,
    &BROKEN_BATCH,
    &IDS_BACK,
    &DELETED_BACK,
    &EMPTY_BACK,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_tells_of_every_row() {
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../docs/guide/microservices.md"
        );
        let guide = std::fs::read_to_string(file).unwrap();
        for row in ALL {
            assert!(
                guide.contains(&format!("| `{}` |", row.name)),
                "{}",
                row.name
            );
        }
    }
}
