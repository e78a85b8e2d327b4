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

mod spec;

pub use spec::{TEST, TestSpec};

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
            project.add_test(&file, &text);
        }
        for file in files(&folder.join("testdata"), ".json")? {
            project.testdata.push((stem(&file, ".json"), file));
        }
        project.note_unread()?;
        Ok(project)
    }

    /// Warns of files that look like configuration and are not read, and of a folder without any.
    fn note_unread(&mut self) -> Result<(), ProjectError> {
        let mut warn = |file: PathBuf, message: &str, help: String| {
            let problem = Problem::warning(JsonPath::default(), message);
            self.problems.push(problem.in_file(file).with_help(help));
        };
        for part in ["systems", "pipes"] {
            for file in files(&self.folder.join(part), ".json")? {
                let name = stem(&file, ".json");
                if !name.ends_with(".conf") {
                    let message =
                        "this file is not read: files of configuration end with .conf.json";
                    warn(file, message, format!("rename it to {name}.conf.json"));
                }
            }
        }
        if self.inputs.is_empty() && self.problems.iter().all(|problem| !problem.is_error()) {
            let message = "expected configuration in pipes/*.conf.json and systems/*.conf.json, \
                           found none";
            let problem = Problem::warning(JsonPath::default(), message);
            self.problems.push(problem.in_file(&self.folder));
        }
        Ok(())
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
        let mut read = Text::of_bytes(&bytes, Some(file));
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

    fn add_test(&mut self, file: &Path, text: &Text) {
        let Some(json) = &text.json else { return };
        let (test, problems) = TestSpec::of(file, json);
        self.tests.extend(test);
        self.problems
            .extend(problems.into_iter().map(|mut problem| {
                let place = text.spans.locate(&problem.path, problem.spot);
                problem.line = Some(place.line);
                problem.column = Some(place.column);
                problem.in_file(file)
            }));
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
