//! Tokens: one for each client, with a name, revocable. Kept as sums only.
//!
//! A token is 32 random bytes, so a plain SHA-256 of it tells nothing; a slow hash would only help words
//! that people choose.

use super::folder::{Digest32, Folder, decode, encode, now, random, refuse_shared, sha256};
use crate::error::{AppError, Exit};
use crate::paths::read_file;
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use subtle::ConstantTimeEq;

/// The environment variable a token can be given by.
pub const TOKEN_VARIABLE: &str = "DUET_SERVE_TOKEN";
const FILE: &str = "tokens.json";
const MAX_NAME: usize = 40;
const MAX_TOKENS: usize = 1000;
/// Characters of a token that was given: fewer could be guessed.
const MIN_GIVEN: usize = 32;
const MAX_GIVEN: usize = 1024;

/// A secret as text. Without `Debug` or `Display`: it leaves through [`Secret::show`] only.
pub struct Secret(String);

impl Secret {
    /// The text, for the one place where it is shown or sent.
    #[must_use]
    pub fn show(&self) -> &str {
        &self.0
    }

    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    fn sum(&self) -> Digest32 {
        sha256(self.0.as_bytes())
    }
}

/// What is known of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Whose it is.
    pub name: String,
    sha256: String,
    /// When it was made, seconds since the epoch.
    pub made: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Stored {
    version: u32,
    tokens: Vec<Known>,
}

/// All tokens that were made here.
#[derive(Clone, Debug)]
pub struct Tokens {
    folder: Folder,
}

impl Tokens {
    /// Those kept in this folder.
    #[must_use]
    pub fn new(folder: Folder) -> Self {
        Self { folder }
    }

    /// Makes a token. This is the only time it can be seen.
    ///
    /// # Errors
    /// When the name is taken or no name, or the file can't be written.
    pub fn add(&self, name: &str) -> Result<Secret, AppError> {
        let _lock = self.folder.lock()?;
        self.add_locked(name)
    }

    /// As [`Self::add`], for whoever holds the folder's lock.
    pub(super) fn add_locked(&self, name: &str) -> Result<Secret, AppError> {
        check_name(name)?;
        let mut tokens = self.list()?;
        if tokens.iter().any(|known| known.name == name) {
            return Err(AppError::new(
                Exit::Usage,
                format!("serve: there is a token named `{name}` already"),
            )
            .hint(format!("choose another name, or `tui serve token revoke {name}` first")));
        }
        if tokens.len() >= MAX_TOKENS {
            return Err(AppError::new(Exit::Usage, format!("serve: there are {MAX_TOKENS} tokens already"))
                .hint("revoke some: `tui serve token list` shows them"));
        }
        let secret = Secret::new(format!("duet_{}", encode(&random::<32>()?)));
        tokens.push(Known { name: name.to_owned(), sha256: encode(&secret.sum()), made: now() });
        self.save(tokens)?;
        Ok(secret)
    }

    /// Takes a token back. `false` when there is none of that name.
    ///
    /// # Errors
    /// When the file can't be read or written.
    pub fn revoke(&self, name: &str) -> Result<bool, AppError> {
        let _lock = self.folder.lock()?;
        let mut tokens = self.list()?;
        let before = tokens.len();
        tokens.retain(|known| known.name != name);
        let was_there = tokens.len() != before;
        if was_there {
            self.save(tokens)?;
        }
        Ok(was_there)
    }

    /// All of them, oldest first.
    ///
    /// # Errors
    /// When the file is damaged or others can read it.
    pub fn list(&self) -> Result<Vec<Known>, AppError> {
        let Some(bytes) = self.folder.read(FILE)? else { return Ok(Vec::new()) };
        match serde_json::from_slice::<Stored>(&bytes) {
            Ok(stored) if stored.version == 1 => Ok(stored.tokens),
            _ => Err(AppError::new(
                Exit::Error,
                format!("serve: {} is damaged, or of a newer version", self.place()),
            )
            .hint("move it away and make new tokens with `tui serve token add NAME`")),
        }
    }

    /// Where they are kept.
    #[must_use]
    pub fn place(&self) -> String {
        self.folder.file(FILE).display().to_string()
    }

    fn save(&self, tokens: Vec<Known>) -> Result<(), AppError> {
        let text = serde_json::to_vec_pretty(&Stored { version: 1, tokens })
            .map_err(|error| AppError::new(Exit::Error, format!("serve: {error}")))?;
        self.folder.write(FILE, &text)
    }

    /// Changes whenever the file does.
    fn state(&self) -> Option<(u64, u64, i64, i64, u64)> {
        let meta = std::fs::metadata(self.folder.file(FILE)).ok()?;
        Some((meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
    }
}

/// A name is one word that is safe in a log and on a command line.
fn check_name(name: &str) -> Result<(), AppError> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(is_good) || name.starts_with('-') {
        return Err(AppError::new(Exit::Usage, "serve: that is no name for a token")
            .hint(format!("a name is up to {MAX_NAME} of a-z, A-Z, 0-9, `-`, `_` and `.`, as `laptop`")));
    }
    Ok(())
}

/// Tokens from outside the store: of `--token-file` and of the environment.
///
/// # Errors
/// When the file can't be read, is not private, or a token is too short to be safe.
pub fn given(file: Option<&Path>, variable: Option<&str>) -> Result<Vec<(String, Secret)>, AppError> {
    let mut out = Vec::new();
    if let Some(path) = file {
        let bytes = read_file(path, 4096).map_err(|trouble| {
            AppError::new(Exit::Usage, format!("--token-file {}: {trouble}", path.display()))
                .hint("write the token into it, and `chmod 600` it")
        })?;
        refuse_shared(path, 0o077)?;
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        check_given(&text, &format!("the token in {}", path.display()))?;
        out.push(("file".to_owned(), Secret::new(text)));
    }
    if let Some(text) = variable {
        check_given(text, &format!("${TOKEN_VARIABLE}"))?;
        out.push(("environment".to_owned(), Secret::new(text.to_owned())));
    }
    Ok(out)
}

fn check_given(text: &str, what: &str) -> Result<(), AppError> {
    let is_short = text.len() < MIN_GIVEN;
    if is_short || text.len() > MAX_GIVEN || !text.chars().all(|c| c.is_ascii_graphic()) {
        return Err(AppError::new(
            Exit::Usage,
            format!("serve: {what} must be {MIN_GIVEN} to {MAX_GIVEN} visible characters without spaces"),
        )
        .hint("`head -c 32 /dev/urandom | base64` makes one, `tui serve token add NAME` keeps one for you"));
    }
    Ok(())
}

/// Tells whose a presented token is.
pub(super) struct Keyring {
    tokens: Tokens,
    given: Vec<(String, Digest32)>,
    cached: Mutex<Cached>,
}

#[derive(Default)]
struct Cached {
    state: Option<(u64, u64, i64, i64, u64)>,
    sums: Vec<(String, Digest32)>,
}

impl Keyring {
    pub(super) fn new(tokens: Tokens, given: &[(String, Secret)]) -> Self {
        let given = given.iter().map(|(name, secret)| (name.clone(), secret.sum())).collect();
        Self { tokens, given, cached: Mutex::default() }
    }

    /// The name of the token, or none. Takes as long for a wrong one as for a right one. Tokens that were
    /// added or revoked since count at once.
    pub(super) fn who(&self, token: &[u8]) -> Option<String> {
        let sum = sha256(token);
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.tokens.state();
        if cached.state != state {
            // A file that can't be read lets nobody in.
            let known = self.tokens.list().unwrap_or_else(|error| {
                tracing::error!(%error, "tokens");
                Vec::new()
            });
            cached.sums = known.into_iter().filter_map(|k| Some((k.name, decode(&k.sha256)?))).collect();
            cached.state = state;
        }
        let mut found = None;
        for (name, known) in self.given.iter().chain(&cached.sums) {
            if bool::from(known.ct_eq(&sum)) {
                found = Some(name.clone());
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> (tempfile::TempDir, Tokens) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        (dir, Tokens::new(folder))
    }

    #[test]
    fn a_token_counts_until_it_is_revoked_and_is_kept_as_a_sum() {
        let (dir, tokens) = tokens();
        let ring = Keyring::new(tokens.clone(), &[]);
        assert_eq!(ring.who(b"anything"), None);
        let (a, b) = (tokens.add("laptop").unwrap(), tokens.add("phone").unwrap());
        assert_ne!(a.show(), b.show());
        assert_eq!(a.show().len(), "duet_".len() + 43, "32 bytes");
        assert_eq!(ring.who(a.show().as_bytes()).as_deref(), Some("laptop"));
        assert_eq!(ring.who(b.show().as_bytes()).as_deref(), Some("phone"));
        let (_, secret) = a.show().split_at(5);
        let (most, _) = a.show().split_at(47);
        for wrong in ["", "duet_", secret, most, &format!("{}x", a.show())] {
            assert_eq!(ring.who(wrong.as_bytes()), None, "{wrong}");
        }
        let path = dir.path().join("serve/tokens.json");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(secret) && text.contains("laptop"), "{text}");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(tokens.revoke("laptop"), Ok(true));
        assert_eq!(tokens.revoke("laptop"), Ok(false));
        assert_eq!(ring.who(a.show().as_bytes()), None, "at once");
        assert_eq!(ring.who(b.show().as_bytes()).as_deref(), Some("phone"));
    }

    #[test]
    fn names_are_words_and_unique() {
        let (_dir, tokens) = tokens();
        tokens.add("a.b-C_9").unwrap_or_else(|e| panic!("{e}"));
        for name in ["a.b-C_9", "", "a b", "../x", "-x", "é", "a\n", &"x".repeat(41)] {
            assert_eq!(tokens.add(name).err().map(|e| e.exit), Some(Exit::Usage), "{name:?}");
        }
    }

    #[test]
    fn a_file_that_is_shared_or_damaged_lets_nobody_in() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, tokens) = tokens();
        let secret = tokens.add("laptop").unwrap_or_else(|e| panic!("{e}"));
        let path = dir.path().join("serve/tokens.json");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(tokens.list().unwrap_err().to_string().contains("chmod 600"));
        assert_eq!(Keyring::new(tokens.clone(), &[]).who(secret.show().as_bytes()), None);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Keyring::new(tokens.clone(), &[]).who(secret.show().as_bytes()).is_some());
        std::fs::write(&path, "{").unwrap();
        assert!(tokens.list().unwrap_err().to_string().contains("damaged"));
        assert_eq!(Keyring::new(tokens, &[]).who(secret.show().as_bytes()), None);
    }

    #[test]
    fn given_tokens_are_checked() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let good = "x".repeat(32);
        std::fs::write(&path, format!("{good}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let given = given(Some(&path), Some(&good)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(given.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["file", "environment"]);
        let (_dir, tokens) = tokens();
        assert_eq!(Keyring::new(tokens, &given).who(good.as_bytes()).as_deref(), Some("environment"));
        let refused =
            |file: Option<&Path>, variable: Option<&str>| super::given(file, variable).err().map(|e| e.exit);
        let (spaced, long) = ("x y ".repeat(10), "x".repeat(1025));
        for wrong in ["", "short", spaced.as_str(), long.as_str()] {
            assert_eq!(refused(None, Some(wrong)), Some(Exit::Usage), "{wrong}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(refused(Some(&path), None), Some(Exit::Usage));
        assert_eq!(refused(Some(&dir.path().join("none")), None), Some(Exit::Usage));
    }
}
