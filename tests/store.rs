//! The store against the operating system: killed programs, full disks, two programs at once.
//!
//! A test that needs another program starts this test binary again with `DUET_STORE_CHILD` set.
#![expect(clippy::expect_used, reason = "a helper whose set-up fails has failed")]

use duet::chat::record::{AttemptRecord, Outcome, SessionRecord, StoreJob};
use duet::chat::{Channel, GenKey, LaneId, Metrics, SessionId, TurnId};
use duet::store::{Store, StoreNews, load};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(20);

fn session() -> SessionId {
    SessionId("00000001-00000001".to_owned())
}

fn key(turn: u32) -> GenKey {
    GenKey { turn: TurnId(turn), lane: LaneId(0), attempt: 1 }
}

fn open_turn(store: &Store, turn: u32, user: &str) {
    store.send(StoreJob::OpenTurn {
        session: session(),
        turn: TurnId(turn),
        user: user.to_owned(),
        created_ms: 0,
    });
    store.send(StoreJob::OpenAttempt {
        session: session(),
        attempt: Box::new(AttemptRecord {
            key: key(turn),
            backend: "local".to_owned(),
            model: "builtin".to_owned(),
            quantisation: None,
            rule: "default".to_owned(),
            reason: "default".to_owned(),
            decision: String::new(),
            answer: String::new(),
            thinking: String::new(),
            outcome: Outcome::Open,
            metrics: Metrics::default(),
        }),
    });
}

fn append(store: &Store, turn: u32, text: String) {
    store.send(StoreJob::Append { session: session(), key: key(turn), channel: Channel::Answer, text });
}

fn open_session(store: &Store) {
    store.send(StoreJob::OpenSession(SessionRecord {
        id: session(),
        created_ms: 0,
        title: "a".to_owned(),
        system: None,
    }));
}

fn child(role: &str, path: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "as_a_child", "--nocapture", "--test-threads=1"])
        .env("DUET_STORE_CHILD", role)
        .env("DUET_STORE_PATH", path)
        .stdout(Stdio::piped())
        .stdin(Stdio::piped())
        .spawn()
        .expect("starts")
}

/// Not a test by itself: what a child process does.
#[test]
fn as_a_child() {
    let Ok(role) = std::env::var("DUET_STORE_CHILD") else { return };
    let path = PathBuf::from(std::env::var_os("DUET_STORE_PATH").expect("a path"));
    match role.as_str() {
        "stream" => stream_for_ever(&path),
        "full" => meet_a_full_disk(&path),
        other => panic!("no role {other}"),
    }
}

/// Opens a turn, says so once it is safe, then streams numbers and says each one.
fn stream_for_ever(path: &Path) {
    let store = Store::open(path, |_| {}).expect("opens");
    open_session(&store);
    open_turn(&store, 1, "count");
    assert!(store.flush_blocking(LONG));
    let mut out = std::io::stdout();
    let (_keep, never) = channel::<()>();
    for number in 0_u64.. {
        append(&store, 1, format!("{number}\n"));
        let _ = writeln!(out, "\nsent {number}");
        let _ = out.flush();
        let _ = never.recv_timeout(Duration::from_millis(2));
    }
}

#[test]
fn a_killed_program_loses_at_most_the_last_quarter_second() {
    for round in 0..4 {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("duet.db");
        let mut child = child("stream", &path);
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut heard: Vec<(u64, Instant)> = Vec::new();
        let mut started = None;
        for line in lines {
            let line = line.expect("a line");
            let Some(number) = line.strip_prefix("sent ") else { continue };
            heard.push((number.parse().expect("a number"), Instant::now()));
            let started = *started.get_or_insert_with(Instant::now);
            if started.elapsed() > Duration::from_millis(500 + 70 * round) {
                break;
            }
        }
        child.kill().expect("killed");
        let killed = Instant::now();
        child.wait().expect("gone");
        let must_have = heard
            .iter()
            .filter(|(_, at)| killed.duration_since(*at) >= Duration::from_millis(250))
            .map(|(number, _)| *number)
            .max()
            .expect("the child spoke long enough");

        // Opening again is what repairs; then everything up to then is there, in order.
        drop(Store::open(&path, |news| panic!("{news:?}")).expect("opens"));
        let saved = load(&path, &session()).expect("loads");
        let attempt = &saved.turns[0].attempts[0];
        assert_eq!(attempt.outcome, Outcome::Open);
        let numbers: Vec<u64> = attempt.answer.lines().map(|l| l.parse().expect("whole lines")).collect();
        assert!(numbers.iter().enumerate().all(|(i, n)| *n == i as u64));
        let last = *numbers.last().expect("something");
        assert!(last >= must_have, "saved up to {last}, shown 250 ms before the kill: {must_have}");
    }
}

/// Lets files grow to 200 KiB, writes more than that, then lets them grow again.
fn meet_a_full_disk(path: &Path) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::new(AtomicBool::new(false))).expect("set");
    let news = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&news);
    let store = Store::open(path, move |item| seen.lock().expect("whole").push(item)).expect("opens");
    open_session(&store);
    open_turn(&store, 1, "the first question");
    assert!(store.flush_blocking(LONG));

    setrlimit(Resource::Fsize, Rlimit { current: Some(200 * 1024), maximum: None }).expect("set");
    for _ in 0..40 {
        append(&store, 1, "x".repeat(10 * 1024));
    }
    open_turn(&store, 2, "the second question");
    assert!(!store.flush_blocking(LONG), "there is no room");
    append(&store, 2, "answered while the disk was full".to_owned());
    assert!(!store.flush_blocking(LONG), "there is still no room");
    assert_eq!(load(path, &session()).expect("loads").turns[0].user, "the first question");

    setrlimit(Resource::Fsize, Rlimit { current: None, maximum: None }).expect("set");
    assert!(store.flush_blocking(LONG), "there is room again");
    drop(store);
    let news = news.lock().expect("whole");
    assert!(matches!(news.as_slice(), [StoreNews::Failed(_), StoreNews::Recovered]), "{news:?}");
    let saved = load(path, &session()).expect("loads");
    assert_eq!(saved.turns[0].attempts[0].answer.len(), 40 * 10 * 1024);
    assert_eq!(saved.turns[1].attempts[0].answer, "answered while the disk was full");
}

#[test]
fn a_full_disk_loses_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let child = child("full", &dir.path().join("duet.db"));
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_session_held_by_another_program_forks_and_is_free_after_its_death() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("duet.db");
    let mut child = child("stream", &path);
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    assert!(lines.by_ref().any(|line| line.expect("a line").starts_with("sent ")));

    let (tell, news) = channel();
    let store = Store::open(&path, move |item| tell.send(item).unwrap_or(())).expect("opens");
    open_turn(&store, 2, "from the second window");
    assert!(store.flush_blocking(LONG));
    let forked = news.recv_timeout(LONG).expect("news");
    let StoreNews::Forked { from, session: copy } = forked else { panic!("{forked:?}") };
    assert_eq!(from, session());
    drop(store);
    child.kill().expect("killed");
    child.wait().expect("gone");
    assert_eq!(load(&path, &session()).expect("loads").turns.len(), 1);
    assert_eq!(load(&path, &copy).expect("loads").turns.len(), 2);

    // The dead program holds nothing.
    let store = Store::open(&path, |news| panic!("{news:?}")).expect("opens");
    open_turn(&store, 2, "later");
    assert!(store.flush_blocking(LONG));
    drop(store);
    assert_eq!(load(&path, &session()).expect("loads").turns.len(), 2);
}
