//! `tui backends add`: a new backend in the configuration file, once it was looked at.

use super::{Context, ask, discover, file, list};
use crate::backend::{Backend, Examination, Kept, LOCAL, keep_key};
use crate::chat::GenErrorKind;
use crate::cli::out;
use crate::config::{BackendConfig, BackendKind, ByteSize};
use crate::error::{AppError, Exit};
use clap::Args;
use futures_util::future::join_all;
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use std::time::Duration;

/// Where servers listen by themselves, the likelier ones first.
const PORTS: [(u16, &str); 7] = [
    (7411, "tui serve"),
    (8080, "llama-server, llama-swap, mlx_lm.server"),
    (11434, "Ollama"),
    (1234, "LM Studio"),
    (8000, "vLLM"),
    (52415, "exo"),
    (13305, "Lemonade"),
];
/// How long is listened for announcements.
const LISTEN: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// What to call it, as in `--on NAME`
    #[arg(value_name = "NAME")]
    name: String,
    /// Its address: http://, https://, ssh:// or unix://. A host alone: the usual ports are tried
    #[arg(value_name = "URL", required_unless_present = "discover")]
    url: Option<String>,
    /// Listen for a server that announces itself in the local network
    #[arg(long, conflicts_with = "url")]
    discover: bool,
    /// Model to ask for when none is named
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// What it is; found out by asking it where left out
    #[arg(long, value_name = "KIND", value_parser = word::<BackendKind>)]
    kind: Option<BackendKind>,
    /// Ask for its key, or read it from stdin, and keep it in the system's keyring or a private file
    #[arg(long, conflicts_with_all = ["token_env", "token_file"])]
    key: bool,
    /// Environment variable that holds its key
    #[arg(long, value_name = "VARIABLE", conflicts_with = "token_file")]
    token_env: Option<String>,
    /// File whose first line is its key (mode 0600)
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Host to reach through SSH first; the address is then as that host sees it
    #[arg(long, value_name = "HOST")]
    ssh: Option<String>,
    /// SHA-256 of its key, as `tui serve` prints it
    #[arg(long, value_name = "SHA256")]
    fingerprint: Option<String>,
    /// Hardware address that wakes it
    #[arg(long, value_name = "ADDRESS")]
    wake: Option<String>,
    /// Memory models may hold there together, as 40GiB
    #[arg(long, value_name = "SIZE", value_parser = word::<ByteSize>)]
    memory: Option<ByteSize>,
    /// What the machine is, by a name of the table of machines
    #[arg(long, value_name = "NAME")]
    hardware: Option<String>,
    /// It makes noise: avoid it in quiet hours
    #[arg(long)]
    noisy: bool,
    /// The way to it costs money: send nothing there before Enter
    #[arg(long)]
    metered: bool,
    /// Fenced files may go there
    #[arg(long)]
    private: bool,
    /// Don't look whether it answers
    #[arg(long)]
    no_check: bool,
}

/// Reads a word as the configuration file would.
fn word<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(|error| {
        let why = error.to_string().replace('`', "");
        format!("can't be \"{text}\": {why}")
    })
}

pub(super) async fn run(arguments: AddArgs, context: &Context<'_>) -> Result<Exit, AppError> {
    free_name(&arguments.name, context)?;
    let url = match &arguments.url {
        None => announced()?,
        Some(url) if url.contains("://") || arguments.ssh.is_some() => url.clone(),
        Some(host) => usual(host, &arguments, context).await?,
    };
    let token_file = arguments.token_file.as_deref().map(std::path::absolute).transpose();
    let mut backend = BackendConfig {
        name: arguments.name.clone(),
        url,
        model: arguments.model,
        kind: arguments.kind,
        token_env: arguments.token_env,
        token_file: token_file
            .map_err(|error| AppError::new(Exit::Usage, format!("--token-file: {error}")))?,
        // So that the address is checked as one with a key.
        token_keyring: arguments.key,
        fingerprint: arguments.fingerprint,
        ssh: arguments.ssh,
        memory: arguments.memory,
        hardware: arguments.hardware,
        wake: arguments.wake,
        noisy: arguments.noisy,
        metered: arguments.metered,
        private: arguments.private,
    };
    backend.check().map_err(|wrong| {
        AppError::new(Exit::Usage, format!("backend `{}`: {}", backend.name, wrong.what)).hint(wrong.next)
    })?;
    if arguments.key {
        keep(&mut backend, context)?;
    }
    file::put(context, None, &backend)?;
    out::note(&format!("{} is added to {}", backend.name, context.file.display()));
    if !arguments.no_check {
        look(&backend, context).await?;
    }
    Ok(Exit::Ok)
}

/// Asks for the key of a backend, and keeps it.
fn keep(backend: &mut BackendConfig, context: &Context<'_>) -> Result<(), AppError> {
    let secret = ask::secret(&format!("key of {}:", backend.name))?;
    if secret.is_empty() {
        return Err(AppError::new(Exit::Usage, "there is no key").hint("type it, or send it to stdin"));
    }
    keep_token(backend, &secret, context)
}

/// Keeps a key, and says where.
pub(super) fn keep_token(
    backend: &mut BackendConfig,
    secret: &crate::backend::Secret,
    context: &Context<'_>,
) -> Result<(), AppError> {
    let kept = keep_key(&backend.name, secret, &context.paths.data)
        .map_err(|why| AppError::new(Exit::Error, format!("the key can't be kept: {why}")))?;
    (backend.token_env, backend.token_file, backend.token_keyring) = (None, None, false);
    match kept {
        Kept::Keyring => {
            backend.token_keyring = true;
            out::note("its key is in the system's keyring");
        }
        Kept::File(file, why) => {
            out::note(&format!("its key is in {}, readable by you alone: {why}", file.display()));
            backend.token_file = Some(file);
        }
    }
    Ok(())
}

/// Says how it is; that it does not answer now is no reason not to have it.
pub(super) async fn look(backend: &BackendConfig, context: &Context<'_>) -> Result<(), AppError> {
    let made = Backend::server_in(backend, &context.paths.runtime, Some(&context.paths.data), None)
        .map_err(super::target::bad_address)?;
    let seen = made.examine(1).await;
    out::note(&match (seen.error(), &seen.models) {
        (Some(error), _) => {
            let (cause, next) = list::words(&made, error);
            format!("but it can't be used yet: {cause}\n     {next}")
        }
        (None, models) => {
            let count = models.as_ref().map_or(0, Vec::len);
            let s = if count == 1 { "" } else { "s" };
            let kind = seen.kind.map(|kind| format!("{}, ", kind.words())).unwrap_or_default();
            format!("it answers: {kind}{count} model{s}; try `tui --on {} \"Hello\"`", backend.name)
        }
    });
    Ok(())
}

/// Checks that a name is one and not taken.
pub(super) fn free_name(name: &str, context: &Context<'_>) -> Result<(), AppError> {
    let is_good = |c: char| !c.is_control() && !c.is_whitespace() && !"/\\\"'`".contains(c);
    if name.is_empty() || name.starts_with(['.', '-']) || name.len() > 60 || !name.chars().all(is_good) {
        return Err(AppError::new(Exit::Usage, format!("{name:?} is no name for a backend"))
            .hint("a name is one word, as `mac`"));
    }
    if name == LOCAL || context.configured(name).is_some() {
        return Err(AppError::new(Exit::Usage, format!("there is a backend `{name}` already"))
            .hint(format!("choose another name, or `tui backends rm {name}` first")));
    }
    Ok(())
}

/// The address of a server that announces itself.
fn announced() -> Result<String, AppError> {
    let found = discover::heard(LISTEN)?;
    let urls: Vec<String> = found.iter().filter_map(crate::backend::Announced::url).collect();
    choose(
        &urls,
        "nobody announces itself in the local network",
        "start `tui serve --announce` there, or give its address",
    )
}

/// The one of several addresses that is meant.
fn choose(urls: &[String], none: &str, next: &str) -> Result<String, AppError> {
    match urls {
        [] => Err(AppError::new(Exit::Backend, none).hint(next)),
        [one] => Ok(one.clone()),
        several if ask::is_possible() => {
            for (number, url) in several.iter().enumerate() {
                out::plain(&format!("  {}  {url}", number + 1));
            }
            let answer = ask::line("which one?");
            let number = answer.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
            number
                .and_then(|at| several.get(at))
                .cloned()
                .ok_or_else(|| AppError::new(Exit::Usage, "none of them was chosen").hint("give its address"))
        }
        several => Err(AppError::new(Exit::Usage, format!("there are several: {}", several.join(", ")))
            .hint("give one of these addresses")),
    }
}

/// Looks at a host's usual ports, or at the one that was typed.
async fn usual(host: &str, arguments: &AddArgs, context: &Context<'_>) -> Result<String, AppError> {
    let host = host.trim_end_matches('/');
    let is_six = host.matches(':').count() > 1 && !host.starts_with('[');
    let host = if is_six { format!("[{host}]") } else { host.to_owned() };
    let typed = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
    let urls: Vec<String> = match typed {
        Some((name, port)) => ["http", "https"].map(|scheme| format!("{scheme}://{name}:{port}")).into(),
        None => {
            let of = |(port, _): &(u16, &str)| match port {
                7411 => vec![format!("https://{host}:{port}"), format!("http://{host}:{port}")],
                _ => vec![format!("http://{host}:{port}")],
            };
            PORTS.iter().flat_map(of).collect()
        }
    };
    let looks = urls.iter().map(async |url| {
        let config = BackendConfig {
            name: arguments.name.clone(),
            url: url.clone(),
            kind: arguments.kind,
            ..BackendConfig::default()
        };
        let backend = Backend::server_in(&config, &context.paths.runtime, None, None)?;
        if backend.measure().await.is_none() {
            return Ok(None);
        }
        Ok::<_, String>(Some(backend.examine(0).await))
    });
    let mut found = Vec::new();
    let mut has_strange_key = None;
    for (url, seen) in urls.iter().zip(join_all(looks).await) {
        let Some(seen) = seen.map_err(super::target::bad_address)? else { continue };
        if is_server(&seen) {
            found.push(url.clone());
        }
        if seen.error().is_some_and(|error| error.kind == GenErrorKind::Untrusted) {
            has_strange_key = Some(url.clone());
        }
    }
    if let (Some(url), []) = (has_strange_key, found.as_slice()) {
        return Err(AppError::new(
            Exit::Backend,
            format!("{url} answers, with a key that is not known here"),
        )
        .hint(format!("pair with it: `tui backends pair {url} {}`", arguments.name)));
    }
    let tried: Vec<String> = PORTS.iter().map(|(port, _)| port.to_string()).collect();
    let none = match typed {
        Some(_) => format!("no server answers at {host}"),
        None => format!("no server answers at {host} on the usual ports ({})", tried.join(", ")),
    };
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let next = format!("give its whole address; an engine of ours needs no open port: ssh://{name}");
    let url = choose(&found, &none, &next)?;
    out::note(&format!("found {url}"));
    Ok(url)
}

/// Whether a server of the kind that is looked for answers: one that wants a key is one.
fn is_server(seen: &Examination) -> bool {
    match seen.error() {
        None => true,
        Some(error) => error.kind == GenErrorKind::Auth,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn words_are_read_as_in_the_file() {
        assert_eq!(word::<BackendKind>("llama-server"), Ok(BackendKind::LlamaServer));
        assert_eq!(word::<ByteSize>("2KiB"), Ok(ByteSize(2048)));
        let error = word::<BackendKind>("gpt").expect_err("no kind");
        assert!(error.starts_with("can't be \"gpt\"") && error.contains("ollama"), "{error}");
    }

    #[test]
    fn one_of_several_has_to_be_chosen() {
        let urls = ["http://a".to_owned(), "http://b".to_owned()];
        assert_eq!(choose(&urls[..1], "none", "next"), Ok("http://a".to_owned()));
        assert!(choose(&[], "none", "next").expect_err("none").to_string().contains("none\nhint: next"));
        if !ask::is_possible() {
            assert!(choose(&urls, "none", "next").expect_err("two").message.contains("http://a, http://b"));
        }
    }
}
