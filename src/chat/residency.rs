//! How models are kept in memory, as a server tells it. Whatever it does not tell is `None`, never zero.

use super::ModelCard;

/// The models of a backend, as one look showed them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// What is known of each.
    pub cards: Vec<ModelCard>,
    /// How they are kept: of those only whose server says anything about it.
    pub residency: Vec<Residency>,
    /// Ids of those that make embeddings, not text: they are loaded as others are, and can't be chatted with.
    pub embedders: Vec<String>,
}

impl From<Vec<ModelCard>> for Listing {
    fn from(cards: Vec<ModelCard>) -> Self {
        Self { cards, ..Self::default() }
    }
}

/// How one model is kept in memory, or would be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Residency {
    /// The model's id.
    pub id: String,
    /// Whether it stays until it is told to go.
    pub pinned: Option<bool>,
    /// When it goes after its last use.
    pub keep_alive: Option<KeepAlive>,
    /// Seconds until it goes.
    pub expires_s: Option<f64>,
    /// Seconds since it was used.
    pub idle_s: Option<f64>,
    /// Answers on their way.
    pub running: Option<u32>,
    /// Answers that wait.
    pub queued: Option<u32>,
    /// Tokens its context holds, or would.
    pub context: Option<u32>,
    /// Answers it can write at once.
    pub slots: Option<u32>,
    /// How long its load took, in milliseconds.
    pub load_ms: Option<f64>,
    /// Measured prefill speed.
    pub prefill_tokens_per_s: Option<f64>,
    /// Measured decode speed.
    pub decode_tokens_per_s: Option<f64>,
    /// Bytes it takes; an estimate when it isn't resident.
    pub bytes: Option<ModelBytes>,
    /// Bytes it would take to load it.
    pub need: Option<u64>,
    /// Whether it can be loaded now.
    pub verdict: Option<Verdict>,
    /// Bytes read so far and in all, while it is being loaded.
    pub loading: Option<(u64, u64)>,
}

impl Residency {
    /// Bytes in memory: all there is to it, else what a load would need.
    #[must_use]
    pub fn memory(&self) -> Option<u64> {
        self.bytes.map(ModelBytes::total).or(self.need).filter(|bytes| *bytes > 0)
    }
}

/// When an idle model leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// As the server is configured.
    Default,
    /// This many seconds after its last use; 0: after each answer.
    Seconds(u64),
    /// Never.
    ForEver,
}

impl KeepAlive {
    /// As it is on the wire: null for the default, -1 for ever.
    #[must_use]
    pub fn seconds(self) -> Option<i64> {
        match self {
            Self::Default => None,
            Self::Seconds(seconds) => Some(i64::try_from(seconds).unwrap_or(i64::MAX)),
            Self::ForEver => Some(-1),
        }
    }
}

/// What the bytes of a model are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelBytes {
    /// Its weights.
    pub weights: u64,
    /// Its KV cache.
    pub kv: u64,
    /// Room to compute in.
    pub compute: u64,
}

impl ModelBytes {
    /// All of them.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.weights.saturating_add(self.kv).saturating_add(self.compute)
    }
}

/// Whether and how a model can be loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// In one word.
    pub fit: Fit,
    /// The context it fits with, in tokens, where that is less than it could have.
    pub context: Option<u32>,
    /// Ids of the models that would have to go.
    pub unload: Vec<String>,
    /// Layers a device would take.
    pub gpu_layers: Option<u32>,
    /// How many times slower it would be than all on a device.
    pub slowdown: Option<f64>,
    /// One line for people, with the numbers.
    pub say: String,
}

impl Verdict {
    /// Whether others would have to go for it.
    #[must_use]
    pub fn evicts(&self) -> bool {
        self.fit == Fit::IfUnloaded || (self.fit != Fit::DoesNotFit && !self.unload.is_empty())
    }
}

/// A verdict in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It fits.
    Fits,
    /// With a smaller context.
    SmallerContext,
    /// If others go.
    IfUnloaded,
    /// Partly on a device.
    Partial,
    /// Not now: who is in the way can't go.
    NoRoom,
    /// Not at all.
    DoesNotFit,
    /// Nobody can say.
    Unknown,
}

/// A machine's memory, and who holds it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    /// Its devices.
    pub devices: Vec<Device>,
    /// Where resident models lie.
    pub placements: Vec<Placement>,
    /// Answers that wait.
    pub queue: Option<u32>,
}

impl Machine {
    /// Bytes resident models hold on a device; `None` when the server does not say where they lie.
    #[must_use]
    pub fn used(&self, device: &str) -> Option<u64> {
        let told = |placement: &Placement| !placement.devices.is_empty();
        if self.placements.iter().any(|placement| !told(placement)) {
            return None;
        }
        let parts = self.placements.iter().flat_map(|placement| &placement.devices);
        Some(parts.filter(|part| part.device == device).map(|part| part.bytes.total()).sum())
    }
}

/// A device models are computed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Its short name, as `CUDA0`.
    pub name: String,
    /// `cpu`, `gpu`, `igpu` or `accel`.
    pub kind: Option<String>,
    /// Its maker's name.
    pub description: Option<String>,
    /// Bytes it has.
    pub total: Option<u64>,
    /// Bytes nobody holds.
    pub free: Option<u64>,
    /// Bytes models may take together, what they hold already included.
    pub budget: Option<u64>,
    /// Bytes left alone beyond the budget.
    pub reserved: Option<u64>,
}

/// Where one resident model lies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placement {
    /// The model's id.
    pub id: String,
    /// Its bytes by device; empty when the server does not say.
    pub devices: Vec<DevicePart>,
}

/// What a model holds on one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DevicePart {
    /// The device's name.
    pub device: String,
    /// Its bytes there.
    pub bytes: ModelBytes,
}

/// A change to how a model is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Load it, with this context where one is given.
    Load {
        /// In tokens.
        context: Option<u32>,
    },
    /// Unload it; while it is being loaded, give that up.
    Unload,
    /// Pin it, or let it go again.
    Pin(bool),
    /// When it leaves after its last use.
    KeepAlive(KeepAlive),
}
