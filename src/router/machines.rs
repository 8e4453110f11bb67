//! Known machines: memory, bandwidth, compute, usual power, and where each figure is from. Pure tables.
//!
//! A guess made from them is a guess: it stands until the model was measured on the machine.
//!
//! **Speeds** are a roofline. A token reads every active weight once, so decode is a share of the bandwidth over the
//! bytes of active weights; prefill is a share of the compute over two operations per active weight. The shares are
//! 0.65 and 0.4, and others where published figures of llama.cpp say so (`XiongjieDai/GPU-Benchmarks-on-LLM-Inference`, May
//! 2024, Llama 3 8B and 70B in q4_k_m: RTX 4090 131 tok/s and 7139 tok/s, two RTX 3090 17 and 394 with 70B, M2 Ultra 79 and
//! 1024): Apple's GPUs reach 0.6 of their compute, HBM cards at one sequence 0.45 of their bandwidth and 0.25 of
//! their compute.
//!
//! **Memory** models may use is what the device has less a margin: 1 GiB or 5 % of a card, 4 GiB or 8 % of memory
//! shared with an NVIDIA chip, 2 GiB or 5 % of what Metal lets a Mac use; of main memory 85 %. What Metal allows is asked of
//! the system on a real Mac; here it is what llama.cpp printed on Macs of these sizes: two thirds up to 32 GB, three
//! quarters above (newer systems allow more of large memories).

mod table;

use super::shapes::nearest;
use super::words::{float, whole};
use table::{CARDS, CHIPS, CPUS};

const GIB: u64 = 1 << 30;
/// Most cards of one kind that are taken for one machine.
const MAX_CARDS: u32 = 16;

/// What a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Cards with memory of their own in a computer with main memory.
    Cards(u32),
    /// A chip of Apple's whose GPU shares main memory.
    Mac,
    /// A chip of NVIDIA's whose GPU shares main memory.
    Shared,
    /// No accelerator.
    Cpu,
}

/// The parts of bandwidth and compute that are reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reach {
    /// Of the bandwidth, when decoding.
    pub decode: f64,
    /// Of the compute, when prefilling.
    pub prefill: f64,
}

/// A machine, or a computer with several cards of one kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// Its name in the table, without memory and number of cards.
    pub model: &'static str,
    /// What its maker calls it.
    pub title: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Bytes of the accelerator's memory, of all cards; of main memory where that is shared or there is no other.
    pub memory: u64,
    /// Bytes a second from that memory. Layers are computed one after another, so more cards are not faster.
    pub bandwidth: f64,
    /// Operations a second with 16-bit numbers, dense: matrix units of a card, the GPU of a Mac.
    pub compute: f64,
    /// Bytes of main memory beside a card.
    pub host_memory: u64,
    /// Bytes a second from it.
    pub host_bandwidth: f64,
    /// Watts under load.
    pub watts: f64,
    /// What of it is reached.
    pub reach: Reach,
    /// Where the figures are from, and which of them could not be checked.
    pub source: &'static str,
}

impl Machine {
    /// Its name, as `rtx4090`, `2x-rtx3090`, `m4-max-64`.
    #[must_use]
    pub fn name(&self) -> String {
        match self.kind {
            Kind::Cards(1) | Kind::Shared | Kind::Cpu => self.model.to_owned(),
            Kind::Cards(count) => format!("{count}x-{}", self.model),
            Kind::Mac => format!("{}-{}", self.model, self.memory / GIB),
        }
    }

    /// Bytes models may hold on the accelerator, and in main memory beside it. A machine without an accelerator has 0
    /// and what models may hold.
    #[must_use]
    pub fn usable(&self) -> (u64, u64) {
        let share = |bytes: u64, percent: u64| bytes / 100 * percent;
        match self.kind {
            Kind::Cards(count) => {
                let each = self.memory / u64::from(count.max(1));
                let each = each.saturating_sub(GIB.max(share(each, 5)));
                (each * u64::from(count), share(self.host_memory, 85))
            }
            Kind::Mac => {
                let allowed = metal_allows(self.memory);
                (allowed.saturating_sub((2 * GIB).max(share(allowed, 5))), 0)
            }
            Kind::Shared => (self.memory.saturating_sub((4 * GIB).max(share(self.memory, 8))), 0),
            Kind::Cpu => (0, share(self.memory, 85)),
        }
    }

    /// The same machine with another amount of memory, as a person or the machine itself tells it.
    #[must_use]
    pub const fn with_memory(self, memory: u64) -> Self {
        Self { memory, ..self }
    }
}

/// What Metal lets programs use of a Mac's memory.
const fn metal_allows(memory: u64) -> u64 {
    if memory <= 32 * GIB { memory / 3 * 2 } else { memory / 4 * 3 }
}

/// A machine by name: `rtx4090`, `2x-rtx3090`, `m4-max-64`, `dgx-spark`, `cpu-ddr5-64`.
///
/// # Errors
/// One line with the nearest name, or the sizes there are.
pub fn find(name: &str) -> Result<Machine, String> {
    let wanted = tidy(name);
    if let Some(machine) = lookup(&wanted) {
        return Ok(machine);
    }
    // A Mac, or a processor, without its memory or with one it was never sold with.
    let (chip, size) = match wanted.rsplit_once('-') {
        Some((chip, size)) if size.parse::<u64>().is_ok() => (chip, Some(size)),
        _ => (wanted.as_str(), None),
    };
    if let Some(chip) = CHIPS.iter().find(|known| known.model == chip) {
        let sizes: Vec<String> = chip.sizes.iter().map(|gib| format!("`{}-{gib}`", chip.model)).collect();
        let why = match size {
            Some(size) => format!("{} was not sold with {size} GB", chip.title),
            None => format!("say how much memory the {} has", chip.title),
        };
        return Err(format!("no machine `{name}`: {why}; there is {}", sizes.join(", ")));
    }
    let names: Vec<String> = all().map(|machine| machine.name()).collect();
    let near = nearest(&wanted, names.iter().map(String::as_str));
    Err(format!("no machine `{name}` is known; the nearest name is `{near}`"))
}

/// The machine of exactly this name. Cheap: nothing is allocated.
pub(super) fn known(name: &str) -> Option<Machine> {
    let is_tidy = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if is_tidy { lookup(name) } else { lookup(&tidy(name)) }
}

fn tidy(name: &str) -> String {
    let name = name.trim().to_ascii_lowercase();
    name.replace(['_', ' '], "-").trim_start_matches("apple-").trim_start_matches("nvidia-").to_owned()
}

fn lookup(wanted: &str) -> Option<Machine> {
    let (count, single) = match wanted.split_once("x-").map(|(count, single)| (count.parse::<u32>(), single))
    {
        Some((Ok(count), single)) if (1..=MAX_CARDS).contains(&count) => (count, single),
        Some((Ok(_), _)) => return None,
        _ => (1, wanted),
    };
    if let Some(card) = CARDS.iter().find(|card| card.names.contains(&single)) {
        return Some(card.machine(count));
    }
    if count > 1 {
        return None;
    }
    if let Some(cpu) = CPUS.iter().find(|cpu| cpu.model == single) {
        return Some(*cpu);
    }
    let (chip, size) = single.rsplit_once('-')?;
    let size: u64 = size.parse().ok()?;
    if let Some(cpu) = CPUS.iter().find(|cpu| cpu.model == chip) {
        return (1..=4096).contains(&size).then(|| cpu.with_memory(size * GIB));
    }
    CHIPS.iter().find(|known| known.model == chip).and_then(|chip| chip.machine(size))
}

/// Every machine there is a row for, Macs with each memory they were sold with, and two and four cards of the common ones.
pub fn all() -> impl Iterator<Item = Machine> {
    let cards = CARDS.iter().flat_map(|card| card.counts.iter().map(|count| card.machine(*count)));
    let macs = CHIPS.iter().flat_map(|chip| chip.sizes.iter().filter_map(|size| chip.machine(*size)));
    cards.chain(macs).chain(CPUS)
}

/// The machine a device's own description names: `NVIDIA GeForce RTX 4090`, `Apple M4 Max`. `memory` is what the device
/// tells: of a Mac what Metal lets programs use. `count` is how many such devices there are.
#[must_use]
pub fn of_device(description: &str, memory: u64, count: u32) -> Option<Machine> {
    let said = description.to_ascii_lowercase();
    let words: Vec<&str> =
        said.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
    let holds = |phrase: &str| {
        let phrase: Vec<&str> = phrase.split(' ').collect();
        words.windows(phrase.len()).any(|window| window == phrase.as_slice())
    };
    // A laptop's card has the name of another one; an RTX 5090 D, a 4090 Ti or an M4 Max are more than their beginning.
    if words.iter().any(|word| ["laptop", "mobile", "ti", "super", "max-q"].contains(word)) {
        return None;
    }
    let apple = CHIPS.iter().filter(|chip| holds(chip.phrase)).max_by_key(|chip| chip.phrase.len());
    if let Some(chip) = apple {
        let off = |size: &&u64| metal_allows(**size * GIB).abs_diff(memory);
        return chip.machine(*chip.sizes.iter().min_by_key(off)?);
    }
    let near = |card: &&table::Card| card.gib.abs_diff(memory / GIB);
    let card = CARDS.iter().filter(|card| holds(card.phrase)).min_by_key(near)?;
    Some(card.machine(count.clamp(1, MAX_CARDS)))
}

/// What is to be put on a machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Bytes of weights.
    pub weights: u64,
    /// Bytes of KV cache, for this context.
    pub kv: u64,
    /// Tokens of context.
    pub context: u32,
    /// Bytes of scratch memory.
    pub compute: u64,
    /// Weights in number.
    pub parameters: u64,
    /// Weights that take part in one token.
    pub active: u64,
    /// The part of the weights that belongs to experts, from 0 to 1.
    pub expert_share: f64,
}

impl Load {
    /// All bytes.
    #[must_use]
    pub const fn need(&self) -> u64 {
        self.weights.saturating_add(self.kv).saturating_add(self.compute)
    }

    fn kv_for(&self, context: u32) -> u64 {
        whole(float(self.kv) * f64::from(context) / f64::from(self.context.max(1)))
    }
}

/// Whether and how a model goes on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of it where it is fastest.
    Fits,
    /// All of it where it is fastest, with at most this much context.
    SmallerContext(u32),
    /// Layers on both sides.
    Partial,
    /// The part that every token uses on the accelerator, experts in main memory.
    ExpertsOnHost,
    /// Not at all.
    DoesNotFit,
}

impl Verdict {
    /// In one word, for programs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Fits => "fits",
            Self::SmallerContext(_) => "smaller_context",
            Self::Partial => "partial",
            Self::ExpertsOnHost => "experts_on_host",
            Self::DoesNotFit => "does_not_fit",
        }
    }
}

/// How a model lies on a machine, and how fast it would be there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placement {
    /// Whether it fits.
    pub verdict: Verdict,
    /// Bytes on the accelerator.
    pub device: u64,
    /// Bytes in main memory.
    pub host: u64,
    /// Prefill, tokens per second; none: it does not fit.
    pub prefill: Option<f64>,
    /// Decode at the beginning of the context, tokens per second.
    pub decode: Option<f64>,
    /// Decode with the context full.
    pub decode_full: Option<f64>,
    /// Decode if all of it were on the accelerator, where it is not.
    pub decode_whole: Option<f64>,
}

/// The least context a model is put on an accelerator with, rather than on both sides, in tokens.
const LEAST_CONTEXT: u32 = 4096;
/// Bytes a second that reach a card from main memory while it prefills (PCIe 4.0 x16, what is reached of 32 GB/s).
const BUS: f64 = 25e9;
/// Tokens evaluated at once, between which weights in main memory are brought over anew.
const BATCH: f64 = 512.0;

/// Puts a model on a machine.
#[must_use]
pub fn place(load: &Load, machine: &Machine) -> Placement {
    place_within(load, machine, machine.usable())
}

/// Puts a model on a machine of which models may hold this many bytes: on the accelerator, and in main memory.
#[must_use]
pub fn place_within(load: &Load, machine: &Machine, (device, host): (u64, u64)) -> Placement {
    let need = load.need();
    if machine.kind == Kind::Cpu {
        let verdict = if need <= host { Verdict::Fits } else { Verdict::DoesNotFit };
        return placement(load, machine, verdict, 0, if need <= host { need } else { 0 });
    }
    if need <= device {
        return placement(load, machine, Verdict::Fits, need, 0);
    }
    let room = device.saturating_sub(load.weights).saturating_sub(load.compute);
    let per_token = float(load.kv) / f64::from(load.context.max(1));
    let tokens = if per_token > 0.0 { whole(float(room) / per_token) / 256 * 256 } else { 0 };
    let smaller = u32::try_from(tokens).unwrap_or(u32::MAX).min(load.context);
    if smaller >= LEAST_CONTEXT && load.weights.saturating_add(load.compute) < device {
        let bytes = load.weights.saturating_add(load.compute).saturating_add(load.kv_for(smaller));
        return placement(load, machine, Verdict::SmallerContext(smaller), bytes.min(device), 0);
    }
    let rest = need.saturating_sub(device);
    let experts = whole(float(load.weights) * load.expert_share.clamp(0.0, 1.0));
    match rest {
        rest if rest > host => placement(load, machine, Verdict::DoesNotFit, 0, 0),
        rest if rest <= experts => placement(load, machine, Verdict::ExpertsOnHost, device, rest),
        rest => placement(load, machine, Verdict::Partial, device, rest),
    }
}

fn placement(load: &Load, machine: &Machine, verdict: Verdict, device: u64, host: u64) -> Placement {
    let mut placed = Placement {
        verdict,
        device,
        host,
        prefill: None,
        decode: None,
        decode_full: None,
        decode_whole: None,
    };
    if verdict == Verdict::DoesNotFit || load.parameters == 0 {
        return placed;
    }
    let active = load.active.clamp(1, load.parameters);
    let active_share = float(active) / float(load.parameters);
    // The part of what a token reads that lies in main memory.
    let spilled = match verdict {
        Verdict::ExpertsOnHost => {
            let experts = (float(load.weights) * load.expert_share).max(1.0);
            let dense = float(load.weights) * (1.0 - load.expert_share);
            let read = (float(load.weights) * active_share).max(1.0);
            let of_experts = ((read - dense).max(0.0) / read).clamp(0.0, 1.0);
            of_experts * (float(host) / experts).clamp(0.0, 1.0)
        }
        Verdict::Partial => (float(host) / float(load.weights.max(1))).clamp(0.0, 1.0),
        _ => 0.0,
    };
    let read = float(load.weights) * active_share;
    let near = machine.bandwidth * machine.reach.decode;
    let far = machine.host_bandwidth * machine.reach.decode;
    let decode = |kv: u64, spilled: f64| {
        let bytes = read + float(kv);
        let seconds =
            bytes * (1.0 - spilled) / near + if spilled > 0.0 { bytes * spilled / far } else { 0.0 };
        Some(1.0 / seconds).filter(|speed| speed.is_finite())
    };
    let deepest = match verdict {
        Verdict::SmallerContext(context) => load.kv_for(context),
        _ => load.kv,
    };
    placed.decode = decode(0, spilled);
    placed.decode_full = decode(deepest, spilled);
    placed.decode_whole = if spilled > 0.0 { decode(0, 0.0) } else { None };
    let computing = BATCH * 2.0 * float(active) / (machine.compute * machine.reach.prefill);
    let bringing = if matches!(machine.kind, Kind::Cards(_)) { float(host) / BUS } else { 0.0 };
    placed.prefill = Some(BATCH / (computing + bringing));
    placed
}

#[cfg(test)]
mod tests {
    use super::super::shapes;
    use super::*;
    use pretty_assertions::assert_eq;

    fn load(model: &str, context: u32) -> Load {
        let (shape, quant) = shapes::read(model).expect(model);
        Load {
            weights: shape.weight_bytes(quant.bits),
            kv: shape.kv_bytes(context),
            context,
            compute: shape.compute_bytes(),
            parameters: shape.parameters,
            active: shape.active,
            expert_share: shape.expert_share(),
        }
    }

    fn on(model: &str, machine: &str) -> Placement {
        place(&load(model, 8192), &find(machine).expect(machine))
    }

    #[test]
    fn names_are_found_and_typos_answered() {
        for machine in all() {
            assert_eq!(find(&machine.name()), Ok(machine));
            assert_eq!(known(&machine.name()), Some(machine));
            assert!(machine.source.len() > 10 && machine.watts > 0.0 && machine.compute > 0.0, "{machine:?}");
        }
        for (text, name) in [
            ("RTX4090", "rtx4090"),
            ("rtx5080-16", "rtx5080-16"),
            ("rtx5080", "rtx5080-16"),
            ("2x-rtx3090", "2x-rtx3090"),
            ("8x-h100", "8x-h100"),
            ("M4 Max 64", "m4-max-64"),
            ("apple m2-ultra-192", "m2-ultra-192"),
            ("a100", "a100-80"),
            ("cpu-ddr5-128", "cpu-ddr5"),
        ] {
            assert_eq!(find(text).expect(text).name(), name);
        }
        for (text, words) in [
            ("rtx4900", "the nearest name is `rtx4090`"),
            (
                "m4-max-63",
                "was not sold with 63 GB; there is `m4-max-36`, `m4-max-48`, `m4-max-64`, `m4-max-128`",
            ),
            ("m2-ultra", "say how much memory the Apple M2 Ultra has"),
            ("99x-h100", "is known"),
            ("0x-h100", "is known"),
            ("", "is known"),
        ] {
            let error = find(text).expect_err(text);
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn devices_tell_what_they_are() {
        let name = |text: &str, gib: u64, count| of_device(text, gib << 30, count).map(|m| m.name());
        assert_eq!(name("NVIDIA GeForce RTX 4090", 24, 1).as_deref(), Some("rtx4090"));
        assert_eq!(name("NVIDIA GeForce RTX 3090", 24, 2).as_deref(), Some("2x-rtx3090"));
        assert_eq!(name("NVIDIA A100-SXM4-80GB", 79, 1).as_deref(), Some("a100-80"));
        assert_eq!(name("NVIDIA A100-PCIE-40GB", 39, 1).as_deref(), Some("a100-40"));
        assert_eq!(name("NVIDIA H100 80GB HBM3", 79, 1).as_deref(), Some("h100"));
        assert_eq!(name("NVIDIA GB10", 119, 1).as_deref(), Some("dgx-spark"));
        assert_eq!(name("Apple M4 Max", 48, 1).as_deref(), Some("m4-max-64"));
        assert_eq!(name("Apple M4", 11, 1).as_deref(), Some("m4-16"));
        for other in
            ["NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 3090 Ti", "AMD Radeon RX 7900", ""]
        {
            assert_eq!(name(other, 24, 1), None, "{other}");
        }
    }

    /// Published figures of llama.cpp: where they are from stands at the top of the file.
    #[test]
    fn guesses_are_near_what_was_measured() {
        let cases = [
            ("llama-3-8b:q4_k_m", "rtx4090", 130.6, 7139.0),
            ("llama-3-8b:f16", "rtx4090", 54.8, 9382.0),
            ("llama-3-8b:q4_k_m", "rtx3090", 115.4, 4030.0),
            ("llama-3-70b:q4_k_m", "2x-rtx3090", 16.6, 394.0),
            ("llama-3-8b:q4_k_m", "m2-ultra-192", 78.8, 1024.0),
            ("llama-3-70b:q4_k_m", "m2-ultra-192", 12.5, 118.8),
            ("llama-3-8b:q4_k_m", "m3-max-64", 50.7, 693.0),
            ("llama-3-70b:q4_k_m", "m3-max-64", 7.65, 70.2),
        ];
        for (model, machine, decode, prefill) in cases {
            let placed = on(model, machine);
            let ratio = |got: Option<f64>, want: f64| got.expect("it fits") / want;
            let (d, p) = (ratio(placed.decode, decode), ratio(placed.prefill, prefill));
            assert!((0.7..1.43).contains(&d), "{model} on {machine}: decode {d:.2} of what was measured");
            assert!((0.6..1.67).contains(&p), "{model} on {machine}: prefill {p:.2} of what was measured");
        }
    }

    #[test]
    fn where_a_model_lies() {
        let fits = on("llama-3.1-8b:q4_k_m", "rtx4090");
        assert_eq!((fits.verdict, fits.host), (Verdict::Fits, 0));
        assert!(fits.decode_full < fits.decode && fits.decode_whole.is_none());

        let large = on("llama-3.3-70b:q4_k_m", "rtx4090");
        assert_eq!(large.verdict, Verdict::Partial);
        assert_eq!(large.device + large.host, load("llama-3.3-70b:q4_k_m", 8192).need());
        let slower = large.decode_whole.expect("told") / large.decode.expect("told");
        assert!(slower > 4.0, "most of the time goes to main memory: {slower}");

        assert_eq!(on("llama-3.3-70b:q4_k_m", "m4-max-64").verdict, Verdict::Fits);
        assert_eq!(on("llama-3.3-70b:q4_k_m", "m4-pro-24").verdict, Verdict::DoesNotFit);
        assert_eq!(on("llama-3.3-70b:q4_k_m", "m4-pro-24").decode, None);
        assert_eq!(on("gpt-oss-120b", "rtx4090").verdict, Verdict::ExpertsOnHost);
        assert_eq!(on("llama-3.1-8b:q4_k_m", "cpu-ddr5-32").device, 0);

        let long = place(&load("qwen2.5-32b:q4_k_m", 32_768), &find("rtx4090").expect("known"));
        let Verdict::SmallerContext(context) = long.verdict else { panic!("{long:?}") };
        assert!((4096..32_768).contains(&context));
        let again = place(&load("qwen2.5-32b:q4_k_m", context), &find("rtx4090").expect("known"));
        assert_eq!(again.verdict, Verdict::Fits, "what is said to fit does");
    }

    #[test]
    fn a_mixture_is_as_fast_as_its_active_part() {
        let (mixture, dense) = (on("qwen3-30b-a3b:q4_k_m", "rtx4090"), on("qwen2.5-32b:q4_k_m", "rtx4090"));
        assert!(mixture.decode.expect("fits") > 5.0 * dense.decode.expect("fits"));
        // Reported for a card of 24 GB: 18 to 34 tok/s.
        let experts = on("gpt-oss-120b", "rtx4090").decode.expect("fits");
        assert!((12.0..45.0).contains(&experts), "{experts}");
    }

    #[test]
    fn absurd_numbers_do_no_harm() {
        let most = Load {
            weights: u64::MAX,
            kv: u64::MAX,
            context: u32::MAX,
            compute: u64::MAX,
            parameters: u64::MAX,
            active: u64::MAX,
            expert_share: f64::NAN,
        };
        let least =
            Load { weights: 0, kv: 0, context: 0, compute: 0, parameters: 0, active: 0, expert_share: -1.0 };
        for machine in all() {
            assert_eq!(place(&most, &machine).verdict, Verdict::DoesNotFit);
            let _ = place(&least, &machine);
            let _ = place(&Load { parameters: 5, ..least }, &machine.with_memory(0));
        }
    }
}
