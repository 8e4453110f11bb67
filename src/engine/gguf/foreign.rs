//! Recognising what a file is when it is not GGUF, by its first bytes.

use super::error::{GgufError, GgufErrorKind, plain_bytes};

/// The error for a file whose first bytes are `head` and which is not GGUF.
pub(super) fn not_gguf(head: &[u8], len: u64) -> GgufError {
    if len == 0 {
        return GgufError::new(GgufErrorKind::Empty, "the file is empty");
    }
    if len < 4 && b"GGUF".starts_with(head) {
        return GgufError::new(
            GgufErrorKind::Incomplete,
            format!("cut off after {len} bytes of the GGUF mark"),
        );
    }
    let other = |what: &str, next: &str| {
        GgufError::new(GgufErrorKind::OtherFormat, format!("not a GGUF file but {what}")).next(next)
    };
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let lower = text.to_ascii_lowercase();
    let download = "download the .gguf file itself, not the page about it";
    if lower.starts_with(b"<!doctype html") || lower.starts_with(b"<html") || lower.starts_with(b"<head") {
        return other("an HTML page", download);
    }
    if text.starts_with(b"version https://git-lfs") {
        return other(
            "a git-lfs pointer",
            "run `git lfs pull` in the repository, or download the file it points to",
        );
    }
    if text.starts_with(b"<?xml") {
        return other("an XML document, probably a server's error message", download);
    }
    if text.starts_with(b"{") || text.starts_with(b"[") {
        return other("JSON, probably a server's error message", download);
    }
    if let Some((size, rest)) = head.split_first_chunk::<8>()
        && rest.starts_with(b"{")
        && u64::from_le_bytes(*size) <= len
    {
        return other(
            "safetensors",
            "convert it with llama.cpp's convert_hf_to_gguf.py, or download a GGUF of it",
        );
    }
    let marks: [(&[u8], &str, &str); 14] = [
        (b"lmgg", "the old GGML format", "download the model in GGUF format; GGML is no longer read"),
        (b"fmgg", "the old GGMF format", "download the model in GGUF format; GGMF is no longer read"),
        (b"tjgg", "the old GGJT format", "download the model in GGUF format; GGJT is no longer read"),
        (b"algg", "an old GGLA adapter", "download a chat model in GGUF format"),
        (b"ggml", "the old GGML format", "download the model in GGUF format; GGML is no longer read"),
        (b"FUGG", "a GGUF file of the other byte order", "download the little-endian file"),
        (
            b"PK\x03\x04",
            "a zip archive or a PyTorch checkpoint",
            "unpack it, or download the model in GGUF format; PyTorch files are never loaded",
        ),
        (b"\x80\x02", "a Python pickle", "download the model in GGUF format; pickles are never loaded"),
        (b"\x80\x04", "a Python pickle", "download the model in GGUF format; pickles are never loaded"),
        (b"\x1f\x8b", "a gzip archive", "unpack it first"),
        (b"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it first"),
        (b"\xfd7zXZ", "an xz archive", "unpack it first"),
        (b"7z\xbc\xaf", "a 7z archive", "unpack it first"),
        (b"\x7fELF", "a program", "give the path of a .gguf file"),
    ];
    for (mark, what, next) in marks {
        if head.starts_with(mark) {
            return other(what, next);
        }
    }
    let shown = plain_bytes(head.get(..head.len().min(4)).unwrap_or_default(), 16);
    other(&format!("something else (it starts with \"{shown}\")"), "give the path of a .gguf file")
}
