//! Looks through an index's file, page by page, before LMDB does: it follows what it reads without
//! asking, and a page that is not what it wrote may hide rows or end the process.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::wire::Reader;

/// Bytes before a page's pointers, and before a node's key.
const PAGE_HEAD: usize = 16;
const NODE_HEAD: usize = 8;

const BRANCH: u16 = 1;
const LEAF: u16 = 2;
const OVERFLOW: u16 = 4;
const META: u16 = 8;
/// What LMDB marks pages with in memory only.
const IN_MEMORY: u16 = 0x10 | 0x4000 | 0x8000;

/// A node whose value is on pages of its own, and one whose value is a table.
const BIG: u16 = 1;
const TABLE: u16 = 2;
/// The flags of the tree of free pages: its keys are numbers.
const NUMBERED: u16 = 8;

const MAGIC: u32 = 0xBEEF_C0DE;
const VERSION: u32 = 1;
/// No tree of a file that fits on a disk is deeper.
const DEEPEST: u16 = 32;
/// A tree of so many levels is looked through on two threads.
const PARTED: u16 = 3;
const NO_PAGE: u64 = u64::MAX;

/// What is wrong with a file, in words.
pub(crate) type Wrong = String;

/// Says of a table's name, a key and its value whether they are what was written.
pub(crate) type Good<'g> = &'g (dyn Fn(&[u8], &[u8], &[u8]) -> bool + Sync);

/// Reads all tables of the environment file at `path`. Without `good` rows are taken to be what
/// they are, in whatever order, as long as LMDB finds its way between them.
pub(crate) fn examine(path: &Path, good: Option<Good<'_>>) -> Result<(), Wrong> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let bytes = file.metadata().map_err(|error| error.to_string())?.len();
    let meta = newest(&file)?;
    let pages = meta.last + 1;
    if bytes < pages * meta.page as u64 {
        return Err(format!("expected {pages} pages, found {bytes} bytes"));
    }
    let mut used: Vec<AtomicBool> = Vec::new();
    used.resize_with(pages as usize, AtomicBool::default);
    let look = Look {
        file: &file,
        page: meta.page,
        used: &used,
        ordered: good.is_some(),
    };
    look.claim(0, 2)?;
    let mut tables = Vec::new();
    look.tree(&meta.main, 0, &mut |flags, name, value| {
        let tree = (flags == TABLE).then(|| Tree::parse(value)).flatten();
        tree.map(|tree| tables.push((name.to_vec(), tree)))
            .is_some()
    })?;
    for (name, tree) in &tables {
        let rows = |flags, key: &[u8], value: &[u8]| {
            flags == 0 && good.is_none_or(|good| good(name, key, value))
        };
        look.table(tree, &rows)
            .map_err(|wrong| format!("table {}: {wrong}", String::from_utf8_lossy(name)))?;
    }
    let mut free = Vec::new();
    look.tree(&meta.free, NUMBERED, &mut |flags, _, value| {
        let numbers = (flags == 0).then(|| page_numbers(value)).flatten();
        numbers.map(|numbers| free.extend(numbers)).is_some()
    })?;
    for page in free {
        look.claim(page, 1)
            .map_err(|_| format!("page {page} is free and in use"))?;
    }
    Ok(())
}

/// The number of the transaction that wrote the file last.
pub(crate) fn last_transaction(path: &Path) -> Result<u64, Wrong> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    Ok(newest(&file)?.txn)
}

/// The numbers of free pages: how many, then each.
fn page_numbers(value: &[u8]) -> Option<Vec<u64>> {
    let mut reader = Reader(value);
    let count = usize::try_from(reader.u64()?).ok()?;
    if count.checked_mul(8)? != reader.0.len() {
        return None;
    }
    (0..count).map(|_| reader.u64()).collect()
}

/// The page at the front of the file that counts.
struct Meta {
    page: usize,
    free: Tree,
    main: Tree,
    last: u64,
    txn: u64,
}

/// A table, as LMDB notes it.
struct Tree {
    flags: u16,
    depth: u16,
    branches: u64,
    leaves: u64,
    overflows: u64,
    entries: u64,
    root: u64,
}

impl Tree {
    fn parse(bytes: &[u8]) -> Option<Tree> {
        if bytes.len() != 48 {
            return None;
        }
        let mut reader = Reader(bytes);
        reader.u32()?;
        let kind = reader.u32()?;
        Some(Tree {
            flags: kind as u16,
            depth: (kind >> 16) as u16,
            branches: reader.u64()?,
            leaves: reader.u64()?,
            overflows: reader.u64()?,
            entries: reader.u64()?,
            root: reader.u64()?,
        })
    }

    /// Refuses a table that makes no sense, whatever is in it.
    fn check(&self, flags: u16) -> Result<(), Wrong> {
        let whole = self.flags == flags
            && self.depth <= DEEPEST
            && (self.root == NO_PAGE) == (self.depth == 0);
        match whole {
            true => Ok(()),
            false => Err("a table that makes no sense".to_owned()),
        }
    }

    /// Refuses other counts than those that are noted.
    fn compare(&self, found: [u64; 4]) -> Result<(), Wrong> {
        let noted = [self.branches, self.leaves, self.overflows, self.entries];
        match found == noted {
            true => Ok(()),
            false => Err(format!(
                "expected {noted:?} branches, leaves, pages of values and rows, found {found:?}"
            )),
        }
    }
}

/// The newer one of the two, as LMDB chooses it.
fn newest(file: &File) -> Result<Meta, Wrong> {
    let first = meta(file, 0)?;
    let second = meta(file, first.page as u64)?;
    if first.page != second.page {
        return Err("its two first pages disagree".to_owned());
    }
    let newest = if first.txn < second.txn {
        second
    } else {
        first
    };
    let whole = newest.main.flags == 0 && newest.free.flags == NUMBERED;
    match whole && newest.last < 1 << 40 {
        true => Ok(newest),
        false => Err("its first page makes no sense".to_owned()),
    }
}

fn meta(file: &File, at: u64) -> Result<Meta, Wrong> {
    let mut bytes = [0; PAGE_HEAD + 24 + 2 * 48 + 16];
    let read = file.read_exact_at(&mut bytes, at);
    read.map_err(|error| error.to_string())?;
    let parse = || {
        let mut reader = Reader(&bytes);
        let head = Head::parse(reader.take(PAGE_HEAD)?)?;
        let known = (head.flags, reader.u32()?, reader.u32()?) == (META, MAGIC, VERSION);
        reader.take(16)?;
        let (free, main) = (reader.take(48)?, reader.take(48)?);
        let page = Reader(free).u32()? as usize;
        let usual = page.is_power_of_two() && (512..=65_536).contains(&page);
        let meta = Meta {
            page,
            free: Tree::parse(free)?,
            main: Tree::parse(main)?,
            last: reader.u64()?,
            txn: reader.u64()?,
        };
        (known && usual && meta.last >= 1).then_some(meta)
    };
    parse().ok_or_else(|| format!("the page at byte {at} is no first page"))
}

/// What a page says of itself.
struct Head {
    number: u64,
    flags: u16,
    lower: usize,
    upper: usize,
    /// The same bytes as those two: how many pages a value takes.
    pages: u32,
}

impl Head {
    fn parse(page: &[u8]) -> Option<Head> {
        let mut reader = Reader(page);
        let number = reader.u64()?;
        let flags = (reader.u32()? >> 16) as u16 & !IN_MEMORY;
        let pages = reader.u32()?;
        Some(Head {
            number,
            flags,
            lower: (pages & 0xFFFF) as usize,
            upper: (pages >> 16) as usize,
            pages,
        })
    }
}

/// Goes through the pages of a file.
struct Look<'f> {
    file: &'f File,
    page: usize,
    /// The pages that were met.
    used: &'f [AtomicBool],
    /// Whether the order of keys counts.
    ordered: bool,
}

/// Judges a node's flags, key and value, on several threads.
type Judge<'j> = &'j (dyn Fn(u16, &[u8], &[u8]) -> bool + Sync);

/// Takes a node's flags, key and value in.
type Rows<'r> = &'r mut dyn FnMut(u16, &[u8], &[u8]) -> bool;

/// What was met in a tree so far.
#[derive(Default)]
struct Met {
    branches: u64,
    leaves: u64,
    overflows: u64,
    entries: u64,
    numbered: bool,
    /// The last key, and the least one that may follow.
    last: Option<Vec<u8>>,
    least: Option<Vec<u8>>,
    /// Pages that were read and may be read over.
    room: Vec<Vec<u8>>,
}

impl Met {
    fn counts(&self) -> [u64; 4] {
        [self.branches, self.leaves, self.overflows, self.entries]
    }

    /// Whether `key` may follow; the keys of a tree ascend.
    fn follows(&mut self, key: &[u8]) -> bool {
        let after = |known: &Vec<u8>| match self.numbered {
            true => number(known) < number(key),
            false => known.as_slice() < key,
        };
        let fits = self.last.as_ref().is_none_or(after)
            && self
                .least
                .as_ref()
                .is_none_or(|least| least == key || after(least));
        self.least = None;
        let last = self.last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(key);
        fits
    }

    /// Whether all keys so far are before `key`; those to come are not.
    fn divides(&mut self, key: &[u8]) -> bool {
        let before = self.last.as_ref().is_none_or(|last| match self.numbered {
            true => number(last) < number(key),
            false => last.as_slice() < key,
        });
        self.least = Some(key.to_vec());
        before
    }
}

fn number(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_le_bytes)
}

impl Look<'_> {
    /// Reads a table, a large one on two threads.
    fn table(&self, tree: &Tree, rows: Judge<'_>) -> Result<(), Wrong> {
        if tree.depth < PARTED {
            return self.tree(tree, 0, &mut |flags, key, value| rows(flags, key, value));
        }
        tree.check(0)?;
        let (root, depth) = (tree.root, tree.depth);
        self.claim(root, 1)?;
        let page = self.page(root, depth, Vec::new())?;
        let nodes: Option<Vec<Node<'_>>> = self.nodes(&page).collect();
        let nodes = nodes.ok_or_else(|| wrong(root))?;
        let (one, two) = nodes.split_at(nodes.len() / 2);
        let part = |first: Option<&Node<'_>>, nodes: &[Node<'_>], next: Option<&Node<'_>>| {
            let mut met = Met {
                least: first.map(|first| first.key.to_vec()),
                ..Met::default()
            };
            let mut judge = |flags, key: &[u8], value: &[u8]| rows(flags, key, value);
            self.below(root, nodes, depth, &mut met, &mut judge)?;
            match next.is_none_or(|next| !self.ordered || met.divides(next.key)) {
                true => Ok(met.counts()),
                false => Err(wrong(root)),
            }
        };
        let (one, two) = thread::scope(|scope| {
            let other = scope.spawn(|| part(two.first(), two, None));
            let one = part(None, one, two.first());
            (one, other.join())
        });
        let two = two.map_err(|_| wrong(root))??;
        let mut found = one?;
        (0..found.len()).for_each(|at| found[at] += two[at]);
        found[0] += 1;
        tree.compare(found)
    }

    fn tree(&self, tree: &Tree, flags: u16, rows: Rows<'_>) -> Result<(), Wrong> {
        let mut met = Met {
            numbered: flags == NUMBERED,
            ..Met::default()
        };
        tree.check(flags)?;
        if tree.depth > 0 {
            self.branch(tree.root, tree.depth, &mut met, rows)?;
        }
        tree.compare(met.counts())
    }

    /// Reads page `number` and what is below it, `depth` levels with its own.
    fn branch(&self, number: u64, depth: u16, met: &mut Met, rows: Rows<'_>) -> Result<(), Wrong> {
        self.claim(number, 1)?;
        let page = self.page(number, depth, met.room.pop().unwrap_or_default())?;
        if depth > 1 {
            met.branches += 1;
            let nodes: Option<Vec<Node<'_>>> = self.nodes(&page).collect();
            let nodes = nodes.ok_or_else(|| wrong(number))?;
            self.below(number, &nodes, depth, met, rows)?;
        } else {
            met.leaves += 1;
            self.leaf(number, &page, met, rows)?;
        }
        met.room.push(page);
        Ok(())
    }

    /// Reads what is below some neighbours in the page `number`.
    fn below(
        &self,
        number: u64,
        nodes: &[Node<'_>],
        depth: u16,
        met: &mut Met,
        rows: Rows<'_>,
    ) -> Result<(), Wrong> {
        for (at, node) in nodes.iter().enumerate() {
            if at > 0 && self.ordered && !met.divides(node.key) {
                return Err(wrong(number));
            }
            self.branch(node.child(), depth - 1, met, rows)?;
        }
        Ok(())
    }

    fn leaf(&self, number: u64, page: &[u8], met: &mut Met, rows: Rows<'_>) -> Result<(), Wrong> {
        for node in self.nodes(page) {
            let node = node.ok_or_else(|| wrong(number))?;
            met.entries += 1;
            let in_order = !self.ordered || met.follows(node.key);
            let good = match node.flags & BIG {
                0 => node
                    .value()
                    .is_some_and(|value| rows(node.flags, node.key, value)),
                _ => {
                    let value = self.big(&node, met)?;
                    rows(node.flags & !BIG, node.key, &value)
                }
            };
            if !(in_order && good) {
                return Err(wrong(number));
            }
        }
        Ok(())
    }

    /// Page `number` of a tree, `depth` levels above its end, as far as its head tells.
    fn page(&self, number: u64, depth: u16, mut page: Vec<u8>) -> Result<Vec<u8>, Wrong> {
        page.resize(self.page, 0);
        self.read(number, &mut page)?;
        let head = Head::parse(&page).ok_or_else(|| wrong(number))?;
        let kind = if depth > 1 { BRANCH } else { LEAF };
        let whole = head.number == number
            && head.flags == kind
            && (PAGE_HEAD..=head.upper).contains(&head.lower)
            && head.upper <= page.len()
            && head.lower % 2 == 0;
        whole.then_some(page).ok_or_else(|| wrong(number))
    }

    /// The nodes of a page; `None` for one that is not in it.
    fn nodes<'p>(&self, page: &'p [u8]) -> impl Iterator<Item = Option<Node<'p>>> {
        let head = Head::parse(page);
        let (lower, upper) = head.map_or((PAGE_HEAD, 0), |head| (head.lower, head.upper));
        page[PAGE_HEAD..lower].chunks_exact(2).map(move |place| {
            let place = usize::from(u16::from_le_bytes([place[0], place[1]]));
            let node = page.get(place..).filter(|_| place >= upper);
            node.and_then(Node::parse)
        })
    }

    /// A value on pages of its own.
    fn big(&self, node: &Node<'_>, met: &mut Met) -> Result<Vec<u8>, Wrong> {
        let number = Reader(node.rest).u64().unwrap_or(NO_PAGE);
        let pages = (PAGE_HEAD - 1 + node.size()) / self.page + 1;
        self.claim(number, pages as u64)?;
        met.overflows += pages as u64;
        let mut bytes = vec![0; PAGE_HEAD + node.size()];
        self.read(number, &mut bytes)?;
        let head = Head::parse(&bytes).ok_or_else(|| wrong(number))?;
        if (head.number, head.flags, head.pages as usize) != (number, OVERFLOW, pages) {
            return Err(wrong(number));
        }
        Ok(bytes.split_off(PAGE_HEAD))
    }

    fn read(&self, number: u64, into: &mut [u8]) -> Result<(), Wrong> {
        let read = self.file.read_exact_at(into, number * self.page as u64);
        read.map_err(|error| format!("page {number}: {error}"))
    }

    /// Notes that pages are in use, each once.
    fn claim(&self, first: u64, count: u64) -> Result<(), Wrong> {
        let until = first.checked_add(count);
        let range = until.filter(|until| *until <= self.used.len() as u64);
        let pages = range.map(|until| &self.used[first as usize..until as usize]);
        let all_new = |pages: &[AtomicBool]| {
            let mut claimed = pages.iter().map(|used| used.swap(true, Ordering::Relaxed));
            claimed.all(|used| !used)
        };
        match pages.is_some_and(all_new) {
            true => Ok(()),
            false => Err(format!("page {first} is not there or met twice")),
        }
    }
}

fn wrong(number: u64) -> Wrong {
    format!("page {number} is not what was written")
}

/// A row of a leaf, or the way to a page below a branch.
struct Node<'p> {
    low: u32,
    flags: u16,
    key: &'p [u8],
    rest: &'p [u8],
}

impl<'p> Node<'p> {
    fn parse(bytes: &'p [u8]) -> Option<Node<'p>> {
        let mut reader = Reader(bytes.get(..NODE_HEAD)?);
        let (low, high) = (reader.u32()?, reader.u32()?);
        let (key, rest) = bytes[NODE_HEAD..].split_at_checked((high >> 16) as usize)?;
        Some(Node {
            low,
            flags: high as u16,
            key,
            rest,
        })
    }

    fn size(&self) -> usize {
        self.low as usize
    }

    fn value(&self) -> Option<&'p [u8]> {
        self.rest.get(..self.size())
    }

    fn child(&self) -> u64 {
        u64::from(self.low) | u64::from(self.flags) << 32
    }
}
