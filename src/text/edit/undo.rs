//! What was changed, so that it can be taken back. Changes of one kind that follow each other form a group:
//! a typed word, a run of deletions.

/// Groups kept; older ones are forgotten.
const DEPTH: usize = 1000;
/// A group stops growing at this many bytes.
const GROUP_BYTES: usize = 4096;

/// One replacement of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) at: usize,
    pub(super) removed: String,
    pub(super) inserted: String,
    /// The cursor before and after.
    pub(super) before: usize,
    pub(super) after: usize,
}

/// What kind of change the last one was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Group {
    /// Nothing joins it.
    #[default]
    None,
    Type,
    Back,
    Forward,
    KillBack,
    KillForward,
}

/// Changes made and changes taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct UndoLog {
    done: Vec<Change>,
    undone: Vec<Change>,
    group: Group,
}

impl UndoLog {
    pub(super) const fn group(&self) -> Group {
        self.group
    }

    pub(super) const fn break_group(&mut self) {
        self.group = Group::None;
    }

    pub(super) fn push(&mut self, change: Change, group: Group) {
        self.undone.clear();
        let joins = self.group == group;
        self.group = group;
        if let Some(last) = self.done.last_mut().filter(|_| joins)
            && last.join(&change, group)
        {
            return;
        }
        if self.done.len() >= DEPTH {
            self.done.drain(..DEPTH / 10);
        }
        self.done.push(change);
    }

    pub(super) fn undo(&mut self) -> Option<&Change> {
        self.group = Group::None;
        self.undone.push(self.done.pop()?);
        self.undone.last()
    }

    pub(super) fn redo(&mut self) -> Option<&Change> {
        self.group = Group::None;
        self.done.push(self.undone.pop()?);
        self.done.last()
    }
}

impl Change {
    /// Takes a later change of the same kind in, if it follows on directly.
    fn join(&mut self, next: &Self, group: Group) -> bool {
        if self.inserted.len() + self.removed.len() > GROUP_BYTES {
            return false;
        }
        match group {
            Group::Type => {
                // A new word is a new group, so that one undo takes back one word.
                let starts_word = self.inserted.ends_with(char::is_whitespace)
                    && !next.inserted.starts_with(char::is_whitespace);
                let follows = next.at == self.at + self.inserted.len() && next.removed.is_empty();
                if starts_word || !follows {
                    return false;
                }
                self.inserted.push_str(&next.inserted);
            }
            Group::Back => {
                if next.at + next.removed.len() != self.at || !self.inserted.is_empty() {
                    return false;
                }
                self.at = next.at;
                self.removed.insert_str(0, &next.removed);
            }
            Group::Forward => {
                if next.at != self.at || !self.inserted.is_empty() {
                    return false;
                }
                self.removed.push_str(&next.removed);
            }
            Group::None | Group::KillBack | Group::KillForward => return false,
        }
        self.after = next.after;
        true
    }
}
