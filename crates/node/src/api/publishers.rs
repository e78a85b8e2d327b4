//! `/api/publishers` and `/api/pipes/{pipe_id}/entities`: reading what a pipe gives.

use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode, header};
use tahini_connectors::formats::PUBLICATIONS;
use tahini_entity::Offset;
use tahini_hub::hub::LivePipe;
use tahini_hub::stage::{Purpose, Stage};

use super::entities::{Wanted, of_pipe};
use super::listing::{Form, Listing, Out};
use super::pipes::named;
use super::runtime::is_dataset_source;
use super::{Answer, Call, Node, Problem};

/// What a pipe would give its sink, or has at another stage.
pub async fn look(node: Arc<Node>, call: Call) -> Answer {
    let live = named(&node, &call)?;
    let name = call.get("stage").unwrap_or("sink");
    let stage = Stage::of(name).ok_or_else(|| {
        Problem::bad(format!(
            "expected stage to be source, before-transforms, after-transforms or sink, found \
             {name:?}"
        ))
    })?;
    let since = read_since(&live, &call)?;
    let limit = call.number("limit")?;
    let wanted = Wanted {
        stage: (stage, Purpose::Look),
        since,
        limit,
        out: Out::Listing(Listing::new(Form::wanted(&call))),
    };
    of_pipe(node, live, wanted).await
}

/// What a pipe publishes (JSON pull protocol).
pub async fn publish(node: Arc<Node>, call: Call) -> Answer {
    let live = named(&node, &call)?;
    let sink = live.component.sink().map();
    if sink.get("type").is_none_or(|kind| kind != "http_endpoint") {
        let words = format!(
            "pipe {:?} publishes nothing: its sink is no http_endpoint",
            live.id()
        );
        return Err(Problem::new(StatusCode::NOT_FOUND, words));
    }
    let (since, limit) = (read_since(&live, &call)?, call.number("limit")?);
    let dataset = live
        .component
        .source_datasets()
        .first()
        .map(|name| (*name).to_owned());
    let said = match dataset.filter(|_| is_dataset_source(&live)) {
        Some(name) => node.work(move |node| node.said(&name)).await??,
        None => None,
    };
    let filtered = live
        .pipe
        .as_ref()
        .is_ok_and(|pipe| !pipe.transforms().is_empty());
    let suggested = suggested(&live, call.id("filename"), "entities");
    // Being read is how such a pipe runs, so that this is no look: every transform is run.
    let wanted = Wanted {
        stage: (Stage::Sink, Purpose::Output),
        since,
        limit,
        out: Out::Listing(Listing::new(Form::wanted(&call))),
    };
    let mut response = of_pipe(node, live, wanted).await?;
    if let Some(said) = said {
        said.put(&mut response);
    }
    if filtered {
        let yes = HeaderValue::from_static("true");
        response.headers_mut().insert("x-dataset-filtered", yes);
    }
    if let Some(value) = suggested {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// What a pipe publishes in another format than JSON, by the name of the publication.
pub async fn document(node: Arc<Node>, call: Call, name: &'static str) -> Answer {
    let live = named(&node, &call)?;
    let publication = PUBLICATIONS.iter().find(|one| one.name == name);
    let publication = publication.ok_or_else(|| Problem::missing("publication", name))?;
    let sink = live.component.sink();
    if sink.opt_str("type").ok().flatten() != Some(publication.sink) {
        let words = format!(
            "pipe {:?} publishes nothing here: its sink is no {}",
            live.id(),
            publication.sink
        );
        return Err(Problem::new(StatusCode::NOT_FOUND, words));
    }
    if call.get("linked_excel_file").is_some() {
        let words = format!(
            "expected no `linked_excel_file`: this node makes no workbooks that lead to a CSV \
             file; /api/publishers/{}/excel has the entities themselves",
            live.id()
        );
        return Err(Problem::bad(words));
    }
    live.usable()?;
    let (since, limit) = (read_since(&live, &call)?, call.number("limit")?);
    let document = (publication.begin)(sink)?;
    let suggested = suggested(&live, call.id("filename"), name);
    let wanted = Wanted {
        stage: (Stage::Sink, Purpose::Output),
        since,
        limit,
        out: Out::Document(document),
    };
    let mut response = of_pipe(node, live, wanted).await?;
    if let Some(value) = suggested {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// What programs of an office suite ask before they read a file.
pub fn document_options(call: &Call, path: &str) -> Answer {
    tracing::debug!(pipe = call.id("pipe_id"), path, "asked what can be done");
    super::allowing(path)
}

/// How an answer suggests to be kept: under the name that is asked for, or else the sink's; without
/// one it is shown. What is meant for a CSV file makes no name for a workbook. In a name what
/// clients read differently is left out, and `_` stands for what is no ASCII.
fn suggested(live: &LivePipe, asked: &str, publication: &str) -> Option<HeaderValue> {
    let sink = live.component.sink();
    let text = |name: &str| sink.opt_str(name).ok().flatten();
    let own = text("filename").filter(|name| !name.is_empty());
    let own = own.map(|name| match publication {
        "excel" => format!("{}.xlsx", name.strip_suffix(".csv").unwrap_or(name)),
        _ => name.to_owned(),
    });
    let name = match asked {
        "" => own?,
        asked => asked.to_owned(),
    };
    let safe: String = name
        .chars()
        .filter(|c| !matches!(c, '"' | '\\' | '/') && !c.is_control())
        .map(|c| if c.is_ascii() { c } else { '_' })
        .collect();
    let way = text("content_disposition").unwrap_or("attachment");
    let value = match safe.is_empty() {
        true => way.to_owned(),
        false => format!("{way}; filename=\"{safe}\""),
    };
    HeaderValue::from_str(&value).ok()
}

fn read_since(live: &LivePipe, call: &Call) -> Result<Option<Offset>, Problem> {
    let Some(text) = call.get("since").filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    match text.parse() {
        Ok(number) => Ok(Some(Offset::Int(number))),
        Err(_) if is_dataset_source(live) => Err(Problem::bad(format!(
            "expected since to be a whole number, as pipe {:?} reads a dataset, found {text:?}",
            live.id()
        ))),
        Err(_) => Ok(Some(Offset::Text(text.into()))),
    }
}
