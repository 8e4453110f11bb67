//! `tui backends pair`: the server's key is looked at once, by the person or against the line `tui serve --pair`
//! printed, and is the only one that is taken from then on. A one-time code becomes a token of our own.

use super::{Context, add, ask, file};
use crate::backend::{Candidate, PairLink, Secret, client_name};
use crate::cli::out;
use crate::config::BackendConfig;
use crate::config::address::{Address, HttpAddress, SshHost};
use crate::config::fingerprint::Fingerprint;
use crate::error::{AppError, Exit};
use clap::Args;

#[derive(Debug, Args)]
pub(super) struct PairArgs {
    /// The line `tui serve --pair` prints (in quotes, or `-` to read it from stdin), an https:// address, or the
    /// name of a backend
    #[arg(value_name = "LINE")]
    line: String,
    /// What to call the backend; its host's name when left out
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// The key the server must have, as `tui serve` prints it: nothing is asked then
    #[arg(long, value_name = "SHA256")]
    fingerprint: Option<Fingerprint>,
    /// Take the key the server shows. One that has changed is taken only with --fingerprint
    #[arg(long)]
    yes: bool,
}

/// What to pair with.
struct Plan {
    before: Option<BackendConfig>,
    after: BackendConfig,
    candidate: Candidate,
    /// The key it must have.
    expected: Option<Fingerprint>,
    code: Option<Secret>,
}

pub(super) async fn run(arguments: PairArgs, context: &Context<'_>) -> Result<Exit, AppError> {
    let Plan { before, mut after, candidate, expected, code } = plan(&arguments, context)?;
    let runtime = &context.paths.runtime;
    let known =
        before.as_ref().and_then(|backend| backend.fingerprint.as_deref()).and_then(|f| f.parse().ok());
    let fingerprint = match expected {
        Some(fingerprint) => {
            if let Some(known) = known.filter(|known| *known != fingerprint) {
                out::note(&format!("{}: its key was {known}, it is to be {fingerprint}", after.name));
            }
            fingerprint
        }
        None => confirmed(&after.name, candidate.fingerprint(runtime).await?, known, arguments.yes)?,
    };
    after.fingerprint = Some(fingerprint.to_string());
    let has_key = after.token_env.is_some() || after.token_file.is_some() || after.token_keyring;
    let code = match code {
        None if !has_key && ask::is_possible() => {
            let text = ask::line("one-time code (`tui serve --pair` there prints one; Enter for none):");
            Some(Secret::new(&text)).filter(|code| !code.is_empty())
        }
        code => code,
    };
    match code {
        Some(code) => {
            let token = candidate.redeem(fingerprint, &code, &client_name(), runtime).await?;
            add::keep_token(&mut after, &token, context)?;
        }
        // What is given as expected has not been seen yet.
        None if expected.is_some() => match candidate.fingerprint(runtime).await? {
            now if now == fingerprint => {}
            now => return Err(changed(&after.name, fingerprint, now)),
        },
        None => {}
    }
    if before.is_none() {
        add::free_name(&after.name, context)?;
    }
    file::put(context, before.as_ref(), &after)?;
    out::note(&format!("paired with {} as `{}`: key {fingerprint}", candidate.address.base, after.name));
    add::look(&after, context).await?;
    Ok(Exit::Ok)
}

fn plan(arguments: &PairArgs, context: &Context<'_>) -> Result<Plan, AppError> {
    let usage = |what: String, next: &str| AppError::new(Exit::Usage, what).hint(next);
    let line = if arguments.line == "-" { ask::read() } else { arguments.line.trim().to_owned() };
    if line.starts_with("duet://") {
        let link: PairLink =
            line.parse().map_err(|wrong: crate::config::address::Wrong| usage(wrong.what, &wrong.next))?;
        if arguments.fingerprint.is_some_and(|expected| expected != link.fingerprint) {
            return Err(usage(
                "the line names another key than --fingerprint".to_owned(),
                "one of the two is wrong",
            ));
        }
        let mut plan = of_address(arguments.name.as_deref(), link.address, context)?;
        (plan.expected, plan.code) = (Some(link.fingerprint), Some(link.code));
        return Ok(plan);
    }
    let address = if line.contains("://") {
        line.parse().map_err(|wrong: crate::config::address::Wrong| usage(wrong.what, &wrong.next))?
    } else {
        let Some(before) = context.configured(&line) else {
            super::named(&context.backends()?, &line)?;
            return Err(usage(format!("`{line}` is the engine of this machine"), "it needs no pairing"));
        };
        let address = before.check().map_err(|wrong| usage(wrong.what, &wrong.next))?;
        let mut plan = of_address(Some(&before.name), pairable(address)?, context)?;
        plan.expected = arguments.fingerprint;
        return Ok(plan);
    };
    let mut plan = of_address(arguments.name.as_deref(), pairable(address)?, context)?;
    plan.expected = arguments.fingerprint;
    Ok(plan)
}

/// The address, if it is one of a server that shows a certificate.
fn pairable(address: Address) -> Result<HttpAddress, AppError> {
    match address {
        Address::Http(address) if address.is_tls => Ok(address),
        Address::Http(address) => {
            Err(AppError::new(Exit::Usage, format!("{} speaks no TLS, and pairing needs it", address.base))
                .hint("start `tui serve --pair` there, and use the line it prints"))
        }
        Address::Ssh(_) => Err(AppError::new(Exit::Usage, "over ssh:// no pairing is needed")
            .hint("`tui backends add NAME ssh://HOST`")),
        Address::Unix(_) => Err(AppError::new(Exit::Usage, "a socket of this machine needs no pairing")
            .hint("`tui backends add NAME unix:///PATH`")),
    }
}

/// The backend that has this name or, without one, this address; a new one where there is none.
fn of_address(name: Option<&str>, address: HttpAddress, context: &Context<'_>) -> Result<Plan, AppError> {
    let is_same = |backend: &&BackendConfig| matches!(backend.url.parse(), Ok(Address::Http(known)) if (&known.host, known.port) == (&address.host, address.port));
    let before = match name {
        Some(name) => context.configured(name),
        None => context.config.backends.iter().find(is_same),
    };
    let mut after = before.cloned().unwrap_or_default();
    if before.is_none() {
        after.name = name.map_or_else(|| name_of(&address, context), str::to_owned);
        add::free_name(&after.name, context)?;
    }
    // What was typed behind the address stays.
    let is_same = before.as_ref().is_some_and(is_same);
    if !(is_same && after.url.starts_with("https://")) {
        after.url.clone_from(&address.base);
    }
    let ssh = after.ssh.as_deref().map(str::parse::<SshHost>).transpose();
    let ssh = ssh.map_err(|wrong| AppError::new(Exit::Usage, wrong.what).hint(wrong.next))?;
    let candidate = Candidate { name: after.name.clone(), address, ssh };
    Ok(Plan { before: before.cloned(), after, candidate, expected: None, code: None })
}

/// A name for a backend nobody has named: of its host, and free.
fn name_of(address: &HttpAddress, context: &Context<'_>) -> String {
    let first = address.host.split('.').next().unwrap_or_default();
    let stem =
        if address.ip().is_some() || first.is_empty() || first == "localhost" { "duet" } else { first };
    let all = std::iter::once(stem.to_owned()).chain((2..1000).map(|number| format!("{stem}{number}")));
    let is_free = |name: &String| context.configured(name).is_none();
    all.into_iter().find(is_free).unwrap_or_else(|| stem.to_owned())
}

/// The key the server has, once the person has said that it is the one.
fn confirmed(
    name: &str,
    now: Fingerprint,
    known: Option<Fingerprint>,
    is_taken: bool,
) -> Result<Fingerprint, AppError> {
    match known {
        Some(known) if known == now => {
            out::note(&format!("{name} still has the key {now}"));
            return Ok(now);
        }
        Some(known) => {
            out::note(&format!("{name}: certificate changed"));
            out::plain(&format!("  was {known}\n  now {now}"));
            out::note(
                "that is so when its key was made anew there, and also when somebody else answers in its place",
            );
            if !ask::is_possible() {
                return Err(changed(name, known, now));
            }
        }
        None => {
            out::note(&format!("{name} shows the key"));
            out::plain(&format!("  {now}"));
            if is_taken {
                return Ok(now);
            }
            if !ask::is_possible() {
                return Err(AppError::new(Exit::Usage, "nobody is here to compare the key")
                    .hint("give it with --fingerprint, or use the line `tui serve --pair` prints"));
            }
        }
    }
    if ask::yes("is that the key `tui serve` prints there?") {
        Ok(now)
    } else {
        Err(AppError::new(Exit::Backend, format!("{name} was not paired: its key was not confirmed"))
            .hint("compare it with what `tui serve` prints there when it starts"))
    }
}

fn changed(name: &str, was: Fingerprint, now: Fingerprint) -> AppError {
    AppError::new(
        Exit::Backend,
        format!("{name}: certificate changed. was {was} now {now}, nothing was sent"),
    )
    .hint(format!("if that is meant: `tui backends pair {name} --fingerprint {now}`"))
}
