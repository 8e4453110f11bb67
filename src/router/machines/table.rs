//! The tables of cards, Apple's chips, and processors.
//!
//! Checked: the figure was found again in another place that names the maker's document. Not checked: as remembered
//! from the maker's document, or derived as said.

use super::{GIB, Kind, Machine, Reach};

/// What GeForce cards, NVIDIA's shared chips and processors reach.
const USUAL: Reach = Reach { decode: 0.65, prefill: 0.4 };
/// What cards with HBM reach.
const HBM: Reach = Reach { decode: 0.45, prefill: 0.25 };
/// What Apple's GPUs reach.
const APPLE: Reach = Reach { decode: 0.65, prefill: 0.6 };

/// Main memory of a desktop computer: two channels of DDR5-5600.
const DESKTOP: (u64, f64) = (64 * GIB, 89.6e9);
/// Main memory of a server: eight channels of DDR5-4800.
const SERVER: (u64, f64) = (512 * GIB, 307.2e9);

/// A card.
#[derive(Debug)]
pub(super) struct Card {
    /// Its name, then other ones.
    pub(super) names: &'static [&'static str],
    pub(super) title: &'static str,
    /// What a device's own description says, in lower case.
    pub(super) phrase: &'static str,
    pub(super) gib: u64,
    /// Gigabytes a second.
    bandwidth: f64,
    /// Tera-operations a second with 16-bit numbers, dense.
    tera: f64,
    watts: f64,
    host: (u64, f64),
    reach: Reach,
    /// How many together are listed.
    pub(super) counts: &'static [u32],
    /// Whether its memory is main memory.
    is_shared: bool,
    source: &'static str,
}

impl Card {
    pub(super) fn machine(&self, count: u32) -> Machine {
        let kind = if self.is_shared { Kind::Shared } else { Kind::Cards(count) };
        let count = if self.is_shared { 1 } else { count };
        Machine {
            model: self.names.first().copied().unwrap_or_default(),
            title: self.title,
            kind,
            memory: self.gib * GIB * u64::from(count),
            bandwidth: self.bandwidth * 1e9,
            compute: self.tera * 1e12,
            host_memory: if self.is_shared { 0 } else { self.host.0 },
            host_bandwidth: self.host.1,
            watts: self.watts * f64::from(count),
            reach: self.reach,
            source: self.source,
        }
    }
}

pub(super) const CARDS: [Card; 12] = [
    Card {
        names: &["rtx3090"],
        title: "NVIDIA GeForce RTX 3090",
        phrase: "rtx 3090",
        gib: 24,
        bandwidth: 936.0,
        tera: 142.0,
        watts: 350.0,
        host: DESKTOP,
        reach: USUAL,
        counts: &[1, 2, 4],
        is_shared: false,
        source: "NVIDIA Ampere GA102 whitepaper: 936 GB/s, 142 TFLOPS FP16 tensor, 350 W; checked",
    },
    Card {
        names: &["rtx4090"],
        title: "NVIDIA GeForce RTX 4090",
        phrase: "rtx 4090",
        gib: 24,
        bandwidth: 1008.0,
        tera: 330.3,
        watts: 450.0,
        host: DESKTOP,
        reach: USUAL,
        counts: &[1, 2, 4],
        is_shared: false,
        source: "NVIDIA Ada GPU architecture whitepaper: 1008 GB/s, 330.3 TFLOPS FP16 tensor, 450 W; checked",
    },
    Card {
        names: &["rtx4080"],
        title: "NVIDIA GeForce RTX 4080",
        phrase: "rtx 4080",
        gib: 16,
        bandwidth: 716.8,
        tera: 194.9,
        watts: 320.0,
        host: DESKTOP,
        reach: USUAL,
        counts: &[1],
        is_shared: false,
        source: "NVIDIA Ada GPU architecture whitepaper: 194.9 TFLOPS FP16 tensor, 320 W checked; 716.8 GB/s not checked",
    },
    Card {
        names: &["rtx5080-16", "rtx5080"],
        title: "NVIDIA GeForce RTX 5080",
        phrase: "rtx 5080",
        gib: 16,
        bandwidth: 960.0,
        tera: 225.1,
        watts: 360.0,
        host: DESKTOP,
        reach: USUAL,
        counts: &[1],
        is_shared: false,
        source: "NVIDIA RTX Blackwell GPU architecture whitepaper: 960 GB/s, 225.1 TFLOPS FP16 tensor, 360 W; not checked",
    },
    Card {
        names: &["rtx5090"],
        title: "NVIDIA GeForce RTX 5090",
        phrase: "rtx 5090",
        gib: 32,
        bandwidth: 1792.0,
        tera: 419.0,
        watts: 575.0,
        host: DESKTOP,
        reach: USUAL,
        counts: &[1, 2],
        is_shared: false,
        source: "NVIDIA RTX Blackwell GPU architecture whitepaper: 1792 GB/s, 419 TFLOPS FP16 tensor, 575 W; checked",
    },
    Card {
        names: &["a100-40"],
        title: "NVIDIA A100 40 GB",
        phrase: "a100",
        gib: 40,
        bandwidth: 1555.0,
        tera: 312.0,
        watts: 400.0,
        host: SERVER,
        reach: HBM,
        counts: &[1],
        is_shared: false,
        source: "NVIDIA A100 data sheet: 312 TFLOPS FP16 tensor checked; 1555 GB/s, 400 W not checked",
    },
    Card {
        names: &["a100-80", "a100"],
        title: "NVIDIA A100 80 GB",
        phrase: "a100",
        gib: 80,
        bandwidth: 2039.0,
        tera: 312.0,
        watts: 400.0,
        host: SERVER,
        reach: HBM,
        counts: &[1, 2],
        is_shared: false,
        source: "NVIDIA A100 data sheet (SXM): 2039 GB/s, 312 TFLOPS FP16 tensor checked; 400 W not checked",
    },
    Card {
        names: &["h100", "h100-80"],
        title: "NVIDIA H100 SXM 80 GB",
        phrase: "h100",
        gib: 80,
        bandwidth: 3350.0,
        tera: 989.0,
        watts: 700.0,
        host: SERVER,
        reach: HBM,
        counts: &[1, 2, 4],
        is_shared: false,
        source: "NVIDIA H100 data sheet (SXM): 3.35 TB/s, 989 TFLOPS FP16 tensor checked; 700 W not checked",
    },
    Card {
        names: &["h200"],
        title: "NVIDIA H200 SXM",
        phrase: "h200",
        gib: 141,
        bandwidth: 4800.0,
        tera: 989.0,
        watts: 700.0,
        host: SERVER,
        reach: HBM,
        counts: &[1],
        is_shared: false,
        source: "NVIDIA H200 data sheet: 4.8 TB/s, 989 TFLOPS FP16 tensor checked; 141 GB, 700 W not checked",
    },
    Card {
        names: &["l4"],
        title: "NVIDIA L4",
        phrase: "l4",
        gib: 24,
        bandwidth: 300.0,
        tera: 121.0,
        watts: 72.0,
        host: SERVER,
        reach: USUAL,
        counts: &[1, 2],
        is_shared: false,
        source: "NVIDIA L4 data sheet: 300 GB/s, 121 TFLOPS FP16 tensor checked; 72 W not checked",
    },
    Card {
        names: &["l40s"],
        title: "NVIDIA L40S",
        phrase: "l40s",
        gib: 48,
        bandwidth: 864.0,
        tera: 362.0,
        watts: 350.0,
        host: SERVER,
        reach: USUAL,
        counts: &[1],
        is_shared: false,
        source: "NVIDIA L40S data sheet: 864 GB/s, 362 TFLOPS FP16 tensor checked; 350 W not checked",
    },
    Card {
        names: &["dgx-spark", "gb10"],
        title: "NVIDIA DGX Spark",
        phrase: "gb10",
        gib: 128,
        bandwidth: 273.0,
        tera: 125.0,
        watts: 140.0,
        host: (0, 273e9),
        reach: USUAL,
        counts: &[1],
        is_shared: true,
        source: "NVIDIA DGX Spark user guide: 128 GB, 273 GB/s checked; 140 W of the chip checked; FP16 an eighth of the \
                 1000 TOPS with sparse FP4, derived",
    },
];

/// A chip of Apple's.
#[derive(Debug)]
pub(super) struct Chip {
    pub(super) model: &'static str,
    pub(super) title: &'static str,
    /// What Metal calls it, in lower case.
    pub(super) phrase: &'static str,
    /// Memory it was sold with, in GB.
    pub(super) sizes: &'static [u64],
    bandwidth: f64,
    tera: f64,
    /// Another bandwidth and compute of those with fewer GPU cores, and the memory sizes these have.
    smaller: Option<(f64, f64, &'static [u64])>,
    watts: f64,
    source: &'static str,
}

impl Chip {
    pub(super) fn machine(&self, size: u64) -> Option<Machine> {
        if !self.sizes.contains(&size) {
            return None;
        }
        let (bandwidth, tera) = match self.smaller {
            Some((bandwidth, tera, sizes)) if sizes.contains(&size) => (bandwidth, tera),
            _ => (self.bandwidth, self.tera),
        };
        Some(Machine {
            model: self.model,
            title: self.title,
            kind: Kind::Mac,
            memory: size * GIB,
            bandwidth: bandwidth * 1e9,
            compute: tera * 1e12,
            host_memory: 0,
            host_bandwidth: bandwidth * 1e9,
            watts: self.watts,
            reach: APPLE,
            source: self.source,
        })
    }
}

const fn chip(
    [model, title, phrase]: [&'static str; 3],
    sizes: &'static [u64],
    [bandwidth, tera, watts]: [f64; 3],
    smaller: Option<(f64, f64, &'static [u64])>,
    source: &'static str,
) -> Chip {
    Chip { model, title, phrase, sizes, bandwidth, tera, smaller, watts, source }
}

/// With as many GPU cores as there are. There is no M4 Ultra.
pub(super) const CHIPS: [Chip; 15] = [
    chip(
        ["m1", "Apple M1", "m1"],
        &[8, 16],
        [68.2, 2.6, 39.0],
        None,
        "Apple newsroom 2020: 2.6 TFLOPS; 68.2 GB/s checked; 39 W, the most of a Mac mini, not checked",
    ),
    chip(
        ["m1-pro", "Apple M1 Pro", "m1 pro"],
        &[16, 32],
        [200.0, 5.2, 60.0],
        None,
        "Apple newsroom 2021: 200 GB/s, 5.2 TFLOPS checked; 60 W assumed",
    ),
    chip(
        ["m1-max", "Apple M1 Max", "m1 max"],
        &[32, 64],
        [400.0, 10.4, 115.0],
        None,
        "Apple newsroom 2021: 400 GB/s, 10.4 TFLOPS checked; 115 W, the most of a Mac Studio, not checked",
    ),
    chip(
        ["m1-ultra", "Apple M1 Ultra", "m1 ultra"],
        &[64, 128],
        [800.0, 21.0, 215.0],
        None,
        "Apple newsroom 2022: 800 GB/s not checked, 21 TFLOPS checked; 215 W, the most of a Mac Studio, not checked",
    ),
    chip(
        ["m2", "Apple M2", "m2"],
        &[8, 16, 24],
        [102.4, 3.6, 50.0],
        None,
        "Apple newsroom 2022: 100 GB/s, 3.6 TFLOPS checked; 50 W, the most of a Mac mini, not checked",
    ),
    chip(
        ["m2-pro", "Apple M2 Pro", "m2 pro"],
        &[16, 32],
        [200.0, 6.8, 100.0],
        None,
        "Apple newsroom 2023: 200 GB/s not checked; 6.8 TFLOPS by cores, checked; 100 W, the most of a Mac mini, not checked",
    ),
    chip(
        ["m2-max", "Apple M2 Max", "m2 max"],
        &[32, 64, 96],
        [400.0, 13.6, 145.0],
        None,
        "Apple newsroom 2023: 400 GB/s not checked; 13.6 TFLOPS by cores, checked; 145 W, the most of a Mac Studio, not checked",
    ),
    chip(
        ["m2-ultra", "Apple M2 Ultra", "m2 ultra"],
        &[64, 128, 192],
        [800.0, 27.2, 295.0],
        None,
        "Apple newsroom 2023: 800 GB/s checked; 27.2 TFLOPS by cores, checked; 295 W, the most of a Mac Studio, not checked",
    ),
    chip(
        ["m3", "Apple M3", "m3"],
        &[8, 16, 24],
        [102.4, 3.5, 50.0],
        None,
        "Apple specifications: 100 GB/s not checked; 3.5 TFLOPS by cores and clock, not checked; 50 W assumed",
    ),
    chip(
        ["m3-pro", "Apple M3 Pro", "m3 pro"],
        &[18, 36],
        [150.0, 6.4, 70.0],
        None,
        "Apple specifications: 150 GB/s not checked; 6.4 TFLOPS by cores, checked; 70 W assumed",
    ),
    chip(
        ["m3-max", "Apple M3 Max", "m3 max"],
        &[36, 48, 64, 96, 128],
        [400.0, 14.2, 100.0],
        Some((300.0, 10.6, &[36, 96])),
        "Apple specifications: 400 GB/s (40 cores) checked, 300 GB/s (30 cores) not checked; 14.2 TFLOPS by cores, checked; \
         100 W assumed",
    ),
    chip(
        ["m3-ultra", "Apple M3 Ultra", "m3 ultra"],
        &[96, 256, 512],
        [819.0, 28.4, 270.0],
        None,
        "Apple Mac Studio specifications: 819 GB/s checked; 28.4 TFLOPS, twice the M3 Max; 270 W, the most of a Mac Studio, \
         not checked",
    ),
    chip(
        ["m4", "Apple M4", "m4"],
        &[16, 24, 32],
        [120.0, 4.6, 65.0],
        None,
        "Apple specifications: 120 GB/s, 4.6 TFLOPS by cores, checked; 65 W, the most of a Mac mini, not checked",
    ),
    chip(
        ["m4-pro", "Apple M4 Pro", "m4 pro"],
        &[24, 48, 64],
        [273.0, 9.2, 140.0],
        None,
        "Apple newsroom 2024: 273 GB/s checked; 9.2 TFLOPS by cores, checked; 140 W, the most of a Mac mini, not checked",
    ),
    chip(
        ["m4-max", "Apple M4 Max", "m4 max"],
        &[36, 48, 64, 128],
        [546.0, 18.4, 145.0],
        Some((410.0, 14.7, &[36])),
        "Apple newsroom 2024: 546 GB/s (40 cores), 410 GB/s (32 cores) checked; 18.4 TFLOPS by cores, checked; 145 W, the most \
         of a Mac Studio, not checked",
    ),
];

/// Computers without an accelerator. Any memory size may be added to the name: `cpu-ddr5-64`.
pub(super) const CPUS: [Machine; 4] = [
    cpu("cpu-ddr4", "eight cores, two channels of DDR4-3200", 32, 51.2, 0.8, 90.0),
    cpu("cpu-ddr5", "eight cores, two channels of DDR5-5600", 64, 89.6, 1.2, 120.0),
    cpu("cpu", "eight cores, two channels of DDR5-5600", 32, 89.6, 1.2, 120.0),
    cpu("cpu-server", "32 cores, eight channels of DDR5-4800", 256, 307.2, 4.0, 300.0),
];

const fn cpu(
    model: &'static str,
    title: &'static str,
    gib: u64,
    bandwidth: f64,
    tera: f64,
    watts: f64,
) -> Machine {
    Machine {
        model,
        title,
        kind: Kind::Cpu,
        memory: gib * GIB,
        bandwidth: bandwidth * 1e9,
        compute: tera * 1e12,
        host_memory: 0,
        host_bandwidth: bandwidth * 1e9,
        watts,
        reach: USUAL,
        source: "a typical one: bandwidth by JEDEC's rates, compute by cores, AVX2 and a usual clock; power assumed",
    }
}
