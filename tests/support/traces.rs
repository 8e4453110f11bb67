//! Two unlike machines and a person who asks, simulated: how long the answers took when our router chose, when fixed rules
//! did, a flat latency average, least connections, and somebody who knows the future.
//!
//! What is true of the machines is hidden. Who chooses sees what a client sees: speeds of answers that came, with their noise; which
//! models were resident, who waited and who was gone when it last looked (every five seconds); how long answers of the
//! conversation were; and that a connection failed once it did. Prompts are counted a few percent wrong.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]
#![allow(dead_code, reason = "not every user of it uses all of it")]

use duet::chat::{Fit, GenErrorKind, Metrics, Residency, ServerTimings, Usage, Verdict};
use duet::config::{Policy, RouteConfig};
use duet::router::health::Circuit;
use duet::router::speeds::{Before, Learnt, expected_follow_ups, expected_question, expected_tokens};
use duet::router::{BackendFacts, Decision, Facts, ModelFacts, Target, TurnFacts, elsewhere, route};
use std::collections::BTreeMap;
use std::time::Duration;

/// Time until a connection that does not come about is given up, in seconds.
const CONNECT: f64 = 2.0;
/// Time until a stream that broke is noticed.
const NOTICE: f64 = 1.0;
/// How often a client looks at what is resident and who waits.
const LOOK: f64 = 5.0;
/// What a question counts that got no answer in four tries.
const UNANSWERED: f64 = 600.0;
/// Conversations a machine keeps in its cache.
const SLOTS: usize = 4;
/// Questions of one day.
const TURNS: usize = 480;
/// Turns the one who knows the future looks ahead.
const AHEAD: usize = 5;

/// Numbers that look random and are the same each time.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.next()
    }

    /// Around 1, with this spread of its logarithm.
    fn around(&mut self, spread: f64) -> f64 {
        let sum: f64 = (0..12).map(|_| self.next()).sum::<f64>() - 6.0;
        (sum * spread).exp()
    }

    /// Between two lengths, evenly in their logarithm.
    fn length(&mut self, low: f64, high: f64) -> u32 {
        (low.ln() + (high.ln() - low.ln()) * self.next()).exp() as u32
    }
}

/// What is true of a model on a machine, at an empty context.
#[derive(Clone, Debug)]
struct TrueModel {
    id: &'static str,
    gb: f64,
    prefill: f64,
    decode: f64,
}

#[derive(Clone, Debug)]
struct TrueMachine {
    name: &'static str,
    hardware: &'static str,
    rtt: f64,
    /// GB models may hold.
    memory: f64,
    /// GB a second from its disk.
    disk: f64,
    models: Vec<TrueModel>,
    /// Times in which others keep it busy.
    busy: Vec<(f64, f64)>,
    /// Times in which it is gone.
    dead: Vec<(f64, f64)>,
    /// What is resident, used longest ago first, and when it was used.
    resident: Vec<&'static str>,
    used: BTreeMap<&'static str, f64>,
    /// Conversation, model, tokens in the cache; used longest ago first.
    cache: Vec<(u32, &'static str, u32)>,
}

#[derive(Clone, Debug)]
struct World {
    machines: Vec<TrueMachine>,
    now: f64,
}

/// One question.
#[derive(Clone, Copy, Debug)]
struct Turn {
    /// Seconds after the answer before.
    pause: f64,
    conversation: u32,
    model: &'static str,
    /// Tokens of the whole prompt, without what the conversation had.
    new: u32,
    output: u32,
    /// Seconds after this question in which the first machine dies, whoever answers: while it would be writing.
    dies_after: Option<f64>,
}

pub(crate) struct Trace {
    pub(crate) name: &'static str,
    world: World,
    turns: Vec<Turn>,
    seed: u64,
}

/// What an answer took, as the client sees it.
struct Answer {
    seconds: f64,
    metrics: Metrics,
    loaded: bool,
}

enum Failed {
    Connect(f64),
    Broken(f64),
}

impl World {
    /// Asks a machine; time goes on by what it took.
    fn ask(&mut self, at: usize, turn: &Turn, prompt: u32, noise: &mut Random) -> Result<Answer, Failed> {
        let (speed_noise, load_noise) = (noise.around(0.08), noise.around(0.1));
        // Machines get a little slower and faster over the day.
        let drift = 1.0 + 0.1 * (self.now / 900.0 + at as f64).sin();
        let now = self.now;
        let machine = &mut self.machines[at];
        if machine.dead.iter().any(|(from, to)| (*from..*to).contains(&now)) {
            self.now += CONNECT;
            return Err(Failed::Connect(CONNECT));
        }
        let model =
            machine.models.iter().find(|model| model.id == turn.model).cloned().expect("it has the model");
        let wait = machine
            .busy
            .iter()
            .find(|(from, to)| (*from..*to).contains(&now))
            .map_or(0.0, |(_, to)| to - now);
        let loaded = !machine.resident.contains(&turn.model);
        let mut load = 0.0;
        if loaded {
            load = model.gb / machine.disk * load_noise;
            let size = |id: &&str| machine.models.iter().find(|m| m.id == *id).map_or(0.0, |m| m.gb);
            let mut held: f64 = machine.resident.iter().map(size).sum();
            while held + model.gb > machine.memory && !machine.resident.is_empty() {
                let gone = machine.resident[0];
                held -= size(&gone);
                machine.resident.remove(0);
                machine.cache.retain(|(_, id, _)| *id != gone);
            }
        }
        machine.resident.retain(|id| *id != turn.model);
        machine.resident.push(turn.model);
        machine.used.insert(turn.model, now);
        let cached = machine
            .cache
            .iter()
            .find(|(conversation, id, _)| (*conversation, *id) == (turn.conversation, turn.model))
            .map_or(0, |(.., tokens)| (*tokens).min(prompt - 1));
        let depth = f64::from(prompt);
        let prefill = model.prefill * drift * speed_noise / (1.0 + depth / 40_000.0);
        let decode = model.decode * drift * speed_noise / (1.0 + depth / 60_000.0);
        let fresh = prompt - cached;
        let (prefill_s, decode_s) = (f64::from(fresh) / prefill, f64::from(turn.output) / decode);
        let first = machine.rtt + wait + load + prefill_s;
        let seconds = first + decode_s;
        if let Some((from, _)) = machine.dead.iter().find(|(from, _)| (now..now + seconds).contains(from)) {
            machine.resident.clear();
            machine.cache.clear();
            let lost = from - now + NOTICE;
            self.now += lost;
            return Err(Failed::Broken(lost));
        }
        machine.cache.retain(|(conversation, ..)| *conversation != turn.conversation);
        machine.cache.push((turn.conversation, turn.model, prompt + turn.output));
        if machine.cache.len() > SLOTS {
            machine.cache.remove(0);
        }
        self.now += seconds;
        let server = ServerTimings {
            load_ms: loaded.then_some(load * 1000.0),
            queue_ms: Some(wait * 1000.0),
            cache_n: Some(cached),
            prompt_n: Some(fresh),
            prompt_ms: Some(prefill_s * 1000.0),
            predicted_n: Some(turn.output),
            predicted_ms: Some(decode_s * 1000.0),
            ..ServerTimings::default()
        };
        let metrics = Metrics {
            first_token_ms: Some(first * 1000.0),
            total_ms: Some(seconds * 1000.0),
            usage: Usage {
                prompt_tokens: Some(prompt),
                cached_tokens: Some(cached),
                output_tokens: Some(turn.output),
            },
            server: Some(server),
            ..Metrics::default()
        };
        Ok(Answer { seconds, metrics, loaded })
    }

    /// A question is asked: the time goes on to it, and what happens at it begins to.
    fn go_on(&mut self, turn: &Turn) {
        self.now += turn.pause;
        if let Some(after) = turn.dies_after {
            self.machines[0].dead.push((self.now + after, self.now + after + 900.0));
        }
    }

    fn has(&self, at: usize, model: &str) -> bool {
        self.machines[at].models.iter().any(|known| known.id == model)
    }
}

/// What a client knows: the same for everybody who chooses.
struct View<'a> {
    now: f64,
    turn: &'a Turn,
    /// As counted, a little wrong.
    prompt: u32,
    machines: Vec<Seen>,
    answers: &'a [u32],
}

/// What a client saw of a machine when it last looked.
#[derive(Clone, Debug, Default)]
struct Seen {
    name: &'static str,
    hardware: &'static str,
    models: Vec<(&'static str, f64)>,
    resident: Vec<&'static str>,
    /// When those were used last.
    used: BTreeMap<&'static str, f64>,
    /// GB models may hold.
    memory: f64,
    /// Seconds others would still take, by the server's word.
    waiting: f64,
    /// Whether it answered at all.
    is_there: bool,
}

impl Seen {
    /// What an engine of ours tells of a model: since when it is idle, and who would have to leave for it.
    fn residency(&self, id: &'static str, gb: f64, now: f64) -> Residency {
        let size = |id: &&str| self.models.iter().find(|(known, _)| known == id).map_or(0.0, |(_, gb)| *gb);
        let mut held: f64 = self.resident.iter().map(size).sum();
        let mut unload = Vec::new();
        for other in self.resident.iter().filter(|_| !self.resident.contains(&id)) {
            if held + gb > self.memory {
                held -= size(other);
                unload.push((*other).to_owned());
            }
        }
        let fit = if unload.is_empty() { Fit::Fits } else { Fit::IfUnloaded };
        let verdict =
            Verdict { fit, context: None, unload, gpu_layers: None, slowdown: None, say: String::new() };
        Residency {
            id: id.to_owned(),
            idle_s: self.used.get(id).map(|used| (now - used).max(0.0)),
            verdict: Some(verdict),
            ..Residency::default()
        }
    }
}

/// Somebody who chooses.
trait Chooser {
    fn choose(&mut self, view: &View<'_>) -> usize;
    /// Where to after this one failed.
    fn after(&mut self, view: &View<'_>, failed: usize) -> usize {
        let _ = view;
        1 - failed
    }
    fn answered(&mut self, view: &View<'_>, at: usize, answer: &Answer);
    fn failed(&mut self, view: &View<'_>, at: usize, connect: bool);
}

/// Our router, with what a client of ours keeps.
#[derive(Default)]
struct Ours {
    learnt: BTreeMap<(usize, &'static str), Learnt>,
    circuits: [Circuit; 2],
    /// What this client sent last: machine, conversation and model to tokens.
    sent: BTreeMap<(usize, u32, &'static str), u32>,
    last: BTreeMap<u32, (usize, &'static str)>,
    explored: Vec<(usize, &'static str)>,
    /// Lengths of the answers of each model.
    answers: BTreeMap<&'static str, Vec<u32>>,
    /// New tokens of its questions.
    questions: Vec<u32>,
    /// Turns of each conversation.
    turns: BTreeMap<u32, u32>,
    decision: Option<Decision>,
}

impl Ours {
    fn facts(&self, view: &View<'_>) -> Facts {
        let now = Duration::from_secs_f64(view.now);
        let backend = |(at, seen): (usize, &Seen)| {
            let model = |(id, gb): &(&'static str, f64)| {
                let learnt = self.learnt.get(&(at, *id)).copied().unwrap_or_default();
                let is_resident = seen.resident.contains(id);
                let cached = self.sent.get(&(at, view.turn.conversation, *id)).copied().unwrap_or(0);
                ModelFacts {
                    id: (*id).to_owned(),
                    bytes: Some((gb * 1e9) as u64),
                    quantisation: Some("q4_k_m".to_owned()),
                    context: Some(131_072),
                    is_resident: Some(is_resident),
                    load_ms: (learnt.load_ms.samples > 0).then_some(learnt.load_ms.value),
                    speeds: learnt.speeds(view.prompt),
                    cached_tokens: if is_resident { cached } else { 0 },
                    is_explored_today: self.explored.contains(&(at, *id)),
                    residency: Some(seen.residency(id, *gb, view.now)),
                    ..ModelFacts::default()
                }
            };
            BackendFacts {
                name: seen.name.to_owned(),
                is_here: at == 0,
                health: self.circuits[at].health(now),
                failed_s: self.circuits[at].failed_s(now),
                hardware: Some(seen.hardware.to_owned()),
                queue_ms: Some(seen.waiting * 1000.0),
                models: seen.models.iter().map(model).collect(),
                ..BackendFacts::default()
            }
        };
        let session = self.last.get(&view.turn.conversation);
        Facts {
            pin: Target { backend: None, model: Some(view.turn.model.to_owned()) },
            session: session.map_or_else(Target::default, |(at, model)| Target {
                backend: Some(view.machines[*at].name.to_owned()),
                model: Some((*model).to_owned()),
            }),
            backends: view.machines.iter().enumerate().map(backend).collect(),
            rules: RouteConfig { policy: Policy::Finish, ..RouteConfig::default() },
            turn: TurnFacts {
                prompt_tokens: Some(view.prompt),
                expected_tokens: Some(expected_tokens(
                    view.answers,
                    self.answers.get(view.turn.model).map_or(&[], Vec::as_slice),
                )),
                follow_up_tokens: expected_question(&self.questions),
                follow_ups: Some(self.follow_ups(view.turn.conversation)),
                ..TurnFacts::default()
            },
            ..Facts::default()
        }
    }

    /// By the conversations there were.
    fn follow_ups(&self, conversation: u32) -> f64 {
        let past: Vec<u32> =
            self.turns.iter().filter(|(id, _)| **id != conversation).map(|(_, n)| *n).collect();
        expected_follow_ups(&past, self.turns.get(&conversation).copied().unwrap_or(0) + 1)
    }

    fn take(&mut self, view: &View<'_>, decision: Decision) -> usize {
        let at = view.machines.iter().position(|seen| seen.name == decision.backend).expect("a machine");
        if decision.rule == "explore" {
            self.explored.push((at, view.turn.model));
        }
        self.decision = Some(decision);
        at
    }
}

impl Chooser for Ours {
    fn choose(&mut self, view: &View<'_>) -> usize {
        let now = Duration::from_secs_f64(view.now);
        for (circuit, seen) in self.circuits.iter_mut().zip(&view.machines) {
            match (seen.is_there, circuit.health(now).is_away()) {
                (true, _) => circuit.connected(),
                (false, false) => circuit.failed(GenErrorKind::Unreachable, now),
                (false, true) => {}
            }
        }
        // Where nobody can answer by what is known, a person would try again: the first who has it is asked.
        match route(&self.facts(view)) {
            Ok(decision) => self.take(view, decision),
            Err(_) => view
                .machines
                .iter()
                .position(|s| s.models.iter().any(|(id, _)| *id == view.turn.model))
                .unwrap_or(0),
        }
    }

    fn after(&mut self, view: &View<'_>, failed: usize) -> usize {
        let moved = self.decision.as_ref().and_then(|decision| elsewhere(&self.facts(view), decision).ok());
        match moved.filter(|moved| !moved.is_other_model) {
            Some(decision) => self.take(view, decision),
            None => failed,
        }
    }

    fn answered(&mut self, view: &View<'_>, at: usize, answer: &Answer) {
        let before = if answer.loaded { Before::Other } else { Before::Prefill };
        self.learnt.entry((at, view.turn.model)).or_default().observe(&answer.metrics, before);
        self.circuits[at].succeeded();
        let usage = answer.metrics.usage;
        let tokens = usage.prompt_tokens.unwrap_or(0) + usage.output_tokens.unwrap_or(0);
        self.sent.insert((at, view.turn.conversation, view.turn.model), tokens);
        self.last.insert(view.turn.conversation, (at, view.turn.model));
        self.questions.push(view.turn.new);
        self.answers.entry(view.turn.model).or_default().push(view.turn.output);
        *self.turns.entry(view.turn.conversation).or_default() += 1;
    }

    fn failed(&mut self, view: &View<'_>, at: usize, connect: bool) {
        let kind = if connect { GenErrorKind::Unreachable } else { GenErrorKind::Protocol };
        self.circuits[at].failed(kind, Duration::from_secs_f64(view.now));
        self.sent.retain(|(machine, ..), _| *machine != at);
    }
}

/// For half a minute after a failure the other one is asked: what proxies call a cool-down.
#[derive(Default)]
struct Cooling([Option<f64>; 2]);

impl Cooling {
    fn pick(&self, view: &View<'_>, wanted: usize) -> usize {
        let has = |at: usize| view.machines[at].models.iter().any(|(id, _)| *id == view.turn.model);
        let is_cold = |at: usize| {
            !view.machines[at].is_there || self.0[at].is_some_and(|since| view.now - since < 30.0)
        };
        let other = 1 - wanted;
        if !has(wanted) || (is_cold(wanted) && has(other) && !is_cold(other)) { other } else { wanted }
    }
}

/// Small models to the first machine, others to the second.
#[derive(Default)]
struct Fixed {
    small: usize,
    cooling: Cooling,
}

impl Chooser for Fixed {
    fn choose(&mut self, view: &View<'_>) -> usize {
        let wanted = if view.turn.model.ends_with("-8b") { self.small } else { 1 - self.small };
        self.cooling.pick(view, wanted)
    }
    fn answered(&mut self, _: &View<'_>, _: usize, _: &Answer) {}
    fn failed(&mut self, view: &View<'_>, at: usize, _: bool) {
        self.cooling.0[at] = Some(view.now);
    }
}

/// The lowest mean of the last ten latencies for each token of the answer, of this model; what was never asked first.
#[derive(Default)]
struct Latency {
    seen: BTreeMap<(usize, &'static str), Vec<f64>>,
    cooling: Cooling,
}

impl Chooser for Latency {
    fn choose(&mut self, view: &View<'_>) -> usize {
        let mean = |at: usize| {
            let seen = self.seen.get(&(at, view.turn.model)).map(Vec::as_slice).unwrap_or_default();
            let last = seen.iter().rev().take(10);
            if seen.is_empty() { 0.0 } else { last.clone().sum::<f64>() / last.count() as f64 }
        };
        let wanted = usize::from(mean(1) < mean(0));
        self.cooling.pick(view, wanted)
    }
    fn answered(&mut self, view: &View<'_>, at: usize, answer: &Answer) {
        let each = answer.seconds / f64::from(view.turn.output.max(1));
        self.seen.entry((at, view.turn.model)).or_default().push(each);
    }
    fn failed(&mut self, view: &View<'_>, at: usize, _: bool) {
        self.cooling.0[at] = Some(view.now);
    }
}

/// Where fewest are seen to wait; in turns where they are as many.
#[derive(Default)]
struct Connections {
    next: usize,
    cooling: Cooling,
}

impl Chooser for Connections {
    fn choose(&mut self, view: &View<'_>) -> usize {
        let waits = |at: usize| view.machines[at].waiting > 0.0;
        let wanted = match (waits(0), waits(1)) {
            (true, false) => 1,
            (false, true) => 0,
            _ => {
                self.next = 1 - self.next;
                self.next
            }
        };
        self.cooling.pick(view, wanted)
    }
    fn answered(&mut self, _: &View<'_>, _: usize, _: &Answer) {}
    fn failed(&mut self, view: &View<'_>, at: usize, _: bool) {
        self.cooling.0[at] = Some(view.now);
    }
}

/// What one chooser's day was like.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Day {
    /// Seconds from questions to the ends of their answers, all together.
    pub(crate) total: f64,
    /// Questions that failed at first.
    pub(crate) failures: u32,
    /// Times a conversation changed machines.
    pub(crate) moves: u32,
}

impl Trace {
    fn noise(&self, turn: usize, machine: usize, attempt: usize) -> Random {
        Random(self.seed ^ (turn as u64) << 20 ^ (machine as u64) << 10 ^ (attempt as u64) << 50)
    }

    /// Seconds of a turn on a machine, failures and going to the other one included.
    fn run(&self, world: &mut World, at: usize, number: usize, prompt: u32) -> f64 {
        let turn = &self.turns[number];
        let mut place = at;
        let mut spent = 0.0;
        for attempt in 0..4 {
            match world.ask(place, turn, prompt, &mut self.noise(number, place, attempt)) {
                Ok(answer) => return spent + answer.seconds,
                Err(Failed::Connect(lost) | Failed::Broken(lost)) => spent += lost,
            }
            if world.has(1 - place, turn.model) {
                place = 1 - place;
            } else {
                world.now += 5.0;
                spent += 5.0;
            }
        }
        spent + UNANSWERED
    }

    fn prompts(&self) -> Vec<u32> {
        let mut held: BTreeMap<u32, u32> = BTreeMap::new();
        let prompt = |turn: &Turn| {
            let before = held.entry(turn.conversation).or_default();
            let prompt = *before + turn.new;
            *before = prompt + turn.output;
            prompt
        };
        self.turns.iter().map(prompt).collect()
    }

    /// The least total time, looking ahead.
    fn best(&self, world: &World, number: usize, prompts: &[u32], depth: usize) -> (f64, usize) {
        if depth == 0 || number >= self.turns.len() {
            return (0.0, 0);
        }
        let turn = &self.turns[number];
        let mut best = (f64::INFINITY, 0);
        for at in (0..2).filter(|at| world.has(*at, turn.model)) {
            let mut then = world.clone();
            then.go_on(turn);
            let took = self.run(&mut then, at, number, prompts[number]);
            if took < best.0 {
                let (rest, _) = self.best(&then, number + 1, prompts, depth - 1);
                if took + rest < best.0 {
                    best = (took + rest, at);
                }
            }
        }
        best
    }

    /// Somebody who knows what is true and what comes.
    #[must_use]
    pub(crate) fn oracle(&self) -> Day {
        let prompts = self.prompts();
        let mut world = self.world.clone();
        let mut day = Day::default();
        for (number, turn) in self.turns.iter().enumerate() {
            let (_, at) = self.best(&world, number, &prompts, AHEAD);
            world.go_on(turn);
            day.total += self.run(&mut world, at, number, prompts[number]);
        }
        day
    }

    fn day(&self, chooser: &mut dyn Chooser) -> Day {
        let prompts = self.prompts();
        let mut world = self.world.clone();
        let mut day = Day::default();
        let mut counting = Random(self.seed ^ 77);
        let mut answers: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let mut seen: Vec<Seen> = Vec::new();
        let mut looked = f64::NEG_INFINITY;
        let mut places: BTreeMap<u32, usize> = BTreeMap::new();
        for (number, turn) in self.turns.iter().enumerate() {
            world.go_on(turn);
            let began = world.now;
            let prompt = (f64::from(prompts[number]) * counting.between(0.95, 1.05)) as u32;
            let answers = answers.entry(turn.conversation).or_default();
            let mut place = None;
            let mut is_answered = false;
            for attempt in 0..4 {
                // The last look is up to five seconds old, unless nothing was looked at for longer.
                let look = (world.now / LOOK).floor() * LOOK;
                if look > looked {
                    seen = look_at(&world, look, &mut counting);
                    looked = look;
                }
                let aged = seen.iter().map(|seen| Seen {
                    waiting: (seen.waiting - (world.now - looked)).max(0.0),
                    ..seen.clone()
                });
                let view = View {
                    now: world.now,
                    turn,
                    prompt: prompt.max(1),
                    machines: aged.collect(),
                    answers: &answers[..],
                };
                let at = match place {
                    None => chooser.choose(&view),
                    Some(failed) => chooser.after(&view, failed),
                };
                let at = if world.has(at, turn.model) { at } else { 1 - at };
                if place == Some(at) {
                    // Nowhere else to go: a person tries again after a while.
                    world.now += 5.0;
                }
                let result = world.ask(at, turn, prompts[number], &mut self.noise(number, at, attempt));
                let view = View { now: world.now, ..view };
                match result {
                    Ok(answer) => {
                        chooser.answered(&view, at, &answer);
                        is_answered = true;
                        // Its own turn a client sees at once.
                        if let Some(machine) = seen.get_mut(at) {
                            machine.resident.clone_from(&world.machines[at].resident);
                            machine.used.clone_from(&world.machines[at].used);
                        }
                        if places.insert(turn.conversation, at).is_some_and(|before| before != at) {
                            day.moves += 1;
                        }
                        break;
                    }
                    Err(failed) => {
                        day.failures += 1;
                        chooser.failed(&view, at, matches!(failed, Failed::Connect(_)));
                        place = Some(at);
                    }
                }
            }
            answers.push(turn.output);
            day.total += world.now - began + if is_answered { 0.0 } else { UNANSWERED };
        }
        day
    }

    /// Everybody's day: ours, fixed rules both ways round, a flat latency average, least connections.
    #[must_use]
    pub(crate) fn days(&self) -> [(&'static str, Day); 5] {
        [
            ("duet", self.day(&mut Ours::default())),
            ("fixed, small first", self.day(&mut Fixed::default())),
            ("fixed, small second", self.day(&mut Fixed { small: 1, ..Fixed::default() })),
            ("latency average", self.day(&mut Latency::default())),
            ("least connections", self.day(&mut Connections::default())),
        ]
    }
}

/// What servers told at this time. How long others still take they know about by half.
fn look_at(world: &World, at: f64, random: &mut Random) -> Vec<Seen> {
    let one = |machine: &TrueMachine| {
        let busy = machine.busy.iter().find(|(from, to)| (*from..*to).contains(&at));
        Seen {
            name: machine.name,
            hardware: machine.hardware,
            models: machine.models.iter().map(|model| (model.id, model.gb)).collect(),
            resident: machine.resident.clone(),
            used: machine.used.clone(),
            memory: machine.memory,
            waiting: busy.map_or(0.0, |(_, to)| (to - at) * random.between(0.5, 1.5)),
            is_there: !machine.dead.iter().any(|(from, to)| (*from..*to).contains(&at)),
        }
    };
    world.machines.iter().map(one).collect()
}

const SMALL: &str = "llama-3.1-8b";
const MIDDLE: &str = "qwen2.5-32b";
const LARGE: &str = "llama-3.3-70b";

fn model(id: &'static str, gb: f64, prefill: f64, decode: f64) -> TrueModel {
    TrueModel { id, gb, prefill, decode }
}

fn machine(
    name: &'static str,
    hardware: &'static str,
    memory: f64,
    disk: f64,
    rtt: f64,
    models: Vec<TrueModel>,
) -> TrueMachine {
    TrueMachine {
        name,
        hardware,
        rtt,
        memory,
        disk,
        models,
        busy: Vec::new(),
        dead: Vec::new(),
        resident: Vec::new(),
        used: BTreeMap::new(),
        cache: Vec::new(),
    }
}

/// A card under the desk and a Mac in the next room. The 70B model is on the Mac alone.
fn card_and_mac() -> World {
    let card = vec![model(SMALL, 4.9, 6500.0, 122.0), model(MIDDLE, 19.9, 1650.0, 32.0)];
    let mac =
        vec![model(SMALL, 4.9, 640.0, 64.0), model(MIDDLE, 19.9, 165.0, 19.0), model(LARGE, 42.5, 75.0, 8.3)];
    World {
        machines: vec![
            machine("local", "rtx4090", 23.0, 2.2, 0.001, card),
            machine("mac", "m4-max-64", 48.0, 3.5, 0.005, mac),
        ],
        now: 0.0,
    }
}

/// One that reads fast and writes slowly, and one the other way round.
fn reader_and_writer() -> World {
    let spark = vec![
        model(SMALL, 4.9, 5000.0, 36.0),
        model(MIDDLE, 19.9, 1300.0, 9.5),
        model(LARGE, 42.5, 560.0, 4.6),
    ];
    let ultra = vec![
        model(SMALL, 4.9, 1250.0, 98.0),
        model(MIDDLE, 19.9, 330.0, 29.0),
        model(LARGE, 42.5, 150.0, 14.0),
    ];
    World {
        machines: vec![
            machine("spark", "dgx-spark", 115.0, 2.5, 0.001, spark),
            machine("ultra", "m3-ultra-96", 70.0, 4.0, 0.005, ultra),
        ],
        now: 0.0,
    }
}

fn warm(mut world: World) -> World {
    for machine in &mut world.machines {
        machine.resident = machine.models.iter().map(|model| model.id).collect();
    }
    world
}

/// Questions of a day: conversations of a few turns, mostly short, now and then with a long file.
fn questions(count: usize, models: &[(&'static str, f64)], long: f64, seed: u64) -> Vec<Turn> {
    let mut random = Random(seed);
    let mut turns = Vec::new();
    let (mut conversation, mut left, mut model, mut length) = (0, 0, SMALL, 200.0);
    while turns.len() < count {
        if left == 0 {
            conversation += 1;
            left = 1 + random.between(0.0, 6.0) as u32;
            let mut at = random.next();
            model = models
                .iter()
                .find(|(_, share)| {
                    at -= share;
                    at < 0.0
                })
                .map_or(SMALL, |(model, _)| *model);
            length = f64::from(random.length(40.0, 700.0));
        }
        left -= 1;
        let is_long = random.next() < long;
        let new = if is_long { random.length(3000.0, 24_000.0) } else { random.length(30.0, 500.0) };
        let output = (length * random.around(0.45)).clamp(8.0, 1500.0) as u32;
        turns.push(Turn {
            pause: random.between(4.0, 60.0),
            conversation,
            model,
            new,
            output,
            dies_after: None,
        });
    }
    turns
}

/// Times others keep a machine busy, over a day of this many seconds.
fn bursts(seconds: f64, every: f64, length: f64, seed: u64) -> Vec<(f64, f64)> {
    let mut random = Random(seed);
    let (mut at, mut all) = (0.0, Vec::new());
    while at < seconds {
        at += random.between(0.3, 1.7) * every;
        let end = at + random.between(0.3, 1.7) * length;
        all.push((at, end));
        at = end;
    }
    all
}

/// The suite with other random numbers for each day.
#[must_use]
pub(crate) fn suite(day: u64) -> Vec<Trace> {
    let questions = |models: &[_], long, seed: u64| questions(TURNS, models, long, seed + 1000 * day);
    let small = [(SMALL, 0.6), (MIDDLE, 0.4)];
    let all = [(SMALL, 0.45), (MIDDLE, 0.35), (LARGE, 0.2)];
    let mut dying = warm(card_and_mac());
    dying.machines[0].resident = vec![SMALL];
    dying.machines[0].dead = vec![(3000.0, 4500.0), (16_000.0, 16_060.0)];
    let mut deadly = questions(&small, 0.1, 14);
    for turn in deadly.iter_mut().skip(100).step_by(100) {
        turn.dies_after = Some(3.0);
    }
    let mut crowded = warm(reader_and_writer());
    crowded.machines[0].busy = bursts(60_000.0, 150.0, 12.0, 5);
    crowded.machines[1].busy = bursts(60_000.0, 60.0, 25.0, 6);
    let trace = |name, world, turns, seed| Trace { name, world, turns, seed: seed + 10 * day };
    vec![
        trace("warm, short and long", warm(reader_and_writer()), questions(&all, 0.15, 11), 1),
        trace("cold, models swap", card_and_mac(), questions(&all, 0.08, 12), 2),
        trace("long files", warm(reader_and_writer()), questions(&small, 0.45, 13), 3),
        trace("one dies", dying, deadly, 4),
        trace("others queue", crowded, questions(&small, 0.15, 15), 5),
    ]
}

/// One line of the table.
pub(crate) struct Line {
    pub(crate) trace: &'static str,
    pub(crate) oracle: f64,
    pub(crate) days: [(&'static str, Day); 5],
}

/// Days each trace is run for.
pub(crate) const DAYS: u64 = 4;

/// Runs the suite for several days; the last line is all of it together.
#[must_use]
pub(crate) fn table() -> Vec<Line> {
    let line = |trace: &Trace| Line { trace: trace.name, oracle: trace.oracle().total, days: trace.days() };
    let mut lines: Vec<Line> = suite(0).iter().map(line).collect();
    for day in 1..DAYS {
        for (sum, trace) in lines.iter_mut().zip(&suite(day)) {
            sum.add(&line(trace));
        }
    }
    let none = lines[0].days.map(|(name, _)| (name, Day::default()));
    let mut all = Line { trace: "all", oracle: 0.0, days: none };
    for line in &lines {
        all.add(line);
    }
    lines.push(all);
    lines
}

impl Line {
    fn add(&mut self, other: &Self) {
        self.oracle += other.oracle;
        for ((_, sum), (_, day)) in self.days.iter_mut().zip(&other.days) {
            sum.total += day.total;
            sum.failures += day.failures;
            sum.moves += day.moves;
        }
    }

    /// How much longer this one took than the best, in percent.
    pub(crate) fn regret(&self, day: &Day) -> f64 {
        (day.total / self.oracle - 1.0) * 100.0
    }
}

/// The table as Markdown: seconds, and how much longer than the best in percent.
pub(crate) fn markdown(lines: &[Line]) -> String {
    let names = lines[0].days.map(|(name, _)| name);
    let mut text =
        format!("| trace | best | {} |\n|---|---:|{}\n", names.join(" | "), "---:|".repeat(names.len()));
    for line in lines {
        let cell = |(_, day): &(&str, Day)| format!("{:.0} s, +{:.1} %", day.total, line.regret(day));
        let cells: Vec<String> = line.days.iter().map(cell).collect();
        text.push_str(&format!("| {} | {:.0} s | {} |\n", line.trace, line.oracle, cells.join(" | ")));
    }
    text
}
