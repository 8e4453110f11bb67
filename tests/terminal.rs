//! The interface and its terminal: taken and given back on every way out, through stalls, floods and storms.
//! Each promise is checked on the real program in a pseudo-terminal; controls show that the check can fail.

#![cfg(unix)]
#![allow(clippy::expect_used, clippy::panic, reason = "a helper that fails fails its test")]

mod support;

use rustix::process::Signal;
use std::time::{Duration, Instant};
use support::pty::{DEADLINE, Home, Program, Pty, Reading, Received};
use support::server::Server;

const TUI: &str = env!("CARGO_BIN_EXE_tui");
/// The end by a signal, with something to spare for a loaded machine.
const SOON: Duration = Duration::from_secs(6);

/// A home with one server, `fake`.
struct Setup {
    home: Home,
    server: Server,
}

impl Setup {
    fn new() -> Self {
        let server = Server::start();
        let home = Home::with_config(&format!("[engine]\nlinger = 1\n\n{}", server.config("fake")));
        Self { home, server }
    }

    fn program(&self) -> Program {
        Program::new(TUI, &self.home).args(["--on", "fake"])
    }

    /// The interface, painted and reading keys.
    fn start(&self) -> Pty {
        let pty = self.program().start();
        wait_until_typing_works(&pty);
        pty
    }
}

fn wait_until_typing_works(pty: &Pty) {
    pty.wait_for("the alternate screen", Received::is_alternate);
    pty.send("ready");
    pty.wait_for_text("ready");
}

#[test]
fn a_signal_from_outside_ends_it_in_order() {
    for (signal, name) in [
        (Signal::TERM, "Terminated"),
        (Signal::HUP, "Hangup"),
        (Signal::INT, "Interrupt"),
        (Signal::QUIT, "Quit"),
    ] {
        let setup = Setup::new();
        let mut pty = setup.start();
        assert!(pty.is_raw() && !pty.modes().is_empty(), "the terminal was taken");
        pty.kill(signal);
        assert_eq!(pty.wait_for_end(SOON), Err(name.to_owned()));
        pty.assert_restored();
    }
}

#[test]
fn without_a_place_to_save_nothing_is_promised() {
    for is_saved in [true, false] {
        let setup = Setup::new();
        if !is_saved {
            std::fs::remove_dir_all(setup.home.path("data")).expect("removed");
            std::fs::write(setup.home.path("data"), "in the way").expect("written");
        }
        let mut pty = setup.start();
        if !is_saved {
            pty.wait_for_text("not saved");
        }
        pty.send("\r");
        pty.wait_for_text("sending");
        pty.kill(Signal::TERM);
        assert_eq!(pty.wait_for_end(SOON), Err("Terminated".to_owned()));
        assert_eq!(pty.received().text().contains("resume with"), is_saved);
    }
}

#[test]
fn a_backend_that_is_not_there_is_refused_before_the_screen_is_taken() {
    let setup = Setup::new();
    let mut pty = Program::new(TUI, &setup.home).args(["--on", "nowhere"]).start();
    assert_eq!(pty.wait_for_end(SOON), Ok(2));
    assert!(pty.received().text().contains("no backend `nowhere`; there is"), "{}", pty.received().text());
    assert!(!pty.received().is_alternate());
}

#[test]
fn a_kill_leaves_the_terminal_taken_which_the_check_sees() {
    let setup = Setup::new();
    let mut pty = setup.start();
    pty.kill(Signal::KILL);
    assert_eq!(pty.wait_for_end(SOON), Err("Killed".to_owned()));
    assert!(pty.is_raw());
    assert!(pty.modes().iter().any(|mode| mode == "1049"));
}

#[cfg(debug_assertions)]
#[test]
fn a_crash_gives_the_terminal_back() {
    for (way, end) in [
        ("panic", Ok(101)),
        ("abort", Err("Aborted".to_owned())),
        ("segv", Err("Segmentation fault".to_owned())),
        ("overflow", Err("Segmentation fault".to_owned())),
    ] {
        let setup = Setup::new();
        let mut pty = setup.program().env("DUET_TEST_CRASH", way).start();
        assert_eq!(pty.wait_for_end(SOON), end, "{way}");
        pty.assert_restored();
        let received = pty.received();
        assert!(String::from_utf8_lossy(&received.raw).contains("\x1b[?1049h"), "{way}: it had the screen");
        if way == "panic" {
            assert!(received.text().contains("asked to panic"), "{}", received.text());
            assert!(!received.raw.ends_with(b"\x1b[31m"));
            let after = received.raw.rsplit(|byte| *byte == b'\x1b').next().unwrap_or_default();
            assert!(String::from_utf8_lossy(after).contains("asked to panic"), "no escape from the message");
        }
    }
}

#[cfg(debug_assertions)]
#[test]
fn what_a_library_prints_is_not_on_the_screen_but_in_a_file() {
    let setup = Setup::new();
    let mut pty = setup.program().env("DUET_TEST_CRASH", "stray").start();
    wait_until_typing_works(&pty);
    pty.kill(Signal::TERM);
    let _ = pty.wait_for_end(SOON);
    assert!(!String::from_utf8_lossy(&pty.received().raw).contains("stray"));
    let log = std::fs::read_to_string(setup.home.path("cache/logs/stray.log")).expect("a log");
    assert_eq!(log, "stray output\nstray error\n");
}

#[test]
fn a_terminal_that_vanishes_ends_it_even_with_hang_ups_ignored() {
    let setup = Setup::new();
    let mut pty = setup.program().under_shell("-c", r#"trap "" HUP; exec "$0" "$@""#).start();
    wait_until_typing_works(&pty);
    let gone = Instant::now();
    pty.set_reading(Reading::Gone);
    let end = pty.wait_for_end(Duration::from_secs(4));
    assert_eq!(end, Err("Hangup".to_owned()), "after {:?}", gone.elapsed());
}

#[test]
fn ctrl_z_stops_it_and_going_on_paints_everything_at_the_new_size() {
    let setup = Setup::new();
    let script = r#""$0" "$@"; echo "stopped as $?"; read line; fg >/dev/null; echo "ended as $?""#;
    let mut pty = setup.program().under_shell("-mc", script).start();
    wait_until_typing_works(&pty);
    pty.send("\x1a");
    pty.wait_for("the shell", |received| !received.is_alternate() && received.text().contains("stopped as"));
    let modes = pty.modes();
    assert!(modes.is_empty(), "still on while stopped: {modes:?}");
    pty.resize(100, 30);
    pty.send("\n");
    pty.wait_for("the interface", |received| received.is_alternate() && received.text().contains("ready"));
    pty.send("-again");
    pty.wait_for_text("ready-again");
    let interface = pty.foreground();
    rustix::process::kill_process(interface, Signal::TERM).expect("signalled");
    pty.wait_for("the end", |received| !received.is_alternate() && received.text().contains("ended as 143"));
    let _ = pty.wait_for_end(SOON);
}

#[test]
fn stopped_from_outside_it_takes_the_terminal_again() {
    let setup = Setup::new();
    let script = r#""$0" "$@"; echo "stopped as $?"; read line; fg >/dev/null"#;
    for signal in [Signal::TSTP, Signal::STOP] {
        let pty = setup.program().under_shell("-mc", script).start();
        wait_until_typing_works(&pty);
        let interface = pty.foreground();
        rustix::process::kill_process(interface, signal).expect("signalled");
        pty.wait_for("the shell", |received| received.text().contains("stopped as"));
        let painted = pty.received().raw.len();
        pty.send("\n");
        pty.wait_for("everything anew", |received| {
            let since = String::from_utf8_lossy(&received.raw[painted..]).into_owned();
            received.is_alternate() && since.contains("\x1b[2J") && received.text().contains("ready")
        });
        pty.send("-again");
        pty.wait_for_text("ready-again");
    }
}

#[test]
fn a_storm_of_sizes_ends_right() {
    let setup = Setup::new();
    let mut pty = setup.start();
    let sizes = [(1, 1), (2, 1), (0, 0), (500, 200), (65_535, 1), (1, 400), (40, 12), (19, 4)];
    for round in 0..40_u16 {
        for (cols, rows) in sizes {
            pty.resize(cols, rows);
        }
        if round % 8 == 0 {
            pty.send("x");
        }
    }
    pty.resize(70, 20);
    pty.send("-done");
    pty.wait_for("the draft at the last size", |received| received.text().contains("readyxxxxx-done"));
    pty.kill(Signal::TERM);
    assert_eq!(pty.wait_for_end(SOON), Err("Terminated".to_owned()));
    pty.assert_restored();
}

/// What a pseudo-terminal holds at least before whoever writes to it has to wait.
const TERMINAL_HOLDS: usize = 16_000;

/// Makes the interface paint everything, again and again, far more than a terminal holds.
fn flood(pty: &Pty) {
    for _ in 0..80 {
        pty.send("\x0c");
        std::thread::park_timeout(Duration::from_millis(15));
    }
}

#[test]
fn a_terminal_that_stops_reading_stalls_nothing_else() {
    let setup = Setup::new();
    let mut pty = setup.start();
    pty.send("lorem ipsum ".repeat(60));
    pty.send("-filled");
    pty.wait_for_text("-filled");
    pty.set_reading(Reading::Stopped);
    let before = pty.received().raw.len();
    flood(&pty);
    pty.send("-unseen");
    assert!(pty.received().raw.len() < before + 8192, "it does not read");
    pty.set_reading(Reading::Fast);
    pty.wait_for_text("-unseen");
    let came = pty.received().raw.len() - before;
    assert!(came > TERMINAL_HOLDS, "{came} bytes: nothing had to wait");
    assert!(came < 5 * TERMINAL_HOLDS, "{came} bytes: frames were queued");

    pty.set_reading(Reading::Stopped);
    flood(&pty);
    pty.kill(Signal::TERM);
    assert_eq!(pty.wait_for_end(SOON), Err("Terminated".to_owned()), "while nobody reads");
    assert!(!pty.is_raw());
    pty.set_reading(Reading::Fast);
    pty.wait_for("the normal screen", |received| !received.is_alternate());
    pty.assert_restored();
}

#[test]
fn an_answer_is_saved_while_the_terminal_stalls() {
    let mut setup = Setup::new();
    let mut pty = setup.program().start();
    wait_until_typing_works(&pty);
    pty.send("\r");
    setup.server.say("It begins. ");
    pty.wait_for_text("It begins.");
    pty.set_reading(Reading::Stopped);
    for n in 0..400 {
        setup.server.say(&format!("Sentence number {n} of a long answer. "));
    }
    setup.server.say("Here it ends.");
    setup.server.finish();
    let start = Instant::now();
    while !is_on_disk(&setup.home, b"Here it ends.") {
        assert!(start.elapsed() < DEADLINE, "the end of the answer is not on disk");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    pty.set_reading(Reading::Fast);
    pty.wait_for_text("Here it ends.");
}

/// Whether a file of the data folder contains these bytes.
fn is_on_disk(home: &Home, bytes: &[u8]) -> bool {
    let files = std::fs::read_dir(home.path("data")).expect("the data folder").flatten();
    files
        .filter_map(|file| std::fs::read(file.path()).ok())
        .any(|content| content.windows(bytes.len()).any(|window| window == bytes))
}

#[test]
fn a_slow_terminal_is_never_more_than_what_it_holds_behind() {
    let setup = Setup::new();
    let mut pty = setup.start();
    pty.send("lorem ipsum ".repeat(60));
    pty.send("-filled");
    pty.wait_for_text("-filled");
    pty.set_reading(Reading::Crawl);
    let before = pty.received().raw.len();
    flood(&pty);
    pty.send("-newest");
    pty.set_reading(Reading::Fast);
    pty.wait_for_text("-newest");
    let came = pty.received().raw.len() - before;
    assert!(came < 5 * TERMINAL_HOLDS, "{came} bytes: frames were queued");
}

#[test]
fn ten_thousand_keys_are_ten_thousand_characters() {
    let setup = Setup::new();
    let mut pty = setup.start();
    // In pieces of every size, none of them a paste.
    let text: String = (0..10_000).map(|n| char::from(b'a' + u8::try_from(n % 26).unwrap_or(0))).collect();
    for piece in text.as_bytes().chunks(997) {
        pty.send(piece);
    }
    pty.send("-end");
    pty.wait_for("the last key", |received| {
        let joined: String = received.text().split_whitespace().collect();
        joined.contains("-end")
    });
    pty.kill(Signal::TERM);
    let _ = pty.wait_for_end(SOON);
}

#[test]
fn a_paste_of_ten_megabytes_is_one_edit() {
    let setup = Setup::new();
    let mut pty = setup.start();
    pty.paste(&"0123456789 lorem ipsum\n".repeat(10_000_000 / 23));
    pty.send("-after");
    pty.wait_for("what was typed after it", |received| received.text().contains("-after"));
    pty.kill(Signal::TERM);
    assert_eq!(pty.wait_for_end(SOON), Err("Terminated".to_owned()));
    pty.assert_restored();
}

#[test]
fn answers_nobody_asked_for_are_not_typed() {
    let setup = Setup::new();
    let pty = setup.start();
    // Late answers to queries of colours, attributes, keyboard flags, cursor position and version.
    pty.send("\x1b]11;rgb:1e1e/1e1e/2e2e\x1b\\");
    pty.send("\x1b[?62;22c");
    pty.send("\x1b[?1u");
    pty.send("\x1b[?2026;2$y");
    pty.send("-typed");
    pty.wait_for_text("ready-typed");
}

#[test]
fn nothing_is_written_and_nobody_wakes_up_while_nothing_happens() {
    let setup = Setup::new();
    let pty = setup.start();
    // Something may still be going on at first; a tick would disturb every window.
    let is_silent = (0..6).any(|_| {
        let before = wake_ups(pty.id());
        pty.bytes_during(Duration::from_secs(1)) == 0 && wake_ups(pty.id()) == before
    });
    assert!(is_silent, "bytes or wake-ups in every one of six seconds");
    pty.send("-awake");
    pty.wait_for_text("ready-awake");
}

/// How often the threads of a process gave up the processor by themselves.
#[cfg(target_os = "linux")]
fn wake_ups(process: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("threads");
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok())
        .filter_map(|status| {
            let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .sum()
}

#[cfg(not(target_os = "linux"))]
fn wake_ups(_process: u32) -> u64 {
    0
}
