//! What is not sent, because the server would do something else with it.

use crate::chat::{GenError, GenErrorKind, GenRequest, Role};
use crate::config::{BackendKind, Continues};

/// Why a server of this kind can't be asked this; none when it can.
pub(super) fn why_not(backend: &str, kind: BackendKind, request: &GenRequest) -> Option<GenError> {
    let able = kind.abilities();
    let what = |why: &str, next: &str| {
        let message = format!("{backend} is {}: {why}\n{next}", kind.words());
        Some(GenError::new(GenErrorKind::Refused, message))
    };
    if request.max_tokens == Some(0) && !able.warms {
        return what("it can't prefill a prompt without answering it", "send the question");
    }
    if request.schema.is_some() && !able.schemas {
        return what("it would take no notice of a schema", "choose another backend");
    }
    let goes_on = request.messages.last().is_some_and(|last| last.role == Role::Assistant);
    match kind.why_not_continue() {
        Some(why) if goes_on && able.continues == Continues::No => what(
            &format!("an answer can't be continued there: {why}"),
            "retry it, or continue it on another backend",
        ),
        _ => None,
    }
}
