//! Images in prompts (feature `mtmd`): llama.cpp's mtmd library and the projector (mmproj) that lies beside a model.
//!
//! In the prompt of a job an image is a run of made-up ids below zero, which come from its bytes: so the cache of an
//! earlier question about the same image is found as for any other prompt. The model's thread evaluates an image whole, when it
//! comes to it; other answers wait meanwhile.

use super::gguf::{self, ModelKind};
use super::inspect;
use super::job::TokenId;
use super::llama::{self, BATCH, Llama, LoadOptions, Purpose, Storage};
use super::prompt;
use super::request::{Image, mark};
use super::residency::dry_run;
use super::residency::offload::Offload;
use super::template::Segment;
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::mtmd::{
    MtmdBitmap, MtmdContext, MtmdContextParams, MtmdInputChunks, MtmdInputText, mtmd_default_marker,
};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The projector of a model: a GGUF file in its folder with `mmproj` in its name and otherwise the model's name without
/// quantisation, or the only one of a folder that holds one model.
#[must_use]
pub fn projector(model: &Path) -> Option<PathBuf> {
    let (mut projectors, mut models) = (Vec::new(), 0);
    for entry in std::fs::read_dir(model.parent()?).ok()?.flatten() {
        let path = entry.path();
        if !path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) {
            continue;
        }
        if name_of(&path).contains("mmproj") {
            projectors.push(path);
        } else if gguf::split_stem(&path).is_none_or(|(_, part, _)| part == 1) {
            models += 1;
        }
    }
    projectors.sort();
    let name = name_of(model);
    // `mmproj-qwen-7b-f16` and `qwen-7b-mmproj-f16` both say `qwen-7b`.
    let base = |path: &Path| {
        let name = name_of(path).replace("mmproj", "-").replace("model", "-");
        let words = name.split(['-', '.', '_']).filter(|word| !word.is_empty() && !is_quantisation(word));
        words.collect::<Vec<_>>().join("-")
    };
    let wanted = name.split(['-', '.', '_']).filter(|word| !word.is_empty() && !is_quantisation(word));
    let wanted = wanted.collect::<Vec<_>>().join("-");
    let found = projectors.iter().find(|path| base(path) == wanted).or_else(|| {
        let only = projectors.first().filter(|_| projectors.len() == 1);
        only.filter(|path| models == 1 || base(path).is_empty())
    });
    let good = |path: &PathBuf| gguf::inspect(path).is_ok_and(|info| info.kind == ModelKind::Projector);
    found.filter(|path| good(path)).cloned()
}

fn name_of(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default()
}

/// `f16`, `q4`, `k`, `m`, `bf16`, `q8`, `0`, …: the words a quantisation's name is made of.
fn is_quantisation(word: &str) -> bool {
    let digits = |rest: &str| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_digit());
    let after = |prefix: &str| word.strip_prefix(prefix).is_some_and(digits);
    matches!(word, "k" | "m" | "s" | "l" | "xl" | "xs" | "xxs" | "0" | "1" | "ud")
        || ["f", "bf", "q", "iq"].iter().any(|p| after(p))
}

/// What lets a resident model see.
pub struct Eyes {
    /// Ends before the model it points to.
    mtmd: Mutex<MtmdContext>,
    model: Arc<LlamaModel>,
}

impl std::fmt::Debug for Eyes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Eyes")
    }
}

impl Eyes {
    /// Loads a projector for a model, after it was tried in a process of its own. Memory is kept for it from the load
    /// of the model on.
    ///
    /// # Errors
    /// Two lines: it does not fit the model, or is damaged.
    pub fn open(
        model: &Arc<LlamaModel>,
        file: &Path,
        projector: &Path,
        threads: u32,
    ) -> Result<Arc<Self>, String> {
        let failed = |why: &dyn std::fmt::Display| {
            format!(
                "the projector {} can't be used: {why}\nit must be the one that was made for this model",
                projector.display()
            )
        };
        inspect::in_child(&["look".as_ref(), file.as_os_str(), projector.as_os_str()])
            .map_err(|why| failed(&why))?;
        let mtmd = context(model, projector, threads).map_err(|why| failed(&why))?;
        Ok(Arc::new(Self { mtmd: Mutex::new(mtmd), model: Arc::clone(model) }))
    }

    fn lock(&self) -> MutexGuard<'_, MtmdContext> {
        self.mtmd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tokens of a rendered chat with its images in their places.
    ///
    /// # Errors
    /// One line with the next step.
    pub fn prompt(
        self: &Arc<Self>,
        segments: &[Segment],
        images: &[Image],
    ) -> Result<(Vec<TokenId>, Vec<Seen>), String> {
        let pieces = prompt::tokenize_around(&self.model, segments, mark());
        if pieces.len() != images.len() + 1 {
            return Err(
                "the model's chat template does not keep images in their places. Choose another model"
                    .to_owned(),
            );
        }
        let (mut ids, mut seen) = (Vec::new(), Vec::with_capacity(images.len()));
        let mut images = images.iter();
        for piece in pieces {
            ids.extend(piece);
            let Some(image) = images.next() else { continue };
            let sight = self.see(image)?;
            let at = ids.len();
            ids.extend(made_up(&image.bytes, sight.total_tokens()));
            seen.push(Seen { eyes: Arc::clone(self), sight, at, len: ids.len() - at });
        }
        if ids.last().is_some_and(|id| *id < 0) {
            return Err("the prompt ends with an image: nothing is asked about it. Add a question".to_owned());
        }
        Ok((ids, seen))
    }

    fn see(&self, image: &Image) -> Result<MtmdInputChunks, String> {
        let mtmd = self.lock();
        let bitmap = MtmdBitmap::from_buffer(&mtmd, &image.bytes, false)
            .ok()
            .filter(|bitmap| !bitmap.is_audio())
            .ok_or("an image is damaged and can't be decoded. Send another")?;
        let text =
            MtmdInputText { text: mtmd_default_marker().to_owned(), add_special: false, parse_special: true };
        let sight = mtmd
            .tokenize(text, &[&bitmap])
            .map_err(|e| format!("an image can't be prepared ({e}). Send another"))?;
        // Where positions and tokens are counted differently, a slot would lose its place.
        if usize::try_from(sight.total_positions()).ok() != Some(sight.total_tokens())
            || mtmd.decode_use_mrope()
        {
            return Err("this model counts the positions of images in a way (M-RoPE) that this engine does not. Choose another".to_owned());
        }
        Ok(sight)
    }
}

/// The settings of every projector, those that are measured included.
fn params(threads: u32) -> MtmdContextParams {
    MtmdContextParams {
        n_threads: i32::try_from(threads.max(1)).unwrap_or(1),
        print_timings: false,
        ..MtmdContextParams::default()
    }
}

fn context(model: &LlamaModel, projector: &Path, threads: u32) -> Result<MtmdContext, String> {
    let path = projector.to_str().ok_or("its path is no text")?;
    let mtmd = MtmdContext::init_from_file(path, model, &params(threads)).map_err(|e| e.to_string())?;
    if mtmd.support_vision() { Ok(mtmd) } else { Err("it has no eyes, only ears".to_owned()) }
}

/// An image in a job's prompt.
pub struct Seen {
    eyes: Arc<Eyes>,
    sight: MtmdInputChunks,
    /// Where it begins in the prompt.
    pub at: usize,
    /// Tokens it takes.
    pub len: usize,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Seen({}..{})", self.at, self.at + self.len)
    }
}

impl Seen {
    /// Evaluates it as the next `len` tokens of a sequence.
    ///
    /// # Errors
    /// One line.
    pub fn evaluate(&self, context: &mut LlamaContext<'_>, sequence: i32) -> Result<(), String> {
        let from = i32::try_from(self.at).map_err(|e| e.to_string())?;
        let batch = i32::try_from(BATCH).unwrap_or(i32::MAX);
        self.sight
            .eval_chunks(&mut self.eyes.lock(), context, from, sequence, batch, false)
            .map(drop)
            .map_err(|e| format!("an image could not be evaluated ({e}). Retry"))
    }
}

/// Ids below zero that stand for an image, the same for the same bytes.
fn made_up(bytes: &[u8], len: usize) -> Vec<TokenId> {
    let image = Sha256::digest(bytes);
    let mut ids = Vec::with_capacity(len + 8);
    for block in 0_u64.. {
        if ids.len() >= len {
            break;
        }
        let hash = Sha256::new().chain_update(image).chain_update(block.to_le_bytes()).finalize();
        ids.extend(hash.chunks_exact(4).map(|four| {
            let number = four.iter().fold(0_u32, |n, byte| n << 8 | u32::from(*byte));
            (number | 0x8000_0000).cast_signed()
        }));
    }
    ids.truncate(len);
    ids
}

/// What the process does that measures a projector: returns what it takes as JSON.
///
/// # Errors
/// What went wrong.
pub fn weigh(projector: &Path) -> Result<String, String> {
    let _ = super::sandbox::enter();
    let info = gguf::inspect(projector).map_err(|e| e.to_string())?;
    let _llama = Llama::start()?;
    let footprint = dry_run::measure_projector(projector, &params(1), info.tensor_bytes)?;
    serde_json::to_string(&footprint).map_err(|e| e.to_string())
}

/// What the process does that tries a projector: loads both and encodes a grey image.
///
/// # Errors
/// What went wrong.
pub fn run(model: &Path, projector: &Path) -> Result<(), String> {
    let _ = super::sandbox::enter();
    let llama = Llama::start()?;
    let options =
        LoadOptions { context: 256, slots: 1, threads: llama::physical_cores(), purpose: Purpose::Text };
    let model = llama.load(model, Storage::Mapped, &Offload::Layers(0), options, |_| true)?;
    let mut mtmd = context(&model, projector, options.threads)?;
    let bitmap = MtmdBitmap::from_image_data(32, 32, &[127; 32 * 32 * 3]).map_err(|e| e.to_string())?;
    let text =
        MtmdInputText { text: mtmd_default_marker().to_owned(), add_special: false, parse_special: true };
    let chunks = mtmd.tokenize(text, &[&bitmap]).map_err(|e| e.to_string())?;
    let images =
        (0..chunks.len()).filter_map(|index| chunks.get(index)).filter(|chunk| chunk.text_tokens().is_none());
    for image in images {
        mtmd.encode_chunk(&image).map_err(|e| e.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::gguf::build::{Gguf, V};
    use pretty_assertions::assert_eq;

    #[test]
    fn an_image_has_ids_of_its_own() {
        let ids = made_up(b"a", 20);
        assert_eq!(ids.len(), 20);
        assert!(ids.iter().all(|id| *id < 0));
        assert_eq!(ids, made_up(b"a", 20));
        assert_ne!(ids, made_up(b"b", 20));
        assert_eq!(made_up(b"a", 0), Vec::<TokenId>::new());
    }

    #[test]
    fn a_projector_lies_beside_its_model() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let eyes = Gguf::small()
            .with("general.architecture", V::text("clip"))
            .with("general.type", V::text("mmproj"));
        let put = |name: &str, file: &Gguf| std::fs::write(at(name), file.bytes()).unwrap();
        put("Tiny-VL-2B-Q4_K_M.gguf", &Gguf::small());
        assert_eq!(projector(&at("Tiny-VL-2B-Q4_K_M.gguf")), None);
        put("mmproj-f16.gguf", &eyes);
        assert_eq!(projector(&at("Tiny-VL-2B-Q4_K_M.gguf")), Some(at("mmproj-f16.gguf")), "the only one");
        put("mmproj-Tiny-VL-2B-f16.gguf", &eyes);
        put("mmproj-Other-7B-f16.gguf", &eyes);
        put("Other-7B-Q8_0.gguf", &Gguf::small());
        put("Third-1B.gguf", &Gguf::small());
        assert_eq!(projector(&at("Tiny-VL-2B-Q4_K_M.gguf")), Some(at("mmproj-Tiny-VL-2B-f16.gguf")));
        assert_eq!(projector(&at("Other-7B-Q8_0.gguf")), Some(at("mmproj-Other-7B-f16.gguf")));
        assert_eq!(projector(&at("Third-1B.gguf")), None, "none says that it belongs to it");
        put("Third-1B-mmproj-bf16.gguf", &Gguf::small());
        assert_eq!(projector(&at("Third-1B.gguf")), None, "only the name says that it is one");
    }
}
