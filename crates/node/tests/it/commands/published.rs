//! `tahini test` of what pipes publish as CSV and XML.

use serde_json::{Value, json};

use super::{Project, test_of};

fn project() -> Project {
    let pipe = |id: &str, sink: Value| {
        json!({"_id": id, "type": "pipe", "source": {"type": "embedded", "entities": [
            {"_id": "1", "n": "a,b", "<e>": {"<f>": "x"}}
        ]}, "sink": sink})
    };
    let project = Project::of(&[
        pipe(
            "rows",
            json!({"type": "csv_endpoint", "columns": ["_id", "n"]}),
        ),
        pipe("tags", json!({"type": "xml_endpoint", "wrapper": "w"})),
    ]);
    for (name, endpoint) in [("rows", "csv"), ("tags", "xml")] {
        let spec = json!({"endpoint": endpoint, "file": format!("{name}.{endpoint}")});
        project.write(&format!("expected/{name}.test.json"), &spec.to_string());
    }
    project
}

#[test]
fn the_text_is_compared() {
    let project = project();
    project.write("expected/rows.csv", "_id,n\r\n1,\"a,b\"\r\n");
    project.write(
        "expected/tags.xml",
        "<w>\n  <e n=\"a,b\">\n    <f>x</f>\n  </e>\n</w>\n",
    );
    let said = project.call(&["test", ".", "--json"]);
    assert_eq!(said.code, 0, "{} {}", said.out, said.err);
    project.write("expected/rows.csv", "_id,n\n1,\"a,b\"\n2,c\n");
    project.write("expected/tags.xml", "<w><e n=\"a,b\"><f>y</f></e></w>");
    let report = project.call(&["test", ".", "--json"]).json();
    for (name, line) in [("rows", "- 2,c"), ("tags", "+ <f>x</f>")] {
        let test = test_of(&report, name);
        assert_eq!(test["passed"], false, "{report}");
        assert!(test["message"].as_str().unwrap().contains(line), "{test}");
    }
}

#[test]
fn the_expected_file_is_written_on_demand() {
    let project = project();
    let missing = project.call(&["test", ".", "--json"]).json();
    let message = test_of(&missing, "rows")["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(message.contains("--update"), "{message}");
    let said = project.call(&["test", ".", "--update"]);
    assert_eq!(said.code, 0, "{} {}", said.out, said.err);
    let read = |file: &str| std::fs::read_to_string(project.0.path().join(file)).unwrap();
    assert_eq!(read("expected/rows.csv"), "_id,n\r\n1,\"a,b\"\r\n");
    assert_eq!(
        read("expected/tags.xml"),
        "<w><e n=\"a,b\"><f>x</f></e></w>"
    );
    assert_eq!(project.call(&["test", "."]).code, 0);
}

#[test]
fn a_test_of_another_endpoint_is_told() {
    let project = project();
    let spec = json!({"endpoint": "xml", "file": "rows.xml"});
    project.write("expected/rows.test.json", &spec.to_string());
    let spec = json!({"endpoint": "rdf", "file": "tags.xml"});
    project.write("expected/tags.test.json", &spec.to_string());
    let report = project.call(&["test", ".", "--json"]).json();
    for (name, words) in [
        ("rows", "with the sink xml_endpoint"),
        ("tags", "csv or xml, found \"rdf\""),
    ] {
        let message = test_of(&report, name)["message"].as_str().unwrap();
        assert!(message.contains(words), "{message}");
    }
}
