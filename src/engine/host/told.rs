//! What is told of a model's file: everything to who sits here, no folders to the network.

use super::Host;
use crate::engine::gguf::plain;
use std::path::Path;

/// How long messages let a path become, the file's own and that of another part.
const CUTS: [usize; 2] = [160, 120];

impl Host {
    /// A message about a model as it may be told: where models go by id alone, its files are called by the id.
    #[must_use]
    pub fn told(&self, id: &str, files: &[&Path], message: String) -> String {
        if self.terms().ids_only { without_folders(id, files, &message) } else { message }
    }
}

/// The message with the id in place of the files. Where it still names a place, it is not told at all: what
/// llama.cpp says is not known beforehand.
fn without_folders(id: &str, files: &[&Path], message: &str) -> String {
    let mut told = message.to_owned();
    for file in files {
        let whole = file.to_string_lossy();
        let cut = CUTS.map(|max| plain(&whole, max));
        for name in [whole.as_ref()].into_iter().chain(cut.iter().map(String::as_str)) {
            told = told.replace(name, id);
        }
    }
    for folder in files.iter().filter_map(|file| file.parent()).filter(|folder| folder.parent().is_some()) {
        told = told.replace(&format!("{}/", folder.display()), "");
    }
    if told.replace(id, "").contains('/') {
        return format!("`{id}` can't be used\n`tui models` on the server and its log say why");
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn no_folder_is_told() {
        let file = Path::new("/home/ann/models/Large-00002-of-00002.gguf");
        let told = |message: &str| without_folders("org/large", &[file], message);
        assert_eq!(told(&format!("{}: no GGUF\nnext", file.display())), "org/large: no GGUF\nnext");
        assert_eq!(
            told("part 2\nload the first part: /home/ann/models/Large-00001-of-00002.gguf"),
            "part 2\nload the first part: Large-00001-of-00002.gguf"
        );
        let foreign = "`org/large` can't be used\n`tui models` on the server and its log say why";
        assert_eq!(told("/home/ann/llama.cpp/ggml.c:7: GGML_ASSERT(x)"), foreign);
        assert_eq!(told("open: …ann/models/Lar…"), foreign);
        assert_eq!(told("`org/large` is damaged"), "`org/large` is damaged");
        let long = format!("/home/ann/{}/x.gguf", "deep".repeat(60));
        let cut = format!("{}: no GGUF", plain(&long, 160));
        assert_eq!(without_folders("x", &[Path::new(&long)], &cut), "x: no GGUF");
    }
}
