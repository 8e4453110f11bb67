//! `.ci/setup` against made-up machines: a folder of tools is the whole PATH, and package managers only write
//! down how they were called. Nothing is installed.
#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a machine that could not be made up has failed")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// What the script itself needs; every Unix has these.
const BASICS: &[&str] =
    &["bash", "sh", "env", "sed", "mktemp", "rm", "dirname", "uname", "id", "cat", "tr", "true"];

struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { dir: tempfile::tempdir().expect("a folder") };
        fs::create_dir_all(machine.path("bin")).expect("made");
        fs::create_dir_all(machine.path("lib/clang/14/include")).expect("made");
        for name in BASICS {
            let real = ["/bin", "/usr/bin"].iter().map(|dir| Path::new(dir).join(name)).find(|p| p.exists());
            symlink(real.expect("a basic tool"), machine.path("bin").join(name)).expect("linked");
        }
        machine.tool("cargo", "echo 'cargo 1.95.0 (f2d3ce0bd 2026-03-21)'").tool("id", "echo 0")
    }

    /// A machine with everything on it.
    fn complete() -> Self {
        Self::new().tool("cc", "").tool("c++", "").tool("make", "").tool("cmake", "").libclang()
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn tool(self, name: &str, body: &str) -> Self {
        let file = self.path("bin").join(name);
        let _ = fs::remove_file(&file);
        fs::write(&file, format!("#!/bin/sh\n{body}\n")).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("set");
        self
    }

    /// A tool that writes down its arguments.
    fn recorder(self, name: &str) -> Self {
        let log = self.path("log");
        let body = format!("echo \"{name} $*\" >> '{}'", log.display());
        self.tool(name, &body)
    }

    fn libclang(self) -> Self {
        fs::write(self.path("lib/libclang-14.so.1"), "").expect("written");
        fs::write(self.path("lib/clang/14/include/stddef.h"), "").expect("written");
        self
    }

    /// Exit code, what was said, what the recorders wrote down.
    fn run(&self, goal: &str) -> (i32, String, String) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/setup");
        let output = Command::new(self.path("bin/bash"))
            .arg(script)
            .arg(goal)
            .env_clear()
            .env("PATH", self.path("bin"))
            .env("HOME", self.dir.path())
            .env("CARGO_TARGET_DIR", self.path("target"))
            .env("DUET_SETUP_LIB_DIRS", self.path("lib"))
            .env("DUET_SETUP_SSHD_DIRS", self.path("sbin"))
            .env("DUET_SETUP_BOOTED", self.path("booted"))
            .output()
            .expect("bash runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.stdout.is_empty(), "stdout belongs to the program that is run afterwards");
        (output.status.code().unwrap_or(-1), said, fs::read_to_string(self.path("log")).unwrap_or_default())
    }
}

#[test]
fn silent_when_all_is_there() {
    let (code, said, ran) = Machine::complete().recorder("apt-get").run("run");
    assert_eq!((code, said.as_str(), ran.as_str()), (0, "", ""));
}

#[test]
fn every_manager_is_asked_for_its_own_packages() {
    let cases = [
        (
            "apt-get",
            "apt-get update -qq\n\
             apt-get install -y --no-install-recommends build-essential make cmake libclang-dev\n",
        ),
        ("dnf", "dnf install -y gcc gcc-c++ make cmake clang-devel\n"),
        ("pacman", "pacman -S --needed --noconfirm gcc make cmake clang\n"),
        ("brew", "brew install gcc make cmake llvm\n"),
    ];
    for (manager, expected) in cases {
        let (code, said, ran) = Machine::new().recorder(manager).run("run");
        assert_eq!((code, ran.as_str()), (0, expected), "{manager}");
        assert!(said.starts_with("setup: missing: compiler make cmake libclang; running "), "{said}");
    }
}

#[test]
fn only_what_is_missing_is_installed() {
    let machine = Machine::complete().recorder("apt-get");
    fs::remove_file(machine.path("lib/clang/14/include/stddef.h")).expect("removed");
    let (code, _, ran) = machine.run("run");
    assert_eq!(code, 0);
    assert_eq!(ran.lines().last(), Some("apt-get install -y --no-install-recommends libclang-dev"));
}

#[test]
fn without_rights_the_exact_command_is_printed() {
    let machine = Machine::new().libclang().recorder("apt-get").tool("id", "echo 1000");
    let (code, said, ran) = machine.run("run");
    assert_eq!((code, ran.as_str()), (1, ""));
    let command =
        "sudo apt-get update && sudo apt-get install -y --no-install-recommends build-essential make cmake";
    assert!(said.lines().any(|line| line.trim() == command), "{said}");

    // A sudo that wants a password is no right; one that does not is.
    let (code, _, ran) = machine.tool("sudo", "exit 1").run("run");
    assert_eq!((code, ran.as_str()), (1, ""));
    let machine = Machine::new().recorder("dnf").tool("id", "echo 1000").tool("sudo", "shift; exec \"$@\"");
    let (code, _, ran) = machine.run("run");
    assert_eq!((code, ran.as_str()), (0, "dnf install -y gcc gcc-c++ make cmake clang-devel\n"));
}

#[test]
fn failures_end_with_a_next_step() {
    let (code, said, _) = Machine::new().run("run");
    assert!(code == 1 && said.contains("install them by hand"), "{said}");
    let (code, said, _) = Machine::new().tool("dnf", "exit 7").run("run");
    assert!(code == 1 && said.contains("sudo dnf install -y gcc"), "{said}");
    let old = Machine::complete().tool("cargo", "echo 'cargo 1.63.0'");
    let (code, said, _) = old.run("run");
    assert!(code == 1 && said.contains("cargo 1.63.0, but 1.91 or newer is needed"), "{said}");
    let (code, _, _) = Machine::complete().run("nonsense");
    assert_eq!(code, 2);
}

#[test]
fn rust_is_installed_by_rustup_when_there_is_none() {
    let machine = Machine::complete();
    fs::remove_file(machine.path("bin/cargo")).expect("removed");
    // What curl fetches is run by sh with these arguments; here it puts a cargo in place.
    let install = "echo \"rustup-init $*\" >> \"$HOME/log\"; \
                   printf '#!/bin/sh\\necho cargo 1.95.0\\n' > \"$HOME/bin/cargo\"; chmod +x \"$HOME/bin/cargo\"";
    let machine = machine.tool("curl", &format!("cat <<'END'\n{install}\nEND"));
    symlink("/bin/chmod", machine.path("bin/chmod")).expect("linked");
    let (code, said, ran) = machine.run("run");
    assert_eq!(code, 0, "{said}");
    assert_eq!(
        ran,
        "rustup-init -y -q --no-modify-path --profile minimal --component clippy --component rustfmt\n"
    );
}

#[test]
fn tests_need_the_components_and_cargo_deny() {
    let machine = Machine::complete()
        .tool("cargo-clippy", "")
        .tool("cargo-fmt", "exit 1")
        .recorder("rustup")
        .tool("cargo-deny", "");
    let (code, _, ran) = machine.run("test");
    assert_eq!((code, ran.as_str()), (0, "rustup component add rustfmt\n"));

    let machine = Machine::complete()
        .tool("cargo-clippy", "")
        .tool("cargo-fmt", "")
        .tool("cargo", "[ \"$1\" = --version ] && echo cargo 1.95.0 || echo \"cargo $*\" >> \"$HOME/log\"");
    let (code, said, ran) = machine.run("test");
    assert_eq!(code, 0, "{said}");
    assert!(
        ran.starts_with("cargo install --quiet --locked") && ran.trim_end().ends_with("cargo-deny"),
        "{ran}"
    );
}

#[test]
fn an_ssh_server_is_installed_only_where_that_starts_no_service() {
    let machine = || {
        let machine = Machine::complete();
        machine.tool("cargo-clippy", "").tool("cargo-fmt", "").tool("cargo-deny", "").recorder("apt-get")
    };
    let (code, _, ran) = machine().run("test");
    let packages = "apt-get install -y --no-install-recommends openssh-server openssh-client";
    assert_eq!((code, ran.lines().last()), (0, Some(packages)));
    assert_eq!(machine().run("run").2, "", "only for tests");

    let booted = machine();
    fs::write(booted.path("booted"), "").expect("written");
    let (code, said, ran) = booted.run("test");
    assert_eq!((code, ran.as_str()), (0, ""));
    assert!(said.contains("no SSH server: the tests over SSH are skipped"), "{said}");

    let there = machine().tool("sshd", "");
    assert_eq!(there.run("test"), (0, String::new(), String::new()));

    // Without rights the rest goes on.
    let (code, said, ran) = machine().tool("id", "echo 1000").run("test");
    assert_eq!((code, ran.as_str()), (0, ""));
    assert!(said.contains("openssh-server") && said.contains("are skipped"), "{said}");
}
