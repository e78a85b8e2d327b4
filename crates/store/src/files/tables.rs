//! The tables of an index and their rows, each with a check of its own.

use std::fs;
use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::AtomicUsize;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions, PutFlags, RoTxn, RwTxn, WithoutTls};
use uuid::Uuid;

use super::readers::Readers;
use super::sealed::Seal;
use super::superseded::Superseded;
use super::wire::{Reader, put_bytes};
use crate::Seq;
use crate::keys::{index_key, is_cut};
use crate::rule::Prior;

/// The layout of the tables and the content hash in them; another one means a rebuild.
const LAYOUT: u32 = 2;
const APPLIED: &[u8] = b"applied";
/// Set while an index is written in pieces: what it will know.
const AHEAD: &[u8] = b"ahead";
const READERS: u32 = 1024;
/// Each transaction has room for so many.
const TABLES: u32 = 8;

pub(super) type Table = Database<'static, Bytes, Bytes>;

/// Up to where the index knows the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    pub generation: Uuid,
    pub commit: u64,
    /// The sum of that commit's frame.
    pub sum: u32,
    pub next: Seq,
    pub live: u64,
    pub deleted: u64,
    pub populated: bool,
    pub last_ts: i64,
    /// Whether that commit is held back: then the index cannot tell what readers see, and is of
    /// no use to whoever opens the dataset.
    pub held: bool,
}

/// An open environment and its tables.
pub(crate) struct Tables {
    pub(super) env: Env<WithoutTls>,
    pub(super) readers: Readers,
    /// How many rows its largest write changed.
    pub(super) wrote: AtomicUsize,
    pub(super) seal: Seal,
    /// Index key of an id to sequence, half hash and flags.
    latest: Table,
    /// Index key of a state key to its value.
    state: Table,
    superseded: Table,
    pub(super) meta: Table,
    /// Rows of declared indexes, where this is the environment that holds those.
    pub(super) keys: Table,
}

impl Seal {
    /// Whether a row of the table of this name is what was written.
    pub fn fits(self, table: &[u8], key: &[u8], row: &[u8]) -> bool {
        match table {
            b"latest" => self.latest(key, row).is_some(),
            b"keys" => self.mark(key, row).is_some(),
            _ => self.open(key, row).is_some(),
        }
    }
}

impl Tables {
    // LMDB maps the file: another process that changed it under us would change our memory.
    // The store's lock file keeps other processes out, and nothing here touches the file but LMDB.
    #[allow(unsafe_code)]
    pub fn open(dir: &Path, seal: Seal, map_bytes: usize) -> heed::Result<Tables> {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options
            .map_size(map_bytes)
            .max_dbs(TABLES)
            .max_readers(READERS);
        let env = unsafe { options.open(dir)? };
        check_length(dir, &env)?;
        let txn = env.write_txn()?;
        let tables = env.create_databases_and_commit(txn, |opener, txn| -> heed::Result<_> {
            Ok(CommitOrAbort::<_, ()>::Commit((
                opener.create_database(txn, Some("latest"))?,
                opener.create_database(txn, Some("state"))?,
                opener.create_database(txn, Some("superseded"))?,
                opener.create_database(txn, Some("meta"))?,
                opener.create_database(txn, Some("keys"))?,
            )))
        })?;
        let (latest, state, superseded, meta, keys) = tables.unwrap_commit();
        Ok(Tables {
            env,
            readers: Readers::default(),
            wrote: AtomicUsize::new(0),
            seal,
            latest,
            state,
            superseded,
            meta,
            keys,
        })
    }

    pub(super) fn all(&self) -> [Table; 5] {
        [
            self.latest,
            self.state,
            self.superseded,
            self.meta,
            self.keys,
        ]
    }

    /// Writes latest versions, in the order of their keys.
    pub fn write_latest<'r>(
        &self,
        txn: &mut RwTxn<'_>,
        rows: impl Iterator<Item = (&'r [u8], Option<Prior>)>,
    ) -> heed::Result<()> {
        // What goes into an empty table is put at its end, page by full page.
        let flags = match self.latest.is_empty(txn)? {
            true => PutFlags::APPEND,
            false => PutFlags::empty(),
        };
        for (key, prior) in rows {
            match prior {
                Some(prior) => {
                    let row = self.seal.close_latest(key, &prior);
                    self.latest.put_with_flags(txn, flags, key, &row)?;
                }
                None => self.latest.delete(txn, key).map(|_| ())?,
            }
        }
        Ok(())
    }

    /// Writes a chunk of what is superseded.
    pub fn write_chunk(
        &self,
        txn: &mut RwTxn<'_>,
        superseded: &Superseded,
        number: u32,
    ) -> heed::Result<()> {
        let chunk = superseded.chunk(number);
        self.put_closed(txn, self.superseded, &number.to_be_bytes(), chunk)
    }

    /// Notes what the index will know when all pieces are written.
    pub fn write_ahead(&self, txn: &mut RwTxn<'_>, applied: &Applied) -> heed::Result<()> {
        self.put_closed(txn, self.meta, AHEAD, applied.encode(0, 0))
    }

    /// Notes what the index knows, where that is anything, once all pieces are written.
    pub fn write_applied(
        &self,
        txn: &mut RwTxn<'_>,
        applied: Option<&Applied>,
        superseded: &Superseded,
    ) -> heed::Result<()> {
        if let Some(applied) = applied {
            let row = applied.encode(superseded.len(), self.state.len(txn)?);
            self.put_closed(txn, self.meta, APPLIED, row)?;
        }
        self.meta.delete(txn, AHEAD).map(|_| ())
    }

    /// Puts a row with its check.
    pub fn put_closed(
        &self,
        txn: &mut RwTxn<'_>,
        table: Table,
        key: &[u8],
        mut row: Vec<u8>,
    ) -> heed::Result<()> {
        self.seal.close(key, &mut row);
        table.put(txn, key, &row)
    }

    /// The row of a key without its check.
    pub fn get_closed<'t>(
        &self,
        txn: &'t RoTxn<'_, WithoutTls>,
        table: Table,
        key: &[u8],
    ) -> heed::Result<Option<&'t [u8]>> {
        let row = table.get(txn, key)?;
        row.map(|row| self.seal.open(key, row).ok_or_else(wrong_check))
            .transpose()
    }

    /// Sets or removes state.
    pub fn write_state(
        &self,
        txn: &mut RwTxn<'_>,
        whole: &[u8],
        value: Option<&[u8]>,
    ) -> heed::Result<()> {
        let key = index_key(whole);
        let Some(value) = value else {
            return self.state.delete(txn, &key).map(|_| ());
        };
        let mut row = Vec::with_capacity(value.len() + 1);
        if is_cut(&key) {
            put_bytes(whole, &mut row);
        } else {
            row.push(0);
        }
        row.extend_from_slice(value);
        self.put_closed(txn, self.state, &key, row)
    }

    /// Up to where the index knows the log, and what is superseded there; `None` where it does not
    /// say so in this layout.
    pub fn applied(
        &self,
        txn: &RoTxn<'_, WithoutTls>,
    ) -> heed::Result<Option<(Applied, Superseded)>> {
        let noted = self.get_closed(txn, self.meta, APPLIED)?;
        let Some((applied, counts)) = noted.and_then(Applied::decode) else {
            return Ok(None);
        };
        let mut superseded = Superseded::default();
        for chunk in self.superseded.iter(txn)? {
            let (key, row) = chunk?;
            let number = key.try_into().map(u32::from_be_bytes).map_err(bad_row)?;
            let chunk = self.seal.open(key, row).ok_or_else(wrong_check)?;
            superseded.restore(number, chunk).map_err(bad_row)?;
        }
        let ids = match self.ahead(txn)? {
            None => self.latest.len(txn)?,
            // Some of those that it does not know of are in already.
            Some(_) => applied.live + applied.deleted,
        };
        let found = (ids, superseded.len(), self.state.len(txn)?);
        let noted = (applied.live + applied.deleted, counts.0, counts.1);
        if found != noted {
            return Err(bad_row(format!(
                "expected {noted:?} ids, superseded versions and state keys, found {found:?}"
            )));
        }
        Ok(Some((applied, superseded)))
    }

    /// Up to where rows may be that an interrupted write left behind, with nothing noted of it.
    pub fn ahead(&self, txn: &RoTxn<'_, WithoutTls>) -> heed::Result<Option<Applied>> {
        let row = self.get_closed(txn, self.meta, AHEAD)?;
        let ahead = row.map(|row| Applied::decode(row).ok_or_else(|| bad_row("expected a commit")));
        Ok(ahead.transpose()?.map(|(ahead, _)| ahead))
    }

    /// The latest version under an index key. Whoever is not `wary` believes that a key that is not
    /// found is not there.
    pub fn prior(
        &self,
        txn: &RoTxn<'_, WithoutTls>,
        key: &[u8],
        wary: bool,
    ) -> heed::Result<Option<Prior>> {
        match self.latest.get(txn, key)? {
            Some(row) => {
                let prior = self.seal.latest(key, row);
                prior.map(Some).ok_or_else(wrong_check)
            }
            None if wary => self.missing(txn, b"latest", self.latest, key),
            None => Ok(None),
        }
    }

    /// State under a key.
    pub fn state_of(
        &self,
        txn: &RoTxn<'_, WithoutTls>,
        whole: &[u8],
    ) -> heed::Result<Option<Vec<u8>>> {
        let key = index_key(whole);
        match self.get_closed(txn, self.state, &key)? {
            Some(row) => Ok(Some(decode_state(&key, row)?.1.to_vec())),
            None => self.missing(txn, b"state", self.state, &key),
        }
    }

    /// Makes sure that a key that was not found is not there. A key that changed leads those astray
    /// that are looked for: they end beside it, or in a place where they do not belong.
    fn missing<R>(
        &self,
        txn: &RoTxn<'_, WithoutTls>,
        name: &[u8],
        table: Table,
        key: &[u8],
    ) -> heed::Result<Option<R>> {
        let after = table.get_greater_than_or_equal_to(txn, key)?;
        let after =
            after.is_none_or(|(other, row)| other > key && self.seal.fits(name, other, row));
        if !after || !self.is_whole_before(txn, name, table, key)? {
            return Err(bad_row(
                "a row beside a missing one is not what was written",
            ));
        }
        Ok(None)
    }

    /// Whether the row before the place of `key` is what was written, and is before it.
    pub fn is_whole_before(
        &self,
        txn: &RoTxn<'_, WithoutTls>,
        name: &[u8],
        table: Table,
        key: &[u8],
    ) -> heed::Result<bool> {
        let before = table.get_lower_than(txn, key)?;
        Ok(before.is_none_or(|(other, row)| other < key && self.seal.fits(name, other, row)))
    }

    /// Calls `each` with whole keys and values of state in the order of index keys, from the index
    /// key `from` on, while those start with `prefix` and `each` wants more.
    pub fn states_from(
        &self,
        txn: &RoTxn<'_, WithoutTls>,
        from: &[u8],
        prefix: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> heed::Result<()> {
        if !self.is_whole_before(txn, b"state", self.state, from)? {
            return Err(wrong_check());
        }
        let range = (Bound::Included(from), Bound::Unbounded);
        for row in self.state.range(txn, &range)? {
            let (key, row) = row?;
            // Also that of the row behind the last one: it may have been one of them.
            let row = self.seal.open(key, row).ok_or_else(wrong_check)?;
            if !key.starts_with(prefix) {
                break;
            }
            let (whole, value) = decode_state(key, row)?;
            if !each(whole, value) {
                break;
            }
        }
        Ok(())
    }
}

/// A map that is longer than its file ends the process when it is read; so the file is measured.
fn check_length(dir: &Path, env: &Env<WithoutTls>) -> heed::Result<()> {
    let pages = env.info().last_page_number as u64 + 1;
    let page = u64::from(env.unnamed_database_stat().page_size);
    let found = fs::metadata(dir.join("data.mdb"))?.len();
    if found < pages * page {
        return Err(bad_row(format!(
            "expected {} bytes of index, found {found}",
            pages * page
        )));
    }
    Ok(())
}

pub(super) fn bad_row(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> heed::Error {
    heed::Error::Decoding(error.into())
}

pub(super) fn wrong_check() -> heed::Error {
    bad_row("a row does not match its check")
}

/// Whole key and value. A row starts with the whole key where the index key is cut, else with 0.
fn decode_state<'t>(key: &'t [u8], row: &'t [u8]) -> heed::Result<(&'t [u8], &'t [u8])> {
    let mut reader = Reader(row);
    let whole = reader
        .bytes()
        .ok_or_else(|| bad_row("expected a length in a row of state"))?;
    Ok((if is_cut(key) { whole } else { key }, reader.0))
}

impl Applied {
    /// With the counts of superseded versions and of state keys.
    fn encode(&self, superseded: u64, states: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&LAYOUT.to_le_bytes());
        bytes.extend_from_slice(&self.generation.as_u128().to_le_bytes());
        for number in [self.commit, self.next, self.live, self.deleted] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.last_ts.to_le_bytes());
        bytes.extend_from_slice(&self.sum.to_le_bytes());
        bytes.push(u8::from(self.populated));
        bytes.push(u8::from(self.held));
        bytes.extend_from_slice(&superseded.to_le_bytes());
        bytes.extend_from_slice(&states.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<(Applied, (u64, u64))> {
        let mut reader = Reader(bytes);
        if reader.u32()? != LAYOUT {
            return None;
        }
        let applied = Applied {
            generation: Uuid::from_u128(reader.u128()?),
            commit: reader.u64()?,
            next: reader.u64()?,
            live: reader.u64()?,
            deleted: reader.u64()?,
            last_ts: reader.i64()?,
            sum: reader.u32()?,
            populated: reader.u8()? == 1,
            held: reader.u8()? == 1,
        };
        Some((applied, (reader.u64()?, reader.u64()?)))
    }
}
