//! The two sinks of the command line: the answer on stdout, everything else on stderr.

use crate::text::{ShowStream, Shown, shown};
use std::io::{self, IsTerminal, Write};

/// Prints a whole text to stdout with exactly one newline at its end. A closed pipe is nobody's error.
pub(super) fn answer(text: &str) {
    let _ = writeln!(io::stdout(), "{}", text.trim_end_matches('\n'));
}

/// Tells the person something, on stderr.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "tui: {}", shown(text).trim_end());
}

/// Prints one line to stderr as it is.
pub(super) fn plain(line: &str) {
    let _ = writeln!(io::stderr(), "{}", shown(line));
}

/// Prints an answer as it comes: sanitised for a terminal, the original for anything else, and exactly one
/// newline at the end.
pub(super) struct AnswerWriter<W> {
    out: W,
    /// For a terminal.
    show: Option<ShowStream>,
    /// Newlines that may turn out to be the last.
    held: usize,
    has_written: bool,
}

impl AnswerWriter<io::Stdout> {
    /// To stdout.
    pub(super) fn stdout() -> Self {
        let out = io::stdout();
        let show = out.is_terminal().then(ShowStream::default);
        Self::new(out, show)
    }
}

impl<W: Write> AnswerWriter<W> {
    fn new(out: W, show: Option<ShowStream>) -> Self {
        Self { out, show, held: 0, has_written: false }
    }

    /// Prints the next piece.
    pub(super) fn push(&mut self, text: &str) -> io::Result<()> {
        match &mut self.show {
            Some(show) => {
                let mut safe = Shown::default();
                show.push(text, &mut safe);
                self.write(&safe)
            }
            None => self.write(text),
        }
    }

    /// The answer has ended.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        if let Some(show) = &mut self.show {
            let mut safe = Shown::default();
            show.finish(&mut safe);
            self.write(&safe)?;
        }
        if self.has_written {
            self.out.write_all(b"\n")?;
        }
        self.out.flush()
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        let body = text.trim_end_matches('\n');
        if body.is_empty() {
            self.held += text.len();
            return Ok(());
        }
        for _ in 0..std::mem::take(&mut self.held) {
            self.out.write_all(b"\n")?;
        }
        self.has_written = true;
        self.held = text.len() - body.len();
        self.out.write_all(body.as_bytes())?;
        self.out.flush()
    }
}

/// One line on stderr that is written over and goes away. Only in a terminal that can do that.
pub(super) struct Progress {
    is_on: bool,
    is_shown: bool,
}

impl Progress {
    /// Shown unless the person wants quiet.
    pub(super) fn new(is_quiet: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self { is_on: !is_quiet && !dumb && io::stderr().is_terminal(), is_shown: false }
    }

    /// Replaces the line.
    pub(super) fn set(&mut self, text: &str) {
        if self.is_on {
            let mut err = io::stderr();
            let _ = write!(err, "\r\x1b[K{}", crate::text::shown_line(text, 78));
            let _ = err.flush();
            self.is_shown = true;
        }
    }

    /// Removes the line.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            let mut err = io::stderr();
            let _ = write!(err, "\r\x1b[K");
            let _ = err.flush();
        }
    }
}

/// A count for people: `950`, `3.2k`, `12k`.
pub(super) fn count(n: u32) -> String {
    match n {
        0..1000 => n.to_string(),
        1000..10_000 => format!("{:.1}k", f64::from(n) / 1000.0),
        _ => format!("{}k", n / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(pieces: &[&str]) -> String {
        let mut out = Vec::new();
        let mut writer = AnswerWriter::new(&mut out, None);
        for piece in pieces {
            writer.push(piece).expect("written");
        }
        writer.finish().expect("written");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn exactly_one_newline_ends_an_answer() {
        assert_eq!(written(&["Par", "is"]), "Paris\n");
        assert_eq!(written(&["a\n", "\n", "b\n\n", "\n"]), "a\n\nb\n");
        assert_eq!(written(&["\n\na"]), "\n\na\n");
        assert_eq!(written(&[]), "");
        assert_eq!(written(&["\u{1b}[2J"]), "\u{1b}[2J\n", "a pipe gets the original");
    }

    #[test]
    fn counts_are_short() {
        assert_eq!([count(950), count(3200), count(12_345)], ["950", "3.2k", "12k"]);
    }
}
