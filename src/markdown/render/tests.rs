//! Blocks as lines: what is drawn for each construct, and that no line is wider than asked.

use super::*;
use pretty_assertions::assert_eq;
use proptest::prelude::*;

fn theme() -> Theme {
    Theme::load("default", None).expect("theme").0
}

fn plain(source: &str, width: usize) -> Vec<String> {
    render(source, 0, width, &theme()).iter().map(ToString::to_string).collect()
}

#[test]
fn text_keeps_its_lines_and_wraps() {
    assert_eq!(plain("one\ntwo three four", 9), ["one", "two three", "four"]);
    assert_eq!(plain("a **b** *c* ~~d~~ `e`", 40), ["a b c d `e`"]);
    assert_eq!(plain("## Title ##", 40), ["Title"]);
    assert_eq!(plain("Title\n---", 40), ["Title"]);
    assert_eq!(plain("***", 12), ["────────────"]);
}

#[test]
fn emphasis_and_headings_have_styles() {
    let lines = render("a **b *c***", 0, 40, &theme());
    let modifiers: Vec<Modifier> = lines[0].spans.iter().map(|s| s.style.add_modifier).collect();
    assert_eq!(modifiers, [Modifier::empty(), Modifier::BOLD, Modifier::BOLD | Modifier::ITALIC]);
    let lines = render("# a", 0, 40, &theme());
    assert!(lines[0].spans[0].style.add_modifier.contains(Modifier::BOLD));
}

#[test]
fn lists() {
    assert_eq!(plain("- one two three", 9), ["• one two", "  three"]);
    assert_eq!(plain("7. a\n   - b\n     - c\n   - d", 40), ["7. a", "   • b", "     • c", "   • d"]);
    assert_eq!(plain("- a\n\n  b", 40), ["• a", "", "  b"]);
    assert_eq!(plain("- [x] done\n- [ ] open", 40), ["• ☑ done", "• ☐ open"]);
    assert_eq!(plain("- - a", 40), ["• ", "  • a"]);
    assert_eq!(plain("1.", 40), ["1. "]);
    assert_eq!(plain("- a\n  ```sh\n  ls\n  ```", 40), ["• a", "  sh", "    ls"]);
}

#[test]
fn a_continued_item_is_drawn_at_its_indentation() {
    let lines = render("   then\n   - x", 3, 40, &theme());
    let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
    assert_eq!(lines, ["   then", "   • x"]);
}

#[test]
fn quotes() {
    assert_eq!(plain("> a b c\n>\n> > d", 7), ["│ a b c", "│", "│ │ d"]);
}

#[test]
fn links_show_where_they_go() {
    assert_eq!(plain("[the book](https://x.org)", 60), ["the book (https://x.org)"]);
    assert_eq!(plain("<https://x.org> [y](y)", 60), ["https://x.org y"]);
    assert_eq!(plain("![a cat](cat.png)", 60), ["a cat (cat.png)"]);
    assert_eq!(
        plain("see [a][1]\n\n[1]: https://x.org", 60),
        ["see a (https://x.org)", "[1]: https://x.org"]
    );
    assert_eq!(plain("[1]: https://x.org", 60), ["[1]: https://x.org"]);
}

#[test]
fn tables_are_aligned_by_cells() {
    let table = "| name | 大きさ |\n|:--|--:|\n| a | 1 |\n| `bcd` e | 23 |";
    assert_eq!(
        plain(table, 40),
        ["name    │ 大きさ", "────────┼───────", "a       │      1", "`bcd` e │     23"]
    );
}

#[test]
fn the_rule_below_a_head_is_dim() {
    let lines = render("| a |\n|---|\n| b |", 0, 40, &theme());
    assert_eq!(lines[1].spans[0].style, theme().style(Role::Dim));
}

#[test]
fn a_growing_table_is_one_from_its_head_on() {
    let open = |source: &str, width: usize| -> Vec<String> {
        render_open_table(source, 0, width, &theme()).iter().map(ToString::to_string).collect()
    };
    let table = "| name | size |\n|:--|--:|\n| abc | 1 |";
    for len in 3..=table.len() {
        let part = table.get(..len).expect("it is ASCII");
        let lines = open(part, 40);
        assert!(lines[0].starts_with('n'), "{part:?}: {lines:?}");
        assert!(lines.get(1).is_none_or(|rule| rule.starts_with('─')), "{lines:?}");
    }
    assert_eq!(open(table, 40), plain(table, 40));
    assert_eq!(open("| name | si", 40), ["name │ si"]);
    assert_eq!(open("| name | size |\n|:-", 40), ["name │ size", "─────┼─────"]);
    for text in ["|", "| a |\nmore", "| a |\n|-|-|", "||"] {
        assert_eq!(open(text, 40), plain(text, 40), "{text:?}");
    }
    assert_eq!(open("| name | size |\n|-", 10), ["| name |", "size |", "|-"]);
}

#[test]
fn a_table_wider_than_the_pane_is_its_source() {
    let table = "| name | size |\n|--|--|\n| abc | 1 |";
    assert_eq!(plain(table, 10), ["| name |", "size |", "|--|--|", "| abc | 1", "|"]);
}

#[test]
fn html_and_latex_stay_text() {
    assert_eq!(plain("<b>x</b> &lt;", 40), ["<b>x</b> <"]);
    assert_eq!(plain("<div>\n<p>x</p>\n</div>", 40), ["<div>", "<p>x</p>", "</div>"]);
    assert_eq!(plain("\\(a_1 + b_1\\) and \\[x\\]", 40), ["\\(a_1 + b_1\\) and \\[x\\]"]);
    assert_eq!(plain("$a_1 *b* c_1$ and $5 or $6", 40), ["$a_1 *b* c_1$ and $5 or $6"]);
    assert_eq!(plain("\\*not\\* emphasis", 40), ["*not* emphasis"]);
}

#[test]
fn bombs_are_drawn_flat_and_in_time() {
    let width = 40;
    let mut quote = "> ".repeat(10_000);
    quote.push('x');
    let nested: String = (0..200).map(|depth| format!("{}- x\n", "  ".repeat(depth))).collect();
    let table = format!("|{}\n|{}\n|{}", "a|".repeat(5000), "-|".repeat(5000), "b|".repeat(5000));
    let bombs = [
        quote,
        nested,
        table,
        "[".repeat(100_000),
        "*a ".repeat(50_000),
        "`".repeat(50_000),
        "\\(".repeat(50_000),
    ];
    for bomb in bombs {
        let lines = render(&bomb, 0, width, &theme());
        assert!(!lines.is_empty());
        assert!(lines.iter().all(|line| line.width() <= width), "{}", bomb.get(..20).unwrap_or_default());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_line_is_wider_than_asked(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "- ", "1. ", "> ", "# ", "\n", "\n\n", "  ", "    ", "word ", "long-word-without-end", "日本語", "|", "|--|\n",
            "`", "```", "**", "[a](b)", "<b>", "$", "\\(", "é", "👨‍👩‍👧", "[x]: y", "- [ ] ", "---",
        ]), 0..40),
        width in 8_usize..60,
        indent in 0_usize..6,
    ) {
        let source = pieces.concat();
        for line in render(&source, indent, width, &theme()) {
            prop_assert!(line.width() <= width, "{line:?}");
        }
    }

    #[test]
    fn words_survive(words in prop::collection::vec("[a-z]{1,12}", 1..30), width in 8_usize..40) {
        let lines = plain(&words.join(" "), width);
        let text: String = lines.concat().split_whitespace().collect();
        prop_assert_eq!(text, words.concat());
    }
}
