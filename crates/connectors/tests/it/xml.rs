//! The xml source against a server, what an xml_endpoint publishes, and the xml transform.

use serde_json::{Value as Json, json};
use tahini_entity::Batch;
use tahini_hub::Failure;

use crate::csv::published;
use crate::server::{Reply, Server};
use crate::world::{World, batch, content, full, read_all};

/// The entity of the manual.
fn manual() -> Json {
    json!({
        "_id": "1",
        "name": "Entity 1",
        "id": "entity-1",
        "<foo:tag>": [{
            "id": "child",
            "name": "Child entity",
            "<section>": [ {"<from>": "0"}, {"<to>": "999"} ]
        }]
    })
}

fn xml(mut sink: Json, entities: &[Json]) -> Result<String, String> {
    sink["type"] = json!("xml_endpoint");
    let bytes = published("xml", &sink, entities).map_err(|failure| failure.message)?;
    Ok(String::from_utf8(bytes).unwrap())
}

/// As printed there, but that its configuration misspells `xmlns:foo` and its output does not.
#[test]
fn the_documentations_example_is_written() {
    let sink = json!({
        "wrapper": "baz",
        "root-attributes": {
            "xmlns": "http://www.example.org/ns1",
            "xmlns:foo": "http://www.example.org/foo",
            "xmlns:xsi": "http://www.w3.org/2000/10/XMLSchema-instance",
            "xsi:schemaLocation": "http://example.com/myschema.dtd",
            "zoo": "bar"
        }
    });
    let expected = "<baz xmlns=\"http://www.example.org/ns1\" \
        xmlns:foo=\"http://www.example.org/foo\" \
        xmlns:xsi=\"http://www.w3.org/2000/10/XMLSchema-instance\" \
        xsi:schemaLocation=\"http://example.com/myschema.dtd\" zoo=\"bar\">\
        <foo:tag name=\"Entity 1\" id=\"entity-1\">\
        <section id=\"child\" name=\"Child entity\"><from>0</from><to>999</to></section>\
        </foo:tag></baz>";
    assert_eq!(xml(sink, &[manual()]).unwrap(), expected);
}

#[test]
fn frames_deleted_entities_and_escapes() {
    let entities = [
        json!({ "_id": "1", "$ids": ["x"], "_x": 1, "a": "<&\">\n", "n": null, "<t>": "1 < 2 & 3" }),
        json!({ "_id": "2", "_deleted": true, "<t>": null }),
        json!({ "_id": "3", "b": 1.5, "c": true, "<t>": ["lost", 1, null, { "<u>": [] }] }),
    ];
    let first = "<t a=\"&lt;&amp;&quot;&gt;&#10;\">1 &lt; 2 &amp; 3</t>";
    let last = "<t b=\"1.5\" c=\"true\"><u/></t>";
    assert_eq!(xml(json!({}), &entities).unwrap(), format!("{first}{last}"));
    let sink = json!({
        "skip-deleted-entities": false, "include-xml-decl": true, "byte_order_mark": true,
        "root-attributes": { "a": "root", "z": 1 }
    });
    let declaration = "\u{feff}<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n";
    let first = first.replacen("<t", "<t z=\"1\"", 1);
    let rooted = last.replacen("<t", "<t a=\"root\" z=\"1\"", 1);
    let expected = format!("{declaration}{first}<t a=\"root\" z=\"1\"/>{rooted}");
    assert_eq!(xml(sink, &entities).unwrap(), expected);
    assert_eq!(xml(json!({ "wrapper": "w" }), &[]).unwrap(), "<w></w>");
}

#[test]
fn other_shapes_are_refused_with_their_path() {
    for (entity, words) in [
        (
            json!({ "_id": "1", "a": "b" }),
            "entity \"1\": expected exactly one property like \"<name>\", found none",
        ),
        (
            json!({ "_id": "1", "<a>": "", "<b>": "" }),
            "found both \"<a>\" and \"<b>\"",
        ),
        (
            json!({ "_id": "1", "<a>": [{ "<b>": { "x": "y" } }] }),
            "in <a><b>: expected exactly one property",
        ),
        (
            json!({ "_id": "1", "<1a>": "" }),
            "in <1a>: expected the name of an element",
        ),
        (
            json!({ "_id": "1", "a b": "", "<a>": "" }),
            "in <a>: expected the name of an attribute, found \"a b\"",
        ),
        (
            json!({ "_id": "1", "l": [1], "<a>": "" }),
            "in <a>: expected one value for an attribute, found a list in \"l\"",
        ),
    ] {
        let failure = xml(json!({}), &[entity]).unwrap_err();
        assert!(failure.contains(words), "{words:?} in {failure}");
    }
    for (sink, words) in [
        (
            json!({ "wrapper": "a b" }),
            "$.sink.wrapper: expected the name of an element",
        ),
        (
            json!({ "root-attributes": { "a": [] } }),
            "$.sink.root-attributes.a: expected text",
        ),
    ] {
        let failure = xml(sink, &[]).unwrap_err();
        assert!(failure.starts_with(words), "{failure}");
    }
}

#[test]
fn the_transform_puts_the_text_into_a_property() {
    let apply = |more: Json, entities: &[Json]| {
        let mut config = json!({ "type": "xml", "xml-property": "xml" });
        for (name, value) in more.as_object().unwrap() {
            config[name] = value.clone();
        }
        let mut transform = World::empty().transform(config).unwrap();
        let (mut out, mut origins) = (Batch::new(), Vec::new());
        transform.apply(&batch(entities), &mut out, &mut origins)?;
        assert_eq!(origins.len(), out.len());
        Ok::<_, Failure>(content(&out))
    };
    let roots = json!({ "root-attributes": {
        "xmlns": "http://www.example.org/ns1", "xmlns:foo": "http://www.example.org/ns2"
    } });
    let mut expected = manual();
    expected["xml"] = json!(
        "<foo:tag xmlns=\"http://www.example.org/ns1\" xmlns:foo=\"http://www.example.org/ns2\" \
         name=\"Entity 1\" id=\"entity-1\"><section id=\"child\" name=\"Child entity\">\
         <from>0</from><to>999</to></section></foo:tag>"
    );
    let once = apply(roots.clone(), &[manual()]).unwrap();
    assert_eq!(once, [expected.clone()]);
    assert_eq!(
        apply(roots, &once).unwrap(),
        [expected],
        "rendering again changes nothing"
    );
    let deleted = [json!({ "_id": "1", "_deleted": true, "<a>": "" })];
    assert_eq!(apply(json!({}), &deleted).unwrap(), deleted);
    let filtered = batch(&[json!({ "_id": "1", "_filtered": true, "no": "tag" })]);
    let mut transform = World::empty()
        .transform(json!({ "type": "xml", "xml-property": "xml" }))
        .unwrap();
    let mut out = Batch::new();
    transform
        .apply(&filtered, &mut out, &mut Vec::new())
        .unwrap();
    assert!(out.get(0).meta.filtered, "it stays filtered");
    assert_eq!(content(&out), [json!({ "_id": "1", "no": "tag" })]);
    let trigger = json!({ "trigger_on": { "key": "kind", "value": "x*" } });
    let two = [
        json!({ "_id": "1", "kind": "xy", "<a>": "" }),
        json!({ "_id": "2", "kind": "z", "no": "tag" }),
    ];
    let out = apply(trigger, &two).unwrap();
    assert_eq!(out[0]["xml"], "<a kind=\"xy\"/>");
    assert_eq!(out[1], two[1]);
    let failure = apply(json!({}), &two[1..]).unwrap_err();
    assert_eq!(failure.class, tahini_hub::Class::Entity);
    assert_eq!(failure.entity.unwrap().id.as_deref(), Some("2"));
}

fn pull(body: &[u8], more: Json) -> Result<Vec<Json>, String> {
    let len = body.len();
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n");
    let server = Server::play([Reply::raw(head).then(body)]);
    let world = World::at(&server.url());
    let mut config = json!({ "type": "xml", "system": "s", "url": "a.xml", "primary_key": "@id" });
    for (name, value) in more.as_object().unwrap() {
        config[name] = value.clone();
    }
    let read = world
        .source(config, full())
        .and_then(|mut source| read_all(&mut *source, 2));
    read.map(|batch| content(&batch))
        .map_err(|failure| failure.message)
}

#[test]
fn elements_become_entities() {
    let body = "<?xml version='1.0' encoding='ISO-8859-1'?><list at='noon'>\
        <p id='1'><name>Bl\u{e5}</name><phone kind='home'>1</phone><phone>2</phone></p>\
        <p id='2'>text<_deleted>true</_deleted></p><p id='3'/></list>";
    let latin: Vec<u8> = body
        .chars()
        .map(|c| u8::try_from(u32::from(c)).unwrap())
        .collect();
    let expected = [
        json!({ "_id": "1", "@id": "1", "name": "Blå", "phone": [{ "@kind": "home", "#text": "1" }, "2"] }),
        json!({ "_id": "2", "@id": "2", "#text": "text" }),
        json!({ "_id": "3", "@id": "3" }),
    ];
    assert_eq!(pull(&latin, json!({})).unwrap(), expected);
    assert_eq!(
        pull(&latin, json!({ "element": "list/p" })).unwrap(),
        expected
    );
    assert_eq!(
        pull(&latin, json!({ "element": "list/q" })).unwrap(),
        [] as [Json; 0]
    );
    let nested = "<a><b><k><n>7</n></k><m>x</m></b></a>";
    let keyed = pull(nested.as_bytes(), json!({ "primary_key": ["k/n", "m"] })).unwrap();
    assert_eq!(
        keyed,
        [json!({ "_id": "7:x", "k": { "n": "7" }, "m": "x" })]
    );
    let utf16: Vec<u8> = "<a><b id='å'/></a>"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    assert_eq!(
        pull(&utf16, json!({})).unwrap(),
        [json!({ "_id": "å", "@id": "å" })]
    );
}

#[test]
fn documents_that_are_wrong_or_dangerous_are_refused() {
    let bomb = "<!DOCTYPE a [<!ENTITY x \"ha\"><!ENTITY y \"&x;&x;&x;\">]><a><b id='1'>&y;</b></a>";
    for (body, words) in [
        (
            bomb,
            "line 1: expected a document without declarations of its own",
        ),
        ("<a>\n<b id='1'>\n</a>", "line 3: expected well-formed XML"),
        (
            "<a>\n<b/>\n</a>",
            "line 2: expected text in \"@id\", which is (a part of) the id, found nothing",
        ),
        (
            "<?xml version='1.0' encoding='klingon'?><a/>",
            "it says \"klingon\"",
        ),
        ("{\"error\": true}", "expected an XML document"),
    ] {
        let failure = pull(body.as_bytes(), json!({})).unwrap_err();
        assert!(failure.contains(words), "{words:?} in {failure}");
        assert!(
            failure.starts_with("pipe \"p\": GET http://127.0.0.1:"),
            "{failure}"
        );
    }
}
