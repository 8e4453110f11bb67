//! Colours for code: syntect's grammars to roles of the theme, line by line.
//!
//! The grammars are read by a thread of their own when code is first seen; until then code is plain.
//! What costs too much is plain as well: very long lines, and whatever follows [`MAX_BYTES`] of a block.

use crate::theme::Role;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use syntect::parsing::{ParseState, Scope, ScopeStack, SyntaxReference, SyntaxSet};

/// Bytes of one block that get colours: about 20 ms of work.
pub const MAX_BYTES: usize = 64 * 1024;

/// Bytes of one line that get colours.
pub const MAX_LINE: usize = 4 * 1024;

/// A single line that takes this long meets a grammar's worst case: the rest of its block is plain.
const MAX_LINE_TIME: Duration = Duration::from_millis(100);

static GRAMMARS: OnceLock<SyntaxSet> = OnceLock::new();
static IS_LOADING: AtomicBool = AtomicBool::new(false);
type Callback = Box<dyn FnOnce() + Send>;
static ON_READY: Mutex<Option<Callback>> = Mutex::new(None);

/// Calls `then` once when the grammars have been read: what was drawn plain can be drawn again. It is
/// called at once if that has happened, and never if no code is ever seen.
pub fn on_ready(then: impl FnOnce() + Send + 'static) {
    *ON_READY.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(then));
    if GRAMMARS.get().is_some() {
        tell();
    }
}

fn tell() {
    let then = ON_READY.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(then) = then {
        then();
    }
}

/// Reads the grammars now and waits for it: for tests and benches, where a frame must not depend on time.
pub fn load() {
    GRAMMARS.get_or_init(two_face::syntax::extra_newlines);
}

fn grammars() -> Option<&'static SyntaxSet> {
    let set = GRAMMARS.get();
    if set.is_none() && !IS_LOADING.swap(true, Ordering::Relaxed) {
        let reader = std::thread::Builder::new().name("grammars".to_owned()).spawn(|| {
            load();
            tell();
        });
        if let Err(error) = reader {
            tracing::warn!(%error, "no thread for the grammars; code stays plain");
        }
    }
    set
}

/// The colours of one line: where each ends (in bytes of the line) and its role.
pub type LineColours = Vec<(usize, Role)>;

/// The colours of one code block, kept while it grows.
#[derive(Debug, Default)]
pub struct Highlight {
    phase: Phase,
    lines: Vec<LineColours>,
    bytes: usize,
    roles: HashMap<Scope, Option<Role>>,
}

#[derive(Debug, Default)]
enum Phase {
    /// Grammars were not there yet.
    #[default]
    Waiting,
    Parsing(Box<(ParseState, ScopeStack)>),
    Plain,
}

impl Highlight {
    /// Makes ready for a block in the language its info word names.
    #[must_use]
    pub fn new(info: &str) -> Self {
        let Some(set) = grammars() else { return Self::default() };
        let phase = syntax(set, info).map_or(Phase::Plain, |syntax| {
            Phase::Parsing(Box::new((ParseState::new(syntax), ScopeStack::new())))
        });
        Self { phase, ..Self::default() }
    }

    /// Whether it was made before the grammars were there and they are now: make it anew.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        matches!(self.phase, Phase::Waiting) && GRAMMARS.get().is_some()
    }

    /// How many lines have been fed.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether no line has been fed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Takes the next whole line, without its line break.
    pub fn feed(&mut self, line: &str) {
        self.bytes += line.len();
        let colours = match &mut self.phase {
            Phase::Parsing(state) if line.len() <= MAX_LINE && self.bytes <= MAX_BYTES => {
                let began = Instant::now();
                let colours = parse(line, &mut state.0, &mut state.1, &mut self.roles);
                if colours.is_none() || began.elapsed() > MAX_LINE_TIME {
                    self.phase = Phase::Plain;
                }
                colours.unwrap_or_default()
            }
            Phase::Parsing(_) => {
                self.phase = Phase::Plain;
                LineColours::new()
            }
            Phase::Waiting | Phase::Plain => LineColours::new(),
        };
        self.lines.push(colours);
    }

    /// The colours of a line that was fed.
    #[must_use]
    pub fn line(&self, at: usize) -> &[(usize, Role)] {
        self.lines.get(at).map_or(&[], Vec::as_slice)
    }

    /// The colours of the line after those fed, as far as it has come.
    #[must_use]
    pub fn peek(&mut self, line: &str) -> LineColours {
        match &self.phase {
            Phase::Parsing(state) if line.len() <= MAX_LINE && self.bytes + line.len() <= MAX_BYTES => {
                let (mut parser, mut stack) = (**state).clone();
                parse(line, &mut parser, &mut stack, &mut self.roles).unwrap_or_default()
            }
            _ => LineColours::new(),
        }
    }
}

/// The grammar for an info word such as `rust`, `rs`, `rust,ignore`, `{.python}` or `js:src/app.js`.
fn syntax<'a>(set: &'a SyntaxSet, info: &str) -> Option<&'a SyntaxReference> {
    let word = info.trim_start_matches(['{', '.']).split([',', ':', ';', '{', '}']).next()?;
    let word = match word.to_ascii_lowercase().as_str() {
        "" | "text" | "txt" | "plain" | "plaintext" => return None,
        "shell" | "console" | "shellsession" => "bash".to_owned(),
        "c++" => "cpp".to_owned(),
        "golang" => "go".to_owned(),
        "jsonc" | "json5" => "json".to_owned(),
        other => other.to_owned(),
    };
    set.find_syntax_by_token(&word)
}

fn parse(
    line: &str,
    parser: &mut ParseState,
    stack: &mut ScopeStack,
    roles: &mut HashMap<Scope, Option<Role>>,
) -> Option<LineColours> {
    let set = GRAMMARS.get()?;
    let ops = parser.parse_line(&format!("{line}\n"), set).ok()?;
    let mut colours = LineColours::new();
    let mut push = |upto: usize, role: Role| match colours.last_mut() {
        Some((end, same)) if *same == role => *end = upto,
        Some((end, _)) if *end >= upto => {}
        None if upto == 0 => {}
        _ => colours.push((upto, role)),
    };
    for (at, op) in &ops {
        push((*at).min(line.len()), role(stack, roles));
        stack.apply(op).ok()?;
    }
    push(line.len(), role(stack, roles));
    Some(colours)
}

/// The role of the innermost scope that has one. Punctuation belongs to the string or comment around it.
fn role(stack: &ScopeStack, roles: &mut HashMap<Scope, Option<Role>>) -> Role {
    let mut fallback = Role::Text;
    for scope in stack.as_slice().iter().rev() {
        match *roles.entry(*scope).or_insert_with(|| role_of(*scope)) {
            Some(Role::Punctuation) => fallback = Role::Punctuation,
            Some(role @ (Role::String | Role::Comment)) => return role,
            Some(role) => return if fallback == Role::Punctuation { fallback } else { role },
            None => {}
        }
    }
    fallback
}

/// Scope prefixes and what they are; the first that fits counts.
const SCOPES: [(&str, Role); 36] = [
    ("comment", Role::Comment),
    ("constant.character.escape", Role::Number),
    ("constant.other.placeholder", Role::Number),
    ("string", Role::String),
    ("constant", Role::Number),
    ("keyword.operator.word", Role::Keyword),
    ("keyword.operator", Role::Operator),
    ("keyword", Role::Keyword),
    ("storage", Role::Keyword),
    ("variable.language", Role::Keyword),
    ("variable.annotation", Role::Attribute),
    ("variable.function", Role::Function),
    ("entity.name.function", Role::Function),
    ("entity.name.macro", Role::Function),
    ("support.function", Role::Function),
    ("support.macro", Role::Function),
    ("entity.name.tag", Role::Keyword),
    ("entity.name.section", Role::Heading),
    ("entity.name", Role::Type),
    ("entity.other.inherited-class", Role::Type),
    ("entity.other.attribute-name", Role::Attribute),
    ("support.type.property-name", Role::Attribute),
    ("support.type", Role::Type),
    ("support.class", Role::Type),
    ("support.constant", Role::Number),
    ("meta.mapping.key", Role::Attribute),
    ("meta.annotation", Role::Attribute),
    ("meta.attribute", Role::Attribute),
    ("markup.inserted", Role::Good),
    ("markup.deleted", Role::Bad),
    ("markup.heading", Role::Heading),
    ("markup.raw", Role::Code),
    ("meta.diff.header", Role::Heading),
    ("meta.diff.range", Role::Attribute),
    ("punctuation", Role::Punctuation),
    ("invalid", Role::Bad),
];

fn role_of(scope: Scope) -> Option<Role> {
    static PREFIXES: OnceLock<Vec<(Scope, Role)>> = OnceLock::new();
    let prefixes = PREFIXES.get_or_init(|| {
        SCOPES.iter().filter_map(|(name, role)| Some((Scope::new(name).ok()?, *role))).collect()
    });
    prefixes.iter().find(|(prefix, _)| prefix.is_prefix_of(scope)).map(|(_, role)| *role)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::string_slice, reason = "a wrong index fails the test")]

    use super::*;
    use pretty_assertions::assert_eq;

    fn coloured(info: &str, source: &str) -> Vec<Vec<(String, Role)>> {
        load();
        let mut highlight = Highlight::new(info);
        for line in source.lines() {
            highlight.feed(line);
        }
        source
            .lines()
            .enumerate()
            .map(|(at, line)| {
                let mut start = 0;
                let mut out = Vec::new();
                for (end, role) in highlight.line(at) {
                    let text = line[start..*end].trim();
                    if !text.is_empty() {
                        out.push((text.to_owned(), *role));
                    }
                    start = *end;
                }
                out
            })
            .collect()
    }

    fn has(lines: &[Vec<(String, Role)>], text: &str, role: Role) {
        assert!(lines.iter().flatten().any(|(t, r)| t == text && *r == role), "{text} {role:?} in {lines:?}");
    }

    #[test]
    fn rust_and_python_get_roles() {
        let lines =
            coloured("rust", "// say\nfn main() {\n    let x: u32 = 42;\n    println!(\"hi {x}\");\n}\n");
        has(&lines, "// say", Role::Comment);
        has(&lines, "fn", Role::Keyword);
        has(&lines, "main", Role::Function);
        has(&lines, "42", Role::Number);
        has(&lines, "u32", Role::Keyword);
        assert!(lines[3].iter().any(|(t, r)| t.contains("hi") && *r == Role::String), "{lines:?}");
        let lines = coloured("py", "def f(a):\n    return \"x\"  # y\n");
        has(&lines, "def", Role::Keyword);
        has(&lines, "f", Role::Function);
        has(&lines, "\"x\"", Role::String);
        has(&lines, "# y", Role::Comment);
    }

    #[test]
    fn languages_of_the_extra_grammars_and_loose_info_words() {
        for info in [
            "toml",
            "TypeScript",
            "rust,ignore",
            "{.python}",
            "js:src/app.js",
            "shell",
            "golang",
            "dockerfile",
        ] {
            load();
            assert!(matches!(Highlight::new(info).phase, Phase::Parsing(_)), "{info}");
        }
        assert!(matches!(Highlight::new("klingon").phase, Phase::Plain));
        assert!(matches!(Highlight::new("").phase, Phase::Plain));
    }

    #[test]
    fn peeking_changes_nothing_and_agrees_with_feeding() {
        load();
        let mut highlight = Highlight::new("rust");
        highlight.feed("/* a");
        let peeked = highlight.peek("still */ let x = 1;");
        assert_eq!(highlight.len(), 1);
        highlight.feed("still */ let x = 1;");
        assert_eq!(highlight.line(1), peeked);
        assert_eq!(peeked.first().map(|c| c.1), Some(Role::Comment));
    }

    #[test]
    fn long_lines_and_long_blocks_are_plain_from_there() {
        load();
        let mut highlight = Highlight::new("rust");
        highlight.feed("let a = 1;");
        highlight.feed(&"x".repeat(MAX_LINE + 1));
        highlight.feed("let b = 1;");
        assert!(!highlight.line(0).is_empty());
        assert!(highlight.line(1).is_empty() && highlight.line(2).is_empty());
    }
}
