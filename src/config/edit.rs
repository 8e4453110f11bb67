//! Changes of the configuration file by the program: single keys of a `[[backend]]`, all else stays as it was
//! typed, comments included. Pure: text to text.

use super::BackendConfig;
use super::address::Wrong;
use std::ops::Range;
use toml_edit::{ArrayOfTables, Document, DocumentMut, Item, Table, Value};

/// The text with this backend in it. Where one of its name is there, only the keys change that differ between
/// `before` (as it was read) and `after`; else it is added at the end.
///
/// # Errors
/// When the text is not TOML, or has its backends written in a way that is not understood here.
pub fn put_backend(
    text: &str,
    before: Option<&BackendConfig>,
    after: &BackendConfig,
) -> Result<String, Wrong> {
    let (mark, bare) = without_mark(text);
    let mut document: DocumentMut = bare.parse().map_err(|error| no_toml(&error))?;
    let wanted = keys(after)?;
    let place = match document.get_mut("backend") {
        None => None,
        Some(Item::ArrayOfTables(all)) => all.iter_mut().find(|table| is_named(table, &after.name)),
        Some(_) => return Err(inline()),
    };
    let Some(table) = place else { return Ok(format!("{mark}{}", appended(bare, &wanted))) };
    let old = before.map(keys).transpose()?.unwrap_or_default();
    for (key, _) in &old {
        if !wanted.iter().any(|(known, _)| known == key) {
            table.remove(key);
        }
    }
    for (key, value) in wanted {
        if old.iter().any(|(known, was)| *known == key && was.to_string() == value.to_string()) {
            continue;
        }
        let decor = table.get(&key).and_then(Item::as_value).map(|value| value.decor().clone());
        let mut value = value;
        if let Some(decor) = decor {
            *value.decor_mut() = decor;
        }
        table.insert(&key, Item::Value(value));
    }
    Ok(format!("{mark}{document}"))
}

/// The text without the backend of this name; none when it is not there.
///
/// # Errors
/// As [`put_backend`].
pub fn remove_backend(text: &str, name: &str) -> Result<Option<String>, Wrong> {
    let (mark, bare) = without_mark(text);
    let document = Document::parse(bare).map_err(|error| no_toml(&error))?;
    let all = match document.as_table().get("backend") {
        None => return Ok(None),
        Some(Item::ArrayOfTables(all)) => all,
        Some(_) => return Err(inline()),
    };
    let Some(range) = extent(bare, all, name) else { return Ok(None) };
    let (before, after) = (bare.get(..range.start), bare.get(range.end..));
    let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
    // Of the empty lines above and below one is enough.
    let after = if before.is_empty() || before.ends_with("\n\n") || before.ends_with("\r\n\r\n") {
        after.trim_start_matches(['\r', '\n'])
    } else {
        after
    };
    let rest = format!("{before}{after}");
    let rest = if after.trim().is_empty() && !rest.trim().is_empty() {
        format!("{}\n", rest.trim_end())
    } else {
        rest
    };
    Ok(Some(format!("{mark}{rest}")))
}

/// The bytes of a table: from the comment lines right above its header to the end of its last line.
fn extent(text: &str, all: &ArrayOfTables, name: &str) -> Option<Range<usize>> {
    let table = all.iter().find(|table| is_named(table, name))?;
    let header = table.span()?.start;
    let last = table.iter().filter_map(|(_, item)| item.span()).map(|span| span.end).max()?;
    let end = text.get(last..)?.find('\n').map_or(text.len(), |at| last + at + 1);
    let mut start = text.get(..header)?.rfind('\n').map_or(0, |at| at + 1);
    while let Some(above) = text.get(..start.saturating_sub(1)).filter(|_| start > 0) {
        let line = above.rfind('\n').map_or(0, |at| at + 1);
        if !above.get(line..)?.trim_start().starts_with('#') {
            break;
        }
        start = line;
    }
    Some(start..end)
}

fn is_named(table: &Table, name: &str) -> bool {
    table.get("name").and_then(Item::as_str) == Some(name)
}

/// The keys of a backend that are set, in the order of their definition.
fn keys(backend: &BackendConfig) -> Result<Vec<(String, Value)>, Wrong> {
    let text = toml::to_string(backend)
        .map_err(|error| Wrong::new(format!("it can't be written: {error}"), "correct its values"))?;
    let document: DocumentMut = text.parse().map_err(|error| no_toml(&error))?;
    let value = |(key, item): (&str, &Item)| Some((key.to_owned(), item.as_value()?.clone()));
    Ok(document.iter().filter_map(value).collect())
}

fn appended(text: &str, keys: &[(String, Value)]) -> String {
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut out = text.trim_end().to_owned();
    if !out.is_empty() {
        out.push_str(newline);
        out.push_str(newline);
    }
    out.push_str("[[backend]]");
    out.push_str(newline);
    for (key, value) in keys {
        out.push_str(&format!("{key} = {}{newline}", value.to_string().trim()));
    }
    out
}

fn without_mark(text: &str) -> (&str, &str) {
    text.strip_prefix('\u{feff}').map_or(("", text), |rest| ("\u{feff}", rest))
}

fn no_toml(error: &toml_edit::TomlError) -> Wrong {
    let why = error.message().lines().next().unwrap_or("not TOML").to_owned();
    Wrong::new(format!("it can't be read: {why}"), "`tui config check` shows the line")
}

fn inline() -> Wrong {
    Wrong::new("its backends are written as one value", "write each as a [[backend]] of its own")
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    fn backend(name: &str, url: &str) -> BackendConfig {
        BackendConfig { name: name.to_owned(), url: url.to_owned(), ..BackendConfig::default() }
    }

    const FILE: &str = "\
# Mine.
theme = \"light\" # at night, too

# The one under the desk.
[[backend]]
name = \"box\" # not a boxer
url = 'http://box:8080'   # for now
# model = \"other\"
noisy = true

[engine]
threads = 4
[[backend]]
name = \"mac\"
url = \"https://mac\"
token_file = \"~/key\"
# The end.
";

    #[test]
    fn one_key_changes_and_nothing_else() {
        let mut before = backend("box", "http://box:8080");
        before.noisy = true;
        let mut after = before.clone();
        after.url = "https://box:7411".to_owned();
        after.fingerprint = Some("sha256:x".to_owned());
        after.noisy = false;
        let expected = FILE
            .replace("'http://box:8080'   # for now", "\"https://box:7411\"   # for now")
            .replace("# model = \"other\"\nnoisy = true\n", "fingerprint = \"sha256:x\"\n");
        assert_eq!(put_backend(FILE, Some(&before), &after), Ok(expected));
        assert_eq!(put_backend(FILE, Some(&before), &before).as_deref(), Ok(FILE), "no change");
        // As read, the path is another one than what was typed.
        let mut mac = backend("mac", "https://mac");
        mac.token_file = Some("/home/me/key".into());
        let mut paired = mac.clone();
        paired.wake = Some("0a:bb:cc:dd:ee:ff".to_owned());
        let text = put_backend(FILE, Some(&mac), &paired).expect("written");
        let typed = "token_file = \"~/key\"\nwake = \"0a:bb:cc:dd:ee:ff\"\n# The end.\n";
        assert!(text.ends_with(typed), "{text}");
    }

    #[test]
    fn a_new_one_comes_last() {
        let new = backend("new", "http://new \"x\"");
        let tail = "[[backend]]\nname = \"new\"\nurl = 'http://new \"x\"'\n";
        assert_eq!(put_backend(FILE, None, &new), Ok(format!("{FILE}\n{tail}")));
        assert_eq!(put_backend("", None, &new).as_deref(), Ok(tail));
        assert_eq!(put_backend("# only this", None, &new), Ok(format!("# only this\n\n{tail}")));
        let dos = put_backend("\u{feff}theme = \"a\"\r\n", None, &new).expect("written");
        assert_eq!(dos, format!("\u{feff}theme = \"a\"\r\n\r\n{}", tail.replace('\n', "\r\n")));
        for bad in ["backend = []", "backend = 1", "a = = 1"] {
            assert!(put_backend(bad, None, &new).is_err(), "{bad}");
            assert!(remove_backend(bad, "new").is_err(), "{bad}");
        }
    }

    #[test]
    fn one_goes_with_its_own_comments() {
        let without = "\
# Mine.
theme = \"light\" # at night, too

[engine]
threads = 4
[[backend]]
name = \"mac\"
url = \"https://mac\"
token_file = \"~/key\"
# The end.
";
        assert_eq!(remove_backend(FILE, "box"), Ok(Some(without.to_owned())));
        assert_eq!(
            remove_backend(without, "mac"),
            Ok(Some(
                "# Mine.\ntheme = \"light\" # at night, too\n\n[engine]\nthreads = 4\n# The end.\n"
                    .to_owned()
            ))
        );
        assert_eq!(remove_backend(FILE, "nowhere"), Ok(None));
        assert_eq!(remove_backend("", "nowhere"), Ok(None));
        let only = "# About.\n\n[[backend]]\nname = \"a\"\nurl = \"\"\"http://a\n[[x]]\"\"\"";
        assert_eq!(remove_backend(only, "a").as_ref().map(Option::as_deref), Ok(Some("# About.\n")));
    }
}
