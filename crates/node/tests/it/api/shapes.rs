//! What the reference's description of its API requires of answers, against a node's.

use serde_json::{Value, json};

use super::{TestNode, embedded, ids, reader};

/// What a member must be.
type Is = fn(&Value) -> bool;

/// A path, and for every item of its answer the members that are required there.
struct Shape {
    path: &'static str,
    /// Where the items are lists of things, all of them are looked at.
    members: &'static [(&'static str, Is)],
}

const PIPE: &[(&str, Is)] = &[
    ("/_id", Value::is_string),
    ("/runtime/is-running", Value::is_boolean),
    ("/runtime/is-valid-config", Value::is_boolean),
    ("/runtime/is-disabled", Value::is_boolean),
    ("/runtime/dependencies", Value::is_array),
    ("/runtime/queues", Value::is_object),
    ("/runtime/config-errors", Value::is_array),
    ("/config/original/_id", Value::is_string),
    ("/config/original/type", Value::is_string),
    ("/config/effective/_id", Value::is_string),
    ("/config/effective/type", Value::is_string),
    ("/config/effective/pump", Value::is_object),
    ("/config/effective/source/type", Value::is_string),
    ("/config/effective/sink/type", Value::is_string),
];
const PIPE_ERROR: &[(&str, Is)] = &[
    ("/runtime/config-errors/0/elements", Value::is_string),
    ("/runtime/config-errors/0/msg", Value::is_string),
    ("/runtime/config-errors/0/level", |level| level == "error"),
];
const PUMP: &[(&str, Is)] = &[
    ("/_id", Value::is_string),
    ("/runtime/is-disabled", Value::is_boolean),
    ("/runtime/is-running", Value::is_boolean),
    ("/runtime/queues", Value::is_object),
    ("/runtime/supported-operations", Value::is_array),
];
const ENTITY: &[(&str, Is)] = &[("/_id", Value::is_string), ("/_updated", Value::is_u64)];
const NAMED: &[(&str, Is)] = &[("/_id", Value::is_string)];

const SHAPES: &[Shape] = &[
    Shape {
        path: "/api/pipes",
        members: PIPE,
    },
    Shape {
        path: "/api/pipes?verbose=true",
        members: PIPE,
    },
    Shape {
        path: "/api/pipes/in",
        members: PIPE,
    },
    Shape {
        path: "/api/pipes/wrong",
        members: PIPE_ERROR,
    },
    Shape {
        path: "/api/pipes/in/config",
        members: NAMED,
    },
    Shape {
        path: "/api/pipes/in/pump",
        members: PUMP,
    },
    Shape {
        path: "/api/pipes/box/pump",
        members: PUMP,
    },
    Shape {
        path: "/api/pipes/in/entities",
        members: NAMED,
    },
    Shape {
        path: "/api/pipes/in/log",
        members: ENTITY,
    },
    Shape {
        path: "/api/datasets",
        members: NAMED,
    },
    Shape {
        path: "/api/datasets?verbose=true",
        members: NAMED,
    },
    Shape {
        path: "/api/datasets/in",
        members: NAMED,
    },
    Shape {
        path: "/api/datasets/in/entities",
        members: ENTITY,
    },
    Shape {
        path: "/api/datasets/in/entity?entity_id=b",
        members: ENTITY,
    },
    Shape {
        path: "/api/datasets/in/entities/b",
        members: ENTITY,
    },
    Shape {
        path: "/api/datasets/in/indexes",
        members: &[("/index-int-id", Value::is_u64)],
    },
    Shape {
        path: "/api/publishers/out/entities",
        members: ENTITY,
    },
    Shape {
        path: "/api/publishers/out/entities/all.json",
        members: ENTITY,
    },
    Shape {
        path: "/api/systems?verbose=true",
        members: NAMED,
    },
    Shape {
        path: "/api/systems/s",
        members: NAMED,
    },
    Shape {
        path: "/api/?aggregated=false",
        members: &[("/status/developer_mode", Value::is_boolean)],
    },
];

fn node() -> TestNode {
    let mut first = embedded("in", &["a", "b"]);
    first["sink"] = json!({"type": "dataset", "indexes": ["_S.name"]});
    let mut out = reader("out", "in");
    out["sink"] = json!({"type": "http_endpoint"});
    let node = TestNode::new();
    let config = json!([
        first, out, reader("next", "in"),
        {"_id": "box", "type": "pipe", "source": {"type": "http_endpoint"}},
        {"_id": "wrong", "type": "pipe", "source": {"type": "embeddded"}},
        {"_id": "s", "type": "system:url", "url_pattern": "http://127.0.0.1:9/%s"},
    ]);
    node.put("/api/config?force=true", config).ok();
    node.run("in");
    node
}

#[test]
fn answers_have_what_the_reference_requires() {
    let node = node();
    for shape in SHAPES {
        let answer = node.json(shape.path);
        let items = match answer {
            Value::Array(items) => items,
            one => vec![one],
        };
        assert!(!items.is_empty(), "{}", shape.path);
        for item in &items {
            for (member, is) in shape.members {
                let found = item.pointer(member);
                assert!(found.is_some_and(is), "{member} of {}: {item}", shape.path);
            }
        }
    }
}

#[test]
fn a_pipe_tells_what_its_rules_join() {
    let mut pipe = reader("p", "in");
    pipe["transform"] = json!({"type": "dtl", "rules": {"default": [
        ["copy", "*"],
        ["add", "x", ["hops", {"datasets": ["other o"], "where": ["eq", "_S._id", "o.y"]}]]
    ]}});
    let node = TestNode::of(json!([pipe]));
    assert_eq!(node.runtime("p")["dependencies"], json!(["other"]));
}

/// Of a pipe only the parts that are asked for.
#[test]
fn fields_are_returned_or_left_out() {
    let node = node();
    for (fields, expected) in [
        ("config", vec!["_id", "config"]),
        ("runtime,storage", vec!["_id", "runtime", "storage"]),
        ("-config,-runtime", vec!["_id", "storage"]),
    ] {
        let pipe = node.json(&format!("/api/pipes/in?fields={fields}"));
        let names: Vec<&String> = pipe.as_object().unwrap().keys().collect();
        assert_eq!(names, expected, "{fields}");
        let all = node.json(&format!("/api/pipes?fields={fields}"));
        assert!(all[1].as_object().unwrap().keys().eq(names), "{fields}");
    }
}

/// Operations that the reference documents, each with what it answers where it makes no sense.
#[test]
fn wrong_operations_are_refused_in_words() {
    let node = node();
    node.form("/api/datasets/in", &[("operation", "compact")])
        .is_problem(400, "commit-circuit-breaker");
    node.form(
        "/api/datasets/in",
        &[("operation", "rollback-circuit-breaker")],
    )
    .is_problem(409, "found it is not");
    node.pump("in", &[("operation", "fly")])
        .is_problem(400, "doesn't support the operation");
    node.pump("in", &[]).is_problem(400, "`operation`");
    node.get("/api/pipes/in/entities?stage=nowhere")
        .is_problem(400, "before-transforms");
    node.get("/api/pipes/in/entities?limit=-1")
        .is_problem(400, "whole number");
    node.delete("/api/datasets/none").is_problem(404, "none");
    let pages = node.json("/api/pipes/in/entities?limit=1");
    assert_eq!(ids(&pages), ["a"]);
}
