//! Our own client over TLS: pairing, asking, and what happens when somebody else answers in the server's place.

use crate::pty::{Home, Program, Pty};
use crate::support::{DEADLINE, Server, command, serve, wait_until};
use serde_json::Value;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

/// Runs `tui` of a client; exit code, stdout, stderr.
fn tui(dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    typed(dir, arguments, "")
}

fn typed(dir: &Path, arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut child = command(dir)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

fn ask(dir: &Path, on: &str) -> (i32, String, String) {
    tui(dir, &["-p", "Hello", "--on", on, "-m", "builtin", "--no-save"])
}

/// The line a server printed last for a client.
fn line(server: &Server) -> String {
    let find = || server.told().lines().rev().find(|line| line.contains("duet://")).map(str::to_owned);
    wait_until("it prints a line", || find().is_some());
    find().unwrap().trim().to_owned()
}

fn config(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("config/config.toml")).unwrap_or_default()
}

/// What is between `key = "` and `"`.
fn value(text: &str, key: &str) -> String {
    let rest = text.split(&format!("{key} = \"")).nth(1).unwrap_or_else(|| panic!("no {key} in {text}"));
    rest.split('"').next().unwrap().to_owned()
}

#[test]
fn one_line_pairs_a_client_and_it_asks() {
    let server = Server::start_in(tempfile::tempdir().unwrap(), &["--pair"], "", None);
    let client = tempfile::tempdir().unwrap();
    let dir = client.path();
    std::fs::create_dir(dir.join("config")).unwrap();
    std::fs::write(dir.join("config/config.toml"), "# mine\ntheme = \"light\" # bright\n").unwrap();
    let line = line(&server);
    let (code, out, err) = tui(dir, &["backends", "pair", &line, "mac"]);
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    let key = line.split("key=").nth(1).unwrap().split('&').next().unwrap();
    assert!(err.contains(key) && err.contains("it answers: Duet") && !err.contains("duet_"), "{err}");
    let text = config(dir);
    assert!(
        text.starts_with("# mine\ntheme = \"light\" # bright\n\n[[backend]]\nname = \"mac\"\n"),
        "{text}"
    );
    assert_eq!(value(&text, "fingerprint"), key);
    assert_eq!(value(&text, "url"), format!("https://{}", server.address));
    // There is no keyring in this environment.
    let file = value(&text, "token_file");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode, file.ends_with("data/keys/mac")), (0o600, true), "{file}");
    let token = std::fs::read_to_string(&file).unwrap();
    assert!(token.starts_with("duet_") && !text.contains(token.trim()));

    let (code, out, err) = ask(dir, "mac");
    assert_eq!((code, out.as_str()), (0, "Hello! How can I help you today?\n"), "{err}");
    let (code, out, err) = tui(dir, &["backends", "test", "mac"]);
    assert_eq!(code, 0, "{out}{err}");
    for (step, says) in
        [("tls", key), ("key", "taken, from "), ("server", "Duet"), ("models", "builtin"), ("network", " ms")]
    {
        let line = out.lines().find(|line| line.starts_with(step)).unwrap_or_else(|| panic!("{step}: {out}"));
        assert!(line.contains("ok ") && line.contains(says), "{line}");
    }
    let list = tui(dir, &["backends", "--json"]).1;
    let mac: Value = serde_json::from_str(list.lines().last().unwrap()).unwrap();
    assert_eq!((&mac["name"], &mac["state"], &mac["kind"]), (&"mac".into(), &"ready".into(), &"duet".into()));

    // The code is used up, and a name that is taken is another one's.
    let (code, _, err) = tui(dir, &["backends", "pair", &line, "again"]);
    assert!(
        code == 3 && err.contains("does not take the code") && err.contains("`tui serve --pair`"),
        "{err}"
    );
    assert!(!config(dir).contains("again"));
    let (_, _, told) = serve(server.dir(), &["--pair"]);
    let second = told.lines().find(|line| line.contains("duet://")).unwrap().trim().to_owned();
    let (code, _, err) = typed(dir, &["backends", "pair", "-", "second"], &second);
    assert_eq!(code, 0, "{err}");
    let names = serve(server.dir(), &["token", "list"]).1;
    assert_eq!(names.lines().count(), 2, "one client, two tokens: {names}");
    // Everything this client wrote, but for its keys, is free of tokens.
    for entry in ["config/config.toml", "data/learned.json", "cache/logs/tui.log"] {
        let text = std::fs::read_to_string(dir.join(entry)).unwrap_or_default();
        assert!(!text.contains(token.trim()), "{entry}");
    }

    let (code, _, err) = tui(dir, &["backends", "rm", "mac"]);
    assert_eq!(code, 0, "{err}");
    assert!(!Path::new(&file).exists() && config(dir).contains("second") && config(dir).contains("# bright"));
}

#[test]
fn somebody_else_in_its_place_is_told_nothing() {
    let server = Server::start_in(tempfile::tempdir().unwrap(), &["--pair"], "", None);
    let client = tempfile::tempdir().unwrap();
    let dir = client.path();
    let (code, _, err) = tui(dir, &["backends", "pair", &line(&server), "mac"]);
    assert_eq!(code, 0, "{err}");
    // Another server with another key is where the first one was.
    let other = Server::with(&["--tls"], "");
    let text = config(dir).replace(&server.address.to_string(), &other.address.to_string());
    std::fs::write(dir.join("config/config.toml"), &text).unwrap();
    let was = value(&text, "fingerprint");
    let now = format!("sha256:{}", other.told().split("SHA256:").nth(1).unwrap().lines().next().unwrap());
    let (code, out, err) = ask(dir, "mac");
    assert_eq!((code, out.as_str()), (3, ""));
    assert!(
        err.contains(&format!("mac: certificate changed. was {was} now {now}, nothing was sent")),
        "{err}"
    );
    assert!(err.contains("hint: `tui backends pair mac`"), "{err}");
    let (_, list, _) = tui(dir, &["backends"]);
    assert!(
        list.lines().any(|line| line.starts_with("✕  mac") && line.contains("certificate changed")),
        "{list}"
    );
    assert!(!other.log().contains("client") && !other.log().contains("401"), "{}", other.log());

    // Without somebody to compare it, a changed key is not taken, whatever is said.
    for more in [&[][..], &["--yes"]] {
        let (code, _, err) = tui(dir, &[&["backends", "pair", "mac"][..], more].concat());
        assert!(code == 3 && err.contains(&was) && err.contains(&now), "{code} {err}");
        assert!(err.contains(&format!("tui backends pair mac --fingerprint {now}")), "{err}");
    }
    assert_eq!(config(dir), text);
    let (code, _, err) = tui(dir, &["backends", "pair", "mac", "--fingerprint", &was]);
    assert!(code == 3 && err.contains("certificate changed"), "the expected key is not there: {err}");
    let (code, _, err) = tui(dir, &["backends", "pair", "mac", "--fingerprint", &now]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(value(&config(dir), "fingerprint"), now);
    // The key is right now, the token is of the other server.
    let (code, _, err) = ask(dir, "mac");
    assert!(code == 3 && err.contains("refuses the key (401)"), "{err}");
}

#[test]
fn a_bare_address_shows_its_key_first() {
    let server = Server::with(&["--tls"], "");
    let url = format!("https://localhost:{}", server.address.port());
    let client = tempfile::tempdir().unwrap();
    let dir = client.path();
    let (code, _, err) = tui(dir, &["backends", "add", "mac", &url]);
    assert!(code == 0 && err.contains("its certificate is signed by nobody this machine knows"), "{err}");
    assert!(err.contains("`tui backends pair mac`"), "{err}");
    let (code, _, err) = tui(dir, &["backends", "pair", "mac"]);
    assert!(code == 2 && err.contains("nobody is here to compare the key"), "{err}");
    let (code, _, err) = tui(dir, &["backends", "pair", "mac", "--yes"]);
    assert_eq!(code, 0, "{err}");
    let shown = server.told().split("SHA256:").nth(1).unwrap().lines().next().unwrap().to_owned();
    assert!(err.contains(&shown) && config(dir).contains(&shown), "{err}");
    assert!(err.contains("it can't be used yet") && err.contains("(401)"), "it has no token: {err}");
    // A host and port alone are looked at: here is one to pair with.
    let place = format!("localhost:{}", server.address.port());
    let (code, _, err) = tui(dir, &["backends", "add", "other", &place]);
    assert!(code == 3 && err.contains(&format!("`tui backends pair {url} other`")), "{code} {err}");
    let plain = Server::start();
    let url = format!("http://{}", plain.address);
    let (code, _, err) = tui(dir, &["backends", "pair", &url]);
    assert!(code == 2 && err.contains("speaks no TLS") && err.contains("tui serve --pair"), "{err}");
    // TLS is asked for where there is none.
    let (code, _, err) = tui(dir, &["backends", "pair", &url.replace("http:", "https:"), "x", "--yes"]);
    assert!(code != 0 && err.contains("does not speak TLS"), "{code} {err}");
}

/// The client in a terminal, with somebody who types.
fn in_a_terminal(dir: &Path, arguments: &[&str]) -> Pty {
    let mut program = Program::new(env!("CARGO_BIN_EXE_tui"), &Home::new()).args(arguments.iter().copied());
    program = program.size(120, 30).env("HOME", dir.to_str().unwrap());
    for (name, folder) in [("CONFIG", "config"), ("DATA", "data"), ("CACHE", "cache"), ("RUNTIME", "run")] {
        program = program.env(&format!("DUET_{name}_DIR"), dir.join(folder).to_str().unwrap());
    }
    program.start()
}

#[test]
fn a_person_compares_the_key_once() {
    let server = Server::start_in(tempfile::tempdir().unwrap(), &["--pair"], "", None);
    let url = format!("https://localhost:{}", server.address.port());
    let line = line(&server);
    let key = line.split("key=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    let code = line.split("code=").nth(1).unwrap().to_owned();
    let client = tempfile::tempdir().unwrap();
    let dir = client.path();
    let mut pty = in_a_terminal(dir, &["backends", "pair", &url, "mac"]);
    pty.wait_for_text(&key);
    pty.wait_for_text("is that the key `tui serve` prints there? [y/N]");
    pty.send("no\r");
    assert_eq!(pty.wait_for_end(DEADLINE), Ok(3));
    assert_eq!(config(dir), "", "nothing is kept");

    let mut pty = in_a_terminal(dir, &["backends", "pair", &url, "mac"]);
    pty.wait_for_text("[y/N]");
    pty.send("y\r");
    pty.wait_for_text("one-time code");
    pty.send(format!("{code}\r"));
    assert_eq!(pty.wait_for_end(DEADLINE), Ok(0));
    assert!(pty.received().text().contains("it answers: Duet"), "{}", pty.received().text());
    let (code, out, err) = ask(dir, "mac");
    assert_eq!((code, out.as_str()), (0, "Hello! How can I help you today?\n"), "{err}");
    // Paired again, with the same key: nothing has to be compared.
    let mut pty = in_a_terminal(dir, &["backends", "pair", "mac"]);
    assert_eq!(pty.wait_for_end(DEADLINE), Ok(0));
    assert!(pty.received().text().contains("still has the key"), "{}", pty.received().text());
}

#[test]
fn a_key_is_typed_unseen() {
    let client = tempfile::tempdir().unwrap();
    let dir = client.path();
    let mut pty = in_a_terminal(dir, &["backends", "add", "box", "http://127.0.0.1:1", "--key"]);
    pty.wait_for_text("key of box:");
    pty.send("canary\r");
    assert_eq!(pty.wait_for_end(DEADLINE), Ok(0));
    assert_eq!(std::fs::read_to_string(dir.join("data/keys/box")).unwrap(), "canary\n");
    assert!(!pty.received().text().contains("canary"), "{}", pty.received().text());
    pty.assert_restored();
}
