//! How `ssh` is called. It is the one of the PATH, and all else is the person's configuration's business.

use super::Far;
use crate::config::address::SshHost;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// Bytes of the path of the socket here that every system takes.
pub(super) const MAX_LOCAL: usize = 100;

/// What runs on the far side beside a tunnel to another server: it gives back what it is sent, and ends with its
/// input.
const ECHO: &str = "exec cat";

/// What starts or finds the engine there, tells where it is, gives back what it is sent, and ends with its
/// input. Shells that are not asked to log in often know too few folders.
const HOLD: &str = "exec sh -c 'PATH=\"$PATH:$HOME/.local/bin:$HOME/.cargo/bin:/usr/local/bin:/opt/homebrew/bin\"; exec tui engine hold'";

/// Options that hold whatever the configuration says: nothing is asked, nobody else's connections depend on
/// ours, a silent other side is noticed.
const OPTIONS: [&str; 12] = [
    "BatchMode=yes",
    "ConnectTimeout=10",
    "ControlMaster=no",
    "ExitOnForwardFailure=no",
    "ForwardAgent=no",
    "ForwardX11=no",
    "LogLevel=INFO",
    "RemoteCommand=none",
    "RequestTTY=no",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    "StreamLocalBindUnlink=yes",
];

fn ssh(host: &SshHost) -> Command {
    let mut command = Command::new("ssh");
    for option in OPTIONS {
        command.arg("-o").arg(option);
    }
    if let Some(port) = host.port {
        command.arg("-p").arg(port.to_string());
    }
    if let Some(user) = &host.user {
        command.arg("-l").arg(user);
    }
    // Ctrl+C in the terminal is not for it.
    command.process_group(0);
    command
}

/// What is forwarded where, as `ssh` wants it; none while the socket there is not known.
pub(super) fn forward(far: &Far, local: &Path, socket: Option<&str>) -> Option<OsString> {
    let mut spec = local.as_os_str().to_owned();
    match far {
        Far::Engine => {
            spec.push(":");
            spec.push(socket?);
        }
        Far::Socket(path) => {
            spec.push(":");
            spec.push(path);
        }
        Far::Port { host, port } if host.contains(':') => spec.push(format!(":[{host}]:{port}")),
        Far::Port { host, port } => spec.push(format!(":{host}:{port}")),
    }
    Some(spec)
}

/// The session that holds a tunnel.
pub(super) fn session(host: &SshHost, far: &Far, spec: Option<&OsString>) -> Command {
    let mut command = ssh(host);
    if let Some(spec) = spec {
        command.arg("-L").arg(spec);
    }
    let there = if *far == Far::Engine { HOLD } else { ECHO };
    command.arg("--").arg(&host.host).arg(there);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Takes a forwarding back from a shared connection, which would keep it.
pub(super) fn cancel(host: &SshHost, spec: &OsString) -> Command {
    let mut command = ssh(host);
    command.args(["-O", "cancel", "-L"]).arg(spec).arg("--").arg(&host.host);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Connects to a host's SSH port as the configuration has it: the milliseconds that took. None when nobody is
/// there; an error when it is behind another host, so that this can't be told from here.
pub(in crate::backend) async fn knock(host: &SshHost, patience: Duration) -> Result<Option<f64>, ()> {
    let mut command = tokio::process::Command::from(ssh(host));
    command.arg("-G").arg("--").arg(&host.host).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(patience, command.output()).await.map_err(drop)?.map_err(drop)?;
    let (name, port) = destination(&String::from_utf8_lossy(&output.stdout)).ok_or(())?;
    let began = Instant::now();
    let connected = tokio::time::timeout(patience, TcpStream::connect((name.as_str(), port))).await;
    Ok(connected.is_ok_and(|connected| connected.is_ok()).then(|| began.elapsed().as_secs_f64() * 1000.0))
}

/// Host and port in the output of `ssh -G`; none when it goes another way than straight.
fn destination(settings: &str) -> Option<(String, u16)> {
    let value = |key: &str| {
        settings
            .lines()
            .find_map(|line| line.split_once(' ').filter(|(known, _)| *known == key))
            .map(|(_, v)| v)
    };
    let is_none = |key: &str| value(key).is_none_or(|value| value == "none");
    if !is_none("proxycommand") || !is_none("proxyjump") {
        return None;
    }
    Some((value("hostname")?.to_owned(), value("port")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    fn words(command: &Command) -> Vec<String> {
        command.get_args().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn what_ssh_is_told() {
        let host: SshHost = "me@mac:2222".parse().expect("a host");
        let local = Path::new("/run/duet/ssh/1-0.sock");
        assert_eq!(forward(&Far::Engine, local, None), None);
        let spec = forward(&Far::Engine, local, Some("/run/user/1000/duet/engine.sock")).expect("known");
        assert_eq!(spec, "/run/duet/ssh/1-0.sock:/run/user/1000/duet/engine.sock");
        let typed = words(&session(&host, &Far::Engine, Some(&spec)));
        let after = |flag: &str| {
            let at = typed.iter().position(|word| word == flag).expect(flag);
            typed[at + 1].clone()
        };
        assert_eq!((after("-p").as_str(), after("-l").as_str()), ("2222", "me"));
        assert_eq!(after("-L"), spec.to_string_lossy());
        assert_eq!(after("--"), "mac", "no option, whatever it is called");
        assert!(
            typed.contains(&"BatchMode=yes".to_owned()) && typed.last().is_some_and(|w| w.contains("tui"))
        );
        let port = |host: &str| Far::Port { host: host.to_owned(), port: 11434 };
        let spec = |far: &Far| forward(far, local, None).map(|spec| spec.to_string_lossy().into_owned());
        assert_eq!(spec(&port("localhost")).as_deref(), Some("/run/duet/ssh/1-0.sock:localhost:11434"));
        assert_eq!(spec(&port("::1")).as_deref(), Some("/run/duet/ssh/1-0.sock:[::1]:11434"));
        assert_eq!(
            spec(&Far::Socket("/run/a.sock".into())).as_deref(),
            Some("/run/duet/ssh/1-0.sock:/run/a.sock")
        );
        assert_eq!(words(&session(&host, &port("localhost"), None)).last().map(String::as_str), Some(ECHO));
    }

    #[test]
    fn hosts_behind_others_are_told_apart() {
        let straight = "user me\nhostname studio.local\nport 22\nproxyjump none\n";
        assert_eq!(destination(straight), Some(("studio.local".to_owned(), 22)));
        assert_eq!(destination(&straight.replace("proxyjump none", "proxyjump bastion")), None);
        assert_eq!(destination(&format!("{straight}proxycommand nc %h %p\n")), None);
        assert_eq!(destination(""), None);
    }
}
