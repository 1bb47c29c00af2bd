use super::*;

pub(super) async fn events() -> (Arc<Events>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("state")).unwrap();
    let events = Events::open(&store, &dir.path().join("spool")).unwrap();
    (events, dir)
}

pub(super) fn attributes(name: &str) -> Attributes {
    [("name".to_owned(), name.to_owned())].into()
}

async fn past(events: &Events, since: Option<i64>, filters: &str) -> Vec<String> {
    let query = EventsQuery {
        since: since.map(|seconds| Timestamp::from_unix(seconds, 0)),
        until: Some(Timestamp::now()),
        filters: Filters::parse(filters).unwrap(),
    };
    events
        .stream(query)
        .map(|event| event.action)
        .collect()
        .await
}

#[tokio::test]
async fn past_events_are_filtered() {
    let (events, _dir) = events().await;
    events.tell("container", "create", "c1", attributes("web"));
    events.tell("network", "connect", "n1", attributes("bridge"));
    assert_eq!(past(&events, Some(0), "").await.len(), 2);
    assert_eq!(past(&events, None, "").await.len(), 2);
    let tomorrow = Timestamp::now().seconds() + 86_400;
    assert_eq!(past(&events, Some(tomorrow), "").await.len(), 0);
    let networks = past(&events, Some(0), r#"{"type":["network"]}"#).await;
    assert_eq!(networks, ["connect"]);
}

#[tokio::test]
async fn coming_events_arrive() {
    let (events, _dir) = events().await;
    events.tell("volume", "before", "v", Attributes::new());
    let mut stream = events.stream(EventsQuery::default());
    events.tell("volume", "create", "v", Attributes::new());
    assert_eq!(stream.next().await.unwrap().action, "create");
}

#[tokio::test(start_paused = true)]
async fn an_end_in_the_future_is_waited_for() {
    let (events, _dir) = events().await;
    let end = Timestamp::from_unix(Timestamp::now().seconds() + 60, 0);
    let query = EventsQuery {
        until: Some(end),
        ..EventsQuery::default()
    };
    let mut stream = events.stream(query);
    events.tell("volume", "create", "v", Attributes::new());
    assert_eq!(stream.next().await.unwrap().action, "create");
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn the_log_is_read_back() {
    let (events, dir) = events().await;
    events.tell("volume", "create", "v", Attributes::new());
    events.flush().await;
    // Killed before this one was written, and before another's spool was removed.
    events.tell("volume", "mount", "v", Attributes::new());
    let first = serde_json::to_string(&*events.past.lock().kept[0]).unwrap() + "\n";
    std::fs::write(dir.path().join("spool/1"), first).unwrap();
    let store = events.store.clone();
    drop(events);
    let again = Events::open(&store, &dir.path().join("spool")).unwrap();
    assert_eq!(past(&again, Some(0), "").await, ["create", "mount"]);
    again.flush().await;
    let logged: Vec<_> = store.events_after(0).unwrap();
    let actions: Vec<_> = logged.iter().map(|e| e.value["Action"].clone()).collect();
    assert_eq!(actions, ["create", "mount"]);
    assert_eq!(
        std::fs::read_dir(dir.path().join("spool")).unwrap().count(),
        1
    );
}
