//! Watches: what others do, clients and handles, is told once, in order, and before its answers.

use std::time::Duration;

use tokio::time::timeout;
use zookeeper_client::{AddWatchMode, EventType, WatchedEvent};

use crate::cluster::{Cluster, PERSISTENT, client, path, run};

#[test]
fn watches_that_fire_once_fire_once() {
    let cluster = Cluster::start();
    run(async move {
        let (zk, handle) = (client(&cluster.one(0)).await, cluster.handle(1));
        let (none, created) = zk.check_and_watch_stat("/a").await.expect("read");
        assert_eq!(none, None);
        zk.create("/a", b"", &PERSISTENT).await.expect("created");
        assert_eq!(created.changed().await.event_type, EventType::NodeCreated);
        let (_, _, data) = zk.get_and_watch_data("/a").await.expect("read");
        let (_, _, children) = zk.get_and_watch_children("/a").await.expect("listed");
        let mode = quorate::CreateMode::Persistent;
        handle.create(&path("/a/b"), "", mode).await.expect("created");
        let event = children.changed().await;
        assert_eq!((event.event_type, &*event.path), (EventType::NodeChildrenChanged, "/a"));
        let first = handle.set(&path("/a"), "1", None).await.expect("set").zxid;
        handle.set(&path("/a"), "2", None).await.expect("set");
        let event = data.changed().await;
        let expected = (EventType::NodeDataChanged, first.as_u64() as i64);
        assert_eq!((event.event_type, event.zxid), expected, "the first of the two");
        let (_, _, given_up) = zk.get_and_watch_data("/a").await.expect("read");
        drop(given_up);
        let (_, gone) = zk.check_and_watch_stat("/a/b").await.expect("read");
        handle.delete(&path("/a/b"), None).await.expect("deleted");
        assert_eq!(gone.changed().await.event_type, EventType::NodeDeleted);
    });
}

#[test]
fn watches_that_stay_tell_all_in_order() {
    let cluster = Cluster::start();
    run(async move {
        let (zk, handle) = (client(&cluster.one(0)).await, cluster.handle(1));
        zk.create("/p", b"", &PERSISTENT).await.expect("created");
        let mut one = zk.watch("/p", AddWatchMode::Persistent).await.expect("armed");
        let mut all = zk.watch("/p", AddWatchMode::PersistentRecursive).await.expect("armed");
        let mode = quorate::CreateMode::Persistent;
        let mut zxids = Vec::new();
        for change in ["/p/a", "/p/a/b", "/p/c"] {
            let written = handle.create(&path(change), "", mode).await.expect("created");
            zxids.push(written.zxid.as_u64() as i64);
        }
        handle.set(&path("/p"), "x", None).await.expect("set");
        handle.delete(&path("/p/a/b"), None).await.expect("deleted");
        let expected = [
            (EventType::NodeCreated, "/p/a"),
            (EventType::NodeCreated, "/p/a/b"),
            (EventType::NodeCreated, "/p/c"),
            (EventType::NodeDataChanged, "/p"),
            (EventType::NodeDeleted, "/p/a/b"),
        ];
        for (at, expected) in expected.into_iter().enumerate() {
            let event = next(all.changed()).await;
            assert_eq!((event.event_type, &*event.path), expected);
            assert!(zxids.get(at).is_none_or(|zxid| *zxid == event.zxid), "{event:?}");
        }
        let expected = [
            EventType::NodeChildrenChanged,
            EventType::NodeChildrenChanged,
            EventType::NodeDataChanged,
        ];
        for expected in expected {
            let event = next(one.changed()).await;
            assert_eq!((event.event_type, &*event.path), (expected, "/p"));
        }
        // A read that shows a change comes after its event.
        handle.set(&path("/p/c"), "new", None).await.expect("set");
        loop {
            let (data, _) = zk.get_data("/p/c").await.expect("read");
            if data == b"new" {
                break;
            }
        }
        let event = timeout(Duration::ZERO, all.changed()).await.expect("it is there already");
        assert_eq!((event.event_type, &*event.path), (EventType::NodeDataChanged, "/p/c"));
    });
}

async fn next(event: impl Future<Output = WatchedEvent>) -> WatchedEvent {
    timeout(Duration::from_secs(10), event).await.expect("it is told")
}
