//! The least that a program does to import entities into fjall and to know what changed:
//!
//! `imports FOLDER < FILE` reads an array of entities, one a line, twice. Each one is parsed, hashed,
//! looked up by its id, and put with its hash where that differs; every 10,000 are one batch and
//! are made durable. Prints one JSON object a reading: `run`, `written`, `seconds`, `cpu`.

use std::error::Error;
use std::io::{Read, stdin};
use std::time::Instant;

use cpu_time::ProcessTime;
use fjall::{Config, Keyspace, PartitionCreateOptions, PartitionHandle, PersistMode};
use sonic_rs::{JsonValueTrait, Value};
use xxhash_rust::xxh3::xxh3_128;

/// Entities that become durable together, as many as ours.
const BATCH: usize = 10_000;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("expected a folder for the data")?;
    let mut text = Vec::new();
    stdin().read_to_end(&mut text)?;
    let keyspace = Config::new(folder).open()?;
    let entities = keyspace.open_partition("entities", PartitionCreateOptions::default())?;
    for run in ["first", "again"] {
        let (cpu, started) = (ProcessTime::now(), Instant::now());
        let written = import(&text, &keyspace, &entities)?;
        let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu.elapsed().as_secs_f64());
        println!(
            "{{\"run\": \"{run}\", \"written\": {written}, \"seconds\": {seconds}, \"cpu\": {cpu}}}"
        );
    }
    Ok(())
}

fn import(
    text: &[u8],
    keyspace: &Keyspace,
    entities: &PartitionHandle,
) -> Result<u64, Box<dyn Error>> {
    let (mut written, mut gathered) = (0, 0);
    let mut batch = keyspace.batch();
    for line in text.split(|byte| *byte == b'\n') {
        let element = line.trim_ascii_end();
        let element = element.strip_prefix(b"[").unwrap_or(element);
        let element = element.strip_suffix(b",").unwrap_or(element);
        let element = element.strip_suffix(b"]").unwrap_or(element);
        if element.is_empty() {
            continue;
        }
        let entity: Value = sonic_rs::from_slice(element)?;
        let id = entity.get("_id").as_str().ok_or("expected an _id")?;
        let hash = xxh3_128(element).to_le_bytes();
        if entities.get(id)?.is_none_or(|known| known[..16] != hash) {
            batch.insert(entities, id, [&hash[..], element].concat());
            written += 1;
        }
        gathered += 1;
        if gathered == BATCH {
            gathered = 0;
            std::mem::replace(&mut batch, keyspace.batch()).commit()?;
            keyspace.persist(PersistMode::SyncData)?;
        }
    }
    batch.commit()?;
    keyspace.persist(PersistMode::SyncData)?;
    Ok(written)
}
