//! Models to draw, made without the app: every value is given, so that a screen is the same every time.

use crate::app::Model;
use crate::app::model::{
    BackendView, Board, Composer, EngineView, Fleet, Picker, PickerItem, PickerKind, Prefs, Saving, Scroll,
    Session,
};
use crate::app::turn::{Attempt, Lane, Phase, Prose, Turn};
use crate::chat::{
    Device, DevicePart, Finish, Fit, GenKey, KeepAlive, LaneId, Machine, Metrics, ModelBytes, ModelCard,
    ModelState, Placement, Residency, Sampling, ServerTimings, SessionId, TurnId, Usage, Verdict,
};
use crate::router::{Decision, Target};
use crate::text::{EditBuffer, Shown, shown};
use crate::theme::Theme;
use crate::ui::{ViewCache, view};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Style;
use std::fmt::Write as _;
use std::time::Duration;

pub(crate) fn theme() -> Theme {
    Theme::load("default", None).expect("the default theme").0
}

pub(crate) fn empty(cols: u16, rows: u16) -> Model {
    Model {
        session: Session {
            id: SessionId("6921f3a0-9c41d2e7".to_owned()),
            title: Shown::default(),
            system: None,
            prompt_name: None,
            saving: Saving::On,
            is_opened: false,
            target: crate::router::Target::default(),
        },
        turns: Vec::new(),
        queue: Vec::new(),
        composer: Composer::default(),
        overlays: Vec::new(),
        scroll: Scroll::Follow,
        fleet: Fleet {
            backends: vec![BackendView {
                name: "local".to_owned(),
                is_engine: true,
                default_model: Some("builtin".to_owned()),
                models: vec![ModelCard {
                    id: "builtin".to_owned(),
                    state: ModelState::Loaded,
                    parameters: Some(2_000_000),
                    bytes: Some(2_100_000),
                    quantisation: Some("q8_0".to_owned()),
                    context: Some(2048),
                    is_builtin: true,
                    ..ModelCard::default()
                }],
                ..BackendView::default()
            }],
            engine: EngineView::Ready,
        },
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
        size: (cols, rows),
        routing: crate::app::routing::Routing::default(),
        now: Duration::from_millis(10_000),
        wall_ms: 1_700_000_000_000,
        pending: crate::app::model::Pending::default(),
    }
}

pub(crate) fn metrics() -> Metrics {
    Metrics {
        sent_ms: Some(2.0),
        headers_ms: Some(6.0),
        first_token_ms: Some(180.0),
        first_answer_ms: Some(180.0),
        last_token_ms: Some(740.0),
        painted_ms: Some(190.0),
        total_ms: Some(750.0),
        usage: Usage { prompt_tokens: Some(1264), cached_tokens: Some(1200), output_tokens: Some(74) },
        server: Some(ServerTimings {
            queue_ms: None,
            load_ms: Some(0.0),
            cache_n: Some(1200),
            prompt_n: Some(64),
            prompt_ms: Some(133.0),
            predicted_n: Some(74),
            predicted_ms: Some(565.0),
            ..ServerTimings::default()
        }),
    }
}

pub(crate) fn attempt(number: u32, answer: &str, phase: Phase) -> Attempt {
    let mut prose = Prose::default();
    prose.push(answer);
    if phase.is_terminal() {
        prose.finish();
    }
    Attempt {
        key: GenKey { turn: TurnId(number), lane: LaneId(0), attempt: 1 },
        decision: Decision {
            backend: "local".to_owned(),
            model: "builtin".to_owned(),
            rule: "pinned".to_owned(),
            reason: "chosen by you".to_owned(),
            ..Decision::default()
        },
        story: crate::app::story::Story::default(),
        hope: crate::app::story::Hope::default(),
        quantisation: Some("q8_0".to_owned()),
        metrics: if phase.is_terminal() { metrics() } else { Metrics::default() },
        phase,
        answer: prose,
        thinking: Prose::default(),
        thinking_open: false,
        first_code: 1,
        entered_at: Duration::from_millis(9_400),
    }
}

pub(crate) fn turn(number: u32, user: &str, attempt: Attempt) -> Turn {
    Turn {
        id: TurnId(number),
        user: user.to_owned(),
        user_shown: shown(user),
        created_ms: i64::from(number) * 1000,
        lanes: vec![Lane { id: LaneId(0), attempts: vec![attempt] }],
        kept: None,
        fence: None,
    }
}

pub(crate) fn done(number: u32, user: &str, answer: &str) -> Turn {
    turn(number, user, attempt(number, answer, Phase::Done(Finish::Stop)))
}

pub(crate) fn picker() -> Picker {
    let item = |value: &str, mark, label: &str, columns: &[&str]| PickerItem {
        value: value.to_owned(),
        mark,
        label: shown(label),
        columns: columns.iter().map(|text| shown(text)).collect(),
    };
    let items = vec![
        item("local/builtin", "●", "builtin", &["local", "q8_0", "2k", "2.1 MiB", "resident"]),
        item("local/qwen", "○", "qwen2.5-coder-7b-instruct", &["local", "q4_k_m", "32k", "4.7 GiB"]),
        item(
            "local/phi",
            "▲",
            "phi-4",
            &["local", "q4_k_m", "16k", "9.1 GiB", "does not fit: needs 9.8 GiB"],
        ),
        item("mac/llama", "✕", "llama3.3-70b", &["mac", "q4_k_m", "32k", "43.1 GiB", "away"]),
    ];
    Picker {
        kind: PickerKind::Model,
        filter: EditBuffer::default(),
        matches: (0..items.len()).collect(),
        items,
        selected: 1,
    }
}

const GIB: u64 = 1 << 30;

/// A machine with a card, and models in every state.
pub(crate) fn residency(model: &mut Model) -> Board {
    let card = |id: &str, parameters: u64, tenths: u64, state| ModelCard {
        id: id.to_owned(),
        state,
        parameters: Some(parameters),
        bytes: Some(tenths * GIB / 10),
        quantisation: Some("q4_k_m".to_owned()),
        context: Some(32_768),
        is_builtin: false,
        ..ModelCard::default()
    };
    let bytes = |weights, kv, compute| {
        Some(ModelBytes { weights: weights * GIB / 10, kv: kv * GIB / 10, compute: compute * GIB / 10 })
    };
    let cold = |id: &str, fit, weights, say: &str| Residency {
        id: id.to_owned(),
        pinned: Some(false),
        bytes: bytes(weights, 10, 3),
        verdict: Some(Verdict {
            fit,
            context: (fit == Fit::SmallerContext).then_some(4096),
            unload: if fit == Fit::IfUnloaded {
                vec!["qwen2.5-coder-7b-instruct".to_owned()]
            } else {
                Vec::new()
            },
            gpu_layers: (fit == Fit::Partial).then_some(20),
            slowdown: (fit == Fit::Partial).then_some(2.3),
            say: say.to_owned(),
        }),
        ..Residency::default()
    };
    let local = &mut model.fleet.backends[0];
    local.models = vec![
        card("gemma3-12b", 12_200_000_000, 73, ModelState::Unloaded),
        card("qwen2.5-coder-7b-instruct", 7_615_000_000, 44, ModelState::Loaded),
        card("nomic-embed", 137_000_000, 3, ModelState::Loaded),
        card("mistral-small-24b", 23_600_000_000, 143, ModelState::Loading { fraction: 0.42 }),
        card("llama3.1-8b", 8_030_000_000, 49, ModelState::Unloaded),
        card(
            "phi-4",
            14_700_000_000,
            91,
            ModelState::Failed { reason: "cut off at byte 312\nget it again".to_owned() },
        ),
        card("qwen2.5-32b", 32_800_000_000, 199, ModelState::Unloaded),
        card("llama3.3-70b", 70_600_000_000, 431, ModelState::Unloaded),
    ];
    local.residency = vec![
        cold(
            "gemma3-12b",
            Fit::SmallerContext,
            73,
            "fits with a context of 4096: needs 8.6 GiB, 2.1 GiB are free",
        ),
        Residency {
            id: "qwen2.5-coder-7b-instruct".to_owned(),
            pinned: Some(false),
            keep_alive: Some(KeepAlive::Seconds(300)),
            expires_s: Some(240.0),
            idle_s: Some(60.0),
            running: Some(2),
            queued: Some(1),
            slots: Some(4),
            load_ms: Some(2_100.0),
            prefill_tokens_per_s: Some(4_800.0),
            decode_tokens_per_s: Some(131.4),
            bytes: bytes(44, 18, 3),
            ..Residency::default()
        },
        Residency {
            id: "nomic-embed".to_owned(),
            pinned: Some(true),
            running: Some(0),
            context: Some(2048),
            bytes: bytes(3, 0, 1),
            ..Residency::default()
        },
        Residency {
            id: "mistral-small-24b".to_owned(),
            loading: Some((6 * GIB, 143 * GIB / 10)),
            bytes: bytes(143, 10, 3),
            ..Residency::default()
        },
        cold("llama3.1-8b", Fit::Fits, 49, "fits: needs 6.2 GiB, 9.1 GiB are free"),
        cold(
            "qwen2.5-32b",
            Fit::IfUnloaded,
            199,
            "needs 21.2 GiB on CUDA0, where 9.1 GiB are free: fits if qwen2.5-coder-7b-instruct (6.5 GiB) is unloaded",
        ),
        cold(
            "llama3.3-70b",
            Fit::DoesNotFit,
            431,
            "does not fit: needs 44.4 GiB, the whole budget is 22.8 GiB",
        ),
    ];
    local.heard_at = model.now;
    let part = |device: &str, weights, kv, compute| DevicePart {
        device: device.to_owned(),
        bytes: bytes(weights, kv, compute).expect("told"),
    };
    local.machine = Some(Machine {
        devices: vec![
            Device {
                name: "CUDA0".to_owned(),
                kind: Some("gpu".to_owned()),
                description: Some("NVIDIA GeForce RTX 4090".to_owned()),
                total: Some(24 * GIB),
                free: Some(17 * GIB),
                budget: Some(228 * GIB / 10),
                reserved: Some(12 * GIB / 10),
            },
            Device {
                name: "CPU".to_owned(),
                kind: Some("cpu".to_owned()),
                description: Some("AMD Ryzen 9 7950X".to_owned()),
                total: Some(64 * GIB),
                free: Some(40 * GIB),
                budget: Some(36 * GIB),
                reserved: Some(5 * GIB),
            },
        ],
        placements: vec![
            Placement {
                id: "qwen2.5-coder-7b-instruct".to_owned(),
                devices: vec![part("CUDA0", 44, 18, 3), part("CPU", 1, 0, 0)],
            },
            Placement { id: "nomic-embed".to_owned(), devices: vec![part("CUDA0", 3, 0, 1)] },
        ],
        queue: Some(0),
    });
    model.prefs.pin.model = Some("qwen2.5-coder-7b-instruct".to_owned());
    Board { selected: Some(("local".to_owned(), "qwen2.5-coder-7b-instruct".to_owned())), ..Board::default() }
}

pub(crate) fn draft(text: &str) -> EditBuffer {
    EditBuffer::from_text(text)
}

/// One frame.
pub(crate) fn frame(model: &Model, theme: &Theme, cache: &mut ViewCache) -> (Buffer, crate::app::FrameFacts) {
    let mut terminal = Terminal::new(TestBackend::new(model.size.0, model.size.1)).expect("terminal");
    let mut facts = crate::app::FrameFacts::default();
    terminal.draw(|frame| facts = view(model, theme, cache, frame)).expect("drawn");
    let mut buffer = terminal.backend().buffer().clone();
    let cursor = terminal.backend().cursor_position();
    if let Some(cell) = buffer.cell_mut(cursor)
        && terminal.backend().cursor_visible()
    {
        cell.modifier.insert(ratatui::style::Modifier::SLOW_BLINK);
    }
    (buffer, facts)
}

/// The glyphs, then for each row its styles as `first-last letter`, then what the letters mean. The cell
/// with the cursor blinks.
pub(crate) fn dump(model: &Model) -> String {
    dump_in(model, &theme())
}

/// The same in another theme.
pub(crate) fn dump_in(model: &Model, theme: &Theme) -> String {
    crate::markdown::highlight::load();
    let (buffer, _) = frame(model, theme, &mut ViewCache::default());
    let mut glyphs = String::new();
    let mut runs = String::new();
    let mut legend: Vec<Style> = Vec::new();
    for y in 0..buffer.area.height {
        let mut row = String::new();
        let mut styles: Vec<(u16, u16, Style)> = Vec::new();
        let mut skip = 0;
        for x in 0..buffer.area.width {
            let cell = &buffer[(x, y)];
            let style = cell.style();
            match styles.last_mut() {
                Some((_, last, same)) if *same == style => *last = x,
                _ => styles.push((x, x, style)),
            }
            if skip > 0 {
                skip -= 1;
                continue;
            }
            row.push_str(cell.symbol());
            skip = unicode_width::UnicodeWidthStr::width(cell.symbol()).saturating_sub(1);
        }
        writeln!(glyphs, "{}", row.trim_end()).expect("written");
        let plain = buffer::plain();
        styles.retain(|(_, _, style)| *style != plain);
        if !styles.is_empty() {
            write!(runs, "{y:>2}").expect("written");
            for (first, last, style) in styles {
                let at = legend.iter().position(|known| *known == style).unwrap_or_else(|| {
                    legend.push(style);
                    legend.len() - 1
                });
                let letter = char::from(b'a' + u8::try_from(at).expect("few styles"));
                write!(runs, " {first}-{last}{letter}").expect("written");
            }
            runs.push('\n');
        }
    }
    let mut out = format!("{glyphs}\n{runs}\n");
    for (at, style) in legend.iter().enumerate() {
        let letter = char::from(b'a' + u8::try_from(at).expect("few styles"));
        let colour = |what: &str, colour: Option<ratatui::style::Color>| match colour {
            Some(ratatui::style::Color::Reset) | None => String::new(),
            Some(colour) => format!(" {what} {colour}"),
        };
        writeln!(
            out,
            "{letter}{}{} {:?}",
            colour("fg", style.fg),
            colour("bg", style.bg),
            style.add_modifier
        )
        .expect("written");
    }
    out
}

mod buffer {
    use ratatui::buffer::Cell;
    use ratatui::style::Style;

    pub(super) fn plain() -> Style {
        Cell::EMPTY.style()
    }
}
