//! Streams and their readers, with made-up events and a paused clock.

use super::*;
use pretty_assertions::assert_eq;
use tokio::sync::mpsc::{self, UnboundedSender};

fn client(name: &str) -> Client {
    Client {
        name: name.to_owned(),
        place: None,
        cut: Arc::new(|| Box::pin(std::future::pending())),
        unread: Duration::from_secs(15),
    }
}

fn wanted(client: Option<Client>, id: &str, body: &str) -> Wanted {
    let mut headers = HeaderMap::new();
    headers.insert(ID, HeaderValue::from_str(id).unwrap());
    Wanted::of(&headers, client, body.as_bytes()).unwrap().unwrap()
}

fn key(client: Option<&Client>, id: &str) -> Key {
    Key::new(client, id).unwrap()
}

/// A stream whose events are sent by the test; it is over when the sender is dropped.
fn events() -> (UnboundedSender<&'static str>, impl Stream<Item = Bytes> + Send + 'static) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let stream = futures_util::stream::unfold(receiver, async |mut receiver| {
        let event: &'static str = mpsc::UnboundedReceiver::recv(&mut receiver).await?;
        Some((Bytes::from_static(event.as_bytes()), receiver))
    });
    (sender, stream)
}

fn begin(streams: &Streams, wanted: Wanted) -> (UnboundedSender<&'static str>, Response) {
    let (sender, events) = events();
    match streams.begin(wanted).unwrap() {
        Begin::New(writer) => (sender, writer.run(events).unwrap()),
        Begin::Joined(_) => panic!("it is new"),
    }
}

async fn text(response: Response) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn read(streams: &Streams, key: &Key, from: u64) -> Result<Response, Failure> {
    let kept = streams.get(key).ok_or_else(|| Failure::bad_request("none"))?;
    Reader::new(&kept, from).map(|reader| reader.respond(&key.id))
}

#[tokio::test(start_paused = true)]
async fn a_stream_cut_at_any_byte_is_taken_up_there() {
    let streams = Streams::default();
    let (sender, response) = begin(&streams, wanted(None, "a", "{}"));
    assert_eq!(response.headers()[&ID], "a");
    assert!(response.extensions().get::<Counted>().is_some());
    sender.send("data: 1\n\n").unwrap();
    sender.send("data: 2\n\n").unwrap();
    settle().await;
    // The connection is gone, the answer goes on.
    drop(response);
    sender.send("data: ü\n\n").unwrap();
    settle().await;
    let late = read(&streams, &key(None, "a"), 9).unwrap();
    sender.send("data: [DONE]\n\n").unwrap();
    drop(sender);
    assert_eq!(text(late).await, "data: 2\n\ndata: ü\n\ndata: [DONE]\n\n");
    let whole = "data: 1\n\ndata: 2\n\ndata: ü\n\ndata: [DONE]\n\n";
    for from in 0..=whole.len() {
        let response = read(&streams, &key(None, "a"), from as u64).unwrap();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        assert_eq!(bytes, whole.as_bytes().get(from..).unwrap(), "from {from}");
    }
    assert!(read(&streams, &key(None, "a"), whole.len() as u64 + 1).is_err(), "that never was");
}

#[tokio::test(start_paused = true)]
async fn an_answer_nobody_reads_is_ended_and_told_so() {
    let streams = Streams::default();
    let (sender, response) = begin(&streams, wanted(Some(client("ann")), "a", "{}"));
    settle().await;
    drop(response);
    tokio::time::sleep(Duration::from_secs(14)).await;
    assert!(!sender.is_closed(), "the client may come back");
    let ann = client("ann");
    let back = read(&streams, &key(Some(&ann), "a"), 0).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!sender.is_closed(), "it is back");
    drop(back);
    tokio::time::sleep(Duration::from_secs(16)).await;
    assert!(sender.is_closed(), "the answer is cancelled");
    let said = text(read(&streams, &key(Some(&ann), "a"), 0).unwrap()).await;
    assert!(said.contains("nobody read this answer for 15 s") && !said.contains("[DONE]"), "{said}");
    // Kept for ten minutes, like any that is over.
    tokio::time::sleep(KEPT).await;
    settle().await;
    assert!(streams.get(&key(Some(&ann), "a")).is_none());
}

#[tokio::test(start_paused = true)]
async fn an_id_belongs_to_its_client() {
    let streams = Streams::default();
    let (ann, bob) = (client("ann"), client("bob"));
    let (of_ann, one) = begin(&streams, wanted(Some(ann.clone()), "a", "{}"));
    let (of_bob, two) = begin(&streams, wanted(Some(bob.clone()), "a", "{}"));
    settle().await;
    assert!(!of_ann.is_closed(), "another one's id is another id");
    assert!(streams.get(&key(None, "a")).is_none());
    let query = Query(HashMap::from([("conv_id".to_owned(), "a".to_owned())]));
    assert!(stop(State(streams.clone()), Some(Extension(bob.clone())), query.clone()).await.is_ok());
    settle().await;
    assert!(of_bob.is_closed() && !of_ann.is_closed());
    assert_eq!(text(two).await, "");
    let refused = resume(State(streams.clone()), Some(Extension(bob)), query.clone()).await.unwrap_err();
    assert_eq!(refused.status(), StatusCode::NOT_FOUND);
    assert!(resume(State(streams.clone()), Some(Extension(ann)), query).await.is_ok());
    drop((of_ann, one));
}

#[tokio::test(start_paused = true)]
async fn the_same_request_joins_and_another_one_takes_its_place() {
    let streams = Streams::default();
    let (sender, first) = begin(&streams, wanted(None, "a", "{}"));
    sender.send("data: 1\n\n").unwrap();
    settle().await;
    let Begin::Joined(second) = streams.begin(wanted(None, "a", "{}")).unwrap() else {
        panic!("one answer for both")
    };
    let (other, third) = begin(&streams, wanted(None, "a", "{\"other\":1}"));
    settle().await;
    assert!(sender.is_closed(), "the next turn of a conversation ends the one before");
    assert_eq!((text(first).await, text(second).await), ("data: 1\n\n".to_owned(), "data: 1\n\n".to_owned()));
    other.send("data: 2\n\n").unwrap();
    drop(other);
    assert_eq!(text(third).await, "data: 2\n\n");
    // Once it is over, the same request is asked anew.
    assert!(matches!(streams.begin(wanted(None, "a", "{\"other\":1}")).unwrap(), Begin::New(_)));
    // And a request that is refused leaves nothing.
    let Begin::New(writer) = streams.begin(wanted(None, "b", "{}")).unwrap() else { panic!("it is new") };
    let Begin::Joined(joined) = streams.begin(wanted(None, "b", "{}")).unwrap() else { panic!("it joins") };
    writer.fail(&Failure::bad_request("no"));
    assert!(text(joined).await.contains("\"no\""));
    assert!(streams.get(&key(None, "b")).is_none());
}

#[tokio::test(start_paused = true)]
async fn bytes_and_streams_are_bounded() {
    const EVENT: &str = "data: 0123456789012345678901234567890123456789\n\n";
    let streams = Streams::default();
    let (sender, response) = begin(&streams, wanted(None, "long", "{}"));
    let count = MOST_BYTES / EVENT.len() + 100;
    for _ in 0..count {
        sender.send(EVENT).unwrap();
    }
    settle().await;
    drop(sender);
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
    let kept = streams.get(&key(None, "long")).unwrap();
    let gone = lock(&kept.ring).gone;
    let total = lock(&kept.ring).total();
    assert_eq!((total, total - gone), ((count * EVENT.len()) as u64, MOST_BYTES as u64));
    assert!(read(&streams, &key(None, "long"), gone - 1).is_err(), "that is gone");
    assert_eq!(text(read(&streams, &key(None, "long"), gone).unwrap()).await.len(), MOST_BYTES);
    assert_eq!(text(response).await.len(), 0, "a reader that is too slow ends early");
    // The oldest of many that are over goes.
    for n in 0..MOST_FINISHED + 3 {
        let (sender, _) = begin(&streams, wanted(None, &format!("{n}"), "{}"));
        drop(sender);
        settle().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(lock(&streams.all).len(), MOST_FINISHED);
    let newest = key(None, &format!("{}", MOST_FINISHED + 2));
    assert!(streams.get(&newest).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_cut_ends_it_and_its_place_is_kept_until_then() {
    let streams = Streams::default();
    let place: Arc<dyn Any + Send + Sync> = Arc::new(());
    let cut = || -> Cut {
        Box::pin(async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            Failure::new(StatusCode::GATEWAY_TIMEOUT, "timeout_error", "too long")
        })
    };
    let ann = Client { place: Some(Arc::clone(&place)), cut: Arc::new(cut), ..client("ann") };
    let (sender, response) = begin(&streams, wanted(Some(ann), "a", "{}"));
    settle().await;
    assert_eq!(Arc::strong_count(&place), 2);
    drop(response);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(sender.is_closed());
    assert_eq!(Arc::strong_count(&place), 1);
    let said = text(read(&streams, &key(Some(&client("ann")), "a"), 0).unwrap()).await;
    assert!(said.contains("too long"), "{said}");
}

#[test]
fn ids_are_short_and_plain() {
    for id in ["", &"x".repeat(MOST_ID_BYTES + 1), "a\u{7}b"] {
        assert!(Key::new(None, id).is_err(), "{id:?}");
    }
    assert!(Key::new(None, "conv 1::org/model").is_ok());
}
