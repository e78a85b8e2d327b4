//! `tahini entities`: what a dataset holds, or a pipe would give, a line an entity.

use anyhow::anyhow;
use tahini_entity::json::{Fields, write_record};
use tahini_entity::{Batch, Offset};
use tahini_hub::Cancel;
use tahini_hub::source::From;
use tahini_hub::stage::{self, Purpose, Stage};
use tahini_store::{Limit, View};

use super::run::assemble;
use crate::assembly::{Loaded, print_problems, read_objects};
use crate::cli::{Entities, OK};
use crate::say;

const ROWS: usize = 1000;
const BYTES: usize = 8 << 20;

/// Prints entities.
pub fn entities(options: &Entities) -> anyhow::Result<u8> {
    match &options.project {
        Some(_) => of_pipe(options),
        None => of_dataset(options),
    }
}

fn of_dataset(options: &Entities) -> anyhow::Result<u8> {
    if !options.store.data.is_dir() {
        return Err(anyhow!(
            "expected a store in {}, found no such folder; give --data DIR",
            options.store.data.display()
        ));
    }
    let path = format!("/api/datasets/{}/entities", options.name);
    let store = super::open_store_to_look(&options.store.data, "the dataset", &path)?;
    let dataset = store.find(&options.name)?.ok_or_else(|| {
        let names = store
            .list()
            .unwrap_or_default()
            .into_iter()
            .map(|head| head.name);
        let names: Vec<String> = names.filter(|name| !name.starts_with("system:")).collect();
        let near = tahini_hub::config::nearest(&options.name, names.iter().map(String::as_str));
        let help = near
            .map(|near| format!("; did you mean {near:?}?"))
            .unwrap_or_default();
        anyhow!(
            "expected a dataset {:?}, found none{help} (a pipe's output: give --project)",
            options.name
        )
    })?;
    let snapshot = match options.uncommitted {
        true => dataset.uncommitted()?,
        false => dataset.snapshot()?,
    };
    let since = options.since.as_deref().map(str::parse::<u64>).transpose();
    let mut after = since.map_err(|_| anyhow!("expected --since to be a whole number"))?;
    let view = View {
        history: options.history,
        deleted: true,
    };
    let mut left = options.limit.unwrap_or(usize::MAX);
    while left > 0 {
        let mut batch = Batch::new();
        let limit = Limit {
            rows: left.min(ROWS),
            bytes: BYTES,
        };
        let next = snapshot.changes(after, view, limit, &mut batch)?;
        left -= batch.len().min(left);
        print(&batch, Fields::ALL);
        match next {
            Some(seq) => after = Some(seq),
            None => break,
        }
    }
    store.close()?;
    Ok(OK)
}

fn of_pipe(options: &Entities) -> anyhow::Result<u8> {
    let project = options.project.clone().unwrap_or_default();
    let mut loaded = Loaded::read(&[project], &options.setting.profile)?;
    loaded.env.extend(read_objects(&options.setting.env)?);
    let configuration = loaded.configure();
    print_problems(&loaded.problems(&configuration));
    let stage = Stage::of(&options.stage).ok_or_else(|| {
        anyhow!(
            "expected --stage source, before-transforms, after-transforms or sink, found {:?}",
            options.stage
        )
    })?;
    let path = format!("/api/pipes/{}/entities", options.name);
    let store = super::open_store_to_look(&options.store.data, "what the pipe gives", &path)?;
    let assembly = assemble(store.clone(), &options.setting)?;
    assembly.apply(configuration)?;
    let live = assembly.hub.pipe(&options.name)?;
    let since = options.since.as_deref().map(|since| match since.parse() {
        Ok(number) => Offset::Int(number),
        Err(_) => Offset::Text(since.into()),
    });
    let from = From::since(since);
    let mut left = options.limit.unwrap_or(usize::MAX);
    let outcome = stage::read(
        live.usable()?,
        &assembly.hub.world,
        (stage, Purpose::Look),
        from,
        &Cancel::new(),
        |batch| {
            let mut shown = Batch::new();
            batch
                .iter()
                .take(left)
                .for_each(|record| shown.push(record));
            left -= shown.len();
            print(&shown, Fields::SINK);
            left > 0
        },
    );
    assembly.close();
    outcome?;
    store.close()?;
    Ok(OK)
}

fn print(batch: &Batch, fields: Fields) {
    let mut text = Vec::new();
    for record in batch.iter() {
        write_record(record, fields, &mut text);
        text.push(b'\n');
    }
    say::bytes(&text);
}
