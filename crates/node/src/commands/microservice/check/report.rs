//! What was found, for a person and for a machine.

use serde_json::{Value as Json, json};

use super::rows::{Protocol, Row};
use crate::cli::ServiceKind;

/// How one row came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Right,
    /// Something that a pipe can live with, if it knows.
    Warning,
    /// Something that loses, invents or repeats entities, or stops the pipe.
    Wrong,
    /// It could not be looked at.
    Skipped,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Verdict::Right => "ok",
            Verdict::Warning => "warning",
            Verdict::Wrong => "wrong",
            Verdict::Skipped => "skipped",
        }
    }
}

/// One row, as it came out.
struct Finding {
    protocol: Protocol,
    row: &'static Row,
    verdict: Verdict,
    /// What was found, or why nothing was.
    found: String,
}

impl Finding {
    /// A sentence: what was expected only where that is not what was found.
    fn message(&self) -> String {
        match self.verdict {
            Verdict::Right => self.found.clone(),
            Verdict::Skipped => format!("not looked at: {}", self.found),
            Verdict::Warning | Verdict::Wrong => {
                format!("expected {}, found {}", self.row.expected, self.found)
            }
        }
    }

    fn help(&self) -> Option<&'static str> {
        matches!(self.verdict, Verdict::Warning | Verdict::Wrong).then_some(self.row.help)
    }
}

/// All findings, in the order in which they were made; a row has one for each protocol, the worst.
#[derive(Default)]
pub struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// Notes how a row came out. What is wrong is not taken back by a later answer that is right.
    pub fn note(
        &mut self,
        protocol: Protocol,
        row: &'static Row,
        verdict: Verdict,
        found: impl Into<String>,
    ) {
        let rank = |verdict| match verdict {
            Verdict::Skipped => 0,
            Verdict::Right => 1,
            Verdict::Warning => 2,
            Verdict::Wrong => 3,
        };
        let found = found.into();
        let known = self
            .findings
            .iter_mut()
            .find(|known| known.row == row && known.protocol == protocol);
        match known {
            Some(known) if rank(known.verdict) >= rank(verdict) => {}
            Some(known) => (known.verdict, known.found) = (verdict, found),
            None => self.findings.push(Finding {
                protocol,
                row,
                verdict,
                found,
            }),
        }
    }

    /// How many rows are wrong.
    pub fn wrong(&self) -> usize {
        self.count(Verdict::Wrong)
    }

    fn count(&self, verdict: Verdict) -> usize {
        let those = self.findings.iter();
        those.filter(|finding| finding.verdict == verdict).count()
    }

    /// A line for each finding, help below it, and a last line with the counts.
    pub fn text(&self, url: &str) -> String {
        let mut lines = Vec::new();
        let mut protocol = None;
        for finding in &self.findings {
            if protocol != Some(finding.protocol) {
                protocol = Some(finding.protocol);
                lines.push(format!("{}:", finding.protocol.name()));
            }
            let verdict = match finding.verdict {
                Verdict::Wrong => "WRONG",
                Verdict::Skipped => "-",
                other => other.name(),
            };
            let (name, message) = (finding.row.name, finding.message());
            lines.push(format!("  {verdict:8} {name:14} {message}"));
            if let Some(help) = finding.help() {
                lines.push(format!("{:26}help: {help}", ""));
            }
        }
        let (wrong, warnings) = (self.wrong(), self.count(Verdict::Warning));
        let looked = self.findings.len() - self.count(Verdict::Skipped);
        lines.push(format!(
            "{url}: {looked} looked at, {wrong} wrong, {warnings} warnings"
        ));
        lines.join("\n")
    }

    /// The same for machines.
    pub fn json(&self, url: &str, kind: ServiceKind, failure: Option<String>) -> Json {
        let findings: Vec<Json> = self
            .findings
            .iter()
            .map(|finding| {
                json!({
                    "protocol": finding.protocol.name(),
                    "check": finding.row.name,
                    "verdict": finding.verdict.name(),
                    "message": finding.message(),
                    "help": finding.help(),
                })
            })
            .collect();
        json!({
            "url": url,
            "kind": kind.name(),
            "findings": findings,
            "wrong": self.wrong(),
            "warnings": self.count(Verdict::Warning),
            "failure": failure,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows;
    use super::*;

    #[test]
    fn the_worst_of_a_row_stays_and_protocols_are_apart() {
        let mut report = Report::default();
        report.note(Protocol::Pull, &rows::STATUS, Verdict::Wrong, "404");
        report.note(Protocol::Pull, &rows::STATUS, Verdict::Right, "200");
        report.note(Protocol::Push, &rows::STATUS, Verdict::Right, "201");
        report.note(Protocol::Push, &rows::AGAIN, Verdict::Skipped, "no time");
        let text = report.text("http://x");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "pull:");
        assert_eq!(
            lines[1],
            "  WRONG    status         expected a status of the 200s, found 404"
        );
        assert!(lines[2].trim_start().starts_with("help: "), "{}", lines[2]);
        assert_eq!(lines[3], "push:");
        assert_eq!(lines[4], "  ok       status         201");
        assert_eq!(lines[5], "  -        again          not looked at: no time");
        assert_eq!(lines[6], "http://x: 2 looked at, 1 wrong, 0 warnings");
        let json = report.json("http://x", ServiceKind::Both, None);
        assert_eq!(
            (&json["wrong"], &json["kind"]),
            (&json!(1), &json!("source+sink"))
        );
        assert_eq!(json["findings"][1]["verdict"], "ok");
    }
}
