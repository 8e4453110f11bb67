//! `tui backends` and what a client sends where: addresses, keys, proxies. The servers are made up.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers included"
)]

#[path = "support/program.rs"]
mod program;

use pretty_assertions::assert_eq;
use program::{command, wait_until};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

/// A server that writes down what it is asked, and answers every question with "Hello.".
struct Recorder {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let log = Arc::clone(&log);
                std::thread::spawn(move || answer(stream.unwrap(), &log));
            }
        });
        Self { address, asked }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far, heads and bodies.
    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// The keys of the requests so far, in order.
    fn keys(&self) -> Vec<String> {
        let key = |request: &String| {
            let line = request.lines().find(|line| line.to_lowercase().starts_with("authorization:"));
            line.map_or_else(String::new, |line| line.split_once(' ').unwrap().1.to_owned())
        };
        self.asked().iter().map(key).collect()
    }
}

fn answer(mut stream: TcpStream, log: &Mutex<Vec<String>>) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    let is_whole = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head
            .to_lowercase()
            .split("content-length: ")
            .nth(1)
            .map_or(0, |rest| rest.lines().next().unwrap().trim().parse::<usize>().unwrap());
        (body.len() >= length).then_some(())
    };
    while is_whole(&bytes).is_none() {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (kind, body) = if text.starts_with("POST /v1/chat/completions") {
        let chunk = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello.\"},\"finish_reason\":null}]}\n\n";
        let end =
            "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
        ("text/event-stream", format!("{chunk}{end}"))
    } else if text.starts_with("GET /v1/models") {
        (
            "application/json",
            "{\"object\":\"list\",\"data\":[{\"id\":\"small\",\"object\":\"model\"}]}".to_owned(),
        )
    } else {
        ("application/json", "{\"error\":{\"message\":\"not here\"}}".to_owned())
    };
    let status = if body.contains("not here") { 404 } else { 200 };
    log.lock().unwrap().push(text);
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
}

/// A client of the test's own.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn configure(&self, text: &str) {
        std::fs::create_dir_all(self.path("config")).unwrap();
        std::fs::write(self.path("config/config.toml"), text).unwrap();
    }

    fn config(&self) -> String {
        std::fs::read_to_string(self.path("config/config.toml")).unwrap_or_default()
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        self.run_with(arguments, "", &[])
    }

    fn run_with(&self, arguments: &[&str], input: &str, variables: &[(&str, &str)]) -> (i32, String, String) {
        let mut child = command(self.0.path())
            .args(arguments)
            .envs(variables.iter().copied())
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
}

const ASK: [&str; 6] = ["-p", "Hi", "--on", "box", "-m", "small"];

#[test]
fn one_is_added_listed_looked_at_and_removed() {
    let (home, server) = (Home::new(), Recorder::start());
    home.configure("# mine\n[engine]\nthreads = 1 # of two\n");
    let url = server.url();
    let typed = ["backends", "add", "box", &url, "--model", "small", "--noisy", "--memory", "8GiB"];
    let (code, out, err) = home.run(&typed);
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    assert!(
        err.contains("box is added to ") && err.contains("it answers: ") && err.contains("1 model;"),
        "{err}"
    );
    let expected = format!(
        "# mine\n[engine]\nthreads = 1 # of two\n\n[[backend]]\nname = \"box\"\nurl = \"{url}\"\nmodel = \"small\"\n\
         memory = \"8GiB\"\nnoisy = true\n"
    );
    assert_eq!(home.config(), expected);
    let (code, out, _) = home.run(&["backends"]);
    assert_eq!(code, 0);
    let line = out.lines().find(|line| line.contains("box")).expect("it is listed");
    assert!(line.starts_with("●  box") && line.contains(&url) && line.contains("ready, 1 model,"), "{line}");
    let (_, out, _) = home.run(&["backends", "list", "--json"]);
    let object: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((&object["name"], &object["state"]), (&"box".into(), &"ready".into()));
    assert_eq!((&object["models"][0], &object["error"]), (&"small".into(), &Value::Null));
    let (code, out, _) = home.run(&["backends", "test", "box"]);
    assert!(code == 0 && out.contains("models   ok   1: small") && out.contains("network  ok   "), "{out}");
    let (code, out, err) = home.run(&ASK);
    assert_eq!((code, out.as_str()), (0, "Hello.\n"), "{err}");
    assert!(server.asked().iter().all(|request| !request.contains("authorization")));

    let (code, _, err) = home.run(&["backends", "add", "box", &url]);
    assert!(code == 2 && err.contains("there is a backend `box` already"), "{err}");
    let (code, _, err) = home.run(&["backends", "rm", "box"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(home.config(), "# mine\n[engine]\nthreads = 1 # of two\n");
    for (name, words) in [("box", "no backend `box`"), ("local", "engine of this machine")] {
        let (code, _, err) = home.run(&["backends", "rm", name]);
        assert!(code == 2 && err.contains(words), "{err}");
    }
}

#[test]
fn what_would_not_be_read_again_is_not_written() {
    let home = Home::new();
    for (typed, words) in [
        (&["box", "127.0.0.1:1"][..], "no server answers at 127.0.0.1:1"),
        (&["box", "ftp://x"], "does not begin with http://"),
        (&["box", "http://me:secret@x"], "keys do not belong in an address"),
        (&["box", "http://8.8.8.8"], "public address"),
        (&["box", "http://mac", "--token-env", "K"], "a key is not sent over plain http"),
        (&["box", "http://mac", "--private"], "can be read on the way"),
        (&["box", "http://[fe80::1%eth0]"], "not an address"),
        (&["box", "ssh://mac", "--ssh", "x"], "beside an ssh:// address"),
        (&["box", "https://mac", "--fingerprint", "sha256:x"], "43 characters"),
        (&["box", "https://mac", "--wake", "x"], "no hardware address"),
        (&["local", "http://mac"], "there is a backend `local` already"),
        (&["a/b", "http://mac"], "no name for a backend"),
        (&["-x", "http://mac"], "unexpected argument"),
        (&["box", "http://mac", "--kind", "gpt"], "--kind can't be \"gpt\""),
        (&["box", "http://mac", "--memory", "lots"], "--memory can't be \"lots\""),
        (&["box"], "add needs a URL\nhint: `tui backends add --help` shows how"),
    ] {
        let (code, out, err) = home.run(&[&["backends", "add"][..], typed].concat());
        assert!(code != 0 && out.is_empty() && err.contains(words), "{typed:?}: {code} {err}");
        assert!(!err.contains("secret") && err.trim_end().lines().count() <= 2, "{typed:?}: {err}");
        assert_eq!(home.config(), "", "{typed:?}");
    }
    // Something else in the file names what is to go.
    let text = "[route]\nlarge = \"box\"\n[[backend]]\nname = \"box\"\nurl = \"http://127.0.0.1:1\"\n";
    home.configure(text);
    let (code, _, err) = home.run(&["backends", "rm", "box"]);
    assert!(code == 2 && err.contains("`route.large`: no backend `box`"), "{err}");
    assert_eq!(home.config(), text);
    home.configure("backend = [{ name = \"box\", url = \"http://127.0.0.1:1\" }]\n");
    let (code, _, err) = home.run(&["backends", "rm", "box"]);
    assert!(code == 2 && err.contains("write each as a [[backend]]"), "{err}");
}

#[test]
fn a_server_that_is_off_is_added_all_the_same() {
    let home = Home::new();
    let (code, _, err) = home.run(&["backends", "add", "box", "http://127.0.0.1:1"]);
    assert!(code == 0 && err.contains("it can't be used yet: nothing listens there"), "{code} {err}");
    let (code, out, _) = home.run(&["backends"]);
    let line = out.lines().find(|line| line.contains("box")).expect("it is listed");
    assert!(code == 0 && line.contains("nothing listens there -> start the server there"), "{line}");
    let (code, out, _) = home.run(&["backends", "test", "box"]);
    assert!(code == 3 && out.contains("connect  BAD  nothing listens there"), "{out}");
    let (code, _, err) = home.run(&["backends", "wake", "box"]);
    assert!(code == 3 && err.contains("its hardware address is not known"), "{err}");
    let (code, _, err) = home.run(&["backends", "test", "nowhere"]);
    assert!(code == 2 && err.contains("no backend `nowhere`; there is "), "{err}");
    let name = "[[backend]]\nname = \"box\"\nurl = \"http://no-such-host.invalid\"\n";
    home.configure(name);
    let (_, out, _) = home.run(&["backends", "test", "box"]);
    assert!(out.contains("name     BAD  no such host"), "{out}");
}

#[test]
fn a_host_and_port_alone_are_looked_at() {
    let (home, server) = (Home::new(), Recorder::start());
    let (code, _, err) = home.run(&["backends", "add", "box", &server.address.to_string()]);
    assert!(code == 0 && err.contains(&format!("found {}", server.url())), "{code} {err}");
    assert!(home.config().contains(&format!("url = \"{}\"", server.url())));
}

#[test]
fn a_key_goes_to_its_server_and_nowhere_else() {
    let (home, server) = (Home::new(), Recorder::start());
    let (code, _, err) =
        home.run_with(&["backends", "add", "box", &server.url(), "--key"], "canary-1\n", &[]);
    assert_eq!(code, 0, "{err}");
    let file = home.path("data/keys/box");
    assert!(err.contains("readable by you alone: no keyring answers here"), "{err}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(home.config().contains("token_file = ") && !home.config().contains("canary"));
    let trace = [("DUET_LOG", "trace")];
    let (code, out, err) = home.run_with(&ASK, "", &trace);
    assert_eq!((code, out.as_str()), (0, "Hello.\n"), "{err}");
    std::fs::write(&file, "canary-2\n").unwrap();
    let (code, _, err) = home.run_with(&ASK, "", &trace);
    assert_eq!(code, 0, "{err}");
    let keys = server.keys();
    assert_eq!(keys.first().map(String::as_str), Some("Bearer canary-1"));
    assert_eq!(keys.last().map(String::as_str), Some("Bearer canary-2"), "a rotated key counts at once");
    let shown = ["config", "backends", "doctor"].map(|command| {
        let arguments = if command == "config" { vec!["config", "show"] } else { vec![command] };
        home.run_with(&arguments, "", &trace)
    });
    let log = std::fs::read_to_string(home.path("cache/logs/tui.log")).unwrap();
    assert!(!log.is_empty() && !format!("{shown:?}{log}").contains("canary"), "{shown:?}");

    let asked = server.asked().len();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    let (code, out, err) = home.run(&ASK);
    assert_eq!((code, out.as_str()), (3, ""));
    let hint = format!("hint: `chmod 600 {}`", file.display());
    assert!(err.contains("others can read or change the key of box") && err.contains(&hint), "{err}");
    let (code, _, err) = home.run(&["config", "check"]);
    assert!(code == 2 && err.contains("others can read or change"), "{err}");
    assert_eq!(server.asked().len(), asked, "nothing was sent");
    home.run(&["backends", "rm", "box"]);
    assert!(!file.exists());
}

#[test]
fn a_keyring_that_is_not_there_is_one_clear_line() {
    let (home, server) = (Home::new(), Recorder::start());
    home.configure(&format!(
        "[[backend]]\nname = \"box\"\nurl = \"{}\"\ntoken_keyring = true\n",
        server.url()
    ));
    let (code, _, err) = home.run(&ASK);
    assert!(
        code == 3 && err.contains("box wants its key from the keyring: no keyring answers here"),
        "{err}"
    );
    assert!(err.contains("`token_file`") && err.trim_end().lines().count() == 2, "{err}");
    assert_eq!(server.asked().len(), 0);
}

#[test]
fn proxies_of_the_environment_are_not_used() {
    let (home, server) = (Home::new(), Recorder::start());
    home.configure(&format!("[[backend]]\nname = \"box\"\nurl = \"{}\"\nmodel = \"small\"\n", server.url()));
    let proxy = Recorder::start();
    let url = proxy.url();
    let variables: Vec<(&str, &str)> =
        ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
            .map(|name| (name, url.as_str()))
            .into();
    let (code, out, err) = home.run_with(&ASK, "", &variables);
    assert_eq!((code, out.as_str()), (0, "Hello.\n"), "{err}");
    let (code, _, _) = home.run_with(&["backends", "test", "box"], "", &variables);
    assert_eq!(code, 0);
    assert_eq!((proxy.asked().len(), server.asked().is_empty()), (0, false));
}

#[test]
fn a_socket_of_this_machine_is_a_backend() {
    let home = Home::new();
    let path = home.path("llama.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut bytes = [0; 8192];
            if stream.read(&mut bytes).unwrap() == 0 {
                continue;
            }
            let body = "{\"data\":[{\"id\":\"small\"}]}";
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
        }
    });
    let url = format!("unix://{}", path.display());
    let (code, _, err) = home.run(&["backends", "add", "box", &url]);
    assert!(code == 0 && err.contains("1 model"), "{code} {err}");
    let (code, out, _) = home.run(&["models", "--on", "box", "--json"]);
    assert!(code == 0 && out.contains("small"), "{out}");
}

#[test]
fn a_machine_that_is_awake_is_not_woken() {
    let (home, server) = (Home::new(), Recorder::start());
    let wake = "wake = \"0a:00:00:00:00:01\"";
    home.configure(&format!("[[backend]]\nname = \"box\"\nurl = \"{}\"\n{wake}\n", server.url()));
    let (code, _, err) = home.run(&["backends", "wake", "box"]);
    assert!(code == 2 && err.contains("this machine is awake"), "{code} {err}");
}

#[test]
fn many_at_once_are_one_line_each_and_none_waits_for_another() {
    let (home, server) = (Home::new(), Recorder::start());
    let mut text = format!("[[backend]]\nname = \"good\"\nurl = \"{}\"\n", server.url());
    for number in 0..8 {
        text.push_str(&format!(
            "[[backend]]\nname = \"off{number}\"\nurl = \"http://127.0.0.1:{}\"\n",
            number + 1
        ));
    }
    home.configure(&text);
    let (code, out, _) = home.run(&["backends", "--json"]);
    assert_eq!(code, 0);
    let states: Vec<String> = out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["state"].as_str().unwrap().to_owned())
        .filter(|state| state != "stopped")
        .collect();
    assert_eq!(states.iter().filter(|state| *state == "unreachable").count(), 8, "{out}");
    assert_eq!(states.iter().filter(|state| *state == "ready").count(), 1, "{out}");
    wait_until("it was asked", || !server.asked().is_empty());
}
