//! `/api/publishers` and `/api/pipes/{pipe_id}/entities`: reading what a pipe gives.

use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode, header};
use tahini_entity::Offset;
use tahini_hub::hub::LivePipe;
use tahini_hub::stage::{Purpose, Stage};

use super::entities::{Wanted, of_pipe};
use super::listing::Form;
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
        form: Form::wanted(&call),
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
    let disposition = disposition(&live, call.id("filename"));
    // Being read is how such a pipe runs, so that this is no look: every transform is run.
    let wanted = Wanted {
        stage: (Stage::Sink, Purpose::Output),
        since,
        limit,
        form: Form::wanted(&call),
    };
    let mut response = of_pipe(node, live, wanted).await?;
    if let Some(said) = said {
        said.put(&mut response);
    }
    if filtered {
        let yes = HeaderValue::from_static("true");
        response.headers_mut().insert("x-dataset-filtered", yes);
    }
    if let Some(value) = disposition {
        response
            .headers_mut()
            .insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// The file name that the sink suggests.
fn disposition(live: &LivePipe, asked: &str) -> Option<HeaderValue> {
    let text = |name: &str| {
        live.component
            .sink()
            .map()
            .get(name)
            .and_then(|value| value.as_str())
    };
    let name = text("filename").unwrap_or(asked);
    let way = text("content_disposition");
    if name.is_empty() && way.is_none() {
        return None;
    }
    let way = way.unwrap_or("inline");
    let safe: String = name
        .chars()
        .filter(|c| !c.is_control() && *c != '"' && *c != '\\')
        .collect();
    let value = if safe.is_empty() {
        way.to_owned()
    } else {
        format!("{way}; filename=\"{safe}\"")
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
