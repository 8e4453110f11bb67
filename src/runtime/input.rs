//! The input thread: the only reader of the terminal. Its events become chords, pastes and resizes.
//!
//! It asks the terminal nothing, so no answer can be mistaken for typing. It lives as long as the process.

use crate::keymap::{Chord, Key};
use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;

/// Events held for the loop; beyond that the terminal driver holds them.
const QUEUE: usize = 4096;
/// Read errors in a row that mean the terminal is gone.
const TOO_MANY_ERRORS: u32 = 20;

/// What came from the terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// A key went down.
    Key(Chord),
    /// A bracketed paste, raw.
    Paste(String),
    /// The size changed; the newest is asked for when it is needed.
    Resized,
    /// Nothing can be read any more.
    Lost,
}

/// Starts the thread.
///
/// # Errors
/// What the system says when it has no thread for us.
pub(super) fn start() -> std::io::Result<mpsc::Receiver<Input>> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    std::thread::Builder::new().name("input".to_owned()).spawn(move || read(&sender))?;
    Ok(receiver)
}

fn read(sender: &mpsc::Sender<Input>) {
    let mut errors = 0;
    loop {
        let input = match crossterm::event::read() {
            Ok(event) => {
                errors = 0;
                input(event)
            }
            Err(error) => {
                errors += 1;
                tracing::warn!(%error, "reading the terminal");
                (errors >= TOO_MANY_ERRORS).then_some(Input::Lost)
            }
        };
        let Some(input) = input else { continue };
        let is_last = input == Input::Lost;
        if sender.blocking_send(input).is_err() || is_last {
            return;
        }
    }
}

/// Our word for an event; `None` for what the program has no use for.
fn input(event: Event) -> Option<Input> {
    match event {
        Event::Key(key) => chord(key).map(Input::Key),
        Event::Paste(text) => Some(Input::Paste(text)),
        Event::Resize(..) => Some(Input::Resized),
        Event::FocusGained | Event::FocusLost | Event::Mouse(_) => None,
    }
}

fn chord(event: KeyEvent) -> Option<Chord> {
    let foreign = KeyModifiers::SUPER | KeyModifiers::HYPER | KeyModifiers::META;
    if event.kind == KeyEventKind::Release || event.modifiers.intersects(foreign) {
        return None;
    }
    let key = match event.code {
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::Null => Key::Char(' '),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Esc,
        KeyCode::Tab => Key::Tab,
        KeyCode::BackTab => Key::BackTab,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Delete => Key::Delete,
        KeyCode::Insert => Key::Insert,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::F(n @ 1..=24) => Key::F(n),
        KeyCode::F(_)
        | KeyCode::CapsLock
        | KeyCode::ScrollLock
        | KeyCode::NumLock
        | KeyCode::PrintScreen
        | KeyCode::Pause
        | KeyCode::Menu
        | KeyCode::KeypadBegin
        | KeyCode::Media(_)
        | KeyCode::Modifier(_) => return None,
    };
    let has = |modifier| event.modifiers.contains(modifier);
    let ctrl = has(KeyModifiers::CONTROL) || event.code == KeyCode::Null;
    Some(match key {
        // With Ctrl a plain terminal can't say whether Shift was held; a newer one shall not differ.
        Key::Char(c) if ctrl => {
            Chord { key: Key::Char(c.to_ascii_lowercase()), ctrl, alt: has(KeyModifiers::ALT), shift: false }
        }
        Key::Char(_) | Key::BackTab => Chord { key, ctrl, alt: has(KeyModifiers::ALT), shift: false },
        _ => Chord { key, ctrl, alt: has(KeyModifiers::ALT), shift: has(KeyModifiers::SHIFT) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossterm::event::{KeyEventState, MediaKeyCode, ModifierKeyCode};

    fn key(code: KeyCode, modifiers: KeyModifiers) -> Option<Chord> {
        chord(KeyEvent::new(code, modifiers))
    }

    #[test]
    fn keys_become_chords() {
        let none = KeyModifiers::NONE;
        let shifted = Chord { shift: true, ..Chord::plain(Key::Enter) };
        let cases = [
            (KeyCode::Char('a'), none, Chord::plain(Key::Char('a'))),
            (KeyCode::Char('A'), KeyModifiers::SHIFT, Chord::plain(Key::Char('A'))),
            (KeyCode::Char('c'), KeyModifiers::CONTROL, Chord::ctrl('c')),
            (KeyCode::Char('C'), KeyModifiers::CONTROL | KeyModifiers::SHIFT, Chord::ctrl('c')),
            (KeyCode::Null, none, Chord::ctrl(' ')),
            (KeyCode::Char('b'), KeyModifiers::ALT, Chord::alt('b')),
            (KeyCode::Enter, KeyModifiers::SHIFT, shifted),
            (KeyCode::BackTab, KeyModifiers::SHIFT, Chord::plain(Key::BackTab)),
            (KeyCode::F(12), none, Chord::plain(Key::F(12))),
        ];
        for (code, modifiers, expected) in cases {
            assert_eq!(key(code, modifiers), Some(expected), "{code:?} {modifiers:?}");
        }
    }

    #[test]
    fn what_is_no_typing_is_ignored() {
        let none = KeyModifiers::NONE;
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::SUPER), None);
        assert_eq!(key(KeyCode::Media(MediaKeyCode::Play), none), None);
        assert_eq!(key(KeyCode::Modifier(ModifierKeyCode::LeftAlt), none), None);
        let release = KeyEvent {
            code: KeyCode::Char('a'),
            modifiers: none,
            kind: KeyEventKind::Release,
            state: KeyEventState::NONE,
        };
        assert_eq!(chord(release), None);
        assert_eq!(
            chord(KeyEvent { kind: KeyEventKind::Repeat, ..release }),
            Some(Chord::plain(Key::Char('a')))
        );
        assert_eq!(input(Event::FocusGained), None);
    }
}
