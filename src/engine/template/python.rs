//! What Hugging Face's templates expect of Python that minijinja leaves out: methods, `tojson`,
//! `strftime_now`, `raise_exception`, the `generation` tags.

use minijinja::value::{Kwargs, Value, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State};
use std::fmt;

/// Nested deeper than this, a value is not written as JSON.
const MAX_JSON_DEPTH: usize = 64;

/// The text a template passed to `raise_exception`.
#[derive(Debug)]
pub(super) struct Raised(pub(super) String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// Adds the methods, filters and functions.
pub(super) fn add_to(env: &mut Environment<'static>) {
    env.set_unknown_method_callback(|state, value, method, args| {
        charge(state, value, method, args)?;
        match method_of(value, method, args) {
            Err(error) if error.kind() == ErrorKind::UnknownMethod => {
                minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
            }
            other => other,
        }
    });
    env.add_filter("tojson", to_json);
    env.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "raised").with_source(Raised(message)))
    });
}

/// The function `strftime_now`, bound to one moment.
pub(super) fn strftime_at(now: jiff::Zoned) -> Value {
    Value::from_function(move |format: String| -> Result<String, Error> {
        jiff::fmt::strtime::format(format, &now)
            .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {error}")))
    })
}

/// Replaces the `generation` tags, which only training needs, by tags that do nothing and trim alike.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, tail)) = rest.split_once("{%") {
        out.push_str(before);
        let inside = tail.trim_start_matches(['-', '+']);
        let open = tail.len() - inside.len();
        let word = inside.trim_start();
        let (name, instead) = if word.starts_with("generation") {
            ("generation", " if true ")
        } else if word.starts_with("endgeneration") {
            ("endgeneration", " endif ")
        } else {
            ("", "")
        };
        let after = word.get(name.len()..).unwrap_or_default();
        let end = after.trim_start();
        if !name.is_empty() && (end.starts_with("%}") || end.starts_with("-%}") || end.starts_with("+%}")) {
            out.push_str("{%");
            out.push_str(tail.get(..open).unwrap_or_default());
            out.push_str(instead);
            rest = end;
        } else {
            out.push_str("{%");
            rest = tail;
        }
    }
    out.push_str(rest);
    out
}

fn unknown() -> Error {
    Error::from(ErrorKind::UnknownMethod)
}

fn failed(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.into())
}

/// Makes a method pay for its work and for what it makes before it is called: minijinja charges for its own
/// filters, but not for Python's methods.
fn charge(state: &State, value: &Value, method: &str, args: &[Value]) -> Result<(), Error> {
    let Some(text) = value.as_str() else { return state.consume_fuel(1) };
    let of_arg = |index: usize| args.get(index).and_then(Value::as_str).unwrap_or_default();
    let made = match method {
        "replace" => {
            let places = text.matches(of_arg(0)).count();
            text.len().saturating_add(places.saturating_mul(of_arg(1).len()))
        }
        "join" => {
            let mut sum = 0_usize;
            if let Some(Ok(items)) = args.first().map(Value::try_iter) {
                for item in items {
                    state.consume_fuel(1)?;
                    let len = item.as_str().map_or(64, str::len);
                    sum = sum.saturating_add(text.len()).saturating_add(len);
                }
            }
            sum
        }
        "format" => {
            check_widths(text)?;
            text.len()
        }
        // Each part is a value of its own.
        "split" | "rsplit" | "splitlines" => text.len().saturating_mul(16),
        _ => text.len(),
    };
    state.consume_fuel(1 + made as u64 / 64)
}

/// Refuses a format that asks for very wide fields, or for widths that come from the arguments.
fn check_widths(format: &str) -> Result<(), Error> {
    let mut digits = 0;
    let mut before = ' ';
    for c in format.chars() {
        digits = if c.is_ascii_digit() { digits + 1 } else { 0 };
        // A brace within a field stands for a width given elsewhere.
        if digits > 4 || (c == '{' && before != '{' && before_is_field(before)) {
            return Err(failed("the format asks for a very wide field"));
        }
        before = c;
    }
    Ok(())
}

fn before_is_field(c: char) -> bool {
    matches!(c, ':' | '<' | '>' | '^' | '.' | '=' | '+' | '-')
}

fn method_of(value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => string_method(value.as_str().ok_or_else(unknown)?, method, args),
        ValueKind::Seq => match method {
            "index" => {
                let (wanted,): (Value,) = from_args(args)?;
                value
                    .try_iter()?
                    .position(|item| item == wanted)
                    .map(Value::from)
                    .ok_or_else(|| failed("the value is not in the list"))
            }
            "copy" => Ok(value.clone()),
            _ => Err(unknown()),
        },
        ValueKind::Map if method == "copy" => Ok(value.clone()),
        _ => Err(unknown()),
    }
}

fn string_method(s: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let found = |at: Option<usize>| {
        at.map(|at| s.get(..at).unwrap_or_default().chars().count())
            .map(Value::from)
            .ok_or_else(|| failed("substring not found"))
    };
    Ok(match method {
        "removeprefix" => {
            let (part,): (String,) = from_args(args)?;
            Value::from(s.strip_prefix(part.as_str()).unwrap_or(s))
        }
        "removesuffix" => {
            let (part,): (String,) = from_args(args)?;
            Value::from(s.strip_suffix(part.as_str()).unwrap_or(s))
        }
        "index" => {
            let (part,): (String,) = from_args(args)?;
            return found(s.find(part.as_str()));
        }
        "rindex" => {
            let (part,): (String,) = from_args(args)?;
            return found(s.rfind(part.as_str()));
        }
        "partition" => {
            let (part,): (String,) = from_args(args)?;
            three(s.split_once(part.as_str()).map_or((s, "", ""), |(a, b)| (a, &part, b)))
        }
        "rpartition" => {
            let (part,): (String,) = from_args(args)?;
            three(s.rsplit_once(part.as_str()).map_or(("", "", s), |(a, b)| (a, &part, b)))
        }
        "rsplit" => {
            let (part, most): (Option<String>, Option<i64>) = from_args(args)?;
            let most = most.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX - 1);
            let mut all: Vec<&str> = match &part {
                Some(part) if part.is_empty() => return Err(failed("empty separator")),
                Some(part) => s.rsplitn(most.saturating_add(1), part.as_str()).collect(),
                None if most == usize::MAX - 1 => s.split_whitespace().rev().collect(),
                None => return Err(failed("rsplit without a separator takes no limit here")),
            };
            all.reverse();
            all.into_iter().map(Value::from).collect()
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            let (sign, digits) = match s.strip_prefix(['-', '+']) {
                Some(digits) => (s.get(..1).unwrap_or_default(), digits),
                None => ("", s),
            };
            let missing = padding(s, width)?;
            Value::from(format!("{sign}{}{digits}", "0".repeat(missing)))
        }
        "ljust" | "rjust" | "center" => {
            let (width, fill): (usize, Option<String>) = from_args(args)?;
            let missing = padding(s, width)?;
            let fill = fill.unwrap_or_else(|| " ".to_owned());
            let left = match method {
                "ljust" => 0,
                "rjust" => missing,
                _ => missing / 2,
            };
            Value::from(format!("{}{s}{}", fill.repeat(left), fill.repeat(missing - left)))
        }
        "casefold" => Value::from(s.to_lowercase()),
        "swapcase" => {
            let swap = |c: char| -> String {
                if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
            };
            Value::from(s.chars().map(swap).collect::<String>())
        }
        "encode" | "decode" => Value::from(s),
        _ => return Err(unknown()),
    })
}

fn three((head, mark, tail): (&str, &str, &str)) -> Value {
    [head, mark, tail].into_iter().map(Value::from).collect()
}

/// How many characters are missing to a width; absurd widths are refused, because these methods are not
/// charged for while they work.
fn padding(s: &str, width: usize) -> Result<usize, Error> {
    if width > 4096 {
        return Err(failed("wider than 4096 characters"));
    }
    Ok(width.saturating_sub(s.chars().count()))
}

/// `json.dumps` with `ensure_ascii=False` unless asked: nothing is escaped for HTML, and separators are
/// followed by a space.
#[expect(clippy::needless_pass_by_value, reason = "filters take their arguments by value")]
fn to_json(state: &State, value: &Value, kwargs: Kwargs) -> Result<Value, Error> {
    let indent = match kwargs.get::<Option<Value>>("indent")? {
        Some(value) if value.is_none() => None,
        Some(value) => Some(usize::try_from(value).map_err(|_| failed("tojson: indent must be a number"))?),
        None => None,
    };
    if indent.is_some_and(|n| n > 16) {
        return Err(failed("tojson: indent is over 16"));
    }
    let separators = kwargs.get::<Option<Vec<String>>>("separators")?;
    let (comma, colon) = match separators.as_deref() {
        Some([comma, colon]) => (comma.clone(), colon.clone()),
        Some(_) => return Err(failed("tojson: separators must be two strings")),
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
    };
    let json = Json {
        indent,
        comma,
        colon,
        is_ascii: kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        is_sorted: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        state,
    };
    kwargs.assert_all_used()?;
    let mut out = String::new();
    json.write(value, 0, &mut out)?;
    Ok(Value::from(out))
}

struct Json<'a> {
    indent: Option<usize>,
    comma: String,
    colon: String,
    is_ascii: bool,
    is_sorted: bool,
    /// Pays for what is written while it is written.
    state: &'a State<'a, 'a>,
}

impl Json<'_> {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        if depth > MAX_JSON_DEPTH {
            return Err(failed("tojson: nested too deeply"));
        }
        self.state.consume_fuel(1)?;
        match value.kind() {
            ValueKind::Undefined | ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::String => self.text(value.as_str().unwrap_or_default(), out),
            ValueKind::Number => out.push_str(&value.to_string()),
            ValueKind::Seq | ValueKind::Iterable => {
                let mut is_first = true;
                out.push('[');
                for item in value.try_iter()? {
                    self.before_item(is_first, depth + 1, out);
                    is_first = false;
                    self.write(&item, depth + 1, out)?;
                }
                self.end(is_first, depth, out);
                out.push(']');
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.is_sorted {
                    keys.sort();
                }
                let is_empty = keys.is_empty();
                out.push('{');
                for (index, key) in keys.iter().enumerate() {
                    self.before_item(index == 0, depth + 1, out);
                    self.text(&key.to_string(), out);
                    out.push_str(&self.colon);
                    self.write(&value.get_item(key)?, depth + 1, out)?;
                }
                self.end(is_empty, depth, out);
                out.push('}');
            }
            other => return Err(failed(format!("tojson: a {other} is not JSON"))),
        }
        Ok(())
    }

    fn before_item(&self, is_first: bool, depth: usize, out: &mut String) {
        if !is_first {
            out.push_str(&self.comma);
        }
        self.new_line(depth, out);
    }

    fn end(&self, is_empty: bool, depth: usize, out: &mut String) {
        if !is_empty {
            self.new_line(depth, out);
        }
    }

    fn new_line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn text(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.is_ascii && !c.is_ascii()) => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}
