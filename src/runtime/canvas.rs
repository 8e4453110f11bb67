//! Where frames are drawn, away from the terminal: the view gets a ratatui frame, the writer gets a picture.

use super::paint::Picture;
use ratatui::backend::{Backend, ClearType, WindowSize};
use ratatui::buffer::Cell;
use ratatui::layout::{Position, Size};
use ratatui::{Frame, Terminal};
use std::convert::Infallible;

/// Draws frames of a given size.
#[derive(Debug)]
pub(super) struct Canvas {
    terminal: Terminal<Nowhere>,
}

impl Canvas {
    /// A canvas of one cell; every frame says how large it is.
    pub(super) fn new() -> Self {
        let nowhere = Nowhere { size: Size::new(1, 1), cursor: None, last: Position::ORIGIN };
        let Ok(terminal) = Terminal::new(nowhere);
        Self { terminal }
    }

    /// Draws one frame of this many columns and rows.
    pub(super) fn draw<T: Default>(
        &mut self,
        (cols, rows): (u16, u16),
        view: impl FnOnce(&mut Frame<'_>) -> T,
    ) -> (T, Picture) {
        self.terminal.backend_mut().size = Size::new(cols, rows);
        let mut learnt = T::default();
        let Ok(frame) = self.terminal.draw(|frame| learnt = view(frame));
        let buffer = frame.buffer.clone();
        let cursor = self.terminal.backend().cursor;
        (learnt, Picture { buffer, cursor, attempts: Vec::new() })
    }
}

/// A terminal that is none: it only remembers its size and cursor.
#[derive(Debug)]
struct Nowhere {
    size: Size,
    cursor: Option<Position>,
    last: Position,
}

impl Backend for Nowhere {
    type Error = Infallible;

    fn draw<'a, I>(&mut self, _content: I) -> Result<(), Infallible>
    where
        I: Iterator<Item = (u16, u16, &'a Cell)>,
    {
        Ok(())
    }

    fn hide_cursor(&mut self) -> Result<(), Infallible> {
        self.cursor = None;
        Ok(())
    }

    fn show_cursor(&mut self) -> Result<(), Infallible> {
        self.cursor = Some(self.last);
        Ok(())
    }

    fn get_cursor_position(&mut self) -> Result<Position, Infallible> {
        Ok(self.last)
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, position: P) -> Result<(), Infallible> {
        self.last = position.into();
        if self.cursor.is_some() {
            self.cursor = Some(self.last);
        }
        Ok(())
    }

    fn clear(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn clear_region(&mut self, _clear_type: ClearType) -> Result<(), Infallible> {
        Ok(())
    }

    fn size(&self) -> Result<Size, Infallible> {
        Ok(self.size)
    }

    fn window_size(&mut self) -> Result<WindowSize, Infallible> {
        Ok(WindowSize { columns_rows: self.size, pixels: Size::ZERO })
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_is_whole_and_has_its_own_size_and_cursor() {
        let mut canvas = Canvas::new();
        let (area, first) = canvas.draw((10, 2), |frame| {
            frame.render_widget("first", frame.area());
            frame.set_cursor_position((5, 0));
            frame.area()
        });
        assert_eq!((area.width, area.height), (10, 2));
        assert_eq!(first.cursor, Some(Position::new(5, 0)));
        let ((), second) = canvas.draw((10, 2), |frame| frame.render_widget("second", frame.area()));
        assert_eq!(second.cursor, None);
        assert_eq!(second.buffer.content[0].symbol(), "s");
        let ((), third) = canvas.draw((3, 4), |_| ());
        assert_eq!(third.buffer.area.as_size(), Size::new(3, 4));
        assert!(third.buffer.content.iter().all(|cell| cell.symbol() == " "), "nothing of earlier frames");
    }
}
