//! Tests of the list of models.

use super::*;
use crate::engine::gguf::build::{Gguf, V};
use pretty_assertions::assert_eq;

struct Folder {
    dir: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        std::fs::canonicalize(self.dir.path()).unwrap().join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn model(&self, name: &str) -> PathBuf {
        self.put(name, &Gguf::small().bytes())
    }

    fn scan(&self) -> Catalogue {
        let mut catalogue = Catalogue::new(None, vec![self.path("")]);
        catalogue.scan();
        catalogue
    }
}

fn ids(catalogue: &Catalogue) -> Vec<&str> {
    catalogue.entries().iter().map(|e| e.id.as_str()).collect()
}

#[test]
fn models_are_named_by_their_files() {
    let place = Folder::new();
    place.model("Llama-3.1-8B.Q4_K_M.gguf");
    place.model("My Model.GGUF");
    place.model("deep/er/third.gguf");
    place.model("deep/er/too/fourth.gguf");
    place.model(".cache/hidden.gguf");
    place.put("notes.txt", b"no model");
    std::fs::create_dir(place.path("folder.gguf")).unwrap();
    let catalogue = place.scan();
    assert_eq!(ids(&catalogue), ["llama-3.1-8b.q4_k_m", "my-model", "third"]);
    assert_eq!(catalogue.warnings(), Vec::<String>::new());
    let card = catalogue.entries()[0].card(ModelState::Unloaded);
    assert_eq!((card.parameters, card.context), (Some(104), Some(2048)));
    assert_eq!((card.quantisation.as_deref(), card.state), (Some("f32"), ModelState::Unloaded));
}

#[test]
fn equal_names_get_their_folder() {
    let place = Folder::new();
    place.model("a/model.gguf");
    place.model("b/model.gguf");
    place.model("b/MODEL.gguf");
    place.model("c/builtin.gguf");
    assert_eq!(ids(&place.scan()), ["a/model", "b/model", "b/model-2", "c/builtin"]);
}

#[test]
fn links_to_one_file_are_one_model() {
    let place = Folder::new();
    let file = place.model("a.gguf");
    std::os::unix::fs::symlink(&file, place.path("b.gguf")).unwrap();
    std::fs::hard_link(&file, place.path("c.gguf")).unwrap();
    std::os::unix::fs::symlink(place.path(""), place.path("up")).unwrap();
    std::os::unix::fs::symlink(place.path("x.gguf"), place.path("x.gguf")).unwrap();
    let catalogue = place.scan();
    assert_eq!(ids(&catalogue), ["a"]);
    assert_eq!(catalogue.entries()[0].aliases, [place.path("b.gguf"), place.path("c.gguf")]);
}

#[test]
fn split_models_are_listed_once() {
    let place = Folder::new();
    for part in 0..2_u16 {
        let file = Gguf::small().with("split.no", V::U16(part)).with("split.count", V::U16(2));
        place.put(&format!("big-{:05}-of-00002.gguf", part + 1), &file.bytes());
    }
    let mut catalogue = place.scan();
    assert_eq!(ids(&catalogue), ["big"]);
    assert_eq!(
        catalogue.entries()[0].bytes,
        2 * Gguf::small().with("split.no", V::U16(0)).with("split.count", V::U16(2)).bytes().len() as u64
    );
    std::fs::remove_file(place.path("big-00002-of-00002.gguf")).unwrap();
    catalogue.scan();
    assert!(catalogue.entries()[0].unusable().unwrap().contains("part 2 of 2"));
}

#[test]
fn a_split_model_without_its_first_part_is_listed_once_and_says_so() {
    let place = Folder::new();
    for part in 1..3_u16 {
        let file = Gguf::small().with("split.no", V::U16(part)).with("split.count", V::U16(3));
        place.put(&format!("big-{:05}-of-00003.gguf", part + 1), &file.bytes());
    }
    let catalogue = place.scan();
    assert_eq!(ids(&catalogue), ["big"]);
    let why = catalogue.entries()[0].unusable().unwrap();
    assert!(why.contains("part 2 of 3"), "{why}");
}

#[test]
fn bad_files_are_listed_with_the_reason() {
    let place = Folder::new();
    place.put("broken.gguf", b"GGUF\x03\0\0\0");
    place.put("page.gguf", b"<!DOCTYPE html>");
    place.put("adapter.gguf", &Gguf::small().with("general.type", V::text("adapter")).bytes());
    let catalogue = place.scan();
    let states: Vec<ModelState> =
        catalogue.entries().iter().map(|e| e.card(ModelState::Unloaded).state).collect();
    for (state, word) in states.iter().zip(["LoRA", "cut off", "HTML"]) {
        let ModelState::Failed { reason } = state else { panic!("{state:?}") };
        assert!(reason.contains(word) && !reason.contains('\n'), "{reason}");
    }
}

#[test]
fn models_are_found_by_id_beginning_and_path() {
    let place = Folder::new();
    place.model("qwen2.5-7b-instruct.gguf");
    place.model("qwen3-8b.gguf");
    let outside = Folder::new();
    let elsewhere = outside.model("Other.gguf");
    let mut catalogue = place.scan();
    for name in ["qwen3-8b", "Qwen3-8B", "qwen3-8b.gguf", "qwen3"] {
        assert_eq!(catalogue.find(name).unwrap().id, "qwen3-8b", "{name}");
    }
    let error = catalogue.find("qwen").unwrap_err();
    assert!(error.message.contains("fits several"), "{error}");
    let path = place.path("qwen3-8b.gguf");
    assert_eq!(catalogue.find(path.to_str().unwrap()).unwrap().id, "qwen3-8b");

    let asked = elsewhere.to_str().unwrap();
    let entry = catalogue.find(asked).unwrap();
    assert_eq!((entry.id.as_str(), &entry.path), (asked, &elsewhere));
    catalogue.scan();
    assert_eq!(catalogue.find(asked).unwrap(), entry);
    assert_eq!(catalogue.entries().len(), 3);
}

#[test]
fn a_miss_offers_what_is_near() {
    let place = Folder::new();
    place.model("llama-3.1-8b.gguf");
    let mut catalogue = place.scan();
    let message = |c: &mut Catalogue, name: &str| c.find(name).unwrap_err().message;
    assert!(message(&mut catalogue, "lama-3.1-8b").ends_with("did you mean llama-3.1-8b?"));
    assert!(message(&mut catalogue, "8b").contains("llama-3.1-8b"));
    assert!(message(&mut catalogue, "zzz").contains("put a .gguf file into"));
    assert!(message(&mut catalogue, "").contains("no model"));
    assert!(!message(&mut catalogue, "\x1b[2J").contains('\x1b'));
    assert!(message(&mut catalogue, "/no/such/file.gguf").contains("no such file"));
    let empty = message(&mut Catalogue::new(None, Vec::new()), "x");
    assert_eq!(empty.lines().count(), 2);
}

#[test]
fn the_builtin_model_comes_first_and_is_not_listed_twice() {
    let place = Folder::new();
    let builtin = place.model("cache/builtin-00.gguf");
    place.model("a.gguf");
    let mut catalogue = Catalogue::new(Some(builtin.clone()), vec![place.path("")]);
    catalogue.scan();
    assert_eq!(ids(&catalogue), ["builtin", "a"]);
    assert!(catalogue.entries()[0].is_builtin);
    assert_eq!(catalogue.find("builtin").unwrap().path, builtin);
}

#[test]
fn a_changed_file_is_read_again_and_an_unchanged_one_is_not() {
    let place = Folder::new();
    let path = place.model("m.gguf");
    let mut catalogue = place.scan();
    let before = catalogue.entries()[0].info.clone().unwrap();
    catalogue.scan();
    assert!(Arc::ptr_eq(&before, catalogue.entries()[0].info.as_ref().unwrap()));
    std::fs::write(&path, Gguf::small().with("general.name", V::text("Changed")).bytes()).unwrap();
    catalogue.scan();
    assert_eq!(catalogue.entries()[0].info.as_ref().unwrap().name.as_deref(), Some("Changed"));
    std::fs::remove_file(&path).unwrap();
    catalogue.scan();
    assert_eq!((catalogue.entries().len(), catalogue.read.len()), (0, 0));
}

#[test]
fn folders_are_the_configured_ones_and_the_usual_ones() {
    let folders = Catalogue::folders(
        &[PathBuf::from("/m"), PathBuf::from("~/x"), PathBuf::from("/m")],
        Some(Path::new("/home/ada")),
        Path::new("/data"),
    );
    let expected = ["/m", "/home/ada/x", "/home/ada/models", "/data/models"];
    assert_eq!(folders, expected.map(PathBuf::from));
    assert_eq!(Catalogue::folders(&[], None, Path::new("/d")), [PathBuf::from("/d/models")]);
}

#[test]
fn missing_folders_are_no_trouble_but_unreadable_ones_are_told() {
    let place = Folder::new();
    let file = place.put("file", b"");
    let mut catalogue = Catalogue::new(None, vec![place.path("none"), file]);
    catalogue.scan();
    assert_eq!(catalogue.entries().len(), 0);
    assert_eq!(catalogue.warnings().len(), 1, "{:?}", catalogue.warnings());
}

#[test]
fn a_large_folder_is_listed() {
    let place = Folder::new();
    for n in 0..300 {
        place.put(&format!("m{n:03}.gguf"), b"GGUF");
    }
    assert_eq!(place.scan().entries().len(), 300);
}
