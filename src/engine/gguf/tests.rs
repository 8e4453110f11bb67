//! Every way a file can be wrong, one by one, then at random.

use super::build::{Gguf, T, V};
use super::error::{GgufError, GgufErrorKind as E};
use super::value::Tag;
use super::*;
use pretty_assertions::assert_eq;
use std::io::Cursor;

fn read(bytes: &[u8]) -> Result<ModelInfo, GgufError> {
    let mut reader = Reader::new(Cursor::new(bytes), bytes.len() as u64);
    let header = read_header(&mut reader)?;
    let mut info = ModelInfo { path: PathBuf::from("/models/tiny.gguf"), ..ModelInfo::default() };
    describe(&mut reader, header, &mut info)?;
    Ok(info)
}

fn kind_of(bytes: &[u8]) -> E {
    read(bytes).unwrap_err().kind
}

#[test]
fn a_small_valid_file_is_described() {
    let info = read(&Gguf::small().bytes()).unwrap();
    assert_eq!(info.kind, ModelKind::Chat);
    assert_eq!(info.architecture, "llama");
    assert_eq!(info.name.as_deref(), Some("Tiny"));
    assert_eq!(info.quantisation.as_deref(), Some("f32"));
    assert_eq!((info.context_train, info.layers, info.embedding), (2048, 2, 8));
    assert_eq!((info.heads, info.heads_kv), (4, vec![2, 2]));
    assert_eq!((info.key_length, info.value_length), (2, 2));
    assert_eq!((info.bos_token.as_str(), info.eos_token.as_str()), ("<s>", "<|im_end|>"));
    assert_eq!(info.special_tokens, ["<s>", "</s>", "<|im_end|>"]);
    assert_eq!((info.parameters, info.tensor_bytes), (104, 416));
    assert_eq!(info.chat_template.as_deref(), Some("{{ messages[0].content }}"));
    assert_eq!(info.warnings, Vec::<String>::new());
}

#[test]
fn tokens_and_merges_can_be_read() {
    let bytes = Gguf::small().bytes();
    let vocabulary = read_vocabulary(&mut Reader::new(Cursor::new(&bytes), bytes.len() as u64)).unwrap();
    assert_eq!(vocabulary.tokens, ["<s>", "</s>", "<|im_end|>", "a", "b", "ab"]);
    assert_eq!(vocabulary.merges, ["a b"]);
    assert_eq!((vocabulary.model.as_str(), vocabulary.pre.as_str()), ("gpt2", "qwen2"));
    assert_eq!(vocabulary.specials, [0, 1, 2]);
}

#[test]
fn a_cut_at_every_byte_of_the_header_is_an_error_that_says_so() {
    let bytes = Gguf::small().bytes();
    for cut in 0..bytes.len() {
        let error = read(&bytes[..cut]).unwrap_err();
        let expected = if cut == 0 { E::Empty } else { E::Incomplete };
        assert_eq!(error.kind, expected, "cut at {cut}: {}", error.what);
    }
}

#[test]
fn missing_data_is_counted() {
    let bytes = Gguf::small().bytes();
    let have = bytes.len() - 1;
    let error = read(&bytes[..have]).unwrap_err();
    assert_eq!(error.what, format!("{have} of {} bytes: the download is incomplete", bytes.len()));
}

#[test]
fn other_formats_are_named() {
    let cases: [(&[u8], &str); 13] = [
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"\xef\xbb\xbf  <HTML>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git-lfs pointer"),
        (b"{\"error\":\"not found\"}", "JSON"),
        (b"<?xml version='1.0'?><Error>", "XML"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"\x10\0\0\0\0\0\0\0{\"a\":{}}        ", "safetensors"),
        (b"lmgg\x01\0\0\0", "GGML"),
        (b"tjgg\x03\0\0\0", "GGJT"),
        (b"\x80\x02}q", "pickle"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"hello world", "starts with \"hell\""),
        (b"\x1b[2Jnasty", "something else"),
    ];
    for (bytes, name) in cases {
        let error = read(bytes).unwrap_err();
        assert_eq!(error.kind, E::OtherFormat);
        assert!(error.what.contains(name), "{}", error.what);
        assert!(!error.to_string().contains('\x1b'));
        assert!(!error.next.is_empty());
    }
}

#[test]
fn versions_are_checked() {
    for (version, kind) in [(0, E::Version), (1, E::Version), (4, E::Version), (0x0300_0000, E::Version)] {
        assert_eq!(kind_of(&Gguf { version, ..Gguf::small() }.bytes()), kind, "version {version:x}");
    }
    read(&Gguf { version: 2, ..Gguf::small() }.bytes()).unwrap();
    let error = read(&Gguf { version: 0x0300_0000, ..Gguf::small() }.bytes()).unwrap_err();
    assert!(error.what.contains("big-endian"), "{}", error.what);
}

#[test]
fn counts_are_limited_before_anything_is_allocated() {
    for count in [1 << 63, u64::MAX, 1_000_000_000, 65_537] {
        assert_eq!(kind_of(&Gguf { claimed_keys: Some(count), ..Gguf::small() }.bytes()), E::Limit);
        assert_eq!(kind_of(&Gguf { claimed_tensors: Some(count), ..Gguf::small() }.bytes()), E::Limit);
    }
}

fn with_key(key: &[u8], value: V) -> Vec<u8> {
    let mut file = Gguf::small();
    file.keys.push((key.to_vec(), value));
    file.bytes()
}

#[test]
fn keys_are_checked() {
    let cases: [(&[u8], E); 5] = [
        (b"", E::Limit),
        (&[b'k'; 1025], E::Limit),
        (b"general.name", E::Malformed),
        (b"evil\x1b[2J", E::Malformed),
        (b"two\nlines", E::Malformed),
    ];
    for (key, kind) in cases {
        let error = read(&with_key(key, V::U32(1))).unwrap_err();
        assert_eq!(error.kind, kind, "{key:?}");
        assert!(!error.to_string().contains('\x1b'));
        assert!(!error.one_line().contains('\n'));
    }
    // A key whose length can't be.
    let mut bytes = Gguf { claimed_keys: Some(20), ..Gguf::small() }.bytes();
    let end = Gguf { tensors: Vec::new(), ..Gguf::small() }.header().len();
    bytes.truncate(end);
    bytes.extend((1_u64 << 63).to_le_bytes());
    assert_eq!(kind_of(&bytes), E::Limit);
}

#[test]
fn strings_and_arrays_are_limited() {
    let long = |len: u64| len.to_le_bytes().to_vec();
    let array = |tag: u32, len: u64| [tag.to_le_bytes().to_vec(), len.to_le_bytes().to_vec()].concat();
    let cases = [
        (V::Raw(8, long(1 << 30)), E::Limit),
        (V::Raw(8, long(1 << 20)), E::Incomplete),
        (V::Raw(9, array(9, 1)), E::Malformed),
        (V::Raw(9, array(99, 1)), E::Malformed),
        (V::Raw(9, array(4, 1_000_000_000)), E::Limit),
        (V::Raw(9, array(8, 8 << 20)), E::Incomplete),
        (V::Raw(9, array(12, 8 << 20)), E::Incomplete),
        (V::Raw(99, Vec::new()), E::Malformed),
        (V::Raw(7, vec![7]), E::Malformed),
        (V::Array(7, vec![V::Bool(0), V::Bool(9)]), E::Malformed),
    ];
    for (value, kind) in cases {
        let error = read(&with_key(b"x.y", value.clone())).unwrap_err();
        assert_eq!(error.kind, kind, "{value:?}: {}", error.what);
    }
    read(&with_key(b"x.empty", V::Array(8, vec![V::text(""); 10_000]))).unwrap();
}

#[test]
fn every_known_key_refuses_every_other_type() {
    let values = [
        (Tag::U8, None, V::U8(1)),
        (Tag::U16, None, V::U16(1)),
        (Tag::U32, None, V::U32(1)),
        (Tag::I32, None, V::I32(1)),
        (Tag::F32, None, V::F32(0.5)),
        (Tag::Bool, None, V::Bool(1)),
        (Tag::Text, None, V::text("x")),
        (Tag::U64, None, V::U64(1)),
        (Tag::F64, None, V::F64(0.5)),
        (Tag::Array, Some(Tag::U8), V::Array(0, vec![V::U8(1)])),
        (Tag::Array, Some(Tag::I32), V::Array(5, vec![V::I32(1)])),
        (Tag::Array, Some(Tag::F32), V::Array(6, vec![V::F32(1.0)])),
        (Tag::Array, Some(Tag::Text), V::texts(&["x"])),
    ];
    let mut refused = 0;
    for (key, kind) in keys::all("llama") {
        for (tag, element, value) in &values {
            if kind.accepts(*tag, *element) {
                continue;
            }
            let error = read(&Gguf::small().with(&key, value.clone()).bytes()).unwrap_err();
            assert_eq!(error.kind, E::WrongType, "{key} as {tag} {element:?}: {}", error.what);
            assert_eq!(error.field.as_deref(), Some(key.as_str()));
            refused += 1;
        }
    }
    assert!(refused > 1500, "{refused}");
}

#[test]
fn values_that_would_abort_llama_cpp_are_refused() {
    let long = "t".repeat(1025);
    let tokens = |t: &[&str]| V::texts(t);
    let cases: Vec<(&str, V)> = vec![
        ("general.alignment", V::U32(0)),
        ("general.alignment", V::U32(13)),
        ("general.alignment", V::U32(1 << 31)),
        ("general.alignment", V::U32(1 << 17)),
        ("llama.block_count", V::U32(0)),
        ("llama.block_count", V::U32(513)),
        ("llama.block_count", V::U32(600)),
        ("llama.block_count", V::U32(u32::MAX)),
        ("llama.attention.layer_norm_rms_epsilon", V::F32(f32::NAN)),
        ("llama.attention.layer_norm_rms_epsilon", V::F32(-1.0)),
        ("llama.attention.layer_norm_rms_epsilon", V::F32(f32::INFINITY)),
        ("llama.attention.layer_norm_rms_epsilon", V::F32(0.0)),
        ("llama.attention.layer_norm_rms_epsilon", V::F32(1.0)),
        ("tokenizer.ggml.tokens", tokens(&["<s>", "</s>", "<|im_end|>", "a", "b", "a"])),
        ("tokenizer.ggml.tokens", tokens(&["<s>", "</s>", "<|im_end|>", "a", "b\0", "ab"])),
        ("tokenizer.ggml.tokens", tokens(&["<s>", "</s>", "<|im_end|>", "a", "b", &long])),
        ("tokenizer.ggml.tokens", tokens(&["<s>", "</s>", "<|im_end|>", "a", "b"])),
        ("tokenizer.ggml.tokens", tokens(&["<s>", "", "[EMPTY_1]", "a", "b", "ab"])),
        ("tokenizer.ggml.tokens", tokens(&[])),
        ("tokenizer.ggml.token_type", V::Array(5, vec![V::I32(1); 5])),
        ("tokenizer.ggml.scores", V::Array(6, vec![V::F32(0.0); 5])),
        ("tokenizer.ggml.model", V::text("llama")), // no byte tokens
        ("llama.attention.head_count", V::U32(0)),
        ("llama.attention.head_count", V::U32(3)),
        ("llama.attention.head_count", V::U32(100_000)),
        ("llama.attention.head_count", V::Array(4, vec![V::U32(4)])),
        ("llama.attention.head_count_kv", V::U32(0)),
        ("llama.attention.head_count_kv", V::U32(3)),
        ("llama.attention.head_count_kv", V::Array(4, vec![V::U32(2); 3])),
        ("llama.attention.key_length", V::U32(0)),
        ("llama.embedding_length", V::U32(0)),
        ("llama.embedding_length", V::U32(u32::MAX)),
        ("llama.rope.dimension_count", V::U32(7)),
        ("llama.rope.dimension_count", V::U32(4)),
        ("llama.rope.scaling.type", V::text("twisted")),
        ("llama.rope.freq_base", V::F32(f32::NAN)),
        ("llama.expert_count", V::U32(1_000_000)),
        ("llama.expert_count", V::U32(8)), // none used
        ("llama.expert_used_count", V::U32(2)),
        ("llama.expert_group_count", V::U32(2)),
        ("llama.nextn_predict_layers", V::U32(3)),
        ("tokenizer.chat_template", V::Text(vec![0xff, 0xfe])),
    ];
    for (key, value) in cases {
        let label = format!("{value:?}");
        let error = read(&Gguf::small().with(key, value).bytes()).unwrap_err();
        assert_eq!(error.kind, E::BadValue, "{key} {label}: {}", error.what);
        assert!(error.field.is_some(), "{key} {label}");
    }
    for key in [
        "general.architecture",
        "llama.block_count",
        "llama.embedding_length",
        "llama.context_length",
        "llama.attention.head_count",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.model",
    ] {
        let error = read(&Gguf::small().without(key).bytes()).unwrap_err();
        assert_eq!(error.kind, E::BadValue, "without {key}: {}", error.what);
    }
    let bos =
        Gguf::small().without("tokenizer.ggml.bos_token_id").with("tokenizer.ggml.add_bos_token", V::Bool(1));
    assert_eq!(kind_of(&bos.bytes()), E::BadValue);
}

#[test]
fn odd_values_that_do_no_harm_are_warned_of() {
    let clamp = |n: u32| read(&Gguf::small().with("llama.context_length", V::U32(n)).bytes()).unwrap();
    for (n, taken) in [(0, 256), (u32::MAX, 1_048_576)] {
        let info = clamp(n);
        assert_eq!((info.context_train, info.warnings.len()), (taken, 1));
    }
    assert_eq!(clamp(131_072).warnings.len(), 0);
    for key in
        ["tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.unknown_token_id"]
    {
        let info = read(&Gguf::small().with(key, V::U32(6)).bytes()).unwrap();
        assert_eq!(info.warnings, [format!("{key} is 6 but there are 6 tokens: ignored")]);
    }
    let info = read(&Gguf::small().with("tokenizer.ggml.bos_token_id", V::U32(6)).bytes()).unwrap();
    assert_eq!((info.bos_id, info.bos_token.as_str()), (None, ""));
    let info = read(&Gguf::small().without("tokenizer.chat_template").bytes()).unwrap();
    assert!(info.warnings[0].contains("no chat template"));
}

#[test]
fn templates_are_limited() {
    let at = |len: usize| Gguf::small().with("tokenizer.chat_template", V::Text(vec![b'x'; len])).bytes();
    assert_eq!(kind_of(&at((256 << 10) + 1)), E::Limit);
    assert_eq!(read(&at(256 << 10)).unwrap().chat_template.unwrap().len(), 256 << 10);
}

#[test]
fn tensors_are_checked() {
    type Change = fn(&mut T);
    let cases: [(&str, Change); 15] = [
        ("no dimensions", |t| t.shape.clear()),
        ("five dimensions", |t| t.shape = vec![1; 5]),
        ("a zero", |t| t.shape = vec![8, 0]),
        ("negative", |t| t.shape = vec![u64::MAX]),
        ("product overflow", |t| t.shape = vec![1 << 40, 1 << 40]),
        ("size overflow", |t| t.shape = vec![(1 << 62) - 1]),
        ("type 99", |t| t.kind = 99),
        ("type -1", |t| t.kind = u32::MAX),
        ("type removed", |t| t.kind = 4),
        ("rows not blocks", |t| t.kind = 8),
        ("no name", |t| t.name.clear()),
        ("64 bytes of name", |t| t.name = vec![b'n'; 64]),
        ("name twice", |t| t.name = b"token_embd.weight".to_vec()),
        ("unaligned", |t| t.offset = Some(193)),
        ("escape in the name", |t| t.name = b"x\x1b[2J".to_vec()),
    ];
    for (what, change) in cases {
        let mut file = Gguf::small();
        change(&mut file.tensors[1]);
        let error = read(&file.bytes()).unwrap_err();
        assert_eq!(error.kind, E::Tensor, "{what}: {}", error.what);
        assert!(!error.to_string().contains('\x1b'));
    }
    for (offset, word) in [(0, "inside the tensor before it"), (1 << 40, "was expected")] {
        let mut file = Gguf::small();
        file.tensors[1].offset = Some(offset);
        assert!(read(&file.bytes()).unwrap_err().what.contains(word));
    }
    let mut file = Gguf::small();
    file.tensors.remove(0);
    assert_eq!(read(&file.bytes()).unwrap_err().field.as_deref(), Some("token_embd.weight"));
}

#[test]
fn the_alignment_of_the_file_is_used() {
    for alignment in [1, 64, 65_536] {
        let file = Gguf { alignment, ..Gguf::small() }
            .with("general.alignment", V::U32(u32::try_from(alignment).unwrap()));
        read(&file.bytes()).unwrap();
    }
}

#[test]
fn unknown_architectures_ask_for_a_newer_engine() {
    let error =
        read(&Gguf::small().with("general.architecture", V::text("llama9\x1b]0;x\x07")).bytes()).unwrap_err();
    assert_eq!(error.kind, E::Architecture);
    assert!(!error.to_string().contains(['\x1b', '\x07']), "{error}");
    let huge = "a".repeat(100_000);
    let error = read(&Gguf::small().with("general.architecture", V::text(&huge)).bytes()).unwrap_err();
    assert!(error.to_string().len() < 400);
}

#[test]
fn kinds_are_told_apart() {
    let small = Gguf::small;
    let none = |mut g: Gguf| {
        g.tensors.clear();
        g
    };
    let cases = [
        (small().with("general.type", V::text("adapter")), ModelKind::Adapter),
        (small().with("general.type", V::text("mmproj")), ModelKind::Projector),
        (small().with("general.architecture", V::text("clip")), ModelKind::Projector),
        (none(small()), ModelKind::Vocabulary),
        (small().with("llama.pooling_type", V::U32(1)), ModelKind::Embedding),
        (small().with("llama.pooling_type", V::U32(4)), ModelKind::Reranker),
        (small().with("llama.attention.causal", V::Bool(0)), ModelKind::Embedding),
        (small(), ModelKind::Chat),
    ];
    for (file, kind) in cases {
        let info = read(&file.bytes()).unwrap();
        assert_eq!(info.kind, kind);
        assert_eq!(info.kind.why_not_chat().is_none(), kind == ModelKind::Chat);
    }
}

#[test]
fn heads_may_differ_by_layer() {
    let kv = V::Array(4, vec![V::U32(0), V::U32(2)]);
    let info = read(&Gguf::small().with("llama.attention.head_count_kv", kv).bytes()).unwrap();
    assert_eq!(info.heads_kv, [0, 2]);
}

#[test]
fn split_parts_point_to_the_first() {
    let part = |no: u16, count: u16| {
        Gguf::small().with("split.no", V::U16(no)).with("split.count", V::U16(count)).bytes()
    };
    let error = read(&part(1, 3)).unwrap_err();
    assert_eq!((error.kind, error.what.as_str()), (E::Split, "part 2 of 3 of a split model"));
    assert_eq!(kind_of(&part(3, 3)), E::BadValue);
    assert_eq!(read(&part(0, 1)).unwrap().parts, 1);

    let dir = tempfile::tempdir().unwrap();
    let name = |n: u64| dir.path().join(format!("m-{n:05}-of-00002.gguf"));
    std::fs::write(name(1), part(0, 2)).unwrap();
    let error = inspect(&name(1)).unwrap_err();
    assert_eq!(error.kind, E::Split);
    assert!(error.what.contains("part 2 of 2"), "{}", error.what);
    std::fs::write(name(2), part(1, 2)).unwrap();
    let info = inspect(&name(1)).unwrap();
    assert_eq!((info.parts, info.parameters), (2, 208));
    let error = inspect(&name(2)).unwrap_err();
    assert!(error.next.contains("m-00001-of-00002.gguf"), "{}", error.next);
}

#[test]
fn what_is_no_file_is_refused_without_blocking() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    std::os::unix::fs::symlink(at("loop"), at("loop")).unwrap();
    std::os::unix::fs::symlink(at("gone"), at("dangling")).unwrap();
    std::os::unix::fs::symlink(at("good.gguf"), at("link")).unwrap();
    std::fs::write(at("good.gguf"), Gguf::small().bytes()).unwrap();
    assert_eq!(inspect(&at("pipe")).unwrap_err().kind, E::NotAFile);
    assert_eq!(inspect(dir.path()).unwrap_err().kind, E::NotAFile);
    assert_eq!(inspect(Path::new("/dev/null")).unwrap_err().kind, E::NotAFile);
    assert_eq!(inspect(&at("loop")).unwrap_err().kind, E::Io);
    assert_eq!(inspect(&at("dangling")).unwrap_err().kind, E::Io);
    assert_eq!(inspect(&at("gone")).unwrap_err().what, "no such file");
    let info = inspect(&at("link")).unwrap();
    assert!(info.path.ends_with("good.gguf"));
    assert_eq!(info.file, Some(FileId::at(&at("good.gguf")).unwrap()));
    let error = inspect(&at("gone\x1b[2J")).unwrap_err();
    assert!(!error.to_string().contains('\x1b'), "{error}");
    assert_eq!(error.to_string().lines().count(), 2);
}

#[test]
fn a_file_others_may_change_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.gguf");
    std::fs::write(&path, Gguf::small().bytes()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(inspect(&path).unwrap().warnings[0].contains("every user"));
}

/// A small generator, so that a failure can be repeated from its number.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }
}

#[test]
fn random_edits_end_in_an_answer() {
    let good = Gguf::small().bytes();
    let header = Gguf::small().header().len();
    let (mut accepted, mut refused) = (0, 0);
    for seed in 1..=20_000_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut bytes = good.clone();
        for _ in 0..=random.below(4) {
            let at = random.below(header);
            let len = 1 + random.below(8);
            for byte in &mut bytes[at..(at + len).min(header)] {
                *byte = match random.below(3) {
                    0 => 0xff,
                    1 => 0,
                    _ => random.next() as u8,
                };
            }
        }
        match read(&bytes) {
            Ok(info) => {
                accepted += 1;
                assert!((1..=512).contains(&info.layers) || info.kind != ModelKind::Chat);
            }
            Err(error) => {
                refused += 1;
                let text = error.in_file("m.gguf").to_string();
                assert!(text.lines().count() <= 2 && text.len() < 1000, "seed {seed}: {text}");
                assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "seed {seed}: {text:?}");
            }
        }
    }
    assert!(accepted > 0 && refused > 1000, "{accepted} accepted, {refused} refused");
}
