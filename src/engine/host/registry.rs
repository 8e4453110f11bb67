//! What the host knows of its models, behind one mutex that is never held across a wait.

use super::{Resident, lock};
use crate::chat::GenError;
use crate::config::{EngineConfig, EngineModelConfig};
use crate::engine::residency::budget::{Budget, Held, in_order};
use crate::engine::residency::plan::{Holder, Standing};
use llama_cpp_2::model::LlamaModel;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

/// How long a model that was loaded or warmed, and not used since, is not sent away.
pub(super) const WARM: Duration = Duration::from_secs(60);

/// A model that is resident, on its way, or could not be loaded.
#[derive(Debug)]
pub(super) enum Entry {
    Loading(Arc<Loading>),
    Loaded(Arc<Resident>),
    Failed(GenError),
}

/// A load on its way.
#[derive(Debug, Default)]
pub(super) struct Loading {
    pub(super) permille: AtomicU32,
    pub(super) bytes: AtomicU64,
    /// Memory was found for it: what can still go wrong is the load itself.
    pub(super) has_room: AtomicBool,
    pub(super) cancel: AtomicBool,
    /// Nobody has asked a question yet: it is given up where others would have to leave for it.
    pub(super) is_ahead: AtomicBool,
    /// What was wanted of the model when the load began: it is loaded so.
    pub(super) wish: Wish,
    /// Changes of that by whoever asked for the load, oldest first: a refusal takes them back.
    pub(super) changes: Mutex<Vec<WishChange>>,
}

/// A change of what is wanted of a model.
#[derive(Clone, Copy, Debug)]
pub(super) struct WishChange {
    pub(super) before: Wish,
    pub(super) after: Wish,
}

impl Loading {
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }
}

/// How far a load is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// 0 to 1.
    pub fraction: f32,
    /// Bytes of weights that are loaded.
    pub bytes_done: u64,
    /// Bytes of weights there are; 0 before the file was read.
    pub bytes_total: u64,
    /// Whether memory was found for it.
    pub has_room: bool,
}

impl Loading {
    pub(super) fn progress(&self) -> Progress {
        let permille = self.permille.load(Ordering::Relaxed).min(1000);
        let bytes_total = self.bytes.load(Ordering::Relaxed);
        Progress {
            fraction: permille as f32 / 1000.0,
            bytes_done: bytes_total / 1000 * u64::from(permille)
                + bytes_total % 1000 * u64::from(permille) / 1000,
            bytes_total,
            has_room: self.has_room.load(Ordering::Relaxed),
        }
    }
}

/// What is wanted of a model: by the configuration, then by whoever asked last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wish {
    /// It stays whatever else is wanted.
    pub pinned: bool,
    /// Seconds it stays after its last answer; -1 is for ever. None: as the engine's configuration says.
    pub keep_alive: Option<i64>,
    /// Context in tokens. None: as the engine's configuration says.
    pub context: Option<u32>,
    /// Sequences. None: as the engine's configuration says.
    pub slots: Option<u32>,
}

impl Wish {
    /// Takes a change back, except for what was changed again since.
    fn take_back(&mut self, WishChange { before, after }: WishChange) {
        fn one<T: PartialEq>(now: &mut T, after: &T, before: T) {
            if now == after {
                *now = before;
            }
        }
        one(&mut self.pinned, &after.pinned, before.pinned);
        one(&mut self.keep_alive, &after.keep_alive, before.keep_alive);
        one(&mut self.context, &after.context, before.context);
        one(&mut self.slots, &after.slots, before.slots);
    }
}

impl From<&EngineModelConfig> for Wish {
    fn from(config: &EngineModelConfig) -> Self {
        let EngineModelConfig { id: _, pinned, keep_alive, context, slots, draft_model: _ } = *config;
        Self { pinned, keep_alive, context, slots }
    }
}

/// When a resident model was last used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moments {
    /// Loaded or warmed then, and not used since.
    pub(super) warmed: Option<Instant>,
    /// The last answer ended then, or it was loaded then.
    pub(super) idle_since: Instant,
}

/// A model that was told to leave and may still hold its memory.
#[derive(Debug)]
pub(super) struct Leaving {
    id: String,
    held: Held,
    load_ms: f64,
    model: Weak<LlamaModel>,
    has_ended: Arc<AtomicBool>,
}

impl Leaving {
    fn is_gone(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst) && self.model.strong_count() == 0
    }
}

/// The registry.
#[derive(Debug, Default)]
pub(super) struct Registry {
    pub(super) entries: HashMap<String, Entry>,
    wishes: HashMap<String, Wish>,
    /// Requests that use a model or wait for it.
    leases: HashMap<String, usize>,
    leaving: Vec<Leaving>,
}

impl Registry {
    /// With the wishes of the configuration, and over them those that were `asked`.
    pub(super) fn new(config: &EngineConfig, asked: HashMap<String, Wish>) -> Self {
        let configured = config.models.iter().map(|m| (m.id.clone(), Wish::from(m)));
        Self { wishes: configured.chain(asked).collect(), ..Self::default() }
    }

    pub(super) fn wishes(&self) -> &HashMap<String, Wish> {
        &self.wishes
    }

    pub(super) fn wish(&self, id: &str) -> Wish {
        self.wishes.get(id).copied().unwrap_or_default()
    }

    pub(super) fn wish_mut(&mut self, id: &str) -> &mut Wish {
        self.wishes.entry(id.to_owned()).or_default()
    }

    /// Takes back what was changed for a load that is refused. All wishes when there was something.
    pub(super) fn take_back(&mut self, id: &str, loading: &Loading) -> Option<HashMap<String, Wish>> {
        let changes = std::mem::take(&mut *lock(&loading.changes));
        if changes.is_empty() {
            return None;
        }
        let wish = self.wish_mut(id);
        for change in changes.into_iter().rev() {
            wish.take_back(change);
        }
        Some(self.wishes.clone())
    }

    pub(super) fn leases(&self, id: &str) -> usize {
        self.leases.get(id).copied().unwrap_or(0)
    }

    pub(super) fn add_lease(&mut self, id: &str) {
        *self.leases.entry(id.to_owned()).or_default() += 1;
    }

    /// One request fewer. `true` when it was the last one.
    pub(super) fn end_lease(&mut self, id: &str) -> bool {
        match self.leases.get_mut(id) {
            Some(n) if *n > 1 => {
                *n -= 1;
                false
            }
            _ => self.leases.remove(id).is_some(),
        }
    }

    pub(super) fn resident(&self, id: &str) -> Option<&Arc<Resident>> {
        match self.entries.get(id) {
            Some(Entry::Loaded(resident)) => Some(resident),
            _ => None,
        }
    }

    pub(super) fn residents(&self) -> impl Iterator<Item = &Arc<Resident>> {
        self.entries.values().filter_map(|entry| match entry {
            Entry::Loaded(resident) => Some(resident),
            Entry::Loading(_) | Entry::Failed(_) => None,
        })
    }

    /// Tells a resident to leave; its memory is accounted for until it is back.
    pub(super) fn send_away(&mut self, id: &str) -> bool {
        let Some(resident) = self.resident(id).cloned() else { return false };
        self.entries.remove(id);
        self.note_leaving(&resident);
        resident.end();
        true
    }

    /// Accounts for a resident that was taken out of the entries.
    pub(super) fn note_leaving(&mut self, resident: &Arc<Resident>) {
        self.leaving.push(Leaving {
            id: resident.id.clone(),
            held: resident.allocated(),
            load_ms: resident.load_ms,
            model: Arc::downgrade(&resident.model),
            has_ended: Arc::clone(&resident.has_ended),
        });
    }

    /// Whether models that were told to leave still hold memory.
    pub(super) fn is_somebody_leaving(&mut self) -> bool {
        self.leaving.retain(|l| !l.is_gone());
        !self.leaving.is_empty()
    }

    /// Whether the thread of a model that was told to leave is still at work.
    pub(super) fn is_a_leaver_at_work(&self) -> bool {
        self.leaving.iter().any(|l| !l.has_ended.load(Ordering::SeqCst))
    }

    /// What models hold, those that are leaving included.
    pub(super) fn held(&self) -> Vec<Held> {
        let leaving = self.leaving.iter().filter(|l| !l.is_gone()).map(|l| l.held.clone());
        self.residents().map(|r| r.allocated()).chain(leaving).collect()
    }

    /// What a resident is doing at `now`.
    pub(super) fn standing(&self, resident: &Resident, now: Instant) -> Standing {
        let moments = resident.moments();
        match self.leases(&resident.id) {
            0 => {}
            n => return Standing::Running(n),
        }
        if self.wish(&resident.id).pinned {
            return Standing::Pinned;
        }
        let warm_until = moments.warmed.map(|at| at + WARM);
        match warm_until.map(|until| until.saturating_duration_since(now)) {
            Some(left) if !left.is_zero() => Standing::Warmed { left_s: left.as_secs_f64() },
            _ => Standing::Idle { for_s: now.saturating_duration_since(moments.idle_since).as_secs_f64() },
        }
    }

    /// Who holds memory, as the plan wants it, in a stable order.
    pub(super) fn holders(&self, budgets: &[Budget], now: Instant) -> Vec<Holder> {
        let residents = self.residents().map(|r| Holder {
            id: r.id.clone(),
            bytes: in_order(&r.reserved(), budgets),
            standing: self.standing(r, now),
            load_ms: r.load_ms,
        });
        let leaving = self.leaving.iter().filter(|l| !l.is_gone()).map(|l| Holder {
            id: l.id.clone(),
            bytes: in_order(&l.held.footprint, budgets),
            standing: Standing::Leaving,
            load_ms: l.load_ms,
        });
        let mut all: Vec<Holder> = residents.chain(leaving).collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// How long from `now` until a resident is unloaded for being idle; none when it isn't going to be.
    pub(super) fn expires_in(&self, resident: &Resident, default: i64, now: Instant) -> Option<Duration> {
        let wish = self.wish(&resident.id);
        if wish.pinned || self.leases(&resident.id) > 0 {
            return None;
        }
        let keep = u64::try_from(wish.keep_alive.unwrap_or(default)).ok()?;
        let moments = resident.moments();
        let idle = moments.idle_since.checked_add(Duration::from_secs(keep))?;
        // Whoever warmed it is about to use it.
        let warm = moments.warmed.map(|at| at + WARM);
        Some(warm.map_or(idle, |warm| idle.max(warm)).saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn leases_are_counted() {
        let mut registry = Registry::default();
        registry.add_lease("a");
        registry.add_lease("a");
        assert_eq!((registry.leases("a"), registry.leases("b")), (2, 0));
        assert!(!registry.end_lease("a"));
        assert!(registry.end_lease("a"), "the last one");
        assert!(!registry.end_lease("a"), "there was none");
        assert!(registry.leases.is_empty(), "ids of old do not pile up");
    }

    #[test]
    fn a_leaver_is_at_work_until_its_thread_has_ended() {
        let mut registry = Registry::default();
        assert!(!registry.is_a_leaver_at_work());
        let has_ended = Arc::new(AtomicBool::new(false));
        registry.leaving.push(Leaving {
            id: "a".to_owned(),
            held: Held::default(),
            load_ms: 1.0,
            model: Weak::new(),
            has_ended: Arc::clone(&has_ended),
        });
        assert!(registry.is_a_leaver_at_work());
        has_ended.store(true, Ordering::SeqCst);
        assert!(!registry.is_a_leaver_at_work());
    }

    #[test]
    fn wishes_begin_with_the_configuration() {
        let config = EngineConfig {
            models: vec![EngineModelConfig {
                id: "a".to_owned(),
                pinned: true,
                keep_alive: Some(-1),
                ..EngineModelConfig::default()
            }],
            ..EngineConfig::default()
        };
        let asked = HashMap::from([("c".to_owned(), Wish { context: Some(512), ..Wish::default() })]);
        let mut registry = Registry::new(&config, asked);
        assert_eq!(registry.wish("c").context, Some(512));
        assert_eq!(registry.wish("a"), Wish { pinned: true, keep_alive: Some(-1), ..Wish::default() });
        registry.wish_mut("a").pinned = false;
        assert_eq!(registry.wish("a").keep_alive, Some(-1));
        assert_eq!(registry.wish("b"), Wish::default());
    }

    #[test]
    fn a_refusal_takes_back_what_the_load_asked_for_and_nothing_else() {
        let mut registry = Registry::default();
        let first = Wish { context: Some(512), slots: Some(2), ..Wish::default() };
        let second = Wish { context: Some(4096), ..first };
        // Somebody asked for something else between the two.
        let third = Wish { keep_alive: Some(5), ..second };
        let fourth = Wish { pinned: true, ..third };
        let loading = Loading::default();
        *registry.wish_mut("a") = fourth;
        assert_eq!(registry.take_back("a", &loading), None, "no change came with it");
        lock(&loading.changes).extend([
            WishChange { before: first, after: second },
            WishChange { before: third, after: fourth },
        ]);
        let left = Wish { keep_alive: Some(5), ..first };
        assert_eq!(registry.take_back("a", &loading), Some(HashMap::from([("a".to_owned(), left)])));
    }

    #[test]
    fn progress_is_in_bytes_and_does_not_overflow() {
        let loading = Loading::default();
        loading.bytes.store(u64::MAX, Ordering::Relaxed);
        loading.permille.store(1000, Ordering::Relaxed);
        assert_eq!(loading.progress().bytes_done, u64::MAX);
        loading.bytes.store(10_500, Ordering::Relaxed);
        loading.permille.store(500, Ordering::Relaxed);
        let progress = loading.progress();
        assert_eq!((progress.bytes_done, progress.bytes_total, progress.fraction), (5250, 10_500, 0.5));
    }
}
