//! `tui serve`: what was asked for, whether that is safe, and what the person has to know.

mod announce;
mod place;
mod unit;

use super::out;
use crate::config::Config;
use crate::engine::serve::{
    self, Folder, Identity, Running, Settings, TOKEN_VARIABLE, Tokens, keeper, pairing,
};
use crate::error::{AppError, Exit};
use crate::paths::Paths;
use clap::{Args, Subcommand};
use std::io::IsTerminal;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use unit::Unit;

/// The token made by itself on first use.
const FIRST_TOKEN: &str = "first";

/// What can be typed after `tui serve`.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(subcommand)]
    command: Option<ServeCommand>,
    #[command(flatten)]
    flags: ServeFlags,
}

#[derive(Debug, Subcommand)]
enum ServeCommand {
    /// Tokens: one for each client
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// The process that serves
    #[command(hide = true)]
    Worker {
        /// Its settings as JSON.
        settings: String,
    },
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token for a client; it is shown this once
    Add {
        /// Whose it is, as `laptop`
        name: String,
    },
    /// List them by name
    List,
    /// Take a token back; it no longer counts at once
    Revoke {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Args)]
struct ServeFlags {
    /// Address to listen on: ADDRESS, PORT or ADDRESS:PORT [default: 127.0.0.1:7411]
    #[arg(long, value_name = "ADDR", value_parser = place::parse)]
    listen: Option<SocketAddr>,
    /// A file with a token (mode 0600), beside those of `tui serve token` and $DUET_SERVE_TOKEN
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// A folder with models, beside the configured ones. Can be given several times
    #[arg(long, value_name = "DIR")]
    models: Vec<PathBuf>,
    /// Speak TLS, with a key made on first use
    #[arg(long)]
    tls: bool,
    /// Speak TLS with these certificates (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of --tls-cert (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Allow plain HTTP on an address that others can reach
    #[arg(long, conflicts_with_all = ["tls", "tls_cert"])]
    insecure: bool,
    /// Take grammars and JSON schemas from requests
    #[arg(long)]
    allow_grammar: bool,
    /// Let every client pin, unload and otherwise manage models
    #[arg(long)]
    allow_manage: bool,
    /// Announce the server in the local network by mDNS
    #[arg(long)]
    announce: bool,
    /// Print a line that pairs one client within ten minutes; turns on TLS
    #[arg(long, conflicts_with = "insecure")]
    pair: bool,
    /// Tell of each request on stderr
    #[arg(short = 'v', long)]
    verbose: bool,
    /// Print a unit that starts this at boot, with the flags given here
    #[arg(long, value_name = "KIND", num_args = 0..=1, default_missing_value = Unit::DEFAULT)]
    print_unit: Option<Unit>,
}

/// Serves, or does what belongs to it.
///
/// # Errors
/// Exit code 2 when what was asked for is not safe, with what is missing and the next step.
pub(super) fn run(
    arguments: ServeArgs,
    config: &Config,
    paths: &Paths,
    config_file: Option<&Path>,
) -> Result<Exit, AppError> {
    let server_paths = serve::paths(paths);
    match arguments.command {
        Some(ServeCommand::Worker { settings }) => {
            crate::logging::start(&paths.logs(), "serve");
            let settings: Settings = serde_json::from_str(&settings)
                .map_err(|error| AppError::new(Exit::Usage, format!("serve worker: {error}")))?;
            serve::run(config, &server_paths, config_file, &settings)
        }
        Some(ServeCommand::Token { command }) => token(command, &Tokens::new(Folder::open(&paths.data)?)),
        None => match arguments.flags.print_unit {
            Some(kind) => print_unit(kind, arguments.flags, config, paths, config_file),
            None => {
                crate::logging::start(&paths.logs(), "serve");
                start(&arguments.flags, config, paths, &server_paths, config_file)
            }
        },
    }
}

fn token(command: TokenCommand, tokens: &Tokens) -> Result<Exit, AppError> {
    match command {
        TokenCommand::Add { name } => {
            let token = tokens.add(&name)?;
            out::note(&format!("the token of `{name}`, shown this once:"));
            out::answer(token.show());
        }
        TokenCommand::List => {
            let all = tokens.list()?;
            if all.is_empty() {
                out::note("there is no token; `tui serve token add NAME` makes one");
            }
            for known in all {
                let made = i64::try_from(known.made).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
                let made = made.map_or_else(String::new, |at| at.strftime("%Y-%m-%d").to_string());
                out::answer(&format!("{}\t{made}", known.name));
            }
        }
        TokenCommand::Revoke { name } => {
            if !tokens.revoke(&name)? {
                let shown = crate::text::shown_line(&name, 60);
                return Err(AppError::new(Exit::Usage, format!("serve: there is no token named `{shown}`"))
                    .hint("`tui serve token list` shows those there are"));
            }
            out::note(&format!("the token of `{name}` no longer counts"));
        }
    }
    Ok(Exit::Ok)
}

/// Prints a unit for what could be started like this, without what only this shell knows.
fn print_unit(
    kind: Unit,
    mut flags: ServeFlags,
    config: &Config,
    paths: &Paths,
    config_file: Option<&Path>,
) -> Result<Exit, AppError> {
    // A pairing is for one time; the TLS it turns on is not.
    flags.tls |= flags.pair;
    flags.pair = false;
    // A token of this shell's environment does not go with the unit: others may read it.
    let asked = Asked::check(&flags, config, &Tokens::new(Folder::open(&paths.data)?), None)?;
    if let Some((cert, key)) = asked.tls_files.filter(|_| asked.wants_tls) {
        Identity::load(&cert, &key)?;
    }
    if !asked.has_token {
        out::note("there is no token yet; make one before the unit starts: `tui serve token add NAME`");
    }
    out::answer(&unit::print(kind, &unit_arguments(&flags, config_file)?, &overrides()?)?);
    Ok(Exit::Ok)
}

/// Folders that are elsewhere by a variable, with absolute paths.
fn overrides() -> Result<Vec<(String, String)>, AppError> {
    let all = crate::paths::OVERRIDES.into_iter();
    all.filter_map(|name| Some((name, crate::paths::folder_in(name)?)))
        .map(|(name, dir)| Ok((name.to_owned(), absolute(&dir)?.display().to_string())))
        .collect()
}

/// The flags again, for a unit: paths made absolute, what is for one time only left out.
fn unit_arguments(flags: &ServeFlags, config_file: Option<&Path>) -> Result<Vec<String>, AppError> {
    let absolute = |path: &Path| -> Result<String, AppError> {
        let path = std::path::absolute(path)
            .map_err(|error| AppError::new(Exit::Usage, format!("{}: {error}", path.display())))?;
        Ok(path.display().to_string())
    };
    let mut all = vec!["serve".to_owned()];
    let mut add = |flag: &str, value: Option<String>| {
        all.push(flag.to_owned());
        all.extend(value);
    };
    if let Some(listen) = flags.listen {
        add("--listen", Some(listen.to_string()));
    }
    let files = [
        ("--token-file", flags.token_file.as_deref()),
        ("--tls-cert", flags.tls_cert.as_deref()),
        ("--tls-key", flags.tls_key.as_deref()),
        ("--config", config_file),
    ];
    let models = flags.models.iter().map(|dir| ("--models", Some(dir.as_path())));
    for (flag, path) in files.into_iter().chain(models) {
        if let Some(path) = path {
            add(flag, Some(absolute(path)?));
        }
    }
    for (flag, is_set) in [
        ("--tls", flags.tls),
        ("--insecure", flags.insecure),
        ("--allow-grammar", flags.allow_grammar),
        ("--allow-manage", flags.allow_manage),
        ("--announce", flags.announce),
        ("--verbose", flags.verbose),
    ] {
        if is_set {
            add(flag, None);
        }
    }
    Ok(all)
}

/// What a start was asked for, once that is known to be safe.
struct Asked {
    listen: SocketAddr,
    has_token: bool,
    wants_tls: bool,
    /// The certificate and the key given; none: our own.
    tls_files: Option<(PathBuf, PathBuf)>,
}

impl Asked {
    fn check(
        flags: &ServeFlags,
        config: &Config,
        tokens: &Tokens,
        variable: Option<&str>,
    ) -> Result<Self, AppError> {
        let listen = flags.listen.unwrap_or(config.serve.listen);
        let given = serve::given(flags.token_file.as_deref(), variable)?;
        let has_token = !given.is_empty() || !tokens.list()?.is_empty();
        let tls_files = match (&flags.tls_cert, &flags.tls_key) {
            (Some(cert), Some(key)) => Some((absolute(cert)?, absolute(key)?)),
            _ => config.serve.tls_cert.clone().zip(config.serve.tls_key.clone()),
        };
        let wants_tls = flags.tls || flags.pair || (tls_files.is_some() && !flags.insecure);
        is_safe(listen, flags, has_token, wants_tls)?;
        if let Some(dir) = flags.models.iter().find(|dir| !dir.is_dir()) {
            return Err(AppError::new(Exit::Usage, format!("--models {}: no such folder", dir.display()))
                .hint("name a folder that holds GGUF files"));
        }
        Ok(Self { listen, has_token, wants_tls, tls_files })
    }
}

fn start(
    flags: &ServeFlags,
    config: &Config,
    paths: &Paths,
    server_paths: &Paths,
    config_file: Option<&Path>,
) -> Result<Exit, AppError> {
    let folder = Folder::open(&paths.data)?;
    let tokens = Tokens::new(folder.clone());
    let variable = std::env::var(TOKEN_VARIABLE).ok();
    let Asked { listen, has_token, wants_tls, tls_files } =
        Asked::check(flags, config, &tokens, variable.as_deref())?;
    // Before a certificate is made: that of a server that runs stays as it is.
    let Some(only) = keeper::Only::here(server_paths)? else {
        return beside_a_running_one(flags, server_paths, &folder);
    };
    let tls = match (wants_tls, tls_files) {
        (false, _) => None,
        (true, Some(files)) => Some(files),
        (true, None) => Some(serve::own_files(&folder, &place::names(listen, &config.serve.names))?),
    };
    // Read before anything is promised.
    let identity = tls.as_ref().map(|(cert, key)| Identity::load(cert, key)).transpose()?;
    let fingerprint = identity.as_ref().map(|identity| identity.fingerprint.as_str());
    let listener = TcpListener::bind(listen).map_err(|error| {
        AppError::new(Exit::Error, format!("serve: cannot listen on {listen}: {error}"))
            .hint("choose another with --listen ADDRESS:PORT")
    })?;
    let listen = listener.local_addr().unwrap_or(listen);
    let _recorded = Running::here(listen, fingerprint).record(server_paths)?;
    if !has_token && !flags.pair {
        first_token(&tokens)?;
    }
    tell(listen, fingerprint, &tokens);
    let _announced = if flags.announce { Some(announce::start(listen, fingerprint)?) } else { None };
    if flags.pair {
        pair(listen, &folder, fingerprint)?;
    } else {
        // A code from an earlier start is not for this one.
        pairing::close(&folder)?;
    }
    let settings = Settings {
        listen,
        names: config.serve.names.clone(),
        origins: config.serve.origins.clone(),
        limits: config.serve.limits,
        tls,
        token_file: flags.token_file.as_deref().map(absolute).transpose()?,
        allow_grammar: flags.allow_grammar,
        allow_manage: flags.allow_manage || config.serve.manage,
        tell: flags.verbose,
        models: flags.models.iter().map(|dir| absolute(dir)).collect::<Result<_, _>>()?,
        restore: Vec::new(),
    };
    keeper::run(&only, server_paths, config_file, &listener, settings, out::note)
}

fn absolute(path: &Path) -> Result<PathBuf, AppError> {
    std::path::absolute(path)
        .map_err(|error| AppError::new(Exit::Usage, format!("{}: {error}", path.display())))
}

/// Off loopback a token and TLS are needed, or that the person says otherwise.
fn is_safe(listen: SocketAddr, flags: &ServeFlags, has_token: bool, has_tls: bool) -> Result<(), AppError> {
    if listen.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    let lacks_token = !has_token && !flags.pair;
    let lacks_tls = !has_tls && !flags.insecure;
    let (what, next) = match (lacks_token, lacks_tls) {
        (false, false) => return Ok(()),
        (true, true) => ("a token and TLS are", "`tui serve token add NAME`, then start it again with --tls"),
        (true, false) => {
            ("a token is", "`tui serve token add NAME`, then start it again; or start it with --pair")
        }
        (false, true) => {
            ("TLS is", "start it again with --tls (or with --insecure, where everybody may read along)")
        }
    };
    Err(AppError::new(Exit::Usage, format!("serve: {listen} can be reached by others, and {what} missing"))
        .hint(next))
}

/// A server runs already: it takes a new pairing, and nothing else.
fn beside_a_running_one(flags: &ServeFlags, paths: &Paths, folder: &Folder) -> Result<Exit, AppError> {
    if !flags.pair {
        return Err(AppError::new(Exit::Error, "serve: another server of yours runs already")
            .hint("stop it first; `tui serve --pair` makes a pairing for it"));
    }
    let Some(running) = Running::read(paths) else {
        return Err(AppError::new(Exit::Error, "serve: another server of yours is starting or ending")
            .hint("try again in a moment"));
    };
    if running.fingerprint.is_none() {
        let what = format!("serve: your server on {} speaks plain HTTP; a pairing needs TLS", running.listen);
        return Err(AppError::new(Exit::Usage, what).hint("stop it, then start it again with --tls"));
    }
    out::note(&format!("for the server that runs on {}", running.listen));
    pair(running.listen, folder, running.fingerprint.as_deref())?;
    Ok(Exit::Ok)
}

/// On loopback the first start makes a token by itself.
fn first_token(tokens: &Tokens) -> Result<(), AppError> {
    // A journal keeps what it is told, and others may read it.
    if std::env::var_os("JOURNAL_STREAM").is_some() && !std::io::stderr().is_terminal() {
        return Err(AppError::new(Exit::Usage, "serve: there is no token yet")
            .hint("make one in a terminal with `tui serve token add NAME`, then start this again"));
    }
    let token = tokens.add(FIRST_TOKEN)?;
    out::note(&format!(
        "made a token, shown this once (kept as a sum in {}; more with `tui serve token add NAME`):",
        tokens.place()
    ));
    out::plain(&format!("  {}", token.show()));
    Ok(())
}

fn tell(listen: SocketAddr, fingerprint: Option<&str>, tokens: &Tokens) {
    let scheme = if fingerprint.is_some() { "https" } else { "http" };
    out::note(&format!("serving on {scheme}://{listen} (OpenAI clients: {scheme}://{listen}/v1)"));
    if let Some(fingerprint) = fingerprint {
        out::note(&format!("key SHA256:{fingerprint}"));
    }
    let is_open = !listen.ip().to_canonical().is_loopback();
    if is_open && fingerprint.is_none() {
        out::note(
            "--insecure: tokens, questions and answers can be read and changed by everybody on the way; \
             leave it out and add --tls to stop that",
        );
    }
    if listen.ip().is_unspecified() {
        let all = place::interfaces();
        let all: Vec<String> = all.iter().map(|(name, address)| format!("{name} {address}")).collect();
        out::note(&format!("{} means every interface: {}", listen.ip(), all.join(", ")));
    }
    let names: Vec<String> =
        tokens.list().unwrap_or_default().into_iter().take(8).map(|known| known.name).collect();
    if !names.is_empty() {
        out::note(&format!("tokens: {}", names.join(", ")));
    }
}

/// Prints the one line another machine needs.
fn pair(listen: SocketAddr, folder: &Folder, fingerprint: Option<&str>) -> Result<(), AppError> {
    let fingerprint = fingerprint.unwrap_or_default();
    let code = pairing::open(folder)?;
    out::note(&format!("to pair one client within {} minutes, give it this line:", pairing::VALID / 60));
    let address = place::reachable(listen);
    out::plain(&format!("  duet://{address}?key=sha256:{fingerprint}&code={}", code.show()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(insecure: bool, pair: bool) -> ServeFlags {
        ServeFlags {
            listen: None,
            token_file: None,
            models: Vec::new(),
            tls: false,
            tls_cert: None,
            tls_key: None,
            insecure,
            allow_grammar: false,
            allow_manage: false,
            announce: false,
            pair,
            verbose: false,
            print_unit: None,
        }
    }

    #[test]
    fn what_others_can_reach_needs_a_token_and_tls() {
        let check = |listen: &str, insecure, pair, has_token, has_tls| {
            is_safe(listen.parse().unwrap(), &flags(insecure, pair), has_token, has_tls).err()
        };
        for listen in ["127.0.0.1:1", "[::1]:1", "127.9.9.9:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(check(listen, false, false, false, false), None, "{listen}");
        }
        for listen in ["0.0.0.0:1", "[::]:1", "192.168.1.2:1", "[fe80::1]:1"] {
            let error = check(listen, false, false, false, false).unwrap();
            assert_eq!(error.exit, Exit::Usage);
            assert!(error.message.contains("a token and TLS are"), "{error}");
            assert!(check(listen, false, false, true, false).unwrap().message.contains("and TLS is"));
            assert!(check(listen, true, false, false, false).unwrap().message.contains("and a token is"));
            assert!(check(listen, false, false, false, true).unwrap().message.contains("and a token is"));
            assert_eq!(check(listen, false, false, true, true), None);
            assert_eq!(check(listen, true, false, true, false), None, "said explicitly");
            assert_eq!(check(listen, false, true, false, true), None, "the pairing makes a token");
        }
    }
}
