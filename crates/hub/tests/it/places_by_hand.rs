//! Offsets that people set.

use serde_json::json;
use tahini_entity::Offset;
use tahini_hub::execution_log::User;

use crate::world::World;

#[test]
fn an_offset_that_the_source_cannot_go_on_from_is_refused() {
    let mut world = World::new();
    world.pipe(json!({"_id": "a"}));
    world.pipe(json!({"_id": "one", "source": {"type": "dataset", "dataset": "a"}}));
    world.pipe(json!({"_id": "two", "source": {"type": "union_datasets", "datasets": ["a"]}}));
    let user = User::default();
    let set = |pipe: &str, offset: Offset| world.hub().set_offset(pipe, Some(offset), &user);
    for (pipe, offset) in [
        ("one", Offset::Int(-1)),
        ("one", Offset::Text("7".into())),
        ("two", Offset::Int(7)),
        ("two", Offset::Text("[7]".into())),
    ] {
        let words = set(pipe, offset.clone()).unwrap_err().to_string();
        assert!(words.contains("expected the"), "{pipe} {offset:?}: {words}");
        assert_eq!(world.offset(pipe), json!(null));
    }
    set("one", Offset::Int(0)).unwrap();
    set("two", Offset::Text(r#"{"a": 7}"#.into())).unwrap();
    assert_eq!(world.offset("one"), json!(0));
}
