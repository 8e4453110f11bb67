//! Which of the attached files the privacy fence keeps on this machine: paths resolved, then matched.

use crate::config::PrivacyConfig;
use crate::error::{AppError, Exit};
use crate::paths::expand_home;
use crate::router::fence::{Fence, Named};
use std::path::{Path, PathBuf};

/// The files behind the fence, as they were named. Links are followed: neither the name nor what it leads to may be
/// behind it.
///
/// # Errors
/// Exit code 2: a pattern is no good. Nothing is sent then.
pub(super) fn fenced(privacy: &PrivacyConfig, files: &[PathBuf]) -> Result<Vec<String>, AppError> {
    let patterns: Vec<String> = privacy.never_leave.iter().flat_map(|pattern| places(pattern)).collect();
    let fence = Fence::new(&patterns).map_err(|(pattern, why)| {
        AppError::new(Exit::Usage, format!("`privacy.never_leave` has the pattern \"{pattern}\": {why}"))
            .hint("nothing was sent; patterns are written as ~/private/** or *.pem")
    })?;
    if fence.is_open() {
        return Ok(Vec::new());
    }
    let is_kept = |file: &&PathBuf| {
        let absolute = std::path::absolute(file).unwrap_or_else(|_| (*file).clone());
        let resolved = std::fs::canonicalize(file).unwrap_or_else(|_| absolute.clone());
        !fence.kept([Named { name: "", paths: &[&resolved, &absolute] }]).is_empty()
    };
    let files = files.iter().filter(|file| file.as_os_str() != "-").filter(is_kept);
    Ok(files.map(|file| file.display().to_string()).collect())
}

/// A pattern with its home folder, and where that folder lies behind links.
fn places(pattern: &str) -> Vec<String> {
    let whole = expand_home(Path::new(pattern.trim())).to_string_lossy().into_owned();
    let resolved = whole.split_once("/*").and_then(|(folder, rest)| {
        let folder = std::fs::canonicalize(folder).ok()?;
        Some(format!("{}/*{rest}", folder.display()))
    });
    std::iter::once(whole).chain(resolved).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    fn kept(patterns: &[&str], files: &[PathBuf]) -> Vec<String> {
        let never_leave = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        fenced(&PrivacyConfig { never_leave }, files).expect("patterns")
    }

    #[test]
    fn names_places_and_what_links_lead_to_are_matched() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = dir.path();
        std::fs::create_dir_all(at.join("private/deep")).expect("made");
        for name in ["private/deep/a.txt", "open.txt", "key.PEM"] {
            std::fs::write(at.join(name), "x").expect("written");
        }
        std::os::unix::fs::symlink(at.join("private/deep/a.txt"), at.join("link.txt")).expect("linked");
        std::os::unix::fs::symlink(at.join("open.txt"), at.join("private/out.txt")).expect("linked");
        let file = |name: &str| at.join(name);
        let private = format!("{}/private/**", at.display());
        let named = |names: &[&str]| names.iter().map(|n| file(n).display().to_string()).collect::<Vec<_>>();
        let all =
            ["private/deep/a.txt", "open.txt", "link.txt", "private/out.txt", "private/deep/../../open.txt"];
        let files: Vec<PathBuf> = all.iter().map(|name| file(name)).collect();
        assert_eq!(
            kept(&[&private], &files),
            named(&["private/deep/a.txt", "link.txt", "private/out.txt", "private/deep/../../open.txt"]),
            "a link out of it counts by its own name too"
        );
        assert_eq!(kept(&["*.pem"], &[file("key.PEM"), file("open.txt")]), named(&["key.PEM"]));
        assert_eq!(kept(&["private"], &[file("private/deep/a.txt"), file("open.txt")]).len(), 1);
        assert_eq!(kept(&["*.pem"], &[PathBuf::from("-"), file("gone.pem")]), named(&["gone.pem"]));
        assert_eq!(kept(&[], &files), Vec::<String>::new());
    }

    #[test]
    fn a_pattern_that_is_no_good_lets_nothing_out() {
        for pattern in ["", "a[b", "/"] {
            let error =
                fenced(&PrivacyConfig { never_leave: vec![pattern.to_owned()] }, &[]).expect_err("refused");
            assert_eq!(error.exit, Exit::Usage, "{pattern}");
        }
    }
}
