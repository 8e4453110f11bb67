//! Which key means which command where. One table; the first context that knows a key wins.

use super::{Chord, Key};
use crate::command::Command;

/// Where a key is pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Context {
    /// Anywhere.
    Global,
    /// In the input field.
    Composer,
    /// In the input field while it is empty: before [`Context::Composer`].
    EmptyDraft,
    /// In the input field while the popup of slash commands is open: before [`Context::Composer`].
    Popup,
    /// In a list with a filter.
    Picker,
    /// In the help.
    Help,
    /// On the residency board, unless its filter is being typed: that is a [`Context::Picker`].
    Board,
    /// In the list of machines.
    Backends,
    /// In something to read: before [`Context::Help`].
    Sheet,
    /// On an empty draft while another machine is offered: before [`Context::EmptyDraft`].
    Offer,
    /// On an empty draft after an answer that was cut: before [`Context::EmptyDraft`].
    Cut,
    /// On an empty draft after several answers of which none was chosen: before [`Context::EmptyDraft`].
    Siblings,
    /// After the leader key.
    Leader,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Where.
    pub context: Context,
    /// The key.
    pub chord: Chord,
    /// What it means.
    pub command: Command,
}

/// The leader key: what follows it is looked up in [`Context::Leader`].
pub const LEADER: Chord = Chord::ctrl('x');

const fn on(context: Context, chord: Chord, command: Command) -> Binding {
    Binding { context, chord, command }
}
const fn global(chord: Chord, command: Command) -> Binding {
    on(Context::Global, chord, command)
}
const fn write(chord: Chord, command: Command) -> Binding {
    on(Context::Composer, chord, command)
}
const fn empty(chord: Chord, command: Command) -> Binding {
    on(Context::EmptyDraft, chord, command)
}
const fn popup(chord: Chord, command: Command) -> Binding {
    on(Context::Popup, chord, command)
}
const fn pick(chord: Chord, command: Command) -> Binding {
    on(Context::Picker, chord, command)
}
const fn machines(chord: Chord, command: Command) -> Binding {
    on(Context::Backends, chord, command)
}
const fn read(chord: Chord, command: Command) -> Binding {
    on(Context::Help, chord, command)
}
const fn board(chord: Chord, command: Command) -> Binding {
    on(Context::Board, chord, command)
}
const fn lead(c: char, command: Command) -> Binding {
    on(Context::Leader, Chord::plain(Key::Char(c)), command)
}
const fn ctrl(c: char) -> Chord {
    Chord::ctrl(c)
}
const fn alt(c: char) -> Chord {
    Chord::alt(c)
}
const fn plain(key: Key) -> Chord {
    Chord::plain(key)
}
const fn typed(c: char) -> Chord {
    Chord::plain(Key::Char(c))
}

/// All keys. Ctrl+A and Ctrl+B may be taken by a multiplexer, so each has another key beside it.
pub const BINDINGS: &[Binding] = &[
    global(ctrl('c'), Command::Interrupt),
    global(plain(Key::Esc), Command::Escape),
    global(ctrl('l'), Command::Redraw),
    global(ctrl('z'), Command::Suspend),
    write(plain(Key::Enter), Command::Send),
    write(ctrl('j'), Command::Newline),
    write(Chord::with_shift(Key::Enter), Command::Newline),
    write(Chord::with_alt(Key::Enter), Command::Newline),
    write(Chord::with_ctrl(Key::Enter), Command::Newline),
    write(plain(Key::Backspace), Command::DeleteBack),
    write(Chord::with_shift(Key::Backspace), Command::DeleteBack),
    write(plain(Key::Delete), Command::DeleteForward),
    write(ctrl('d'), Command::DeleteOrQuit),
    write(Chord::with_alt(Key::Backspace), Command::DeleteWordBack),
    write(Chord::with_ctrl(Key::Backspace), Command::DeleteWordBack),
    write(alt('d'), Command::DeleteWordForward),
    write(Chord::with_ctrl(Key::Delete), Command::DeleteWordForward),
    write(ctrl('w'), Command::KillWordBack),
    write(ctrl('u'), Command::KillToStart),
    write(ctrl('k'), Command::KillToEnd),
    write(ctrl('y'), Command::Yank),
    write(ctrl('_'), Command::Undo),
    write(ctrl('/'), Command::Undo),
    write(alt('_'), Command::Redo),
    write(alt('/'), Command::Redo),
    write(plain(Key::Left), Command::Left),
    write(ctrl('b'), Command::Left),
    write(plain(Key::Right), Command::Right),
    write(ctrl('f'), Command::Right),
    write(alt('b'), Command::WordLeft),
    write(Chord::with_ctrl(Key::Left), Command::WordLeft),
    write(Chord::with_alt(Key::Left), Command::WordLeft),
    write(alt('f'), Command::WordRight),
    write(Chord::with_ctrl(Key::Right), Command::WordRight),
    write(Chord::with_alt(Key::Right), Command::WordRight),
    write(plain(Key::Home), Command::LineStart),
    write(ctrl('a'), Command::LineStart),
    write(plain(Key::End), Command::LineEnd),
    write(ctrl('e'), Command::LineEnd),
    write(plain(Key::Up), Command::Up),
    write(plain(Key::Down), Command::Down),
    write(ctrl('p'), Command::HistoryPrevious),
    write(ctrl('n'), Command::HistoryNext),
    write(ctrl('r'), Command::HistorySearch),
    write(plain(Key::PageUp), Command::PageUp),
    write(plain(Key::PageDown), Command::PageDown),
    write(Chord::with_alt(Key::Up), Command::RowUp),
    write(Chord::with_alt(Key::Down), Command::RowDown),
    write(Chord::with_ctrl(Key::Home), Command::ToTop),
    write(Chord::with_ctrl(Key::End), Command::ToEnd),
    write(ctrl('o'), Command::Think),
    write(plain(Key::F(2)), Command::Model),
    write(plain(Key::BackTab), Command::NextTarget),
    write(LEADER, Command::Leader),
    empty(typed('?'), Command::Help),
    empty(typed('r'), Command::Retry),
    empty(plain(Key::Home), Command::ToTop),
    empty(plain(Key::End), Command::ToEnd),
    popup(plain(Key::Up), Command::Previous),
    popup(plain(Key::Down), Command::Next),
    popup(ctrl('p'), Command::Previous),
    popup(ctrl('n'), Command::Next),
    popup(plain(Key::Tab), Command::Complete),
    pick(plain(Key::Up), Command::Previous),
    pick(ctrl('p'), Command::Previous),
    pick(plain(Key::Down), Command::Next),
    pick(ctrl('n'), Command::Next),
    pick(plain(Key::PageUp), Command::PreviousPage),
    pick(plain(Key::PageDown), Command::NextPage),
    pick(Chord::with_ctrl(Key::Home), Command::First),
    pick(Chord::with_ctrl(Key::End), Command::Last),
    pick(plain(Key::Enter), Command::Accept),
    pick(plain(Key::Backspace), Command::DeleteBack),
    pick(plain(Key::Delete), Command::DeleteForward),
    pick(Chord::with_alt(Key::Backspace), Command::DeleteWordBack),
    pick(ctrl('w'), Command::KillWordBack),
    pick(ctrl('u'), Command::KillToStart),
    pick(ctrl('k'), Command::KillToEnd),
    pick(ctrl('y'), Command::Yank),
    pick(plain(Key::Left), Command::Left),
    pick(plain(Key::Right), Command::Right),
    pick(plain(Key::Home), Command::LineStart),
    pick(plain(Key::End), Command::LineEnd),
    read(plain(Key::Up), Command::Previous),
    read(typed('k'), Command::Previous),
    read(plain(Key::Down), Command::Next),
    read(typed('j'), Command::Next),
    read(plain(Key::PageUp), Command::PreviousPage),
    read(plain(Key::PageDown), Command::NextPage),
    read(typed(' '), Command::NextPage),
    read(plain(Key::Home), Command::First),
    read(typed('g'), Command::First),
    read(plain(Key::End), Command::Last),
    read(typed('G'), Command::Last),
    read(plain(Key::Enter), Command::Close),
    read(typed('q'), Command::Close),
    read(typed('?'), Command::Close),
    board(plain(Key::Up), Command::Previous),
    board(typed('k'), Command::Previous),
    board(plain(Key::Down), Command::Next),
    board(typed('j'), Command::Next),
    board(plain(Key::PageUp), Command::PreviousPage),
    board(plain(Key::PageDown), Command::NextPage),
    board(plain(Key::Home), Command::First),
    board(typed('g'), Command::First),
    board(plain(Key::End), Command::Last),
    board(typed('G'), Command::Last),
    board(plain(Key::Enter), Command::Load),
    board(typed('u'), Command::Unload),
    board(typed('p'), Command::Pin),
    board(typed('a'), Command::KeepAlive),
    board(typed('t'), Command::Target),
    board(typed('/'), Command::Filter),
    board(typed('r'), Command::Refresh),
    board(typed('q'), Command::Close),
    board(typed('?'), Command::Help),
    machines(plain(Key::Up), Command::Previous),
    machines(typed('k'), Command::Previous),
    machines(plain(Key::Down), Command::Next),
    machines(typed('j'), Command::Next),
    machines(plain(Key::Home), Command::First),
    machines(plain(Key::End), Command::Last),
    machines(plain(Key::Enter), Command::Target),
    machines(typed('t'), Command::Target),
    machines(typed('r'), Command::Refresh),
    machines(typed('q'), Command::Close),
    machines(typed('?'), Command::Help),
    on(Context::Sheet, typed('r'), Command::RouteAgain),
    on(Context::Offer, plain(Key::Enter), Command::FallBack),
    on(Context::Offer, typed('w'), Command::WaitForIt),
    on(Context::Cut, typed('c'), Command::Continue),
    on(Context::Siblings, typed('1'), Command::KeepFirst),
    on(Context::Siblings, typed('2'), Command::KeepSecond),
    lead('m', Command::Model),
    lead('w', Command::Why),
    lead('h', Command::Backends),
    lead('e', Command::Escalate),
    lead('b', Command::Models),
    lead('s', Command::Sessions),
    lead('n', Command::New),
    lead('p', Command::Prompt),
    lead('t', Command::Theme),
    lead('y', Command::Copy),
    lead('r', Command::Retry),
    lead('i', Command::Status),
    lead('?', Command::Help),
];

/// What a key means in the first of these contexts that knows it.
#[must_use]
pub fn lookup(contexts: &[Context], chord: Chord) -> Option<&'static Binding> {
    let chord = chord.normal();
    contexts.iter().find_map(|context| BINDINGS.iter().find(|b| b.context == *context && b.chord == chord))
}

/// How the keys of a command are written, best first: `f2`, `ctrl+x m`.
#[must_use]
pub fn keys(command: Command) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for binding in BINDINGS.iter().filter(|b| b.command == command) {
        let key = match binding.context {
            Context::Leader => format!("{LEADER} {}", binding.chord),
            _ if binding.chord == plain(Key::BackTab) => "shift+tab".to_owned(),
            _ => binding.chord.to_string(),
        };
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::COMMANDS;
    use pretty_assertions::assert_eq;
    use std::collections::HashSet;

    #[test]
    fn no_key_means_two_things_in_one_place() {
        let mut seen = HashSet::new();
        for binding in BINDINGS {
            assert!(seen.insert((binding.context, binding.chord)), "{binding:?}");
            assert_eq!(binding.chord.normal(), binding.chord, "{binding:?} can't be pressed");
        }
    }

    #[test]
    fn keys_that_belong_to_others_are_left_alone() {
        let mut forbidden: Vec<Chord> = "sqhim[".chars().map(ctrl).collect();
        forbidden.extend(('0'..='9').flat_map(|digit| [alt(digit), ctrl(digit)]));
        forbidden.extend([1, 10, 11].map(|n| plain(Key::F(n))));
        for binding in BINDINGS {
            assert!(!forbidden.contains(&binding.chord), "{binding:?}");
            let is_char = matches!(binding.chord.key, Key::Char(_));
            assert!(!(binding.chord.ctrl && binding.chord.shift && is_char), "{binding:?}");
            // Multiplexers take these: never the only way.
            if [ctrl('a'), ctrl('b')].contains(&binding.chord) {
                let others =
                    BINDINGS.iter().filter(|b| b.command == binding.command && b.chord != binding.chord);
                assert!(others.count() > 0, "{binding:?}");
            }
        }
    }

    #[test]
    fn every_command_can_be_reached() {
        for spec in COMMANDS {
            assert!(!keys(spec.command).is_empty() || !spec.slash.is_empty(), "{:?}", spec.command);
        }
        assert_eq!(keys(Command::Model), ["f2", "ctrl+x m"]);
        assert_eq!(keys(Command::Newline), ["ctrl+j", "shift+enter", "alt+enter", "ctrl+enter"]);
    }

    #[test]
    fn the_nearer_context_wins() {
        let home = Chord::plain(Key::Home);
        let command = |contexts: &[Context]| lookup(contexts, home).map(|b| b.command);
        assert_eq!(command(&[Context::Composer, Context::Global]), Some(Command::LineStart));
        assert_eq!(command(&[Context::EmptyDraft, Context::Composer]), Some(Command::ToTop));
        assert_eq!(command(&[Context::Leader]), None);
    }
}
