//! Where other programs keep models: the caches of Hugging Face and llama.cpp, LM Studio's folder, Ollama's store.
//! Nothing there is changed, and everything read there is bounded.

use super::folders::{Files, MAX_DEPTH, MAX_NAMES, walk};
use crate::engine::gguf::plain;
use crate::paths::read_file;
use serde_json::Value;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Largest manifest of Ollama that is read, in bytes; real ones have one or two KiB.
const MAX_MANIFEST: u64 = 1 << 20;
/// How deep Hugging Face's cache is searched: `models--org--name/snapshots/revision/folder/file.gguf`.
const HUB_DEPTH: usize = 5;

/// A place where another program keeps models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// GGUF files in folders.
    Folder {
        /// The outermost one.
        path: PathBuf,
        /// How deep it is searched; 1 is the folder itself.
        depth: usize,
    },
    /// Ollama's store: manifests that name blobs.
    Ollama(PathBuf),
}

/// The usual places below a home folder. `env` looks up variables that move them.
#[must_use]
pub fn usual(home: Option<&Path>, env: impl Fn(&str) -> Option<PathBuf>) -> Vec<Place> {
    let set = |name: &str| env(name).filter(|path| path.is_absolute());
    let below = |path: &str| home.map(|home| home.join(path));
    let caches = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
    let cache = |name: &str| set("XDG_CACHE_HOME").or_else(|| below(caches)).map(|dir| dir.join(name));
    let hub = set("HF_HUB_CACHE")
        .or_else(|| set("HF_HOME").map(|dir| dir.join("hub")))
        // Hugging Face uses the same place on every system.
        .or_else(|| set("XDG_CACHE_HOME").or_else(|| below(".cache")).map(|dir| dir.join("huggingface/hub")));
    let ollama = [
        set("OLLAMA_MODELS").or_else(|| below(".ollama/models")),
        // Where its Linux service keeps them.
        Some(PathBuf::from("/usr/share/ollama/.ollama/models")),
    ];
    let folders = [
        (hub, HUB_DEPTH),
        (set("LLAMA_CACHE").or_else(|| cache("llama.cpp")), MAX_DEPTH),
        (below(".lmstudio/models"), MAX_DEPTH),
        (below(".cache/lm-studio/models"), MAX_DEPTH),
    ];
    let folders = folders.into_iter().filter_map(|(path, depth)| Some(Place::Folder { path: path?, depth }));
    let mut seen = HashSet::new();
    folders
        .chain(ollama.into_iter().flatten().map(Place::Ollama))
        .filter(|place| {
            let (Place::Folder { path, .. } | Place::Ollama(path)) = place;
            seen.insert(path.clone())
        })
        .collect()
}

/// Finds the models of one place. What can't be read is passed over: these places are other programs' business.
pub(super) fn search(place: &Place, files: &mut Files) {
    match place {
        Place::Folder { path, depth } => walk(path, *depth, files, &mut Vec::new()),
        Place::Ollama(store) => search_ollama(store, files),
    }
}

/// Follows `manifests/host/namespace/model/tag` to the blob with the weights.
fn search_ollama(store: &Path, files: &mut Files) {
    let mut left = MAX_NAMES;
    let manifests = store.join("manifests");
    let mut found = Vec::new();
    let mut open = vec![(manifests.clone(), 1)];
    while let Some((dir, depth)) = open.pop() {
        let Ok(names) = std::fs::read_dir(&dir) else { continue };
        for path in names.filter_map(Result::ok).map(|name| name.path()) {
            if left == 0 {
                return;
            }
            left -= 1;
            match depth {
                1..=3 if path.is_dir() => open.push((path, depth + 1)),
                4 => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    for manifest in found {
        let name = manifest.strip_prefix(&manifests).ok().and_then(ollama_name);
        let blob = read_file(&manifest, MAX_MANIFEST).ok().and_then(|bytes| weights(&bytes));
        if let (Some(name), Some(blob)) = (name, blob) {
            files.add_named(&store.join("blobs").join(blob), Some(name));
        }
    }
}

/// `registry.ollama.ai/library/llama3/8b` is `llama3:8b`; other hosts and namespaces stay.
fn ollama_name(manifest: &Path) -> Option<String> {
    let parts: Option<Vec<&str>> = manifest.iter().map(|part| part.to_str()).collect();
    let [host, namespace, model, tag] = parts?.try_into().ok()?;
    let name = match (host, namespace) {
        ("registry.ollama.ai", "library") => format!("{model}:{tag}"),
        ("registry.ollama.ai", namespace) => format!("{namespace}/{model}:{tag}"),
        (host, namespace) => format!("{host}/{namespace}/{model}:{tag}"),
    };
    Some(plain(&name, 120).to_lowercase())
}

/// The file name of the blob with the weights.
fn weights(manifest: &[u8]) -> Option<String> {
    let manifest: Value = serde_json::from_slice(manifest).ok()?;
    let layers = manifest.get("layers")?.as_array()?;
    let of_kind = |layer: &&Value| {
        layer.get("mediaType").and_then(Value::as_str) == Some("application/vnd.ollama.image.model")
    };
    let digest = layers.iter().find(of_kind)?.get("digest")?.as_str()?;
    let hex = digest.strip_prefix("sha256:")?;
    // It becomes part of a path.
    (hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit())).then(|| format!("sha256-{hex}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::catalogue::Catalogue;
    use crate::engine::gguf::build::{Gguf, V};
    use pretty_assertions::assert_eq;

    fn ids(place: Place) -> Vec<String> {
        let mut catalogue = Catalogue::new(None, Vec::new()).with_places(vec![place]);
        catalogue.scan();
        assert_eq!(catalogue.warnings(), Vec::<String>::new());
        catalogue.entries().iter().map(|e| e.id.clone()).collect()
    }

    fn put(path: &Path, bytes: &[u8]) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn the_usual_places_are_below_home_unless_moved() {
        let home = Path::new("/home/ada");
        let usual_ones = usual(Some(home), |_| None);
        let folder = |path: &str, depth| Place::Folder { path: home.join(path), depth };
        assert!(usual_ones.contains(&folder(".cache/huggingface/hub", 5)), "{usual_ones:?}");
        assert!(usual_ones.contains(&folder(".lmstudio/models", 3)));
        assert!(usual_ones.contains(&Place::Ollama(home.join(".ollama/models"))));
        let moved = usual(Some(home), |name| match name {
            "HF_HOME" => Some("/hf".into()),
            "LLAMA_CACHE" => Some("/llama".into()),
            "OLLAMA_MODELS" => Some("relative".into()),
            _ => None,
        });
        assert!(moved.contains(&Place::Folder { path: "/hf/hub".into(), depth: 5 }), "{moved:?}");
        assert!(moved.contains(&Place::Folder { path: "/llama".into(), depth: 3 }));
        assert!(moved.contains(&Place::Ollama(home.join(".ollama/models"))), "a relative path is nowhere");
        assert_eq!(usual(None, |_| None).len(), 1);
    }

    #[test]
    fn models_of_hugging_face_are_named_by_their_links_and_may_be_split() {
        let dir = tempfile::tempdir().unwrap();
        let repository = dir.path().join("hub/models--ada--tiny-GGUF");
        let link = |name: &str, blob: &str, bytes: &[u8]| {
            put(&repository.join("blobs").join(blob), bytes);
            let path = repository.join("snapshots/abc").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(repository.join("blobs").join(blob), path).unwrap();
        };
        link("Tiny-Q4.gguf", "00", &Gguf::small().bytes());
        for part in 0..2_u16 {
            let file = Gguf::small()
                .with("split.no", V::U16(part))
                .with("split.count", V::U16(2))
                .with("general.name", V::text("Big"));
            link(&format!("big/big-{:05}-of-00002.gguf", part + 1), &format!("1{part}"), &file.bytes());
        }
        let mut catalogue = Catalogue::new(None, Vec::new())
            .with_places(vec![Place::Folder { path: dir.path().join("hub"), depth: HUB_DEPTH }]);
        catalogue.scan();
        let entries = catalogue.entries();
        assert_eq!(entries.iter().map(|e| e.id.as_str()).collect::<Vec<_>>(), ["big", "tiny-q4"]);
        assert!(entries.iter().all(|e| e.unusable().is_none()), "{entries:?}");
        // llama.cpp finds the other parts by the name, which the blob does not have.
        assert!(entries[0].path.ends_with("snapshots/abc/big/big-00001-of-00002.gguf"));
    }

    #[test]
    fn models_of_ollama_are_found_through_their_manifests() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("models");
        let manifest = |name: &str, text: String| put(&store.join("manifests").join(name), text.as_bytes());
        let layers = |kind: &str, digest: &str| {
            format!(
                r#"{{"layers":[{{"mediaType":"application/vnd.ollama.image.license","digest":"sha256:x"}},{{"mediaType":"application/vnd.ollama.image.{kind}","digest":"{digest}"}}]}}"#
            )
        };
        let digest = |c: char| format!("sha256:{}", c.to_string().repeat(64));
        for (c, name) in [('a', "One"), ('b', "Two")] {
            let file = Gguf::small().with("general.name", V::text(name));
            put(&store.join("blobs").join(digest(c).replace(':', "-")), &file.bytes());
        }
        manifest("registry.ollama.ai/library/llama3/8b", layers("model", &digest('a')));
        manifest("registry.ollama.ai/ada/Tiny/latest", layers("model", &digest('b')));
        // The same weights under another tag, one without weights, one whose blob is gone, and three that lie.
        manifest("registry.ollama.ai/library/llama3/latest", layers("model", &digest('a')));
        manifest("registry.ollama.ai/library/eyes/1", layers("projector", &digest('a')));
        manifest("registry.ollama.ai/library/gone/1", layers("model", &digest('c')));
        manifest("registry.ollama.ai/library/up/1", layers("model", "sha256:../../../../etc/passwd"));
        manifest("registry.ollama.ai/library/junk/1", "{".to_owned());
        manifest("registry.ollama.ai/library/huge/1", " ".repeat(2 << 20));
        assert_eq!(ids(Place::Ollama(store.clone())), ["ada/tiny:latest", "llama3:8b"]);
        assert!(ids(Place::Ollama(dir.path().join("none"))).is_empty());
    }
}
