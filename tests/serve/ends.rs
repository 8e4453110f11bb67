//! How a server ends: told to, or by a crash of its worker.

use crate::support::{Reply, Server, asking, endless, kill, request, serve, wait_until};
use serde_json::json;
use std::io::{BufRead, Read};

/// An answer that was not finished in time says so and has no end, and the server ends well.
fn assert_is_cut_short(server: &mut Server, mut stream: impl Read) {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.contains("the server is ending") && !text.contains("[DONE]"), "{text:.300}");
    assert_eq!(server.wait(), 0);
}

#[test]
fn running_answers_are_finished_first() {
    let mut server = Server::start();
    let body = asking("Count from 1 to 50", &json!({"stream": true, "ignore_eos": true, "max_tokens": 3000}));
    let mut streams: Vec<_> = (0..3).map(|_| server.stream(&body)).collect();
    for stream in &mut streams {
        let mut line = String::new();
        while !line.contains("content\":\"") {
            line.clear();
            assert!(stream.read_line(&mut line).unwrap() > 0);
        }
    }
    server.signal("TERM");
    wait_until("it was told", || server.log().contains("told to end"));
    // Those who come now are told so, unless it has ended already.
    if let Ok(mut late) = std::net::TcpStream::connect(server.address) {
        use std::io::Write;
        let token = format!("Bearer {}", crate::support::TOKEN);
        let _ = late.write_all(&request("GET", "/v1/models", &[("authorization", &token)], b""));
        let late = Reply::read(&mut late);
        assert!([0, 503].contains(&late.status), "{late:?}");
    }
    for stream in &mut streams {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.contains("[DONE]"), "cut off: {:?}", text.lines().last());
    }
    assert_eq!(server.wait(), 0);
    wait_until("the person is told", || server.told().ends_with("tui: serve: ended\n"));
    let told = server.told();
    let ending = told.lines().find(|line| line.starts_with("tui: serve: ending, ")).unwrap();
    assert!(ending.contains(" answer") && ending.ends_with(" running"), "{ending}");
}

#[test]
fn a_second_signal_cuts_them() {
    let mut server = Server::with(&[], "[serve.limits]\nstop = 600\n[engine]\nthreads = 1\nslots = 1\n");
    // Enough that wait for the one slot to last for the test.
    let mut streams: Vec<_> = (0..16).map(|_| server.stream(&endless())).collect();
    server.signal("INT");
    wait_until("it was told", || server.log().contains("told to end"));
    server.signal("TERM");
    assert_is_cut_short(&mut server, streams.pop().unwrap());
}

#[test]
fn they_have_a_time_for_it() {
    let mut server = Server::with(&[], "[serve.limits]\nstop = 0\n[engine]\nthreads = 1\nslots = 1\n");
    let mut streams: Vec<_> = (0..16).map(|_| server.stream(&endless())).collect();
    server.signal("TERM");
    assert_is_cut_short(&mut server, streams.pop().unwrap());
}

#[test]
fn a_worker_that_dies_is_started_again_with_its_models() {
    let mut server = Server::start();
    assert_eq!(server.answer("Hello"), "Hello! How can I help you today?");
    let first = server.worker();
    let mut stream = server.stream(&endless());
    kill(first, "ABRT");
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    assert!(!text.contains("[DONE]"), "an answer cut off must not look whole");
    wait_until("the person is told why", || server.told().contains("signal 6"));
    assert!(server.told().contains("starting again in 1 s"), "{}", server.told());
    // Who connects meanwhile waits, and is answered.
    assert_eq!(server.raw(&request("GET", "/health", &[], b"")).status, 200);
    assert_ne!(server.worker(), first);
    wait_until("what was resident is so again", || {
        server.get("/engine/status")["models"][0]["id"] == "builtin"
    });
    assert_eq!(server.answer("Hello"), "Hello! How can I help you today?");
    // Told to end while there is no worker.
    kill(server.worker(), "KILL");
    wait_until("the person is told again", || server.told().contains("SIGKILL"));
    server.signal("TERM");
    assert_eq!(server.wait(), 0);
}

#[test]
fn it_dies_with_the_one_that_keeps_it() {
    let mut server = Server::start();
    let worker = server.worker();
    server.signal("KILL");
    server.wait();
    wait_until("the worker has ended", || {
        std::fs::read_to_string(format!("/proc/{worker}/stat"))
            .map_or(true, |stat| stat.split(' ').nth(2) == Some("Z"))
    });
}

#[test]
fn a_port_in_use_is_named() {
    let server = Server::start();
    let other = tempfile::tempdir().unwrap();
    let (code, _, told) = serve(other.path(), &["--listen", &server.address.to_string()]);
    assert!(code == 1 && told.contains(&server.address.to_string()), "{told}");
    assert!(!other.path().join("data/serve/tokens.json").exists(), "no token for a server that never was");
}

#[test]
fn a_unit_starts_it_with_the_same_flags() {
    let dir = tempfile::tempdir().unwrap();
    let models = dir.path().join("x y");
    std::fs::create_dir(&models).unwrap();
    let flags = ["--listen", "0.0.0.0", "--tls", "--models", models.to_str().unwrap()];
    let printed = |flags: &[&str], kind| serve(dir.path(), &[flags, &["--print-unit", kind]].concat());
    // What would not start gets no unit, with a start's own words.
    let refusals =
        [&flags[..2], &flags[..3], &["--models", "/no/such"], &["--tls-cert", "/n", "--tls-key", "/n"]];
    for refused in refusals {
        let (code, unit, told) = printed(refused, "systemd");
        assert_eq!((code, unit.as_str()), (2, ""), "{refused:?}");
        assert_eq!(told, serve(dir.path(), refused).2, "{refused:?}");
    }
    assert!(printed(&[], "systemd").2.contains("there is no token yet"));
    assert_eq!(serve(dir.path(), &["token", "add", "laptop"]).0, 0);
    let (code, unit, told) = printed(&flags, "systemd");
    assert_eq!((code, told.as_str()), (0, ""));
    assert!(printed(&["--listen", "0.0.0.0", "--pair"], "systemd").1.contains(" --tls\n"));
    let data = dir.path().join("data");
    let variable = format!("\nEnvironment=\"DUET_DATA_DIR={}\"\n", data.display());
    assert!(unit.contains(&variable) && unit.matches("Environment=").count() == 4, "{unit}");
    assert!(!data.join("serve/cert.pem").exists(), "nothing is made for a text");
    let line = unit.lines().find(|line| line.starts_with("ExecStart=")).unwrap();
    assert!(line.contains(" serve --listen 0.0.0.0:7411 --models \"/") && line.contains("/x y\""), "{line}");
    assert!(line.ends_with(" --tls"), "{line}");
    let (_, plist, _) = printed(&[], "launchd");
    let variable = format!("<key>DUET_DATA_DIR</key>\n    <string>{}</string>", data.display());
    assert!(plist.contains(&variable), "{plist}");
    assert!(plist.starts_with("<?xml") && plist.contains("<string>serve</string>"), "{plist}");
    let (_, default, _) = serve(dir.path(), &["--print-unit"]);
    assert!(default.contains("serve"), "{default}");
}
