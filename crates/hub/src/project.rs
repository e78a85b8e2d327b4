//! A project on disk, in the layout of the reference's client.
//!
//! `pipes/**/*.conf.json`, `systems/**/*.conf.json`, `node-metadata.conf.json`,
//! `<profile>-env.json`, `expected/*.test.json`, `testdata/**/*.json`. A file holds one component
//! or a list of them; identity is the `_id`, never the file's name.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};
use tahini_dtl::JsonPath;

use crate::Registry;
use crate::config::{Configuration, Input, Problem, Text};
use crate::secrets::MemorySecrets;

/// Why a project cannot be loaded at all.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// There is no such folder.
    #[error("there is no project at {0}: expected a folder with pipes/ and systems/")]
    NoFolder(PathBuf),
    /// A file or folder could not be read.
    #[error("{file}: {source}")]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file of secrets is none.
    #[error("{file} is no file of secrets: {why}")]
    NoSecrets {
        /// The file.
        file: PathBuf,
        /// What was expected, what was found.
        why: String,
    },
}

/// A project: its documents, its variables, and where its tests and test data are.
#[derive(Clone, Debug)]
pub struct Project {
    /// The folder.
    pub folder: PathBuf,
    /// The profile, which chooses the variables.
    pub profile: String,
    /// The documents of configuration.
    pub inputs: Vec<Input>,
    /// The variables of the profile.
    pub env: Map<String, Json>,
    /// The tests, sorted by file.
    pub tests: Vec<TestSpec>,
    /// What is posted into pipes before tests, sorted by file: (pipe, file).
    pub testdata: Vec<(String, PathBuf)>,
    /// What was wrong with the files: syntax, names that stand twice, a missing env file. Files
    /// are named relative to the folder that was given.
    pub problems: Vec<Problem>,
}

impl Project {
    /// Reads the project in `folder`.
    ///
    /// # Errors
    /// A missing folder, or one that cannot be read. All else is a problem.
    pub fn load(folder: &Path, profile: &str) -> Result<Project, ProjectError> {
        if !folder.is_dir() {
            return Err(ProjectError::NoFolder(folder.to_owned()));
        }
        let mut project = Project {
            folder: folder.to_owned(),
            profile: profile.to_owned(),
            inputs: Vec::new(),
            env: Map::new(),
            tests: Vec::new(),
            testdata: Vec::new(),
            problems: Vec::new(),
        };
        let metadata = folder.join("node-metadata.conf.json");
        if metadata.is_file() {
            project.read_input(&metadata)?;
        }
        for part in ["systems", "pipes"] {
            for file in files(&folder.join(part), ".conf.json")? {
                project.read_input(&file)?;
            }
        }
        project.read_env()?;
        for file in files(&folder.join("expected"), ".test.json")? {
            let text = project.read(&file)?;
            if let Some(json) = text.json {
                project.add_test(&file, &json);
            }
        }
        for file in files(&folder.join("testdata"), ".json")? {
            project.testdata.push((stem(&file, ".json"), file));
        }
        Ok(project)
    }

    /// The project's configuration, judged by the tables of `registry`.
    pub fn configure(&self, registry: &Registry) -> Configuration {
        Configuration::build(self.inputs.clone(), &self.env, registry)
    }

    fn read(&mut self, file: &Path) -> Result<Text, ProjectError> {
        let bytes = fs::read(file).map_err(|source| ProjectError::Io {
            file: file.to_owned(),
            source,
        })?;
        let text = String::from_utf8_lossy(&bytes);
        let mut read = Text::parse(&text, Some(file));
        if matches!(text, std::borrow::Cow::Owned(_)) {
            let at = text.find('\u{fffd}').unwrap_or_default();
            let line = text[..at].matches('\n').count() + 1;
            let message = format!("expected UTF-8, found other bytes in line {line}");
            read.json = None;
            read.problems
                .push(Problem::error(JsonPath::default(), message).in_file(file));
        }
        self.problems.append(&mut read.problems);
        Ok(read)
    }

    fn read_input(&mut self, file: &Path) -> Result<(), ProjectError> {
        let text = self.read(file)?;
        if let Some(json) = text.json {
            self.inputs.push(Input {
                json,
                file: Some(file.to_owned()),
                spans: Some(text.spans),
                folder: Some(self.folder.clone()),
            });
        }
        Ok(())
    }

    fn read_env(&mut self) -> Result<(), ProjectError> {
        let file = self.folder.join(format!("{}-env.json", self.profile));
        if !file.is_file() {
            // A project without variables needs no file; one that uses some hears of each.
            let others = profiles(&self.folder)?;
            if !others.is_empty() {
                let message = format!("the profile {:?} has no env file", self.profile);
                let problem = Problem::warning(JsonPath::default(), message).in_file(file);
                let help = format!("the project has profiles {}", others.join(", "));
                self.problems.push(problem.with_help(help));
            }
            return Ok(());
        }
        match self.read(&file)?.json {
            Some(Json::Object(env)) => self.env = env,
            Some(_) => {
                let message = "expected an object of variables";
                self.problems
                    .push(Problem::error(JsonPath::default(), message).in_file(file));
            }
            None => {}
        }
        Ok(())
    }

    fn add_test(&mut self, file: &Path, json: &Json) {
        match TestSpec::of(file, json) {
            Ok(test) => self.tests.push(test),
            Err(problems) => self.problems.extend(problems),
        }
    }
}

/// One test of a project: what a pipe should give.
#[derive(Clone, Debug, PartialEq)]
pub struct TestSpec {
    /// The file of the test.
    pub spec: PathBuf,
    /// The test's name: the file's, without `.test.json`.
    pub name: String,
    /// The pipe; the test's name by default.
    pub pipe: String,
    /// The file of what is expected; `<name>.json` beside the test by default.
    pub file: PathBuf,
    /// How the pipe is read: `json` by default, or `xml`, `csv`, …
    pub endpoint: String,
    /// Where in the pipe; its end by default.
    pub stage: Option<String>,
    /// Whether the test is left out.
    pub ignore: bool,
    /// Whether deleted entities count only where they are expected; true by default.
    pub ignore_deletes: bool,
    /// Properties that do not count, dots for nested ones.
    pub blacklist: Vec<String>,
    /// Parameters of the request to a published endpoint.
    pub parameters: Map<String, Json>,
    /// The properties that entities are sorted by; `_id` by default.
    pub fields_to_sort_by: Vec<String>,
}

impl TestSpec {
    fn of(file: &Path, json: &Json) -> Result<TestSpec, Vec<Problem>> {
        let name = stem(file, ".test.json");
        let mut reader = SpecReader::new(json);
        let expected = reader.text("file");
        let mut fields_to_sort_by = reader.texts("fields_to_sort_by");
        if fields_to_sort_by.is_empty() {
            fields_to_sort_by.push("_id".to_owned());
        }
        let test = TestSpec {
            spec: file.to_owned(),
            pipe: reader.text("pipe").unwrap_or_else(|| name.clone()),
            file: file.with_file_name(expected.unwrap_or_else(|| format!("{name}.json"))),
            name,
            endpoint: reader.text("endpoint").unwrap_or_else(|| "json".to_owned()),
            stage: reader.text("stage"),
            ignore: reader.flag("ignore", false),
            ignore_deletes: reader.flag("ignore_deletes", true),
            blacklist: reader.texts("blacklist"),
            parameters: reader.object("parameters"),
            fields_to_sort_by,
        };
        if reader.problems.is_empty() {
            return Ok(test);
        }
        Err(reader
            .problems
            .into_iter()
            .map(|problem| problem.in_file(file))
            .collect())
    }
}

/// Reads a test's properties and notes what is wrong with them.
struct SpecReader<'a> {
    json: &'a Json,
    problems: Vec<Problem>,
}

impl<'a> SpecReader<'a> {
    fn new(json: &'a Json) -> SpecReader<'a> {
        let mut problems = Vec::new();
        if !json.is_object() {
            problems.push(Problem::error(
                JsonPath::default(),
                "expected a test (an object)",
            ));
        }
        SpecReader { json, problems }
    }

    /// The property, if it is there and what `read` makes of it.
    fn read<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&'a Json) -> Option<T>,
    ) -> Option<T> {
        let value = self.json.get(name).filter(|value| !value.is_null())?;
        let read = read(value);
        if read.is_none() {
            let path = JsonPath::default().name(name);
            self.problems.push(Problem::error(
                path,
                format!("expected {expected}, found {value}"),
            ));
        }
        read
    }

    fn text(&mut self, name: &str) -> Option<String> {
        self.read(name, "text", |value| Some(value.as_str()?.to_owned()))
    }

    fn flag(&mut self, name: &str, default: bool) -> bool {
        self.read(name, "true or false", Json::as_bool)
            .unwrap_or(default)
    }

    fn texts(&mut self, name: &str) -> Vec<String> {
        let texts = self.read(name, "a list of texts", |value| {
            let list = value.as_array()?.iter();
            list.map(|item| Some(item.as_str()?.to_owned()))
                .collect::<Option<Vec<String>>>()
        });
        texts.unwrap_or_default()
    }

    fn object(&mut self, name: &str) -> Map<String, Json> {
        self.read(name, "an object", Json::as_object)
            .cloned()
            .unwrap_or_default()
    }
}

/// Reads a file of secrets: an object of names and values, and of objects for systems.
///
/// # Errors
/// When it cannot be read or is no such object. The message never holds what the file says.
pub fn read_secrets(file: &Path) -> Result<MemorySecrets, ProjectError> {
    let text = fs::read_to_string(file).map_err(|source| ProjectError::Io {
        file: file.to_owned(),
        source,
    })?;
    let read = Text::parse(&text, Some(file));
    match read.json {
        Some(Json::Object(secrets)) => Ok(MemorySecrets::from_json(&secrets)),
        Some(_) => Err(ProjectError::NoSecrets {
            file: file.to_owned(),
            why: "expected an object of names and values".to_owned(),
        }),
        None => {
            let line = read
                .problems
                .first()
                .and_then(|problem| problem.line)
                .unwrap_or(1);
            let why = format!("expected JSON, found something else in line {line}");
            Err(ProjectError::NoSecrets {
                file: file.to_owned(),
                why,
            })
        }
    }
}

/// The files under `folder` whose names end so, sorted; none when there is no such folder.
fn files(folder: &Path, end: &str) -> Result<Vec<PathBuf>, ProjectError> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        if !folder.is_dir() {
            continue;
        }
        let io = |source| ProjectError::Io {
            file: folder.clone(),
            source,
        };
        for entry in fs::read_dir(&folder).map_err(io)? {
            let path = entry.map_err(io)?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            // Editors and tools keep their own files behind a dot.
            if name.starts_with('.') {
                continue;
            }
            // A link to a folder could lead back to where it is.
            if path.is_dir() {
                if !path.is_symlink() {
                    folders.push(path);
                }
            } else if name.ends_with(end) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The profiles that have an env file, sorted.
fn profiles(folder: &Path) -> Result<Vec<String>, ProjectError> {
    let io = |source| ProjectError::Io {
        file: folder.to_owned(),
        source,
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let name = entry
            .map_err(io)?
            .file_name()
            .to_string_lossy()
            .into_owned();
        if let Some(profile) = name.strip_suffix("-env.json") {
            found.push(profile.to_owned());
        }
    }
    found.sort();
    Ok(found)
}

/// The file's name without its end.
fn stem(file: &Path, end: &str) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.strip_suffix(end).unwrap_or(&name).to_owned()
}

#[cfg(test)]
mod tests;
