//! Where blocks begin and end, and that no way of cutting the text into pieces changes it.
#![expect(clippy::string_slice, reason = "a wrong index fails the test")]

use super::*;
use pretty_assertions::assert_eq;
use proptest::prelude::*;

fn split(source: &str) -> Blocks {
    let mut blocks = Blocks::default();
    blocks.update(source);
    blocks.finish(source);
    blocks
}

/// Each block as its text, code as `info|body`.
fn pieces(source: &str) -> Vec<String> {
    split(source)
        .all()
        .iter()
        .map(|block| match &block.kind {
            BlockKind::Code { body, info, .. } => format!("{info}|{}", &source[body.clone()]),
            BlockKind::Text => source[block.range.clone()].to_owned(),
        })
        .collect()
}

#[test]
fn blocks_end_where_markdown_says() {
    let cases: [(&str, &[&str]); 18] = [
        ("", &[]),
        ("one\ntwo\n\nthree", &["one\ntwo", "three"]),
        ("# T\ntext\n## U", &["# T", "text", "## U"]),
        ("Title\n===\ntext", &["Title\n===", "text"]),
        ("text\n---\nmore", &["text\n---", "more"]),
        ("a\n\n---\n\nb", &["a", "---", "b"]),
        ("Steps:\n- a\n- b\n\n- c\nlazy\n\nend", &["Steps:", "- a", "- b", "- c\nlazy", "end"]),
        ("1. a\n\n   more\n2. b\n10. c", &["1. a\n\n   more", "2. b", "10. c"]),
        ("in 1986.\n1986. was a year", &["in 1986.\n1986. was a year"]),
        ("> a\nlazy\n> b\n\n> c", &["> a\nlazy\n> b", "> c"]),
        ("| a | b |\n|---|---|\n| 1 | 2 |\n\nx", &["| a | b |\n|---|---|\n| 1 | 2 |", "x"]),
        ("- a\n  - b\n    - c\n- d", &["- a\n  - b\n    - c", "- d"]),
        ("**bold** text\n*em*", &["**bold** text\n*em*"]),
        ("- - -\ntext", &["- - -", "text"]),
        ("    code\n\n    more", &["    code", "    more"]),
        ("<div>\n<b>x</b>\n</div>\n\ny", &["<div>\n<b>x</b>\n</div>", "y"]),
        ("- a\n-\n- b", &["- a", "-", "- b"]),
        ("a\r\n\r\nb\r\n", &["a", "b"]),
    ];
    for (source, expected) in cases {
        assert_eq!(pieces(source), expected, "{source:?}");
    }
}

#[test]
fn fences() {
    let cases: [(&str, &[&str]); 10] = [
        ("```rust\nfn a() {}\n```\ntext", &["rust|fn a() {}", "text"]),
        ("text\n~~~\n```\n~~~", &["text", "|```"]),
        ("````md\n```rs\nx\n```\n````", &["md|```rs\nx\n```"]),
        ("```\nopen\n\nstill", &["|open\n\nstill"]),
        ("```", &["|"]),
        ("```a`b```\nx", &["```a`b```\nx"]),
        ("``` rust title=\"x\"\n\n  a\n\n```", &["rust|\n  a\n"]),
        ("1. do\n   ```sh\n   ls\n   ```\n   then\n2. go", &["1. do", "sh|   ls", "   then", "2. go"]),
        ("- ```\n  - x\n  ```\n- b", &["- ```\n  - x\n  ```", "- b"]),
        ("```\ncode\n   ```  \n\nafter", &["|code", "after"]),
    ];
    for (source, expected) in cases {
        assert_eq!(pieces(source), expected, "{source:?}");
    }
}

#[test]
fn code_is_counted_and_copied_without_the_fences_own_indentation() {
    let source = "a\n```\none\n```\n1. b\n   ```sh\n   \tls\n     x\n  y\n   ```\n";
    assert_eq!(split(source).code_count(), 2);
    assert_eq!(code_at(source, 0).as_deref(), Some("one"));
    assert_eq!(code_at(source, 1).as_deref(), Some("\tls\n  x\ny"));
    assert_eq!(code_at(source, 2), None);
}

#[test]
fn a_continued_item_knows_its_indentation() {
    let blocks = split("1. do\n   ```sh\n   ls\n   ```\n\n   then\n  - odd");
    let indents: Vec<_> = blocks.all().iter().map(|b| (b.indent, b.follows_blank)).collect();
    assert_eq!(indents, [(0, false), (3, false), (3, true), (2, false)]);
}

#[test]
fn an_open_block_shows_what_has_come_unless_its_kind_is_open() {
    let mut blocks = Blocks::default();
    let steps = [
        ("Hel", 1, 3),
        ("Hello\n", 1, 5),
        ("Hello\n``", 1, 5),
        ("Hello\n```ru", 1, 5),
        ("Hello\n```rust\n", 2, 13),
        ("Hello\n```rust\nfn", 2, 16),
        ("Hello\n```rust\nfn a\n``", 2, 18),
        ("Hello\n```rust\nfn a\n```\n", 2, 22),
        ("Hello\n```rust\nfn a\n```\n4", 3, 24),
    ];
    for (source, count, end) in steps {
        blocks.update(source);
        assert_eq!(blocks.all().len(), count, "{source:?}");
        assert_eq!(blocks.all().last().map(|b| b.range.end), Some(end), "{source:?}");
    }
}

#[test]
fn a_long_line_that_grows_is_looked_at_once() {
    // 4 MiB in pieces of 64 bytes: quadratic work would take hours.
    let (mut source, mut blocks) = (String::new(), Blocks::default());
    for _ in 0..65_536 {
        source.push_str("0123456789abcdef0123456789abcdef0123456789abcdef0123456789 abcde");
        blocks.update(&source);
    }
    blocks.finish(&source);
    assert_eq!(blocks.all().len(), 1);
    assert_eq!(blocks.all()[0].range, 0..source.len());
}

fn markdown() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "\n",
        "\n\n",
        "\n",
        " ",
        "  ",
        "    ",
        "\t",
        "\r\n",
        "#",
        "# ",
        "-",
        "- ",
        "--",
        "---",
        "*",
        "* ",
        "**",
        "_",
        "1",
        "1.",
        "1. ",
        "12) ",
        ">",
        "> ",
        "`",
        "``",
        "```",
        "````",
        "~~~",
        "```rust\n",
        "|",
        "| a | b |\n",
        "|--|--|\n",
        "=",
        "===",
        "+ ",
        "word",
        "two words",
        "é",
        "日本",
        "<div>",
        "[x](y)",
        "`code`",
        "\u{a0}",
    ]);
    prop::collection::vec(piece, 0..48).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_into_pieces_gives_the_same_blocks(source in markdown(), cuts in prop::collection::vec(0_usize..200, 0..24)) {
        let whole = split(&source);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| source.floor_char_boundary(c.min(source.len()))).collect();
        cuts.sort_unstable();
        let mut blocks = Blocks::default();
        let mut closed: Vec<Block> = Vec::new();
        for cut in cuts {
            blocks.update(&source[..cut]);
            let mut once = Blocks::default();
            once.update(&source[..cut]);
            prop_assert_eq!(&blocks, &once, "state depends on the pieces");
            prop_assert!(blocks.all().len() >= closed.len());
            for (old, new) in closed.iter().zip(blocks.all()) {
                prop_assert_eq!(old, new, "a finished block changed");
            }
            closed = blocks.all().iter().take_while(|b| !b.is_open).cloned().collect();
            prop_assert!(closed.len() + 1 >= blocks.all().len(), "only the last block is open");
        }
        blocks.update(&source);
        blocks.finish(&source);
        for (old, new) in closed.iter().zip(blocks.all()) {
            prop_assert_eq!(old, new, "a finished block changed");
        }
        prop_assert_eq!(blocks, whole);
    }

    #[test]
    fn ranges_are_in_order_and_leave_out_only_blanks(source in markdown()) {
        let blocks = split(&source);
        let mut at = 0;
        for block in blocks.all() {
            prop_assert!(!block.is_open);
            prop_assert!(block.range.start >= at);
            prop_assert!(source[at..block.range.start].chars().all(|c| matches!(c, ' ' | '\t' | '\r' | '\n')));
            at = block.range.end;
            if let BlockKind::Code { body, .. } = &block.kind {
                prop_assert!(source.get(body.clone()).is_some());
                prop_assert!(body.start >= block.range.start && body.end <= block.range.end.max(body.start));
            }
        }
        prop_assert!(source[at..].chars().all(|c| matches!(c, ' ' | '\t' | '\r' | '\n')));
        let codes = blocks.all().iter().filter(|b| matches!(b.kind, BlockKind::Code { .. })).count();
        prop_assert_eq!(blocks.code_count(), codes);
    }
}
