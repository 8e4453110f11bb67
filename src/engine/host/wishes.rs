//! What was asked of models, kept where the next engine finds it when this one dies. It is not kept beyond a good
//! end: what shall last belongs into the configuration.

use super::registry::Wish;
use crate::paths::read_file;
use std::collections::HashMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const MAX_BYTES: u64 = 1 << 20;

fn file(runtime: &Path) -> PathBuf {
    runtime.join("engine.wishes.json")
}

/// What an engine that died left behind; nothing when there is none, or when it can't be read.
pub(super) fn left_behind(runtime: &Path) -> HashMap<String, Wish> {
    let bytes = read_file(&file(runtime), MAX_BYTES).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Replaces what is kept. Without room for it a crash forgets the wishes, nothing else.
pub(super) fn keep(runtime: &Path, wishes: &HashMap<String, Wish>) {
    let (path, part) = (file(runtime), runtime.join("engine.wishes.part"));
    let Ok(text) = serde_json::to_vec(wishes) else { return };
    let open = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part);
    if open.and_then(|mut file| file.write_all(&text)).and_then(|()| std::fs::rename(&part, &path)).is_err() {
        tracing::warn!("what was asked of models can't be kept");
    }
}

/// Forgets what is kept: the engine ends in good order.
pub(super) fn forget(runtime: &Path) {
    let _ = std::fs::remove_file(file(runtime));
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn wishes_outlive_a_crash_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(left_behind(dir.path()), HashMap::new());
        let wish = Wish { pinned: true, keep_alive: Some(-1), context: Some(512), slots: None };
        let wishes = HashMap::from([("a".to_owned(), wish)]);
        keep(dir.path(), &wishes);
        assert_eq!(left_behind(dir.path()), wishes);
        std::fs::write(file(dir.path()), "{\"a\":5}").unwrap();
        assert_eq!(left_behind(dir.path()), HashMap::new());
        keep(dir.path(), &wishes);
        forget(dir.path());
        assert_eq!(left_behind(dir.path()), HashMap::new());
    }
}
