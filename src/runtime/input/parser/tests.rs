//! Bytes of real terminals, nonsense, and every way to cut them.

use super::*;
use pretty_assertions::assert_eq;
use proptest::prelude::*;

fn parse(bytes: &[u8]) -> Vec<Input> {
    let (mut parser, mut out) = (Parser::default(), Vec::new());
    parser.push(bytes, &mut out);
    out
}

fn keys(bytes: &str) -> Vec<Chord> {
    parse(bytes.as_bytes())
        .into_iter()
        .map(|input| match input {
            Input::Key(chord) => chord,
            other => panic!("{other:?}"),
        })
        .collect()
}

fn plain(key: Key) -> Chord {
    Chord::plain(key)
}

#[test]
fn keys_of_every_kind_of_terminal() {
    let cases: &[(&str, Chord)] = &[
        ("a", plain(Key::Char('a'))),
        ("A", plain(Key::Char('A'))),
        ("é", plain(Key::Char('é'))),
        ("😀", plain(Key::Char('😀'))),
        ("\r", plain(Key::Enter)),
        ("\n", Chord::ctrl('j')),
        ("\t", plain(Key::Tab)),
        ("\x7f", plain(Key::Backspace)),
        ("\x08", Chord::ctrl('h')),
        ("\x00", Chord::ctrl(' ')),
        ("\x03", Chord::ctrl('c')),
        ("\x1f", Chord::ctrl('_')),
        ("\x1bb", Chord::alt('b')),
        ("\x1bé", Chord::alt('é')),
        ("\x1b\x7f", Chord { alt: true, ..plain(Key::Backspace) }),
        ("\x1b\r", Chord { alt: true, ..plain(Key::Enter) }),
        ("\x1b[A", plain(Key::Up)),
        ("\x1bOA", plain(Key::Up)),
        ("\x1b[1;5C", Chord { ctrl: true, ..plain(Key::Right) }),
        ("\x1b[1;2H", Chord { shift: true, ..plain(Key::Home) }),
        ("\x1b[3~", plain(Key::Delete)),
        ("\x1b[3;5~", Chord { ctrl: true, ..plain(Key::Delete) }),
        ("\x1b[5~", plain(Key::PageUp)),
        ("\x1b[Z", plain(Key::BackTab)),
        ("\x1bOP", plain(Key::F(1))),
        ("\x1b[15~", plain(Key::F(5))),
        ("\x1b[24~", plain(Key::F(12))),
        ("\x1b[[A", plain(Key::F(1))),
        ("\x1b[1;2R", Chord { shift: true, ..plain(Key::F(3)) }),
        // Kitty's protocol.
        ("\x1b[27u", plain(Key::Esc)),
        ("\x1b[13;2u", Chord { shift: true, ..plain(Key::Enter) }),
        ("\x1b[13;5u", Chord { ctrl: true, ..plain(Key::Enter) }),
        ("\x1b[99;5u", Chord::ctrl('c')),
        ("\x1b[99;6u", Chord::ctrl('c')),
        ("\x1b[99;69u", Chord::ctrl('c')),
        ("\x1b[97;3u", Chord::alt('a')),
        ("\x1b[97;4u", Chord::alt('A')),
        ("\x1b[47:63;4u", Chord::alt('?')),
        ("\x1b[9;2u", plain(Key::BackTab)),
        ("\x1b[97;1:2u", plain(Key::Char('a'))),
        ("\x1b[57419u", plain(Key::Up)),
        ("\x1b[57400u", plain(Key::Char('1'))),
        // xterm's modifyOtherKeys.
        ("\x1b[27;2;13~", Chord { shift: true, ..plain(Key::Enter) }),
    ];
    for (bytes, chord) in cases {
        assert_eq!(keys(bytes), [*chord], "{bytes:?}");
    }
}

#[test]
fn what_is_no_key_is_dropped_and_what_follows_is_kept() {
    for dropped in [
        "\x1b]11;rgb:1e1e/1e1e/2e2e\x1b\\",
        "\x1b]11;rgb:1e1e/1e1e/2e2e\x07",
        "\x1b]52;c;aGVsbG8=\x1b\\",
        "\x1bP>|XTerm(370)\x1b\\",
        "\x1b_Gi=31;OK\x1b\\",
        "\x1b[?62;22c",
        "\x1b[?1u",
        "\x1b[>1;10;0c",
        "\x1b[?2026;2$y",
        "\x1b[24;80R",
        "\x1b[8;24;80t",
        "\x1b[I",
        "\x1b[O",
        "\x1b[<0;10;10M",
        "\x1b[97;1:3u",
        "\x1b[97;9u",
        "\x1b[57358u",
        "\x1b[201~",
        "\x1b[1;5",
        "\x1b[999999999999999999999~",
        "\u{9b}",
    ] {
        let expected: Vec<Chord> = vec![plain(Key::Up), plain(Key::Char('q'))];
        assert_eq!(keys(&format!("{dropped}\x1b[Aq")), expected, "{dropped:?}");
    }
    assert_eq!(parse(b"\xff\xc3(\xf0\x9f"), [Input::Key(plain(Key::Char('(')))]);
}

#[test]
fn silence_tells_a_key_from_the_beginning_of_a_sequence() {
    for (bytes, chord) in [
        ("\x1b", Some(plain(Key::Esc))),
        ("\x1b[", Some(Chord::alt('['))),
        ("\x1b]", Some(Chord::alt(']'))),
        ("\x1bO", Some(Chord::alt('O'))),
        ("\x1b[1;", None),
        ("\x1b]11;rgb", None),
    ] {
        let (mut parser, mut out) = (Parser::default(), Vec::new());
        parser.push(bytes.as_bytes(), &mut out);
        assert_eq!((out.as_slice(), parser.waiting()), ([].as_slice(), Waiting::Sequence), "{bytes:?}");
        parser.give_up(&mut out);
        assert_eq!(out, chord.map(Input::Key).into_iter().collect::<Vec<_>>(), "{bytes:?}");
        assert_eq!(parser.waiting(), Waiting::Nothing);
    }
    assert_eq!(keys("\x1b\x1b[A"), [plain(Key::Esc), plain(Key::Up)]);
}

#[test]
fn a_paste_is_one_input_whatever_is_in_it() {
    let text = "a\x1b[A\x1b[200~\x03\r\n\x1b]0;t\x07é\x1b[201";
    assert_eq!(
        parse(format!("x\x1b[200~{text}\x1b[201~y").as_bytes()),
        [Input::Key(plain(Key::Char('x'))), Input::Paste(text.to_owned()), Input::Key(plain(Key::Char('y')))]
    );
    assert_eq!(parse(b"\x1b[200~\xff\x1b[201~"), [Input::Paste("\u{fffd}".to_owned())]);
}

#[test]
fn a_paste_without_an_end_ends_with_silence() {
    let (mut parser, mut out) = (Parser::default(), Vec::new());
    parser.push(b"\x1b[200~half\x1b[20", &mut out);
    assert_eq!((out.len(), parser.waiting()), (0, Waiting::Paste));
    parser.give_up(&mut out);
    parser.push(b"\x03", &mut out);
    assert_eq!(out, [Input::Paste("half\x1b[20".to_owned()), Input::Key(Chord::ctrl('c'))]);
}

proptest! {
    #[test]
    fn it_does_not_matter_where_the_bytes_are_cut(
        pieces in prop::collection::vec(
            prop_oneof![
                Just(b"\x1b[A".to_vec()), Just(b"\x1b[1;5C".to_vec()), Just(b"\x1b[200~".to_vec()),
                Just(b"\x1b[201~".to_vec()), Just(b"\x1b]11;x\x1b\\".to_vec()), Just("é😀".as_bytes().to_vec()),
                prop::collection::vec(any::<u8>(), 0..6),
            ], 0..12),
        cuts in prop::collection::vec(1..7_usize, 0..40)
    ) {
        let bytes = pieces.concat();
        let (mut whole, mut cut) = (Vec::new(), Vec::new());
        let mut parser = Parser::default();
        parser.push(&bytes, &mut whole);
        parser.give_up(&mut whole);
        let (mut parser, mut rest, mut cuts) = (Parser::default(), bytes.as_slice(), cuts.into_iter());
        while !rest.is_empty() {
            let (now, later) = rest.split_at(cuts.next().unwrap_or(rest.len()).min(rest.len()));
            parser.push(now, &mut cut);
            rest = later;
        }
        parser.give_up(&mut cut);
        prop_assert_eq!(whole, cut);
    }

    #[test]
    fn no_text_key_is_lost(text in "[a-zA-Z0-9 äß日]{0,200}") {
        let typed: String = keys(&text).iter().filter_map(|chord| match chord.key {
            Key::Char(c) => Some(c),
            _ => None,
        }).collect();
        prop_assert_eq!(typed, text);
    }
}
