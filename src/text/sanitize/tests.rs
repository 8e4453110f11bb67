//! Tests of sanitising.

use super::*;
use pretty_assertions::assert_eq;
use proptest::prelude::*;
use unicode_segmentation::UnicodeSegmentation;

fn show(text: &str) -> String {
    shown(text).to_string()
}

/// What may never reach a terminal, whatever the context; written down apart from the code under test.
fn is_forbidden(c: char) -> bool {
    let is_hidden = matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fffe}'
        | '\u{e000}'..='\u{f8ff}' | '\u{e0000}'..='\u{e001f}' | '\u{f0000}'..='\u{10ffff}');
    is_hidden || (c.is_control() && !matches!(c, '\n' | '\t'))
}

#[test]
fn rows_of_the_catalogue() {
    let bidi = "⟪bidi⟫";
    let cases: &[(&str, &str, String)] = &[
        ("T1 colour", "a\u{1b}[31mred\u{1b}[0m b", "a␛[31mred␛[0m b".into()),
        ("T1 unterminated", "text\u{1b}[31", "text␛[31".into()),
        ("T1 escape at the end", "text\u{1b}", "text␛".into()),
        ("T1 two escapes", "\u{1b}\u{1b}[1m", "␛␛[1m".into()),
        ("T2 title, bell", "\u{1b}]0;pwned\u{7}after", "␛]0;pwnedafter".into()),
        ("T2 title, ST", "\u{1b}]0;pwned\u{1b}\\after", "␛]0;pwned␛\\after".into()),
        ("T2 never ended", "\u{1b}]52;c;QUJD and then prose", "␛]52;c;QUJD and then prose".into()),
        ("T3 short", "\u{1b}Pq#0~~\u{1b}\\x", "␛Pq#0~~␛\\x".into()),
        ("T4 C1 CSI", "a\u{9b}31mb", "a␛[31mb".into()),
        ("T4 C1 OSC", "\u{9d}0;t\u{9c}b", "␛]0;t␛\\b".into()),
        ("T7 CRLF", "a\r\nb\r\n", "a\nb\n".into()),
        ("T7 overwrite", "good\rbad", "good␍bad".into()),
        ("T7 return at the end", "good\r", "good␍".into()),
        ("T7 returns", "a\r\r\nb", "a␍\nb".into()),
        ("T7 backspace", "ab\u{8}c", "ab␈c".into()),
        ("T7 breaks", "a\u{b}b\u{c}c\u{85}d\u{2028}e\u{2029}f", "a\nb\nc\nd\ne\nf".into()),
        ("T8 removed", "a\0b\u{7}\u{7}\u{5}\u{e}\u{f}\u{7f}c", "abc".into()),
        ("T9 once a line", "a\u{202e}b\u{202c}c\nd\u{2066}e", format!("a{bidi}bc\nd{bidi}e")),
        (
            "T10 hidden",
            "a\u{200b}b\u{2060}c\u{feff}d\u{ad}e\u{115f}f\u{3164}g\u{200d}h\u{200c}i",
            "abcdefghi".into(),
        ),
        ("T10 Persian", "می\u{200c}خواهم", "می\u{200c}خواهم".into()),
        ("T10 Sinhala", "ශ්\u{200d}රී", "ශ්\u{200d}රී".into()),
        ("T10 joiner at the end", "می\u{200c} x", "می x".into()),
        ("T11 hidden text", "a\u{e0041}\u{e0042}b", "ab".into()),
        (
            "T11 flag",
            "\u{1f3f4}\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}!",
            "\u{1f3f4}\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}!".into(),
        ),
        (
            "T11 text in a flag",
            &("\u{1f3f4}".to_owned() + &"\u{e0061}".repeat(50)),
            "\u{1f3f4}".to_owned() + &"\u{e0061}".repeat(8),
        ),
        ("T12 one mark", "e\u{301}", "e\u{301}".into()),
        (
            "T12 too many",
            &("e".to_owned() + &"\u{301}".repeat(30) + "f"),
            "e".to_owned() + &"\u{301}".repeat(8) + "f",
        ),
        ("T12 no base", "\u{301}a\n\u{301}", "◌\u{301}a\n◌\u{301}".into()),
        ("T13 family", "👨\u{200d}👩\u{200d}👧\u{200d}👦", "👨\u{200d}👩\u{200d}👧\u{200d}👦".into()),
        (
            "T13 kiss with skins",
            "👩🏽\u{200d}❤\u{fe0f}\u{200d}💋\u{200d}👨🏿",
            "👩🏽\u{200d}❤\u{fe0f}\u{200d}💋\u{200d}👨🏿".into(),
        ),
        ("T13 flags", "🇩🇪🇫🇷", "🇩🇪🇫🇷".into()),
        ("T13 keycap", "1\u{fe0f}\u{20e3} 2\u{fe0f}x", "1\u{fe0f}\u{20e3} 2x".into()),
        ("T13 selector", "❤\u{fe0f}x\u{fe0f}", "❤\u{fe0f}x".into()),
        (
            "selectors carry no message",
            &("😀".to_owned() + &"\u{e0141}".repeat(20) + &"\u{fe0f}".repeat(5)),
            "😀\u{fe0f}".into(),
        ),
        ("T13 Devanagari", "क्षत्रिय", "क्षत्रिय".into()),
        ("Korean in parts", "\u{1112}\u{1161}\u{11ab}한", "\u{1112}\u{1161}\u{11ab}한".into()),
        ("T14 tabs", "\ta\tb", "\ta\tb".into()),
        (
            "T17 not characters",
            "a\u{fffe}b\u{e000}c\u{10ffff}d\u{fdd0}e",
            "a\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}e".into(),
        ),
        ("plain", "Grüße, 日本語, кириллица — fine ✓", "Grüße, 日本語, кириллица — fine ✓".into()),
    ];
    for (row, input, expected) in cases {
        assert_eq!(&show(input), expected, "{row}");
    }
}

#[test]
fn long_payloads_become_one_note() {
    let big = "A".repeat(5_000_000);
    assert_eq!(show(&format!("a\u{1b}_G{big}\u{1b}\\b")), "a[terminal data removed, 5.0 MB]b");
    assert_eq!(
        show(&format!("a\u{1b}]52;c;{}\u{7}b", "Q".repeat(9_000))),
        "a[terminal data removed, 10 KB]b"
    );
    let kitty = format!("\u{1b}_Gm=1;{}\u{1b}\\", "Q".repeat(4096)).repeat(3);
    assert_eq!(show(&format!("{kitty}b")), "[terminal data removed, 13 KB]b");
    assert_eq!(show(&format!("{kitty}\u{1b}[31mb")), "[terminal data removed, 13 KB]␛[31mb");
    assert_eq!(show(&format!("\u{1b}P{}", "Q".repeat(300))), "[terminal data removed, 1 KB]");
}

#[test]
fn a_payload_without_end_swallows_no_prose() {
    let unended = format!("\u{1b}P{} The answer is 42.\nDone", "Q".repeat(300));
    assert_eq!(show(&unended), "[terminal data removed, 1 KB] The answer is 42.\nDone");
    let umlaut = format!("\u{1b}P{}ä", "Q".repeat(300));
    assert_eq!(show(&umlaut), "[terminal data removed, 1 KB]ä");
}

#[test]
fn clusters_are_bounded() {
    for piece in [
        "\u{301}",
        "\u{200d}👩",
        "\u{94d}\u{915}",
        "\u{903}",
        "\u{1100}",
        "\u{600}",
        "\u{1161}",
        "\u{fe0f}",
        "🏽",
    ] {
        let text = "👩".to_owned() + &piece.repeat(100_000);
        let out = show(&text);
        let longest = out.graphemes(true).map(str::len).max().unwrap();
        assert!(longest <= 64, "{longest} bytes in one cell by {piece:?}");
        assert_eq!(shown(&out).to_string(), out);
    }
}

#[test]
fn one_line_fits() {
    assert_eq!(&*shown_line("a\tb\nc\u{1b}]0;x\u{7}", 40), "a b c␛]0;x");
    assert_eq!(&*shown_line("日本語のモデル", 7), "日本語…");
    assert_eq!(&*shown_line("", 5), "");
}

#[test]
fn logs_get_escapes_written_out() {
    assert_eq!(
        log_safe("a\u{1b}[31m\n\r\t\u{7}\u{9b}\u{202e}\u{200b}ü日👍"),
        r"a\x1b[31m\n\r\t\x07\u{9b}\u{202e}\u{200b}ü日👍"
    );
}

/// Text rich in what this module is about.
fn hostile() -> impl Strategy<Value = String> {
    let nasty = prop::sample::select(vec![
        "\u{1b}",
        "\u{1b}[31m",
        "\u{1b}]0;t\u{7}",
        "\u{1b}P",
        "\u{1b}_G",
        "\\",
        "\r",
        "\n",
        "\t",
        "\0",
        "\u{7}",
        "\u{8}",
        "\u{7f}",
        "\u{85}",
        "\u{90}",
        "\u{9b}",
        "\u{9c}",
        "\u{202e}",
        "\u{2066}",
        "\u{200b}",
        "\u{200c}",
        "\u{200d}",
        "\u{fe0f}",
        "\u{fe00}",
        "\u{e0100}",
        "\u{e0067}",
        "\u{e007f}",
        "\u{1f3f4}",
        "\u{301}",
        "\u{94d}",
        "\u{915}",
        "\u{903}",
        "\u{600}",
        "\u{6cc}",
        "\u{1100}",
        "\u{1161}",
        "\u{11a8}",
        "\u{ac00}",
        "👩",
        "🏽",
        "❤",
        "🇩",
        "1",
        "\u{20e3}",
        "a",
        " ",
        "é",
        "日",
        "\u{feff}",
        "\u{fffe}",
        "\u{e000}",
        "\u{180b}",
        "\u{1820}",
        "\u{3099}",
        "か",
    ]);
    let piece = prop_oneof![
        6 => nasty.prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
        1 => (0_usize..600).prop_map(|n| "Q".repeat(n)),
        1 => (1_usize..20).prop_map(|n| "\u{301}".repeat(n)),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn nothing_forbidden_comes_out(text in hostile()) {
        let out = show(&text);
        prop_assert_eq!(out.chars().find(|c| is_forbidden(*c)), None, "{:?}", out);
        let line = shown_line(&text, 30);
        prop_assert!(!line.contains(['\n', '\t']));
        prop_assert!(!log_safe(&text).chars().any(char::is_control));
    }

    #[test]
    fn shown_text_stays_as_it_is(text in hostile()) {
        let once = show(&text);
        prop_assert_eq!(show(&once), once);
    }

    #[test]
    fn any_split_gives_the_same_text(text in hostile(), cuts in prop::collection::vec(0_usize..200, 0..8)) {
        let chars: Vec<char> = text.chars().collect();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(chars.len())).collect();
        cuts.sort_unstable();
        cuts.push(chars.len());
        let (mut stream, mut out, mut from) = (ShowStream::default(), Shown::default(), 0);
        for cut in cuts {
            stream.push(&chars[from..cut].iter().collect::<String>(), &mut out);
            from = cut;
        }
        stream.finish(&mut out);
        prop_assert_eq!(out.to_string(), show(&text));
        prop_assert_eq!(stream, ShowStream::default());
    }

    #[test]
    fn output_grows_by_a_bounded_factor(text in hostile()) {
        prop_assert!(show(&text).len() <= 4 * text.len() + 16 * text.lines().count() + 64);
    }
}
