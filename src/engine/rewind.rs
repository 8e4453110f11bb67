//! What a model's memory can forget of a sequence, and what it can't. Pure.

use crate::chat::CacheLost;

/// How a model remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Keys and values of every token: any end of a sequence can be taken back.
    Whole,
    /// Some layers look back this many tokens only, and what lies behind may have been overwritten.
    Windowed(usize),
    /// A state that moves on with every token (recurrent and hybrid models): nothing can be taken back.
    Recurrent,
}

impl Memory {
    /// Whether a few tokens just evaluated can be taken back: what guessing needs.
    #[must_use]
    pub fn can_guess(self) -> bool {
        self != Self::Recurrent
    }

    /// Whether the beginning of a sequence can be copied to another one.
    #[must_use]
    pub fn can_lend(self) -> bool {
        self != Self::Recurrent
    }
}

/// Whether a sequence of `held` tokens, of which `first` is the earliest position that is still there, can
/// go on after its first `keep` tokens.
///
/// # Errors
/// Why not.
pub fn rewind(memory: Memory, held: usize, first: usize, keep: usize) -> Result<(), CacheLost> {
    if keep == 0 || keep >= held {
        return Ok(());
    }
    match memory {
        Memory::Whole => Ok(()),
        Memory::Windowed(window) if first <= keep.saturating_sub(window) => Ok(()),
        Memory::Windowed(_) => Err(CacheLost::Window),
        Memory::Recurrent => Err(CacheLost::Recurrent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_memory_goes_back_anywhere() {
        for keep in [0, 1, 50, 100] {
            assert_eq!(rewind(Memory::Whole, 100, 0, keep), Ok(()));
        }
        assert!(Memory::Whole.can_guess() && Memory::Whole.can_lend());
    }

    #[test]
    fn a_recurrent_state_only_goes_on() {
        assert_eq!(rewind(Memory::Recurrent, 100, 0, 100), Ok(()), "nothing is taken back");
        assert_eq!(rewind(Memory::Recurrent, 100, 0, 0), Ok(()), "everything is");
        assert_eq!(rewind(Memory::Recurrent, 100, 99, 99), Err(CacheLost::Recurrent));
        assert!(!Memory::Recurrent.can_guess() && !Memory::Recurrent.can_lend());
    }

    #[test]
    fn a_window_goes_back_as_far_as_it_still_reaches() {
        let windowed = Memory::Windowed(16);
        assert_eq!(rewind(windowed, 100, 0, 1), Ok(()), "everything is still there");
        assert_eq!(rewind(windowed, 100, 60, 76), Ok(()));
        assert_eq!(rewind(windowed, 100, 60, 75), Err(CacheLost::Window));
        assert_eq!(rewind(windowed, 100, 60, 100), Ok(()));
        assert_eq!(rewind(windowed, 100, 60, 0), Ok(()));
    }
}
