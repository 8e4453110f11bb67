//! Which model a state is of: what the file holds, not where it lies.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes that are read from the beginning: all of the header, whatever vocabulary it holds.
const HEAD: u64 = 16 << 20;
/// Pieces of the weights that are looked at, spread evenly: two tunings of one model differ everywhere.
const SAMPLES: u64 = 128;
const SAMPLE: usize = 4096;

/// A model and how it was set up: a state fits exactly the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelKey {
    /// The program's version: with it comes the version of llama.cpp.
    pub engine: String,
    /// Hash of the model.
    pub model: String,
    /// Tokens of context: some models turn their positions by it.
    pub context: u32,
    /// Types of keys and values.
    pub kv: String,
}

/// The key of a model's file (the first part of a split one) with `parts` parts.
///
/// # Errors
/// When a file can't be read.
pub fn model_key(path: &Path, parts: u64, context: u32, kv: &str) -> std::io::Result<ModelKey> {
    let mut hash = Sha256::new();
    for part in 1..=parts.max(1) {
        let file = File::open(part_path(path, part, parts))?;
        sample(&file, &mut hash)?;
    }
    let model = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    Ok(ModelKey { engine: crate::VERSION.to_owned(), model, context, kv: kv.to_owned() })
}

/// `name-00001-of-00003.gguf` is the first of three.
fn part_path(first: &Path, part: u64, parts: u64) -> PathBuf {
    let name = first.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let renamed = name.replacen(&format!("-00001-of-{parts:05}."), &format!("-{part:05}-of-{parts:05}."), 1);
    first.with_file_name(renamed)
}

fn sample(file: &File, hash: &mut Sha256) -> std::io::Result<()> {
    let bytes = file.metadata()?.len();
    hash.update(bytes.to_le_bytes());
    let mut buffer = vec![0; 1 << 16];
    let mut head = file.take(HEAD);
    loop {
        match head.read(&mut buffer)? {
            0 => break,
            n => hash.update(buffer.get(..n).unwrap_or_default()),
        }
    }
    let Some(rest) = bytes.checked_sub(HEAD + SAMPLE as u64) else {
        let mut tail = Vec::new();
        let mut all = file;
        all.read_to_end(&mut tail)?;
        hash.update(tail);
        return Ok(());
    };
    let mut piece = [0; SAMPLE];
    for i in 0..SAMPLES {
        file.read_exact_at(&mut piece, HEAD + rest * i / (SAMPLES - 1))?;
        hash.update(piece);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_counts_and_not_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let key = |bytes: &[u8], context| {
            let path = dir.path().join("model.gguf");
            std::fs::write(&path, bytes).unwrap();
            model_key(&path, 1, context, "f16").unwrap()
        };
        let small = key(b"GGUF one", 512);
        assert_eq!(small, key(b"GGUF one", 512));
        assert_ne!(small, key(b"GGUF one", 1024));
        assert_ne!(small, key(b"GGUF two", 512));
        let mut large = vec![0; usize::try_from(HEAD).unwrap() + 300 * SAMPLE];
        let before = key(&large, 512);
        *large.last_mut().unwrap() = 1;
        assert_ne!(before, key(&large, 512), "the end is looked at");
        large.push(0);
        let longer = key(&large, 512);
        large.pop();
        assert_ne!(longer, key(&large, 512), "the length counts");
        let edge = vec![0; usize::try_from(HEAD).unwrap() + 10];
        let mut other = edge.clone();
        *other.last_mut().unwrap() = 1;
        assert_ne!(key(&edge, 512), key(&other, 512), "what is left over after the head is looked at");
    }

    #[test]
    fn every_part_of_a_split_model_counts() {
        let dir = tempfile::tempdir().unwrap();
        let part = |n: u32| dir.path().join(format!("m-{n:05}-of-00002.gguf"));
        std::fs::write(part(1), "one").unwrap();
        std::fs::write(part(2), "two").unwrap();
        let before = model_key(&part(1), 2, 512, "f16").unwrap();
        std::fs::write(part(2), "TWO").unwrap();
        assert_ne!(before, model_key(&part(1), 2, 512, "f16").unwrap());
        std::fs::remove_file(part(2)).unwrap();
        assert!(model_key(&part(1), 2, 512, "f16").is_err());
    }
}
