//! A dataset's manifest: who it is and which segments belong to it, in order.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use uuid::Uuid;

use super::disk::{self, Disk};
use super::segment::{FORMAT, OLDEST};
use crate::{Past, Seq};

/// The manifest's file name.
pub(crate) const NAME: &str = "MANIFEST";

/// What a manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub generation: Uuid,
    pub name: String,
    /// Segments in order, by number; the last one is written to.
    pub segments: Vec<u32>,
    /// Whose versions it began with, oldest first: it was restored from a backup of them.
    pub past: Vec<Past>,
    /// Set in a backup that was never opened: the next sequence.
    pub backup: Option<Seq>,
}

/// Why a manifest cannot be used.
pub(crate) enum BadManifest {
    Io(io::Error),
    Format(u32),
    Damaged,
}

impl Manifest {
    /// Reads the manifest of the dataset in `dir`.
    pub fn load(disk: &dyn Disk, dir: &Path) -> Result<Manifest, BadManifest> {
        match disk::read_all(disk, &dir.join(NAME)) {
            Ok(bytes) => Manifest::parse(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(BadManifest::Damaged),
            Err(error) => Err(BadManifest::Io(error)),
        }
    }

    /// Replaces the manifest, atomically and durably.
    pub fn store(&self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        disk::replace(disk, &dir.join(NAME), self.text().as_bytes())
    }

    /// Writes the manifest beside the one that counts.
    pub fn prepare(&self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        disk::prepare(disk, &dir.join(NAME), self.text().as_bytes())
    }

    /// Makes the prepared manifest the one that counts.
    pub fn swap(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        disk::swap(disk, &dir.join(NAME))
    }

    /// Lines of word and value; the last one is the CRC-32 of those above.
    pub fn text(&self) -> String {
        let mut text = format!(
            "tahini dataset\nformat {FORMAT}\ngeneration {}\n",
            self.generation
        );
        let name = self
            .name
            .replace('\\', "\\\\")
            .replace('\n', "\\n")
            .replace('\r', "\\r");
        let _ = write!(text, "name {name}\nsegments");
        for number in &self.segments {
            let _ = write!(text, " {number}");
        }
        text.push('\n');
        for past in &self.past {
            let _ = writeln!(text, "past {} {}", past.generation, past.next);
        }
        if let Some(next) = self.backup {
            let _ = writeln!(text, "backup {next}");
        }
        let sum = crc32fast::hash(text.as_bytes());
        let _ = writeln!(text, "crc {sum:08x}");
        text
    }

    fn parse(bytes: &[u8]) -> Result<Manifest, BadManifest> {
        let text = std::str::from_utf8(bytes).map_err(|_| BadManifest::Damaged)?;
        let mut lines = text.lines();
        if lines.next() != Some("tahini dataset") {
            return Err(BadManifest::Damaged);
        }
        let format = lines
            .next()
            .and_then(|line| line.strip_prefix("format ")?.parse().ok());
        match format {
            Some(OLDEST..=FORMAT) => Manifest::parse_body(text).ok_or(BadManifest::Damaged),
            Some(found) => Err(BadManifest::Format(found)),
            None => Err(BadManifest::Damaged),
        }
    }

    fn parse_body(text: &str) -> Option<Manifest> {
        let (body, sum) = text.rsplit_once("crc ")?;
        if u32::from_str_radix(sum.trim_end(), 16) != Ok(crc32fast::hash(body.as_bytes())) {
            return None;
        }
        let mut lines = body.lines().skip(2);
        let generation = lines.next()?.strip_prefix("generation ")?.parse().ok()?;
        let name = unescape(lines.next()?.strip_prefix("name ")?)?;
        let segments = lines.next()?.strip_prefix("segments")?;
        let segments = segments
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>();
        let mut manifest = Manifest {
            generation,
            name,
            segments: segments.ok()?,
            past: Vec::new(),
            backup: None,
        };
        for line in lines {
            if let Some(past) = line.strip_prefix("past ") {
                let (generation, next) = past.split_once(' ')?;
                manifest.past.push(Past {
                    generation: generation.parse().ok()?,
                    next: next.parse().ok()?,
                });
            } else {
                manifest.backup = Some(line.strip_prefix("backup ")?.parse().ok()?);
            }
        }
        Some(manifest)
    }

    /// What it is when a backup is opened for the first time: a dataset of its own that began
    /// with the versions of the one that was saved.
    pub fn restored(mut self) -> Manifest {
        if let Some(next) = self.backup.take() {
            let generation = std::mem::replace(&mut self.generation, Uuid::new_v4());
            self.past.push(Past { generation, next });
        }
        self
    }

    /// Whether a segment of this generation may belong to it.
    pub fn covers(&self, generation: Uuid) -> bool {
        let mut past = self.past.iter().map(|past| past.generation);
        self.generation == generation || past.any(|past| past == generation)
    }

    /// A number that no segment has had.
    pub fn fresh_number(&self) -> u32 {
        self.segments.iter().max().map_or(1, |newest| newest + 1)
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut name = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => match chars.next()? {
                'n' => name.push('\n'),
                'r' => name.push('\r'),
                '\\' => name.push('\\'),
                _ => return None,
            },
            other => name.push(other),
        }
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str) -> Manifest {
        Manifest {
            generation: Uuid::from_u128(7),
            name: name.to_owned(),
            segments: vec![1, 9, 2],
            past: vec![Past {
                generation: Uuid::from_u128(6),
                next: 12,
            }],
            backup: Some(77),
        }
    }

    #[test]
    fn any_name_comes_back() {
        for name in [
            "orders",
            "system:pump_execution:a b",
            "crc \\n\n\\",
            "æøå\r\n",
            "",
        ] {
            let text = manifest(name).text();
            assert!(Manifest::parse(text.as_bytes()).is_ok_and(|back| back == manifest(name)));
        }
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let text = manifest("orders").text().into_bytes();
        for at in 0..text.len() - 1 {
            let mut changed = text.clone();
            changed[at] ^= 1;
            assert!(Manifest::parse(&changed).is_err(), "byte {at}");
            assert!(Manifest::parse(&text[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn another_format_is_named() {
        let text = manifest("orders").text().replace("format 3", "format 4");
        assert!(matches!(
            Manifest::parse(text.as_bytes()),
            Err(BadManifest::Format(4))
        ));
    }
}
