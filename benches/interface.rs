//! What a frame costs, as ratios measured in one run: a token at the end of a long answer against one at
//! the end of a short answer, and a frame over a transcript of 1 MiB. Ends with 1 when a bound is missed.
#![expect(clippy::print_stdout, reason = "a bench prints its results")]
#![expect(clippy::expect_used, reason = "a bench that cannot draw has failed")]

use duet::app::Model;
use duet::app::model::{Composer, Fleet, Pending, Prefs, Saving, Scroll, Session};
use duet::app::turn::{Attempt, Lane, Phase, Prose, Turn};
use duet::chat::{Channel, Finish, GenKey, LaneId, Metrics, Sampling, SessionId, TurnId};
use duet::router::{Decision, Target};
use duet::text::{Shown, shown};
use duet::theme::Theme;
use duet::ui::{ViewCache, view};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use std::time::{Duration, Instant};

const MIXED: &str = "## A heading\n\nSome *prose* with `code` and a [link](https://example.org) that is long enough to \
    be wrapped on any screen, and then goes on for another while.\n\n- one item\n- another **item**\n\n```rust\nfn \
    main() {\n    let answer = 42; // the answer\n    println!(\"{answer}\");\n}\n```\n\n| a | b |\n|---|---|\n| 1 | 2 \
    |\n\n";

const CODE_LINE: &str = "    let value = compute(index, \"text\"); // line\n";

fn main() {
    let mut is_met = true;
    let mut bound = |what: &str, value: f64, unit: &str, most: f64| {
        let verdict = if value < most { "ok" } else { "MISSED" };
        is_met &= value < most;
        println!("{what:<58} {value:>8.2} {unit:<3} (under {most}) {verdict}");
    };

    let before = resident();
    let began = Instant::now();
    duet::markdown::highlight::load();
    println!("grammars read in {:.1} ms, {:.1} MiB", ms(began.elapsed()), resident() - before);

    let code = format!("```rust\n{}", CODE_LINE.repeat(64 * 1024 / CODE_LINE.len()));
    let mixed = MIXED.repeat(64 * 1024 / MIXED.len() + 1);
    for (name, text) in [("mixed Markdown", &mixed), ("one code block", &code)] {
        let short = per_token(text, 4 * 1024);
        let long = per_token(text, 64 * 1024 - 4096);
        println!("a token and its frame, {name}: {:.3} ms at 4 KiB, {:.3} ms at 60 KiB", ms(short), ms(long));
        let ratio = long.as_secs_f64() / short.as_secs_f64();
        bound(&format!("cost of a token at 60 KiB against 4 KiB, {name}"), ratio, "x", 3.0);
    }

    let mut model = model();
    let answer = MIXED.repeat(12);
    let count = 1024 * 1024 / answer.len() + 1;
    for number in 0..count {
        model.turns.push(turn(u32::try_from(number).expect("few"), &answer, Phase::Done(Finish::Stop)));
    }
    let mut screen = Screen::new();
    let began = Instant::now();
    let rows = screen.draw(&model);
    println!(
        "1 MiB transcript: {rows} rows, measured in {:.1} ms, {:.1} MiB",
        ms(began.elapsed()),
        resident()
    );
    let still = median(60, || {
        screen.draw(&model);
    });
    bound("a frame over 1 MiB, nothing new", ms(still), "ms", 2.0);
    let mut top = rows;
    let scrolled = median(200, || {
        top = top.saturating_sub(1);
        let (turn, row) = screen.turn_at(top);
        model.scroll = Scroll::Anchored { turn, row, cols: COLS, seen_rows: rows };
        screen.draw(&model);
    });
    bound("a frame over 1 MiB, one row further up", ms(scrolled), "ms", 2.0);
    let mut at = 0;
    let jumped = median(60, || {
        at = (at + 7_919) % rows;
        let (turn, row) = screen.turn_at(at);
        model.scroll = Scroll::Anchored { turn, row, cols: COLS, seen_rows: rows };
        screen.draw(&model);
    });
    bound("a frame over 1 MiB, anywhere", ms(jumped), "ms", 4.0);
    if !is_met {
        std::process::exit(1);
    }
}

const COLS: u16 = 120;

struct Screen {
    terminal: Terminal<TestBackend>,
    theme: Theme,
    cache: ViewCache,
    turn_rows: Vec<usize>,
}

impl Screen {
    fn new() -> Self {
        let terminal = Terminal::new(TestBackend::new(COLS, 50)).expect("a buffer");
        let theme = Theme::load("default", None).expect("the default theme").0;
        Self { terminal, theme, cache: ViewCache::default(), turn_rows: Vec::new() }
    }

    fn draw(&mut self, model: &Model) -> usize {
        let mut rows = 0;
        self.terminal
            .draw(|frame| {
                let facts = view(model, &self.theme, &mut self.cache, frame);
                rows = facts.total_rows;
                self.turn_rows = facts.turn_rows;
            })
            .expect("drawn");
        rows
    }

    fn turn_at(&self, top: usize) -> (usize, usize) {
        let turn = self.turn_rows.partition_point(|start| *start <= top).saturating_sub(1);
        (turn, top - self.turn_rows.get(turn).copied().unwrap_or(0))
    }
}

/// Cost of a token of four bytes and the frame after it, once the answer has this length.
fn per_token(text: &str, length: usize) -> Duration {
    let mut model = model();
    model.turns.push(turn(1, text.get(..length).expect("ASCII"), Phase::Streaming(Channel::Answer)));
    let mut screen = Screen::new();
    screen.draw(&model);
    let mut at = length;
    median(300, || {
        let piece = text.get(at..at + 4).expect("ASCII");
        at += 4;
        model.turns[0].lanes[0].attempts[0].answer.push(piece);
        screen.draw(&model);
    })
}

fn median(times: usize, mut run: impl FnMut()) -> Duration {
    let mut all: Vec<Duration> = (0..times)
        .map(|_| {
            let began = Instant::now();
            run();
            began.elapsed()
        })
        .collect();
    all.sort();
    all.get(times / 2).copied().unwrap_or_default()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Resident memory in MiB, where the system says.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap_or(0.0) / 1024.0
}

fn model() -> Model {
    Model {
        session: Session {
            id: SessionId("bench".to_owned()),
            title: Shown::default(),
            system: None,
            prompt_name: None,
            saving: Saving::On,
            is_opened: false,
            target: duet::router::Target::default(),
        },
        turns: Vec::new(),
        queue: Vec::new(),
        composer: Composer::default(),
        overlays: Vec::new(),
        scroll: Scroll::Follow,
        fleet: Fleet::default(),
        notice: None,
        prefs: Prefs {
            pin: Target::default(),
            configured: Target::default(),
            sampling: Sampling::default(),
            max_tokens: None,
            theme: "default".to_owned(),
            themes: Vec::new(),
            prompts: Vec::new(),
        },
        quit_armed: None,
        size: (COLS, 50),
        routing: duet::app::routing::Routing::default(),
        now: Duration::ZERO,
        wall_ms: 0,
        pending: Pending::default(),
    }
}

fn turn(number: u32, answer: &str, phase: Phase) -> Turn {
    let mut prose = Prose::default();
    prose.push(answer);
    if phase.is_terminal() {
        prose.finish();
    }
    let attempt = Attempt {
        key: GenKey { turn: TurnId(number), lane: LaneId(0), attempt: 1 },
        decision: Decision {
            backend: "local".to_owned(),
            model: "builtin".to_owned(),
            rule: "default".to_owned(),
            reason: "first backend".to_owned(),
            ..Decision::default()
        },
        story: duet::app::story::Story::default(),
        hope: duet::app::story::Hope::default(),
        quantisation: None,
        phase,
        answer: prose,
        thinking: Prose::default(),
        thinking_open: false,
        first_code: 1,
        entered_at: Duration::ZERO,
        metrics: Metrics::default(),
    };
    Turn {
        id: TurnId(number),
        user: "a question".to_owned(),
        user_shown: shown("a question"),
        created_ms: i64::from(number),
        lanes: vec![Lane { id: LaneId(0), attempts: vec![attempt] }],
        kept: None,
        fence: None,
    }
}
