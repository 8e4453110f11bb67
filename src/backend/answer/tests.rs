//! Tests of one generation over a scripted server.

use super::*;
use crate::backend::Marks;
use crate::backend::dialect::Known;
use crate::backend::http::{Http, Key};
use crate::chat::{Channel, Message, Role, Sampling};
use futures_util::StreamExt;

#[path = "../../../tests/support/fake_server.rs"]
mod fake_server;
use fake_server::{FakeServer, Reply, Step};

#[tokio::test]
async fn silence_ends_an_answer_and_hangs_up() {
    let text = b"data: {\"choices\":[{\"delta\":{\"content\":\"half\"}}]}\n\n".to_vec();
    let end = b"data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n".to_vec();
    let cases = [
        (vec![Step::Hang], 0),
        (vec![Step::Send(text.clone()), Step::Hang], 1),
        (vec![Step::Send(text), Step::Send(end), Step::Hang], 2),
    ];
    for (steps, stage) in cases {
        let server = FakeServer::tcp(move |_| Reply::stream(steps.clone())).await;
        let http = Arc::new(Http::tcp("mac", server.url(), Key::None).expect("a good address"));
        let patience = Patience { first: Duration::from_millis(500), between: Duration::from_millis(100) };
        let known = Known::new(Some(BackendKind::Openai));
        let inner = Inner {
            name: "mac".to_owned(),
            default_model: None,
            http,
            engine: None,
            patience,
            known,
            wake: None,
            learned: None,
            marks: Marks::default(),
        };
        let request = GenRequest {
            model: "small".to_owned(),
            messages: vec![Message::new(Role::User, "Hi")],
            sampling: Sampling::default(),
            max_tokens: None,
            stop: Vec::new(),
            schema: None,
            session: None,
            is_ahead: false,
        };
        let events: Vec<GenEvent> = stream(Arc::new(inner), request).collect().await;
        let has_text =
            events.contains(&GenEvent::Delta { channel: Channel::Answer, text: "half".to_owned() });
        assert_eq!(has_text, stage > 0, "{events:?}");
        match events.last() {
            Some(GenEvent::Failed(error)) if stage < 2 => assert_eq!(error.kind, GenErrorKind::Timeout),
            Some(GenEvent::Done { .. }) if stage == 2 => {}
            other => panic!("{other:?}"),
        }
        server.hangups(1).await;
    }
}
