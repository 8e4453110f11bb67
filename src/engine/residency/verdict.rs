//! A decision in words and numbers, for the list of models and for refusals.

use super::budget::{Budget, in_order};
use super::footprint::Footprint;
use super::plan::{Holder, Standing, Verdict, free};
use crate::engine::memory::size;

/// What was decided on.
#[derive(Debug)]
pub struct Case<'a> {
    /// The model's id.
    pub id: &'a str,
    /// The context asked for, in tokens.
    pub context: u32,
    /// What it takes with that.
    pub footprint: &'a Footprint,
    /// What there is.
    pub budgets: &'a [Budget],
    /// Who holds memory.
    pub holders: &'a [Holder],
}

impl Case<'_> {
    /// What it needs, on one line: `needs 5.1 GiB (weights 4.0 GiB, 8192 tokens of context 1.0 GiB, compute 0.1 GiB)`.
    fn needs(&self) -> String {
        let totals = self.footprint.totals();
        format!(
            "needs {} (weights {}, {} tokens of context {}, compute {})",
            size(totals.total()),
            size(totals.weights),
            self.context,
            size(totals.kv),
            size(totals.compute)
        )
    }

    /// What there is where it is tightest: `2.0 GiB of 16.0 GiB for models are free`.
    fn room(&self) -> String {
        let need = in_order(self.footprint, self.budgets);
        let budgets: Vec<u64> = self.budgets.iter().map(|b| b.budget).collect();
        let holders: Vec<&Holder> = self.holders.iter().collect();
        let free = free(&budgets, &holders);
        // The device with the least left over, counted below zero.
        let left = |i: usize| {
            let at = |all: &[u64]| i128::from(all.get(i).copied().unwrap_or(0));
            at(&free) - at(&need)
        };
        let needed = (0..self.budgets.len()).filter(|i| need.get(*i).is_some_and(|n| *n > 0));
        let tight = needed.min_by_key(|i| left(*i)).unwrap_or(0);
        let (Some(budget), Some(free)) = (self.budgets.get(tight), free.get(tight)) else {
            return "nothing is known of the memory".to_owned();
        };
        if budget.budget == u64::MAX {
            return "the system does not say what is free".to_owned();
        }
        let place = if tight == 0 { String::new() } else { format!(" on {}", budget.device.name) };
        format!("{} of {} for models{place} are free", size(*free), size(budget.budget))
    }

    /// Who would have to go: `b (2.0 GiB, loads in 1.2 s)`.
    fn leavers(&self, ids: &[String]) -> String {
        let one = |id: &String| match self.holders.iter().find(|h| h.id == *id) {
            Some(h) => format!("{id} ({}, loads in {})", size(h.total()), seconds(h.load_ms / 1000.0)),
            None => id.clone(),
        };
        ids.iter().map(one).collect::<Vec<_>>().join(" and ")
    }

    /// Who is in the way, and why it stays: `b (2.0 GiB, pinned)`.
    fn in_the_way(&self) -> Vec<String> {
        let why = |standing: Standing| match standing {
            Standing::Running(1) => "answering".to_owned(),
            Standing::Running(n) => format!("{n} answers on their way"),
            Standing::Pinned => "pinned".to_owned(),
            Standing::Warmed { left_s } => format!("just loaded, idle in {}", seconds(left_s)),
            Standing::Leaving => "leaving".to_owned(),
            Standing::Idle { .. } => "idle".to_owned(),
        };
        self.holders.iter().map(|h| format!("{} ({}, {})", h.id, size(h.total()), why(h.standing))).collect()
    }

    /// One line for people, with the numbers.
    #[must_use]
    pub fn say(&self, verdict: &Verdict) -> String {
        let (needs, room) = (self.needs(), self.room());
        match verdict {
            Verdict::Fits => format!("fits: {needs}; {room}"),
            Verdict::IfUnloaded(ids) => format!("fits if {} is unloaded: {needs}; {room}", self.leavers(ids)),
            Verdict::SmallerContext { context, unload } => {
                format!("fits with {context} tokens of context{}: {needs}; {room}", self.and_without(unload))
            }
            Verdict::Partial { gpu_layers, slowdown, unload } => format!(
                "fits with {gpu_layers} layers on the accelerator{}, about {slowdown:.1} times slower: {needs}; {room}",
                self.and_without(unload)
            ),
            Verdict::DoesNotFit => {
                let others = self.in_the_way();
                let others = if others.is_empty() {
                    String::new()
                } else {
                    format!("; resident: {}", others.join(", "))
                };
                format!("does not fit: {needs}; {room}{others}")
            }
        }
    }

    fn and_without(&self, ids: &[String]) -> String {
        if ids.is_empty() { String::new() } else { format!(" and without {}", self.leavers(ids)) }
    }

    /// Two lines: the numbers, and what to do. For a verdict that is no load.
    #[must_use]
    pub fn refuse(&self, verdict: &Verdict) -> String {
        let (needs, room) = (self.needs(), self.room());
        let others = self.in_the_way();
        let holding =
            if others.is_empty() { String::new() } else { format!("; resident: {}", others.join(", ")) };
        let smaller = match verdict {
            Verdict::SmallerContext { context, .. } => Some(*context),
            _ => None,
        };
        let stays = |standing: fn(Standing) -> bool| {
            self.holders.iter().filter(|h| standing(h.standing)).map(|h| h.id.as_str()).collect::<Vec<_>>()
        };
        let pinned = stays(|s| s == Standing::Pinned);
        let busy = stays(|s| !matches!(s, Standing::Pinned | Standing::Idle { .. }));
        let mut next = Vec::new();
        if let Some(context) = smaller {
            next.push(format!("set engine.context to {context} or less"));
        }
        if !busy.is_empty() {
            next.push(format!("wait until {} is idle", busy.join(" and ")));
        }
        if !pinned.is_empty() {
            next.push(format!("unpin {}", pinned.join(" and ")));
        }
        next.push("choose a smaller model or a smaller quantisation".to_owned());
        format!("`{}` does not fit: it {needs}, and {room}{holding}\n{}", self.id, next.join(", or "))
    }
}

/// A time for people: `0.4 s`, `12 s`, `3 min`.
fn seconds(s: f64) -> String {
    match s {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s => format!("{:.0} min", s / 60.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::llama::{Device, Kind};
    use crate::engine::memory::Need;
    use pretty_assertions::assert_eq;

    const GIB: u64 = 1 << 30;

    fn budget(name: &str, budget: u64) -> Budget {
        let device = Device {
            name: name.to_owned(),
            kind: if name == "CPU" { Kind::Cpu } else { Kind::Gpu },
            description: String::new(),
            backend: String::new(),
            total: budget.saturating_mul(2),
            free: budget,
        };
        Budget { device, budget, reserved: 0, is_main: name == "CPU" }
    }

    fn holder(id: &str, standing: Standing) -> Holder {
        Holder { id: id.to_owned(), bytes: vec![2 * GIB], standing, load_ms: 1200.0 }
    }

    #[test]
    fn every_verdict_has_its_numbers() {
        let footprint = Footprint::main(Need { weights: 4 * GIB, kv: GIB, compute: GIB / 8 });
        let budgets = [budget("CPU", 8 * GIB)];
        let holders = [holder("b", Standing::Idle { for_s: 5.0 }), holder("c", Standing::Pinned)];
        let case =
            Case { id: "a", context: 8192, footprint: &footprint, budgets: &budgets, holders: &holders };
        let b = || vec!["b".to_owned()];
        insta::assert_snapshot!(
            [
                case.say(&Verdict::Fits),
                case.say(&Verdict::IfUnloaded(b())),
                case.say(&Verdict::SmallerContext { context: 4096, unload: b() }),
                case.say(&Verdict::Partial { gpu_layers: 20, slowdown: 4.13, unload: vec![] }),
                case.say(&Verdict::DoesNotFit),
                case.refuse(&Verdict::SmallerContext { context: 4096, unload: vec![] }),
                case.refuse(&Verdict::DoesNotFit),
            ]
            .join("\n"),
            @"
        fits: needs 5.1 GiB (weights 4.0 GiB, 8192 tokens of context 1.0 GiB, compute 128.0 MiB); 4.0 GiB of 8.0 GiB for models are free
        fits if b (2.0 GiB, loads in 1.2 s) is unloaded: needs 5.1 GiB (weights 4.0 GiB, 8192 tokens of context 1.0 GiB, compute 128.0 MiB); 4.0 GiB of 8.0 GiB for models are free
        fits with 4096 tokens of context and without b (2.0 GiB, loads in 1.2 s): needs 5.1 GiB (weights 4.0 GiB, 8192 tokens of context 1.0 GiB, compute 128.0 MiB); 4.0 GiB of 8.0 GiB for models are free
        fits with 20 layers on the accelerator, about 4.1 times slower: needs 5.1 GiB (weights 4.0 GiB, 8192 tokens of context 1.0 GiB, compute 128.0 MiB); 4.0 GiB of 8.0 GiB for models are free
        does not fit: needs 5.1 GiB (weights 4.0 GiB, 8192 tokens of context 1.0 GiB, compute 128.0 MiB); 4.0 GiB of 8.0 GiB for models are free; resident: b (2.0 GiB, idle), c (2.0 GiB, pinned)
        `a` does not fit: it needs 5.1 GiB (weights 4.0 GiB, 8192 tokens of context 1.0 GiB, compute 128.0 MiB), and 4.0 GiB of 8.0 GiB for models are free; resident: b (2.0 GiB, idle), c (2.0 GiB, pinned)
        set engine.context to 4096 or less, or unpin c, or choose a smaller model or a smaller quantisation
        `a` does not fit: it needs 5.1 GiB (weights 4.0 GiB, 8192 tokens of context 1.0 GiB, compute 128.0 MiB), and 4.0 GiB of 8.0 GiB for models are free; resident: b (2.0 GiB, idle), c (2.0 GiB, pinned)
        unpin c, or choose a smaller model or a smaller quantisation
        "
        );
    }

    #[test]
    fn the_tightest_device_is_named() {
        let mut footprint = Footprint::default();
        footprint.on_mut("CUDA0").weights = 4 * GIB;
        footprint.on_mut("CPU").weights = GIB;
        let budgets = [budget("CPU", 8 * GIB), budget("CUDA0", 3 * GIB)];
        let case = Case { id: "a", context: 512, footprint: &footprint, budgets: &budgets, holders: &[] };
        assert_eq!(case.room(), "3.0 GiB of 3.0 GiB for models on CUDA0 are free");
        let unknown = [budget("CPU", u64::MAX)];
        let case = Case { budgets: &unknown, ..case };
        assert_eq!(case.room(), "the system does not say what is free");
    }

    #[test]
    fn busy_ones_are_named_with_what_they_do() {
        let footprint = Footprint::main(Need { weights: 9 * GIB, kv: 0, compute: 0 });
        let budgets = [budget("CPU", 8 * GIB)];
        let holders = [
            holder("b", Standing::Running(2)),
            holder("c", Standing::Warmed { left_s: 42.0 }),
            holder("d", Standing::Leaving),
        ];
        let case =
            Case { id: "a", context: 512, footprint: &footprint, budgets: &budgets, holders: &holders };
        let text = case.refuse(&Verdict::DoesNotFit);
        for part in [
            "b (2.0 GiB, 2 answers on their way)",
            "c (2.0 GiB, just loaded, idle in 42 s)",
            "d (2.0 GiB, leaving)",
            "wait until b and c and d is idle",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(text.lines().count(), 2);
    }
}
