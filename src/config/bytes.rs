//! A number of bytes as people write it: `512MiB`, `4GB`, `1048576`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes. In the file a string with a unit (`KiB`, `MiB`, `GiB`, `TiB`, `kB`, `MB`, `GB`, `TB`), or a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// Reads `1.5GiB` and the like; case and spaces don't matter.
    ///
    /// # Errors
    /// One line that says what is possible.
    pub fn parse(text: &str) -> Result<Self, String> {
        let trimmed = text.trim();
        let wrong = || format!("`{trimmed}` is no number of bytes; write it as `512MiB`, `4GiB` or `0`");
        let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at_checked(digits).ok_or_else(wrong)?;
        let unit = unit.trim();
        let factor =
            UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor);
        let factor = if unit.is_empty() { 1 } else { factor.ok_or_else(wrong)? };
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(factor).map(Self).ok_or_else(wrong);
        }
        let value = number.parse::<f64>().map_err(|_| wrong())? * factor as f64;
        if value < u64::MAX as f64 { Ok(Self(value as u64)) } else { Err(wrong()) }
    }
}

impl std::fmt::Display for ByteSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let binary = UNITS.iter().take(4).find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor));
        match binary {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a number of bytes as `512MiB`, `4GiB` or `0`")]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(bytes) => Ok(Self(bytes)),
            Written::Text(text) => Self::parse(&text).map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_it_in_many_ways() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("512MiB", 512 << 20),
            (" 4 gib ", 4 << 30),
            ("1.5KiB", 1536),
            ("2GB", 2_000_000_000),
            ("3 b", 3),
        ] {
            assert_eq!(ByteSize::parse(text), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "many", "-1", "1 lightyear", "99999999999TiB", "1.2.3MiB", "MiB"] {
            assert!(ByteSize::parse(text).unwrap_err().contains("512MiB"), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for bytes in [0, 5, 1 << 10, 3 << 20, (1 << 30) + 1] {
            let size = ByteSize(bytes);
            assert_eq!(ByteSize::parse(&size.to_string()), Ok(size));
        }
        assert_eq!(ByteSize(512 << 20).to_string(), "512MiB");
    }
}
