//! What lets a model see takes memory too: the projector beside it counts from the load on, though it is opened only
//! when the first image comes.

use crate::engine::residency::footprint::{Footprint, MAIN};

/// What is known of a projector's need.
#[derive(Clone, Debug)]
pub(super) struct Projector {
    /// Bytes of its weights.
    pub(super) weights: u64,
    /// All of it, as a dry run says.
    pub(super) measured: Option<Footprint>,
}

impl Projector {
    /// What it takes: at least its weights, which go to the first accelerator.
    pub(super) fn footprint(&self, device: &str) -> Footprint {
        self.measured.clone().unwrap_or_else(|| {
            let mut footprint = Footprint::default();
            footprint.on_mut(device).weights = self.weights;
            footprint
        })
    }
}

/// What a projector takes that may not be there.
pub(super) fn footprint(projector: Option<&Projector>) -> Footprint {
    projector.map(|projector| projector.footprint(MAIN)).unwrap_or_default()
}

#[cfg(feature = "mtmd")]
mod beside {
    use super::super::{Inner, lock};
    use super::Projector;
    use crate::engine::gguf::{self, ModelInfo, ModelKind};
    use crate::engine::{inspect, vision};
    use std::path::Path;

    impl Inner {
        /// The projector that lies beside a model, measured if it was before.
        pub(in super::super) fn projector(&self, model: &Path, info: &ModelInfo) -> Option<Projector> {
            let found = vision::projector(model).filter(|_| info.kind == ModelKind::Chat)?;
            let info = gguf::inspect(&found).ok()?;
            let measured = info.file.and_then(|file| lock(&self.projectors).get(&file).cloned());
            Some(Projector { weights: info.tensor_bytes, measured })
        }

        /// The same, measured in a process of its own where it was not yet.
        pub(in super::super) fn measured_projector(
            &self,
            model: &Path,
            info: &ModelInfo,
        ) -> Option<Projector> {
            let known = self.projector(model, info)?;
            if known.measured.is_some() {
                return Some(known);
            }
            let path = vision::projector(model)?;
            let said = inspect::in_child(&["weigh".as_ref(), path.as_os_str()]);
            let read = said.and_then(|said| serde_json::from_slice(&said).map_err(|e| e.to_string()));
            match read {
                Ok(footprint) => {
                    if let Some(file) = gguf::inspect(&path).ok().and_then(|info| info.file) {
                        lock(&self.projectors).insert(file, footprint);
                    }
                }
                Err(why) => tracing::warn!(projector = %path.display(), %why, "not measured"),
            }
            self.projector(model, info)
        }
    }
}

#[cfg(not(feature = "mtmd"))]
mod beside {
    use super::super::Inner;
    use super::Projector;
    use crate::engine::gguf::ModelInfo;
    use std::path::Path;

    #[expect(clippy::unused_self, reason = "as where images are taken")]
    impl Inner {
        /// None is used: this program takes no images.
        pub(in super::super) fn projector(&self, _: &Path, _: &ModelInfo) -> Option<Projector> {
            None
        }

        /// None either.
        pub(in super::super) fn measured_projector(&self, _: &Path, _: &ModelInfo) -> Option<Projector> {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn a_projector_takes_at_least_its_weights() {
        let mut projector = Projector { weights: 100, measured: None };
        assert_eq!(projector.footprint("CUDA0").on("CUDA0"), 100);
        let mut measured = Footprint::default();
        measured.on_mut("CPU").compute = 7;
        projector.measured = Some(measured.clone());
        assert_eq!(projector.footprint("CUDA0"), measured);
        assert_eq!(footprint(None), Footprint::default());
    }
}
