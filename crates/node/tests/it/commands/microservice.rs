//! `tahini microservice`: what `check` says of services that are wrong in one thing each, and what
//! `new` writes. The services that `new` writes are tried in `tests/test_microservices.py`.

mod service;

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::Project;
use service::{Asked, Service, chunked, json_answer, plain};

/// Changes what a right service would answer.
type Fault = fn(&Asked, Vec<u8>) -> Vec<u8>;

/// The row of a report, as verdict and message; both empty when there is none.
fn row(report: &Value, protocol: &str, name: &str) -> (String, String) {
    let findings = report["findings"].as_array().unwrap();
    let found = findings
        .iter()
        .find(|row| row["check"] == name && row["protocol"] == protocol);
    let text =
        |key: &str| found.map_or_else(String::new, |row| row[key].as_str().unwrap().to_owned());
    (text("verdict"), text("message"))
}

fn check(service: &Service, kind: &str) -> (i32, Value) {
    let said = Project::of(&[]).call(&[
        "microservice",
        "check",
        &service.url(),
        "--kind",
        kind,
        "--json",
    ]);
    (said.code, said.json())
}

#[test]
fn a_right_service_is_right_in_everything() {
    let service = Service::right();
    for (kind, looked) in [("source", 13), ("sink", 9), ("source+sink", 22)] {
        let (code, report) = check(&service, kind);
        assert_eq!(
            (code, &report["wrong"], &report["warnings"]),
            (0, &json!(0), &json!(0)),
            "{report}"
        );
        let findings = report["findings"].as_array().unwrap();
        let ok = findings.iter().filter(|row| row["verdict"] == "ok").count();
        assert_eq!(ok, looked, "{kind}: {report}");
        assert_eq!(report["kind"], kind);
    }
    let service = Service::transform();
    let (code, report) = check(&service, "transform");
    assert_eq!(
        (code, &report["wrong"], &report["warnings"]),
        (0, &json!(0), &json!(0)),
        "{report}"
    );
}

#[test]
fn a_person_reads_what_was_expected_and_what_helps() {
    let service = Service::wrong(|asked, right| match asked.method.as_str() {
        "GET" => json_answer(&json!({"orders": [{"_id": "1"}]})),
        _ => right,
    });
    let said = Project::of(&[]).call(&["microservice", "check", &service.url()]);
    assert_eq!(said.code, 1, "{}", said.out);
    let wrong = said
        .out
        .lines()
        .find(|line| line.contains("WRONG"))
        .unwrap();
    assert!(
        wrong.contains("expected one JSON array") && wrong.contains("orders"),
        "{wrong}"
    );
    assert!(
        said.out.contains("help: send the array itself"),
        "{}",
        said.out
    );
    assert!(
        said.out
            .lines()
            .last()
            .unwrap()
            .ends_with("1 wrong, 0 warnings"),
        "{}",
        said.out
    );
}

#[test]
fn a_service_that_is_not_there_has_a_code_of_its_own() {
    let said = Project::of(&[]).call(&["microservice", "check", "http://127.0.0.1:9/entities"]);
    assert_eq!(said.code, 4, "{}", said.err);
    assert!(said.err.contains("could not reach it"), "{}", said.err);
    for wrong in ["ftp://x/y", "entities"] {
        let said = Project::of(&[]).call(&["microservice", "check", wrong]);
        assert_eq!(said.code, 1, "{}", said.err);
    }
}

/// Each fault, and the verdict of which row it must make.
fn hold(protocol: &str, kind: &str, cases: &[(&str, &str, Fault)]) {
    for (name, verdict, fault) in cases {
        let service = match kind {
            "transform" => Service::wrong_transform(*fault),
            _ => Service::wrong(*fault),
        };
        let (code, report) = check(&service, kind);
        let (found, message) = row(&report, protocol, name);
        assert_eq!(found, *verdict, "{name}: {message}\n{report:#}");
        let wrong = i32::from(*verdict == "wrong");
        assert_eq!(code, wrong, "{name}: {report:#}");
        if wrong == 1 {
            // One fault is told once, and not as something else.
            let others: Vec<&Value> = report["findings"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|row| row["verdict"] == "wrong")
                .collect();
            assert_eq!(others.len(), 1, "{name}: {report:#}");
        }
    }
}

/// The array of a right answer to a pull.
fn entities(answer: &[u8]) -> Vec<Value> {
    let text = String::from_utf8_lossy(answer);
    let body = text.split_once("\r\n\r\n").unwrap().1;
    let (from, to) = (body.find('[').unwrap(), body.rfind(']').unwrap());
    serde_json::from_str(&body[from..=to]).unwrap()
}

fn with(answer: &[u8], change: impl Fn(usize, &mut Value)) -> Vec<u8> {
    let mut all = entities(answer);
    for (at, entity) in all.iter_mut().enumerate() {
        change(at, entity);
    }
    json_answer(&json!(all))
}

fn is_plain(asked: &Asked) -> bool {
    asked.method == "GET" && asked.query.is_empty()
}

#[test]
fn answers_that_are_no_arrays() {
    hold(
        "pull",
        "source",
        &[
            ("status", "wrong", |_, _| {
                plain("404 Not Found", "text/html", "<html>nothing here</html>")
            }),
            ("content-type", "wrong", |_, right| {
                String::from_utf8(right)
                    .unwrap()
                    .replace("application/json", "text/html; charset=utf-8")
                    .into_bytes()
            }),
            ("content-type", "warning", |_, right| {
                String::from_utf8(right)
                    .unwrap()
                    .replace("application/json", "text/plain")
                    .into_bytes()
            }),
            ("array", "wrong", |_, _| json_answer(&json!({"orders": []}))),
            ("array", "wrong", |_, _| {
                json_answer(&json!({"_id": "1", "_updated": 1}))
            }),
            ("array", "wrong", |_, _| {
                plain("200 OK", "application/json", "")
            }),
            ("array", "wrong", |_, _| json_answer(&json!(["1", "2"]))),
            ("array", "wrong", |_, _| {
                plain(
                    "200 OK",
                    "application/json",
                    "[{\"_id\": \"1\", \"_updated\": 1}] and more",
                )
            }),
            ("array", "wrong", |_, _| {
                plain("200 OK", "application/json", "[{\"_id\": '1'}]")
            }),
            ("whole", "wrong", |asked, right| match is_plain(asked) {
                true => plain(
                    "200 OK",
                    "application/json",
                    "[{\"_id\": \"1\"}, {\"_id\": \"2\"}",
                ),
                false => right,
            }),
            ("whole", "wrong", |_, _| {
                let cut = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n[{\"_id\": \"1\"},";
                cut.as_bytes().to_vec()
            }),
            ("whole", "wrong", |asked, right| {
                match asked.query.contains_key("since") {
                    true => plain(
                        "200 OK",
                        "application/json",
                        "[{\"_id\": \"1\", \"_updated\": 7},",
                    ),
                    false => right,
                }
            }),
            ("marked-end", "warning", |_, right| {
                let text = String::from_utf8(right).unwrap();
                let body = text.split_once("\r\n\r\n").unwrap().1;
                format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{body}")
                    .into_bytes()
            }),
        ],
    );
}

#[test]
fn connections_that_are_closed_without_a_word() {
    fn silent(_: &Asked, right: Vec<u8>) -> Vec<u8> {
        let text = String::from_utf8(right).unwrap();
        text.replace("Connection: close", service::CLOSES_LATER)
            .into_bytes()
    }
    hold("pull", "source", &[("connection", "warning", silent)]);
    hold("push", "sink", &[("connection", "warning", silent)]);
}

#[test]
fn errors_inside_a_200() {
    hold(
        "pull",
        "source",
        &[
            ("errors-inside", "wrong", |_, _| {
                json_answer(&json!({"error": "no connection", "code": 17}))
            }),
            ("errors-inside", "wrong", |_, _| {
                json_answer(&json!({"message": "401 from the CRM"}))
            }),
            ("errors-inside", "wrong", |asked, right| {
                match is_plain(asked) {
                    true => {
                        let mut all = entities(&right);
                        all.push(json!({"error": "timeout", "status": 504}));
                        // Whoever adds it does so without any other trace.
                        all.iter_mut().for_each(|entity| {
                            entity.as_object_mut().unwrap().remove("_updated");
                        });
                        json_answer(&json!(all))
                    }
                    false => right,
                }
            }),
            ("errors-inside", "wrong", |_, _| {
                plain(
                    "200 OK",
                    "application/json",
                    "[{\"_id\": \"1\", \"_updated\": 1},\nTraceback (most recent call last):\n",
                )
            }),
        ],
    );
    hold(
        "push",
        "sink",
        &[
            ("errors-inside", "wrong", |asked, right| {
                match asked.entities() {
                    Some(all) if !all.is_empty() => {
                        json_answer(&json!({"error": "KeyError", "message": "name"}))
                    }
                    _ => right,
                }
            }),
            ("errors-inside", "wrong", |asked, right| {
                match asked.entities() {
                    Some(all) if !all.is_empty() => plain(
                        "200 OK",
                        "text/html",
                        "<html><title>Internal Server Error</title></html>",
                    ),
                    _ => right,
                }
            }),
        ],
    );
}

#[test]
fn entities_that_a_pipe_cannot_use() {
    hold(
        "pull",
        "source",
        &[
            ("id", "warning", |_, right| {
                with(&right, |_, entity| {
                    entity.as_object_mut().unwrap().remove("_id");
                })
            }),
            ("id", "warning", |_, right| {
                with(&right, |_, entity| {
                    entity["_id"] = entity["_updated"].clone()
                })
            }),
            ("deleted", "wrong", |_, right| {
                with(&right, |_, entity| entity["_deleted"] = json!("yes"))
            }),
            ("updated", "warning", |_, right| {
                with(&right, |_, entity| {
                    entity.as_object_mut().unwrap().remove("_updated");
                })
            }),
            ("updated", "wrong", |asked, right| {
                with(&right, |at, entity| {
                    if at == 2 && is_plain(asked) {
                        entity.as_object_mut().unwrap().remove("_updated");
                    }
                })
            }),
            ("updated", "wrong", |_, right| {
                with(&right, |_, entity| {
                    if entity["_id"] == "3" {
                        entity["_updated"] = json!("2024-01-01");
                    }
                })
            }),
            ("updated", "wrong", |_, right| {
                with(&right, |_, entity| entity["_updated"] = json!({"at": 1}))
            }),
            ("order", "wrong", |_, right| {
                let mut all = entities(&right);
                if all.len() > 3 {
                    all.swap(3, 4);
                }
                json_answer(&json!(all))
            }),
            ("order", "warning", |asked, right| {
                let mut all = match asked.query.contains_key("limit") {
                    true => service::records(),
                    false => entities(&right),
                };
                all.reverse();
                json_answer(&json!(all))
            }),
        ],
    );
}

#[test]
fn since_and_limit() {
    hold(
        "pull",
        "source",
        &[
            ("since", "wrong", |asked, right| {
                match asked.query.contains_key("since") && !asked.query.contains_key("limit") {
                    true => json_answer(&json!(service::records())),
                    false => right,
                }
            }),
            ("since", "wrong", |asked, right| {
                match asked.number("since") {
                    // It loses what came right behind.
                    Some(since) if !asked.query.contains_key("limit") => {
                        let later = service::records()
                            .into_iter()
                            .filter(|entity| entity["_updated"].as_i64().unwrap() > since + 10);
                        json_answer(&json!(later.collect::<Vec<_>>()))
                    }
                    _ => right,
                }
            }),
            // What is not newer by a step comes again: that does no harm.
            ("since", "ok", |asked, right| match asked.number("since") {
                Some(since) => {
                    let later = service::records()
                        .into_iter()
                        .filter(|entity| entity["_updated"].as_i64().unwrap() >= since);
                    let limit = asked.number("limit").unwrap_or(1000);
                    json_answer(&json!(
                        later
                            .take(usize::try_from(limit).unwrap())
                            .collect::<Vec<_>>()
                    ))
                }
                _ => right,
            }),
            ("nothing-new", "wrong", |asked, right| {
                match entities(&right).is_empty() && asked.method == "GET" {
                    true => "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
                        .as_bytes()
                        .to_vec(),
                    false => right,
                }
            }),
            ("nothing-new", "wrong", |_, right| {
                match entities(&right).is_empty() {
                    true => plain(
                        "404 Not Found",
                        "application/json",
                        "{\"message\": \"nothing new\"}",
                    ),
                    false => right,
                }
            }),
            ("nothing-new", "wrong", |_, right| {
                match entities(&right).is_empty() {
                    true => plain("200 OK", "application/json", "null"),
                    false => right,
                }
            }),
            ("limit", "warning", |asked, right| {
                match asked.query.contains_key("limit") && asked.query.len() == 1 {
                    true => json_answer(&json!(service::records())),
                    false => right,
                }
            }),
            ("limit", "wrong", |asked, right| {
                match asked.number("limit") {
                    Some(1) => json_answer(&json!([service::records()[6]])),
                    _ => right,
                }
            }),
            ("limit", "wrong", |asked, right| {
                match asked.number("limit") {
                    Some(1) => json_answer(&json!([])),
                    _ => right,
                }
            }),
            ("pages", "wrong", |asked, right| {
                match (asked.number("limit"), asked.number("since")) {
                    // Cut off first, compared afterwards.
                    (Some(limit), Some(since)) => {
                        let first = service::records()
                            .into_iter()
                            .take(usize::try_from(limit).unwrap());
                        json_answer(&json!(
                            first
                                .filter(|entity| entity["_updated"].as_i64().unwrap() > since)
                                .collect::<Vec<_>>()
                        ))
                    }
                    _ => right,
                }
            }),
        ],
    );
}

/// More than a megabyte of entities.
fn large() -> Value {
    let text = "x".repeat(50_000);
    json!(
        (1..=40)
            .map(|at| json!({"_id": format!("{at}"), "_updated": at, "text": text}))
            .collect::<Vec<_>>()
    )
}

/// `large` after `since`, up to `limit`.
fn part_of_large(asked: &Asked) -> Value {
    let since = asked.number("since").unwrap_or(0);
    let limit = usize::try_from(asked.number("limit").unwrap_or(1000)).unwrap();
    let all = large();
    let later = all
        .as_array()
        .unwrap()
        .iter()
        .filter(|entity| entity["_updated"].as_i64().unwrap() > since);
    json!(later.take(limit).collect::<Vec<_>>())
}

#[test]
fn a_large_answer_comes_as_it_is_made() {
    hold(
        "pull",
        "source",
        &[
            ("streams", "ok", |asked, _| {
                chunked(&part_of_large(asked).to_string())
            }),
            ("streams", "warning", |asked, _| {
                json_answer(&part_of_large(asked))
            }),
            ("streams", "wrong", |asked, _| {
                if is_plain(asked) {
                    // Everything is read from somewhere before the first byte goes.
                    std::thread::sleep(std::time::Duration::from_millis(1500));
                }
                chunked(&part_of_large(asked).to_string())
            }),
        ],
    );
}

#[test]
fn a_reader_that_hangs_up_harms_nobody() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let service = Service::that_dies_of_hanging_up(|asked, right| {
        // The first is read to its end; those that are left in the middle are larger than what lies on the way.
        if is_plain(asked) && ASKED.fetch_add(1, Ordering::SeqCst) > 0 {
            let text = "x".repeat(40_000_000);
            return chunked(
                &json!([{"_id": "1", "_updated": 10}, {"_id": "2", "text": text}]).to_string(),
            );
        }
        right
    });
    let (code, report) = check(&service, "source");
    let (verdict, message) = row(&report, "pull", "hang-up");
    assert_eq!(
        (code, verdict.as_str()),
        (1, "wrong"),
        "{message}: {report:#}"
    );
}

#[test]
fn batches_that_are_tripped_over() {
    hold(
        "push",
        "sink",
        &[
            ("incremental", "wrong", |_, _| refused()),
            ("again", "wrong", |asked, right| match asked.is_again() {
                true => plain("409 Conflict", "application/json", "{}"),
                false => right,
            }),
            ("final-batch", "wrong", |asked, right| {
                match asked.entities() {
                    Some(all) if all.is_empty() => refused(),
                    _ => right,
                }
            }),
            // It does not even answer.
            ("final-batch", "wrong", |asked, right| {
                match asked.entities() {
                    Some(all) if all.is_empty() => Vec::new(),
                    _ => right,
                }
            }),
            ("full", "wrong", |asked, right| {
                match asked.query.get("is_full").map(String::as_str) {
                    Some("true") => refused(),
                    _ => right,
                }
            }),
            ("conflict", "ok", |asked, right| {
                match asked.is_out_of_step() {
                    true => plain("409 Conflict", "application/json", "{}"),
                    false => right,
                }
            }),
            ("conflict", "warning", |asked, right| {
                match asked.query.get("previous_request_id").map(String::as_str) {
                    Some("99") => plain("409 Conflict", "application/json", "{}"),
                    _ => right,
                }
            }),
            ("deletion", "wrong", |asked, right| match asked.entities() {
                Some(all) if all.iter().any(|entity| entity["_deleted"] == true) => refused(),
                _ => right,
            }),
            ("large-batch", "wrong", |asked, right| {
                match asked.body.len() > 1_000_000 {
                    true => plain("413 Content Too Large", "application/json", "{}"),
                    false => right,
                }
            }),
            ("broken-batch", "wrong", |asked, right| {
                match asked.entities() {
                    None => json_answer(&json!({})),
                    Some(_) => right,
                }
            }),
        ],
    );
}

fn refused() -> Vec<u8> {
    plain(
        "500 Internal Server Error",
        "application/json",
        "{\"message\": \"KeyError: name\"}",
    )
}

#[test]
fn what_transforms_lose() {
    hold(
        "transform",
        "transform",
        &[
            (
                "ids-back",
                "warning",
                |_, right| match String::from_utf8_lossy(&right).starts_with("HTTP/1.1 200") {
                    true => json_answer(&json!(
                        entities(&right).into_iter().take(1).collect::<Vec<_>>()
                    )),
                    false => right,
                },
            ),
            (
                "deleted-back",
                "wrong",
                |_, right| match String::from_utf8_lossy(&right).starts_with("HTTP/1.1 200") {
                    true => with(&right, |_, entity| entity["_deleted"] = json!(false)),
                    false => right,
                },
            ),
            ("empty-back", "wrong", |asked, right| {
                match asked.entities() {
                    Some(all) if all.is_empty() => plain("200 OK", "application/json", "null"),
                    _ => right,
                }
            }),
            ("broken-batch", "wrong", |asked, right| {
                match asked.entities() {
                    None => json_answer(&json!([])),
                    Some(_) => right,
                }
            }),
            ("status", "wrong", |_, _| refused()),
            ("status", "wrong", |asked, right| match asked.entities() {
                Some(all) if all.is_empty() => Vec::new(),
                _ => right,
            }),
            ("array", "wrong", |_, _| {
                json_answer(&json!({"entities": []}))
            }),
        ],
    );
}

#[test]
fn entities_of_ones_own_are_sent_instead() {
    let service = Service::wrong(|asked, right| match asked.entities() {
        Some(all)
            if all
                .iter()
                .any(|entity| entity["_id"] != "ada" || entity["_hash"].is_null()) =>
        {
            refused()
        }
        _ => right,
    });
    let project = Project::of(&[]);
    project.write("people.json", "{\"_id\": \"ada\", \"name\": \"Ada\"}\n");
    project.write("none.json", "[]");
    let call = |file: &str| {
        project.call(&[
            "microservice",
            "check",
            &service.url(),
            "--kind",
            "sink",
            "--entities",
            file,
        ])
    };
    let said = call("people.json");
    assert_eq!(said.code, 0, "{}", said.out);
    assert!(
        said.out
            .contains("only the entities that were given are sent"),
        "{}",
        said.out
    );
    assert_eq!(call("none.json").code, 1);
    let said = project.call(&["microservice", "check", &service.url(), "--kind", "sink"]);
    assert_eq!(said.code, 1, "others are refused: {}", said.out);
}

#[test]
fn headers_go_along_and_full_sequences_may_be_left_out() {
    let service = Service::wrong(|asked, right| match asked.header("authorization") {
        Some("Bearer abc")
            if asked
                .query
                .get("is_full")
                .is_none_or(|full| full == "false") =>
        {
            right
        }
        _ => plain("401 Unauthorized", "application/json", "{}"),
    });
    let url = service.url();
    let project = Project::of(&[]);
    let with_token = [
        "microservice",
        "check",
        &url,
        "--kind",
        "source+sink",
        "--no-full",
        "--header",
        "Authorization: Bearer abc",
    ];
    assert_eq!(project.call(&with_token).code, 0);
    let said = project.call(&with_token[..6]);
    assert_eq!(said.code, 1);
    assert!(said.out.contains("found 401"), "{}", said.out);
}

#[test]
fn what_is_new_is_whole_and_in_nobodys_place() {
    let project = Project::of(&[]);
    for lang in ["python", "node", "rust"] {
        for kind in ["source", "sink", "transform", "source+sink"] {
            let name = format!("our-{lang}-{}", kind.replace('+', "-"));
            let said =
                project.call(&["microservice", "new", &name, "--lang", lang, "--kind", kind]);
            assert_eq!(said.code, 0, "{}", said.err);
            for file in said.out.lines() {
                let text = std::fs::read_to_string(project.0.path().join(file)).unwrap();
                for left in ["my-service", "my-route", "my-kind"] {
                    assert!(!text.contains(left), "{file} has {left}");
                }
            }
            let said = project.call(&["validate", &name, "--json"]);
            let report = said.json();
            assert_eq!(
                (&report["errors"], &report["warnings"]),
                (&json!(0), &json!(0)),
                "{report}"
            );
            assert_eq!(
                project.call(&["fmt", "--check", &name]).code,
                0,
                "{name} is laid out"
            );
        }
    }
}

#[test]
fn nothing_is_overwritten() {
    let project = Project::of(&[]);
    project.write("ours/systems/crm.conf.json", "ours");
    let new = |name: &str| {
        project.call(&[
            "microservice",
            "new",
            name,
            "--lang",
            "node",
            "--kind",
            "sink",
            "--project",
            "ours",
        ])
    };
    let said = new("crm");
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    assert!(
        said.err.contains("systems/crm.conf.json") && said.err.contains("nothing was changed"),
        "{}",
        said.err
    );
    assert!(!project.0.path().join("ours/services").exists());
    assert_eq!(new("crm-2").code, 0);
    let again = new("crm-2");
    assert_eq!((again.code, again.out.as_str()), (1, ""));
    for name in ["Crm", "c", "../crm", "tahini", "crm_2"] {
        assert_eq!(new(name).code, 1, "{name}");
    }
}
