//! Reading little-endian numbers and strings from a file of known size, never past its end and never
//! more than the caller allows. Knows nothing of what the values mean.

use super::error::{GgufError, GgufErrorKind};
use std::io::{BufReader, Read, Seek, SeekFrom};

/// The longest string a file may hold, in bytes.
const MAX_STRING: u64 = 16 << 20;
/// The most bytes keys and values may take together.
const MAX_METADATA: u64 = 256 << 20;

/// A bounded reader.
pub(super) struct Reader<R> {
    inner: BufReader<R>,
    at: u64,
    len: u64,
}

impl<R: Read + Seek> Reader<R> {
    pub(super) fn new(source: R, len: u64) -> Self {
        Self { inner: BufReader::with_capacity(64 * 1024, source), at: 0, len }
    }

    pub(super) fn at(&self) -> u64 {
        self.at
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    fn cut_off(&self, wanted: u64) -> GgufError {
        let needed = self.at.saturating_add(wanted);
        GgufError::new(
            GgufErrorKind::Incomplete,
            format!(
                "cut off inside its header: it has {} bytes and the header goes to byte {needed} at least",
                self.len
            ),
        )
    }

    /// Makes sure that `bytes` more are there.
    pub(super) fn need(&self, bytes: u64) -> Result<(), GgufError> {
        if bytes > self.len.saturating_sub(self.at) { Err(self.cut_off(bytes)) } else { Ok(()) }
    }

    fn advance(&mut self, bytes: u64) -> Result<(), GgufError> {
        self.at += bytes;
        if self.at > MAX_METADATA {
            return Err(GgufError::new(GgufErrorKind::Limit, "more than 256 MiB of metadata"));
        }
        Ok(())
    }

    fn io(&self, error: &std::io::Error) -> GgufError {
        if error.kind() == std::io::ErrorKind::UnexpectedEof {
            return GgufError::new(GgufErrorKind::Incomplete, "the file became shorter while it was read");
        }
        GgufError::new(GgufErrorKind::Io, format!("can't be read at byte {}: {error}", self.at))
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let mut out = [0; N];
        self.need(N as u64)?;
        self.inner.read_exact(&mut out).map_err(|e| self.io(&e))?;
        self.advance(N as u64)?;
        Ok(out)
    }

    pub(super) fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    /// The length of the string that follows, checked against the caps and the file.
    pub(super) fn string_len(&mut self) -> Result<u64, GgufError> {
        let len = self.u64()?;
        if len > MAX_STRING {
            return Err(GgufError::new(
                GgufErrorKind::Limit,
                format!("a string of {len} bytes; at most {MAX_STRING} are read"),
            ));
        }
        self.need(len)?;
        Ok(len)
    }

    /// Fills `out` with the next `len` bytes; the caller has checked `len`.
    pub(super) fn fill(&mut self, out: &mut Vec<u8>, len: u64) -> Result<(), GgufError> {
        self.need(len)?;
        out.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
        self.inner.read_exact(out).map_err(|e| self.io(&e))?;
        self.advance(len)
    }

    /// Passes over `len` bytes without reading them.
    pub(super) fn skip(&mut self, len: u64) -> Result<(), GgufError> {
        self.need(len)?;
        let step = i64::try_from(len)
            .map_err(|_| GgufError::new(GgufErrorKind::Limit, "a value too large to pass over"))?;
        self.inner.seek_relative(step).map_err(|e| self.io(&e))?;
        self.advance(len)
    }

    /// Goes back to a place that was read before.
    pub(super) fn rewind(&mut self, at: u64) -> Result<(), GgufError> {
        self.inner.seek(SeekFrom::Start(at)).map_err(|e| self.io(&e))?;
        self.at = at;
        Ok(())
    }
}
