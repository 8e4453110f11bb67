//! The processor, the accelerators, and the model files: what llama.cpp makes of them.

use super::{Level, Report};
use crate::config::Config;
use crate::engine::catalogue::{Catalogue, Place, usual};
use crate::engine::gguf::ModelKind;
use crate::engine::inspect::{self, Findings, Seen};
use crate::engine::{builtin, llama, memory, sandbox};
use crate::paths::{Paths, home};
use serde_json::json;
use std::path::Path;

pub(super) fn check(report: &mut Report, config: &Config, paths: &Paths) {
    match builtin::unpack(paths) {
        Err(error) => report.error("devices", Level::Bad, &error.message, error.hint.as_deref()),
        Ok(model) => match inspect::inspect(&model) {
            Ok(findings) => {
                processor(report, &findings.features);
                accelerators(report, &findings, &signs());
                report.devices = json!(findings.devices);
            }
            Err(why) => {
                let next = if why.contains("signal 4") {
                    "the program was built for another CPU: make clean run builds it for this one"
                } else {
                    "see whether the drivers of the accelerators work; `DUET_LOG=debug tui engine inspect FILE` says more"
                };
                report.bad("devices", format!("llama.cpp could not be tried: {why}"), next);
            }
        },
    }
    models(report, config, paths);
    match sandbox::test() {
        Ok(what) => report.ok("sandbox", format!("a new model file is first loaded in a process {what}")),
        Err(why) => report.warn(
            "sandbox",
            format!(
                "a new model file is first loaded in a process of its own, which can reach the network: {why}"
            ),
            "only load files from people you trust",
        ),
    }
}

/// The ways of computing in this build.
pub(super) fn built_with() -> String {
    let mut all = vec!["the CPU"];
    for (is_on, name) in [
        (cfg!(feature = "cuda"), "CUDA"),
        (cfg!(feature = "vulkan"), "Vulkan"),
        (cfg!(any(feature = "metal", all(target_os = "macos", target_arch = "aarch64"))), "Metal"),
        (cfg!(feature = "portable"), "loadable backends"),
        (cfg!(feature = "mtmd"), "image input"),
    ] {
        if is_on {
            all.push(name);
        }
    }
    all.join(", ")
}

/// Instruction sets by ggml's name, where this CPU can be asked about them.
#[cfg(target_arch = "x86_64")]
fn this_cpu() -> Vec<(&'static str, bool)> {
    use std::arch::is_x86_feature_detected as has;
    vec![
        ("AVX", has!("avx")),
        ("AVX2", has!("avx2")),
        ("FMA", has!("fma")),
        ("F16C", has!("f16c")),
        ("BMI2", has!("bmi2")),
        ("AVX_VNNI", has!("avxvnni")),
        ("AVX512", has!("avx512f")),
        ("AVX512_VBMI", has!("avx512vbmi")),
        ("AVX512_VNNI", has!("avx512vnni")),
        ("AVX512_BF16", has!("avx512bf16")),
    ]
}

#[cfg(target_arch = "aarch64")]
fn this_cpu() -> Vec<(&'static str, bool)> {
    use std::arch::is_aarch64_feature_detected as has;
    vec![
        ("NEON", has!("neon")),
        ("DOTPROD", has!("dotprod")),
        ("FP16_VA", has!("fp16")),
        ("MATMUL_INT8", has!("i8mm")),
        ("SVE", has!("sve")),
    ]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn this_cpu() -> Vec<(&'static str, bool)> {
    Vec::new()
}

fn processor(report: &mut Report, built: &[String]) {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    report.ok(
        "cpu",
        format!("{}, {} cores, {threads} threads", std::env::consts::ARCH, llama::physical_cores()),
    );
    compare(report, built, &this_cpu());
}

/// What the build uses of what the CPU has.
fn compare(report: &mut Report, built: &[String], cpu: &[(&'static str, bool)]) {
    let is_built = |name: &str| built.iter().any(|known| known == name);
    let pick = |wanted: fn(bool, bool) -> bool| -> Vec<&str> {
        cpu.iter().filter(|(name, has)| wanted(is_built(name), *has)).map(|(name, _)| *name).collect()
    };
    let (used, missing, mut unused) =
        (pick(|built, has| built && has), pick(|built, has| built && !has), pick(|built, has| !built && has));
    if used.contains(&"AVX512_VNNI") {
        // The narrow form of the same.
        unused.retain(|name| *name != "AVX_VNNI");
    }
    if !missing.is_empty() {
        report.bad(
            "cpu",
            format!("this build needs {}, which this CPU does not have", missing.join(", ")),
            "make clean run builds it for this CPU",
        );
    }
    if !used.is_empty() {
        report.ok("cpu", format!("in use: {}", used.join(", ")));
    }
    if !unused.is_empty() {
        report.warn(
            "cpu",
            format!("not in use, though this CPU has it: {}", unused.join(", ")),
            "`make run` builds for this CPU, a plain cargo build for any with AVX2",
        );
    }
}

/// Signs of accelerators that the system shows, whatever llama.cpp makes of them.
fn signs() -> Vec<&'static str> {
    [
        ("/proc/driver/nvidia/version", "an NVIDIA card (build with --features cuda)"),
        ("/dev/kfd", "an AMD card (build with --features vulkan)"),
        ("/dev/dri/renderD128", "a graphics card (build with --features vulkan)"),
    ]
    .into_iter()
    .filter(|(path, _)| Path::new(path).exists())
    .map(|(_, what)| what)
    .collect()
}

fn accelerators(report: &mut Report, findings: &Findings, signs: &[&str]) {
    let area = "devices";
    for device in &findings.devices {
        let memory = match (device.free, device.total) {
            (_, 0) => String::new(),
            (free, total) => format!(", {} free of {}", memory::size(free), memory::size(total)),
        };
        report.ok(
            area,
            format!(
                "{} ({}): {}{memory}",
                device.name,
                device.kind,
                or(&device.description, &device.backend)
            ),
        );
    }
    let trial = match &findings.trial {
        Ok(trial) => trial,
        Err(why) => {
            return report.bad(
                area,
                format!("a trial with the built-in model failed: {why}"),
                "see the drivers of the accelerators; a build without them computes on the CPU",
            );
        }
    };
    let cards: Vec<&Seen> = findings.devices.iter().filter(|device| device.is_accelerator()).collect();
    let on = |device: &Seen| -> f64 {
        trial.places.iter().filter(|(name, _)| name.starts_with(&device.name)).map(|(_, mib)| mib).sum()
    };
    let layers = trial.offloaded.map_or_else(String::new, |(done, all)| format!(", {done} of {all} layers"));
    if cards.is_empty() {
        let text = format!("a trial with the built-in model ran on the CPU in {:.0} ms", trial.ms);
        match signs.first() {
            Some(sign) => report.warn(
                area,
                format!("{text}; llama.cpp sees no accelerator here"),
                format!("this machine has {sign}"),
            ),
            None => report.ok(area, text),
        }
        return;
    }
    let used: Vec<&str> = cards.iter().filter(|card| on(card) > 0.0).map(|card| card.name.as_str()).collect();
    if used.is_empty() {
        report.bad(
            area,
            format!(
                "offload does not happen: {} is listed, but a trial ran on the CPU{layers}",
                names(&cards)
            ),
            "see the driver and its version; `tui engine status` shows what a loaded model uses",
        );
    } else {
        report.ok(
            area,
            format!(
                "offload happens: a trial put its weights on {}{layers}, {:.0} ms",
                used.join(", "),
                trial.ms
            ),
        );
    }
}

fn names(devices: &[&Seen]) -> String {
    devices.iter().map(|device| device.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn or<'a>(text: &'a str, other: &'a str) -> &'a str {
    if text.is_empty() { other } else { text }
}

fn models(report: &mut Report, config: &Config, paths: &Paths) {
    let area = "models";
    let home = home();
    let folders = Catalogue::folders(&config.engine.model_dirs, home.as_deref(), &paths.data);
    // Where other programs keep models, too: `tui models` lists those as well.
    let others = usual(home.as_deref(), crate::paths::folder_in);
    let mut catalogue = Catalogue::new(None, folders).with_places(others.clone());
    catalogue.scan();
    let mut broken = Vec::new();
    let (mut chat, mut embedding, mut other) = (0, 0, 0);
    for entry in catalogue.entries() {
        match entry.info.as_ref().map(|info| info.kind) {
            Ok(ModelKind::Chat) => chat += 1,
            Ok(ModelKind::Embedding) => embedding += 1,
            Ok(_) => other += 1,
            Err(reason) => broken.push((entry.path.clone(), reason.clone())),
        }
    }
    let places: Vec<String> = catalogue
        .roots()
        .iter()
        .chain(others.iter().map(|(Place::Folder { path, .. } | Place::Ollama(path))| path))
        .filter(|place| place.is_dir())
        .map(|place| place.display().to_string())
        .collect();
    if !places.is_empty() {
        let mut text = format!("{chat} to chat with");
        for (count, what) in [(embedding, "for embeddings"), (other, "of other kinds")] {
            if count > 0 {
                text.push_str(&format!(", {count} {what}"));
            }
        }
        report.ok(area, format!("in {}: {text}", places.join(", ")));
    }
    for (path, reason) in broken.iter().take(3) {
        let line = reason.lines().next().unwrap_or_default();
        let next = reason.lines().nth(1).unwrap_or("fetch it again");
        let name = path.to_string_lossy();
        let text = if line.contains(&*name) { line.to_owned() } else { format!("{name}: {line}") };
        report.warn(area, text, next);
    }
    if broken.len() > 3 {
        report.warn(
            area,
            format!("{} more files can't be used", broken.len() - 3),
            "`tui config check` names the folders",
        );
    }
    for warning in catalogue.warnings().iter().filter(|warning| !warning.contains("os error 2")).take(3) {
        report.warn(area, warning.clone(), "check the folder, or remove it from `engine.model_dirs`");
    }
    if chat == 0 {
        let places: Vec<String> = catalogue.roots().iter().map(|root| root.display().to_string()).collect();
        report.warn(
            area,
            "there is only the built-in model, which is for trying things out",
            format!("put a GGUF file into {}", places.join(" or ")),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::inspect::Trial;
    use pretty_assertions::assert_eq;

    fn card(name: &str, kind: &str) -> Seen {
        Seen { name: name.to_owned(), kind: kind.to_owned(), ..Seen::default() }
    }

    fn levels(findings: &Findings, signs: &[&str]) -> (Level, String) {
        let mut report = Report::default();
        accelerators(&mut report, findings, signs);
        let last = report.checks.pop().expect("a verdict");
        (last.level, last.text)
    }

    #[test]
    fn a_card_that_is_listed_and_unused_is_broken() {
        let findings = |places: &[(&str, f64)], cards: &[Seen]| Findings {
            devices: cards.iter().cloned().chain([card("CPU", "cpu")]).collect(),
            features: Vec::new(),
            trial: Ok(Trial {
                places: places.iter().map(|(name, mib)| ((*name).to_owned(), *mib)).collect(),
                offloaded: Some((5, 5)),
                ms: 9.0,
            }),
        };
        let gpu = [card("CUDA0", "gpu")];
        let (level, text) = levels(&findings(&[("CPU_Mapped", 0.5), ("CUDA0", 1.9)], &gpu), &[]);
        assert_eq!(level, Level::Ok, "{text}");
        assert!(text.contains("CUDA0, 5 of 5 layers"), "{text}");
        let (level, text) = levels(&findings(&[("CPU_Mapped", 2.4)], &gpu), &[]);
        assert_eq!(level, Level::Bad, "{text}");
        assert_eq!(levels(&findings(&[("CPU_Mapped", 2.4)], &[]), &[]).0, Level::Ok);
        assert_eq!(levels(&findings(&[("CPU_Mapped", 2.4)], &[]), &["an NVIDIA card"]).0, Level::Warn);
        let failed = Findings { trial: Err("no kernel image".to_owned()), ..findings(&[], &gpu) };
        assert_eq!(levels(&failed, &[]).0, Level::Bad);
    }

    #[test]
    fn instruction_sets_are_compared() {
        let mut report = Report::default();
        let cpu = [("AVX2", true), ("AVX512", false), ("FMA", true), ("VNNI", false)];
        compare(&mut report, &["AVX2".to_owned(), "AVX512".to_owned(), "REPACK".to_owned()], &cpu);
        let said: Vec<_> = report.checks.iter().map(|check| (check.level, check.text.as_str())).collect();
        assert_eq!(
            said,
            [
                (Level::Bad, "this build needs AVX512, which this CPU does not have"),
                (Level::Ok, "in use: AVX2"),
                (Level::Warn, "not in use, though this CPU has it: FMA"),
            ]
        );
    }
}
