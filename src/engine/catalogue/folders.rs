//! Finding model files in folders, and names for them.

use super::Entry;
use crate::engine::builtin;
use crate::engine::gguf::{self, FileId, plain};
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};

/// The most files that are looked at.
const MAX_FILES: usize = 10_000;
/// The most names in folders that are looked at.
pub(super) const MAX_NAMES: usize = 200_000;
/// How deep folders are searched; 1 is the folder itself.
pub(super) const MAX_DEPTH: usize = 3;

/// A file, found once or more often.
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) id: FileId,
    pub(super) aliases: Vec<PathBuf>,
    /// What it is called, where its file's name does not say.
    pub(super) name: Option<String>,
}

/// Files in the order they were found, each once.
#[derive(Default)]
pub(super) struct Files {
    pub(super) all: Vec<Found>,
    at: HashMap<(u64, u64), usize>,
    names: usize,
}

impl Files {
    pub(super) fn add(&mut self, path: &Path) {
        self.add_named(path, None);
    }

    pub(super) fn add_named(&mut self, path: &Path, name: Option<String>) {
        // Links are followed; what is no regular file is not listed.
        let Some(id) =
            std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|m| FileId::of(&m))
        else {
            return;
        };
        match self.at.get(&(id.device, id.inode)).and_then(|index| self.all.get_mut(*index)) {
            Some(known) if known.path != path => known.aliases.push(path.to_path_buf()),
            Some(_) => {}
            None => {
                self.at.insert((id.device, id.inode), self.all.len());
                self.all.push(Found { path: path.to_path_buf(), id, aliases: Vec::new(), name });
            }
        }
    }
}

/// Finds model files below a folder, breadth first, so that the nearest ones win when there are too many.
pub(super) fn walk(root: &Path, max_depth: usize, files: &mut Files, warnings: &mut Vec<String>) {
    let mut queue = VecDeque::from([(root.to_path_buf(), 1)]);
    let mut seen = HashSet::new();
    while let Some((dir, depth)) = queue.pop_front() {
        // A link may lead back up.
        if !std::fs::canonicalize(&dir).is_ok_and(|real| seen.insert(real)) {
            continue;
        }
        let names = match std::fs::read_dir(&dir) {
            Ok(names) => names,
            Err(error) => {
                warnings.push(format!("{}: {error}", plain(&dir.to_string_lossy(), 120)));
                continue;
            }
        };
        let mut names: Vec<PathBuf> =
            names.take(MAX_NAMES).filter_map(Result::ok).map(|name| name.path()).collect();
        names.sort();
        for path in names {
            files.names += 1;
            if files.all.len() >= MAX_FILES || files.names > MAX_NAMES {
                warnings.push(format!(
                    "{}: too many files; the rest is not listed",
                    plain(&root.to_string_lossy(), 120)
                ));
                return;
            }
            let is_hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
            if is_hidden {
                continue;
            }
            if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) {
                // Further parts belong to the first one there is; without part 1 the file says what is missing.
                let is_first = gguf::split_stem(&path).is_none_or(|(_, part, _)| {
                    !(1..part).any(|n| gguf::part_name(&path, n).is_some_and(|other| other.exists()))
                });
                if is_first {
                    files.add(&path);
                }
            } else if depth < max_depth && path.is_dir() {
                queue.push_back((path, depth + 1));
            }
        }
    }
}

/// The name of a model as an id: the one it was found with, else its file's stem in lower case, without the part number, on one plain line.
fn stem(entry: &Entry) -> String {
    let path = &entry.path;
    if let Some(name) = &entry.found_as {
        return name.clone();
    }
    let stem = match gguf::split_stem(path) {
        Some((stem, _, _)) => stem,
        None => path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default(),
    };
    let id: String = plain(&stem, 120).to_lowercase().split_whitespace().collect::<Vec<_>>().join("-");
    if id.is_empty() { "model".to_owned() } else { id }
}

/// Gives every entry without an id one that nobody else has.
pub(super) fn name(entries: &mut [Entry], by_path: &[PathBuf]) {
    let mut counts: HashMap<String, usize> = HashMap::from([(builtin::ID.to_owned(), 1)]);
    for entry in entries.iter().filter(|e| e.id.is_empty()) {
        *counts.entry(stem(entry)).or_default() += 1;
    }
    let mut taken: HashSet<String> =
        entries.iter().filter(|e| !e.id.is_empty()).map(|e| e.id.clone()).collect();
    for entry in entries.iter_mut().filter(|e| e.id.is_empty()) {
        let is_by_path = by_path
            .iter()
            .any(|p| *p == entry.path || std::fs::canonicalize(p).is_ok_and(|real| real == entry.path));
        if is_by_path {
            entry.id = plain(&entry.path.to_string_lossy(), 1000);
            continue;
        }
        let short = stem(entry);
        let mut id = short.clone();
        if counts.get(&short).is_some_and(|n| *n > 1) {
            let parent = entry.path.parent().map(stem_of_dir).unwrap_or_default();
            id = format!("{parent}/{short}");
        }
        let base = id.clone();
        let mut number = 2;
        while !taken.insert(id.clone()) {
            id = format!("{base}-{number}");
            number += 1;
        }
        entry.id = id;
    }
}

fn stem_of_dir(dir: &Path) -> String {
    let name = dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    plain(&name, 80).to_lowercase().split_whitespace().collect::<Vec<_>>().join("-")
}
