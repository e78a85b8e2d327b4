//! An index without half-empty pages: everything copied in the order of its keys.

use heed::PutFlags;

use super::tables::Tables;

/// What a row costs beside its key and value, and how full pages get.
const ROW: u64 = 10;
const FULL: f64 = 0.97;
/// So many bytes of keys and values are copied in one transaction.
const AT_ONCE: usize = 8 << 20;

/// About how long the file would be.
pub(crate) fn bytes(tables: &Tables) -> heed::Result<u64> {
    let txn = tables.env.read_txn()?;
    let mut bytes = 0;
    for table in tables.all() {
        for row in table.iter(&txn)? {
            let (key, value) = row?;
            bytes += (key.len() + value.len()) as u64 + ROW;
        }
    }
    Ok((bytes as f64 / FULL) as u64)
}

/// Copies all rows to tables that are empty. Nobody looks into them before it is done, so it may
/// be done in several transactions: each keeps its pages in memory until its end.
pub(crate) fn copy(from: &Tables, to: &Tables) -> heed::Result<()> {
    let read = from.env.read_txn()?;
    let mut write = to.env.write_txn()?;
    let mut copied = 0;
    for (table, target) in from.all().into_iter().zip(to.all()) {
        for row in table.iter(&read)? {
            let (key, value) = row?;
            target.put_with_flags(&mut write, PutFlags::APPEND, key, value)?;
            copied += key.len() + value.len();
            if copied >= AT_ONCE {
                write.commit()?;
                write = to.env.write_txn()?;
                copied = 0;
            }
        }
    }
    write.commit()
}
