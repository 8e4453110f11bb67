//! Reading `config.toml`: total, strict, with the line of what is wrong.

use super::Config;
use crate::error::{AppError, Exit};
use crate::paths::{FileTrouble, expand_home, read_file};
use std::ops::Range;
use std::path::Path;

const MAX_BYTES: u64 = 1 << 20;

/// The configuration: from `explicit` if the person named a file, else from `default`, which may be absent.
/// `~` is expanded and relative folders are taken from the file's.
///
/// # Errors
/// Names the file, the line, the key, what is wrong with it, and the nearest key or value there is.
/// Exit code 2.
pub fn load(default: &Path, explicit: Option<&Path>) -> Result<Config, AppError> {
    let path = explicit.unwrap_or(default);
    let bytes = match read_file(path, MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(FileTrouble::Missing) if explicit.is_none() => return Ok(Config::default()),
        Err(trouble) => {
            return Err(AppError::new(Exit::Usage, format!("{}: {trouble}", path.display()))
                .hint("name a configuration file, or leave out --config"));
        }
    };
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let line = line_of(&bytes, error.valid_up_to());
        AppError::new(Exit::Usage, format!("{}:{line}: not UTF-8 text", path.display()))
            .hint("save the file as UTF-8")
    })?;
    read(text, path)
}

/// The configuration in this text, as if it stood in this file.
///
/// # Errors
/// As [`load`].
pub fn read(text: &str, path: &Path) -> Result<Config, AppError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut config = parse(text, path)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    for dir in &mut config.engine.model_dirs {
        *dir = folder.join(expand_home(dir));
    }
    for backend in &mut config.backends {
        if let Some(file) = &mut backend.token_file {
            *file = folder.join(expand_home(file));
        }
    }
    for path in [&mut config.serve.tls_cert, &mut config.serve.tls_key].into_iter().flatten() {
        *path = folder.join(expand_home(path));
    }
    if let Some(model) = &mut config.model
        && model.starts_with("~/")
    {
        *model = expand_home(Path::new(model)).to_string_lossy().into_owned();
    }
    let drafts = config.engine.models.iter_mut().filter_map(|model| model.draft_model.as_mut());
    for model in drafts.chain(&mut config.pool.model) {
        if model.starts_with("~/") || model.starts_with("./") {
            *model = folder.join(expand_home(Path::new(model))).to_string_lossy().into_owned();
        }
    }
    check(&config, path)?;
    Ok(config)
}

fn parse(text: &str, path: &Path) -> Result<Config, AppError> {
    let error_at = |span: Option<Range<usize>>, what: &str| {
        let place = match span {
            Some(span) => format!("{}:{}", path.display(), line_of(text.as_bytes(), span.start)),
            None => path.display().to_string(),
        };
        AppError::new(Exit::Usage, format!("{place}: {what}"))
    };
    let document = toml::Deserializer::parse(text).map_err(|error| {
        let message = error.message().lines().next().unwrap_or("not TOML");
        error_at(error.span(), message).hint("see https://toml.io for the syntax")
    })?;
    serde_path_to_error::deserialize(document).map_err(|error| {
        let key = error.path().to_string();
        let inner = error.inner();
        let message = inner.message().lines().next().unwrap_or_default();
        let mut quoted = message.split('`').skip(1).step_by(2);
        if message.starts_with("unknown field") || message.starts_with("unknown variant") {
            let wrong = quoted.next().unwrap_or_default();
            let known: Vec<&str> = quoted.collect();
            let what = if message.starts_with("unknown field") {
                format!("unknown key `{}`", full_name(&key, wrong))
            } else {
                format!("`{key}` can't be \"{wrong}\"")
            };
            error_at(inner.span(), &what).hint(nearest(wrong, &known))
        } else {
            let message = message.replace("u32", "a whole number, 0 or more");
            let message = message.replace("u64", "a whole number, 0 or more");
            let hint = if message.starts_with("missing field") {
                "every [[backend]] needs a `name` and a `url`"
            } else {
                "leave it out for the default"
            };
            error_at(inner.span(), &format!("`{key}`: {message}")).hint(hint)
        }
    })
}

/// The dotted name of an unknown key, whether or not the path already ends with it.
fn full_name(path: &str, key: &str) -> String {
    match path {
        "." | "" => key.to_owned(),
        path if path == key || path.ends_with(&format!(".{key}")) => path.to_owned(),
        path => format!("{path}.{key}"),
    }
}

fn nearest(wrong: &str, known: &[&str]) -> String {
    let best = known
        .iter()
        .map(|name| (strsim::jaro_winkler(wrong, name), name))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None => format!("there is {}", known.join(", ")),
    }
}

/// Conversations one model may serve at once.
const MAX_SLOTS: u32 = 64;

/// What the types can't say.
fn check(config: &Config, path: &Path) -> Result<(), AppError> {
    let wrong = |what: String, hint: &str| {
        Err(AppError::new(Exit::Usage, format!("{}: {what}", path.display())).hint(hint))
    };
    for (index, backend) in config.backends.iter().enumerate() {
        let name = &backend.name;
        if name.is_empty() || name.contains(|c: char| c.is_control() || c.is_whitespace() || c == '/') {
            return wrong(
                format!("backend {} has the name {name:?}", index + 1),
                "a name is one word without `/`, as `mac`",
            );
        }
        if name == "local" {
            return wrong(
                "a backend is named `local`".to_owned(),
                "`local` is the engine of this machine; choose another name",
            );
        }
        if config.backends.iter().take(index).any(|before| &before.name == name) {
            return wrong(format!("two backends are named `{name}`"), "rename one of them");
        }
    }
    for backend in &config.backends {
        if let Err(bad) = backend.check() {
            return wrong(format!("backend `{}`: {}", backend.name, bad.what), &bad.next);
        }
    }
    if let Err((what, hint)) = config.route.check(&config.aliases, &config.backends) {
        return wrong(what, &hint);
    }
    if config.engine.slots > MAX_SLOTS {
        return wrong(format!("`engine.slots` can be {MAX_SLOTS} at most"), "4 is the default");
    }
    if config.engine.context == 0 || config.engine.slots == 0 {
        return wrong(
            "`engine.context` and `engine.slots` can't be 0".to_owned(),
            "leave them out for the defaults",
        );
    }
    check_models(config).or_else(|(what, hint)| wrong(what, hint))?;
    if let Err((what, hint)) = config.serve.check() {
        return wrong(what, hint);
    }
    if let Err((what, next)) = config.pool.check() {
        return wrong(what, &next);
    }
    super::check_sampling(&config.sampling).or_else(|(key, why)| {
        wrong(format!("`sampling.{key}` {why}"), "leave it out for the model's default")
    })
}

/// `keep_alive` and `[[engine.models]]`.
fn check_models(config: &Config) -> Result<(), (String, &'static str)> {
    let engine = &config.engine;
    let alive = "-1 is for ever, 0 unloads a model as soon as it is idle";
    if engine.keep_alive < -1 {
        return Err(("`engine.keep_alive` can't be below -1".to_owned(), alive));
    }
    for (index, model) in engine.models.iter().enumerate() {
        let name = if model.id.is_empty() { (index + 1).to_string() } else { format!("`{}`", model.id) };
        let of = |what: &str| format!("[[engine.models]] {name}: {what}");
        if model.id.trim().is_empty() {
            return Err((of("has no `id`"), "the id is what `tui models` lists"));
        }
        if engine.models.iter().take(index).any(|before| before.id == model.id) {
            return Err((of("is there twice"), "join the two"));
        }
        if model.keep_alive.is_some_and(|seconds| seconds < -1) {
            return Err((of("`keep_alive` can't be below -1"), alive));
        }
        if model.context == Some(0) {
            return Err((of("`context` can't be 0"), "leave it out for that of [engine]"));
        }
        if let Some(draft) = &model.draft_model {
            if draft.trim().is_empty() {
                return Err((of("`draft_model` is empty"), "leave it out to have none"));
            }
            if *draft == model.id {
                return Err((
                    of("is its own `draft_model`"),
                    "name a smaller model with the same vocabulary",
                ));
            }
        }
        if model.slots.is_some_and(|slots| slots == 0 || slots > MAX_SLOTS) {
            return Err((of("`slots` must be 1 to 64"), "leave it out for that of [engine]"));
        }
    }
    Ok(())
}

fn line_of(text: &[u8], offset: usize) -> usize {
    text.iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BackendConfig, ByteSize, ClipboardMode, EngineModelConfig, GpuLayers};
    use pretty_assertions::assert_eq;

    fn read(text: impl AsRef<[u8]>) -> Result<Config, AppError> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).expect("written");
        load(Path::new("/nonexistent/config.toml"), Some(&path)).map_err(|mut error| {
            error.message = error.message.replace(&path.display().to_string(), "FILE");
            error
        })
    }

    fn refused(text: impl AsRef<[u8]>) -> String {
        let error = read(text).expect_err("refused");
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.message.lines().count() == 1, "{error}");
        error.to_string()
    }

    #[test]
    fn everything_has_a_default() {
        assert_eq!(read(""), Ok(Config::default()));
        assert_eq!(read("\u{feff}# only a comment\r\n"), Ok(Config::default()));
        let nowhere = Path::new("/nonexistent/config.toml");
        assert_eq!(load(nowhere, None), Ok(Config::default()));
        let error = load(nowhere, Some(nowhere)).expect_err("named, so it must be there");
        assert_eq!(error.message, "/nonexistent/config.toml: no such file");
    }

    #[test]
    fn everything_can_be_set() {
        let config = read(
            r#"
            model = "mac/llama"
            theme = "light"
            system = "Be brief."
            save = false
            max_tokens = 100
            [sampling]
            temperature = 1
            seed = 7
            [engine]
            context = 4096
            model_dirs = ["/models", "near", "~/far"]
            memory = "20GiB"
            keep_alive = -1
            preload = ["builtin"]
            gpu_layers = 12
            [[engine.models]]
            id = "large"
            pinned = true
            keep_alive = 0
            draft_model = "./small.gguf"
            [clipboard]
            mode = "osc52"
            [[backend]]
            name = "mac"
            url = "https://mac:8080"
            token_env = "MAC_TOKEN"
            "#,
        )
        .expect("fine");
        assert_eq!(config.sampling.temperature, Some(1.0));
        assert_eq!(config.clipboard.mode, ClipboardMode::Osc52);
        assert_eq!(
            config.backends,
            [BackendConfig {
                name: "mac".to_owned(),
                url: "https://mac:8080".to_owned(),
                token_env: Some("MAC_TOKEN".to_owned()),
                ..BackendConfig::default()
            }]
        );
        assert_eq!(config.engine.memory, Some(ByteSize(20 << 30)));
        assert_eq!((config.engine.keep_alive, config.engine.gpu_layers), (-1, GpuLayers::Count(12)));
        assert_eq!(
            config.engine.models,
            [EngineModelConfig {
                id: "large".to_owned(),
                pinned: true,
                keep_alive: Some(0),
                draft_model: config.engine.models[0].draft_model.clone(),
                ..EngineModelConfig::default()
            }]
        );
        let draft = config.engine.models[0].draft_model.as_deref().map(Path::new).expect("one");
        assert!(draft.is_absolute() && draft.ends_with("small.gguf"), "{draft:?}");
        let shown = toml::to_string(&config).expect("it can be shown");
        assert!(shown.contains("memory = \"20GiB\"") && shown.contains("gpu_layers = 12"), "{shown}");
        let dirs = &config.engine.model_dirs;
        assert_eq!(dirs[0], Path::new("/models"));
        assert!(dirs[1].is_absolute() && dirs[1].ends_with("near"));
        assert!(
            dirs[2].is_absolute() && dirs[2].ends_with("far") && !dirs[2].to_string_lossy().contains('~')
        );
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        insta::assert_snapshot!(
            [
                refused("theme = \"x\"\nmodle = \"x\""),
                refused("[sampling]\n\ntemprature = 1"),
                refused("[engine]\nzebra = 1"),
                refused("[[backend]]\nname = \"a\"\nurl = \"u\"\ntoken = \"secret\""),
                refused("[[backend]]\nname = \"a\""),
                refused("[clipboard]\nmode = \"ocs52\""),
                refused("save = \"yes\""),
                refused("[engine]\ncontext = -1"),
                refused("[engine]\ncontext = 0"),
                refused("[engine]\nmemory = \"lots\""),
                refused("[engine]\ngpu_layers = \"all\""),
                refused("[engine]\nkeep_alive = -2"),
                refused("[[engine.models]]\npinned = true"),
                refused("[[engine.models]]\nid = \"a\"\nslots = 0"),
                refused("[[engine.models]]\nid = \"a\"\nkeepalive = 5"),
                refused("[[engine.models]]\nid = \"a\"\ndraft_model = \"a\""),
                refused("[[engine.models]]\nid = \"a\"\ndraft_model = \" \""),
                refused("[sampling]\ntemperature = nan"),
                refused("a = = 1"),
                refused("[engine]\n[engine]"),
                refused(b"theme = \"ok\"\nmodel = \"\xff\""),
                refused("[[backend]]\nname = \"local\"\nurl = \"u\""),
                refused("[[backend]]\nname = \"a b\"\nurl = \"u\""),
                refused("[[backend]]\nname = \"a\"\nurl = \"u\"\n[[backend]]\nname = \"a\"\nurl = \"v\""),
                refused("[[backend]]\nname = \"a\"\nurl = \"mac:8080\""),
                refused("[[backend]]\nname = \"a\"\nurl = \"http://mac\"\ntoken_env = \"K\""),
            ]
            .join("\n"),
            @r#"
        FILE:2: unknown key `modle`
        hint: did you mean `model`?
        FILE:3: unknown key `sampling.temprature`
        hint: did you mean `temperature`?
        FILE:2: unknown key `engine.zebra`
        hint: there is linger, context, threads, slots, model_dirs, memory, keep_alive, preload, gpu_layers, cache_memory, cache_disk, draft, models
        FILE:4: unknown key `backend[0].token`
        hint: did you mean `token_env`?
        FILE:1: `backend[0]`: missing field `url`
        hint: every [[backend]] needs a `name` and a `url`
        FILE:2: `clipboard.mode` can't be "ocs52"
        hint: did you mean `osc52`?
        FILE:1: `save`: invalid type: string "yes", expected a boolean
        hint: leave it out for the default
        FILE:2: `engine.context`: invalid value: integer `-1`, expected a whole number, 0 or more
        hint: leave it out for the default
        FILE: `engine.context` and `engine.slots` can't be 0
        hint: leave them out for the defaults
        FILE:2: `engine.memory`: invalid value: string "lots", expected a size, as "20GiB" or a number of bytes
        hint: leave it out for the default
        FILE:2: `engine.gpu_layers`: invalid value: string "all", expected "auto" or a whole number, 0 or more
        hint: leave it out for the default
        FILE: `engine.keep_alive` can't be below -1
        hint: -1 is for ever, 0 unloads a model as soon as it is idle
        FILE: [[engine.models]] 1: has no `id`
        hint: the id is what `tui models` lists
        FILE: [[engine.models]] `a`: `slots` must be 1 to 64
        hint: leave it out for that of [engine]
        FILE:3: unknown key `engine.models[0].keepalive`
        hint: did you mean `keep_alive`?
        FILE: [[engine.models]] `a`: is its own `draft_model`
        hint: name a smaller model with the same vocabulary
        FILE: [[engine.models]] `a`: `draft_model` is empty
        hint: leave it out to have none
        FILE: `sampling.temperature` must be between 0 and 5
        hint: leave it out for the model's default
        FILE:1: extra `=`, expected nothing
        hint: see https://toml.io for the syntax
        FILE:2: duplicate key
        hint: see https://toml.io for the syntax
        FILE:2: not UTF-8 text
        hint: save the file as UTF-8
        FILE: a backend is named `local`
        hint: `local` is the engine of this machine; choose another name
        FILE: backend 1 has the name "a b"
        hint: a name is one word without `/`, as `mac`
        FILE: two backends are named `a`
        hint: rename one of them
        FILE: backend `a`: the address has no scheme: `mac:8080`
        hint: write http://mac:8080
        FILE: backend `a`: a key is not sent over plain http to another machine
        hint: use https://, or `ssh = "host"` for a tunnel
        "#
        );
    }

    #[test]
    fn odd_files_are_refused() {
        let none = Path::new("/nonexistent/config.toml");
        let error = load(none, Some(Path::new("/"))).expect_err("refused");
        assert_eq!(error.message, "/: it is a folder, not a file");
        let error = load(none, Some(Path::new("/dev/zero"))).expect_err("refused");
        assert_eq!(error.message, "/dev/zero: it is a device, not a file");
        assert_eq!(
            refused("#".repeat(2 << 20)),
            "FILE: it is larger than 1024 KiB\nhint: name a configuration file, or leave out --config"
        );
        refused(format!("a = {}1{}", "[".repeat(5000), "]".repeat(5000)));
    }
}
