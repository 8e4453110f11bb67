//! System prompts: Markdown files with a one-line description, in the binary and in the user's folder.
//!
//! A file's first line says what the prompt is for; after an empty line comes the prompt. A file without
//! that empty line is all prompt.

use crate::paths::read_file;
use std::collections::BTreeMap;
use std::path::Path;

/// One system prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Its name: the file's stem.
    pub name: String,
    /// One line about it.
    pub about: String,
    /// The prompt itself.
    pub text: String,
}

const BUILT_IN: &[(&str, &str)] = &[
    ("coder", include_str!("../prompts/coder.md")),
    ("default", include_str!("../prompts/default.md")),
    ("explain", include_str!("../prompts/explain.md")),
    ("review", include_str!("../prompts/review.md")),
    ("terse", include_str!("../prompts/terse.md")),
    ("translate", include_str!("../prompts/translate.md")),
];

const MAX_BYTES: u64 = 256 * 1024;
const MAX_FILES: usize = 500;

/// All prompts by name; a user's file replaces a built-in one of the same name. Problems are one-line warnings.
#[must_use]
pub fn all(user_dir: Option<&Path>) -> (Vec<Prompt>, Vec<String>) {
    let mut found: BTreeMap<String, Prompt> =
        BUILT_IN.iter().map(|(name, text)| ((*name).to_owned(), parse(name, text))).collect();
    let mut warnings = Vec::new();
    let entries = user_dir.and_then(|dir| std::fs::read_dir(dir).ok());
    let mut paths: Vec<_> = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    paths.sort();
    if paths.len() > MAX_FILES {
        warnings.push(format!("{} prompt files; only the first {MAX_FILES} are read", paths.len()));
    }
    for path in paths.iter().take(MAX_FILES) {
        match read(path) {
            Ok(prompt) => {
                found.insert(prompt.name.clone(), prompt);
            }
            Err(why) => warnings.push(format!("prompt {}: {why}", path.display())),
        }
    }
    (found.into_values().collect(), warnings)
}

fn read(path: &Path) -> Result<Prompt, String> {
    let name = path.file_stem().and_then(|stem| stem.to_str()).ok_or("its name is not UTF-8")?;
    if name.chars().any(char::is_control) {
        return Err("its name holds control characters".to_owned());
    }
    let bytes = read_file(path, MAX_BYTES).map_err(|trouble| trouble.to_string())?;
    let text = String::from_utf8(bytes).map_err(|_| "not UTF-8 text")?;
    let prompt = parse(name, &text);
    if prompt.text.is_empty() { Err("it is empty".to_owned()) } else { Ok(prompt) }
}

fn parse(name: &str, text: &str) -> Prompt {
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    let text = text.trim();
    let (about, body) = match text.split_once('\n') {
        Some((first, rest)) if rest.starts_with('\n') => (first, rest.trim()),
        Some((first, _)) => (first, text),
        None => (text, text),
    };
    let about: String = about.trim_start_matches(['#', ' ']).chars().take(100).collect();
    Prompt { name: name.to_owned(), about: about.trim().to_owned(), text: body.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn the_built_in_ones_are_whole() {
        let (prompts, warnings) = all(None);
        assert_eq!(warnings, Vec::<String>::new());
        let names: Vec<&str> = prompts.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["coder", "default", "explain", "review", "terse", "translate"]);
        for prompt in &prompts {
            assert!(prompt.about.ends_with('.') && prompt.about.len() < 60, "{prompt:?}");
            assert!(!prompt.text.starts_with(&prompt.about) && prompt.text.len() > 80, "{prompt:?}");
        }
        let in_folder =
            std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/prompts")).expect("there").count();
        assert_eq!(in_folder, prompts.len(), "every file in prompts/ is in the binary");
    }

    #[test]
    fn a_users_file_comes_first_and_a_broken_one_is_a_warning() {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).expect("written");
        write("coder.md", b"# Mine.\r\n\r\nWrite Rust.\r\nOnly Rust.\r\n");
        write("plain.md", b"Be kind.\nAlways.");
        write("bad.md", b"\xff\xfe");
        write("empty.md", b" \n");
        write("ignored.txt", b"x");
        std::fs::create_dir(dir.path().join("folder.md")).expect("made");
        let (prompts, warnings) = all(Some(dir.path()));
        let get = |name: &str| prompts.iter().find(|p| p.name == name).expect("there").clone();
        assert_eq!(
            get("coder"),
            Prompt { name: "coder".into(), about: "Mine.".into(), text: "Write Rust.\nOnly Rust.".into() }
        );
        assert_eq!(
            get("plain"),
            Prompt { name: "plain".into(), about: "Be kind.".into(), text: "Be kind.\nAlways.".into() }
        );
        assert_eq!(prompts.len(), 7);
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        assert!(all(Some(Path::new("/nonexistent"))).1.is_empty());
    }
}
