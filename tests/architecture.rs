//! The shape of the sources, read as text: layers, who may name what, file sizes. The layers are those of the table
//! in `src/lib.rs`. Only the program is held to them, not its tests. Every rule is shown to fail on a bad sample.
#![expect(clippy::string_slice, reason = "every index comes from match_indices or find")]
#![expect(clippy::expect_used, reason = "a helper that finds no sources has failed")]

use std::fs;
use std::path::Path;

/// Modules by layer, from the bottom. A module may import its own layer and those below it.
const LAYERS: [&[&str]; 7] = [
    &["chat", "text", "error", "paths", "logging"],
    &["router", "config", "keymap", "theme", "markdown", "prompts", "command"],
    &["backend", "engine", "store"],
    &["app"],
    &["ui"],
    &["runtime"],
    &["cli", "main", "lib"],
];

/// `(name, modules or files that may use it)`; everywhere else it is an error. `tokio::sync` in the store is plain
/// data between threads, so it has its own line.
const ONLY_IN: [(&str, &[&str]); 8] = [
    ("llama_cpp_2", &["engine"]),
    ("llama_cpp_sys_2", &["engine"]),
    ("ratatui", &["ui", "theme", "markdown", "runtime"]),
    ("tokio", &["runtime", "backend", "engine", "cli", "store"]),
    ("Color::Rgb", &["theme"]),
    ("Color::Indexed", &["theme"]),
    ("rusqlite", &["store"]),
    ("reqwest", &["backend"]),
];

/// `(module or file, what it must not name)`.
const NEVER_IN: [(&str, &str); 9] = [
    ("app", "std::fs"),
    ("app", "std::thread"),
    ("app", "std::net"),
    ("app", "std::process"),
    ("app", "std::env"),
    ("app", "Instant"),
    ("app", "SystemTime"),
    ("markdown/block.rs", "ratatui"),
    ("store", "tokio::{"),
];

/// More lines than this, tests not counted, and a file is split.
const MAX_LINES: usize = 700;

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// `app/turn.rs` and `app.rs` belong to `app`.
fn module_of(file: &str) -> &str {
    file.split('/').next().unwrap_or(file).trim_end_matches(".rs")
}

/// The source without its test tail, and nothing at all of a file of tests.
fn program(file: &str, source: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    if name == "tests.rs" || name.ends_with("_tests.rs") || file.contains("/tests/") {
        return String::new();
    }
    let tail = source.find("\n#[cfg(test)]\nmod ").unwrap_or(source.len());
    source[..tail].to_owned()
}

/// Without comments, line by line; a `//` inside a string goes too, which hides nothing the rules look for.
fn code(program: &str) -> String {
    program.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `name` stands as a whole word or path.
fn names(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + name.len()..].chars().next();
        !(before.is_some_and(is_word) || name.ends_with(is_word) && after.is_some_and(is_word))
    })
}

/// The top-level modules that a file names by `crate::…`, `duet::…`, `crate::{…}` or enough `super::`.
fn imports(file: &str, code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let depth = file.split('/').count();
    let climb = "super::".repeat(depth);
    for root in ["crate::", "duet::", climb.as_str()] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| is_word(c) || c == ':') {
                continue;
            }
            let rest = &code[at + root.len()..];
            if let Some(group) = rest.strip_prefix('{') {
                found.extend(group_heads(group));
            } else {
                found.push(rest.chars().take_while(|c| is_word(*c)).collect());
            }
        }
    }
    found.retain(|name| layer(name).is_some());
    found
}

/// `a::b, c::{d, e}, f}` gives `a`, `c`, `f`.
fn group_heads(group: &str) -> Vec<String> {
    let (mut heads, mut head, mut nesting, mut open) = (Vec::new(), String::new(), 0_usize, true);
    for c in group.chars() {
        match c {
            '{' => nesting += 1,
            '}' if nesting == 0 => break,
            '}' => nesting -= 1,
            ',' if nesting == 0 => {
                heads.push(std::mem::take(&mut head));
                open = true;
            }
            c if nesting == 0 && open && is_word(c) => head.push(c),
            c if nesting == 0 && !c.is_whitespace() => open = false,
            _ => {}
        }
    }
    heads.push(head);
    heads
}

/// Everything wrong with one file of `src/`, one line each. `file` is relative to `src/`.
fn faults(file: &str, source: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let module = module_of(file);
    let program = program(file, source);
    let code = code(&program);
    let Some(own) = layer(module) else {
        return vec![format!("{file}: module `{module}` is in no layer; add it to src/lib.rs and here")];
    };
    for import in imports(file, &code) {
        let theirs = layer(&import).unwrap_or(own);
        if theirs > own {
            faults.push(format!("{file}: L{own} imports `{import}` of L{theirs}"));
        } else if theirs == own && own == 2 && import != module {
            faults.push(format!("{file}: `{import}` is a sibling; L2 modules do not know each other"));
        } else if import == "engine" && module != "engine" && module != "cli" && module != "lib" {
            faults.push(format!("{file}: `engine` is imported by `cli` alone"));
        }
    }
    for (name, allowed) in ONLY_IN {
        if names(&code, name) && !allowed.contains(&module) {
            faults.push(format!("{file}: `{name}` is named in {} only", allowed.join(", ")));
        }
    }
    for (place, name) in NEVER_IN {
        if (place == module || place == file) && names(&code, name) {
            faults.push(format!("{file}: names `{name}`"));
        }
    }
    if module == "store"
        && code.match_indices("tokio::").any(|(at, _)| !code[at..].starts_with("tokio::sync"))
    {
        faults.push(format!("{file}: the store uses nothing of tokio but `tokio::sync`"));
    }
    let lines = program.lines().count();
    if lines > MAX_LINES {
        faults.push(format!("{file}: {lines} lines, split it (at most {MAX_LINES} without tests)"));
    }
    if file.ends_with("mod.rs") {
        faults.push(format!("{file}: write foo.rs and foo/, not mod.rs"));
    }
    if !source.starts_with("//!") {
        faults.push(format!("{file}: begins without a `//!` that says what it does"));
    }
    faults
}

/// Places of one machine, which have no business in any file.
fn machine_places(text: &str) -> Vec<String> {
    let marks = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("../sha", "red"),
        concat!("sha", "red/models"),
        concat!("find-", "links"),
    ];
    let at_word = |at: usize| text[..at].chars().next_back().is_some_and(|c| is_word(c) || c == '}');
    marks
        .iter()
        .filter(|mark| text.match_indices(**mark).any(|(at, _)| !at_word(at)))
        .map(|mark| (*mark).to_owned())
        .collect()
}

/// All files below a folder, as `(path relative to base, text)`; what is no text is passed over.
fn files(base: &Path, dir: &Path, into: &mut Vec<(String, String)>) {
    let mut entries: Vec<_> =
        fs::read_dir(dir).expect("a folder").map(|e| e.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(base, &path, into);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let name = path.strip_prefix(base).expect("below base").to_string_lossy().replace('\\', "/");
            into.push((name, text));
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn sources_keep_the_rules() {
    let mut all = Vec::new();
    files(&root().join("src"), &root().join("src"), &mut all);
    let rust: Vec<_> = all.iter().filter(|(name, _)| name.ends_with(".rs")).collect();
    assert!(rust.len() > 30, "the walk lost its way: {} files", rust.len());
    let faults: Vec<_> = rust.iter().flat_map(|(name, text)| faults(name, text)).collect();
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn nothing_names_one_machine() {
    let mut all = Vec::new();
    for dir in ["src", "tests", "benches", "themes", "prompts", ".ci", ".cargo", ".github"] {
        if root().join(dir).is_dir() {
            files(root(), &root().join(dir), &mut all);
        }
    }
    for entry in fs::read_dir(root()).expect("the repository").flatten() {
        // A worktree's .git is a file with a path in it.
        if entry.file_name() != ".git"
            && let Ok(text) = fs::read_to_string(entry.path())
        {
            all.push((entry.file_name().to_string_lossy().into_owned(), text));
        }
    }
    let found: Vec<_> = all
        .iter()
        .filter(|(name, _)| !name.contains("__pycache__"))
        .flat_map(|(name, text)| {
            machine_places(text).into_iter().map(move |place| format!("{name}: {place}"))
        })
        .collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn the_lock_file_has_one_source() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    let strange: Vec<_> = lock
        .lines()
        .filter(|line| line.starts_with("source = "))
        .filter(|line| *line != "source = \"registry+https://github.com/rust-lang/crates.io-index\"")
        .collect();
    assert!(strange.is_empty(), "{strange:?}");
}

#[test]
fn the_layers_are_those_of_the_crate() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs");
    let declared: Vec<_> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(!declared.is_empty());
    for (number, modules) in LAYERS.iter().enumerate() {
        let row = format!("| L{number} |");
        let row = lib.lines().find(|line| line.contains(&row)).expect("a row per layer");
        for module in modules.iter().filter(|module| **module != "lib") {
            assert!(row.contains(&format!("`{module}`")), "the table has no `{module}` in L{number}");
            assert!(*module == "main" || declared.contains(module), "`{module}` is not declared");
        }
    }
    for module in declared {
        assert!(layer(module).is_some(), "`{module}` is in no layer");
    }
}

/// Each rule, with a sample that breaks it and one that does not.
#[test]
fn every_rule_can_fail() {
    let long = "//!\n".repeat(MAX_LINES + 1);
    let bad = [
        ("chat/ids.rs", "//!\nuse crate::app::Model;", "imports `app`"),
        ("router.rs", "//!\nfn f() { crate::store::open(); }", "imports `store`"),
        ("ui/lanes.rs", "//!\nuse crate::{chat::{self, Id}, runtime::Startup};", "imports `runtime`"),
        ("app/turn.rs", "//!\nuse super::super::ui::draw;", "imports `ui`"),
        ("backend/http.rs", "//!\nuse crate::store::Store;", "sibling"),
        ("runtime/effects.rs", "//!\nuse crate::engine::Engine;", "`cli` alone"),
        ("ui.rs", "//!\nuse llama_cpp_2::model;", "`llama_cpp_2` is named"),
        ("app/update.rs", "//!\nuse ratatui::text::Line;", "`ratatui` is named"),
        ("app/update.rs", "//!\nlet now = std::time::Instant::now();", "names `Instant`"),
        ("app/update.rs", "//!\nuse std::fs;", "names `std::fs`"),
        ("app/update.rs", "//!\nuse std::thread::spawn;", "names `std::thread`"),
        ("app/update.rs", "//!\nuse tokio::sync::mpsc;", "`tokio` is named"),
        ("app.rs", "//!\nlet c = reqwest::Client::new();", "`reqwest` is named"),
        ("markdown/block.rs", "//!\nuse ratatui::text::Line;", "names `ratatui`"),
        ("ui/frame.rs", "//!\nlet c = Color::Rgb(1, 2, 3);", "`Color::Rgb`"),
        ("store/writer.rs", "//!\nuse tokio::time::sleep;", "but `tokio::sync`"),
        ("store/writer.rs", "//!\nuse tokio::{sync::mpsc, time};", "names `tokio::{`"),
        ("cli/chat.rs", "//!\nuse rusqlite::Connection;", "`rusqlite` is named"),
        ("cli/mod.rs", "//!\n", "not mod.rs"),
        ("chat.rs", "use std::fmt;", "begins without"),
        ("text/width.rs", long.as_str(), "lines, split it"),
        ("helpers.rs", "//!\n", "in no layer"),
    ];
    for (file, source, expected) in bad {
        let faults = faults(file, source);
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{file}: {source:.60} gave {faults:?}");
    }
    let tests =
        format!("//!\n\n#[cfg(test)]\nmod tests {{\n    use crate::cli;\n{}}}\n", "\n".repeat(MAX_LINES));
    let good = [
        (
            "app/turn.rs",
            "//! Not tokio, not std::fs.\nuse crate::chat::Id; // crate::ui\nuse super::msg::Msg;",
        ),
        ("cli/engine.rs", "//!\nuse crate::engine::Engine;\nuse tokio::runtime;"),
        ("store/writer.rs", "//!\nuse tokio::sync::mpsc;"),
        ("markdown/stream.rs", "//!\nuse ratatui::text::Line;"),
        ("app/tests.rs", "//!\nuse crate::ui;"),
        ("main.rs", "//!\nuse duet::cli;"),
        ("chat/ids.rs", tests.as_str()),
    ];
    for (file, source) in good {
        assert_eq!(faults(file, source), Vec::<String>::new());
    }
    for mark in [concat!("see /wo", "rk/x"), concat!("\"/ro", "ot/a\""), concat!("in ../sha", "red")] {
        assert_eq!(machine_places(mark).len(), 1, "{mark}");
    }
    assert!(machine_places("a net{home}/work/ of frame/work/s").is_empty());
}
