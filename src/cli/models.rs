//! `tui models`: what there is, what is resident, what would fit; loading, unloading and pinning.

use super::args::{ModelsArgs, ModelsCommand, OnArgs};
use super::out::{self, Progress};
use super::{report, target};
use crate::backend::{Backend, Backends, LOCAL, LoadWish};
use crate::chat::Change;
use crate::config::Config;
use crate::error::{AppError, Exit};
use crate::paths::Paths;
use crate::text::shown_line;
use crate::text::width::width;
use serde_json::Value;
use std::path::Path;
use tokio::signal::unix::{SignalKind, signal};

/// Does what was asked; without a command, lists.
///
/// # Errors
/// One or two lines each.
pub(super) fn run(
    command: Option<&ModelsCommand>,
    bare: &ModelsArgs,
    config: &Config,
    paths: &Paths,
    config_file: Option<&Path>,
) -> Result<Exit, AppError> {
    let backends = Backends::new(config, paths, config_file).map_err(target::bad_address)?;
    let on = match command {
        None => &bare.on,
        Some(ModelsCommand::List(args)) => &args.on,
        Some(
            ModelsCommand::Load { on, .. }
            | ModelsCommand::Unload { on, .. }
            | ModelsCommand::Pin { on, .. }
            | ModelsCommand::Unpin { on, .. },
        ) => on,
    };
    let backend = chosen(on, &backends)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| AppError::new(Exit::Error, format!("cannot start: {error}")))?;
    runtime.block_on(async {
        match command {
            None => list(backend, bare.json).await,
            Some(ModelsCommand::List(args)) => list(backend, args.json).await,
            Some(ModelsCommand::Load { model, context, pin, keep_alive, on: _ }) => {
                let wish = LoadWish { context: *context, pin: pin.then_some(true), keep_alive: *keep_alive };
                load(backend, model, wish).await
            }
            Some(ModelsCommand::Unload { model, on: _ }) => {
                let was_there = backend.unload(model).await?;
                let name = shown_line(model, 80);
                out::note(&if was_there {
                    format!("{name} is unloaded")
                } else {
                    format!("{name} was not resident")
                });
                Ok(Exit::Ok)
            }
            Some(ModelsCommand::Pin { model, on: _ }) => pin(backend, model, true).await,
            Some(ModelsCommand::Unpin { model, on: _ }) => pin(backend, model, false).await,
        }
    })
}

fn chosen<'a>(on: &OnArgs, backends: &'a Backends) -> Result<&'a Backend, AppError> {
    let name = on.backend.as_deref();
    let found = match name {
        Some(name) => backends.get(name),
        None => backends.get(LOCAL).or_else(|| backends.all().first()),
    };
    found.ok_or_else(|| {
        let known: Vec<&str> = backends.all().iter().map(Backend::name).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let what = name.map_or_else(|| "no backend".to_owned(), |name| format!("no backend `{name}`"));
        AppError::new(Exit::Usage, format!("{what}; there is {known}"))
            .hint("`tui config show` prints the backends there are")
    })
}

async fn list(backend: &Backend, as_json: bool) -> Result<Exit, AppError> {
    let models = backend.model_list().await?;
    if as_json {
        for model in &models {
            if report::line(model).is_err() {
                // Whoever read the list has enough of it.
                break;
            }
        }
        return Ok(Exit::Ok);
    }
    if models.is_empty() {
        out::note("there are no models");
    } else {
        out::answer(&table(&models, columns()));
    }
    Ok(Exit::Ok)
}

async fn pin(backend: &Backend, model: &str, is_pinned: bool) -> Result<Exit, AppError> {
    backend.change(model, Change::Pin(is_pinned)).await?;
    let name = shown_line(model, 80);
    out::note(&if is_pinned {
        let models = backend.model_list().await.unwrap_or_default();
        let is_resident = models.iter().any(|m| m["id"] == model && m["status"]["value"] == "loaded");
        let when = if is_resident { "it" } else { "once loaded, it" };
        format!("{name} is pinned: {when} stays until you unload it or the engine ends")
    } else {
        format!("{name} may leave when it is idle")
    });
    Ok(Exit::Ok)
}

/// Loads and waits, with progress on stderr. Ctrl+C stops the load.
async fn load(backend: &Backend, model: &str, wish: LoadWish) -> Result<Exit, AppError> {
    let mut interrupt = signal(SignalKind::interrupt())
        .map_err(|error| AppError::new(Exit::Error, format!("cannot watch for Ctrl+C: {error}")))?;
    let mut progress = Progress::new(false);
    let name = shown_line(model, 40);
    progress.set(&format!("loading {name}"));
    let result = tokio::select! {
        result = backend.load_as(model, wish, |part, bytes| {
            progress.set(&loading_line(&name.to_string(), f64::from(part), bytes));
        }) => result,
        _ = interrupt.recv() => {
            progress.clear();
            let was_there = backend.unload(model).await?;
            out::note(if was_there { "the load was stopped" } else { "stopped" });
            return Ok(Exit::Interrupted);
        }
    };
    progress.clear();
    let id = result?;
    let list = backend.model_list().await?;
    let resident = list.into_iter().find(|m| m["id"] == id.as_str()).unwrap_or_default();
    let duet = &resident["duet"];
    out::note(&format!(
        "{} is resident{}{}{}",
        shown_line(&id, 80),
        duet["need"].as_u64().map(|n| format!(": {}", size(n))).unwrap_or_default(),
        duet["context"].as_u64().map(|n| format!(", {n} tokens of context")).unwrap_or_default(),
        duet["load_ms"].as_f64().map(|ms| format!(", loaded in {:.1} s", ms / 1000.0)).unwrap_or_default(),
    ));
    Ok(Exit::Ok)
}

/// `part` from 0 to 1, and bytes read and in all where they are known.
fn loading_line(name: &str, part: f64, bytes: Option<(u64, u64)>) -> String {
    match bytes {
        None | Some((_, 0)) => format!("loading {name}"),
        Some((done, total)) => {
            format!("loading {name}: {} of {} ({:.0} %)", size(done), size(total), part * 100.0)
        }
    }
}

/// A size for people: `1.4 GiB`.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, one)| bytes >= *one) {
        Some((unit, one)) => format!("{:.1} {unit}", bytes as f64 / *one as f64),
        None => format!("{bytes} B"),
    }
}

/// How many weights: `2.1M`, `8.0B`.
fn parameters(count: u64) -> String {
    let n = count as f64;
    match count {
        0..950_000 => format!("{:.0}k", n / 1e3),
        950_000..950_000_000 => format!("{:.1}M", n / 1e6),
        _ => format!("{:.1}B", n / 1e9),
    }
}

/// Columns a line of the table may take: the terminal's; as many as it needs where the list goes elsewhere.
fn columns() -> usize {
    let stdout = std::io::stdout();
    match rustix::termios::tcgetwinsize(stdout) {
        Ok(size) if size.ws_col > 0 => size.ws_col.into(),
        _ => usize::MAX,
    }
}

/// The models as lines of columns, and below one that can't be loaded why. A state for which `columns` are too
/// few goes below its model.
fn table(models: &[Value], columns: usize) -> String {
    let head = ["", "MODEL", "WEIGHTS", "QUANT", "CONTEXT", "SIZE", "STATE"].map(str::to_owned);
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(models.iter().map(row)).collect();
    let widths: [usize; 7] = std::array::from_fn(|i| {
        rows.iter().filter_map(|row| row.get(i)).map(|cell| width(cell)).max().unwrap_or(0)
    });
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(widths).enumerate().map(|(i, (cell, wide))| {
            let gap = " ".repeat(wide.saturating_sub(width(cell)));
            match i {
                // Numbers stand at the right of their column.
                2 | 4 | 5 => format!("{gap}{cell}"),
                6 => cell.clone(),
                _ => format!("{cell}{gap}"),
            }
        });
        let mut cells: Vec<String> = cells.collect();
        let all = cells.join("  ").trim_end().to_owned();
        if width(&all) <= columns {
            return all;
        }
        let state = cells.pop().unwrap_or_default();
        format!("{}\n     {state}", cells.join("  ").trim_end())
    };
    let whys = std::iter::once(None).chain(models.iter().map(why));
    let lines = rows.iter().zip(whys).map(|(row, why)| match why {
        Some(why) => format!("{}\n     {why}", line(row)),
        None => line(row),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Why a model can't be loaded. Foreign.
fn why(model: &Value) -> Option<String> {
    let verdict = &model["duet"]["verdict"];
    let why = match model["status"]["value"].as_str() {
        Some("loaded" | "loading") => return None,
        _ if model["status"]["failed"] == true => &model["status"]["error"],
        _ if verdict["fit"] == "does_not_fit" || verdict["fit"] == "no_room" => &verdict["say"],
        _ => return None,
    };
    let why = shown_line(why.as_str().unwrap_or_default(), 300).to_string();
    (!why.is_empty()).then_some(why)
}

/// What would become of a load, in a few words. Foreign.
fn verdict(duet: &Value) -> String {
    let verdict = &duet["verdict"];
    let needs = || duet["need"].as_u64().map(|n| format!(", needs {}", size(n))).unwrap_or_default();
    match verdict["fit"].as_str() {
        Some("fits") => format!("fits{}", needs()),
        Some("smaller_context") => match verdict["context"].as_u64() {
            Some(context) => format!("fits with {context} tokens"),
            None => "fits with less context".to_owned(),
        },
        Some("if_unloaded") => match verdict["unload"].as_array().map(Vec::as_slice) {
            Some([only]) => {
                format!("fits if {} goes", &*shown_line(only.as_str().unwrap_or_default(), 48))
            }
            Some([_, _, ..]) => "fits if others go".to_owned(),
            _ => "fits if another goes".to_owned(),
        },
        Some("partial") => "fits in part".to_owned(),
        Some("no_room") => format!("no room now{}", needs()),
        Some("does_not_fit") => format!("does not fit{}", needs()),
        _ => String::new(),
    }
}

/// One model. Everything in it is foreign.
fn row(model: &Value) -> [String; 7] {
    let text =
        |value: &Value, cells: usize| shown_line(value.as_str().unwrap_or_default(), cells).to_string();
    let number = |value: &Value, show: fn(u64) -> String| {
        value.as_u64().filter(|n| *n > 0).map(show).unwrap_or_default()
    };
    let (meta, duet, status) = (&model["meta"], &model["duet"], &model["status"]);
    let context = if duet["context"].is_u64() { &duet["context"] } else { &meta["n_ctx_train"] };
    let (mark, state) = match status["value"].as_str() {
        Some("loaded") => ("●", resident(duet)),
        Some("loading") => {
            let progress = &status["progress"];
            let bytes = progress["bytes_done"].as_u64().zip(progress["bytes_total"].as_u64());
            let line = loading_line("", progress["value"].as_f64().unwrap_or(0.0), bytes);
            ("◐", line.replace(" :", ":").trim().to_owned())
        }
        _ if status["failed"] == true => ("✕", "failed".to_owned()),
        _ => ("○", verdict(duet)),
    };
    let embeds = model["architecture"]["output_modalities"] == serde_json::json!(["embeddings"]);
    let is_pinned = duet["pinned"] == true && mark != "●";
    let host = model["hosted_by"].as_str().map(|host| format!("runs at {}", shown_line(host, 48)));
    let parts = [
        host,
        embeds.then(|| "embeddings".to_owned()),
        Some(state).filter(|state| !state.is_empty()),
        is_pinned.then(|| "pinned".to_owned()),
    ];
    let state = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let quantisation = if duet["quantisation"].is_string() { &duet["quantisation"] } else { &meta["ftype"] };
    [
        mark.to_owned(),
        text(&model["id"], 48),
        number(&meta["n_params"], parameters),
        text(quantisation, 12),
        number(context, |n| n.to_string()),
        number(&meta["size"], size),
        state,
    ]
}

/// `resident, 4.2 GiB, pinned`, `resident, 4.2 GiB, leaves in 30 min`.
fn resident(duet: &Value) -> String {
    let mut parts = vec!["resident".to_owned()];
    parts.extend(duet["need"].as_u64().map(size));
    let seconds = |s: f64| if s < 120.0 { format!("{s:.0} s") } else { format!("{:.0} min", s / 60.0) };
    match (duet["running"].as_u64().unwrap_or(0), duet["queued"].as_u64().unwrap_or(0)) {
        (0, 0) if duet["pinned"] == true || duet["expires_s"].is_number() => {}
        (0, 0) => parts.extend(duet["idle_s"].as_f64().map(|s| format!("idle for {}", seconds(s)))),
        (running, 0) => parts.push(format!("answering {running}")),
        (running, queued) => parts.push(format!("answering {running}, {queued} waiting")),
    }
    if duet["pinned"] == true {
        parts.push("pinned".to_owned());
    }
    parts.extend(duet["expires_s"].as_f64().map(|s| format!("leaves in {}", seconds(s))));
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_list_is_columns_for_people() {
        let models = [
            json!({"id": "builtin", "meta": {"n_params": 2_100_000, "size": 2_158_400, "n_ctx_train": 1024},
                "status": {"value": "loaded"}, "duet": {"quantisation": "f16", "context": 512, "need": 12_000_000,
                "idle_s": 12.2, "pinned": true, "running": 0, "queued": 0, "expires_s": null}}),
            json!({"id": "qwen3-8b", "meta": {"n_params": 8_190_000_000_u64, "size": 5_027_783_488_u64, "n_ctx_train": 40960},
                "status": {"value": "unloaded"}, "duet": {"quantisation": "q4_k_m",
                "verdict": {"fit": "if_unloaded", "unload": ["builtin"], "say": "fits if builtin is unloaded"}}}),
            json!({"id": "big", "meta": {}, "status": {"value": "loading", "progress": {"value": 0.25,
                "bytes_done": 1_u64 << 30, "bytes_total": 4_u64 << 30}}, "duet": {}}),
            json!({"id": "bad\u{1b}[2J", "status": {"value": "unloaded", "failed": true, "error": "cut off\nnext"}}),
            json!({"id": "small", "status": {"value": "unloaded"}, "duet": {"need": 3 << 20,
                "verdict": {"fit": "fits", "say": "fits: needs 3.0 MiB (weights and all the rest)"}}}),
            json!({"id": "bert", "status": {"value": "unloaded"}, "architecture": {"output_modalities": ["embeddings"]},
                "meta": {"n_params": 30_000}, "duet": {"need": 3 << 20, "pinned": true, "verdict": {"fit": "fits"}}}),
            json!({"id": "huge", "status": {"value": "unloaded"}, "duet": {"need": 40_u64 << 30,
                "verdict": {"fit": "does_not_fit", "say": "does not fit: 40.0 GiB are needed"}}}),
            json!({"id": "elsewhere", "hosted_by": "https://ollama.com"}),
            json!(5),
        ];
        insta::assert_snapshot!(table(&models, 80), @"
           MODEL      WEIGHTS  QUANT   CONTEXT     SIZE  STATE
        ●  builtin       2.1M  f16         512  2.1 MiB  resident, 11.4 MiB, pinned
        ○  qwen3-8b      8.2B  q4_k_m    40960  4.7 GiB  fits if builtin goes
        ◐  big
             loading: 1.0 GiB of 4.0 GiB (25 %)
        ✕  bad␛[2J                                       failed
             cut off next
        ○  small                                         fits, needs 3.0 MiB
        ○  bert           30k
             embeddings, fits, needs 3.0 MiB, pinned
        ○  huge                                          does not fit, needs 40.0 GiB
             does not fit: 40.0 GiB are needed
        ○  elsewhere                                     runs at https://ollama.com
        ○
        ");
        let busy = json!({"need": 1 << 20, "running": 2, "queued": 1, "expires_s": 1800.0, "pinned": false});
        assert_eq!(resident(&busy), "resident, 1.0 MiB, answering 2, 1 waiting, leaves in 30 min");
    }

    #[test]
    fn another_machine_is_told_apart() {
        let on = |name: Option<&str>| OnArgs { backend: name.map(str::to_owned) };
        let at = std::path::PathBuf::from("/tmp/duet-nowhere");
        let paths = Paths { config: at.clone(), data: at.clone(), cache: at.clone(), runtime: at };
        let server = crate::config::BackendConfig {
            name: "mac".to_owned(),
            url: "http://mac:8080".to_owned(),
            ..crate::config::BackendConfig::default()
        };
        let config = Config { backends: vec![server], ..Config::default() };
        let backends = Backends::new(&config, &paths, None).expect("backends");
        assert_eq!(chosen(&on(Some("mac")), &backends).map(Backend::name), Ok("mac"));
        let error = chosen(&on(Some("nowhere")), &backends).map(Backend::name).expect_err("not there");
        assert!(error.message.contains("no backend `nowhere`") && error.message.contains("mac"), "{error}");
    }
}
