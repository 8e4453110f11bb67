//! Pairing: a code that is good for one token, once, for ten minutes.

use super::folder::{Digest32, Folder, decode, encode, now, random, sha256};
use super::tokens::{Secret, Tokens};
use crate::error::AppError;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

/// How long a code is good, in seconds.
pub const VALID: u64 = 600;
const FILE: &str = "pairing.json";

#[derive(Serialize, Deserialize)]
struct Open {
    sha256: String,
    until: u64,
}

/// Makes a code (128 bits) and opens the pairing with it; one from before is no longer good.
///
/// # Errors
/// When it can't be kept.
pub fn open(folder: &Folder) -> Result<Secret, AppError> {
    let _lock = folder.lock()?;
    let code = Secret::new(encode(&random::<16>()?));
    let open = Open { sha256: encode(&sha256(code.show().as_bytes())), until: now() + VALID };
    folder.write(FILE, &serde_json::to_vec(&open).unwrap_or_default())?;
    Ok(code)
}

/// Closes what was open.
///
/// # Errors
/// When the file can't be removed.
pub fn close(folder: &Folder) -> Result<(), AppError> {
    folder.remove(FILE)
}

/// What came of a code.
pub(super) enum Redeemed {
    /// A token of the name asked for; the code is used up.
    Token(Secret),
    /// Wrong, used, too late, or nothing is open: nobody is told which.
    Refused,
    /// The code was right, the name was not; the code is still good.
    BadName(AppError),
}

/// Exchanges a code for a token.
///
/// # Errors
/// When the folder can't be used.
pub(super) fn redeem(folder: &Folder, code: &str, name: &str) -> Result<Redeemed, AppError> {
    let _lock = folder.lock()?;
    let open = folder.read(FILE)?.and_then(|bytes| serde_json::from_slice::<Open>(&bytes).ok());
    let presented = sha256(code.as_bytes());
    let (known, until): (Digest32, u64) =
        open.and_then(|open| Some((decode(&open.sha256)?, open.until))).unwrap_or_default();
    let is_right = bool::from(known.ct_eq(&presented));
    // A clock that was set back must not make a code good for longer.
    let is_now = until > now() && until <= now() + VALID;
    if !(is_right && is_now) {
        return Ok(Redeemed::Refused);
    }
    match Tokens::new(folder.clone()).add_locked(name) {
        Ok(token) => {
            folder.remove(FILE)?;
            Ok(Redeemed::Token(token))
        }
        Err(error) => Ok(Redeemed::BadName(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(folder: &Folder, code: &str, name: &str) -> Option<String> {
        match redeem(folder, code, name) {
            Ok(Redeemed::Token(secret)) => Some(secret.show().to_owned()),
            Ok(Redeemed::Refused | Redeemed::BadName(_)) => None,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_code_is_good_once_and_for_ten_minutes() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        assert_eq!(token(&folder, "", "a"), None, "nothing is open");
        let code = open(&folder).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(code.show().len(), 22, "128 bits");
        assert_eq!(token(&folder, "wrong", "laptop"), None);
        assert_eq!(token(&folder, code.show(), "no name"), None);
        assert!(token(&folder, code.show(), "laptop").is_some(), "a bad name does not use it up");
        assert_eq!(token(&folder, code.show(), "again"), None);

        let (first, second) = (open(&folder).unwrap(), open(&folder).unwrap());
        assert_eq!(token(&folder, first.show(), "x"), None, "only the newest");
        for until in [now() - 1, now() + 2 * VALID] {
            let stale = Open { sha256: encode(&sha256(second.show().as_bytes())), until };
            folder.write(FILE, &serde_json::to_vec(&stale).unwrap()).unwrap();
            assert_eq!(token(&folder, second.show(), "x"), None, "{until}");
        }
        let last = open(&folder).unwrap();
        close(&folder).unwrap();
        assert_eq!(token(&folder, last.show(), "x"), None);
    }
}
