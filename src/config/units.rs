//! Values with a unit or a word among numbers: sizes in bytes, and how many layers go to accelerators.

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A number of bytes, written as a whole number or as `20GiB`, `512 MiB`, `1.5 GB`.
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
    ("KB", 1_000),
    ("B", 1),
];

impl FromStr for ByteSize {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.trim();
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(end).ok_or(())?;
        let unit = unit.trim();
        let one = match UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) {
            Some((_, one)) => *one,
            None if unit.is_empty() => 1,
            None => return Err(()),
        };
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(one).map(Self).ok_or(());
        }
        let bytes = number.parse::<f64>().map_err(|_| ())? * one as f64;
        if bytes.is_finite() && (0.0..9e18).contains(&bytes) { Ok(Self(bytes as u64)) } else { Err(()) }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, one): &&(&str, u64)| self.0 >= *one && self.0.is_multiple_of(*one);
        match UNITS.iter().take(4).find(whole) {
            Some((unit, one)) => write!(f, "{}{unit}", self.0 / one),
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
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = ByteSize;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size, as \"20GiB\" or a number of bytes")
            }
            fn visit_i64<E: Error>(self, v: i64) -> Result<ByteSize, E> {
                u64::try_from(v).map(ByteSize).map_err(|_| E::invalid_value(Unexpected::Signed(v), &self))
            }
            fn visit_u64<E: Error>(self, v: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(v))
            }
            fn visit_str<E: Error>(self, v: &str) -> Result<ByteSize, E> {
                v.parse().map_err(|()| E::invalid_value(Unexpected::Str(v), &self))
            }
        }
        deserializer.deserialize_any(Bytes)
    }
}

/// How many of a model's layers go to accelerators: `"auto"`, or a whole number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GpuLayers {
    /// All of them; where they don't fit, as many as do.
    #[default]
    Auto,
    /// This many.
    Count(u32),
}

impl Serialize for GpuLayers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Count(layers) => serializer.serialize_u32(*layers),
        }
    }
}

impl<'de> Deserialize<'de> for GpuLayers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Layers;
        impl Visitor<'_> for Layers {
            type Value = GpuLayers;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"auto\" or a whole number, 0 or more")
            }
            fn visit_i64<E: Error>(self, v: i64) -> Result<GpuLayers, E> {
                let layers = u32::try_from(v).map_err(|_| E::invalid_value(Unexpected::Signed(v), &self))?;
                Ok(GpuLayers::Count(layers))
            }
            fn visit_str<E: Error>(self, v: &str) -> Result<GpuLayers, E> {
                match v {
                    "auto" => Ok(GpuLayers::Auto),
                    _ => Err(E::invalid_value(Unexpected::Str(v), &self)),
                }
            }
        }
        deserializer.deserialize_any(Layers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn sizes_are_read_and_written() {
        let cases = [
            ("20GiB", Some(20 << 30)),
            ("512 mib", Some(512 << 20)),
            ("1.5 GB", Some(1_500_000_000)),
            ("0", Some(0)),
            (" 7 B ", Some(7)),
            ("1.5KiB", Some(1536)),
            ("", None),
            ("GiB", None),
            ("-1", None),
            ("1 apple", None),
            ("1.2.3", None),
            ("99999999999999999999", None),
            ("99999999TiB", None),
            ("1é", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse::<ByteSize>().ok(), bytes.map(ByteSize), "{text}");
        }
        for (bytes, text) in [(20 << 30, "20GiB"), (1536, "1536"), (3 << 10, "3KiB"), (0, "0")] {
            assert_eq!(ByteSize(bytes).to_string(), text);
            assert_eq!(text.parse(), Ok(ByteSize(bytes)));
        }
    }
}
