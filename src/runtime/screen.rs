//! The terminal and its writer thread as the loop sees them.

use super::crash;
use super::event_loop::Screen;
use super::paint::{Extent, Picture};
use super::terminal::Terminal;
use super::writer::Writer;

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
        self.open();
    }

    fn retake(&mut self) {
        self.close();
        self.open();
    }
}
