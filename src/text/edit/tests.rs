//! Edits, undo, pastes and wrapping, by example and by property.

use super::*;
use crate::text::width::width as cells;
use pretty_assertions::assert_eq;
use proptest::prelude::*;
use unicode_segmentation::UnicodeSegmentation;

/// A buffer from a text with `|` at the cursor.
fn at(marked: &str) -> EditBuffer {
    let cursor = marked.find('|').expect("a cursor");
    let mut buffer = EditBuffer::default();
    buffer.insert(&marked.replace('|', ""));
    buffer.go(cursor);
    buffer
}

/// The text with `|` at the cursor.
fn marked(buffer: &EditBuffer) -> String {
    let (before, after) = buffer.text.split_at(buffer.cursor);
    format!("{before}|{after}")
}

fn drawn(buffer: &EditBuffer, width: usize) -> Vec<String> {
    buffer.rows(width).rows.into_iter().map(|row| row.text).collect()
}

#[test]
fn readline_edits() {
    type Edit = fn(&mut EditBuffer);
    let cases: &[(&str, Edit, &str)] = &[
        ("ab|", EditBuffer::delete_back, "a|"),
        ("e\u{301}|x", EditBuffer::delete_back, "|x"),
        ("a|👩‍👩‍👧b", EditBuffer::delete_forward, "a|b"),
        ("|", EditBuffer::delete_back, "|"),
        ("|", EditBuffer::delete_forward, "|"),
        ("let foo_bar = 1|", EditBuffer::word_left, "let foo_bar = |1"),
        ("let foo_bar = |1", EditBuffer::word_left, "let |foo_bar = 1"),
        ("let| foo_bar = 1", EditBuffer::word_right, "let foo_bar| = 1"),
        ("a/b.rs --x|", EditBuffer::kill_word_back, "a/b.rs |"),
        ("a/b.rs |", EditBuffer::kill_word_back, "|"),
        ("a/b.rs|", EditBuffer::delete_word_back, "a/b.|"),
        ("|one two", EditBuffer::delete_word_forward, "| two"),
        ("one\ntwo| three", EditBuffer::kill_to_line_start, "one\n| three"),
        ("one\n|two", EditBuffer::kill_to_line_start, "one|two"),
        ("one |two\nthree", EditBuffer::kill_to_line_end, "one |\nthree"),
        ("one|\nthree", EditBuffer::kill_to_line_end, "one|three"),
        ("one\ntw|o", EditBuffer::home, "one\n|two"),
        ("o|ne\ntwo", EditBuffer::end, "one|\ntwo"),
        ("日|本", EditBuffer::right, "日本|"),
        ("日本|", EditBuffer::left, "日|本"),
        ("o|ne", EditBuffer::to_start, "|one"),
        ("o|ne", EditBuffer::to_end, "one|"),
    ];
    for (before, edit, after) in cases {
        let mut buffer = at(before);
        edit(&mut buffer);
        assert_eq!(marked(&buffer), *after, "from {before:?}");
    }
}

#[test]
fn kills_in_a_row_are_yanked_together() {
    let mut buffer = at("one two three|");
    buffer.kill_word_back();
    buffer.kill_word_back();
    buffer.yank();
    buffer.yank();
    assert_eq!(marked(&buffer), "one two threetwo three|");
    buffer.home();
    buffer.delete_word_forward();
    buffer.delete_word_forward();
    buffer.end();
    buffer.yank();
    assert_eq!(marked(&buffer), " threetwo threeone two|");
}

#[test]
fn undo_takes_back_words_and_runs() {
    let mut buffer = EditBuffer::default();
    for c in ["o", "n", "e", " ", "t", "w", "o"] {
        buffer.insert(c);
    }
    buffer.delete_back();
    buffer.delete_back();
    assert!(buffer.undo());
    assert_eq!(marked(&buffer), "one two|");
    assert!(buffer.undo());
    assert_eq!(marked(&buffer), "one |");
    assert!(buffer.redo());
    assert_eq!(marked(&buffer), "one two|");
    assert!(buffer.undo() && buffer.undo());
    assert_eq!(marked(&buffer), "|");
    assert!(!buffer.undo());
    buffer.insert("x");
    assert!(!buffer.redo());
}

#[test]
fn a_mark_typed_after_a_letter_joins_it() {
    let mut buffer = at("e|\u{301}x");
    assert_eq!(buffer.cursor(), 1, "set inside a grapheme on purpose");
    buffer.insert("a");
    assert_eq!(marked(&buffer), "ea\u{301}|x");
    buffer.delete_back();
    assert_eq!(marked(&buffer), "e|x");
}

#[test]
fn pasted_text_is_clean() {
    let cases = [
        ("a\r\nb\rc", "a\nb\nc", 0),
        ("\u{1B}[31mred\u{1B}[0m", "red", 2),
        ("\u{1B}]0;title\u{7}x\u{1B}]52;c;aGk=\u{1B}\\y", "xy", 4),
        ("\u{9B}1mx\u{9D}t\u{9C}y", "xy", 3),
        ("\u{1B}]0;no end\nkept", "0;no end\nkept", 1),
        ("\u{1B}(Bx\u{1B}", "x", 2),
        ("\u{1B}[", "", 1),
        ("a\0b\u{7F}c\td", "abc\td", 2),
        ("hi\u{E0041}\u{E0042}\u{F0000}!", "hi!", 3),
        (
            "🏴\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}!",
            "🏴\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}!",
            0,
        ),
    ];
    for (raw, expected, dropped) in cases {
        let mut buffer = EditBuffer::default();
        assert_eq!(buffer.paste(raw), Pasted { chip: None, dropped }, "{raw:?}");
        assert_eq!(buffer.text(), expected, "{raw:?}");
    }
}

#[test]
fn typed_control_and_private_characters_are_dropped() {
    let mut buffer = EditBuffer::default();
    buffer.insert("a\u{1B}\u{F0000}\u{FFFFD}\0b");
    assert_eq!(buffer.text(), "ab");
}

#[test]
fn long_pastes_become_chips() {
    let lines = "line\n".repeat(11);
    let long = "x".repeat(1001);
    let mut buffer = at("see | and |".replacen(" and |", "", 1).as_str());
    assert_eq!(buffer.paste(&lines), Pasted { chip: Some(1), dropped: 0 });
    buffer.insert(" and ");
    assert_eq!(buffer.paste(&long), Pasted { chip: Some(2), dropped: 0 });
    assert_eq!(buffer.text(), "see \u{F0000} and \u{F0001}");
    assert_eq!(buffer.expanded(), format!("see {lines} and {long}"));
    assert_eq!(drawn(&buffer, 80), ["see [paste 1: 11 lines] and [paste 2: 1001 characters]"]);
    assert_eq!(buffer.rows(80).rows[0].chips, [4..23, 28..54]);

    buffer.delete_back();
    assert_eq!(buffer.text(), "see \u{F0000} and ");
    buffer.undo();
    assert_eq!(buffer.expanded(), format!("see {lines} and {long}"));
    buffer.word_left();
    buffer.word_left();
    buffer.word_left();
    assert_eq!(buffer.cursor(), 4);
    let taken = buffer.take();
    assert_eq!(taken, format!("see {lines} and {long}"));
    assert_eq!(buffer, EditBuffer::default());

    let mut exact = EditBuffer::default();
    exact.paste(&"line\n".repeat(10));
    exact.paste(&"y".repeat(1000));
    assert_eq!(exact.expanded(), exact.text());
}

#[test]
fn a_killed_chip_outlives_the_draft() {
    let mut buffer = EditBuffer::default();
    buffer.paste(&"x".repeat(2000));
    buffer.kill_word_back();
    buffer.insert("sent");
    assert_eq!(buffer.take(), "sent");
    buffer.yank();
    assert_eq!(buffer.expanded(), "x".repeat(2000));
}

#[test]
fn ten_megabytes_stay_outside_the_text() {
    let raw = "0123456789abcdef 0123456789abcdef\r\n".repeat(300_000);
    let mut buffer = EditBuffer::default();
    assert_eq!(buffer.paste(&raw).chip, Some(1));
    assert_eq!(buffer.text().len(), 4);
    assert_eq!(drawn(&buffer, 40), ["[paste 1: 300000 lines]"]);
    assert_eq!(buffer.expanded().len(), raw.len() - 300_000);
    let again = EditBuffer::from_text(&buffer.expanded());
    assert_eq!(again.text().chars().count(), 1);
}

#[test]
fn rows_break_after_blanks() {
    assert_eq!(drawn(&at("|"), 10), [""]);
    assert_eq!(drawn(&at("hello world again|"), 9), ["hello ", "world ", "again"]);
    assert_eq!(drawn(&at("hello w|"), 6), ["hello ", "w"]);
    assert_eq!(drawn(&at("abcdefgh|"), 5), ["abcd", "efgh"]);
    assert_eq!(drawn(&at("日本語です|"), 6), ["日本", "語で", "す"]);
    assert_eq!(drawn(&at("a\tb|"), 10), ["a   b"]);
    assert_eq!(drawn(&at("a\n\nb|"), 10), ["a", "", "b"]);
    assert_eq!(drawn(&at("a\u{202E}b|"), 10), ["ab"]);
}

#[test]
fn the_cursor_is_always_on_a_row() {
    let places = |text: &str, width: usize| {
        let rows = at(text).rows(width);
        (rows.cursor_row, rows.cursor_col)
    };
    assert_eq!(places("|", 5), (0, 0));
    assert_eq!(places("abcd|", 5), (0, 4));
    assert_eq!(places("abcde|", 5), (1, 1));
    assert_eq!(places("abcd|e", 5), (1, 0));
    assert_eq!(places("abcd |", 5), (1, 0));
    assert_eq!(places("abcd\n|", 5), (1, 0));
    assert_eq!(places("a\n|\nb", 5), (1, 0));
    assert_eq!(places("日|本", 5), (0, 2));
}

#[test]
fn up_and_down_keep_the_column() {
    let mut buffer = at("a long line\nab\nanother| long line");
    assert!(buffer.up(40));
    assert_eq!(marked(&buffer), "a long line\nab|\nanother long line");
    assert!(buffer.up(40));
    assert_eq!(marked(&buffer), "a long |line\nab\nanother long line");
    assert!(!buffer.up(40));
    assert!(buffer.down(40) && buffer.down(40));
    assert_eq!(marked(&buffer), "a long line\nab\nanother| long line");
    assert!(!buffer.down(40));

    let mut wrapped = at("abcdefgh|");
    assert!(wrapped.up(5));
    assert_eq!(marked(&wrapped), "abc|defgh", "the end of a wrapped row belongs to the next one");
}

#[derive(Clone, Debug)]
enum Op {
    Insert(String),
    Paste(String),
    Edit(usize),
}

const EDITS: &[fn(&mut EditBuffer)] = &[
    EditBuffer::newline,
    EditBuffer::delete_back,
    EditBuffer::delete_forward,
    EditBuffer::delete_word_back,
    EditBuffer::delete_word_forward,
    EditBuffer::kill_word_back,
    EditBuffer::kill_to_line_start,
    EditBuffer::kill_to_line_end,
    EditBuffer::yank,
    EditBuffer::left,
    EditBuffer::right,
    EditBuffer::word_left,
    EditBuffer::word_right,
    EditBuffer::home,
    EditBuffer::end,
    EditBuffer::to_start,
    EditBuffer::to_end,
    |b| {
        let _ = b.up(7);
    },
    |b| {
        let _ = b.down(7);
    },
    |b| {
        let _ = b.undo();
    },
    |b| {
        let _ = b.redo();
    },
];

fn text() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a",
        "b ",
        " ",
        "\n",
        "\t",
        "日",
        "e\u{301}",
        "\u{301}",
        "👩‍👩‍👧",
        "🇩🇪",
        "🇩",
        "\u{200D}",
        "\u{F0000}",
        "\u{1B}[1m",
        "\r\n",
        "word",
        "\u{202E}",
        "क्षि",
        "\u{2028}",
    ]);
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        3 => text().prop_map(Op::Insert),
        2 => text().prop_map(Op::Paste),
        1 => text().prop_map(|t| Op::Paste(t.repeat(1001))),
        8 => (0..EDITS.len()).prop_map(Op::Edit),
    ];
    prop::collection::vec(op, 0..24)
}

fn apply(buffer: &mut EditBuffer, ops: &[Op]) {
    for op in ops {
        match op {
            Op::Insert(text) => buffer.insert(text),
            Op::Paste(text) => {
                let _ = buffer.paste(text);
            }
            Op::Edit(index) => EDITS[*index](buffer),
        }
    }
}

proptest! {
    #[test]
    fn the_cursor_stays_on_a_border(ops in ops()) {
        let mut buffer = EditBuffer::default();
        for op in &ops {
            apply(&mut buffer, std::slice::from_ref(op));
            let mut borders = buffer.text.grapheme_indices(true).map(|(at, _)| at).collect::<Vec<_>>();
            borders.push(buffer.text.len());
            prop_assert!(borders.contains(&buffer.cursor), "{:?} in {:?}", buffer.cursor, buffer.text);
        }
    }

    #[test]
    fn undo_restores_and_redo_repeats(ops in ops()) {
        let mut buffer = EditBuffer::default();
        apply(&mut buffer, &ops);
        let made = buffer.expanded();
        while buffer.redo() {}
        let last = buffer.expanded();
        while buffer.undo() {}
        prop_assert_eq!(buffer.text(), "");
        while buffer.redo() {}
        prop_assert_eq!(buffer.expanded(), last);
        prop_assert!(ops.iter().any(|op| matches!(op, Op::Edit(_))) || made == buffer.expanded());
    }

    #[test]
    fn rows_keep_the_text_within_the_width(ops in ops(), width in 0_usize..30) {
        let mut buffer = EditBuffer::default();
        apply(&mut buffer, &ops);
        let rows = buffer.rows(width);
        let width = width.max(2);
        let mut end = 0;
        for (index, row) in rows.rows.iter().enumerate() {
            let used: usize = row.text.graphemes(true).map(cells).sum();
            prop_assert!(used <= width, "{used} cells in {:?} at {width}", row.text);
            prop_assert!(!row.text.contains(|c: char| c.is_control()), "control in {:?}", row.text);
            for chip in &row.chips {
                let label = row.text.get(chip.clone()).unwrap_or_default();
                prop_assert!(label.starts_with(['[', '…']), "{label:?}");
            }
            let gap = buffer.text.get(end..row.range.start).unwrap_or("rows out of order");
            prop_assert!(gap == "\n" || (gap.is_empty() && (index == 0 || row.range.start == end)), "gap {gap:?}");
            end = row.range.end;
        }
        prop_assert_eq!(end, buffer.text.len());
        prop_assert!(rows.cursor_row < rows.rows.len() && rows.cursor_col < width);
        let row = &rows.rows[rows.cursor_row].range;
        prop_assert!(row.start <= buffer.cursor && buffer.cursor <= row.end);
    }

    #[test]
    fn what_is_drawn_for_plain_text_is_the_text(words in prop::collection::vec("[a-z]{1,12}", 0..12), width in 2_usize..20) {
        let mut buffer = EditBuffer::default();
        buffer.insert(&words.join(" "));
        prop_assert_eq!(drawn(&buffer, width).concat(), buffer.text());
    }

    #[test]
    fn no_pasted_byte_acts_on_a_terminal(raw in any::<String>()) {
        let mut buffer = EditBuffer::default();
        buffer.paste(&raw);
        prop_assert!(buffer.expanded().chars().all(|c| !c.is_control() || c == '\n' || c == '\t'));
    }
}
