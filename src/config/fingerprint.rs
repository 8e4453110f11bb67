//! The fingerprint of a server's key: SHA-256 of the public key in its certificate (SubjectPublicKeyInfo).

use super::address::Wrong;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::fmt;
use std::str::FromStr;

/// What a paired server's key must be.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = Wrong;

    /// Reads `sha256:` and base64, in either alphabet and with or without padding, or 64 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, Wrong> {
        let bare = match text.split_at_checked(7) {
            Some((kind, rest)) if kind.eq_ignore_ascii_case("sha256:") => rest,
            _ => text,
        };
        let url_safe = bare.replace('+', "-").replace('/', "_");
        let lenient = GeneralPurpose::new(
            &alphabet::URL_SAFE,
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
        );
        let bytes = hexadecimal(bare).or_else(|| lenient.decode(url_safe).ok());
        match bytes.and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) => Ok(Self(bytes)),
            None => Err(Wrong::new(
                "the fingerprint is none",
                "it is `sha256:` and 43 characters, as `tui serve` prints them",
            )),
        }
    }
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    if digits.len() != 64 {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    digits.chunks_exact(2).map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.last()?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn fingerprints_are_read_as_people_have_them() {
        let fingerprint = Fingerprint(std::array::from_fn(|i| 0xf8 + (i % 8) as u8));
        let text = fingerprint.to_string();
        assert!(text.starts_with("sha256:") && text.len() == 50, "{text}");
        let standard = text.replace('-', "+").replace('_', "/");
        assert_ne!(standard, text, "both alphabets are tried");
        let hex = fingerprint.0.map(|byte| format!("{byte:02x}"));
        for same in [
            text.clone(),
            text.replace("sha256:", "SHA256:"),
            text.replace("sha256:", ""),
            format!("{standard}="),
            hex.concat(),
            hex.join(":").to_uppercase(),
        ] {
            assert_eq!(same.parse(), Ok(fingerprint), "{same}");
        }
        for bad in ["", "sha256:", "sha256:abc", "md5:00", text.split_at(49).0, &format!("{text}A"), "é"] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }
}
