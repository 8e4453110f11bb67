//! The question: words, attached files and stdin put together. What can't be text is refused by name.

use super::args::AskArgs;
use super::out;
use crate::error::{AppError, Exit};
use crate::paths::read_file;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

/// Largest file, and most that is read from stdin.
const MAX_BYTES: u64 = 8 << 20;

/// The question to send.
///
/// # Errors
/// Exit code 2: there is none, a file can't be attached, or stdin isn't text.
pub(super) fn question(args: &AskArgs) -> Result<String, AppError> {
    let is_dash = |path: &Path| path.as_os_str() == "-";
    let dashes = args.words.iter().filter(|word| *word == "-").count()
        + args.files.iter().filter(|path| is_dash(path)).count();
    if dashes > 1 {
        return Err(AppError::new(Exit::Usage, "stdin is asked for twice").hint("give `-` once"));
    }
    let words: Vec<&str> = args.words.iter().map(String::as_str).filter(|word| *word != "-").collect();
    let instruction = words.join(" ");
    let piped = if dashes == 1 || !io::stdin().is_terminal() { Some(stdin(args.quiet)?) } else { None };
    let mut attached = Vec::new();
    let mut rest = piped;
    for path in &args.files {
        if is_dash(path) {
            attached.push((Some("stdin".to_owned()), rest.take().unwrap_or_default()));
        } else {
            attached.push((Some(name_of(path)), file(path)?));
        }
    }
    compose(&instruction, &attached, rest.as_deref()).ok_or_else(|| {
        let what = if attached.is_empty() { "nothing to ask" } else { "files, but no question about them" };
        AppError::new(Exit::Usage, what).hint("ask with `tui \"question\"`; `tui --help` shows more")
    })
}

/// The question these words and files make, where stdin has no part in it.
///
/// # Errors
/// As [`question`].
pub(super) fn with_files(words: &[String], files: &[PathBuf]) -> Result<String, AppError> {
    let attached = files.iter().map(|path| Ok((Some(name_of(path)), file(path)?)));
    let attached: Vec<_> = attached.collect::<Result<_, AppError>>()?;
    compose(&words.join(" "), &attached, None).ok_or_else(|| {
        AppError::new(Exit::Usage, "nothing to ask").hint("`tui route \"question\"` shows where it would go")
    })
}

/// The instruction first, then what it is about, fenced. Without words stdin is the instruction.
fn compose(instruction: &str, attached: &[(Option<String>, String)], piped: Option<&str>) -> Option<String> {
    let piped = piped.filter(|text| !text.trim().is_empty());
    let (instruction, piped) = if instruction.trim().is_empty() {
        (piped?.trim_end_matches(['\n', '\r']), None)
    } else {
        (instruction, piped)
    };
    let mut text = instruction.to_owned();
    let piped = piped.map(|content| (None, content.to_owned()));
    for (name, content) in attached.iter().chain(piped.as_ref()) {
        text.push_str("\n\n");
        if let Some(name) = name {
            text.push_str(name);
            text.push_str(":\n");
        }
        let fence = fence_for(content);
        text.push_str(&fence);
        text.push('\n');
        text.push_str(content);
        if !content.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&fence);
    }
    Some(text)
}

/// A fence longer than any run of backticks in the text.
fn fence_for(text: &str) -> String {
    let (mut longest, mut run) = (0, 0);
    for c in text.chars() {
        run = if c == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    "`".repeat(3.max(longest + 1))
}

fn name_of(path: &Path) -> String {
    path.to_string_lossy().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn file(path: &Path) -> Result<String, AppError> {
    let refused = |why: String| {
        AppError::new(Exit::Usage, format!("{}: {why}", name_of(path))).hint("nothing was sent")
    };
    let bytes = read_file(path, MAX_BYTES).map_err(|trouble| refused(trouble.to_string()))?;
    decode(bytes, Cut::Whole).map_err(refused)
}

/// Reads the JSON schema an answer must follow.
///
/// # Errors
/// Exit code 2: the file can't be read, or isn't a JSON object.
pub(super) fn schema(path: &Path) -> Result<serde_json::Value, AppError> {
    let text = file(path)?;
    let wrong = |why: String| {
        AppError::new(Exit::Usage, format!("{}: not a JSON schema: {why}", name_of(path)))
            .hint("a schema is a JSON object, as {\"type\":\"object\", ...}")
    };
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if value.is_object() { Ok(value) } else { Err(wrong("it is no object".to_owned())) }
}

fn stdin(is_quiet: bool) -> Result<String, AppError> {
    let input = io::stdin();
    // Never waits without a word: a pipe may stay open for ever.
    let mut poll = [rustix::event::PollFd::new(&input, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: 2, tv_nsec: 0 };
    let is_waiting = input.is_terminal() || matches!(rustix::event::poll(&mut poll, Some(&limit)), Ok(0));
    if is_waiting && !is_quiet && io::stderr().is_terminal() {
        out::note("reading from stdin until it ends (Ctrl+D in a terminal)");
    }
    let refused = |why: String| AppError::new(Exit::Usage, format!("stdin: {why}")).hint("nothing was sent");
    let mut bytes = Vec::new();
    let read = input.lock().take(MAX_BYTES + 1).read_to_end(&mut bytes);
    if let Err(error) = read
        && error.raw_os_error() != Some(libc::EBADF)
    {
        return Err(refused(error.to_string()));
    }
    let cap = usize::try_from(MAX_BYTES).unwrap_or(usize::MAX);
    let cut = if bytes.len() > cap {
        bytes.truncate(cap);
        out::note(&format!("stdin is longer than {} MiB; the rest is left out", MAX_BYTES >> 20));
        Cut::Anywhere
    } else {
        Cut::Whole
    };
    decode(bytes, cut).map_err(refused)
}

/// Whether a text may end within a character.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    Whole,
    Anywhere,
}

/// Text from bytes: UTF-8, or UTF-16 with a byte order mark.
fn decode(bytes: Vec<u8>, cut: Cut) -> Result<String, String> {
    let utf16 = match bytes.as_slice() {
        [0xff, 0xfe, rest @ ..] => Some((rest, u16::from_le_bytes as fn([u8; 2]) -> u16)),
        [0xfe, 0xff, rest @ ..] => Some((rest, u16::from_be_bytes as fn([u8; 2]) -> u16)),
        _ => None,
    };
    if let Some((rest, unit)) = utf16 {
        let units = rest.chunks_exact(2).map(|pair| match pair {
            [a, b] => unit([*a, *b]),
            _ => 0,
        });
        let text: Result<String, _> = char::decode_utf16(units).collect();
        return text.map_err(|_| "not text: broken UTF-16".to_owned());
    }
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err(format!("not text: byte {} is NUL", at + 1));
    }
    let mut bytes = bytes;
    if let Err(error) = std::str::from_utf8(&bytes) {
        let at = error.valid_up_to();
        if cut == Cut::Anywhere && error.error_len().is_none() {
            bytes.truncate(at);
        } else {
            let line = bytes.iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
            return Err(format!("not UTF-8 text (line {line}); convert it first, for example with iconv"));
        }
    }
    let text = String::from_utf8(bytes).map_err(|_| "not UTF-8 text".to_owned())?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn the_instruction_comes_first_and_content_is_fenced() {
        let file = |name: &str, text: &str| (Some(name.to_owned()), text.to_owned());
        assert_eq!(compose("Hi there", &[], None).as_deref(), Some("Hi there"));
        assert_eq!(compose("", &[], Some("from a pipe\n")).as_deref(), Some("from a pipe"));
        assert_eq!(compose("Fix", &[], Some("let x;\n")).as_deref(), Some("Fix\n\n```\nlet x;\n```"));
        assert_eq!(
            compose("Fix", &[file("a.md", "```\ncode\n```")], Some("more")).as_deref(),
            Some("Fix\n\na.md:\n````\n```\ncode\n```\n````\n\n```\nmore\n```")
        );
        assert_eq!(
            compose("", &[file("a", "x")], Some("Explain\n")).as_deref(),
            Some("Explain\n\na:\n```\nx\n```")
        );
        assert_eq!(compose("Hi", &[], Some(" \n")).as_deref(), Some("Hi"));
        assert_eq!(compose("  ", &[file("a", "x")], None), None);
        assert_eq!(compose("", &[], Some("\n")), None);
    }

    #[test]
    fn only_text_is_taken() {
        let whole = |bytes: &[u8]| decode(bytes.to_vec(), Cut::Whole);
        assert_eq!(whole(b"\xef\xbb\xbfa\r\nb"), Ok("a\r\nb".to_owned()));
        assert_eq!(whole(b"\xff\xfeh\0\xe9\0"), Ok("h\u{e9}".to_owned()));
        assert_eq!(whole(b"\xfe\xff\0h\0\xe9"), Ok("h\u{e9}".to_owned()));
        assert_eq!(whole(b"\x1b[31mred"), Ok("\u{1b}[31mred".to_owned()));
        assert!(whole(b"\xff\xfe\x00\xd8").expect_err("refused").contains("UTF-16"));
        assert_eq!(whole(b"ab\0"), Err("not text: byte 3 is NUL".to_owned()));
        assert!(whole(b"a\ncaf\xe9\n").expect_err("refused").contains("line 2"));
        assert!(whole("a…".as_bytes().get(..3).expect("cut")).is_err());
        assert_eq!(decode("a…".as_bytes()[..3].to_vec(), Cut::Anywhere), Ok("a".to_owned()));
    }
}
