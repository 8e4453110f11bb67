//! What never leaves this machine: patterns of files, matched against paths whose links are already resolved. Pure.
//!
//! - A pattern with `/` at its beginning is a whole path; one without any `/` (`*.pem`) is a name, anywhere; one with `/` inside
//!   (`secrets/*.txt`) is the end of a path.
//! - `*` stops at a `/`, `**` does not. A folder that matches holds everything below it.
//! - Case never counts: on many disks it does not, and a fence errs towards closed.
//!
//! `~` has been replaced, and symbolic links have been followed, by whoever asks.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use std::path::{Component, Path};

/// Patterns that were read.
#[derive(Clone, Debug, Default)]
pub struct Fence {
    set: GlobSet,
    /// The patterns as they were written, in the order of the set.
    patterns: Vec<String>,
}

/// A file that is about to be sent: as it was named, and every path it has, the resolved one first.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// As the person named it.
    pub name: &'a str,
    /// The path with links resolved, and the absolute path as it was named.
    pub paths: &'a [&'a Path],
}

impl Fence {
    /// Reads patterns. Whoever can't make a fence must send nothing.
    ///
    /// # Errors
    /// The pattern that is no good, and why.
    pub fn new(patterns: &[String]) -> Result<Self, (String, String)> {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            let bad = |why: &str| (pattern.clone(), why.to_owned());
            let text = pattern.trim().trim_end_matches('/');
            if text.is_empty() {
                return Err(bad("it is empty"));
            }
            if text.starts_with('!') {
                return Err(bad("it begins with `!`; patterns can't let files out again"));
            }
            if text.starts_with('~') {
                return Err(bad("no home directory is known for its `~`"));
            }
            let whole = match text.strip_prefix("./").unwrap_or(text) {
                absolute if absolute.starts_with('/') => absolute.to_owned(),
                end => format!("**/{end}"),
            };
            let glob = GlobBuilder::new(&whole)
                .case_insensitive(true)
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|error| bad(&error.kind().to_string()))?;
            set.add(glob);
        }
        let set = set.build().map_err(|error| (patterns.join(", "), error.kind().to_string()))?;
        Ok(Self { set, patterns: patterns.to_vec() })
    }

    /// Whether there is nothing it keeps.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.set.is_empty()
    }

    /// The pattern that keeps this path here; none: it may go. A path with `..` in it was not resolved, and stays.
    #[must_use]
    pub fn keeps(&self, path: &Path) -> Option<&str> {
        let first = self.patterns.first()?;
        if path.components().any(|part| part == Component::ParentDir) {
            return Some(first);
        }
        // Of a folder that matches, everything below it is kept.
        let found = path.ancestors().find_map(|place| self.set.matches(place).first().copied());
        found.map(|at| self.patterns.get(at).unwrap_or(first).as_str())
    }

    /// Names of the files that stay here, in the order they were given.
    pub fn kept<'a>(&self, files: impl IntoIterator<Item = Named<'a>>) -> Vec<String> {
        let stays = |file: &Named<'_>| file.paths.iter().any(|path| self.keeps(path).is_some());
        files.into_iter().filter(stays).map(|file| file.name.to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;

    fn fence(patterns: &[&str]) -> Fence {
        let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        Fence::new(&patterns).expect("patterns")
    }

    #[test]
    fn patterns_mean_what_people_expect() {
        let cases = [
            ("/home/a/private/**", "/home/a/private/x.txt", true),
            ("/home/a/private/**", "/home/a/private/deep/er/x.txt", true),
            ("/home/a/private/**", "/home/a/private.txt", false),
            ("/home/a/private/**", "/home/b/private/x.txt", false),
            // A folder, with and without its slash.
            ("/home/a/private", "/home/a/private/deep/x.txt", true),
            ("/home/a/private/", "/home/a/private/x.txt", true),
            ("/home/a/private", "/home/a/private2/x.txt", false),
            // `*` stops at a slash, but a folder it matches is kept whole.
            ("/home/*/keys", "/home/a/keys/id", true),
            ("/home/*/keys", "/home/a/b/keys/id", false),
            ("/home/a/*", "/home/a/b/c", true),
            // Names, anywhere.
            ("*.pem", "/srv/app/tls/server.pem", true),
            ("*.pem", "/srv/app/tls/SERVER.PEM", true),
            ("*.pem", "/srv/app/server.pem.txt", false),
            (".env", "/srv/app/.env", true),
            (".env", "/srv/app/x.env", false),
            ("secrets", "/srv/Secrets/a/b.txt", true),
            // Ends of paths.
            ("secrets/*.txt", "/srv/app/secrets/a.txt", true),
            ("secrets/*.txt", "/srv/app/secrets/deep/a.txt", false),
            ("secrets/**/*.txt", "/srv/app/secrets/deep/a.txt", true),
            ("./notes.md", "/srv/notes.md", true),
            ("**/drafts/**", "/a/b/drafts/c", true),
            ("*.{key,pem}", "/a/id.key", true),
            ("[a-c]*.txt", "/x/Cats.txt", true),
        ];
        for (pattern, path, is_kept) in cases {
            assert_eq!(fence(&[pattern]).keeps(Path::new(path)).is_some(), is_kept, "{pattern} {path}");
        }
    }

    #[test]
    fn the_names_of_what_stays_are_told() {
        let fence = fence(&["/home/a/private/**", "*.pem"]);
        let files = [
            ("notes.md", vec!["/home/a/notes.md"]),
            ("link.txt", vec!["/home/a/private/x.txt", "/home/a/link.txt"]),
            ("~/private/out.txt", vec!["/srv/elsewhere.txt", "/home/a/private/out.txt"]),
            ("up", vec!["/home/a/b/../private"]),
            ("k.pem", vec!["/tmp/k.pem"]),
        ];
        let mut kept = Vec::new();
        for (name, paths) in &files {
            let paths: Vec<&Path> = paths.iter().map(Path::new).collect();
            kept.extend(fence.kept([Named { name, paths: &paths }]));
        }
        assert_eq!(kept, ["link.txt", "~/private/out.txt", "up", "k.pem"]);
        assert_eq!(fence.keeps(Path::new("/tmp/k.pem")), Some("*.pem"));
        assert!(Fence::default().is_open() && Fence::default().keeps(Path::new("/a/../b")).is_none());
    }

    #[test]
    fn bad_patterns_are_named() {
        for (pattern, why) in
            [("", "empty"), ("  / ", "empty"), ("!a", "let files out"), ("~/x", "home"), ("a[", "")]
        {
            let (named, said) = Fence::new(&[pattern.to_owned()]).expect_err(pattern);
            assert_eq!(named, pattern);
            assert!(said.contains(why), "{said}");
        }
    }

    proptest! {
        #[test]
        fn nothing_below_a_kept_folder_gets_out(below in "[a-zA-Z0-9 ._é-]{1,8}(/[a-zA-Z0-9 ._é-]{1,8}){0,4}") {
            // The folder itself is not below it.
            prop_assume!(below.split('/').any(|part| part != "."));
            let path = format!("/home/a/private/{below}");
            prop_assert!(fence(&["/home/a/private"]).keeps(Path::new(&path)).is_some(), "{}", path);
            prop_assert!(fence(&["/home/a/private/**"]).keeps(Path::new(&path)).is_some(), "{}", path);
        }

        #[test]
        fn patterns_and_paths_never_panic(pattern in ".{0,20}", path in ".{0,30}") {
            if let Ok(fence) = Fence::new(&[pattern]) {
                let _ = fence.keeps(Path::new(&path));
            }
        }
    }
}
