//! Counting by a `tokenizer.json`: one that was given, or the one Hugging Face's cache has of a model.
//!
//! The file is checked before the library reads it, which panics on merges that fit no token.

use crate::chat::Message;
use serde_json::Value;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;

/// Bytes a tokenizer's file may have.
const MAX_FILE: u64 = 64 * 1024 * 1024;
/// Tokens a template adds to each message, as most do: its beginning, its role, its end.
const AROUND_A_MESSAGE: usize = 4;
/// And for the answer to begin.
const BEFORE_THE_ANSWER: usize = 3;

/// A tokenizer from its file. Opening one takes up to a second: not for the thread that draws.
#[derive(Debug)]
pub struct TokenizerFile {
    tokenizer: Tokenizer,
}

impl TokenizerFile {
    /// Reads a `tokenizer.json`. Only byte-pair encodings are read, which is what language models have.
    ///
    /// # Errors
    /// One line: the file, and what is wrong with it.
    pub fn open(path: &Path) -> Result<Self, String> {
        let bad = |why: &str| format!("{}: {why}", path.display());
        let file = File::open(path).map_err(|error| bad(&error.to_string()))?;
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| bad(&error.to_string()))?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(bad("larger than any tokenizer"));
        }
        let json: Value = serde_json::from_slice(&bytes).map_err(|_| bad("no JSON"))?;
        check(&json).map_err(bad)?;
        drop(json);
        let tokenizer =
            Tokenizer::from_bytes(&bytes).map_err(|_| bad("no tokenizer this program can read"))?;
        Ok(Self { tokenizer })
    }

    /// Tokens of a text; names of special tokens count as those tokens.
    #[must_use]
    pub fn tokens(&self, text: &str) -> Option<usize> {
        self.tokenizer.encode_fast(text, false).ok().map(|encoding| encoding.len())
    }

    /// Tokens of a conversation: exact for its texts, an estimate for what the template puts around them.
    #[must_use]
    pub fn conversation(&self, messages: &[Message]) -> Option<u32> {
        let mut sum = BEFORE_THE_ANSWER;
        for message in messages {
            sum += self.tokens(&message.content)? + AROUND_A_MESSAGE;
        }
        u32::try_from(sum).ok()
    }
}

/// Refuses what the library would not survive, or is not meant for counting.
fn check(json: &Value) -> Result<(), &'static str> {
    let model = json.get("model").ok_or("no tokenizer")?;
    let kind = model.get("type").and_then(Value::as_str);
    // Old files don't name it.
    let is_pairs = kind == Some("BPE") || (kind.is_none() && model.get("merges").is_some());
    if !is_pairs {
        return Err("not a byte-pair encoding: its tokens are not counted here");
    }
    if model.get("continuing_subword_prefix").and_then(Value::as_str).is_some_and(|prefix| !prefix.is_empty())
    {
        return Err("a byte-pair encoding with prefixes: its tokens are not counted here");
    }
    let vocabulary = model.get("vocab").and_then(Value::as_object).ok_or("it has no vocabulary")?;
    let merges = model.get("merges").and_then(Value::as_array).ok_or("it has no merges")?;
    let is_whole = merges.iter().all(|merge| {
        let pair = match merge {
            Value::String(text) => text.split_once(' '),
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(left), Value::String(right)] => Some((left.as_str(), right.as_str())),
                _ => None,
            },
            _ => None,
        };
        pair.is_some_and(|(left, right)| vocabulary.contains_key(&format!("{left}{right}")))
    });
    if is_whole { Ok(()) } else { Err("its merges don't fit its vocabulary") }
}

/// The `tokenizer.json` that Hugging Face's cache has of this model: by its whole name, as `Qwen/Qwen3-8B`, or by the
/// second half of it.
#[must_use]
pub fn find_tokenizer(model: &str) -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = || set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    let hub = set("HF_HUB_CACHE")
        .or_else(|| set("HF_HOME").map(|home| home.join("hub")))
        .or_else(|| cache().map(|cache| cache.join("huggingface/hub")))?;
    find_in(&hub, model)
}

fn find_in(hub: &Path, model: &str) -> Option<PathBuf> {
    let wanted = model.to_lowercase();
    if wanted.is_empty() {
        return None;
    }
    let mut found: Vec<PathBuf> = std::fs::read_dir(hub)
        .ok()?
        .flatten()
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().to_lowercase();
            let Some(repository) = name.strip_prefix("models--") else { return false };
            let whole = repository.replacen("--", "/", 1);
            whole == wanted || whole.split_once('/').is_some_and(|(_, bare)| bare == wanted)
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found.iter().find_map(|repository| in_repository(repository))
}

/// The file in the revision that is in use, else in any.
fn in_repository(repository: &Path) -> Option<PathBuf> {
    let snapshots = repository.join("snapshots");
    let main = std::fs::read_to_string(repository.join("refs/main")).ok();
    let main = main.map(|revision| snapshots.join(revision.trim()));
    let mut others: Vec<PathBuf> =
        std::fs::read_dir(&snapshots).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    others.sort();
    main.into_iter().chain(others).map(|folder| folder.join("tokenizer.json")).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Role;
    use pretty_assertions::assert_eq;
    use serde_json::json;

    fn fixture() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/tokenizer.json")
    }

    #[test]
    fn texts_and_conversations_are_counted() {
        let tokenizer = TokenizerFile::open(&fixture()).expect("a tokenizer");
        let reference = Tokenizer::from_file(fixture()).expect("a tokenizer");
        for text in
            ["", "Hello", "What is the capital of France?", "<|im_start|>user\nHi<|im_end|>", "日本語 👍🏽"]
        {
            let expected = reference.encode(text, false).expect("text").len();
            assert_eq!(tokenizer.tokens(text), Some(expected), "{text:?}");
        }
        let messages = [Message::new(Role::System, "Hello"), Message::new(Role::User, "Hello")];
        let hello = tokenizer.tokens("Hello").expect("text");
        assert_eq!(tokenizer.conversation(&messages), u32::try_from(2 * hello + 11).ok());
    }

    #[test]
    fn files_that_are_no_good_are_told_apart() {
        let dir = tempfile::tempdir().expect("a folder");
        let whole: Value = serde_json::from_slice(&std::fs::read(fixture()).expect("there")).expect("JSON");
        let with = |at: &str, value: Value| {
            let mut json = whole.clone();
            *json.pointer_mut(at).expect("there") = value;
            json.to_string()
        };
        let cases = [
            ("{".to_owned(), "no JSON"),
            ("{}".to_owned(), "no tokenizer"),
            (with("/model/type", json!("Unigram")), "not a byte-pair encoding"),
            (with("/model/continuing_subword_prefix", json!("##")), "with prefixes"),
            (with("/model/merges", json!([["Ġ", "x".repeat(5000)]])), "its merges don't fit"),
            (with("/model/merges", json!(["Ġ"])), "its merges don't fit"),
            (with("/model/vocab", json!(5)), "no vocabulary"),
            (with("/pre_tokenizer", json!({"type": "Nonsense"})), "no tokenizer this program can read"),
        ];
        for (text, why) in cases {
            let path = dir.path().join("tokenizer.json");
            std::fs::write(&path, text).expect("written");
            let error = TokenizerFile::open(&path).expect_err(why);
            assert!(error.contains(why) && error.lines().count() == 1, "{error}");
        }
        assert!(TokenizerFile::open(&dir.path().join("missing")).is_err());
        assert!(TokenizerFile::open(dir.path()).is_err());
    }

    #[test]
    fn the_cache_is_searched_by_name() {
        let hub = tempfile::tempdir().expect("a folder");
        let file = |repository: &str, revision: &str| {
            let folder = hub.path().join(repository).join("snapshots").join(revision);
            std::fs::create_dir_all(&folder).expect("a folder");
            let file = folder.join("tokenizer.json");
            std::fs::write(&file, "{}").expect("written");
            file
        };
        file("models--Qwen--Qwen3-8B", "aaaa");
        let used = file("models--Qwen--Qwen3-8B", "bbbb");
        std::fs::create_dir_all(hub.path().join("models--Qwen--Qwen3-8B/refs")).expect("a folder");
        std::fs::write(hub.path().join("models--Qwen--Qwen3-8B/refs/main"), "bbbb\n").expect("written");
        std::fs::create_dir_all(hub.path().join("models--empty--one/snapshots/cccc")).expect("a folder");
        assert_eq!(find_in(hub.path(), "Qwen/Qwen3-8B"), Some(used.clone()));
        assert_eq!(find_in(hub.path(), "qwen3-8b"), Some(used));
        for other in ["qwen3", "Qwen/Qwen3", "empty/one", "", "../.."] {
            assert_eq!(find_in(hub.path(), other), None, "{other}");
        }
        assert_eq!(find_in(&hub.path().join("nowhere"), "a"), None);
    }
}
