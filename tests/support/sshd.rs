//! An SSH server of the test's own on a free port of loopback, with its own keys, and an `ssh` that knows it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails fails its test"
)]
#![allow(dead_code, reason = "not every test uses all of it")]

use super::program::wait_until;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// The server, and the folders of both sides.
pub(crate) struct Sshd {
    dir: tempfile::TempDir,
    program: PathBuf,
    port: u16,
    child: Option<Child>,
    log: Arc<Mutex<String>>,
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

impl Sshd {
    /// Starts one; none, with a word, where the system has no SSH server.
    pub(crate) fn start() -> Option<Self> {
        Self::with("")
    }

    /// One with more lines in its configuration.
    pub(crate) fn with(lines: &str) -> Option<Self> {
        let (Some(program), Some(ssh), Some(keygen)) = (find("sshd"), find("ssh"), find("ssh-keygen")) else {
            eprintln!("skipped: OpenSSH's server, client and ssh-keygen are not all here");
            return None;
        };
        if rustix::process::getuid().is_root() {
            // Where no service has made it yet.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["far", "far/bin", "far/config", "near", "near/config", "near/bin"] {
            fs::create_dir(at(name)).unwrap();
        }
        fs::write(at("far/config/config.toml"), "[engine]\nlinger = 1\nthreads = 1\n").unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_tui"), at("far/bin/tui")).unwrap();
        for key in ["host_key", "key", "stranger", "other_host_key"] {
            let made =
                Command::new(&keygen).args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(at(key)).status();
            assert!(made.unwrap().success());
        }
        fs::copy(at("key.pub"), at("authorized_keys")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let far = |name: &str| at("far").join(name).display().to_string();
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", far("bin"));
        let variables = [("CONFIG", "config"), ("DATA", "data"), ("CACHE", "cache"), ("RUNTIME", "run")]
            .map(|(name, folder)| format!("DUET_{name}_DIR={}", far(folder)));
        fs::write(
            at("sshd_config"),
            format!(
                "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
                 UsePAM no\nStrictModes no\nLogLevel VERBOSE\nMaxStartups 100\nMaxSessions 50\n\
                 SetEnv PATH={path} {}\n{lines}",
                at("host_key").display(),
                at("authorized_keys").display(),
                variables.join(" "),
            ),
        )
        .unwrap();
        let known = |key: &str| {
            let text = fs::read_to_string(at(key)).unwrap();
            let words: Vec<&str> = text.split(' ').take(2).collect();
            format!("[127.0.0.1]:{port} {}\n", words.join(" "))
        };
        fs::write(at("known"), known("host_key.pub")).unwrap();
        fs::write(at("changed"), known("other_host_key.pub")).unwrap();
        fs::write(at("empty"), "").unwrap();
        let host = |name: &str, lines: &str| format!("Host {name}\n  {lines}\n");
        let key = format!("IdentityFile {}", at("key").display());
        fs::write(
            at("ssh_config"),
            [
                host("far", &key),
                host("shared", &format!("{key}\n  ControlPath {}", at("master").display())),
                host("nowhere", "HostName no-such-host.invalid"),
                host("deaf", &format!("{key}\n  Port 1")),
                host("shut", &format!("IdentityFile {}", at("stranger").display())),
                host("unknown", &format!("{key}\n  UserKnownHostsFile {}", at("empty").display())),
                host("changed", &format!("{key}\n  UserKnownHostsFile {}", at("changed").display())),
                host(
                    "*",
                    &format!(
                        "HostName 127.0.0.1\n  Port {port}\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile none\n  \
                         IdentitiesOnly yes\n  IdentityAgent none",
                        at("known").display()
                    ),
                ),
            ]
            .concat(),
        )
        .unwrap();
        // The program finds this one first; `ssh` itself looks for its configuration in the user's real home.
        let script = format!("#!/bin/sh\nexec {} -F {} \"$@\"\n", ssh.display(), at("ssh_config").display());
        fs::write(at("near/bin/ssh"), script).unwrap();
        fs::set_permissions(at("near/bin/ssh"), fs::Permissions::from_mode(0o755)).unwrap();
        let mut sshd = Self { dir, program, port, child: None, log: Arc::default() };
        sshd.run();
        Some(sshd)
    }

    /// Runs the server, again after [`Self::kill`].
    pub(crate) fn run(&mut self) {
        let mut child = Command::new(&self.program)
            .args(["-D", "-e", "-f"])
            .arg(self.path("sshd_config"))
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (stderr, log) = (child.stderr.take().unwrap(), Arc::clone(&self.log));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                log.lock().unwrap().push_str(&format!("{line}\n"));
            }
        });
        let port = self.port;
        wait_until("the SSH server listens", || {
            let status = child.try_wait().unwrap();
            assert!(status.is_none(), "sshd ended: {}", self.log.lock().unwrap());
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        self.child = Some(child);
    }

    /// The connections it serves, and itself.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut all = vec![self.child.as_ref().unwrap().id()];
        let listed = Command::new("ps").args(["-A", "-o", "pid=,ppid=,comm="]).output().unwrap();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let rows: Vec<(u32, u32, bool)> = listed
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let (pid, parent) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                Some((pid, parent, words.next()?.contains("sshd")))
            })
            .collect();
        let mut at = 0;
        while let Some(parent) = all.get(at).copied() {
            all.extend(rows.iter().filter(|row| row.1 == parent && row.2).map(|row| row.0));
            at += 1;
        }
        all
    }

    /// Sends a signal to all of it.
    pub(crate) fn signal(&self, signal: &str) {
        for pid in self.processes() {
            let _ = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
        }
    }

    /// Kills it with all its connections.
    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What it has told so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Logins so far.
    pub(crate) fn logins(&self) -> usize {
        self.log().matches("Accepted publickey").count()
    }

    /// The folders of the near side, and the PATH with its `ssh`.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let near = self.path("near");
        let mut all = vec![
            ("HOME".to_owned(), near.display().to_string()),
            ("PATH".to_owned(), format!("{}:/usr/local/bin:/usr/bin:/bin", near.join("bin").display())),
        ];
        for (name, folder) in [("CONFIG", "config"), ("DATA", "data"), ("CACHE", "cache"), ("RUNTIME", "run")]
        {
            all.push((format!("DUET_{name}_DIR"), near.join(folder).display().to_string()));
        }
        all
    }

    /// With this configuration of the near side.
    pub(crate) fn configure(&self, text: &str) {
        fs::write(self.path("near/config/config.toml"), text).unwrap();
    }

    /// The near side's program.
    pub(crate) fn tui(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tui"));
        command.env_clear().envs(self.environment()).args(arguments).stdin(Stdio::null());
        command
    }

    /// Exit code, stdout and stderr of a run of it.
    pub(crate) fn run_tui(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.tui(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    /// The `ssh` of the near side.
    pub(crate) fn ssh(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path("near/bin/ssh"));
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Command lines of processes that have to do with the near side's `ssh`.
    pub(crate) fn left_over(&self) -> Vec<String> {
        let listed = Command::new("ps").args(["-A", "-ww", "-o", "args="]).output().unwrap();
        let mark = self.path("ssh_config").display().to_string();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        listed.lines().filter(|line| line.contains(&mark)).map(str::to_owned).collect()
    }

    /// Sockets of tunnels on the near side.
    pub(crate) fn sockets(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("near/run/ssh")).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // The engine of the far side lingers, and would be in the way of removing its folder.
        let _ = Command::new(env!("CARGO_BIN_EXE_tui"))
            .env_clear()
            .env("HOME", self.path("far"))
            .envs(
                [("CONFIG", "config"), ("DATA", "data"), ("CACHE", "cache"), ("RUNTIME", "run")]
                    .map(|(name, folder)| (format!("DUET_{name}_DIR"), self.path("far").join(folder))),
            )
            .args(["engine", "stop"])
            .stdin(Stdio::null())
            .output();
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// Whether a file is there and has this text somewhere.
pub(crate) fn has(file: &Path, text: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|found| found.contains(text))
}
