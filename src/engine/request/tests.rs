//! Tests of request parsing.

use super::*;
use pretty_assertions::assert_eq;
use proptest::prelude::*;
use serde_json::json;

#[expect(clippy::needless_pass_by_value, reason = "reads better in the cases")]
fn with(extra: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "Hi"}]});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

fn parse(extra: Value) -> ChatRequest {
    ChatRequest::parse(&with(extra)).unwrap()
}

fn refused(extra: Value) -> String {
    ChatRequest::parse(&with(extra)).unwrap_err().message
}

#[test]
fn the_smallest_request_has_the_defaults_of_llama_server() {
    let request = parse(json!({}));
    assert_eq!(request.model, None);
    assert_eq!(request.generation.sampling, SamplingParams::default());
    assert_eq!(request.generation.max_tokens, None);
    assert!(request.generation.cache_prompt);
    assert!(!request.stream && !request.include_usage && !request.return_progress);
    assert_eq!(request.render.ending, Ending::Answer);
}

#[test]
fn guessing_and_sessions() {
    let draft = |extra| parse(extra).generation.draft;
    assert_eq!(draft(json!({})), None);
    assert_eq!(draft(json!({"draft": true})), None);
    assert_eq!(draft(json!({"draft": false, "speculative.n_max": 5})), Some(0));
    assert_eq!(draft(json!({"speculative.n_max": 0})), Some(0));
    assert_eq!(draft(json!({"speculative.n_max": 5})), Some(5));
    assert!(refused(json!({"speculative.n_max": -1})).contains("speculative.n_max"));
    assert_eq!(parse(json!({"duet_session": ""})).generation.session, None);
    assert_eq!(parse(json!({"duet_session": "a-b"})).generation.session.as_deref(), Some("a-b"));
    assert!(refused(json!({"duet_session": "x".repeat(129)})).contains("duet_session"));
    assert!(parse(json!({"duet_ahead": true, "max_tokens": 0})).generation.is_ahead);
    assert!(refused(json!({"duet_ahead": true, "max_tokens": 1})).contains("duet_ahead"));
    assert_eq!(parse_session(&json!({"session": "a"})).unwrap(), "a");
    for body in [json!({}), json!({"session": ""}), json!({"session": 5}), json!([])] {
        assert!(parse_session(&body).is_err(), "{body}");
    }
}

#[test]
fn every_field_is_read() {
    let request = parse(json!({
        "model": " m ", "stream": true, "stream_options": {"include_usage": true}, "max_tokens": 7,
        "temperature": 0, "top_k": 5, "top_p": 0.5, "min_p": 0.1, "repeat_penalty": 1.1, "repeat_last_n": -1,
        "presence_penalty": -0.5, "frequency_penalty": 0.25, "seed": 42, "stop": ["a", "", "b"],
        "logit_bias": {"15": -100, "hi": 2.5}, "ignore_eos": true, "cache_prompt": false,
        "return_progress": true, "timings_per_token": true, "reasoning_effort": "none",
        "chat_template_kwargs": {"x": [1]}, "unknown_field": {"anything": 1}, "reasoning_format": "auto"
    }));
    assert_eq!(request.model.as_deref(), Some("m"));
    assert!(request.stream && request.include_usage && request.return_progress && request.timings_per_token);
    let generation = request.generation;
    assert_eq!(
        (generation.max_tokens, generation.ignore_eos, generation.cache_prompt),
        (Some(7), true, false)
    );
    assert_eq!(
        generation.sampling,
        SamplingParams {
            temperature: 0.0,
            top_k: 5,
            top_p: 0.5,
            min_p: 0.1,
            repeat_penalty: 1.1,
            repeat_last_n: -1,
            presence_penalty: -0.5,
            frequency_penalty: 0.25,
            seed: Some(42),
        }
    );
    assert_eq!(generation.stop, ["a", "b"]);
    assert_eq!(
        generation.logit_bias,
        [
            LogitBias { token: BiasToken::Id(15), bias: -100.0 },
            LogitBias { token: BiasToken::Text("hi".to_owned()), bias: 2.5 }
        ]
    );
    assert_eq!(Value::Object(request.render.variables), json!({"x": [1], "enable_thinking": false}));
}

#[test]
fn wrong_values_name_the_field() {
    let cases = [
        (json!({"temperature": "hot"}), "temperature must be a number from 0 to 100, got \"hot\""),
        (json!({"temperature": -0.1}), "temperature must be a number from 0 to 100, got -0.1"),
        (json!({"temperature": 1e300}), "temperature must be a number from 0 to 100, got 1e+300"),
        (json!({"top_p": 1.1}), "top_p must be a number from 0 to 1, got 1.1"),
        (json!({"top_k": 1.5}), "top_k must be a whole number from -1 to 2147483647, got 1.5"),
        (json!({"max_tokens": -2}), "max_tokens must be a whole number from -1 to 2147483647, got -2"),
        (json!({"max_tokens": "10"}), "max_tokens must be a whole number from -1 to 2147483647, got \"10\""),
        (json!({"seed": 1.0e18}), "seed must be a whole number from -1 to 4294967295, got 1e+18"),
        (json!({"stream": "yes"}), "stream must be true or false, got \"yes\""),
        (json!({"stream_options": []}), "stream_options must be an object, got a list"),
        (
            json!({"stream_options": {"include_usage": 1}}),
            "stream_options.include_usage must be true or false, got 1",
        ),
        (json!({"stop": 3}), "stop must be a string or a list of strings, got 3"),
        (json!({"stop": ["a", 3]}), "stop[1] must be a string, got 3"),
        (json!({"logit_bias": [[1]]}), "logit_bias[0] must be a pair of token and bias, got 1 values"),
        (
            json!({"logit_bias": {"1": true}}),
            "logit_bias.1 must be a number from -1000000 to 1000000, or false, got true",
        ),
        (json!({"grammar": 1}), "grammar must be a string, got 1"),
        (
            json!({"response_format": {"type": "xml"}}),
            "response_format.type must be \"text\", \"json_object\" or \"json_schema\", got \"xml\"",
        ),
        (
            json!({"response_format": {"type": "json_schema"}}),
            "response_format.json_schema.schema is missing; it must be a JSON schema",
        ),
        (json!({"model": 1}), "model must be a string, got 1"),
        (json!({"messages": []}), "messages is empty; it must hold at least one message"),
        (json!({"messages": null}), "messages is missing; it must be a list of messages"),
        (json!({"messages": "Hi"}), "messages must be a list, got \"Hi\""),
        (json!({"messages": ["Hi"]}), "messages[0] must be an object, got \"Hi\""),
        (
            json!({"messages": [{"content": "x"}]}),
            "messages[0].role is missing; it must be system, developer, user, assistant or tool",
        ),
        (
            json!({"messages": [{"role": "king", "content": "x"}]}),
            "messages[0].role must be system, developer, user, assistant or tool, got \"king\"",
        ),
        (
            json!({"messages": [{"role": "user"}]}),
            "messages[0].content is missing; it must be a string or a list of text parts",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}),
            "messages[0].content[0].type must be \"text\" or \"image_url\", got \"input_audio\"",
        ),
        (
            json!({"messages": [{"role": "system", "content": [{"type": "image_url"}]}]}),
            "messages[0].content[0] is an image; only messages of the user may hold one",
        ),
        (
            json!({"messages": [{"role": "user", "content": ["a", {"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}]}),
            "messages[0].content[1].image_url.url must be a data URL (data:image/png;base64,…): this engine fetches nothing from elsewhere",
        ),
        (
            json!({"chat_template": "{{ x }}"}),
            "chat_template is not taken from requests; the model's own is used",
        ),
        (json!({"tools": [{}]}), "tools is not supported by this engine"),
        (json!({"n": 2}), "n must be 1: this engine gives one answer per request"),
        (
            json!({"chat_template_kwargs": {"enable_thinking": "no"}}),
            "chat_template_kwargs.enable_thinking must be true or false, got \"no\"",
        ),
        (json!({"chat_template_kwargs": 1}), "chat_template_kwargs must be an object, got 1"),
    ];
    for (extra, message) in cases {
        assert_eq!(refused(extra), message);
    }
    assert_eq!(
        ChatRequest::parse(&json!([])).unwrap_err().message,
        "the request must be a JSON object, got a list"
    );
    let long = refused(json!({"temperature": "\u{1b}[2J".repeat(1000)}));
    assert!(long.len() < 200 && !long.contains('\u{1b}'), "{long}");
    assert!(refused(json!({"stop": vec!["x"; 65]})).contains("at most 64"));
    assert!(refused(json!({"stop": "x".repeat(1025)})).contains("at most 1024"));
}

#[test]
fn null_is_absent() {
    let request = parse(json!({
        "temperature": null, "stop": null, "max_tokens": null, "stream_options": null, "tools": null,
        "chat_template": null, "response_format": null, "logit_bias": null, "seed": null
    }));
    assert_eq!(request.generation.sampling, SamplingParams::default());
}

#[test]
fn token_limits_have_three_names() {
    let limit = |extra: Value| parse(extra).generation.max_tokens;
    assert_eq!(limit(json!({"max_completion_tokens": 5})), Some(5));
    assert_eq!(limit(json!({"max_tokens": 5, "n_predict": 6})), Some(6));
    assert_eq!(limit(json!({"max_tokens": -1})), None);
    assert_eq!(limit(json!({"max_tokens": 0})), Some(0));
    assert_eq!(limit(json!({"max_tokens": 16.0})), Some(16));
}

#[test]
fn seeds_and_biases_have_special_values() {
    assert_eq!(parse(json!({"seed": -1})).generation.sampling.seed, None);
    assert_eq!(parse(json!({"seed": 4_294_967_295_u64})).generation.sampling.seed, Some(u32::MAX));
    assert_eq!(parse(json!({"top_k": -1})).generation.sampling.top_k, 0);
    let biases = parse(json!({"logit_bias": [[5, false], ["word", -1.5]]})).generation.logit_bias;
    assert_eq!(biases[0], LogitBias { token: BiasToken::Id(5), bias: f32::NEG_INFINITY });
    assert_eq!(biases[1], LogitBias { token: BiasToken::Text("word".to_owned()), bias: -1.5 });
}

#[test]
fn messages_come_in_several_forms() {
    let body = json!({"messages": [
        {"role": "developer", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, "c"]},
        {"role": "assistant", "content": null, "tool_calls": []},
        {"role": "tool", "content": "t", "tool_call_id": "1"},
    ]});
    let request = ChatRequest::parse(&body).unwrap();
    let all: Vec<(PromptRole, &str)> =
        request.messages.iter().map(|m| (m.role, m.content.as_str())).collect();
    assert_eq!(
        all,
        [
            (PromptRole::System, "s"),
            (PromptRole::User, "a\nb\nc"),
            (PromptRole::Assistant, ""),
            (PromptRole::Tool, "t")
        ]
    );
}

#[test]
fn a_trailing_answer_is_continued() {
    let ending = |roles: &[&str], extra: Value| {
        let messages: Vec<Value> = roles.iter().map(|r| json!({"role": r, "content": "x"})).collect();
        let mut body = with(extra);
        body["messages"] = messages.into();
        ChatRequest::parse(&body).map(|r| r.render.ending).map_err(|e| e.field)
    };
    assert_eq!(ending(&["user"], json!({})), Ok(Ending::Answer));
    assert_eq!(ending(&["user"], json!({"add_generation_prompt": false})), Ok(Ending::Nothing));
    assert_eq!(ending(&["user", "assistant"], json!({})), Ok(Ending::Continue));
    assert_eq!(ending(&["user", "assistant"], json!({"continue_final_message": true})), Ok(Ending::Continue));
    assert_eq!(ending(&["user", "assistant"], json!({"continue_final_message": false})), Ok(Ending::Answer));
    assert_eq!(
        ending(&["user"], json!({"continue_final_message": true})),
        Err("continue_final_message".to_owned())
    );
    assert_eq!(ending(&["user", "assistant", "assistant"], json!({})), Err("messages".to_owned()));
}

#[test]
fn forms_come_in_several_ways() {
    let form = |extra: Value| parse(extra).generation.form;
    let schema = json!({"type": "array"});
    let any = json!({"type": "object"});
    assert_eq!(form(json!({})), None);
    assert_eq!(form(json!({"response_format": {"type": "text"}})), None);
    assert_eq!(form(json!({"grammar": "root ::= \"a\""})), Some(Form::Grammar("root ::= \"a\"".to_owned())));
    assert_eq!(form(json!({"json_schema": schema})), Some(Form::Schema(schema.clone())));
    assert_eq!(form(json!({"json_schema": {}})), Some(Form::Schema(any.clone())));
    assert_eq!(form(json!({"response_format": {"type": "json_object"}})), Some(Form::Schema(any)));
    for format in [
        json!({"type": "json_object", "schema": schema}),
        json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}),
        json!({"type": "json_schema", "schema": schema}),
    ] {
        assert_eq!(form(json!({"response_format": format})), Some(Form::Schema(schema.clone())));
    }
    assert!(refused(json!({"grammar": "x", "json_schema": {}})).contains("send one"));
}

#[test]
fn the_other_bodies() {
    let request = TokenizeRequest::parse(&json!({"content": "a", "add_special": true})).unwrap();
    assert_eq!((request.content.as_str(), request.add_special, request.parse_special), ("a", true, true));
    assert_eq!(TokenizeRequest::parse(&json!({})).unwrap_err().field, "content");
    assert_eq!(parse_model(&json!({"model": "m"})).unwrap(), "m");
    assert_eq!(parse_model(&json!({"model": " "})).unwrap_err().field, "model");
    let request = TemplateRequest::parse(&with(json!({"chat_template_kwargs": {"a": 1}}))).unwrap();
    assert_eq!(request.render.variables.len(), 1);
}

#[test]
fn what_is_no_json_is_told_with_its_place() {
    let message = |body: &[u8]| parse_json(body).unwrap_err().message;
    assert!(message(b"{\"a\": }").contains("line 1 column 7"));
    assert!(message(b"").contains("no body"));
    assert!(message(b"{\"a\": NaN}").contains("not JSON"));
    assert!(message("[".repeat(100_000).as_bytes()).contains("recursion limit"));
    assert!(message(b"\xff\xfe").contains("not JSON"));
    assert!(message(b"{\"a\": 1} x").contains("trailing"));
    parse_json(b"\xef\xbb\xbf{}").unwrap();
}

proptest! {
    #[test]
    fn any_json_is_answered(
        name in prop::sample::select(vec![
            "messages", "stop", "temperature", "logit_bias", "response_format", "json_schema", "grammar",
            "stream_options", "chat_template_kwargs", "seed", "model", "n", "tools", "max_tokens",
        ]),
        value in prop_oneof![
            Just(json!(null)), any::<bool>().prop_map(Value::from), any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from), ".{0,8}".prop_map(Value::from),
            Just(json!([])), Just(json!({})), Just(json!([[1, 2], "x", {"role": "user"}])),
            Just(json!({"type": "json_schema", "json_schema": 1})), any::<u64>().prop_map(Value::from),
        ],
    ) {
        if let Err(error) = ChatRequest::parse(&with(json!({name: value}))) {
            prop_assert!(error.message.starts_with(error.field.as_str()));
            prop_assert!(!error.field.is_empty());
            prop_assert!(error.message.lines().count() == 1);
        }
    }
}
