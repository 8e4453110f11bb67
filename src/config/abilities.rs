//! What each kind of server can be asked for, and what it tells: one row of a table for each. Plain values, for the
//! backends, the router and the interface alike.

use super::BackendKind;

/// What a kind of server can be asked for, and what it tells. Versions differ: what is `true` here is so where the
/// version at hand does it, what is `false` is never asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Whether it goes on with an answer that was begun.
    pub continues: Continues,
    /// Whether a prompt can be prefilled without an answer: the request for zero tokens.
    pub warms: bool,
    /// Whether answers can be held to a JSON schema.
    pub schemas: bool,
    /// Whether it tells how far the prefill is.
    pub progress: bool,
    /// Whether it counts the tokens of a prompt without answering it.
    pub counts: bool,
    /// Whether it tells which of its models are resident.
    pub lists_states: bool,
    /// Whether it can be told to load a model.
    pub loads: bool,
    /// Whether a load can be given a context.
    pub sets_context: bool,
    /// Whether it can be told to unload a model.
    pub unloads: bool,
    /// Whether it can be told when a model leaves after its last use.
    pub keeps_alive: bool,
    /// Whether a model can be pinned.
    pub pins: bool,
    /// Whether it tells what it works at, so that a cancelled answer is known to have stopped.
    pub cancel_confirms: bool,
    /// Whether it tells how much of a prompt came from its KV cache.
    pub cached_tokens: bool,
    /// Whether it tells its own times.
    pub timings: bool,
}

/// Whether a server goes on with an answer that was begun, when the last message is the assistant's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continues {
    /// It does.
    Yes,
    /// It does, when the request says so in fields of its own.
    WhenTold,
    /// That depends on the model's template, or on the server behind it.
    Perhaps,
    /// It begins anew.
    No,
}

/// Nothing but answering.
const PLAIN: Abilities = Abilities {
    continues: Continues::No,
    warms: false,
    schemas: true,
    progress: false,
    counts: false,
    lists_states: false,
    loads: false,
    sets_context: false,
    unloads: false,
    keeps_alive: false,
    pins: false,
    cancel_confirms: false,
    cached_tokens: false,
    timings: false,
};

impl BackendKind {
    /// All kinds.
    pub const ALL: [Self; 9] = [
        Self::Duet,
        Self::LlamaServer,
        Self::Ollama,
        Self::Mlx,
        Self::LmStudio,
        Self::LlamaSwap,
        Self::Vllm,
        Self::TensorrtLlm,
        Self::Openai,
    ];

    /// What it can be asked for. Of llama-server the router's row; one with a single model loads and unloads nothing.
    #[must_use]
    pub const fn abilities(self) -> Abilities {
        match self {
            Self::Duet => Abilities {
                continues: Continues::Yes,
                warms: true,
                progress: true,
                counts: true,
                lists_states: true,
                loads: true,
                sets_context: true,
                unloads: true,
                keeps_alive: true,
                pins: true,
                cancel_confirms: true,
                cached_tokens: true,
                timings: true,
                ..PLAIN
            },
            Self::LlamaServer => Abilities {
                continues: Continues::WhenTold,
                warms: true,
                progress: true,
                counts: true,
                lists_states: true,
                loads: true,
                unloads: true,
                cancel_confirms: true,
                cached_tokens: true,
                timings: true,
                ..PLAIN
            },
            Self::Ollama => Abilities {
                continues: Continues::Perhaps,
                lists_states: true,
                loads: true,
                sets_context: true,
                unloads: true,
                keeps_alive: true,
                cached_tokens: true,
                timings: true,
                ..PLAIN
            },
            Self::Mlx => Abilities { schemas: false, progress: true, cached_tokens: true, ..PLAIN },
            Self::LmStudio => {
                Abilities { lists_states: true, loads: true, sets_context: true, unloads: true, ..PLAIN }
            }
            Self::LlamaSwap => Abilities {
                continues: Continues::Perhaps,
                lists_states: true,
                loads: true,
                unloads: true,
                ..PLAIN
            },
            Self::Vllm => Abilities { continues: Continues::WhenTold, counts: true, ..PLAIN },
            Self::TensorrtLlm | Self::Openai => PLAIN,
        }
    }

    /// Why it does not go on with an answer that was begun; none where it does, or may.
    #[must_use]
    pub const fn why_not_continue(self) -> Option<&'static str> {
        match self {
            Self::Duet | Self::LlamaServer | Self::Ollama | Self::LlamaSwap | Self::Vllm => None,
            Self::Mlx | Self::LmStudio | Self::TensorrtLlm => Some("it begins a new answer instead"),
            Self::Openai => Some("nothing says that it goes on instead of beginning anew"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_agrees_with_itself() {
        for kind in BackendKind::ALL {
            let row = kind.abilities();
            assert_eq!(row.continues == Continues::No, kind.why_not_continue().is_some(), "{kind:?}");
            assert!(!row.unloads || row.lists_states, "{kind:?}: what is unloaded must be seen to go");
            assert!(!row.sets_context || row.loads, "{kind:?}");
            assert!(!row.pins || row.keeps_alive, "{kind:?}");
        }
        let warm: Vec<_> = BackendKind::ALL.into_iter().filter(|kind| kind.abilities().warms).collect();
        assert_eq!(warm, [BackendKind::Duet, BackendKind::LlamaServer]);
    }
}
