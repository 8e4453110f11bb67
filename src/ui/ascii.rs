//! Borders and marks for a terminal without UTF-8: a frame's cells, replaced by what ASCII has for them.

use ratatui::buffer::Buffer;

/// Replaces borders and marks in the whole frame, each by one of the same width.
pub(super) fn replace(buf: &mut Buffer) {
    for cell in &mut buf.content {
        if !cell.symbol().is_ascii()
            && let Some(plain) = plain(cell.symbol())
        {
            cell.set_symbol(plain);
        }
    }
}

fn plain(symbol: &str) -> Option<&'static str> {
    Some(match symbol {
        "─" | "–" | "—" | "·" => "-",
        "│" | "▌" => "|",
        "╭" | "╮" | "╰" | "╯" | "┼" | "±" => "+",
        "→" | "›" | "▸" | "↪" => ">",
        "↑" => "^",
        "↓" | "▾" => "v",
        "●" | "•" => "*",
        "○" | "☐" => "o",
        "◐" => "%",
        "✕" | "×" | "☑" => "x",
        "▲" => "!",
        "⚿" => "&",
        "■" | "▓" | "▆" | "▇" | "█" => "#",
        "░" => ".",
        "⏸" | "▒" | "▃" | "▄" | "▅" => "=",
        "…" | "≈" => "~",
        "≤" => "<",
        "▁" | "▂" => "_",
        "‘" | "’" => "'",
        "“" | "”" => "\"",
        _ => return None,
    })
}
