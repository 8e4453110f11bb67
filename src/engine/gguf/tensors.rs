//! The tensor table: shapes, types and places. The data itself is never read.

use super::error::{GgufError, GgufErrorKind, plain_bytes};
use super::reader::Reader;
use std::collections::{BTreeMap, HashSet};
use std::io::{Read, Seek};

/// What the tensor table says as a whole.
#[derive(Debug, Default)]
pub(super) struct Tensors {
    pub(super) count: u64,
    /// Numbers held by all tensors together.
    pub(super) parameters: u64,
    /// Bytes of all tensors, without padding.
    pub(super) bytes: u64,
    /// Bytes by type name.
    pub(super) by_type: BTreeMap<&'static str, u64>,
    /// Where the data must end: bytes from the start of the data part.
    pub(super) end: u64,
    /// Whether there is an output head (or a token embedding, which may serve as one).
    pub(super) has_embedding: bool,
}

/// Name, numbers per block, bytes per block, by ggml's type number.
fn layout(number: u32) -> Option<(&'static str, u64, u64)> {
    Some(match number {
        0 => ("f32", 1, 4),
        1 => ("f16", 1, 2),
        2 => ("q4_0", 32, 18),
        3 => ("q4_1", 32, 20),
        6 => ("q5_0", 32, 22),
        7 => ("q5_1", 32, 24),
        8 => ("q8_0", 32, 34),
        9 => ("q8_1", 32, 36),
        10 => ("q2_k", 256, 84),
        11 => ("q3_k", 256, 110),
        12 => ("q4_k", 256, 144),
        13 => ("q5_k", 256, 176),
        14 => ("q6_k", 256, 210),
        15 => ("q8_k", 256, 292),
        16 => ("iq2_xxs", 256, 66),
        17 => ("iq2_xs", 256, 74),
        18 => ("iq3_xxs", 256, 98),
        19 => ("iq1_s", 256, 50),
        20 => ("iq4_nl", 32, 18),
        21 => ("iq3_s", 256, 110),
        22 => ("iq2_s", 256, 82),
        23 => ("iq4_xs", 256, 136),
        24 => ("i8", 1, 1),
        25 => ("i16", 1, 2),
        26 => ("i32", 1, 4),
        27 => ("i64", 1, 8),
        28 => ("f64", 1, 8),
        29 => ("iq1_m", 256, 56),
        30 => ("bf16", 1, 2),
        34 => ("tq1_0", 256, 54),
        35 => ("tq2_0", 256, 66),
        39 => ("mxfp4", 32, 17),
        40 => ("nvfp4", 64, 36),
        41 => ("q1_0", 128, 18),
        42 => ("q2_0", 64, 18),
        _ => return None,
    })
}

fn wrong(name: &str, what: impl Into<String>) -> GgufError {
    GgufError::new(GgufErrorKind::Tensor, what).field(name)
}

/// Reads `count` entries and checks that the data follows without gap or overlap.
pub(super) fn read<R: Read + Seek>(
    reader: &mut Reader<R>,
    count: u64,
    alignment: u64,
) -> Result<Tensors, GgufError> {
    let mut out = Tensors { count, ..Tensors::default() };
    let mut names: HashSet<Vec<u8>> = HashSet::new();
    let mut buffer = Vec::new();
    let mut next_offset = 0_u64;
    for index in 0..count {
        let len = reader.u64()?;
        if len == 0 || len > 63 {
            return Err(GgufError::new(
                GgufErrorKind::Tensor,
                format!("the name of tensor {index} is {len} bytes long; 1 to 63 are allowed"),
            ));
        }
        reader.fill(&mut buffer, len)?;
        let name = plain_bytes(&buffer, 64);
        if buffer.iter().any(u8::is_ascii_control) {
            return Err(wrong(&name, "a name with control characters"));
        }
        if !names.insert(buffer.clone()) {
            return Err(wrong(&name, "the tensor appears twice"));
        }
        out.has_embedding |= buffer.starts_with(b"token_embd.");
        let elements = read_shape(reader, &name)?;
        let number = reader.u32()?;
        let Some((type_name, block, bytes)) = layout(number) else {
            return Err(wrong(&name, format!("has the unknown type {number}")));
        };
        if elements.row % block != 0 {
            return Err(wrong(
                &name,
                format!("rows of {} numbers do not divide into {type_name} blocks of {block}", elements.row),
            ));
        }
        let size = (elements.all / block)
            .checked_mul(bytes)
            .filter(|size| *size <= i64::MAX as u64)
            .ok_or_else(|| wrong(&name, "is too large to count"))?;
        let offset = reader.u64()?;
        if offset % alignment != 0 {
            return Err(wrong(&name, format!("begins at {offset}, which is not a multiple of {alignment}")));
        }
        if offset < next_offset {
            return Err(wrong(&name, format!("begins at {offset}, inside the tensor before it")));
        }
        if offset > next_offset {
            return Err(wrong(&name, format!("begins at {offset} where {next_offset} was expected")));
        }
        out.end = offset.checked_add(size).ok_or_else(|| wrong(&name, "ends beyond any file"))?;
        next_offset = out
            .end
            .checked_next_multiple_of(alignment)
            .ok_or_else(|| wrong(&name, "ends beyond any file"))?;
        out.parameters = out.parameters.saturating_add(elements.all);
        out.bytes = out.bytes.saturating_add(size);
        *out.by_type.entry(type_name).or_default() += size;
    }
    Ok(out)
}

struct Shape {
    row: u64,
    all: u64,
}

fn read_shape<R: Read + Seek>(reader: &mut Reader<R>, name: &str) -> Result<Shape, GgufError> {
    let dimensions = reader.u32()?;
    if dimensions == 0 || dimensions > 4 {
        return Err(wrong(name, format!("has {dimensions} dimensions; 1 to 4 are allowed")));
    }
    let mut shape = Shape { row: 1, all: 1 };
    for index in 0..dimensions {
        let size = reader.u64()?;
        if size == 0 || size > i64::MAX as u64 {
            return Err(wrong(name, format!("dimension {index} is {}", size.cast_signed())));
        }
        if index == 0 {
            shape.row = size;
        }
        shape.all = shape
            .all
            .checked_mul(size)
            .filter(|n| *n <= i64::MAX as u64)
            .ok_or_else(|| wrong(name, "has more numbers than can be counted"))?;
    }
    Ok(shape)
}
