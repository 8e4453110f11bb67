//! The model an estimate is of: a file, a model of the catalogue, a known shape, or a size.

use super::place::Place;
use crate::backend::Backends;
use crate::chat::{Listing, ModelCard};
use crate::config::Config;
use crate::error::{AppError, Exit};
use crate::paths::{Paths, expand_home};
use crate::router::machines::Load;
use crate::router::shapes::{self, Quant, Shape};
use std::path::Path;
use std::time::Duration;

/// Context an estimate is made for when none is given, at most what the model was trained with.
const USUAL_CONTEXT: u32 = 8192;
/// How long a backend may take to say which models it has.
const ASK_LIMIT: Duration = Duration::from_secs(3);

/// A model, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Subject {
    /// As it was named.
    pub(super) name: String,
    parameters: u64,
    active: u64,
    expert_share: f64,
    weights: u64,
    /// Bytes of KV cache for one token, and whatever does not grow with the context.
    kv_per_token: u64,
    fixed: u64,
    compute: u64,
    /// Tokens it was trained with; 0: not known.
    trained: u32,
    /// The shape its name tells, for what its source leaves out.
    pub(super) shape: Option<Shape>,
    notes: Vec<String>,
    /// What the backends that were asked have, in the order of the places.
    pub(super) listings: Vec<(String, Listing)>,
}

impl Subject {
    pub(super) fn of_shape(name: String, shape: Shape, quant: Quant) -> Self {
        let typical = shape
            .name
            .is_empty()
            .then(|| "a size only: layers and heads are those of usual models".to_owned());
        Self {
            name,
            parameters: shape.parameters,
            active: shape.active,
            expert_share: shape.expert_share(),
            weights: shape.weight_bytes(quant.bits),
            kv_per_token: shape.kv_bytes_per_token(),
            compute: shape.compute_bytes(),
            trained: shape.context,
            shape: Some(shape),
            notes: typical.into_iter().collect(),
            ..Self::default()
        }
    }

    fn of_card(card: &ModelCard) -> Option<Self> {
        let by_size = || shapes::size_in(&card.id).map(|(all, active)| shapes::sized(all, active));
        let shape = shapes::identify(&card.id).or_else(by_size);
        let parameters = card.parameters.or(shape.map(|shape| shape.parameters))?;
        let shape = shape.filter(|shape| shape.parameters.abs_diff(parameters) < parameters / 4);
        let active = card.active_parameters.or(shape.map(|s| s.active)).unwrap_or(parameters).min(parameters);
        let like = shape.unwrap_or_else(|| shapes::sized(parameters, active));
        let quant = card.quantisation.as_deref().and_then(shapes::quant).unwrap_or(shapes::DEFAULT_QUANT);
        let sized = Shape { parameters, active, ..like };
        let guessed = card.kv_bytes_per_token.is_none() && shape.is_none();
        Some(Self {
            weights: card.bytes.unwrap_or_else(|| sized.weight_bytes(quant.bits)),
            kv_per_token: card.kv_bytes_per_token.unwrap_or_else(|| like.kv_bytes_per_token()),
            trained: card.context.unwrap_or(like.context),
            notes: guessed
                .then(|| "layers and heads are not told: those of usual models of its size".to_owned())
                .into_iter()
                .collect(),
            ..Self::of_shape(card.id.clone(), sized, quant)
        })
    }

    /// What is to be put on a machine, with this context or the usual one.
    pub(super) fn load(&self, context: Option<u32>) -> Load {
        let trained = if self.trained > 0 { self.trained } else { USUAL_CONTEXT };
        let context = context.unwrap_or(USUAL_CONTEXT.min(trained));
        let padded = u64::from(context).div_ceil(256) * 256;
        Load {
            weights: self.weights,
            kv: self.kv_per_token.saturating_mul(padded).saturating_add(self.fixed),
            context,
            compute: self.compute,
            parameters: self.parameters,
            active: self.active,
            expert_share: self.expert_share,
        }
    }

    /// What a person should know beside the numbers, one line each.
    pub(super) fn notes(&self, context: u32) -> Vec<String> {
        let mut notes = self.notes.clone();
        if self.trained > 0 && context > self.trained {
            notes.push(format!("it was trained with {} tokens of context", self.trained));
        }
        if let Some(windowed) = self.shape.and_then(|shape| shape.kv_bytes_windowed(context))
            && windowed < self.load(Some(context)).kv
        {
            notes.push(format!(
                "llama-server keeps only the window of some layers, unless --swa-full is given: KV {}",
                super::size(windowed)
            ));
        }
        notes
    }
}

/// Finds the model: a file by its path, one of the backends that are asked about, one of this machine, a known shape, a size.
///
/// # Errors
/// Exit code 2: nobody knows it; 4: the file can't be read or is no model.
pub(super) fn find(
    text: &str,
    places: &[Place],
    config: &Config,
    paths: &Paths,
    config_file: Option<&Path>,
) -> Result<Subject, AppError> {
    let path = expand_home(Path::new(text));
    if path.is_file() {
        return of_file(text, &path);
    }
    if text.ends_with(".gguf") {
        return Err(AppError::new(Exit::Model, format!("{text}: no such file"))
            .hint("`tui models` lists the models of this machine"));
    }
    let asked: Vec<&str> = places.iter().filter(|place| place.is_backend).map(|p| p.name.as_str()).collect();
    let listings = listings(&asked, config, paths, config_file);
    let here = of_catalogue(text, config, paths);
    let card = listings.iter().flat_map(|(_, listing)| &listing.cards).find(|card| card.id == text);
    let subject = match here.or_else(|| card.and_then(Subject::of_card)) {
        Some(subject) => subject,
        None => {
            let (shape, quant) = shapes::read(text).map_err(|why| {
                AppError::new(Exit::Usage, why)
                    .hint("a GGUF file, a model of `tui models`, a known shape or a size will do")
            })?;
            Subject::of_shape(text.to_owned(), shape, quant)
        }
    };
    Ok(Subject { name: text.to_owned(), listings, ..subject })
}

/// What the backends that are estimated on have. One that does not answer has nothing: the estimate is made all the same.
fn listings(
    names: &[&str],
    config: &Config,
    paths: &Paths,
    config_file: Option<&Path>,
) -> Vec<(String, Listing)> {
    if names.is_empty() {
        return Vec::new();
    }
    let Ok(backends) = Backends::new(config, paths, config_file) else { return Vec::new() };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    runtime.block_on(async {
        let mut all = Vec::new();
        for name in names {
            let Some(backend) = backends.get(name) else { continue };
            // This machine's engine is asked when it runs; for an estimate it is not started.
            if backend.is_engine() && !matches!(backend.status().await, Ok(Some(_))) {
                continue;
            }
            match tokio::time::timeout(ASK_LIMIT, backend.listing()).await {
                Ok(Ok(listing)) => all.push(((*name).to_owned(), listing)),
                Ok(Err(error)) => tracing::info!("models of {name}: {error}"),
                Err(_) => tracing::info!("models of {name}: no answer"),
            }
        }
        all
    })
}

#[cfg(feature = "local")]
fn of_catalogue(text: &str, config: &Config, paths: &Paths) -> Option<Subject> {
    use crate::engine::catalogue::{Catalogue, usual};
    let home = crate::paths::home();
    let builtin = crate::engine::builtin::unpack(paths).ok();
    let folders = Catalogue::folders(&config.engine.model_dirs, home.as_deref(), &paths.data);
    let places = usual(home.as_deref(), crate::paths::folder_in);
    let mut catalogue = Catalogue::new(builtin, folders).with_places(places);
    catalogue.scan();
    let entry = catalogue.entries().iter().find(|entry| entry.id.eq_ignore_ascii_case(text))?;
    entry.info.as_ref().ok().map(|info| of_info(&entry.id, info))
}

#[cfg(not(feature = "local"))]
fn of_catalogue(_: &str, _: &Config, _: &Paths) -> Option<Subject> {
    None
}

#[cfg(feature = "local")]
fn of_file(text: &str, path: &Path) -> Result<Subject, AppError> {
    let info = crate::engine::gguf::inspect(path).map_err(|error| {
        let message = error.to_string();
        let (first, hint) = message.split_once('\n').unwrap_or((&message, ""));
        let error = AppError::new(Exit::Model, first);
        if hint.is_empty() { error } else { error.hint(hint) }
    })?;
    Ok(Subject { name: text.to_owned(), ..of_info(text, &info) })
}

#[cfg(not(feature = "local"))]
fn of_file(text: &str, _: &Path) -> Result<Subject, AppError> {
    Err(AppError::new(Exit::Usage, format!("{text}: this build is a client and reads no model files"))
        .hint("name a known shape, as `llama-3.1-8b:q4_k_m`"))
}

/// A file's header tells all but how much of a mixture is active, which its name may.
#[cfg(feature = "local")]
fn of_info(name: &str, info: &crate::engine::gguf::ModelInfo) -> Subject {
    use crate::engine::memory::{Shape as Setup, kv_bytes, need};
    let setup = Setup { context: 256, slots: 1, batch: 512 };
    let is_near = |shape: &Shape| shape.parameters.abs_diff(info.parameters) < info.parameters / 4;
    let shape = shapes::identify(name).or_else(|| shapes::identify(info.name.as_deref()?)).filter(is_near);
    let active = shape.map_or(info.parameters, |shape| shape.active.min(info.parameters));
    let is_mixture = info.architecture.contains("moe");
    let unknown = is_mixture && active == info.parameters;
    let mut notes = Vec::new();
    if unknown {
        notes.push(
            "how much of its experts is active is not known: speeds are those of all of them".to_owned(),
        );
    }
    Subject {
        name: name.to_owned(),
        parameters: info.parameters,
        active,
        expert_share: shape.map_or(0.0, |shape| shape.expert_share()),
        weights: info.tensor_bytes,
        kv_per_token: kv_bytes(info, setup) / 256,
        fixed: info.recurrent_bytes,
        compute: need(info, setup).compute,
        trained: info.context_train,
        shape,
        notes,
        listings: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn what_a_server_tells_counts_for_more_than_the_name() {
        let card = ModelCard {
            id: "Meta-Llama-3.1-8B-Instruct".to_owned(),
            bytes: Some(5_000_000_000),
            kv_bytes_per_token: Some(1000),
            context: Some(4096),
            ..ModelCard::default()
        };
        let load = Subject::of_card(&card).expect("known").load(None);
        assert_eq!((load.weights, load.kv, load.context), (5_000_000_000, 4_096_000, 4096));
        assert_eq!(load.parameters, 8_030_000_000);
        let bare = ModelCard { id: "mystery".to_owned(), ..ModelCard::default() };
        assert_eq!(Subject::of_card(&bare), None);
        let sized = Subject::of_card(&ModelCard { parameters: Some(13_000_000_000), ..bare }).expect("sized");
        assert!(sized.notes(8192)[0].contains("not told"), "{sized:?}");
    }

    #[test]
    fn notes_tell_what_numbers_do_not() {
        let (shape, quant) = shapes::read("gemma-3-27b:q4_k_m").expect("known");
        let gemma = Subject::of_shape("g".to_owned(), shape, quant);
        assert!(gemma.notes(32_768)[0].contains("--swa-full"), "{:?}", gemma.notes(32_768));
        let (shape, quant) = shapes::read("llama-3-8b").expect("known");
        let old = Subject::of_shape("l".to_owned(), shape, quant);
        assert_eq!(old.notes(16_384), ["it was trained with 8192 tokens of context"]);
        assert_eq!(old.load(None).context, 8192);
    }

    /// The engine's formula and the table's agree about the same model.
    #[cfg(feature = "local")]
    #[test]
    fn a_file_and_a_shape_are_counted_alike() {
        let (shape, quant) = shapes::read("llama-3.1-8b:q4_k_m").expect("known");
        let info = crate::engine::gguf::ModelInfo {
            parameters: shape.parameters,
            tensor_bytes: shape.weight_bytes(quant.bits),
            layers: 32,
            heads_kv: vec![8; 32],
            key_length: 128,
            value_length: 128,
            embedding: 4096,
            feed_forward: 14_336,
            vocabulary: 128_256,
            context_train: 131_072,
            ..crate::engine::gguf::ModelInfo::default()
        };
        let file = of_info("/models/llama-3.1-8b-q4_k_m.gguf", &info);
        let known = Subject::of_shape(String::new(), shape, quant);
        assert_eq!(file.load(Some(8192)), known.load(Some(8192)));
    }
}
