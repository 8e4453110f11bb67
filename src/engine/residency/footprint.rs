//! What a model takes on each device, for one context or as a function of it.

use crate::engine::gguf::ModelInfo;
use crate::engine::memory::{self, Shape};
use serde::{Deserialize, Serialize};

/// The name of main memory among the devices.
pub const MAIN: &str = "CPU";

/// Bytes of one model on one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The device's name, as `CPU` or `CUDA0`.
    pub device: String,
    /// Bytes of weights. Mapped ones count too: they must be in memory to run at speed.
    pub weights: u64,
    /// Bytes of the KV cache and of recurrent state.
    pub kv: u64,
    /// Bytes of scratch and output buffers.
    pub compute: u64,
}

impl Share {
    /// All of it, in bytes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.kv).saturating_add(self.compute)
    }
}

/// Bytes of one model on every device it uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    /// One per device, in the order they were met.
    pub shares: Vec<Share>,
}

impl Footprint {
    /// Everything in main memory.
    #[must_use]
    pub fn main(need: memory::Need) -> Self {
        let memory::Need { weights, kv, compute } = need;
        Self { shares: vec![Share { device: MAIN.to_owned(), weights, kv, compute }] }
    }

    /// The share of a device, made when there is none.
    pub fn on_mut(&mut self, device: &str) -> &mut Share {
        let at = self.shares.iter().position(|s| s.device == device).unwrap_or_else(|| {
            self.shares.push(Share { device: device.to_owned(), ..Share::default() });
            self.shares.len() - 1
        });
        &mut self.shares[at]
    }

    /// Adds what another one takes.
    pub fn add(&mut self, other: &Self) {
        for share in &other.shares {
            let mine = self.on_mut(&share.device);
            mine.weights = mine.weights.saturating_add(share.weights);
            mine.kv = mine.kv.saturating_add(share.kv);
            mine.compute = mine.compute.saturating_add(share.compute);
        }
    }

    /// Bytes on a device.
    #[must_use]
    pub fn on(&self, device: &str) -> u64 {
        self.shares.iter().find(|s| s.device == device).map_or(0, Share::total)
    }

    /// Weights, cache and scratch over all devices.
    #[must_use]
    pub fn totals(&self) -> memory::Need {
        let sum =
            |part: fn(&Share) -> u64| self.shares.iter().fold(0_u64, |sum, s| sum.saturating_add(part(s)));
        memory::Need { weights: sum(|s| s.weights), kv: sum(|s| s.kv), compute: sum(|s| s.compute) }
    }

    /// The footprint at `context` on the straight line through this one at `small` and `other` at `large`:
    /// both the cache and the scratch buffers grow evenly with the context.
    #[must_use]
    fn between(&self, small: u32, other: &Self, large: u32, context: u32) -> Self {
        let line = |low: u64, high: u64| {
            let span = f64::from(large.saturating_sub(small).max(1));
            let t = (f64::from(context) - f64::from(small)) / span;
            // Rounded up: an estimate that is a little too high does no harm.
            (low as f64 + (high as f64 - low as f64) * t).max(0.0).ceil() as u64
        };
        let mut out = Self::default();
        for share in &other.shares {
            let low = self.shares.iter().find(|s| s.device == share.device).cloned().unwrap_or_default();
            out.shares.push(Share {
                device: share.device.clone(),
                weights: share.weights,
                kv: line(low.kv, share.kv),
                compute: line(low.compute, share.compute),
            });
        }
        out
    }
}

/// Two measurements of one model, with the context asked for and with a small one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// The context asked for, in tokens.
    pub context: u32,
    /// With that.
    pub footprint: Footprint,
    /// A smaller context, in tokens.
    pub small_context: u32,
    /// With that.
    pub small: Footprint,
}

/// What is known of a model's need.
#[derive(Clone, Debug)]
pub enum Estimate<'a> {
    /// A dry run.
    Measured(&'a Measured),
    /// The formula of [`memory`], everything on one device.
    Formula {
        /// The model.
        info: &'a ModelInfo,
        /// Its slots and batch.
        shape: Shape,
        /// Where it would be.
        device: &'a str,
    },
    /// The same with any context.
    Fixed(Footprint),
    /// Several that are loaded together.
    Together(Vec<Part<'a>>),
}

/// One of several that are loaded together.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    /// What is known of it.
    pub estimate: Estimate<'a>,
    /// It has no more context than this, in tokens, whatever the others have.
    pub most_context: u32,
}

impl Estimate<'_> {
    /// What the model takes with this context, in tokens.
    #[must_use]
    pub fn at(&self, context: u32) -> Footprint {
        match self {
            Self::Measured(m) if m.context == context => m.footprint.clone(),
            Self::Measured(m) => m.small.between(m.small_context, &m.footprint, m.context, context),
            Self::Formula { info, shape, device } => {
                let mut footprint = Footprint::main(memory::need(info, Shape { context, ..*shape }));
                for share in &mut footprint.shares {
                    (*device).clone_into(&mut share.device);
                }
                footprint
            }
            Self::Fixed(footprint) => footprint.clone(),
            Self::Together(parts) => {
                let mut all = Footprint::default();
                for part in parts {
                    all.add(&part.estimate.at(context.min(part.most_context)));
                }
                all
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    fn share(device: &str, weights: u64, kv: u64, compute: u64) -> Share {
        Share { device: device.to_owned(), weights, kv, compute }
    }

    #[test]
    fn between_two_measurements_lies_a_line() {
        let measured = Measured {
            context: 8192,
            footprint: Footprint {
                shares: vec![share("CPU", 100, 8192, 500), share("CUDA0", 900, 16_384, 0)],
            },
            small_context: 1024,
            small: Footprint { shares: vec![share("CPU", 100, 1024, 500), share("CUDA0", 900, 2048, 0)] },
        };
        let estimate = Estimate::Measured(&measured);
        assert_eq!(estimate.at(8192), measured.footprint);
        assert_eq!(estimate.at(1024), measured.small);
        let middle = estimate.at(4096);
        assert_eq!(middle.shares, [share("CPU", 100, 4096, 500), share("CUDA0", 900, 8192, 0)]);
        assert_eq!(middle.totals(), memory::Need { weights: 1000, kv: 12_288, compute: 500 });
        assert_eq!((middle.on("CUDA0"), middle.on("CUDA7")), (9092, 0));
        // Below the smaller one as well, and never below nothing.
        assert_eq!(estimate.at(0).on("CPU"), 600);
    }

    #[test]
    fn what_is_loaded_together_adds_up() {
        let one = |device: &str, context: u32| Measured {
            context,
            footprint: Footprint { shares: vec![share(device, 100, u64::from(context), 5)] },
            small_context: 256,
            small: Footprint { shares: vec![share(device, 100, 256, 5)] },
        };
        let (large, small) = (one("CUDA0", 8192), one("CPU", 1024));
        let part = |measured, most_context| Part { estimate: Estimate::Measured(measured), most_context };
        let fixed = Footprint { shares: vec![share("CPU", 1, 0, 2)] };
        let fixed = Part { estimate: Estimate::Fixed(fixed), most_context: u32::MAX };
        let parts = vec![part(&large, u32::MAX), part(&small, 1024), part(&small, 512), fixed];
        let all = Estimate::Together(parts);
        let at = |context| all.at(context).shares;
        assert_eq!(at(8192), [share("CUDA0", 100, 8192, 5), share("CPU", 201, 1024 + 512, 12)]);
        assert_eq!(at(512), [share("CUDA0", 100, 512, 5), share("CPU", 201, 1024, 12)]);
        assert_eq!(Estimate::Together(Vec::new()).at(512), Footprint::default());
    }

    #[test]
    fn one_measurement_is_enough_where_there_is_no_smaller_context() {
        let one = Footprint { shares: vec![share("CPU", 10, 256, 1)] };
        let measured =
            Measured { context: 256, footprint: one.clone(), small_context: 256, small: one.clone() };
        assert_eq!(Estimate::Measured(&measured).at(512), one);
    }

    #[test]
    fn the_formula_is_for_one_device() {
        let info = ModelInfo { tensor_bytes: 1000, vocabulary: 10, ..ModelInfo::default() };
        let shape = Shape { context: 512, slots: 1, batch: 8 };
        let at = Estimate::Formula { info: &info, shape, device: "CUDA0" }.at(1024);
        assert_eq!((at.on("CPU"), at.totals()), (0, memory::need(&info, Shape { context: 1024, ..shape })));
    }
}
