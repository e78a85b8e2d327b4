//! Publishing what a pipe gives in other formats than JSON.

use std::io::{Cursor, Read};

use reqwest::Method;
use serde_json::{Value, json};

use super::TestNode;

fn node() -> TestNode {
    let entities = json!([
        {"_id": "1", "foo": "a", "bar": 1, "day": "~t2024-02-29", "at": "~t2024-02-29T12:00:00Z"},
        {"_id": "2", "foo": "b,c", "bar": 2.5, "zoo": true},
        {"_id": "3", "foo": "_x0041_\u{1}", "bar": 12345678901234567890u64, "_deleted": false},
    ]);
    let shape = json!({"type": "dtl", "rules": {"default": [
        ["copy", "_id"], ["add", "id", "_S._id"], ["add", "<foo:tag>", "_S.foo"]
    ]}});
    let node = TestNode::of(json!([
        {"_id": "in", "type": "pipe", "source": {"type": "embedded", "entities": entities},
         "sink": {"type": "dataset", "dataset": "my-entities"}},
        {"_id": "my-entities", "name": "My published csv endpoint", "type": "pipe",
         "source": {"type": "dataset", "dataset": "my-entities"},
         "sink": {
            "type": "csv_endpoint",
            "columns": ["_id", "foo", "bar", "zoo"],
            "filename": "my_data.csv"
         }},
        {"_id": "plain", "type": "pipe", "source": {"type": "dataset", "dataset": "my-entities"},
         "sink": {"type": "csv_endpoint", "columns": ["_id", "day", "at", "bar", "zoo", "foo"],
                  "encoding": "iso-8859-1"}},
        {"_id": "tags", "type": "pipe", "source": {"type": "dataset", "dataset": "my-entities"},
         "transform": shape,
         "sink": {"type": "xml_endpoint", "wrapper": "baz", "filename": "x.xml",
                  "content_disposition": "inline"}},
        {"_id": "shapeless", "type": "pipe", "source": {"type": "dataset", "dataset": "my-entities"},
         "sink": {"type": "xml_endpoint"}},
        {"_id": "wrong", "type": "pipe", "source": {"type": "dataset", "dataset": "my-entities"},
         "sink": {"type": "csv_endpoint", "columns": ["_id"], "encoding": "klingon"}},
    ]));
    node.run("in");
    node
}

#[test]
fn the_documentations_csv_endpoint_publishes() {
    let node = node();
    let all = node.get("/api/publishers/my-entities/csv");
    assert_eq!(
        (all.status, all.header("content-type")),
        (200, "text/csv; charset=utf-8")
    );
    assert_eq!(
        all.header("content-disposition"),
        "attachment; filename=\"my_data.csv\""
    );
    assert_eq!(
        all.text,
        "_id,foo,bar,zoo\r\n1,a,1,\r\n2,\"b,c\",2.5,true\r\n\
         3,_x0041_\u{1},12345678901234567890,\r\n"
    );
    let named = node.get("/api/publishers/my-entities/csv/some_other_filename.csv");
    assert_eq!(
        named.header("content-disposition"),
        "attachment; filename=\"some_other_filename.csv\""
    );
    assert_eq!(named.text, all.text);
    let part = node.get("/api/publishers/my-entities/csv?since=0&limit=1");
    assert_eq!(part.text, "_id,foo,bar,zoo\r\n2,\"b,c\",2.5,true\r\n");
    let none = node.get("/api/publishers/my-entities/csv?limit=0");
    assert_eq!(none.text, "_id,foo,bar,zoo\r\n");
    let plain = node.get("/api/publishers/plain/csv");
    assert_eq!(plain.header("content-disposition"), "");
    assert_eq!(plain.header("content-type"), "text/csv; charset=iso-8859-1");
}

#[test]
fn a_deleted_entity_does_not_count_where_it_does_not_appear() {
    let node = node();
    let gone = json!([{"_id": "1", "_deleted": true}]);
    node.post("/api/datasets/my-entities/entities", gone);
    let after = node.get("/api/publishers/my-entities/csv?limit=2").text;
    let ids: Vec<&str> = after
        .lines()
        .filter_map(|line| line.split(',').next())
        .collect();
    assert_eq!(ids, ["_id", "2", "3"]);
}

#[test]
fn a_workbook_holds_the_same_rows() {
    let node = node();
    let book = node.get("/api/publishers/plain/excel/all.xlsx");
    let kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";
    assert_eq!((book.status, book.header("content-type")), (200, kind));
    assert_eq!(
        book.header("content-disposition"),
        "attachment; filename=\"all.xlsx\""
    );
    let mut archive = zip::ZipArchive::new(Cursor::new(book.bytes)).unwrap();
    let mut sheet = String::new();
    let mut file = archive.by_name("xl/worksheets/sheet1.xml").unwrap();
    file.read_to_string(&mut sheet).unwrap();
    drop(file);
    let rows: Vec<&str> = sheet.split("<row>").skip(1).collect();
    assert_eq!(rows.len(), 4);
    let text = |text: &str| {
        format!("<c t=\"inlineStr\"><is><t xml:space=\"preserve\">{text}</t></is></c>")
    };
    assert_eq!(
        rows[1],
        format!(
            "{}<c s=\"1\"><v>45351</v></c><c s=\"2\"><v>45351.5</v></c><c><v>1</v></c><c/>{}</row>",
            text("1"),
            text("a")
        )
    );
    assert_eq!(
        rows[2],
        format!(
            "{}<c/><c/><c><v>2.5</v></c><c t=\"b\"><v>1</v></c>{}</row>",
            text("2"),
            text("b,c")
        )
    );
    // More digits than a sheet keeps are text, and so is what only looks like an escape.
    let last = format!(
        "{}<c/>{}</row>",
        text("12345678901234567890"),
        text("_x005F_x0041__x0001_")
    );
    assert!(
        rows[3].starts_with(&format!("{}<c/><c/>{last}", text("3"))),
        "{}",
        rows[3]
    );
    for part in [
        "[Content_Types].xml",
        "_rels/.rels",
        "xl/workbook.xml",
        "xl/styles.xml",
    ] {
        archive.by_name(part).unwrap();
    }
    let own = node.get("/api/publishers/my-entities/excel");
    assert_eq!(
        own.header("content-disposition"),
        "attachment; filename=\"my_data.xlsx\""
    );
}

#[test]
fn an_xml_endpoint_publishes_elements() {
    let node = node();
    let all = node.get("/api/publishers/tags/xml");
    assert_eq!(
        (all.status, all.header("content-type")),
        (200, "application/xml; charset=utf-8")
    );
    assert_eq!(
        all.header("content-disposition"),
        "inline; filename=\"x.xml\""
    );
    assert_eq!(
        all.text,
        "<baz><foo:tag id=\"1\">a</foo:tag><foo:tag id=\"2\">b,c</foo:tag>\
         <foo:tag id=\"3\">_x0041_\u{fffd}</foo:tag></baz>"
    );
    let named = node.get("/api/publishers/tags/xml/å\"b.xml?limit=1");
    assert_eq!(
        named.header("content-disposition"),
        "inline; filename=\"_b.xml\""
    );
    assert_eq!(named.text, "<baz><foo:tag id=\"1\">a</foo:tag></baz>");
    let words = "entity \"1\": expected exactly one property like \"<name>\"";
    node.get("/api/publishers/shapeless/xml")
        .is_problem(400, words);
}

#[test]
fn what_is_not_published_is_told() {
    let node = node();
    for (path, status, words) in [
        ("tags/csv", 404, "its sink is no csv_endpoint"),
        ("tags/excel", 404, "its sink is no csv_endpoint"),
        ("my-entities/xml", 404, "its sink is no xml_endpoint"),
        ("my-entities/entities", 404, "its sink is no http_endpoint"),
        ("none/csv", 404, "none"),
        ("my-entities/csv?since=x", 400, "whole number"),
        (
            "my-entities/csv?linked_excel_file=a.xlsx",
            400,
            "linked_excel_file",
        ),
        (
            "wrong/csv",
            409,
            "$.sink.encoding: expected the name of an encoding",
        ),
    ] {
        node.get(&format!("/api/publishers/{path}"))
            .is_problem(status, words);
    }
    let asked = node.request(Method::OPTIONS, "/api/publishers/my-entities/csv/");
    let answer = node.send(asked);
    assert_eq!(
        (answer.status, answer.header("allow")),
        (200, "GET, HEAD, OPTIONS")
    );
    let run = node.pump("my-entities", &[("operation", "start")]);
    assert!(run.status >= 400, "{}", run.text);
    let effective = node.json("/api/pipes/my-entities")["config"]["effective"]["sink"].clone();
    assert_eq!(effective["quoting"], Value::from("minimal"));
    assert_eq!(effective["lineterminator"], Value::from("\r\n"));
}
