//! What a load really allocated, read from the sizes llama.cpp logs while it loads.
//!
//! llama.cpp has no call in C that says how large a context's buffers are, and the safe bindings don't give
//! the context's pointer to anybody. But every buffer is logged with its size, on the thread that loads, as
//! `CUDA0 KV buffer size = 128.00 MiB`. [`listen`] makes itself that thread's tracing subscriber for as long.

use super::budget::Held;
use super::footprint::{Footprint, MAIN};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Metadata, Subscriber, dispatcher};

/// The target of llama.cpp's own messages.
const TARGET: &str = "llama-cpp-2";
/// Bytes of the unit llama.cpp logs in.
const UNIT: f64 = 1024.0 * 1024.0;

/// One buffer.
#[derive(Clone, Debug, PartialEq)]
struct Buffer {
    name: String,
    kind: Kind,
    bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Weights,
    Cache,
    Compute,
    Output,
}

/// Reads one line of llama.cpp's log.
fn parse(line: &str) -> Option<Buffer> {
    let (what, size) = line.split_once(" buffer size = ")?;
    let mut words = what.split_whitespace();
    let name = words.next()?.to_owned();
    let kind = match words.next_back()? {
        "model" => Kind::Weights,
        "KV" | "RS" | "state" => Kind::Cache,
        "compute" => Kind::Compute,
        "output" => Kind::Output,
        _ => return None,
    };
    let mib: f64 = size.trim().strip_suffix("MiB")?.trim().parse().ok()?;
    (mib.is_finite() && mib >= 0.0).then_some(Buffer { name, kind, bytes: (mib * UNIT) as u64 })
}

/// The device a buffer's name belongs to: `CUDA0` and `MTL0_Mapped` to the device before the underscore,
/// `RPC0[10.0.0.7:50052]` to the one before the bracket, everything of the host (`CPU_Mapped`, `CPU_REPACK`, `CUDA_Host`) to main memory.
#[must_use]
pub fn device_of<'a>(buffer: &str, devices: &'a [String]) -> &'a str {
    let is_of = |device: &&String| {
        buffer == *device || buffer.strip_prefix(*device).is_some_and(|r| r.starts_with(['_', '[']))
    };
    devices.iter().filter(is_of).max_by_key(|d| d.len()).map_or(MAIN, String::as_str)
}

/// Adds buffers up by device. `tensor_bytes` are the bytes of all tensors, which a mapping is cut to: llama.cpp
/// maps from the first to the last tensor of a buffer, across tensors that are copied elsewhere.
fn add_up(buffers: &[Buffer], devices: &[String], tensor_bytes: u64) -> Held {
    let mut out = Footprint::default();
    let is_mapped = |b: &Buffer| b.kind == Kind::Weights && b.name.ends_with("_Mapped");
    let copied = buffers
        .iter()
        .filter(|b| b.kind == Kind::Weights && !is_mapped(b))
        .fold(0_u64, |sum, b| sum.saturating_add(b.bytes));
    let mut unmapped = tensor_bytes.saturating_sub(copied);
    for buffer in buffers {
        let bytes = if is_mapped(buffer) {
            let bytes = buffer.bytes.min(unmapped);
            unmapped -= bytes;
            bytes
        } else {
            buffer.bytes
        };
        let share = out.on_mut(device_of(&buffer.name, devices));
        let part = match buffer.kind {
            Kind::Weights => &mut share.weights,
            Kind::Cache => &mut share.kv,
            Kind::Compute | Kind::Output => &mut share.compute,
        };
        *part = part.saturating_add(bytes);
    }
    Held { footprint: out, mapped: tensor_bytes.saturating_sub(copied).saturating_sub(unmapped) }
}

/// What was heard so far.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    buffers: Arc<Mutex<Vec<Buffer>>>,
}

impl Heard {
    fn take(&self, line: &str) {
        if let Some(buffer) = parse(line) {
            self.buffers.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
    }

    /// What was allocated on each of `devices`; none when llama.cpp logged nothing that is understood.
    #[must_use]
    pub fn held(&self, devices: &[String], tensor_bytes: u64) -> Option<Held> {
        let buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        (!buffers.is_empty()).then(|| add_up(&buffers, devices, tensor_bytes))
    }

    /// Bytes of the buffers results are given out in.
    #[must_use]
    pub fn output_bytes(&self) -> u64 {
        let buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        buffers.iter().filter(|b| b.kind == Kind::Output).map(|b| b.bytes).sum()
    }
}

/// Listens on this thread until the guard is dropped. Everything goes on to where it went before.
#[must_use]
pub fn listen() -> (Heard, tracing::subscriber::DefaultGuard) {
    let heard = Heard::default();
    let listener = Listener { heard: heard.clone(), next: dispatcher::get_default(Clone::clone) };
    (heard, tracing::subscriber::set_default(listener))
}

/// A subscriber that reads llama.cpp's messages and passes on what the one before wants.
struct Listener {
    heard: Heard,
    next: Dispatch,
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        (metadata.target() == TARGET && *metadata.level() <= tracing::Level::INFO)
            || self.next.enabled(metadata)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.next.new_span(span)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.next.record(span, values);
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        self.next.record_follows_from(span, follows);
    }

    fn event(&self, event: &Event<'_>) {
        if event.metadata().target() == TARGET {
            event.record(&mut Message(&self.heard));
        }
        if self.next.enabled(event.metadata()) {
            self.next.event(event);
        }
    }

    fn enter(&self, span: &Id) {
        self.next.enter(span);
    }

    fn exit(&self, span: &Id) {
        self.next.exit(span);
    }
}

struct Message<'a>(&'a Heard);

impl Visit for Message<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.0.take(value);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::memory::Need;
    use pretty_assertions::assert_eq;

    const MIB: u64 = 1 << 20;

    #[test]
    fn lines_of_the_log_are_read() {
        let read = |line: &str| parse(line).map(|b| (b.name, b.kind, b.bytes));
        let cases = [
            (
                "  CPU_Mapped model buffer size =     2.50 MiB\n",
                Some(("CPU_Mapped", Kind::Weights, 5 * MIB / 2)),
            ),
            ("     CUDA0 KV buffer size =  1024.00 MiB\n", Some(("CUDA0", Kind::Cache, 1024 * MIB))),
            ("       CPU RS buffer size =     1.00 MiB\n", Some(("CPU", Kind::Cache, MIB))),
            ("       CPU  output buffer size =     0.50 MiB\n", Some(("CPU", Kind::Output, MIB / 2))),
            (" CUDA_Host compute buffer size =     8.00 MiB\n", Some(("CUDA_Host", Kind::Compute, 8 * MIB))),
            ("CPU LoRA buffer size = 1.00 MiB", None),
            ("size = 16.00 MiB (8192 cells, 4 layers)", None),
            ("CPU KV buffer size = lots MiB", None),
            ("CPU KV buffer size = -1.00 MiB", None),
            ("CPU KV buffer size = NaN MiB", None),
            (" buffer size = 1.00 MiB", None),
        ];
        for (line, expected) in cases {
            assert_eq!(read(line), expected.map(|(n, k, b)| (n.to_owned(), k, b)), "{line}");
        }
    }

    #[test]
    fn buffers_belong_to_devices() {
        let devices = ["CPU", "CUDA0", "CUDA01", "MTL0", "RPC0", "RPC1"].map(str::to_owned);
        for (buffer, device) in [
            ("CPU_REPACK", "CPU"),
            ("CUDA0", "CUDA0"),
            ("CUDA0_Split", "CUDA0"),
            ("CUDA01", "CUDA01"),
            ("CUDA_Host", "CPU"),
            ("MTL0_Mapped", "MTL0"),
            ("AMX", "CPU"),
            ("RPC0[127.0.0.1:50052]", "RPC0"),
            ("RPC1[127.0.0.1:50052]", "RPC1"),
            ("RPC10[127.0.0.1:50052]", "CPU"),
        ] {
            assert_eq!(device_of(buffer, &devices), device, "{buffer}");
        }
    }

    #[test]
    fn a_mapping_counts_for_what_is_used_of_it() {
        let devices = ["CPU".to_owned(), "CUDA0".to_owned()];
        let heard = Heard::default();
        for line in [
            "CPU_Mapped model buffer size = 100.00 MiB",
            "CUDA0 model buffer size = 90.00 MiB",
            "CUDA0 KV buffer size = 32.00 MiB",
            "CPU output buffer size = 1.00 MiB",
            "CUDA0 compute buffer size = 7.00 MiB",
            "CUDA_Host compute buffer size = 2.00 MiB",
        ] {
            heard.take(line);
        }
        let Held { footprint, mapped } = heard.held(&devices, 100 * MIB).unwrap();
        assert_eq!(mapped, 10 * MIB);
        assert_eq!((footprint.on("CPU"), footprint.on("CUDA0")), (13 * MIB, 129 * MIB));
        assert_eq!(footprint.totals(), Need { weights: 100 * MIB, kv: 32 * MIB, compute: 10 * MIB });
        assert_eq!(heard.output_bytes(), MIB);
        assert_eq!(Heard::default().held(&devices, 5), None);
    }
}
