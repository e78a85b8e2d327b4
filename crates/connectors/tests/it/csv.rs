//! The csv source against a server, and what a csv_endpoint publishes.

use serde_json::{Value as Json, json};
use tahini_connectors::formats::{Document, PUBLICATIONS};
use tahini_entity::Batch;
use tahini_hub::Failure;
use tahini_hub::config::Props;

use crate::server::{Reply, Seen, Server};
use crate::world::{World, batch, content, full, read_all};

fn merged(mut config: Json, more: Json) -> Json {
    for (name, value) in more.as_object().unwrap() {
        config[name] = value.clone();
    }
    config
}

fn reply(body: &[u8]) -> Reply {
    let len = body.len();
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n");
    Reply::raw(head).then(body)
}

fn pull(body: &[u8], more: Json) -> (Vec<Seen>, Result<Batch, Failure>) {
    let server = Server::play([reply(body)]);
    let world = World::at(&server.url());
    let config = json!({ "type": "csv", "system": "s", "url": "a.csv", "primary_key": "id" });
    let read = world
        .source(merged(config, more), full())
        .and_then(|mut source| read_all(&mut *source, 2));
    (server.seen(), read)
}

fn entities(body: &str, more: Json) -> Vec<Json> {
    content(&pull(body.as_bytes(), more).1.unwrap())
}

fn failure(body: &[u8], more: Json) -> String {
    pull(body, more).1.unwrap_err().message
}

#[test]
fn the_documentations_example_is_read() {
    // The rows of its file, in the encoding that the example names.
    let body = b"\"Code\",\"Country\"\n\"CI\",\"C\xf4te d'Ivoire\"\n\"NO\",\"Norway\"\n";
    let more = json!({ "primary_key": "Code", "encoding": "iso-8859-1" });
    let (seen, read) = pull(body, more);
    assert_eq!(
        content(&read.unwrap()),
        [
            json!({ "_id": "CI", "Code": "CI", "Country": "Côte d'Ivoire" }),
            json!({ "_id": "NO", "Code": "NO", "Country": "Norway" }),
        ]
    );
    assert_eq!(seen[0].target, "/a.csv");
    assert_eq!(seen[0].header("accept"), Some("text/csv, */*;q=0.8"));
}

#[test]
fn columns_become_properties_as_the_lists_say() {
    let body = "id,a,b,c\n1,x,,z\n2,,y,z\n";
    assert_eq!(
        entities(body, json!({})),
        [
            json!({ "_id": "1", "id": "1", "a": "x", "c": "z" }),
            json!({ "_id": "2", "id": "2", "b": "y", "c": "z" }),
        ]
    );
    let kept = entities(body, json!({ "preserve_empty_strings": true }));
    assert_eq!(
        kept[0],
        json!({ "_id": "1", "id": "1", "a": "x", "b": "", "c": "z" })
    );
    let listed = entities(body, json!({ "whitelist": ["a", "c"], "blacklist": ["c"] }));
    assert_eq!(
        listed,
        [json!({ "_id": "1", "a": "x" }), json!({ "_id": "2" })]
    );
    let both = entities(
        body,
        json!({ "primary_key": ["c", "id"], "blacklist": ["a", "b", "c", "id"] }),
    );
    assert_eq!(both, [json!({ "_id": "z:1" }), json!({ "_id": "z:2" })]);
}

#[test]
fn names_come_from_the_header_or_the_configuration() {
    let named = entities("x,y\n1,a\n", json!({ "field_names": ["id", "n"] }));
    assert_eq!(named, [json!({ "_id": "1", "id": "1", "n": "a" })]);
    let bare = entities(
        "1,a\n2,b\n",
        json!({ "field_names": ["id", "n"], "has_header": false }),
    );
    assert_eq!(bare.len(), 2);
    let words = failure_at_open(json!({ "has_header": false }));
    assert!(
        words.starts_with("$.source.field_names: expected the names of the columns"),
        "{words}"
    );
    assert_eq!(entities("", json!({})), [] as [Json; 0]);
    assert_eq!(entities("id,a\n", json!({})), [] as [Json; 0]);
}

fn failure_at_open(more: Json) -> String {
    let server = Server::play([]);
    let world = World::at(&server.url());
    let config = json!({ "type": "csv", "system": "s", "url": "a.csv", "primary_key": "id" });
    let opened = world.source(merged(config, more), full());
    opened.err().unwrap().message
}

#[test]
fn dialects_are_guessed_or_named() {
    let expected = [json!({ "_id": "1", "id": "1", "n": "a,b" })];
    assert_eq!(entities("id;n\r\n1;a,b\r\n", json!({})), expected);
    assert_eq!(
        entities("id\tn\n1\ta,b\n", json!({ "dialect": "excel_tab" })),
        expected
    );
    assert_eq!(
        entities("id||n\n1||a,b\n", json!({ "delimiter": "||" })),
        expected
    );
    let fixed = entities(
        "id;n\n1;2\n",
        json!({ "auto_dialect": false, "primary_key": "id;n" }),
    );
    assert_eq!(fixed, [json!({ "_id": "1;2", "id;n": "1;2" })]);
    let given = entities(
        "id;n\n1;a,b\n",
        json!({ "dialect": "excel", "delimiter": ";" }),
    );
    assert_eq!(given, expected);
}

#[test]
fn quotes_line_ends_and_marks_are_no_trouble() {
    let body = "\u{feff}id,n,m\r\n1,\"a\r\n\"\"b\"\"\",ø\r\n\r\n2,\",\",\r\n";
    assert_eq!(
        entities(body, json!({})),
        [
            json!({ "_id": "1", "id": "1", "n": "a\r\n\"b\"", "m": "ø" }),
            json!({ "_id": "2", "id": "2", "n": "," }),
        ]
    );
    let utf16: Vec<u8> = "\u{feff}id,n\n1,å\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let read = pull(&utf16, json!({})).1.unwrap();
    assert_eq!(content(&read), [json!({ "_id": "1", "id": "1", "n": "å" })]);
}

#[test]
fn deleted_rows_and_reserved_names() {
    let body = "id,_deleted,_updated,_ts,n\n1,TRUE,5,6,a\n2,false,,,b\n";
    assert_eq!(
        entities(body, json!({})),
        [
            json!({ "_id": "1", "_deleted": true, "id": "1", "n": "a" }),
            json!({ "_id": "2", "id": "2", "n": "b" }),
        ]
    );
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (body, more, words) in [
        (
            &b"id,n\n1,a\n,b\n"[..],
            json!({}),
            "line 3, field 1: expected a value in the column \"id\"",
        ),
        (
            b"id,n\n1,a,x\n",
            json!({ "dialect": "excel" }),
            "line 2, field 3: expected no value, as there are 2 columns",
        ),
        (
            b"id,n\n\n1,\"a\n",
            json!({}),
            "line 3, field 2: expected a quote that closes",
        ),
        (
            b"ID,n\n1,a\n",
            json!({}),
            "expected the names of columns, found \"id\", which is none of \"ID\", \"n\"",
        ),
        (b"id,n,n\n1,a,b\n", json!({}), "found \"n\" twice"),
        (
            b"id,n\n1,\xe5\n",
            json!({}),
            "line 2, column 3: expected text in the encoding utf-8",
        ),
        (
            b"id,n\n1,a\0\n",
            json!({}),
            "line 2, column 4: expected text, found a null character",
        ),
        (
            b"id,,\n1,,x\n",
            json!({ "delimiter": "," }),
            "line 2, field 3: expected no value",
        ),
    ] {
        let found = failure(body, more);
        assert!(found.contains(words), "{words:?} in {found}");
        assert!(
            found.starts_with("pipe \"p\": GET http://127.0.0.1:"),
            "{found}"
        );
    }
    // Fields that are not there, or empty ones too many, hold nothing that could be lost.
    let ragged = entities("id,a,b,\n1\n2,x,,,,\n", json!({}));
    assert_eq!(
        ragged,
        [
            json!({ "_id": "1", "id": "1" }),
            json!({ "_id": "2", "id": "2", "a": "x" })
        ]
    );
    let escaped = entities("id,n\n1,a\0\n", json!({ "escape_null_bytes": true }));
    assert_eq!(escaped[0]["n"], "a\\0");
    let replaced = pull(
        b"id,n\n1,\xe5\n",
        json!({ "decode_error_strategy": "replace" }),
    );
    assert_eq!(content(&replaced.1.unwrap())[0]["n"], "\u{fffd}");
}

#[test]
fn configurations_that_cannot_be_are_refused() {
    for (more, words) in [
        (
            json!({ "encoding": "klingon" }),
            "$.source.encoding: expected the name of an encoding",
        ),
        (
            json!({ "primary_key": [] }),
            "$.source.primary_key: expected the name of the column",
        ),
        (
            json!({ "primary_key": 1 }),
            "$.source.primary_key: expected a list of names, found 1",
        ),
        (
            json!({ "dialect": "odd" }),
            "$.source.dialect: expected excel",
        ),
        (
            json!({ "delimiter": "" }),
            "$.source.delimiter: expected a delimiter",
        ),
    ] {
        let found = failure_at_open(more);
        assert!(found.starts_with(words), "{words:?} in {found}");
    }
}

#[test]
fn a_body_that_breaks_off_is_a_failed_read() {
    let cut = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 100\r\n\r\nid,n\n1,a\n";
    let server = Server::play([Reply::raw(cut)]);
    let world = World::at(&server.url());
    let config = json!({ "type": "csv", "system": "s", "url": "a.csv", "primary_key": "id" });
    let mut source = world.source(config, full()).unwrap();
    let failure = read_all(&mut *source, 2).unwrap_err();
    assert_eq!(failure.class, tahini_hub::Class::Transient);
    assert!(
        failure.message.contains("broken off"),
        "{}",
        failure.message
    );
}

/// A document of these entities, by the effective configuration of its sink.
pub fn published(name: &str, sink: &Json, entities: &[Json]) -> Result<Vec<u8>, Failure> {
    let publication = PUBLICATIONS.iter().find(|one| one.name == name).unwrap();
    let props = Props::new("$.sink", sink.as_object().unwrap());
    let mut document: Box<dyn Document> = (publication.begin)(props)?;
    let mut out = Vec::new();
    for record in batch(entities).iter() {
        document.put(record)?;
        out.extend(document.take());
    }
    document.end()?;
    out.extend(document.take());
    Ok(out)
}

fn csv(more: Json, entities: &[Json]) -> String {
    let sink = merged(
        json!({ "type": "csv_endpoint", "columns": ["_id", "a", "b"] }),
        more,
    );
    String::from_utf8(published("csv", &sink, entities).unwrap()).unwrap()
}

#[test]
fn values_are_written_as_their_bare_text() {
    let entities = [
        json!({ "_id": "1", "a": "text", "b": 1 }),
        json!({ "_id": "2", "a": true, "b": null }),
        json!({ "_id": "3", "a": 1.5, "b": "~f12.340" }),
        json!({ "_id": "4", "a": "~t2015-07-28T09:46:00.123Z", "b": "~t2015-12-31" }),
        json!({ "_id": "5", "a": "~:ns:id", "b": "~rhttp://x.org/" }),
        json!({ "_id": "6", "a": ["x", 1], "b": { "k": "v" } }),
        json!({ "_id": "7", "a": "~u12345678-1234-5678-1234-567812345678" }),
        json!({ "_id": "8", "a": "x", "_deleted": true }),
    ];
    let expected = "_id,a,b\r\n1,text,1\r\n2,true,\r\n3,1.5,12.340\r\n\
        4,2015-07-28T09:46:00.123Z,2015-12-31\r\n5,ns:id,http://x.org/\r\n\
        6,\"[\"\"x\"\", 1]\",\"{\"\"k\"\": \"\"v\"\"}\"\r\n\
        7,12345678-1234-5678-1234-567812345678,\r\n";
    assert_eq!(csv(json!({}), &entities), expected);
    let more = json!({ "skip-deleted-entities": false, "columns": ["_id", "_deleted"], "include_header": false });
    assert_eq!(csv(more, &entities[6..]), "7,false\r\n8,true\r\n");
}

/// The bytes that `csv.writer` of Python writes for the same values.
#[test]
fn fields_are_quoted_as_python_quotes_them() {
    let rows = [
        json!({ "_id": "1", "a": "plain", "b": 2 }),
        json!({ "_id": "2", "a": "x,y", "b": "say \"hi\"" }),
        json!({ "_id": "3", "a": "two\nlines", "b": "" }),
    ];
    let nothing = json!({ "include_header": false });
    let style = |more: Json| csv(merged(nothing.clone(), more), &rows);
    let minimal = "1,plain,2\r\n2,\"x,y\",\"say \"\"hi\"\"\"\r\n3,\"two\nlines\",\r\n";
    assert_eq!(style(json!({})), minimal);
    assert_eq!(
        style(json!({ "quoting": "all", "lineterminator": "\n" })),
        "\"1\",\"plain\",\"2\"\n\"2\",\"x,y\",\"say \"\"hi\"\"\"\n\"3\",\"two\nlines\",\"\"\n"
    );
    assert_eq!(
        style(json!({ "quoting": "non-numeric", "delimiter": ";" })),
        "\"1\";\"plain\";2\r\n\"2\";\"x,y\";\"say \"\"hi\"\"\"\r\n\"3\";\"two\nlines\";\"\"\r\n"
    );
    assert_eq!(
        style(json!({ "doublequote": false })),
        "1,plain,2\r\n2,\"x,y\",say \\\"hi\\\"\r\n3,\"two\nlines\",\r\n"
    );
    assert_eq!(
        style(json!({ "quoting": "none", "escapechar": "^" })),
        "1,plain,2\r\n2,x^,y,say ^\"hi^\"\r\n3,two^\nlines,\r\n"
    );
    assert_eq!(
        style(json!({ "quotechar": "'", "delimiter": "\t" })),
        "1\tplain\t2\r\n2\tx,y\tsay \"hi\"\r\n3\t'two\nlines'\t\r\n"
    );
    // The manual says that this can break a file.
    assert_eq!(
        style(json!({ "quoting": "none" })),
        "1,plain,2\r\n2,x,y,say \"hi\"\r\n3,two\nlines,\r\n"
    );
    // A row of one empty field is no blank line.
    let one = json!({ "columns": ["b"], "include_header": false });
    assert_eq!(csv(one, &rows[2..]), "\"\"\r\n");
}

#[test]
fn encodings_and_marks_are_those_that_were_asked_for() {
    let rows = [json!({ "_id": "1", "a": "blåbær", "b": "ę" })];
    let bytes = |more: Json| {
        let sink =
            json!({ "type": "csv_endpoint", "columns": ["a", "b"], "include_header": false });
        published("csv", &merged(sink, more), &rows)
    };
    let latin = json!({ "encoding": "iso-8859-1" });
    assert_eq!(bytes(latin).unwrap(), b"bl\xe5b\xe6r,\\u0119\r\n");
    let replace = json!({ "encoding": "iso-8859-1", "encode_error_strategy": "xmlcharrefreplace" });
    assert_eq!(bytes(replace).unwrap(), b"bl\xe5b\xe6r,&#281;\r\n");
    let mark = json!({ "byte_order_mark": true });
    assert_eq!(bytes(mark).unwrap(), "\u{feff}blåbær,ę\r\n".as_bytes());
    let both = json!({ "byte_order_mark": true, "encoding": "latin-1" });
    let failure = bytes(both).unwrap_err().message;
    assert!(
        failure.starts_with("$.sink.byte_order_mark: expected false"),
        "{failure}"
    );
    for (more, words) in [
        (
            json!({ "columns": [] }),
            "$.sink.columns: expected a list of at least one name",
        ),
        (
            json!({ "delimiter": "ab" }),
            "$.sink.delimiter: expected one character, found \"ab\"",
        ),
        (
            json!({ "quoting": "some" }),
            "$.sink.quoting: expected all, minimal",
        ),
    ] {
        let failure = bytes(more).unwrap_err().message;
        assert!(failure.starts_with(words), "{failure}");
    }
}

#[test]
fn what_is_published_can_be_read_again() {
    let rows = [
        json!({ "_id": "1", "id": "1", "n": "a,\"b\";\n'c'\r\nd", "m": "  spaced  " }),
        json!({ "_id": "2", "id": "2", "n": "\\", "m": "å€😀" }),
    ];
    for more in [
        json!({}),
        json!({ "quoting": "all" }),
        json!({ "delimiter": ";" }),
    ] {
        let sink = merged(
            json!({ "type": "csv_endpoint", "columns": ["id", "n", "m"] }),
            more,
        );
        let bytes = published("csv", &sink, &rows).unwrap();
        assert_eq!(content(&pull(&bytes, json!({})).1.unwrap()), rows);
    }
}
