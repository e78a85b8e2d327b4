//! What a service writes: whole lines, redacted, the newest thousand of them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use jiff::Timestamp;
use tokio::sync::watch;

use tahini_hub::secrets::Redactor;

/// How many lines of a service are kept.
const MAX_LINES: usize = 1_000;
/// How many bytes of text they may take together.
const MAX_BYTES: usize = 4 << 20;
/// A line longer than this is kept in pieces.
const MAX_LINE_BYTES: usize = 64 << 10;

/// Who wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The service's standard output.
    Stdout,
    /// The service's standard error.
    Stderr,
    /// The node, about the service: started, crashed, pulled.
    Node,
}

impl Stream {
    /// The name in the API: `stdout`, `stderr` or `node`.
    pub fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
            Stream::Node => "node",
        }
    }
}

/// One line of a log, without its line break.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// When it was read; strictly rising within a log, so that it can serve as `since`.
    pub at: Timestamp,
    /// Who wrote it.
    pub stream: Stream,
    /// The text, redacted.
    pub text: String,
}

/// The secrets to hide, shared by everything that writes and exchanged when they change.
pub(super) type SharedRedactor = Arc<RwLock<Arc<Redactor>>>;

/// The newest lines of one service: at most 1,000, and at most 4 MiB of text.
pub struct Log {
    redactor: SharedRedactor,
    ring: Mutex<Ring>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Ring {
    lines: VecDeque<Line>,
    bytes: usize,
    last: Timestamp,
}

impl Log {
    /// An empty log whose lines lose the values that the redactor knows.
    pub fn new(redactor: Redactor) -> Log {
        Log::shared(Arc::new(RwLock::new(Arc::new(redactor))))
    }

    pub(super) fn shared(redactor: SharedRedactor) -> Log {
        Log {
            redactor,
            ring: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }

    pub(super) fn redactor(&self) -> Arc<Redactor> {
        self.redactor
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A line that the node writes into the service's log.
    pub fn note(&self, text: &str) {
        let text = self.redactor().redact(text).into_owned();
        self.push(Timestamp::now(), Stream::Node, text);
    }

    /// Keeps a line whose secrets are already hidden.
    fn push(&self, at: Timestamp, stream: Stream, text: String) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let after_last = ring.last + jiff::SignedDuration::from_nanos(1);
        ring.last = at.max(after_last);
        ring.bytes += text.len();
        let line = Line {
            at: ring.last,
            stream,
            text,
        };
        ring.lines.push_back(line);
        while ring.lines.len() > MAX_LINES || ring.bytes > MAX_BYTES {
            let Some(oldest) = ring.lines.pop_front() else {
                break;
            };
            ring.bytes -= oldest.text.len();
        }
        drop(ring);
        self.changed.send_replace(());
    }

    /// Tells whenever there are new lines.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The moment of the newest line.
    pub fn newest(&self) -> Option<Timestamp> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.lines.back().map(|line| line.at)
    }

    /// The kept lines, oldest first; with `since` only those after that moment.
    pub fn lines(&self, since: Option<Timestamp>) -> Vec<Line> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let from = since.map_or(0, |since| {
            ring.lines.partition_point(|line| line.at <= since)
        });
        ring.lines.range(from..).cloned().collect()
    }

    /// The service's own newest `count` lines as one text, for messages; empty when there are none.
    pub fn tail(&self, count: usize) -> String {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let mut newest: Vec<&str> = ring
            .lines
            .iter()
            .rev()
            .filter(|line| line.stream != Stream::Node)
            .take(count)
            .map(|line| line.text.as_str())
            .collect();
        newest.reverse();
        newest.join("\n")
    }
}

/// Cuts a stream of chunks into lines, hides secrets and hands the lines to a log.
///
/// A secret that arrives in two chunks is hidden, since only whole lines are looked at. A line of
/// more than 64 KiB is kept in pieces, cut where no secret stands.
pub struct LineSplitter {
    log: Arc<Log>,
    stream: Stream,
    open: Vec<u8>,
}

impl LineSplitter {
    /// A splitter for one stream of one service.
    pub fn new(log: Arc<Log>, stream: Stream) -> LineSplitter {
        LineSplitter {
            log,
            stream,
            open: Vec::new(),
        }
    }

    /// Takes the next chunk, as it came.
    pub fn feed(&mut self, mut chunk: &[u8]) {
        while let Some(end) = chunk.iter().position(|byte| *byte == b'\n') {
            self.take(&chunk[..end]);
            self.finish_line();
            chunk = &chunk[end + 1..];
        }
        self.take(chunk);
    }

    /// The stream has ended: an unfinished line is a line, too.
    pub fn finish(&mut self) {
        if !self.open.is_empty() {
            self.finish_line();
        }
    }

    fn take(&mut self, mut part: &[u8]) {
        let limit = MAX_LINE_BYTES + self.log.redactor().reach();
        while self.open.len() + part.len() > limit {
            let room = limit.saturating_sub(self.open.len());
            self.open.extend_from_slice(&part[..room]);
            part = &part[room..];
            self.cut_piece();
        }
        self.open.extend_from_slice(part);
    }

    fn finish_line(&mut self) {
        if self.open.last() == Some(&b'\r') {
            self.open.pop();
        }
        let text = String::from_utf8_lossy(&self.open);
        let clean = self.log.redactor().redact(&text).into_owned();
        self.open.clear();
        self.log.push(Timestamp::now(), self.stream, clean);
    }

    /// Stores the front of a line that is too long and holds back as much of it as a secret may
    /// need that has not fully arrived.
    fn cut_piece(&mut self) {
        let redactor = self.log.redactor();
        let unfinished = self
            .open
            .split_off(self.open.len() - unfinished_char(&self.open));
        let text = String::from_utf8_lossy(&self.open).into_owned();
        let mut cut = text.floor_char_boundary(MAX_LINE_BYTES);
        if let Some(found) = redactor
            .find(&text)
            .into_iter()
            .find(|found| found.contains(&cut))
        {
            // The next piece gets the secret whole, unless it would be the whole piece.
            cut = if found.start > 0 {
                found.start
            } else {
                found.end
            };
        }
        let (piece, rest) = text.split_at(cut);
        let clean = redactor.redact(piece).into_owned();
        self.open = [rest.as_bytes(), &unfinished].concat();
        self.log.push(Timestamp::now(), self.stream, clean);
    }
}

/// How many bytes at the end are the beginning of a character that has not fully arrived.
fn unfinished_char(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let width = match bytes[bytes.len() - back] {
            0x80..=0xbf => continue,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 1,
        };
        return if width > back { back } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splitter(secrets: &[&str]) -> (Arc<Log>, LineSplitter) {
        let redactor = Redactor::new(secrets.iter().map(|secret| (*secret).to_owned()));
        let log = Arc::new(Log::new(redactor));
        (log.clone(), LineSplitter::new(log, Stream::Stdout))
    }

    fn texts(log: &Log) -> Vec<String> {
        log.lines(None).into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn chunks_become_lines() {
        let (log, mut splitter) = splitter(&[]);
        splitter.feed(b"one\ntw");
        splitter.feed(b"o\r\n\nlast");
        splitter.finish();
        splitter.finish();
        assert_eq!(texts(&log), ["one", "two", "", "last"]);
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        let (log, mut splitter) = splitter(&[]);
        splitter.feed(b"a\xffb\n");
        assert_eq!(texts(&log), ["a\u{fffd}b"]);
    }

    #[test]
    fn a_secret_in_two_chunks_is_hidden() {
        let (log, mut splitter) = splitter(&["hunter22"]);
        splitter.feed(b"key hunt");
        splitter.feed(b"er22 end\n");
        assert_eq!(texts(&log), ["key *** end"]);
    }

    /// A long line is cut somewhere; wherever the secret stands, no part of it may come out.
    #[test]
    fn a_secret_anywhere_in_a_long_line_is_hidden() {
        for before in (MAX_LINE_BYTES - 20)..(MAX_LINE_BYTES + 120) {
            let (log, mut splitter) = splitter(&["hunter22"]);
            let mut line = vec![b'.'; before];
            line.extend_from_slice(b"hunter22");
            line.extend_from_slice(&[b'.'; 1_000]);
            for chunk in line.chunks(8_000) {
                splitter.feed(chunk);
            }
            splitter.finish();
            let all = texts(&log);
            assert!(all.len() > 1 && all.iter().all(|text| text.len() <= 2 * MAX_LINE_BYTES));
            let expected = line.len() - "hunter22".len() + "***".len();
            let joined = all.concat();
            assert_eq!(joined.len(), expected, "secret at {before}");
            assert_eq!(joined.replace('.', ""), "***", "secret at {before}");
        }
    }

    #[test]
    fn a_long_line_is_not_cut_within_a_character() {
        let line = "xæ€😀".repeat(MAX_LINE_BYTES / 2);
        for first in 0..12 {
            let (log, mut splitter) = splitter(&["a value of some length"]);
            let (head, tail) = line.as_bytes().split_at(first);
            splitter.feed(head);
            tail.chunks(4_099).for_each(|chunk| splitter.feed(chunk));
            splitter.finish();
            assert_eq!(texts(&log).concat(), line);
        }
    }

    #[test]
    fn only_the_newest_thousand_lines_are_kept() {
        let (log, mut splitter) = splitter(&[]);
        for n in 0..1_500 {
            splitter.feed(format!("{n}\n").as_bytes());
        }
        let all = texts(&log);
        assert_eq!(
            (all.len(), all[0].as_str(), all[999].as_str()),
            (1_000, "500", "1499")
        );
    }

    #[test]
    fn many_long_lines_stay_within_the_limit_of_bytes() {
        let (log, mut splitter) = splitter(&[]);
        let line = [vec![b'x'; 60_000], b"\n".to_vec()].concat();
        for _ in 0..200 {
            splitter.feed(&line);
        }
        let kept: usize = texts(&log).iter().map(String::len).sum();
        assert!(
            kept <= MAX_BYTES && kept > MAX_BYTES - 60_000,
            "{kept} bytes"
        );
    }

    #[test]
    fn since_gives_what_came_after() {
        let log = Log::new(Redactor::default());
        let noon: Timestamp = "2024-01-01T12:00:00Z".parse().unwrap();
        for text in ["a", "b", "c"] {
            // The clock stands still; the lines can be told apart all the same.
            log.push(noon, Stream::Stderr, text.into());
        }
        let all = log.lines(None);
        assert_eq!(all[0].at, noon);
        assert_eq!(log.lines(Some(all[0].at)), all[1..]);
        assert_eq!(log.lines(Some(all[2].at)), []);
    }

    #[test]
    fn the_tail_is_the_services_own() {
        let (log, mut splitter) = splitter(&["hunter22"]);
        splitter.feed(b"1\n2\n3\n");
        log.note("stopped with hunter22");
        assert_eq!(log.tail(2), "2\n3");
        assert_eq!(log.lines(None)[3].text, "stopped with ***");
    }
}
