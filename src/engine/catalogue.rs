//! The models this machine has: the built-in one and the GGUF files of some folders. Headers only are
//! read, and a file that has not changed is not read again.

mod folders;
mod places;

pub use places::{Place, usual};

use super::builtin;
use super::gguf::{self, FileId, ModelInfo, plain};
use crate::chat::{ModelCard, ModelState};
use folders::Files;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How alike a name must be to be offered instead of an unknown one.
const SIMILAR: f64 = 0.72;

/// One model, or one file that should have been one.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What requests call it: the file's stem in lower case, made unique; a path for one asked for by path.
    pub id: String,
    /// The file, links resolved.
    pub path: PathBuf,
    /// Other paths to the same file.
    pub aliases: Vec<PathBuf>,
    /// Bytes, all parts together.
    pub bytes: u64,
    /// What the file says, or why it can't be used (two lines, safe to show).
    pub info: Result<Arc<ModelInfo>, String>,
    /// Whether it is the one inside the program.
    pub is_builtin: bool,
    /// What it is called where its file's name does not say.
    found_as: Option<String>,
}

impl Entry {
    /// Why nothing can be done with it; none for models to chat with and for those that make embeddings.
    #[must_use]
    pub fn unusable(&self) -> Option<String> {
        match &self.info {
            Ok(info) if info.kind == gguf::ModelKind::Embedding => None,
            Ok(info) => info.kind.why_not_chat().map(ToOwned::to_owned),
            Err(reason) => Some(reason.clone()),
        }
    }

    /// The card for lists. An unusable model is shown as failed, with the reason, whatever `state` says.
    #[must_use]
    pub fn card(&self, state: ModelState) -> ModelCard {
        let info = self.info.as_ref().ok();
        let state = match self.unusable() {
            Some(reason) => {
                ModelState::Failed { reason: reason.lines().next().unwrap_or_default().to_owned() }
            }
            None => state,
        };
        ModelCard {
            id: self.id.clone(),
            state,
            parameters: info.map(|i| i.parameters).filter(|n| *n > 0),
            bytes: Some(self.bytes),
            quantisation: info.and_then(|i| i.quantisation.clone()),
            context: info.map(|i| i.context_train).filter(|n| *n > 0),
            is_builtin: self.is_builtin,
            ..ModelCard::default()
        }
    }
}

/// No model of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NotFound {
    /// Two lines: what is missing, and names like it or where to put models.
    pub message: String,
}

/// The list of models, kept between scans.
#[derive(Debug)]
pub struct Catalogue {
    builtin: Option<PathBuf>,
    roots: Vec<PathBuf>,
    /// Where other programs keep models.
    places: Vec<Place>,
    read: HashMap<FileId, Result<Arc<ModelInfo>, String>>,
    entries: Vec<Entry>,
    /// Files asked for by path, which no folder holds.
    by_path: Vec<PathBuf>,
    warnings: Vec<String>,
}

impl Catalogue {
    /// A catalogue of the built-in model (none: there is none) and these folders. Nothing is read yet.
    #[must_use]
    pub fn new(builtin: Option<PathBuf>, roots: Vec<PathBuf>) -> Self {
        Self {
            builtin,
            roots,
            places: Vec::new(),
            read: HashMap::new(),
            entries: Vec::new(),
            by_path: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Searches these as well.
    #[must_use]
    pub fn with_places(mut self, places: Vec<Place>) -> Self {
        self.places = places;
        self
    }

    /// The folders searched: the configured ones, `~/models`, and `models` in the data folder.
    #[must_use]
    pub fn folders(configured: &[PathBuf], home: Option<&Path>, data: &Path) -> Vec<PathBuf> {
        let mut out: Vec<PathBuf> = configured
            .iter()
            .map(|dir| match (dir.strip_prefix("~"), home) {
                (Ok(rest), Some(home)) => home.join(rest),
                _ => dir.clone(),
            })
            .collect();
        out.extend(home.map(|home| home.join("models")));
        out.push(data.join("models"));
        let mut seen = HashSet::new();
        out.retain(|dir| seen.insert(dir.clone()));
        out
    }

    /// The folders searched.
    #[must_use]
    pub fn roots(&self) -> &[PathBuf] {
        &self.roots
    }

    /// What the last scan found odd, one line each: unreadable folders, too many files.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// All models of the last scan, the built-in one first, then by id.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Looks at the folders again. Reads the headers of files that are new or changed.
    pub fn scan(&mut self) {
        self.warnings.clear();
        let mut files = Files::default();
        for root in &self.roots {
            folders::walk(root, folders::MAX_DEPTH, &mut files, &mut self.warnings);
        }
        for place in &self.places {
            places::search(place, &mut files);
        }
        for path in &self.by_path {
            files.add(path);
        }
        let mut entries = Vec::with_capacity(files.all.len() + 1);
        let builtin_id = self.builtin.as_deref().and_then(|path| FileId::at(path).ok());
        if let Some(path) = self.builtin.clone() {
            let info = self.inspect(&path);
            let id = builtin::ID.to_owned();
            let (bytes, is_builtin) = (builtin::size(), true);
            entries.push(Entry { id, path, aliases: Vec::new(), bytes, info, is_builtin, found_as: None });
        }
        for found in files.all {
            if builtin_id.is_some_and(|id| id.same_file(&found.id)) {
                continue;
            }
            let info = self.inspect(&found.path);
            let bytes = info.as_ref().map_or(found.id.size, |info| info.file_bytes);
            let real = std::fs::canonicalize(&found.path).unwrap_or_else(|_| found.path.clone());
            // Where the name is that of a link, as in Hugging Face's cache, the link is what it is called.
            let is_named = real.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
            entries.push(Entry {
                id: String::new(),
                path: if is_named || found.name.is_some() { real } else { found.path },
                aliases: found.aliases,
                bytes,
                info,
                is_builtin: false,
                found_as: found.name,
            });
        }
        // Forget files that are gone, so that the memory of a long life stays bounded.
        let alive: HashSet<FileId> =
            entries.iter().filter_map(|entry| FileId::at(&entry.path).ok()).collect();
        self.read.retain(|id, _| alive.contains(id));
        folders::name(&mut entries, &self.by_path);
        entries.sort_by(|a, b| b.is_builtin.cmp(&a.is_builtin).then_with(|| a.id.cmp(&b.id)));
        self.entries = entries;
    }

    /// Reads a file, or remembers what it said when it has not changed. Split models are read anew,
    /// because the other parts may have changed.
    fn inspect(&mut self, path: &Path) -> Result<Arc<ModelInfo>, String> {
        let id = FileId::at(path).ok();
        if let Some(known) = id.and_then(|id| self.read.get(&id))
            && known.as_ref().is_ok_and(|info| info.parts == 1 && info.path == path)
        {
            return known.clone();
        }
        let info = gguf::inspect(path).map(Arc::new).map_err(|error| error.to_string());
        if let Some(id) = id {
            self.read.insert(id, info.clone());
        }
        info
    }

    /// The model with this id, with an id that begins so and is the only one, or at this path. A path
    /// may lie outside the folders; its file is then listed from now on.
    ///
    /// # Errors
    /// When there is none, with names like it; or when the beginning fits several.
    pub fn find(&mut self, asked: &str) -> Result<Entry, NotFound> {
        if let Some(entry) = self.named(asked) {
            return Ok(entry.clone());
        }
        let path = Path::new(asked);
        if path.is_absolute() {
            return self.find_path(path);
        }
        let lower = asked.to_lowercase();
        let beginning: Vec<&Entry> =
            self.entries.iter().filter(|e| !lower.is_empty() && e.id.starts_with(&lower)).collect();
        match beginning.as_slice() {
            [one] => Ok((*one).clone()),
            [] => Err(self.missing(asked)),
            several => {
                let names: Vec<&str> = several.iter().take(5).map(|e| e.id.as_str()).collect();
                Err(NotFound {
                    message: format!(
                        "the model name \"{}\" fits several models\ngive more of it: {}",
                        plain(asked, 80),
                        names.join(", ")
                    ),
                })
            }
        }
    }

    fn named(&self, asked: &str) -> Option<&Entry> {
        let lower = asked.to_lowercase();
        let without = lower.strip_suffix(".gguf").unwrap_or(&lower);
        self.entries
            .iter()
            .find(|e| e.id == asked)
            .or_else(|| self.entries.iter().find(|e| e.id == lower || e.id == without))
    }

    fn find_path(&mut self, path: &Path) -> Result<Entry, NotFound> {
        let shown = plain(&path.to_string_lossy(), 160);
        let Ok(id) = FileId::at(path) else {
            let reason = match std::fs::metadata(path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => "no such file".to_owned(),
                Err(error) => error.to_string(),
                Ok(_) => "can't be read".to_owned(),
            };
            return Err(NotFound { message: format!("{shown}: {reason}\ncheck the path of the model") });
        };
        let listed = |entries: &[Entry]| {
            entries.iter().find(|e| FileId::at(&e.path).is_ok_and(|other| other.same_file(&id))).cloned()
        };
        if let Some(entry) = listed(&self.entries)
            && entry.info.as_ref().is_ok_and(|info| info.file == Some(id))
        {
            return Ok(entry);
        }
        // New, changed, or not good when it was last read.
        if listed(&self.entries).is_none() && !self.by_path.iter().any(|known| known == path) {
            self.by_path.push(path.to_path_buf());
        }
        self.scan();
        listed(&self.entries).ok_or_else(|| {
            let reason = match gguf::inspect(path) {
                Err(error) => error.to_string(),
                Ok(_) => format!("{shown}: not listed\ncheck the path of the model"),
            };
            NotFound { message: reason }
        })
    }

    fn missing(&self, asked: &str) -> NotFound {
        let lower = asked.to_lowercase();
        let mut near: Vec<(f64, &str)> = self
            .entries
            .iter()
            .map(|e| {
                let part = !lower.is_empty() && e.id.contains(&lower);
                let score = if part { 1.0 } else { strsim::jaro_winkler(&lower, &e.id) };
                (score, e.id.as_str())
            })
            .filter(|(score, _)| *score >= SIMILAR)
            .collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0));
        let next = if near.is_empty() {
            let folders: Vec<String> = self.roots.iter().map(|r| plain(&r.to_string_lossy(), 80)).collect();
            format!("put a .gguf file into {}, or give the path of one", folders.join(" or "))
        } else {
            let names: Vec<&str> = near.iter().take(3).map(|(_, name)| *name).collect();
            format!("did you mean {}?", names.join(" or "))
        };
        NotFound { message: format!("there is no model \"{}\"\n{next}", plain(asked, 80)) }
    }
}

#[cfg(test)]
#[path = "catalogue/tests.rs"]
mod tests;
