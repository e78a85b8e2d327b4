//! One thing that is wrong with a configuration, with its place and what to do about it.

use std::fmt;
use std::path::PathBuf;

use serde_json::{Value as Json, json};
use tahini_dtl::{JsonPath, Segment};

/// Whether a problem keeps a component from running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The component does not run.
    Error,
    /// The component runs; the author should look at this.
    Warning,
}

impl Level {
    /// `error` or `warning`.
    pub fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warning => "warning",
        }
    }
}

/// Which text of a property a problem points at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spot {
    /// Its name.
    Name,
    /// Its value.
    #[default]
    Value,
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether the component can run all the same.
    pub level: Level,
    /// The id of the component, when the problem belongs to one.
    pub component: Option<String>,
    /// The file, when the configuration came from files.
    pub file: Option<PathBuf>,
    /// The line in the file, from 1.
    pub line: Option<u32>,
    /// The column in characters, from 1.
    pub column: Option<u32>,
    /// The place in the component's effective configuration, for example `$.source.type`.
    pub path: JsonPath,
    /// What was expected and what was found.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
    /// What the line and column point at.
    pub spot: Spot,
}

impl Problem {
    /// A problem of that level at that place.
    pub fn new(level: Level, path: JsonPath, message: impl Into<String>) -> Problem {
        Problem {
            level,
            component: None,
            file: None,
            line: None,
            column: None,
            path,
            message: message.into(),
            help: None,
            spot: Spot::Value,
        }
    }

    /// One that keeps the component from running.
    pub fn error(path: JsonPath, message: impl Into<String>) -> Problem {
        Problem::new(Level::Error, path, message)
    }

    /// One that the author should look at.
    pub fn warning(path: JsonPath, message: impl Into<String>) -> Problem {
        Problem::new(Level::Warning, path, message)
    }

    /// The same problem with what to write instead.
    pub fn with_help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }

    /// The same problem pointing at the property's name.
    pub fn at_name(mut self) -> Problem {
        self.spot = Spot::Name;
        self
    }

    /// The same problem in that file.
    pub fn in_file(mut self, file: impl Into<PathBuf>) -> Problem {
        self.file = Some(file.into());
        self
    }

    /// Whether the component cannot run.
    pub fn is_error(&self) -> bool {
        self.level == Level::Error
    }

    /// The shape that clients of the API read: `{"level", "msg", "elements"}`, where `elements`
    /// is the path with quoted names.
    pub fn to_json(&self) -> Json {
        let message = match &self.help {
            Some(help) => format!("{}. {help}", self.message),
            None => self.message.clone(),
        };
        json!({ "level": self.level.name(), "msg": message, "elements": quoted(&self.path) })
    }

    /// All that is known of it, each by itself, for scripts and editors: `level`, `msg` without
    /// the help, `help`, `component`, `file`, `line`, `column`, `path` as `$.source.type` and
    /// `elements` as in `to_json`; null where there is none.
    pub fn to_report(&self) -> Json {
        json!({
            "level": self.level.name(),
            "msg": self.message,
            "help": self.help,
            "component": self.component,
            "file": self.file.as_ref().map(|file| file.display().to_string()),
            "line": self.line,
            "column": self.column,
            "path": self.path.to_string(),
            "elements": quoted(&self.path),
        })
    }
}

impl fmt::Display for Problem {
    /// `file:line:column: error: message ($.source.type)`, with the help on a line of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, &self.component) {
            (Some(file), _) => {
                write!(f, "{}:", file.display())?;
                if let (Some(line), Some(column)) = (self.line, self.column) {
                    write!(f, "{line}:{column}:")?;
                }
                f.write_str(" ")?;
            }
            (None, Some(component)) => write!(f, "{component}: ")?,
            (None, None) => {}
        }
        write!(f, "{}: {}", self.level.name(), self.message)?;
        if !self.path.0.is_empty() {
            write!(f, " ({})", self.path)?;
        }
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// The path as `$['source']['type']`.
fn quoted(path: &JsonPath) -> String {
    let mut text = String::from("$");
    for segment in &path.0 {
        match segment {
            Segment::Position(at) => text.push_str(&format!("[{at}]")),
            Segment::Name(name) => {
                let name = name.replace('\\', "\\\\").replace('\'', "\\'");
                text.push_str(&format!("['{name}']"));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_printed_with_place_and_help() {
        let path = JsonPath::default().name("source").name("type");
        let mut problem = Problem::error(path, "unknown source type \"jsn\"")
            .with_help("did you mean \"json\"?")
            .in_file("pipes/a.conf.json");
        problem.line = Some(4);
        problem.column = Some(13);
        assert_eq!(
            problem.to_string(),
            "pipes/a.conf.json:4:13: error: unknown source type \"jsn\" ($.source.type)\n  \
             help: did you mean \"json\"?"
        );
        assert_eq!(
            problem.to_json(),
            json!({
                "level": "error",
                "msg": "unknown source type \"jsn\". did you mean \"json\"?",
                "elements": "$['source']['type']"
            })
        );
    }

    #[test]
    fn quotes_in_names_are_escaped() {
        let path = JsonPath::default().name("it's").at(3);
        assert_eq!(quoted(&path), r"$['it\'s'][3]");
    }
}
