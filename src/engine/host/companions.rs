//! What is loaded together with a model: the draft model it is configured with, and the projector beside it. All of
//! it counts for the memory it takes, and all of it leaves together.

use super::projector::Projector;
use super::{Host, Inner, lock};
use crate::config::DraftMode;
use crate::engine::draft::model::DraftStart;
use crate::engine::gguf::{self, ModelInfo, ModelKind, Vocabulary, plain};
use crate::engine::llama::{LoadOptions, Purpose, Storage};
use crate::engine::residency::footprint::{Estimate, Measured, Part};
use crate::engine::residency::offload::Offload;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How many tokens two vocabularies may differ in length: some are padded to a round number.
const MOST_PADDING: usize = 128;

/// A draft model, found and not loaded.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) id: String,
    pub(super) path: PathBuf,
    pub(super) info: Arc<ModelInfo>,
    pub(super) options: LoadOptions,
}

impl Draft {
    /// How it is loaded beside a model with this many bytes of weights.
    pub(super) fn start(&self, offload: Offload, bytes: u64) -> DraftStart {
        let all = self.info.tensor_bytes.saturating_add(bytes).max(1);
        DraftStart {
            path: self.path.clone(),
            storage: if self.info.is_remote { Storage::Read } else { Storage::Mapped },
            offload,
            options: self.options,
            window: self.info.sliding_window,
            share: (self.info.tensor_bytes as f64 / all as f64) as f32,
        }
    }
}

/// What is known of what a model takes, alone and with what is loaded beside it.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) own: Option<Measured>,
    pub(super) draft: Option<(Draft, Option<Measured>)>,
    pub(super) projector: Option<Projector>,
}

impl Known {
    /// What all of it takes, on `device` as far as it was not measured.
    pub(super) fn estimate<'a>(
        &'a self,
        info: &'a ModelInfo,
        options: LoadOptions,
        device: &'a str,
    ) -> Estimate<'a> {
        let one = |measured: &'a Option<Measured>, info: &'a ModelInfo, options: LoadOptions| match measured {
            Some(measured) => Estimate::Measured(measured),
            None => super::load::formula(info, options, device),
        };
        let mut parts = vec![Part { estimate: one(&self.own, info, options), most_context: u32::MAX }];
        if let Some((draft, measured)) = &self.draft {
            parts.push(Part {
                estimate: one(measured, &draft.info, draft.options),
                most_context: draft.info.context_train.max(256),
            });
        }
        if let Some(projector) = &self.projector {
            let estimate = Estimate::Fixed(projector.footprint(device));
            parts.push(Part { estimate, most_context: u32::MAX });
        }
        Estimate::Together(parts)
    }
}

impl Inner {
    /// What was measured of a model that is loaded with these options, of its draft model and of its projector.
    pub(super) fn known(
        &self,
        id: &str,
        path: &Path,
        info: &ModelInfo,
        options: LoadOptions,
        draft: Option<&Draft>,
    ) -> Known {
        let draft = draft.map(|draft| {
            let options = self.draft_options(&draft.info, options);
            (Draft { options, ..draft.clone() }, self.measured(&draft.id, options))
        });
        Known { own: self.measured(id, options), draft, projector: self.projector(path, info) }
    }

    /// The draft model that is configured for a model with these options, as far as it is there.
    pub(super) fn draft_listed(&self, id: &str, options: LoadOptions) -> Option<Draft> {
        let name = self.draft_name(id)?;
        let entry = lock(&self.catalogue).find(name).ok()?;
        let info = entry.info.ok()?;
        let options = self.draft_options(&info, options);
        Some(Draft { id: entry.id, path: entry.path, info, options })
    }

    /// The draft model that is configured for a model with these options, once it is clear that it can guess for it.
    ///
    /// # Errors
    /// Two lines: it isn't there or can't guess for this model, and what to do.
    pub(super) fn draft_of(
        &self,
        id: &str,
        path: &Path,
        info: &ModelInfo,
        options: LoadOptions,
    ) -> Result<Option<Draft>, String> {
        let Some(name) = self.draft_name(id) else { return Ok(None) };
        let refused = |why: &str| {
            let shown = plain(name, 160);
            format!(
                "`{shown}` can't be the draft model of `{id}`: {why}\nname another in [[engine.models]], or leave `draft_model` out"
            )
        };
        let found = {
            let mut catalogue = lock(&self.catalogue);
            catalogue.find(name).or_else(|_| {
                catalogue.scan();
                catalogue.find(name)
            })
        };
        let entry = found
            .map_err(|error| refused(error.message.lines().next().unwrap_or("there is no such model")))?;
        let draft = entry.info.map_err(|error| refused(error.lines().next().unwrap_or("it is damaged")))?;
        if draft.kind != ModelKind::Chat {
            return Err(refused(&format!("it is {}", draft.kind.why_not_chat().unwrap_or("no chat model"))));
        }
        if info.kind != ModelKind::Chat {
            return Err(refused("that one does not write text"));
        }
        if self.llama.is_pooled(path) || self.llama.is_pooled(&entry.path) {
            return Err(refused("models that are spread over other machines do without"));
        }
        if info.recurrent_bytes > 0 || draft.recurrent_bytes > 0 {
            let which = if info.recurrent_bytes > 0 { "that one is" } else { "it is" };
            return Err(refused(&format!(
                "{which} recurrent, so that wrong guesses could not be taken back"
            )));
        }
        let read = |path: &Path| gguf::vocabulary(path).map_err(|e| refused(&e.to_string()));
        same_vocabulary(&read(path)?, &read(&entry.path)?).map_err(|why| refused(&why))?;
        let options = self.draft_options(&draft, options);
        Ok(Some(Draft { id: entry.id, path: entry.path, info: draft, options }))
    }

    fn draft_name(&self, id: &str) -> Option<&str> {
        let model = self.config.models.iter().find(|model| model.id == id)?;
        model.draft_model.as_deref().filter(|_| self.config.draft == DraftMode::Auto)
    }

    /// As the other model, but with no more context than it was trained with.
    fn draft_options(&self, info: &ModelInfo, other: LoadOptions) -> LoadOptions {
        LoadOptions {
            context: other.context.min(info.context_train.max(256)),
            slots: other.slots,
            threads: self.threads(info),
            purpose: Purpose::Text,
        }
    }
}

impl Host {
    /// The id of the draft model that a model is configured with, as the configuration names it.
    #[must_use]
    pub fn draft_name(&self, id: &str) -> Option<&str> {
        self.inner.draft_name(id)
    }
}

/// Whether the ids of one model's tokens mean the same to another.
fn same_vocabulary(one: &Vocabulary, other: &Vocabulary) -> Result<(), String> {
    if one.model != other.model {
        return Err(format!(
            "its tokens are of another kind ({} instead of {})",
            plain(&other.model, 20),
            plain(&one.model, 20)
        ));
    }
    let (a, b) = (one.tokens.len(), other.tokens.len());
    if a.abs_diff(b) > MOST_PADDING {
        return Err(format!("its vocabulary has {b} tokens instead of {a}"));
    }
    match one.tokens.iter().zip(&other.tokens).position(|(x, y)| x != y) {
        Some(at) => {
            let text = |all: &Vocabulary| plain(all.tokens.get(at).map_or("", String::as_str), 30);
            Err(format!("its token {at} is \"{}\" instead of \"{}\"", text(other), text(one)))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    fn vocabulary(model: &str, tokens: &[&str]) -> Vocabulary {
        let tokens = tokens.iter().map(|token| (*token).to_owned()).collect();
        Vocabulary { model: model.to_owned(), tokens, ..Vocabulary::default() }
    }

    #[test]
    fn a_vocabulary_may_be_padded_and_not_differ() {
        let one = vocabulary("gpt2", &["a", "b", "c"]);
        let said = |other: &Vocabulary| same_vocabulary(&one, other).unwrap_err();
        assert_eq!(same_vocabulary(&one, &one), Ok(()));
        assert_eq!(same_vocabulary(&one, &vocabulary("gpt2", &["a", "b", "c", "[PAD3]"])), Ok(()));
        assert_eq!(same_vocabulary(&one, &vocabulary("gpt2", &["a", "b"])), Ok(()));
        assert_eq!(
            said(&vocabulary("llama", &["a", "b", "c"])),
            "its tokens are of another kind (llama instead of gpt2)"
        );
        assert_eq!(said(&vocabulary("gpt2", &["a", "x", "c"])), "its token 1 is \"x\" instead of \"b\"");
        let mut long = one.clone();
        long.tokens.resize(3 + MOST_PADDING + 1, "pad".to_owned());
        assert_eq!(said(&long), "its vocabulary has 132 tokens instead of 3");
    }

    #[test]
    fn the_fixture_models_have_one_vocabulary() {
        let read = |name: &str| gguf::vocabulary(&Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
        let (small, large) = (read("models/builtin.gguf"), read("tests/models/fixture-large.gguf"));
        assert_eq!(same_vocabulary(&small, &large), Ok(()));
        assert!(same_vocabulary(&small, &read("tests/models/embed-llama.gguf")).is_err());
    }
}
