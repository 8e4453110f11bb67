//! What models may hold on each device: from what the device reports, less a margin that the rest of the
//! machine needs. Never a fraction of what is built in.

use super::footprint::{Footprint, MAIN};
use crate::engine::llama::{Device, Kind};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The part of the main memory that can be had which is left alone, in percent: file pages and other programs
/// need some, and what the system calls available is an estimate.
const MAIN_MARGIN_PERCENT: u64 = 15;

/// What is known of main memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Main {
    /// What can be had now without pushing anything out; none when the system doesn't say.
    pub available: Option<u64>,
    /// What models may take by the configuration; none: by what is available.
    pub limit: Option<u64>,
}

/// What a resident model holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// On each device.
    pub footprint: Footprint,
    /// Bytes of weights that are mapped from the file: the system counts them as available all the same.
    pub mapped: u64,
}

/// A device and what models may hold on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The device.
    pub device: Device,
    /// Bytes models may hold, those that are resident included.
    pub budget: u64,
    /// Bytes left alone.
    pub reserved: u64,
    /// Whether its memory is main memory.
    pub is_main: bool,
}

/// The budgets of all devices of this machine that have memory, main memory first.
#[must_use]
pub fn budgets(devices: &[Device], main: Main, held: &[Held]) -> Vec<Budget> {
    let cpu = devices.iter().find(|d| d.kind == Kind::Cpu);
    let mut out = vec![main_budget(cpu, main, devices, held)];
    for device in devices {
        if !is_card(device) {
            continue;
        }
        let ours = held.iter().fold(0_u64, |sum, h| sum.saturating_add(h.footprint.on(&device.name)));
        let is_unified = is_unified(device);
        let reserved = match () {
            () if is_apple(device) => (2 * GIB).max(device.total / 20),
            () if is_unified => (4 * GIB).max(device.total / 100 * 8),
            () => GIB.max(device.total / 20),
        };
        let budget = if device.total == 0 && device.free == 0 {
            // It doesn't say: the load itself is the test.
            u64::MAX
        } else {
            device.free.saturating_add(ours).min(device.total.max(device.free)).saturating_sub(reserved)
        };
        out.push(Budget { device: device.clone(), budget, reserved, is_main: is_unified });
    }
    out
}

/// Whether it is an accelerator of this machine: what a pool lends is none.
#[must_use]
pub fn is_card(device: &Device) -> bool {
    matches!(device.kind, Kind::Gpu | Kind::Igpu) && !is_pooled(&device.name)
}

/// Whether a device is one of the pool's, by its name: ggml numbers them `RPC0`, `RPC1`…
fn is_pooled(name: &str) -> bool {
    name.strip_prefix("RPC").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn is_apple(device: &Device) -> bool {
    matches!(device.backend.as_str(), "MTL" | "Metal")
}

/// Whether a device computes in main memory.
fn is_unified(device: &Device) -> bool {
    device.kind == Kind::Igpu || is_apple(device)
}

fn main_budget(cpu: Option<&Device>, main: Main, devices: &[Device], held: &[Held]) -> Budget {
    let total = cpu.map_or(0, |d| d.total);
    let (budget, reserved) = match (main.limit, main.available) {
        (Some(limit), _) => (limit, 0),
        (None, Some(available)) => {
            // As if no model were resident, so that the budget does not depend on what is.
            let taken = held.iter().fold(0_u64, |sum, h| {
                sum.saturating_add(on_main(&h.footprint, devices).saturating_sub(h.mapped))
            });
            let all = available.saturating_add(taken);
            let reserved = all / 100 * MAIN_MARGIN_PERCENT;
            (all - reserved, reserved)
        }
        (None, None) if total > 0 => {
            let reserved = (4 * GIB).max(total / 100 * 8).min(total);
            (total - reserved, reserved)
        }
        (None, None) => (u64::MAX, 0),
    };
    let free = main.available.or(cpu.map(|d| d.free)).unwrap_or(0);
    let device = Device {
        name: MAIN.to_owned(),
        kind: Kind::Cpu,
        description: cpu.map_or_else(String::new, |d| d.description.clone()),
        backend: cpu.map_or_else(|| MAIN.to_owned(), |d| d.backend.clone()),
        total: total.max(free),
        free,
    };
    Budget { device, budget, reserved, is_main: true }
}

/// Bytes a model holds in main memory, those on devices without memory of their own included.
fn on_main(footprint: &Footprint, devices: &[Device]) -> u64 {
    let is_elsewhere = |name: &str| {
        devices.iter().any(|d| d.name == name && matches!(d.kind, Kind::Gpu | Kind::Igpu) && !is_unified(d))
    };
    footprint
        .shares
        .iter()
        .filter(|s| !is_elsewhere(&s.device) && !is_pooled(&s.device))
        .fold(0_u64, |sum, s| sum.saturating_add(s.total()))
}

/// A footprint as bytes in the order of the budgets. What lies on a device that shares main memory counts there
/// as well, and so does what lies on a device that is not listed. What a pool holds counts nowhere.
#[must_use]
pub fn in_order(footprint: &Footprint, budgets: &[Budget]) -> Vec<u64> {
    let mut out = vec![0_u64; budgets.len()];
    for share in footprint.shares.iter().filter(|s| !is_pooled(&s.device)) {
        let at = budgets.iter().position(|b| b.device.name == share.device).unwrap_or(0);
        let also_main = at != 0 && budgets.get(at).is_some_and(|b| b.is_main);
        for i in [Some(at), also_main.then_some(0)].into_iter().flatten() {
            if let Some(bytes) = out.get_mut(i) {
                *bytes = bytes.saturating_add(share.total());
            }
        }
    }
    out
}

/// Whether enough of `freed` bytes came back to a device that had `before` free: three quarters. Drivers take
/// a moment, and other programs move the number as well.
#[must_use]
pub fn is_back(before: u64, freed: u64, now: u64) -> bool {
    freed < 64 * MIB || now.saturating_sub(before) >= freed / 4 * 3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::residency::footprint::Share;
    use pretty_assertions::assert_eq;

    fn device(name: &str, kind: Kind, backend: &str, total: u64, free: u64) -> Device {
        Device {
            name: name.to_owned(),
            kind,
            description: String::new(),
            backend: backend.to_owned(),
            total,
            free,
        }
    }

    fn held(shares: &[(&str, u64)], mapped: u64) -> Held {
        let share = |(device, weights): &(&str, u64)| Share {
            device: (*device).to_owned(),
            weights: *weights,
            ..Share::default()
        };
        Held { footprint: Footprint { shares: shares.iter().map(share).collect() }, mapped }
    }

    fn main(available: u64) -> Main {
        Main { available: Some(available), limit: None }
    }

    #[test]
    fn main_memory_is_what_can_be_had_less_a_margin() {
        let devices = [device("CPU", Kind::Cpu, "CPU", 64 * GIB, 64 * GIB)];
        let all = budgets(&devices, main(20 * GIB), &[]);
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].budget, all[0].reserved), (20 * GIB - 20 * GIB / 100 * 15, 20 * GIB / 100 * 15));
        assert_eq!((all[0].device.free, all[0].device.total), (20 * GIB, 64 * GIB));
        // A mapped model leaves what is available as it was, a copied one has been taken from it.
        let mapped = budgets(&devices, main(20 * GIB), &[held(&[("CPU", 4 * GIB)], 4 * GIB)]);
        assert_eq!(mapped[0].budget, all[0].budget);
        let copied = budgets(&devices, main(16 * GIB), &[held(&[("CPU", 4 * GIB)], 0)]);
        assert_eq!(copied[0].budget, all[0].budget);
    }

    #[test]
    fn the_configuration_has_the_last_word() {
        let limited = Main { available: Some(3 * GIB), limit: Some(7 * GIB) };
        let all = budgets(&[], limited, &[held(&[("CPU", GIB)], 0)]);
        assert_eq!((all[0].budget, all[0].reserved), (7 * GIB, 0));
        let cpu = [device("CPU", Kind::Cpu, "CPU", 16 * GIB, 0)];
        assert_eq!(budgets(&cpu, Main::default(), &[])[0].budget, 12 * GIB);
        assert_eq!(budgets(&[], Main::default(), &[])[0].budget, u64::MAX);
    }

    #[test]
    fn every_kind_of_card_has_its_margin() {
        let devices = [
            device("CUDA0", Kind::Gpu, "CUDA", 24 * GIB, 20 * GIB),
            device("CUDA1", Kind::Gpu, "CUDA", 8 * GIB, 8 * GIB),
            device("CUDA2", Kind::Igpu, "CUDA", 128 * GIB, 100 * GIB),
            device("MTL0", Kind::Gpu, "MTL", 48 * GIB, 40 * GIB),
            device("Vulkan0", Kind::Gpu, "Vulkan", 0, 0),
            device("BLAS", Kind::Accel, "BLAS", 0, 0),
            device("RPC0", Kind::Gpu, "RPC", 96 * GIB, 90 * GIB),
        ];
        assert!(is_card(&devices[0]) && !is_card(&devices[5]) && !is_card(&devices[6]));
        let ours = [held(&[("CUDA0", 3 * GIB), ("MTL0", 8 * GIB)], 0)];
        let all = budgets(&devices, main(64 * GIB), &ours);
        let of = |name: &str| all.iter().find(|b| b.device.name == name).map(|b| (b.budget, b.is_main));
        assert_eq!(of("CUDA0"), Some((23 * GIB - 24 * GIB / 20, false)));
        assert_eq!(of("CUDA1"), Some((7 * GIB, false)), "1 GiB is the least that is left");
        assert_eq!(of("CUDA2"), Some((100 * GIB - 128 * GIB / 100 * 8, true)));
        assert_eq!(of("MTL0"), Some((48 * GIB - 48 * GIB / 20, true)));
        assert_eq!(of("Vulkan0"), Some((u64::MAX, false)));
        assert_eq!((of("BLAS"), of("RPC0")), (None, None), "a pool's memory is not this machine's");
        // What lies on a Mac's card is main memory as well; what lies on a card of its own is not.
        let footprint = held(&[("CUDA0", 5), ("MTL0", 7), ("CPU", 1), ("BLAS", 2), ("RPC0", 9)], 0).footprint;
        let bytes = in_order(&footprint, &all);
        assert_eq!(bytes, [10, 5, 0, 0, 7, 0]);
        assert_eq!(on_main(&footprint, &devices), 10);
    }

    #[test]
    fn drivers_take_their_time() {
        assert!(!is_back(GIB, 4 * GIB, 2 * GIB));
        assert!(is_back(GIB, 4 * GIB, 4 * GIB));
        assert!(is_back(GIB, MIB, GIB), "small ones are not waited for");
    }
}
