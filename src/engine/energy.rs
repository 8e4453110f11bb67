//! What an answer costs in energy, where this machine has a meter that counts and can be read without root: NVIDIA's
//! cards (NVML, from Volta on) and the processor's (RAPL, where its files are readable).
//!
//! Meters count for the whole machine. So an answer has a figure only when no other one ran beside it in this engine;
//! otherwise it has none.

use nvml_wrapper::Nvml;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Where Linux shows RAPL's counters.
const POWERCAP: &str = "/sys/class/powercap";

/// This machine's meters.
#[derive(Debug, Default)]
pub struct Meters {
    sources: Vec<Source>,
    /// Answers being measured.
    running: AtomicUsize,
    /// Answers that were ever measured.
    starts: AtomicU64,
}

#[derive(Debug)]
enum Source {
    /// All NVIDIA cards.
    Cards(Box<Nvml>),
    /// One processor package.
    Package(Package),
}

/// A counter of RAPL, in microjoules; it starts again from 0 past `range`.
#[derive(Debug)]
struct Package {
    counter: PathBuf,
    range: Option<u64>,
}

impl Meters {
    /// Finds the meters. Cards count only where the engine computes on one.
    #[must_use]
    pub fn find(has_card: bool) -> Self {
        let mut sources = packages(Path::new(POWERCAP));
        if has_card {
            match Nvml::init() {
                Ok(nvml) => sources.push(Source::Cards(Box::new(nvml))),
                Err(error) => tracing::info!("the card's energy can't be read: {error}"),
            }
        }
        sources.retain(|source| source.read().is_some());
        Self { sources, ..Self::default() }
    }

    /// An answer begins. None on a machine without a meter.
    #[must_use]
    pub fn start(self: &Arc<Self>) -> Option<Span> {
        if self.sources.is_empty() {
            return None;
        }
        let is_alone = self.running.fetch_add(1, Ordering::Relaxed) == 0;
        let start = self.starts.fetch_add(1, Ordering::Relaxed) + 1;
        let before = self.sources.iter().map(Source::read).collect();
        Some(Span { meters: Arc::clone(self), before, is_alone, start })
    }
}

impl Source {
    /// Microjoules so far.
    fn read(&self) -> Option<u64> {
        match self {
            Self::Cards(nvml) => {
                let count = nvml.device_count().ok()?;
                (0..count).try_fold(0_u64, |sum, index| {
                    let millijoules = nvml.device_by_index(index).ok()?.total_energy_consumption().ok()?;
                    Some(sum.saturating_add(millijoules.saturating_mul(1000)))
                })
            }
            Self::Package(package) => number(&package.counter),
        }
    }

    /// Microjoules between two readings.
    fn between(&self, before: u64, after: u64) -> Option<u64> {
        match self {
            _ if after >= before => Some(after - before),
            Self::Cards(_) => None,
            Self::Package(package) => Some(package.range?.checked_sub(before)?.checked_add(after)?),
        }
    }
}

fn number(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Every processor package; what lies inside of one is counted with it.
fn packages(folder: &Path) -> Vec<Source> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let is_package = |zone: &Path| {
        std::fs::read_to_string(zone.join("name")).is_ok_and(|name| name.trim().starts_with("package-"))
    };
    let zones = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|zone| is_package(zone));
    zones
        .map(|zone| {
            let range = number(&zone.join("max_energy_range_uj"));
            Source::Package(Package { counter: zone.join("energy_uj"), range })
        })
        .collect()
}

/// An answer being measured.
#[derive(Debug)]
pub struct Span {
    meters: Arc<Meters>,
    before: Vec<Option<u64>>,
    is_alone: bool,
    start: u64,
}

impl Span {
    /// Joules since it began; none when another answer ran beside it, or a meter failed.
    #[must_use]
    pub fn joules(&self) -> Option<f64> {
        if !self.is_alone || self.meters.starts.load(Ordering::Relaxed) != self.start {
            return None;
        }
        let mut sum = 0;
        for (source, before) in self.meters.sources.iter().zip(&self.before) {
            sum += source.between((*before)?, source.read()?)?;
        }
        Some(sum as f64 / 1e6)
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        self.meters.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;
    use std::fs;

    /// A folder as the kernel shows it: two packages, one with a part of its own, and the whole platform.
    fn machine(first: u64) -> (tempfile::TempDir, Arc<Meters>) {
        let folder = tempfile::tempdir().expect("a folder");
        for (zone, name, counter) in [
            ("intel-rapl:0", "package-0", first),
            ("intel-rapl:0:0", "core", 5),
            ("intel-rapl:1", "package-1", 1_000_000),
            ("intel-rapl:2", "psys", 7),
        ] {
            let at = folder.path().join(zone);
            fs::create_dir(&at).expect("made");
            fs::write(at.join("name"), format!("{name}\n")).expect("written");
            fs::write(at.join("energy_uj"), format!("{counter}\n")).expect("written");
            fs::write(at.join("max_energy_range_uj"), "10000000\n").expect("written");
        }
        let sources = packages(folder.path());
        (folder, Arc::new(Meters { sources, ..Meters::default() }))
    }

    fn count(folder: &tempfile::TempDir, zone: &str, to: u64) {
        fs::write(folder.path().join(zone).join("energy_uj"), to.to_string()).expect("written");
    }

    #[test]
    fn packages_are_added_up_and_counters_start_again() {
        let (folder, meters) = machine(9_000_000);
        assert_eq!(meters.sources.len(), 2);
        let span = meters.start().expect("there are meters");
        assert_eq!(span.joules(), Some(0.0));
        count(&folder, "intel-rapl:1", 3_500_000);
        assert_eq!(span.joules(), Some(2.5));
        count(&folder, "intel-rapl:0", 500_000);
        assert_eq!(span.joules(), Some(4.0), "past its range");
        fs::remove_file(folder.path().join("intel-rapl:0/energy_uj")).expect("removed");
        assert_eq!(span.joules(), None, "half of it is not the sum");
    }

    #[test]
    fn answers_that_overlap_have_no_figure() {
        let (_folder, meters) = machine(0);
        let first = meters.start().expect("there are meters");
        let second = meters.start().expect("there are meters");
        assert_eq!((first.joules(), second.joules()), (None, None));
        drop(second);
        assert_eq!(first.joules(), None, "it was not alone");
        drop(first);
        let third = meters.start().expect("there are meters");
        assert_eq!(third.joules(), Some(0.0));
    }

    #[test]
    fn a_machine_without_meters_gives_none() {
        assert!(packages(Path::new("/nonexistent")).is_empty());
        assert!(Arc::new(Meters::default()).start().is_none());
    }
}
