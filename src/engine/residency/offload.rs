//! How much of a model goes to the accelerators, and what it costs when not all of it does.

use super::footprint::{Footprint, MAIN};

/// How many times faster an accelerator reads weights than the processor does: 1000 GB/s of a card against
/// 60 GB/s of main memory. A prediction until it is measured.
const BANDWIDTH_RATIO: f64 = 1000.0 / 60.0;

/// Where a model's layers go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Offload {
    /// All of them to the accelerators, where there are any.
    #[default]
    All,
    /// This many to the accelerators.
    Layers(u32),
    /// As many as fit when these bytes are left free on each accelerator, experts last: llama.cpp's own fit.
    Fit(Vec<u64>),
}

/// The footprint with `layers` of `all` layers on the accelerators, from the one with all of them there: weights
/// and cache move evenly, scratch stays.
#[must_use]
pub fn with_layers(full: &Footprint, all: u32, layers: u32) -> Footprint {
    let all = u64::from(all.max(1));
    let stay = u64::from(layers).min(all);
    let mut out = full.clone();
    let mut moved = (0_u64, 0_u64);
    for share in out.shares.iter_mut().filter(|s| s.device != MAIN) {
        let kept = |bytes: u64| {
            u64::try_from(u128::from(bytes) * u128::from(stay) / u128::from(all)).unwrap_or(bytes)
        };
        let (weights, kv) = (kept(share.weights), kept(share.kv));
        moved.0 = moved.0.saturating_add(share.weights - weights);
        moved.1 = moved.1.saturating_add(share.kv - kv);
        (share.weights, share.kv) = (weights, kv);
    }
    let main = out.on_mut(MAIN);
    main.weights = main.weights.saturating_add(moved.0);
    main.kv = main.kv.saturating_add(moved.1);
    out
}

/// How many times slower a token is with `layers` of `all` on the accelerators than with all: every weight is read
/// once per token, from the memory it lies in. For dense models; of a mixture of experts only few are read.
#[must_use]
pub fn slowdown(all: u32, layers: u32) -> f64 {
    let off = f64::from(all.saturating_sub(layers)) / f64::from(all.max(1));
    (1.0 - off) + off * BANDWIDTH_RATIO
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::residency::footprint::Share;
    use pretty_assertions::assert_eq;

    #[test]
    fn layers_move_with_their_cache() {
        let share =
            |device: &str, weights, kv, compute| Share { device: device.to_owned(), weights, kv, compute };
        let full = Footprint { shares: vec![share("CUDA0", 1000, 100, 50), share("CPU", 10, 0, 5)] };
        let half = with_layers(&full, 20, 10);
        assert_eq!(half.shares, [share("CUDA0", 500, 50, 50), share("CPU", 510, 50, 5)]);
        assert_eq!(half.totals(), full.totals());
        assert_eq!(with_layers(&full, 20, 20), full);
        assert_eq!(with_layers(&full, 20, 0).on("CUDA0"), 50);
        assert_eq!(with_layers(&full, 0, 7).totals(), full.totals());
    }

    #[test]
    fn a_fifth_on_the_processor_makes_it_four_times_slower() {
        assert!((slowdown(40, 32) - 4.13).abs() < 0.01, "{}", slowdown(40, 32));
        assert!((slowdown(40, 40) - 1.0).abs() < 1e-9);
        assert!(slowdown(40, 0) > 16.0 && slowdown(0, 0).is_finite());
    }
}
