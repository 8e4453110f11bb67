//! Keys of servers: where they are kept, and how they come into a request. They are read when they are used, so
//! that one that was changed counts at once. They are never in arguments, logs or debug output.

use crate::chat::{GenError, GenErrorKind};
use crate::config::BackendConfig;
use crate::paths::{FileTrouble, create_private, read_private, replace_file};
use keyring::Entry;
use reqwest::header::HeaderValue;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Bytes of a file with a key.
const MAX_FILE: u64 = 64 * 1024;
/// The name of this program in the keyring.
const SERVICE: &str = "duet";
/// For a keyring, which may have to be unlocked by the person first.
const KEYRING: Duration = Duration::from_secs(30);

/// A secret as text. Without `Debug` or `Display`: it leaves through [`Secret::show`] only.
pub struct Secret(String);

impl Secret {
    /// Takes the text, without the space around it.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// The text, for the one place where it is sent or kept.
    #[must_use]
    pub fn show(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn header(&self) -> Option<HeaderValue> {
        let mut header = HeaderValue::from_str(&format!("Bearer {}", self.0)).ok()?;
        header.set_sensitive(true);
        Some(header)
    }
}

/// Where a backend's key is.
pub(super) enum Key {
    /// It has none.
    None,
    /// In this environment variable.
    Variable(String),
    /// The first line of this file.
    File(PathBuf),
    /// In the system's keyring; kept from its first use on.
    Keyring(Mutex<Option<HeaderValue>>),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Variable(_) => "Variable",
            Self::File(_) => "File",
            Self::Keyring(_) => "Keyring",
        })
    }
}

fn missing(message: String) -> GenError {
    GenError::new(GenErrorKind::Auth, message)
}

impl Key {
    /// The one a backend is configured with.
    pub(super) fn of(config: &BackendConfig) -> Self {
        match (&config.token_env, &config.token_file) {
            (Some(variable), _) => Self::Variable(variable.clone()),
            (None, Some(file)) => Self::File(file.clone()),
            (None, None) if config.token_keyring => Self::Keyring(Mutex::default()),
            (None, None) => Self::None,
        }
    }

    /// In words, for people: where it comes from.
    pub(super) fn source(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Variable(variable) => Some(format!("${variable}")),
            Self::File(file) => Some(file.display().to_string()),
            Self::Keyring(_) => Some("the system's keyring".to_owned()),
        }
    }

    /// The header for a key that is at hand: of the environment or a file. None: there is none, or it is
    /// in the keyring.
    ///
    /// # Errors
    /// When it is not there, or not private.
    pub(super) fn at_hand(&self, backend: &str) -> Result<Option<HeaderValue>, GenError> {
        let (secret, place) = match self {
            Self::None | Self::Keyring(_) => return Ok(None),
            Self::Variable(variable) => {
                let value = std::env::var(variable).unwrap_or_default();
                (Secret::new(&value), format!("${variable}"))
            }
            Self::File(file) => (read(backend, file)?, file.display().to_string()),
        };
        if secret.is_empty() {
            return Err(missing(match self {
                Self::Variable(_) => format!(
                    "{backend} wants the key in {place}, which is not set\nset it, or remove `token_env` from backend {backend}"
                ),
                _ => format!("{backend} wants the key in {place}, which is empty\nwrite the key into it"),
            }));
        }
        secret.header().map(Some).ok_or_else(|| no_key(backend, &place))
    }

    /// The header for a key in the keyring; none where it is elsewhere.
    ///
    /// # Errors
    /// When it is not there, or no keyring answers.
    pub(super) async fn keyring_header(&self, backend: &str) -> Result<Option<HeaderValue>, GenError> {
        let Self::Keyring(kept) = self else { return Ok(None) };
        if let Some(header) = kept.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(Some(header));
        }
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let account = backend.to_owned();
        // A thread of its own: a keyring that waits for the person holds nothing but itself.
        let reader = std::thread::Builder::new().name("keyring".to_owned());
        let started = reader.spawn(move || sender.send(keyring_get(&account)).is_ok());
        let next = format!("put the key into a file, and name it with `token_file` in backend {backend}");
        let failed = |why: &str| missing(format!("{backend} wants its key from the keyring: {why}\n{next}"));
        if let Err(error) = started {
            return Err(failed(&error.to_string()));
        }
        let secret = match tokio::time::timeout(KEYRING, receiver).await {
            Ok(Ok(Ok(Some(secret)))) => secret,
            Ok(Ok(Ok(None))) => {
                return Err(missing(format!(
                    "{backend} wants its key from the keyring, which has none for it\npair with it again: `tui backends pair {backend}`, or add it again with its key"
                )));
            }
            Ok(Ok(Err(why))) => return Err(failed(&why)),
            Ok(Err(_)) => return Err(failed("it could not be read")),
            Err(_) => {
                return Err(failed(&format!("no answer within {} s; is it locked?", KEYRING.as_secs())));
            }
        };
        let header = secret.header().ok_or_else(|| no_key(backend, "the keyring"))?;
        *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(header.clone());
        Ok(Some(header))
    }

    /// Forgets a key that was kept: the server refused it, so there may be a newer one.
    pub(super) fn forget(&self) {
        if let Self::Keyring(kept) = self {
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

fn no_key(backend: &str, place: &str) -> GenError {
    missing(format!("the key of {backend} in {place} has characters no key has\ncorrect it"))
}

/// The first line of a file that nobody else can read.
fn read(backend: &str, file: &Path) -> Result<Secret, GenError> {
    let place = file.display();
    let bytes = read_private(file, MAX_FILE).map_err(|trouble| {
        missing(match trouble {
            FileTrouble::Shared => {
                format!("others can read or change the key of {backend}: {place}\n`chmod 600 {place}`")
            }
            FileTrouble::Missing => {
                format!("{backend} wants the key in {place}: no such file\nwrite the key into it, and `chmod 600` it")
            }
            FileTrouble::Refused(why) => {
                format!("{backend} wants the key in {place}: {why}\ncorrect `token_file` of backend {backend}")
            }
        })
    })?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(Secret::new(text.trim_start_matches('\u{feff}').lines().next().unwrap_or_default()))
}

/// Why a keyring can't be used, on one line.
fn keyring_words(error: &keyring::Error) -> String {
    let why = match error {
        keyring::Error::NoDefaultStore => match Entry::store_status() {
            Err(error) => error.to_string(),
            Ok(()) => error.to_string(),
        },
        other => other.to_string(),
    };
    let why: String = why.lines().next().unwrap_or_default().chars().take(200).collect();
    format!("no keyring answers here ({why})")
}

fn keyring_get(backend: &str) -> Result<Option<Secret>, String> {
    match Entry::new(SERVICE, backend).and_then(|entry| entry.get_password()) {
        Ok(text) => Ok(Some(Secret::new(&text))),
        Err(keyring::Error::NoEntry) => Ok(None),
        Err(error) => Err(keyring_words(&error)),
    }
}

/// Where a key was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Into the system's keyring.
    Keyring,
    /// Into this file, because no keyring answered; why.
    File(PathBuf, String),
}

/// Keeps the key of a backend in the system's keyring, or, where there is none, in a private file below `data`.
///
/// # Errors
/// One line, when neither takes it.
pub fn keep_key(backend: &str, secret: &Secret, data: &Path) -> Result<Kept, String> {
    let store = || -> Result<(), keyring::Error> {
        let entry = Entry::new(SERVICE, backend)?;
        entry.set_password(secret.show())?;
        // Some take it and forget it.
        match entry.get_password()? == secret.show() {
            true => Ok(()),
            false => Err(keyring::Error::NoEntry),
        }
    };
    let Err(error) = store() else { return Ok(Kept::Keyring) };
    let folder = data.join("keys");
    let file = folder.join(backend);
    create_private(&folder)
        .and_then(|()| replace_file(&file, format!("{}\n", secret.show()).as_bytes()))
        .map_err(|error| format!("{} can't be written: {error}", file.display()))?;
    Ok(Kept::File(file, keyring_words(&error)))
}

/// Removes what [`keep_key`] kept of a backend that is configured so. What is not there is gone already; a file the
/// person made is left alone.
///
/// # Errors
/// One line, when the keyring does not let it go.
pub(super) fn forget_key(config: &BackendConfig, data: &Path) -> Result<(), String> {
    if config.token_keyring {
        match Entry::new(SERVICE, &config.name).and_then(|entry| entry.delete_credential()) {
            Ok(()) | Err(keyring::Error::NoEntry) => {}
            Err(error) => return Err(keyring_words(&error)),
        }
    }
    let ours = data.join("keys").join(&config.name);
    if config.token_file.as_ref() == Some(&ours) {
        let _ = std::fs::remove_file(ours);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;
    use std::os::unix::fs::PermissionsExt;

    fn value(key: &Key) -> Result<Option<String>, String> {
        match key.at_hand("mac") {
            Ok(header) => Ok(header.map(|header| header.to_str().expect("text").to_owned())),
            Err(error) => {
                assert_eq!(error.kind, GenErrorKind::Auth);
                Err(error.message)
            }
        }
    }

    #[test]
    fn a_key_is_read_when_it_is_used() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("key");
        let key = Key::File(file.clone());
        let error = value(&key).expect_err("not there");
        assert!(
            error.starts_with("mac wants the key in ") && error.contains("no such file\nwrite"),
            "{error}"
        );
        let put = |text: &str| {
            std::fs::write(&file, text).expect("written");
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("set");
        };
        put("\u{feff} one \nsecond line\n");
        assert_eq!(value(&key), Ok(Some("Bearer one".to_owned())));
        put("two\r\n");
        assert_eq!(value(&key), Ok(Some("Bearer two".to_owned())), "a rotated key counts at once");
        put("\n");
        assert!(value(&key).expect_err("empty").contains("which is empty"));
        put("a\u{1}b");
        let error = value(&key).expect_err("no key");
        assert!(error.contains("characters no key has") && !error.contains("a\u{1}b"), "{error}");
        put("secret");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("set");
        let error = value(&key).expect_err("others can read it");
        assert_eq!(error.lines().last(), Some(format!("`chmod 600 {}`", file.display()).as_str()));
        assert!(!error.contains("secret"));
        assert_eq!(value(&Key::None), Ok(None));
        let error = value(&Key::Variable("DUET_NO_SUCH_KEY".to_owned())).expect_err("not set");
        assert!(error.starts_with("mac wants the key in $DUET_NO_SUCH_KEY, which is not set"), "{error}");
    }

    #[test]
    fn nothing_shows_a_key() {
        let header = Secret::new("hush").header().expect("a header");
        let key = Key::Keyring(Mutex::new(Some(header.clone())));
        assert!(!format!("{key:?} {header:?}").contains("hush"));
    }

    #[test]
    fn only_our_own_file_is_removed() {
        let dir = tempfile::tempdir().expect("a folder");
        let keys = dir.path().join("keys");
        std::fs::create_dir(&keys).expect("made");
        let theirs = dir.path().join("mine");
        for file in [&keys.join("mac"), &theirs] {
            std::fs::write(file, "k").expect("written");
        }
        let config = |file: &Path| BackendConfig {
            name: "mac".to_owned(),
            token_file: Some(file.to_owned()),
            ..BackendConfig::default()
        };
        assert_eq!(forget_key(&config(&theirs), dir.path()), Ok(()));
        assert!(theirs.exists() && keys.join("mac").exists());
        assert_eq!(forget_key(&config(&keys.join("mac")), dir.path()), Ok(()));
        assert!(!keys.join("mac").exists());
    }
}
