//! The terminal and its writer thread as the loop sees them.

use super::crash;
use super::event_loop::Screen;
use super::paint::{Extent, Picture};
use super::terminal::{self, Terminal};
use super::writer::Writer;

/// A program that nobody stops any more goes on after this many tries.
const MOST_STOPS: u32 = 16;

/// The real screen.
#[derive(Debug)]
pub(super) struct RealScreen {
    terminal: Terminal,
    writer: Writer,
}

impl RealScreen {
    /// A screen that was taken and has its writer running.
    pub(super) fn new(terminal: Terminal, writer: Writer) -> Self {
        Self { terminal, writer }
    }

    /// Ends the writer and gives the terminal back.
    pub(super) fn close(&mut self) {
        self.writer.close();
        self.terminal.leave();
    }

    /// Continued in the background the program stops again: the terminal is the shell's.
    fn wait_for_foreground(&self) {
        for _ in 0..MOST_STOPS {
            if self.terminal.tty().is_ours() {
                return;
            }
            crash::stop_group();
        }
    }

    fn open(&mut self) {
        if let Err(error) = self.terminal.enter().and_then(|()| self.writer.start()) {
            // The watchdog or the reader will notice what happened; nothing can be drawn until then.
            tracing::warn!(%error, "taking the terminal again");
        }
    }
}

impl Screen for RealScreen {
    fn size(&self) -> (u16, u16) {
        self.terminal.tty().size()
    }

    fn show(&mut self, picture: Picture, extent: Extent) {
        self.writer.show(picture, extent);
    }

    fn suspend(&mut self) {
        self.close();
        crash::stop_group();
        self.wait_for_foreground();
        self.open();
    }

    fn retake(&mut self) {
        self.wait_for_foreground();
        // Whoever had the terminal meanwhile may have changed it. No key that was typed is dropped for it.
        if let Err(error) = self.terminal.make_raw() {
            tracing::warn!(%error, "taking the terminal again");
        }
        self.writer.sequences().send(terminal::enter_again());
    }
}
