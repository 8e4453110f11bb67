//! Images in messages: `image_url` parts with data URLs. Nothing is fetched, and what is no image, or would unpack to
//! too much, is refused here, before a decoder sees it.

use super::fields::{Fields, RequestError, wrong};
use base64::Engine;
use serde_json::Value;

/// Bytes of one image as it is sent.
const MAX_BYTES: usize = 16 << 20;
/// Pixels of one image: a small file may claim any number.
const MAX_PIXELS: u64 = 50_000_000;
/// Images in one request.
pub(super) const MAX_IMAGES: usize = 16;

/// An image of a request, checked but not decoded.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    /// The file.
    pub bytes: Vec<u8>,
    /// Width and height in pixels.
    pub size: (u32, u32),
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({}x{}, {} bytes)", self.size.0, self.size.1, self.bytes.len())
    }
}

/// What stands in a message where an image is. Nobody outside of this process knows it, so no text can fake one.
#[must_use]
pub fn mark() -> &'static str {
    use std::hash::{BuildHasher, Hasher};
    static MARK: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    MARK.get_or_init(|| {
        let random = || std::hash::RandomState::new().build_hasher().finish();
        format!("<__image_{:016x}{:016x}__>", random(), random())
    })
}

/// Reads a part `{"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}}`.
pub(super) fn part(fields: &Fields) -> Result<Image, RequestError> {
    let name = fields.path("image_url");
    let (name, url) = match fields.get("image_url") {
        Some(Value::String(url)) => (name, url.as_str()),
        Some(value @ Value::Object(_)) => {
            let inner = Fields::nested(name, value)?;
            let url = inner.text("url")?.ok_or_else(|| inner.missing("url", "a data URL of an image"))?;
            (inner.path("url"), url)
        }
        Some(other) => return Err(wrong(&name, "an object with `url`", other)),
        None => return Err(fields.missing("image_url", "an object with `url`")),
    };
    let refuse = |what: String| RequestError::new(name.as_str(), what);
    let scheme = url.get(..5).unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("data:") {
        return Err(refuse(
            "must be a data URL (data:image/png;base64,…): this engine fetches nothing from elsewhere"
                .to_owned(),
        ));
    }
    let (_, rest) = url.split_at_checked(5).unwrap_or_default();
    let Some((head, data)) = rest.split_once(',') else {
        return Err(refuse("has no comma before its data".to_owned()));
    };
    if !head.to_ascii_lowercase().ends_with(";base64") {
        return Err(refuse("must be in base64 (data:image/png;base64,…)".to_owned()));
    }
    // Three bytes in four characters.
    if data.len() / 4 * 3 > MAX_BYTES {
        return Err(refuse(format!("is larger than {} MiB. Send a smaller image", MAX_BYTES >> 20)));
    }
    let decode = |engine: &base64::engine::GeneralPurpose| engine.decode(data.trim());
    let bytes = decode(&base64::engine::general_purpose::STANDARD)
        .or_else(|first| decode(&base64::engine::general_purpose::STANDARD_NO_PAD).map_err(|_| first))
        .map_err(|error| refuse(format!("is not good base64: {error}")))?;
    let size = size_of(&bytes).map_err(refuse)?;
    if u64::from(size.0) * u64::from(size.1) > MAX_PIXELS {
        return Err(refuse(format!(
            "has {}x{} pixels; {} million are possible. Send a smaller image",
            size.0,
            size.1,
            MAX_PIXELS / 1_000_000
        )));
    }
    Ok(Image { bytes, size })
}

/// Width and height, as the file's head says.
fn size_of(bytes: &[u8]) -> Result<(u32, u32), String> {
    let at = |from: usize, len: usize| bytes.get(from..from + len);
    let known = if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        ("PNG", at(16, 4).zip(at(20, 4)).map(|(w, h)| (big(w), big(h))))
    } else if bytes.starts_with(b"\xff\xd8\xff") {
        ("JPEG", jpeg(bytes))
    } else if bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a") {
        ("GIF", at(6, 2).zip(at(8, 2)).map(|(w, h)| (little(w), little(h))))
    } else if bytes.starts_with(b"BM") {
        // The height may be negative: then the rows are the other way round.
        let height = at(22, 4).map(|h| little(h).cast_signed().unsigned_abs());
        ("BMP", at(18, 4).map(little).zip(height))
    } else if bytes.starts_with(b"RIFF") && at(8, 4) == Some(b"WEBP") {
        return Err("is a WebP image, which can't be read. Send it as PNG or JPEG".to_owned());
    } else {
        return Err("is no image: PNG, JPEG, GIF and BMP are read".to_owned());
    };
    match known {
        (_, Some((width, height))) if width > 0 && height > 0 => Ok((width, height)),
        (name, _) => Err(format!("is a {name} image that is cut off or damaged")),
    }
}

fn big(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |n, byte| n << 8 | u32::from(*byte))
}

fn little(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |n, byte| n << 8 | u32::from(*byte))
}

/// Finds the frame header among the segments.
fn jpeg(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2;
    loop {
        let marker = *bytes.get(at + 1)?;
        match (*bytes.get(at)?, marker) {
            // Padding between segments.
            (0xff, 0xff) => at += 1,
            (0xff, 0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf) => {
                let (height, width) = bytes.get(at + 5..at + 7).zip(bytes.get(at + 7..at + 9))?;
                return Some((big(width), big(height)));
            }
            // Without a length.
            (0xff, 0x01 | 0xd0..=0xd7) => at += 2,
            // The pixels begin, or the end has come, and no frame header before it.
            (0xff, 0xd9 | 0xda) => return None,
            (0xff, _) => at += 2 + usize::try_from(big(bytes.get(at + 2..at + 4)?).max(2)).ok()?,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;
    use serde_json::json;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x02\0\0\0\x03\x08\x02\0\0\0";

    fn read(bytes: &[u8]) -> Result<Image, String> {
        let data = base64::engine::general_purpose::STANDARD.encode(bytes);
        read_url(&json!({"url": format!("data:image/png;base64,{data}")}))
    }

    fn read_url(url: &Value) -> Result<Image, String> {
        let body = json!({"type": "image_url", "image_url": url});
        part(&Fields::of_body(&body).expect("an object")).map_err(|error| error.message)
    }

    #[test]
    fn the_usual_formats_are_known_by_their_heads() {
        assert_eq!(read(PNG).map(|image| image.size), Ok((2, 3)));
        assert_eq!(read(b"GIF89a\x05\0\x06\0rest").map(|image| image.size), Ok((5, 6)));
        let jpeg = b"\xff\xd8\xff\xe0\0\x04ab\xff\xff\xdb\0\x03x\xff\xc2\0\x0b\x08\0\x07\x01\0\x01";
        assert_eq!(read(jpeg).map(|image| image.size), Ok((256, 7)));
        let mut bmp = b"BM".to_vec();
        bmp.resize(18, 0);
        bmp.extend(9_i32.to_le_bytes());
        bmp.extend((-4_i32).to_le_bytes());
        assert_eq!(read(&bmp).map(|image| image.size), Ok((9, 4)));
        // A string is what some clients send.
        let data = base64::engine::general_purpose::STANDARD_NO_PAD.encode(PNG);
        assert_eq!(
            read_url(&json!(format!("DATA:image/png;charset=x;BASE64,{data}"))).map(|i| i.size),
            Ok((2, 3))
        );
    }

    #[test]
    fn what_is_no_image_is_refused_by_name() {
        for (bytes, words) in [
            (b"<html>".as_slice(), "is no image"),
            (b"", "is no image"),
            (b"RIFF\x04\0\0\0WEBPVP8 ", "WebP"),
            (PNG.get(..20).unwrap_or_default(), "cut off"),
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\0\0\0\0\x03", "damaged"),
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\x01\0\0\0\x01\0\0", "65536x65536 pixels"),
            (b"\xff\xd8\xff\xda\0\x04", "cut off or damaged"),
            (b"\xff\xd8\xff\xe0\0\0", "cut off or damaged"),
            (b"GIF87a\x05", "cut off"),
        ] {
            let message = read(bytes).expect_err(words);
            assert!(message.contains(words), "{message}");
        }
        for (url, words) in [
            (json!({"url": "http://x/y.png"}), "fetches nothing"),
            (json!({"url": "file:///etc/passwd"}), "fetches nothing"),
            (json!({"url": "dätä"}), "fetches nothing"),
            (json!({"url": "data:image/png;base64"}), "no comma"),
            (json!({"url": "data:image/png,abc"}), "must be in base64"),
            (json!({"url": "data:image/png;base64,a*b="}), "not good base64"),
            (json!({}), "image_url.url is missing"),
            (json!(5), "image_url must be an object"),
            (Value::Null, "image_url is missing"),
            (json!(format!("data:image/png;base64,{}", "A".repeat(24 << 20))), "larger than 16 MiB"),
        ] {
            let message = read_url(&url).expect_err(words);
            assert!(message.contains(words), "{message}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), head in 0..5_usize) {
            let heads: [&[u8]; 5] = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM"];
            let mut all = heads[head].to_vec();
            all.extend(bytes);
            let _ = size_of(&all);
        }
    }
}
