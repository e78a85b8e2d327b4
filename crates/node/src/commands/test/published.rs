//! Tests of what a pipe publishes as CSV or XML: the text is compared, not entities.

use tahini_connectors::formats::{PUBLICATIONS, Publication};
use tahini_hub::check::{self, Checked, diff};
use tahini_hub::hub::{Hub, Refusal};
use tahini_hub::project::TestSpec;
use tahini_hub::stage::Stage;
use tahini_hub::{Cancel, Failure};

/// The publication that a test is about, if its result is a text. What `excel` stands for in a
/// test are the entities.
pub(super) fn publication(spec: &TestSpec) -> Option<&'static Publication> {
    let named = PUBLICATIONS.iter().find(|one| one.name == spec.endpoint);
    named.filter(|one| one.name != "excel")
}

/// Runs such a test against a settled hub. With `update` the expected file is written instead.
pub(super) fn check(
    publication: &Publication,
    spec: &TestSpec,
    hub: &Hub,
    update: bool,
    cancel: &Cancel,
) -> Checked {
    let outcome = found(publication, spec, hub, cancel).and_then(|found| match update {
        true => check::write(spec, &found).map(|()| None),
        false => compared(publication, spec, &found),
    });
    Checked::of(spec, outcome)
}

fn found(
    publication: &Publication,
    spec: &TestSpec,
    hub: &Hub,
    cancel: &Cancel,
) -> Result<Vec<u8>, Failure> {
    let refused = |refusal: Refusal| Failure::config(refusal.to_string());
    let live = hub.pipe(&spec.pipe).map_err(refused)?;
    let pipe = live.usable().map_err(refused)?;
    if pipe.kind("sink") != publication.sink {
        return Err(Failure::config(format!(
            "test {:?}: expected a pipe with the sink {}, as the endpoint is {:?}, found {:?}",
            spec.name,
            publication.sink,
            spec.endpoint,
            pipe.kind("sink")
        )));
    }
    let mut document = (publication.begin)(live.component.sink())?;
    let mut put = Ok(());
    check::read(spec, pipe, hub, Stage::Sink, cancel, |batch| {
        put = batch
            .iter()
            .try_for_each(|record| document.put(record).map(drop));
        put.is_ok()
    })?;
    put?;
    document.end()?;
    Ok(document.take())
}

fn compared(
    publication: &Publication,
    spec: &TestSpec,
    found: &[u8],
) -> Result<Option<String>, Failure> {
    let expected = check::expected(spec)?;
    if expected == found {
        return Ok(None);
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (expected, found) = match publication.name {
        // People lay XML out; the white space between elements is theirs.
        "xml" => (in_lines(&text(&expected)), in_lines(&text(found))),
        _ => (text(&expected), text(found)),
    };
    if expected == found && publication.name == "xml" {
        return Ok(None);
    }
    let difference = diff(&expected, &found);
    Ok(Some(format!(
        "pipe {:?} publishes something else:\n{difference}",
        spec.pipe
    )))
}

/// XML with each element on a line and no white space between elements.
fn in_lines(text: &str) -> String {
    let mut out = String::new();
    for (at, part) in text.trim().split('>').enumerate() {
        if at > 0 {
            out.push('>');
        }
        match part.trim_start().starts_with('<') {
            true => {
                out.push('\n');
                out.push_str(part.trim_start());
            }
            false => out.push_str(part),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::in_lines;

    #[test]
    fn only_white_space_between_elements_is_laid_out() {
        let laid_out = "<a>\n  <b> x </b>\n  <c/>\n</a>\n";
        assert_eq!(in_lines(laid_out), in_lines("<a><b> x </b><c/></a>"));
        assert_ne!(in_lines(laid_out), in_lines("<a><b>x</b><c/></a>"));
    }
}
