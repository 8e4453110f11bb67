//! White-box tests of the writer: short waits, broken files, other programs in the way.

use super::*;
use crate::chat::record::{AttemptRecord, FenceRecord, Outcome, OutcomeRecord, SpeedRecord};
use crate::chat::{Channel, GenKey, LaneId, Metrics, ServerTimings, TurnId, Usage};
use pretty_assertions::assert_eq;
use rusqlite::Connection;
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::Receiver;
use tempfile::TempDir;

const FAST: Timing = Timing {
    batch: Duration::from_millis(5),
    retry: Duration::from_millis(20),
    busy: Duration::from_millis(20),
};
const LONG: Duration = Duration::from_secs(20);

struct Bench {
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("data/duet.db")
    }

    fn open(&self) -> (Store, Receiver<StoreNews>) {
        open_at(&self.path())
    }
}

fn open_at(path: &Path) -> (Store, Receiver<StoreNews>) {
    let (tell, news) = channel();
    let store = Store::open_timed(path, FAST, move |item| tell.send(item).unwrap_or(())).expect("opens");
    (store, news)
}

fn id(name: &str) -> SessionId {
    SessionId(name.to_owned())
}

fn key(turn: u32, attempt: u32) -> GenKey {
    GenKey { turn: TurnId(turn), lane: LaneId(0), attempt }
}

fn record(name: &str) -> SessionRecord {
    SessionRecord { id: id(name), created_ms: 1, title: format!("title of {name}"), system: None }
}

fn open_turn(session: &str, turn: u32) -> StoreJob {
    StoreJob::OpenTurn {
        session: id(session),
        turn: TurnId(turn),
        user: format!("question {turn}"),
        created_ms: 5,
    }
}

fn attempt(turn: u32, attempt: u32) -> AttemptRecord {
    AttemptRecord {
        key: key(turn, attempt),
        backend: "local".to_owned(),
        model: "builtin".to_owned(),
        quantisation: Some("q8_0".to_owned()),
        rule: "default".to_owned(),
        reason: "default".to_owned(),
        decision: String::new(),
        answer: String::new(),
        thinking: String::new(),
        outcome: Outcome::Open,
        metrics: Metrics::default(),
    }
}

fn open_attempt(session: &str, turn: u32, number: u32) -> StoreJob {
    StoreJob::OpenAttempt { session: id(session), attempt: Box::new(attempt(turn, number)) }
}

fn append(session: &str, turn: u32, channel: Channel, text: &str) -> StoreJob {
    StoreJob::Append { session: id(session), key: key(turn, 1), channel, text: text.to_owned() }
}

fn close(session: &str, turn: u32, outcome: Outcome) -> StoreJob {
    StoreJob::CloseAttempt { session: id(session), key: key(turn, 1), outcome, metrics: Box::default() }
}

/// A whole turn with an answer.
fn turn(store: &Store, session: &str, number: u32) {
    store.send(open_turn(session, number));
    store.send(open_attempt(session, number, 1));
    store.send(append(session, number, Channel::Answer, "answer "));
    store.send(append(session, number, Channel::Answer, &number.to_string()));
    store.send(close(session, number, Outcome::Stop));
}

fn expect_news(news: &Receiver<StoreNews>, wanted: impl Fn(&StoreNews) -> bool) -> StoreNews {
    let item = news.recv_timeout(LONG).expect("news");
    assert!(wanted(&item), "{item:?}");
    item
}

#[test]
fn everything_comes_back() {
    let bench = Bench::new();
    let (store, news) = bench.open();
    let metrics = Metrics {
        sent_ms: Some(1.5),
        first_token_ms: Some(20.0),
        total_ms: Some(99.0),
        usage: Usage { prompt_tokens: Some(12), cached_tokens: Some(3), output_tokens: Some(7) },
        server: Some(ServerTimings { predicted_n: Some(7), predicted_ms: Some(50.0), ..Default::default() }),
        ..Metrics::default()
    };
    let session = SessionRecord { system: Some("Be brief.".to_owned()), ..record("a") };
    store.send(StoreJob::OpenSession(session.clone()));
    store.send(open_turn("a", 1));
    store.send(open_attempt("a", 1, 1));
    store.send(append("a", 1, Channel::Thinking, "hm\0"));
    store.send(append("a", 1, Channel::Answer, "Par"));
    store.send(append("a", 1, Channel::Thinking, "…"));
    store.send(append("a", 1, Channel::Answer, "is\u{1b}[2J"));
    store.send(StoreJob::CloseAttempt {
        session: id("a"),
        key: key(1, 1),
        outcome: Outcome::Interrupted { error: "gone".to_owned() },
        metrics: Box::new(metrics),
    });
    store.send(open_attempt("a", 1, 2));
    store.send(StoreJob::Append {
        session: id("a"),
        key: key(1, 2),
        channel: Channel::Answer,
        text: "half".to_owned(),
    });
    store.send(StoreJob::SetSystem { session: id("a"), system: Some("Be long.".to_owned()) });
    assert!(store.flush_blocking(LONG));

    let saved = load(&bench.path(), &id("a")).expect("loads");
    assert_eq!(saved.record, SessionRecord { system: Some("Be long.".to_owned()), ..session });
    let first = AttemptRecord {
        answer: "Paris\u{1b}[2J".to_owned(),
        thinking: "hm\0…".to_owned(),
        outcome: Outcome::Interrupted { error: "gone".to_owned() },
        metrics,
        ..attempt(1, 1)
    };
    let second = AttemptRecord { answer: "half".to_owned(), ..attempt(1, 2) };
    assert_eq!(
        saved.turns,
        vec![TurnRecord {
            id: TurnId(1),
            user: "question 1".to_owned(),
            created_ms: 5,
            attempts: vec![first, second],
            kept: None,
            fence: None,
        }]
    );
    assert!(news.try_recv().is_err());
}

#[test]
fn a_session_is_written_with_its_first_turn_and_goes_with_its_last() {
    let bench = Bench::new();
    let (store, _news) = bench.open();
    store.send(StoreJob::OpenSession(record("a")));
    assert!(store.flush_blocking(LONG));
    assert_eq!(list(&bench.path(), 10), Ok(vec![]));
    store.send(open_turn("a", 1));
    store.send(open_attempt("a", 1, 1));
    store.send(append("a", 1, Channel::Answer, "x"));
    assert!(store.flush_blocking(LONG));
    assert_eq!(latest(&bench.path()), Ok(Some(id("a"))));
    store.send(StoreJob::DropTurn { session: id("a"), turn: TurnId(1) });
    store.send(append("a", 1, Channel::Answer, "late"));
    store.send(close("a", 1, Outcome::Stopped));
    assert!(store.flush_blocking(LONG));
    assert_eq!(latest(&bench.path()), Ok(None));
    turn(&store, "a", 1);
    assert!(store.flush_blocking(LONG));
    let saved = load(&bench.path(), &id("a")).expect("loads");
    assert_eq!((saved.record.title.as_str(), saved.turns.len()), ("title of a", 1));
}

#[test]
fn sessions_are_found_by_what_people_type() {
    let bench = Bench::new();
    let (store, _news) = bench.open();
    for (name, title) in [("6900aa-1", "Tide tables"), ("6900bb-1", "Tide pools"), ("6911cc-1", "Paris")] {
        store.send(StoreJob::OpenSession(SessionRecord { title: title.to_owned(), ..record(name) }));
        turn(&store, name, 1);
    }
    turn(&store, "6900aa-1", 2);
    assert!(store.flush_blocking(LONG));
    let path = bench.path();
    let order: Vec<_> = list(&path, 2).expect("lists").into_iter().map(|s| s.id.0).collect();
    assert_eq!(order, ["6900aa-1", "6911cc-1"]);
    assert_eq!(find(&path, "6900aa-1"), Ok(id("6900aa-1")));
    assert_eq!(find(&path, "6911"), Ok(id("6911cc-1")));
    assert_eq!(find(&path, "paris"), Ok(id("6911cc-1")));
    assert_eq!(find(&path, "tide p"), Ok(id("6900bb-1")));
    let several = find(&path, "6900").expect_err("two");
    assert_eq!(
        several,
        "`6900` means 2 sessions: 6900aa-1 (Tide tables), 6900bb-1 (Tide pools)\ngive more of the id"
    );
    assert!(find(&path, "zebra").expect_err("none").starts_with("no saved session `zebra`"));
    assert!(find(&path, "").is_err());
    assert!(load(&path, &id("zebra")).is_err());
}

#[test]
fn inputs_are_kept_once_each_newest_last() {
    let bench = Bench::new();
    let (store, _news) = bench.open();
    for text in ["a", "b", "a", "c"] {
        store.send(StoreJob::RememberInput { text: text.to_owned(), created_ms: 0 });
    }
    assert!(store.flush_blocking(LONG));
    assert_eq!(inputs(&bench.path(), 10), Ok(vec!["b".to_owned(), "a".to_owned(), "c".to_owned()]));
    assert_eq!(inputs(&bench.path(), 1), Ok(vec!["c".to_owned()]));
}

#[test]
fn reading_before_anything_was_written() {
    let path = Path::new("/nonexistent/duet.db");
    assert_eq!(latest(path), Ok(None));
    assert_eq!(list(path, 5), Ok(vec![]));
    assert_eq!(inputs(path, 5), Ok(vec![]));
    assert!(find(path, "x").is_err());
    assert!(load(path, &id("x")).is_err());
}

#[test]
fn files_are_private_and_the_log_is_write_ahead() {
    let bench = Bench::new();
    let (store, _news) = bench.open();
    turn(&store, "a", 1);
    assert!(store.flush_blocking(LONG));
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    let path = bench.path();
    assert_eq!(mode(path.parent().expect("a folder")), 0o700);
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&open::beside(&path, "-wal")), 0o600);
}

#[test]
fn dropping_the_handle_writes_what_is_left() {
    let bench = Bench::new();
    let (store, _news) = bench.open();
    turn(&store, "a", 1);
    store.send(open_turn("a", 2));
    store.send(open_attempt("a", 2, 1));
    store.send(append("a", 2, Channel::Answer, "tail"));
    drop(store);
    let saved = load(&bench.path(), &id("a")).expect("loads");
    assert_eq!(saved.turns[1].attempts[0].answer, "tail");
    assert_eq!(saved.turns[1].attempts[0].outcome, Outcome::Open);
    let held: Vec<_> =
        std::fs::read_dir(bench.path().with_file_name("held")).expect("there").flatten().collect();
    assert_eq!(held.len(), 1, "only the mark of the database: {held:?}");
}

#[tokio::test]
async fn flushed_answers_without_blocking() {
    let bench = Bench::new();
    let (store, _news) = bench.open();
    turn(&store, "a", 1);
    assert!(store.flushed().await);
    assert_eq!(load(&bench.path(), &id("a")).expect("loads").turns.len(), 1);
}

#[test]
fn a_locked_database_is_waited_out() {
    let bench = Bench::new();
    let (store, news) = bench.open();
    turn(&store, "a", 1);
    assert!(store.flush_blocking(LONG));
    let other = Connection::open(bench.path()).expect("opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("locks");
    turn(&store, "a", 2);
    assert!(!store.flush_blocking(LONG));
    let failed = expect_news(&news, |n| matches!(n, StoreNews::Failed(_)));
    assert!(format!("{failed:?}").contains("another program holds it"), "{failed:?}");
    turn(&store, "a", 3);
    other.execute_batch("COMMIT").expect("unlocks");
    expect_news(&news, |n| *n == StoreNews::Recovered);
    assert!(store.flush_blocking(LONG));
    assert_eq!(load(&bench.path(), &id("a")).expect("loads").turns.len(), 3);
    assert!(news.try_recv().is_err(), "said once");
}

#[test]
fn without_shared_memory_it_falls_back_and_says_so_once() {
    let bench = Bench::new();
    std::fs::create_dir_all(open::beside(&bench.path(), "-shm")).expect("made");
    let (store, news) = bench.open();
    let notice = expect_news(&news, |n| matches!(n, StoreNews::Notice(_)));
    assert!(format!("{notice:?}").contains("write-ahead"), "{notice:?}");
    turn(&store, "a", 1);
    assert!(store.flush_blocking(LONG));
    drop(store);
    assert_eq!(load(&bench.path(), &id("a")).expect("loads").turns.len(), 1);
    assert!(news.try_recv().is_err());
}

#[test]
fn a_deleted_file_is_written_again() {
    let bench = Bench::new();
    let (store, _news) = bench.open();
    turn(&store, "a", 1);
    assert!(store.flush_blocking(LONG));
    std::fs::remove_dir_all(bench.path().parent().expect("a folder")).expect("removed");
    turn(&store, "a", 2);
    assert!(store.flush_blocking(LONG));
    assert_eq!(load(&bench.path(), &id("a")).expect("loads").turns.len(), 2);
}

#[test]
fn a_replaced_file_is_left_alone_and_written_to() {
    let bench = Bench::new();
    let (store, _news) = bench.open();
    turn(&store, "a", 1);
    assert!(store.flush_blocking(LONG));
    let path = bench.path();
    std::fs::rename(&path, open::beside(&path, ".moved")).expect("moved");
    for part in ["-wal", "-shm"] {
        std::fs::rename(open::beside(&path, part), open::beside(&path, &format!(".moved{part}")))
            .expect("moved");
    }
    let (other, _) = bench.open();
    turn(&other, "b", 1);
    assert!(other.flush_blocking(LONG));
    turn(&store, "a", 2);
    assert!(store.flush_blocking(LONG));
    assert!(other.flush_blocking(LONG));
    assert_eq!(list(&path, 9).expect("lists").len(), 2);
}

#[test]
fn a_damaged_file_is_moved_aside() {
    for damage in [b"not a database at all, not a database at all".to_vec(), vec![0xff; 20_000]] {
        let bench = Bench::new();
        let path = bench.path();
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(&path, &damage).expect("written");
        let (store, news) = bench.open();
        let notice = expect_news(&news, |n| matches!(n, StoreNews::Notice(_)));
        assert!(format!("{notice:?}").contains("duet.db.damaged-"), "{notice:?}");
        turn(&store, "a", 1);
        assert!(store.flush_blocking(LONG));
        let aside: Vec<_> = std::fs::read_dir(path.parent().expect("a folder"))
            .expect("lists")
            .flatten()
            .filter(|e| e.file_name().to_string_lossy().contains("damaged"))
            .collect();
        assert_eq!(std::fs::read(aside[0].path()).expect("kept"), damage);
    }
}

#[test]
fn pages_are_checked_after_an_abrupt_end() {
    let bench = Bench::new();
    let (store, _news) = bench.open();
    for number in 1..40 {
        turn(&store, "a", number);
    }
    assert!(store.flush_blocking(LONG));
    // What a program killed now would leave behind, with a page of a table overwritten.
    let crashed = Bench::new();
    let (from, to) = (bench.path(), crashed.path());
    std::fs::create_dir_all(to.parent().expect("a folder")).expect("made");
    Connection::open(&from)
        .expect("opens")
        .execute_batch("PRAGMA wal_checkpoint(FULL)")
        .expect("checkpoints");
    turn(&store, "a", 40);
    assert!(store.flush_blocking(LONG));
    let mut bytes = std::fs::read(&from).expect("read");
    for page in 2..9 {
        bytes[page * 4096..page * 4096 + 2048].fill(0x5a);
    }
    std::fs::write(&to, bytes).expect("written");
    std::fs::copy(open::beside(&from, "-wal"), open::beside(&to, "-wal")).expect("copied");
    let (_store, news) = crashed.open();
    let notice = expect_news(&news, |n| matches!(n, StoreNews::Notice(_)));
    assert!(format!("{notice:?}").contains("damaged"), "{notice:?}");
}

#[test]
fn a_log_cut_anywhere_still_opens() {
    let bench = Bench::new();
    let (store, _news) = bench.open();
    for number in 1..4 {
        turn(&store, "a", number);
    }
    assert!(store.flush_blocking(LONG));
    let wal = std::fs::read(open::beside(&bench.path(), "-wal")).expect("read");
    let mut turns_before = 0;
    for cut in (0..=wal.len()).step_by(4096 / 2).chain([wal.len()]) {
        let crashed = Bench::new();
        let to = crashed.path();
        std::fs::create_dir_all(to.parent().expect("a folder")).expect("made");
        std::fs::copy(bench.path(), &to).expect("copied");
        std::fs::write(open::beside(&to, "-wal"), &wal[..cut]).expect("written");
        let (store, _news) = crashed.open();
        drop(store);
        let turns = load(&to, &id("a")).map_or(0, |saved| saved.turns.len());
        assert!(turns >= turns_before, "{turns} turns at {cut} bytes after {turns_before}");
        turns_before = turns;
    }
    assert_eq!(turns_before, 3);
}

#[test]
fn a_newer_schema_is_read_and_never_written() {
    let bench = Bench::new();
    let (store, _news) = bench.open();
    turn(&store, "a", 1);
    drop(store);
    Connection::open(bench.path()).expect("opens").pragma_update(None, "user_version", 99).expect("set");
    let before = std::fs::read(bench.path()).expect("read");
    let error = Store::open(&bench.path(), |_| {}).expect_err("refused");
    assert!(error.contains("newer version") && error.contains("schema 99"), "{error}");
    assert_eq!(load(&bench.path(), &id("a")).expect("loads").turns.len(), 1);
    assert_eq!(std::fs::read(bench.path()).expect("read"), before);
}

#[test]
fn migration_copies_first_and_is_all_or_nothing() {
    let bench = Bench::new();
    let (store, _news) = bench.open();
    turn(&store, "a", 1);
    drop(store);
    let path = bench.path();
    let mut steps = schema::STEPS.to_vec();
    steps.push("ALTER TABLE sessions ADD COLUMN mood TEXT; UPDATE sessions SET mood = 'good';");
    steps.push("this is no SQL");
    let mut conn = Connection::open(&path).expect("opens");
    open::copy_before_migration(&conn, &path, 2).expect("copies");
    schema::migrate(&mut conn, &steps).expect_err("the last step is broken");
    assert_eq!(schema::version(&conn), Ok(2));
    assert!(conn.prepare("SELECT mood FROM sessions").is_err(), "nothing of it stays");
    steps.pop();
    schema::migrate(&mut conn, &steps).expect("migrates");
    schema::migrate(&mut conn, &steps).expect("a second program finds it done");
    assert_eq!(schema::version(&conn), Ok(3));
    drop(conn);
    assert_eq!(load(&path, &id("a")).expect("loads").turns.len(), 1);
    let copy = open::beside(&path, ".v2");
    assert_eq!(load(&copy, &id("a")).expect("the copy loads").turns.len(), 1);
    assert_eq!(schema::version(&Connection::open(&copy).expect("opens")), Ok(2));
    assert_eq!(std::fs::metadata(&copy).expect("there").permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_file_of_version_1_stays_readable() {
    let bench = Bench::new();
    let path = bench.path();
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    let conn = Connection::open(&path).expect("opens");
    conn.execute_batch(include_str!("version_1.sql")).expect("a database as version 1 left it");
    drop(conn);
    let before = load(&path, &id("5f000000-00000001")).expect("loads before it is migrated");
    assert_eq!((before.turns.len(), before.turns[0].attempts[0].decision.as_str()), (1, ""));
    assert_eq!((speeds(&path), outcomes(&path)), (Ok(vec![]), Ok(vec![])));
    let (store, _news) = bench.open();
    turn(&store, "5f000000-00000001", 2);
    assert!(store.flush_blocking(LONG));
    let saved = load(&path, &id("5f000000-00000001")).expect("loads");
    assert_eq!(saved.turns.len(), 2);
    assert_eq!(saved.turns[0].attempts[0].answer, "The capital of France is Paris.");
    assert_eq!(saved.turns[0].attempts[0].metrics.usage.output_tokens, Some(8));
}

#[test]
fn odd_rows_cost_only_themselves() {
    let bench = Bench::new();
    let (store, _news) = bench.open();
    turn(&store, "a", 1);
    turn(&store, "a", 2);
    drop(store);
    let conn = Connection::open(bench.path()).expect("opens");
    conn.execute_batch(
        "UPDATE attempts SET state = 'dreaming', answer = CAST(x'ff41' AS TEXT) WHERE turn = 1;
         UPDATE sessions SET created_ms = 9223372036854775807;
         INSERT OR REPLACE INTO metrics (session, turn, lane, attempt, prompt_tokens, server)
             VALUES (1, 1, 0, 1, -5, '{broken');",
    )
    .expect("written");
    let saved = load(&bench.path(), &id("a")).expect("loads");
    let odd = &saved.turns[0].attempts[0];
    assert_eq!(odd.answer, "\u{fffd}A");
    assert_eq!(
        odd.outcome,
        Outcome::Interrupted { error: "saved by a newer version as `dreaming`".to_owned() }
    );
    assert_eq!(odd.metrics, Metrics::default());
    assert_eq!(saved.turns[1].attempts[0].outcome, Outcome::Stop);
}

#[test]
fn a_folder_in_place_of_the_database_is_refused() {
    let bench = Bench::new();
    std::fs::create_dir_all(bench.path()).expect("made");
    let error = Store::open(&bench.path(), |_| {}).expect_err("refused");
    assert!(error.contains("not a file") && error.lines().count() <= 2, "{error}");
    let under_a_file = bench.dir.path().join("file/duet.db");
    std::fs::write(bench.dir.path().join("file"), "").expect("written");
    let error = Store::open(&under_a_file, |_| {}).expect_err("refused");
    assert!(error.contains("DUET_DATA_DIR") && error.lines().count() <= 2, "{error}");
}

#[test]
fn a_second_window_forks() {
    let bench = Bench::new();
    let (first, _news) = bench.open();
    first.send(StoreJob::OpenSession(record("a")));
    turn(&first, "a", 1);
    assert!(first.flush_blocking(LONG));
    let (second, news) = bench.open();
    second.send(StoreJob::SetSystem { session: id("a"), system: Some("Other.".to_owned()) });
    turn(&second, "a", 2);
    assert!(second.flush_blocking(LONG));
    let StoreNews::Forked { from, session } = expect_news(&news, |n| matches!(n, StoreNews::Forked { .. }))
    else {
        unreachable!()
    };
    assert_eq!(from, id("a"));
    turn(&first, "a", 2);
    turn(&second, "a", 3);
    turn(&second, &session.0, 4);
    assert!(first.flush_blocking(LONG) && second.flush_blocking(LONG));
    let original = load(&bench.path(), &id("a")).expect("loads");
    let copy = load(&bench.path(), &session).expect("loads");
    assert_eq!((original.turns.len(), original.record.system), (2, None));
    assert_eq!((copy.turns.len(), copy.record.system.as_deref()), (4, Some("Other.")));
    assert_eq!(copy.turns[0], original.turns[0]);
    assert!(news.try_recv().is_err(), "said once");
}

#[test]
fn a_session_that_went_on_elsewhere_forks_where_this_window_left_it() {
    let bench = Bench::new();
    let (first, _) = bench.open();
    turn(&first, "a", 1);
    drop(first);
    // This window has loaded one turn; another one adds a turn and a retry, and closes.
    let (other, _) = bench.open();
    other.send(open_attempt("a", 1, 2));
    turn(&other, "a", 2);
    drop(other);
    let (late, news) = bench.open();
    turn(&late, "a", 2);
    assert!(late.flush_blocking(LONG));
    let StoreNews::Forked { session, .. } = expect_news(&news, |n| matches!(n, StoreNews::Forked { .. }))
    else {
        unreachable!()
    };
    assert_eq!(load(&bench.path(), &id("a")).expect("loads").turns.len(), 2);
    assert_eq!(load(&bench.path(), &session).expect("loads").turns.len(), 2);
    let (retry, news) = bench.open();
    retry.send(open_attempt("a", 1, 2));
    assert!(retry.flush_blocking(LONG));
    let StoreNews::Forked { session, .. } = expect_news(&news, |n| matches!(n, StoreNews::Forked { .. }))
    else {
        unreachable!()
    };
    let copy = load(&bench.path(), &session).expect("loads");
    assert_eq!((copy.turns.len(), copy.turns[0].attempts.len()), (1, 2));
    assert_eq!(copy.turns[0].attempts[1].answer, "");
}

#[test]
fn a_job_that_makes_no_sense_holds_nothing_up() {
    let bench = Bench::new();
    let (store, news) = bench.open();
    turn(&store, "a", 1);
    store.send(open_attempt("a", 7, 1));
    turn(&store, "a", 2);
    assert!(store.flush_blocking(LONG));
    expect_news(&news, |n| matches!(n, StoreNews::Notice(_)));
    assert_eq!(load(&bench.path(), &id("a")).expect("loads").turns.len(), 2);
}

#[test]
fn many_writers_lose_nothing() {
    let bench = Bench::new();
    let path = bench.path();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let path = &path;
            scope.spawn(move || {
                let (store, news) = open_at(path);
                let name = format!("w{writer}");
                for number in 1..=25 {
                    turn(&store, &name, number);
                }
                drop(store);
                for item in news {
                    assert!(!matches!(item, StoreNews::Notice(_) | StoreNews::Forked { .. }), "{item:?}");
                }
            });
        }
    });
    for writer in 0..4 {
        let saved = load(&path, &id(&format!("w{writer}"))).expect("loads");
        assert_eq!(saved.turns.len(), 25);
        assert!(saved.turns.iter().all(|t| t.attempts[0].answer == format!("answer {}", t.id.0)));
    }
}

#[test]
fn a_read_only_folder_can_still_be_read() {
    let bench = Bench::new();
    let (store, _news) = bench.open();
    turn(&store, "a", 1);
    drop(store);
    let folder = bench.path().parent().expect("a folder").to_owned();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o500)).expect("set");
    let saved = load(&bench.path(), &id("a"));
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).expect("set");
    assert_eq!(saved.expect("loads").turns.len(), 1);
}

#[test]
fn decisions_fences_and_choices_come_back() {
    let bench = Bench::new();
    let (store, _news) = bench.open();
    store.send(open_turn("a", 1));
    let fence = FenceRecord { files: vec!["~/.ssh/id".to_owned()], is_lifted: true };
    store.send(StoreJob::Fence { session: id("a"), turn: TurnId(1), fence: fence.clone() });
    let opened = AttemptRecord { decision: r#"{"rule":"x"}"#.to_owned(), ..attempt(1, 1) };
    store.send(StoreJob::OpenAttempt { session: id("a"), attempt: Box::new(opened) });
    let sibling = AttemptRecord { key: GenKey { lane: LaneId(1), ..key(1, 1) }, ..attempt(1, 1) };
    store.send(StoreJob::OpenAttempt { session: id("a"), attempt: Box::new(sibling) });
    assert!(store.flush_blocking(LONG));
    let turn = load(&bench.path(), &id("a")).expect("loads").turns.remove(0);
    assert_eq!((turn.kept, turn.fence), (None, Some(fence.clone())));
    let decisions: Vec<&str> = turn.attempts.iter().map(|a| a.decision.as_str()).collect();
    assert_eq!(decisions, [r#"{"rule":"x"}"#, ""]);

    let decision = r#"{"rule":"x","cache_lost":"y"}"#.to_owned();
    store.send(StoreJob::Decide { session: id("a"), key: key(1, 1), decision: decision.clone() });
    store.send(StoreJob::KeepLane { session: id("a"), turn: TurnId(1), lane: LaneId(1) });
    assert!(store.flush_blocking(LONG));
    let turn = load(&bench.path(), &id("a")).expect("loads").turns.remove(0);
    assert_eq!((turn.kept, &turn.attempts[0].decision), (Some(LaneId(1)), &decision));

    // Another program goes on with the same session: its copy has all of it.
    let (other, news) = bench.open();
    other.send(open_turn("a", 2));
    assert!(other.flush_blocking(LONG));
    let StoreNews::Forked { session, .. } = expect_news(&news, |n| matches!(n, StoreNews::Forked { .. }))
    else {
        panic!("forked");
    };
    let copied = load(&bench.path(), &session).expect("loads").turns.remove(0);
    assert_eq!((copied.kept, copied.fence), (Some(LaneId(1)), Some(fence)));
    assert_eq!(copied.attempts[0].decision, decision);
}

#[test]
fn the_last_speeds_count_and_the_log_stays_small() {
    let bench = Bench::new();
    let (store, _news) = bench.open();
    let speed = |model: &str, bucket, decode| SpeedRecord {
        backend: "mac".to_owned(),
        model: model.to_owned(),
        bucket,
        decode: Some(decode),
        decode_samples: 3,
        updated_ms: 7,
        ..SpeedRecord::default()
    };
    for record in [speed("a", 0, 10.0), speed("b", 0, 5.0), speed("a", 3, 7.0), speed("a", 0, 12.0)] {
        store.send(StoreJob::KeepSpeed(Box::new(record)));
    }
    let outcome = |n: i64| OutcomeRecord {
        ended_ms: n,
        backend: "mac".to_owned(),
        model: "a".to_owned(),
        prompt_tokens: Some(9),
        decode: Some(11.5),
        rule: "cost".to_owned(),
        predicted: Some("{}".to_owned()),
        others: "[]".to_owned(),
        ..OutcomeRecord::default()
    };
    for n in 0..5010 {
        store.send(StoreJob::LogOutcome(Box::new(outcome(n))));
    }
    assert!(store.flush_blocking(LONG));
    let kept = speeds(&bench.path()).expect("read");
    assert_eq!(kept, [speed("a", 0, 12.0), speed("a", 3, 7.0), speed("b", 0, 5.0)]);
    let log = outcomes(&bench.path()).expect("read");
    assert_eq!((log.len(), &log[0]), (5000, &outcome(10)));
}
