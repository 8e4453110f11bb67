//! Theme files: TOML with `inherits`, a `[palette]`, and one entry per role. Every problem is a warning.

use super::{BUILT_IN, Role, Theme};
use ratatui::style::{Color, Modifier, Style};
use std::path::Path;
use toml::{Table, Value};

/// Bytes of a theme file that are read; more is no theme.
const MAX_BYTES: u64 = 256 * 1024;

/// How many themes may inherit from one another.
const MAX_DEPTH: usize = 8;

const COLOURS: [(&str, Color); 17] = [
    ("default", Color::Reset),
    ("black", Color::Black),
    ("red", Color::Red),
    ("green", Color::Green),
    ("yellow", Color::Yellow),
    ("blue", Color::Blue),
    ("magenta", Color::Magenta),
    ("cyan", Color::Cyan),
    ("gray", Color::Gray),
    ("bright-black", Color::DarkGray),
    ("bright-red", Color::LightRed),
    ("bright-green", Color::LightGreen),
    ("bright-yellow", Color::LightYellow),
    ("bright-blue", Color::LightBlue),
    ("bright-magenta", Color::LightMagenta),
    ("bright-cyan", Color::LightCyan),
    ("white", Color::White),
];

const MODIFIERS: [(&str, Modifier); 6] = [
    ("bold", Modifier::BOLD),
    ("dim", Modifier::DIM),
    ("italic", Modifier::ITALIC),
    ("underlined", Modifier::UNDERLINED),
    ("reversed", Modifier::REVERSED),
    ("crossed-out", Modifier::CROSSED_OUT),
];

/// Whether a text can be the name of a theme: letters, digits, `-` and `_`, so that it names no path.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
}

/// Applies the theme of this name and those it inherits from. False: there is none.
pub(super) fn apply_named(
    theme: &mut Theme,
    name: &str,
    user_dir: Option<&Path>,
    warnings: &mut Vec<String>,
) -> bool {
    // From the named one to its oldest ancestor; applied the other way round.
    let mut chain: Vec<(String, String, bool)> = Vec::new();
    let mut wanted = name.to_owned();
    loop {
        // A user's `default` may inherit from the built-in one of the same name.
        let own = user_dir.filter(|_| !chain.iter().any(|(n, _, is_own)| *n == wanted && *is_own));
        let Some((text, is_own)) = source(&wanted, own, warnings) else {
            match chain.last() {
                None => return false,
                Some((child, _, _)) if chain.iter().any(|(n, _, _)| *n == wanted) => {
                    warnings.push(format!("theme {name}: it inherits from itself by way of `{child}`"));
                }
                Some((child, _, _)) => {
                    warnings.push(format!("theme {child}: it inherits from `{wanted}`, which is not there"));
                }
            }
            break;
        };
        let parent = inherits(&text);
        chain.push((wanted, text, is_own));
        match parent {
            Some(parent) if chain.len() < MAX_DEPTH => wanted = parent,
            _ => break,
        }
    }
    for (name, text, _) in chain.iter().rev() {
        apply(theme, text, name, warnings);
    }
    true
}

fn source(name: &str, user_dir: Option<&Path>, warnings: &mut Vec<String>) -> Option<(String, bool)> {
    if !is_name(name) {
        return None;
    }
    if let Some(path) = user_dir.map(|dir| dir.join(format!("{name}.toml")))
        && let Ok(data) = std::fs::metadata(&path)
    {
        let text = if data.len() > MAX_BYTES {
            Err(format!("over {MAX_BYTES} bytes"))
        } else {
            std::fs::read_to_string(&path).map_err(|error| error.to_string())
        };
        match text {
            Ok(text) => return Some((text, true)),
            Err(error) => {
                warnings.push(format!("theme {name}: cannot read {}: {error}", path.display()));
                return Some((String::new(), true));
            }
        }
    }
    BUILT_IN.iter().find(|(n, _)| *n == name).map(|(_, text)| ((*text).to_owned(), false))
}

fn inherits(text: &str) -> Option<String> {
    text.parse::<Table>().ok()?.get("inherits")?.as_str().map(str::to_owned)
}

/// Applies the entries of one file.
pub(super) fn apply(theme: &mut Theme, text: &str, name: &str, warnings: &mut Vec<String>) {
    let table = match text.parse::<Table>() {
        Ok(table) => table,
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            let line = text.bytes().take(at).filter(|b| *b == b'\n').count() + 1;
            let what = error.message().lines().next().unwrap_or("not TOML").to_owned();
            warnings.push(format!("theme {name}, line {line}: {what}"));
            return;
        }
    };
    let palette = table.get("palette").and_then(Value::as_table);
    let mut found: Vec<(usize, String)> = Vec::new();
    for (key, value) in &table {
        if matches!(key.as_str(), "inherits" | "palette") {
            continue;
        }
        let line = line_of(text, key);
        let Some((role, _)) = Role::ALL.iter().find(|(_, n)| n == key) else {
            found
                .push((line, format!("unknown role `{key}`{}", nearest(key, Role::ALL.iter().map(|r| r.1)))));
            continue;
        };
        let mut problems = Vec::new();
        let style = style(key, value, palette, &mut problems);
        found.extend(problems.into_iter().map(|problem| (line, problem)));
        if let Some(style) = style {
            theme.set(*role, style);
        }
    }
    found.sort();
    warnings.extend(found.into_iter().map(|(line, what)| format!("theme {name}, line {line}: {what}")));
}

fn line_of(text: &str, key: &str) -> usize {
    text.lines()
        .position(|line| {
            let line = line.trim_start();
            let line = line.strip_prefix('"').unwrap_or(line);
            line.strip_prefix(key)
                .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '-'))
        })
        .map_or(1, |at| at + 1)
}

fn style(key: &str, value: &Value, palette: Option<&Table>, problems: &mut Vec<String>) -> Option<Style> {
    let table = match value {
        Value::String(name) => return colour(name, palette, problems).map(|c| Style::new().fg(c)),
        Value::Table(table) => table,
        _ => {
            problems.push(format!("`{key}` is a colour in quotes or {{ fg, bg, modifiers }}"));
            return None;
        }
    };
    let before = problems.len();
    let mut style = Style::new();
    for (part, value) in table {
        match (part.as_str(), value) {
            ("fg", Value::String(name)) => style.fg = colour(name, palette, problems),
            ("bg", Value::String(name)) => style.bg = colour(name, palette, problems),
            ("fg" | "bg", _) => problems.push(format!("`{key}.{part}` is a colour in quotes")),
            ("modifiers", Value::Array(names)) => {
                for name in names {
                    let name = name.as_str().unwrap_or_default();
                    match MODIFIERS.iter().find(|(n, _)| *n == name) {
                        Some((_, modifier)) => style = style.add_modifier(*modifier),
                        None => {
                            let all = MODIFIERS.map(|(n, _)| n).join(", ");
                            problems.push(format!("unknown modifier `{name}`; there is {all}"));
                        }
                    }
                }
            }
            ("modifiers", _) => problems.push(format!("`{key}.modifiers` is a list")),
            _ => problems.push(format!("unknown part `{key}.{part}`; there is fg, bg, modifiers")),
        }
    }
    (problems.len() == before).then_some(style)
}

fn colour(name: &str, palette: Option<&Table>, problems: &mut Vec<String>) -> Option<Color> {
    let named = palette.and_then(|palette| palette.get(name)).and_then(Value::as_str);
    let value = named.unwrap_or(name);
    let found = hex(value).or_else(|| COLOURS.iter().find(|(n, _)| *n == value).map(|(_, colour)| *colour));
    if found.is_none() {
        let known = COLOURS.iter().map(|c| c.0);
        let own = palette.into_iter().flat_map(|palette| palette.keys().map(String::as_str));
        problems.push(format!("unknown colour `{value}`{}", nearest(value, known.chain(own))));
    }
    found
}

/// `#rgb` or `#rrggbb`.
fn hex(text: &str) -> Option<Color> {
    let digits = text.strip_prefix('#')?;
    let number = u32::from_str_radix(digits, 16).ok()?;
    let [_, r, g, b] = match digits.len() {
        3 => [0, (number >> 8 & 15) * 17, (number >> 4 & 15) * 17, (number & 15) * 17],
        6 => number.to_be_bytes().map(u32::from),
        _ => return None,
    };
    let byte = |n: u32| u8::try_from(n).unwrap_or(u8::MAX);
    Some(Color::Rgb(byte(r), byte(g), byte(b)))
}

fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map_or_else(String::new, |(_, candidate)| format!("; did you mean `{candidate}`?"))
}
