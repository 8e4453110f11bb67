//! The validator over a real file: the built-in model, whole and damaged.
#![cfg(feature = "local")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use duet::engine::gguf::{self, GgufErrorKind, ModelKind};
use std::path::{Path, PathBuf};

fn builtin() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/builtin.gguf")
}

fn damaged(dir: &Path, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
    let mut bytes = std::fs::read(builtin()).unwrap();
    change(&mut bytes);
    let path = dir.join("damaged.gguf");
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn the_builtin_model_is_good() {
    let info = gguf::inspect(&builtin()).unwrap();
    assert_eq!(info.kind, ModelKind::Chat);
    assert_eq!(info.architecture, "llama");
    assert_eq!(info.quantisation.as_deref(), Some("q8_0"));
    assert_eq!((info.context_train, info.layers, info.embedding, info.heads), (4096, 4, 192, 6));
    assert_eq!(info.heads_kv, [2, 2, 2, 2]);
    assert_eq!((info.key_length, info.value_length), (32, 32));
    assert_eq!(info.vocabulary, 2048);
    assert_eq!((info.bos_token.as_str(), info.eos_token.as_str()), ("<|endoftext|>", "<|im_end|>"));
    assert_eq!(info.special_tokens, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]);
    assert!((1_900_000..2_300_000).contains(&info.parameters), "{}", info.parameters);
    assert!(info.chat_template.unwrap().contains("<|im_start|>assistant"));
    assert_eq!(info.warnings, Vec::<String>::new());
}

#[test]
fn its_vocabulary_can_be_read() {
    let vocabulary = gguf::vocabulary(&builtin()).unwrap();
    assert_eq!((vocabulary.tokens.len(), vocabulary.merges.len()), (2048, 1789));
    assert_eq!((vocabulary.model.as_str(), vocabulary.pre.as_str()), ("gpt2", "qwen2"));
}

#[test]
fn an_incomplete_download_says_how_much_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = damaged(dir.path(), |b| b.truncate(1_000_000));
    let error = gguf::inspect(&path).unwrap_err();
    assert_eq!(error.kind, GgufErrorKind::Incomplete);
    let text = error.to_string();
    assert!(text.contains("damaged.gguf"), "{text}");
    assert!(text.contains("1000000 of "), "{text}");
    assert!(text.contains("download"), "{text}");
    assert_eq!(text.lines().count(), 2);
}

#[test]
fn a_token_of_zeros_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = damaged(dir.path(), |b| {
        let at = b.windows(13).position(|w| w == b"<|endoftext|>").unwrap();
        b[at..at + 13].fill(0);
    });
    let error = gguf::inspect(&path).unwrap_err();
    assert_eq!(error.kind, GgufErrorKind::BadValue);
    assert_eq!(error.field.as_deref(), Some("tokenizer.ggml.tokens"));
}

#[test]
fn random_damage_to_its_header_ends_in_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..60 {
        let path = damaged(dir.path(), |b| {
            for _ in 0..4 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = usize::try_from((state >> 33) % 60_000).unwrap();
                b[at] ^= (state >> 20) as u8;
            }
        });
        if let Err(error) = gguf::inspect(&path) {
            assert!(!error.to_string().is_empty());
        }
    }
}
