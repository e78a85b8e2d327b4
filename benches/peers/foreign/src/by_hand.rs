//! What one would write for this task alone.

use sonic_rs::{JsonContainerTrait, JsonValueMutTrait, JsonValueTrait, Value};

/// One entity's line to the line of its result, or to nothing.
pub fn transform(line: &[u8], out: &mut Vec<u8>) {
    let mut value: Value = sonic_rs::from_slice(line).expect("a line is JSON");
    let wanted = value["active"].as_bool() == Some(true) && value["age"].as_i64() >= Some(30);
    if !wanted {
        return;
    }
    let full_name = {
        let object = value.as_object().expect("a line is an object");
        let text = |name| object.get(&name).and_then(|value: &Value| value.as_str());
        format!("{} {}", text("first_name").unwrap_or(""), text("last_name").unwrap_or(""))
    };
    let city = value["city"].as_str().unwrap_or("").to_uppercase();
    let object = value.as_object_mut().expect("a line is an object");
    if let Some(email) = object.remove(&"email") {
        object.insert("mail", email);
    }
    object.insert("full_name", full_name.as_str());
    object.insert("city", city.as_str());
    object.remove(&"note");
    object.remove(&"zip");
    sonic_rs::to_writer(&mut *out, &value).expect("a value is JSON");
    out.push(b'\n');
}
