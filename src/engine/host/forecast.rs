//! What would become of a load: budgets and holders at one moment, and the verdict on a model.

use super::companions::Known;
use super::registry::Registry;
use super::{Inner, lock};
use crate::config::{ByteSize, GpuLayers};
use crate::engine::gguf::ModelInfo;
use crate::engine::llama::{Device, LoadOptions};
use crate::engine::memory;
use crate::engine::residency::budget::{Budget, Main, budgets, in_order, is_card};
use crate::engine::residency::footprint::{Footprint, MAIN, Measured};
use crate::engine::residency::offload;
use crate::engine::residency::plan::{Holder, Newcomer, Room, Verdict, decide, room};
use crate::engine::residency::verdict::Case;
use std::time::Instant;

/// The memory and who holds it, at one moment.
#[derive(Debug)]
pub struct Outlook {
    /// What models may hold on each device, main memory first.
    pub budgets: Vec<Budget>,
    holders: Vec<Holder>,
    gpu_layers: GpuLayers,
}

/// What would become of a load.
#[derive(Debug)]
pub struct Forecast {
    /// What the model would take.
    pub footprint: Footprint,
    /// Whether it fits.
    pub verdict: Verdict,
    /// Whether it would fit if nobody else held memory.
    pub fits_alone: bool,
    /// One line for people, with the numbers.
    pub say: String,
    /// Two lines, for when it is refused.
    pub(super) refusal: String,
    /// Bytes to leave free on each accelerator.
    pub(super) margins: Vec<u64>,
}

impl Inner {
    /// The memory and who holds it, now.
    pub(super) fn outlook(&self, registry: &Registry, devices: &[Device]) -> Outlook {
        let limit = self.config.memory.map(|ByteSize(bytes)| bytes);
        let main = Main { available: memory::available(), limit };
        let budgets = budgets(devices, main, &registry.held());
        let holders = registry.holders(&budgets, Instant::now());
        Outlook { budgets, holders, gpu_layers: self.config.gpu_layers }
    }

    /// What was measured of a model that is loaded with these options, if it was.
    pub(super) fn measured(&self, id: &str, options: LoadOptions) -> Option<Measured> {
        let way = self.way(options);
        lock(&self.measured).get(&(id.to_owned(), way)).cloned()
    }
}

impl Outlook {
    /// The same without one of those that hold memory.
    pub(super) fn without(mut self, id: &str) -> Self {
        self.holders.retain(|holder| holder.id != id);
        self
    }

    /// Whether the system does not say what memory there is, so that everything seems to fit.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.budgets.first().is_some_and(|main| main.budget == u64::MAX)
    }

    /// What would become of loading this model now.
    #[must_use]
    pub(super) fn forecast(
        &self,
        id: &str,
        info: &ModelInfo,
        options: LoadOptions,
        known: &Known,
    ) -> Forecast {
        let accelerators = || self.budgets.iter().filter(|b| is_card(&b.device));
        let first = accelerators().next().filter(|_| self.gpu_layers != GpuLayers::Count(0));
        let device = first.map_or(MAIN, |b| b.device.name.as_str());
        let estimate = known.estimate(info, options, device);
        let footprint = estimate.at(options.context);
        // The output counts as a layer.
        let layers = u32::try_from(info.layers.saturating_add(1)).unwrap_or(u32::MAX);
        let need = |context: u32| in_order(&estimate.at(context), &self.budgets);
        let with_layers = |n: u32| in_order(&offload::with_layers(&footprint, layers, n), &self.budgets);
        let may_split = first.is_some() && self.gpu_layers == GpuLayers::Auto;
        let newcomer = Newcomer {
            context: options.context,
            need: &need,
            with_layers: if may_split { Some(&with_layers) } else { None },
            layers,
            slowdown: &|n| offload::slowdown(layers, n),
        };
        let bytes: Vec<u64> = self.budgets.iter().map(|b| b.budget).collect();
        let verdict = decide(&bytes, &self.holders, &newcomer);
        let fits_alone = room(&bytes, &[], &need(options.context)) == Room::Free;
        let case = Case {
            id,
            context: options.context,
            footprint: &footprint,
            budgets: &self.budgets,
            holders: &self.holders,
        };
        let (say, refusal) = (case.say(&verdict), case.refuse(&verdict));
        let margins = accelerators().map(|b| b.reserved).collect();
        Forecast { footprint, verdict, fits_alone, say, refusal, margins }
    }
}
