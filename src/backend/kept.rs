//! What servers tell of residency, to plain data. Pure and lenient: a field that is missing, or is of another
//! kind than it should be, is as if it had not been told.

use crate::chat::{Device, DevicePart, Fit, KeepAlive, Machine, ModelBytes, Placement, Residency, Verdict};
use serde_json::Value;

/// Devices that are kept of one status.
const MAX_DEVICES: usize = 64;
/// Models that are kept of one status.
const MAX_MODELS: usize = 2000;
/// Ids that are kept of those that would have to go.
const MAX_UNLOADS: usize = 32;
/// Characters of a text at most.
const MAX_TEXT: usize = 1024;

/// How a model of a list is kept; none when its server says nothing about it.
pub(super) fn residency(id: &str, item: &Value) -> Option<Residency> {
    let loading = loading(item.get("status"));
    let Some(ours) = item.get("duet").filter(|ours| ours.is_object()) else {
        return loading.map(|loading| Residency {
            id: id.to_owned(),
            loading: Some(loading),
            ..Residency::default()
        });
    };
    let number = |name: &str| positive(ours.get(name));
    let count = |name: &str| tokens(ours.get(name));
    let residency = Residency {
        id: id.to_owned(),
        pinned: ours.get("pinned").and_then(Value::as_bool),
        keep_alive: ours.get("keep_alive").and_then(keep_alive),
        expires_s: number("expires_s"),
        idle_s: number("idle_s"),
        running: count("running"),
        queued: count("queued"),
        context: count("context").filter(|n| *n > 0),
        slots: count("slots").filter(|n| *n > 0),
        load_ms: number("load_ms"),
        prefill_tokens_per_s: number("prefill_tokens_per_s").filter(|n| *n > 0.0),
        decode_tokens_per_s: number("decode_tokens_per_s").filter(|n| *n > 0.0),
        bytes: ours.get("bytes").and_then(bytes),
        need: ours.get("need").and_then(Value::as_u64).filter(|n| *n > 0),
        verdict: ours.get("verdict").and_then(verdict),
        loading,
    };
    let is_told = residency != Residency { id: id.to_owned(), ..Residency::default() };
    is_told.then_some(residency)
}

/// A machine as its `/engine/status` describes it.
pub(super) fn machine(status: &Value) -> Machine {
    let list = |name: &str| status.get(name).and_then(Value::as_array).into_iter().flatten();
    Machine {
        devices: list("devices").filter_map(device).take(MAX_DEVICES).collect(),
        placements: list("models").filter_map(placement).take(MAX_MODELS).collect(),
        queue: tokens(status.get("queue")),
    }
}

fn text(value: Option<&Value>) -> Option<String> {
    let text = value?.as_str().filter(|text| !text.is_empty())?;
    Some(text.chars().take(MAX_TEXT).collect())
}

fn positive(value: Option<&Value>) -> Option<f64> {
    value?.as_f64().filter(|number| number.is_finite() && *number >= 0.0)
}

fn tokens(value: Option<&Value>) -> Option<u32> {
    value?.as_u64().and_then(|n| u32::try_from(n).ok())
}

fn keep_alive(value: &Value) -> Option<KeepAlive> {
    match value {
        Value::Null => Some(KeepAlive::Default),
        value => Some(match value.as_i64()? {
            seconds @ 0.. => KeepAlive::Seconds(seconds.unsigned_abs()),
            _ => KeepAlive::ForEver,
        }),
    }
}

/// Bytes by what they are for. A part that is missing is nothing, all of them missing is not known.
fn bytes(value: &Value) -> Option<ModelBytes> {
    let part = |name: &str| value.get(name).and_then(Value::as_u64);
    let (weights, kv, compute) = (part("weights"), part("kv"), part("compute"));
    let bytes =
        ModelBytes { weights: weights.unwrap_or(0), kv: kv.unwrap_or(0), compute: compute.unwrap_or(0) };
    (weights.is_some() || kv.is_some() || compute.is_some()).then_some(bytes)
}

fn verdict(value: &Value) -> Option<Verdict> {
    let fit = match value.get("fit")?.as_str()? {
        "fits" => Fit::Fits,
        "smaller_context" => Fit::SmallerContext,
        "if_unloaded" => Fit::IfUnloaded,
        "partial" => Fit::Partial,
        "no_room" => Fit::NoRoom,
        "does_not_fit" => Fit::DoesNotFit,
        _ => Fit::Unknown,
    };
    let unload = value.get("unload").and_then(Value::as_array).into_iter().flatten();
    Some(Verdict {
        fit,
        context: tokens(value.get("context")).filter(|n| *n > 0),
        unload: unload.filter_map(|id| text(Some(id))).take(MAX_UNLOADS).collect(),
        gpu_layers: tokens(value.get("gpu_layers")),
        slowdown: positive(value.get("slowdown")).filter(|times| *times >= 1.0),
        say: text(value.get("say")).unwrap_or_default(),
    })
}

fn loading(status: Option<&Value>) -> Option<(u64, u64)> {
    let progress = status?.get("progress")?;
    let part = |name: &str| progress.get(name).and_then(Value::as_u64);
    let (done, total) = (part("bytes_done")?, part("bytes_total").filter(|total| *total > 0)?);
    Some((done.min(total), total))
}

fn device(value: &Value) -> Option<Device> {
    let bytes = |name: &str| value.get(name).and_then(Value::as_u64);
    Some(Device {
        name: text(value.get("name"))?,
        kind: text(value.get("kind")),
        description: text(value.get("description")),
        // No device has no memory: that is one which does not say.
        total: bytes("total").filter(|total| *total > 0),
        free: bytes("free").filter(|_| bytes("total").is_some_and(|total| total > 0)),
        budget: bytes("budget"),
        reserved: bytes("reserved"),
    })
}

fn placement(value: &Value) -> Option<Placement> {
    let parts = value.get("device_bytes").and_then(Value::as_array).into_iter().flatten();
    let part = |part: &Value| Some(DevicePart { device: text(part.get("device"))?, bytes: bytes(part)? });
    Some(Placement {
        id: text(value.get("id"))?,
        devices: parts.filter_map(part).take(MAX_DEVICES).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn all_that_is_told() {
        let item = json!({
            "id": "qwen", "status": {"value": "loading", "progress": {"value": 0.5, "bytes_done": 5, "bytes_total": 10}},
            "duet": {
                "pinned": true, "keep_alive": 300, "expires_s": 240.5, "idle_s": 59, "running": 2, "queued": 1,
                "context": 32768, "slots": 4, "load_ms": 812.5, "prefill_tokens_per_s": 480.0,
                "decode_tokens_per_s": 131.4, "bytes": {"weights": 4000, "kv": 500, "compute": 200}, "need": 4700,
                "verdict": {"fit": "if_unloaded", "context": 4096, "unload": ["phi", 3], "gpu_layers": 20,
                            "slowdown": 2.5, "say": "fits if phi is unloaded: needs 4.7 GB, free 3 GB"},
            },
        });
        let expected = Residency {
            id: "qwen".to_owned(),
            pinned: Some(true),
            keep_alive: Some(KeepAlive::Seconds(300)),
            expires_s: Some(240.5),
            idle_s: Some(59.0),
            running: Some(2),
            queued: Some(1),
            context: Some(32768),
            slots: Some(4),
            load_ms: Some(812.5),
            prefill_tokens_per_s: Some(480.0),
            decode_tokens_per_s: Some(131.4),
            bytes: Some(ModelBytes { weights: 4000, kv: 500, compute: 200 }),
            need: Some(4700),
            verdict: Some(Verdict {
                fit: Fit::IfUnloaded,
                context: Some(4096),
                unload: vec!["phi".to_owned()],
                gpu_layers: Some(20),
                slowdown: Some(2.5),
                say: "fits if phi is unloaded: needs 4.7 GB, free 3 GB".to_owned(),
            }),
            loading: Some((5, 10)),
        };
        assert_eq!(residency("qwen", &item), Some(expected));
    }

    #[test]
    fn what_is_not_told_is_not_zero() {
        let nothing = |id: &str| Residency { id: id.to_owned(), ..Residency::default() };
        assert_eq!(residency("a", &json!({"id": "a", "status": {"value": "loaded"}})), None);
        assert_eq!(residency("a", &json!({"id": "a", "duet": {"builtin": true, "path": "/a"}})), None);
        let wrong = json!({"pinned": "yes", "keep_alive": "long", "expires_s": -3, "running": -1, "context": 0,
            "bytes": {"weights": "many"}, "need": 0, "verdict": {"say": "?"}, "decode_tokens_per_s": 0});
        assert_eq!(residency("a", &json!({ "duet": wrong })), None);
        let nulls = json!({"duet": {"pinned": false, "keep_alive": null, "expires_s": null, "bytes": null, "need": null, "verdict": null}});
        assert_eq!(
            residency("a", &nulls),
            Some(Residency { pinned: Some(false), keep_alive: Some(KeepAlive::Default), ..nothing("a") })
        );
        for (wire, meant) in [(json!(-1), KeepAlive::ForEver), (json!(0), KeepAlive::Seconds(0))] {
            let item = json!({"duet": {"keep_alive": wire}});
            assert_eq!(residency("a", &item).and_then(|r| r.keep_alive), Some(meant));
        }
        let odd = json!({"duet": {"verdict": {"fit": "perhaps"}}});
        assert_eq!(residency("a", &odd).and_then(|r| r.verdict).map(|v| v.fit), Some(Fit::Unknown));
        let over = json!({"status": {"progress": {"bytes_done": 12, "bytes_total": 10}}});
        assert_eq!(residency("a", &over).and_then(|r| r.loading), Some((10, 10)));
    }

    #[test]
    fn a_machine() {
        let status = json!({
            "devices": [
                {"name": "CUDA0", "kind": "gpu", "description": "RTX 4090", "total": 24, "free": 6, "budget": 22, "reserved": 1},
                {"name": "CPU", "total": 0, "free": 0}, {"total": 3}, 7,
            ],
            "models": [
                {"id": "qwen", "device_bytes": [{"device": "CUDA0", "weights": 10, "kv": 4, "compute": 2}, {"device": "CPU", "weights": 1}]},
                {"id": "phi", "device_bytes": [{"device": "CUDA0", "weights": 1, "kv": 0, "compute": 0}]},
            ],
            "queue": 3,
        });
        let machine = machine(&status);
        assert_eq!(machine.devices.len(), 2);
        assert_eq!(
            machine.devices[1],
            Device { name: "CPU".to_owned(), ..Device::default() },
            "a device that does not say how much it has"
        );
        assert_eq!(
            (machine.used("CUDA0"), machine.used("CPU"), machine.used("other")),
            (Some(17), Some(1), Some(0))
        );
        assert_eq!(machine.queue, Some(3));

        let older = json!({"devices": [{"name": "CPU", "total": 8, "free": 4}], "models": [{"id": "a", "bytes": {"weights": 1}}]});
        assert_eq!(super::machine(&older).used("CPU"), None, "it does not say where its models lie");
        assert_eq!(super::machine(&json!("?")), Machine::default());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-z]{0,4}".prop_map(Value::from),
        ];
        let names = prop::sample::select(vec![
            "duet",
            "verdict",
            "fit",
            "unload",
            "bytes",
            "weights",
            "kv",
            "status",
            "progress",
            "bytes_done",
            "bytes_total",
            "keep_alive",
            "devices",
            "models",
            "device_bytes",
            "name",
            "id",
            "total",
        ]);
        leaf.prop_recursive(4, 32, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((names.clone(), inner), 0..6).prop_map(|fields| fields
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn nonsense_is_read_without_harm(value in any_json()) {
            let machine = machine(&value);
            for device in &machine.devices {
                let _ = machine.used(&device.name);
            }
            if let Some(residency) = residency("a", &value) {
                prop_assert!(residency.loading.is_none_or(|(done, total)| done <= total && total > 0));
                prop_assert!(residency.memory() != Some(0));
            }
        }
    }
}
