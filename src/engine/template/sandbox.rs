//! Running templates as the foreign programs they are: bounded time, bounded output, a stack that holds.

use super::{
    ANOTHER_MODEL, PromptMessage, RenderOptions, TemplateError, TemplateErrorKind, next_step, python,
};
use crate::engine::gguf::plain;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, ErrorKind};
use std::io::Write;

const NAME: &str = "chat";
/// Compiling a tag takes time that grows with the square of its length, and nothing bounds that but this:
/// the sum of the squares of the lengths, outside of strings, of all tags that are long.
const MAX_SQUARES: usize = (8 << 10) * (8 << 10);
const LONG_TAG: usize = 512;
/// Steps one rendering may take, and what each byte of the conversation adds (one step pays for 64 bytes).
const FUEL: u64 = 1_000_000;
/// Bytes of stack for compiling and rendering.
const STACK: usize = 512 << 20;
const MAX_OUTPUT: usize = 64 << 10;

/// Compiles a template.
pub(super) fn compile(model: &str, source: &str) -> Result<Environment<'static>, TemplateError> {
    on_large_stack(model, || environment(source).map_err(|error| explain(model, &error)))
}

/// Renders a compiled template.
pub(super) fn render(
    model: &str,
    mut env: Environment<'static>,
    context: Value,
    limits: Limits,
) -> Result<Vec<u8>, TemplateError> {
    env.set_fuel(Some(limits.fuel));
    on_large_stack(model, move || {
        let mut out = Capped { bytes: Vec::new(), left: limits.output, is_over: false };
        let result = env
            .get_template(NAME)
            .and_then(|template| template.render_captured_to(context, &mut out).map(drop));
        if out.is_over {
            return Err(TemplateError {
                kind: TemplateErrorKind::Runaway,
                model: model.to_owned(),
                what: format!("wrote more than {} bytes for this conversation", limits.output),
                next: ANOTHER_MODEL,
            });
        }
        result.map_err(|error| explain(model, &error))?;
        Ok(out.bytes)
    })
}

/// Runs foreign code on a thread of its own with a stack that the deepest nesting of a template of the
/// largest size fits into; an overflow would end the process. The pages are taken only when used.
fn on_large_stack<T: Send>(
    model: &str,
    work: impl FnOnce() -> Result<T, TemplateError> + Send,
) -> Result<T, TemplateError> {
    let failed = |what: &str| TemplateError {
        kind: TemplateErrorKind::Failed,
        model: model.to_owned(),
        what: what.to_owned(),
        next: ANOTHER_MODEL,
    };
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("template".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, work)
            .map_err(|error| failed(&format!("can't be run: no thread: {error}")))?
            .join()
            .unwrap_or_else(|_| Err(failed("can't be run: the template engine panicked")))
    })
}

fn environment(source: &str) -> Result<Environment<'static>, minijinja::Error> {
    let mut env = Environment::new();
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_recursion_limit(100);
    env.set_fuel(Some(FUEL));
    env.set_debug(false);
    python::add_to(&mut env);
    env.add_template_owned(NAME, source.to_owned())?;
    Ok(env)
}

/// The line where the tags so far are too long together.
pub(super) fn overlong_tag(source: &str) -> Option<usize> {
    let bytes = source.as_bytes();
    let (mut at, mut line, mut squares) = (0, 1, 0_usize);
    while let Some(pair) = bytes.get(at..at + 2) {
        line += usize::from(pair.first() == Some(&b'\n'));
        match pair {
            b"{#" => {
                let rest = source.get(at..).unwrap_or_default();
                let len = rest.find("#}").unwrap_or(rest.len());
                line += rest.get(..len).unwrap_or_default().matches('\n').count();
                at += len.max(1);
            }
            b"{{" | b"{%" => {
                let (mut code, mut quote) = (0, None);
                at += 2;
                while let Some(byte) = bytes.get(at) {
                    line += usize::from(*byte == b'\n');
                    match (quote, byte) {
                        (Some(_), b'\\') => at += 1,
                        (Some(open), byte) if open == *byte => quote = None,
                        (Some(_), _) => {}
                        (None, b'"' | b'\'') => {
                            quote = Some(*byte);
                            code += 2;
                        }
                        (None, b'}') if matches!(bytes.get(at - 1), Some(b'}' | b'%')) => break,
                        (None, _) => code += 1,
                    }
                    at += 1;
                }
                if code > LONG_TAG {
                    squares = squares.saturating_add(code * code);
                }
                if squares > MAX_SQUARES {
                    return Some(line);
                }
            }
            _ => at += 1,
        }
    }
    None
}

/// What one rendering may use, from the size of the conversation.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    fuel: u64,
    output: usize,
}

impl Limits {
    pub(super) fn of(messages: &[PromptMessage], options: &RenderOptions) -> Self {
        let variables: usize = options.variables.values().map(json_size).sum();
        // The role and what stands around a message count as some words of it.
        let input = messages.iter().map(|m| m.content.len() + 64).sum::<usize>().saturating_add(variables);
        Self {
            // A long conversation takes more steps than a short one, whatever the template.
            fuel: FUEL + 200 * messages.len() as u64 + input as u64 / 4,
            output: input.saturating_mul(4).saturating_add(MAX_OUTPUT),
        }
    }
}

fn json_size(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::String(s) => s.len(),
        serde_json::Value::Array(all) => all.iter().map(json_size).sum::<usize>() + 2 * all.len(),
        serde_json::Value::Object(all) => all.iter().map(|(k, v)| k.len() + json_size(v) + 4).sum(),
        _ => 8,
    }
}

/// Takes bytes until there are too many.
struct Capped {
    bytes: Vec<u8>,
    left: usize,
    is_over: bool,
}

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let Some(left) = self.left.checked_sub(bytes.len()) else {
            self.is_over = true;
            return Err(std::io::ErrorKind::WriteZero.into());
        };
        self.left = left;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn explain(model: &str, error: &minijinja::Error) -> TemplateError {
    let mut source = std::error::Error::source(error);
    let raised = std::iter::from_fn(|| {
        let current = source?;
        source = current.source();
        Some(current)
    })
    .find_map(|cause| cause.downcast_ref::<python::Raised>());
    let (kind, what) = match (raised, error.kind()) {
        (Some(raised), _) => {
            (TemplateErrorKind::Refused, format!("refuses this conversation: {}", plain(&raised.0, 200)))
        }
        (None, ErrorKind::OutOfFuel) => (TemplateErrorKind::Runaway, "runs for too long".to_owned()),
        (None, kind) => {
            let line = error.line().map(|line| format!(" at line {line}")).unwrap_or_default();
            let detail = error.detail().map(|d| format!(": {}", plain(d, 200))).unwrap_or_default();
            let (ours, verb) = match kind {
                ErrorKind::SyntaxError => (TemplateErrorKind::Syntax, "can't be compiled"),
                _ => (TemplateErrorKind::Failed, "fails"),
            };
            (ours, format!("{verb}{line}: {kind}{detail}"))
        }
    };
    TemplateError { kind, model: model.to_owned(), what, next: next_step(kind) }
}
