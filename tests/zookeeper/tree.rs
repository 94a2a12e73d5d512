//! Nodes, transactions and rights: what a client makes, other clients and handles see.

use quorate::node::Consistency;
use zookeeper_client::{
    Acl, Acls, AuthId, Client, CreateMode, Error, MultiReadResult, MultiWriteError, Permission,
};

use crate::cluster::{Cluster, EPHEMERAL, PERSISTENT, SEQUENTIAL, client, path, run};

#[test]
fn what_one_makes_all_see() {
    let cluster = Cluster::start();
    run(async move {
        let (one, two) = (client(&cluster.one(0)).await, client(&cluster.one(1)).await);
        let (made, _) = one.create("/a", b"1", &PERSISTENT).await.expect("created");
        two.sync("/a").await.expect("synced");
        let (data, stat) = two.get_data("/a").await.expect("read");
        assert_eq!((&*data, stat), (&b"1"[..], made));
        let (data, stat) =
            cluster.handle(2).get(&path("/a"), Consistency::Linearizable).await.expect("read");
        assert_eq!((&*data, stat.czxid.as_u64()), (&b"1"[..], made.czxid as u64));
        for expected in 0..3 {
            let (_, sequence) = one.create("/a/n-", b"", &SEQUENTIAL).await.expect("created");
            assert_eq!(sequence.into_i64(), expected);
        }
        let by_hand = cluster.handle(1);
        let prefix = quorate::Path::sequential_prefix("/a/n-").expect("valid");
        let written = by_hand.create_sequential(prefix, "", quorate::CreateMode::Persistent);
        let name = written.await.expect("created");
        assert_eq!(name.path(), Some(&path("/a/n-0000000003")), "one counter for all");
        one.create("/a/e", b"", &EPHEMERAL).await.expect("created");
        let below = one.create("/a/e/x", b"", &PERSISTENT).await;
        assert_eq!(below.expect_err("not there"), Error::NoChildrenForEphemerals);
        one.sync("/a").await.expect("synced");
        let (mut names, stat) = one.get_children("/a").await.expect("listed");
        names.sort();
        let numbered = ["n-0000000000", "n-0000000001", "n-0000000002", "n-0000000003"];
        assert_eq!((names[0].as_str(), &names[1..]), ("e", &numbered.map(String::from)[..]));
        assert_eq!((stat.num_children, stat.cversion), (5, 5));
        assert_eq!(one.count_descendants_number("/a").await.expect("counted"), 5);
        let stale = two.set_data("/a", b"x", Some(9)).await;
        assert_eq!(stale.expect_err("not this version"), Error::BadVersion);
        assert_eq!(two.delete("/a", None).await.expect_err("not empty"), Error::NotEmpty);
        let again = two.create("/a", b"", &PERSISTENT).await;
        assert_eq!(again.expect_err("there is one"), Error::NodeExists);
        let container = CreateMode::Container.with_acls(Acls::anyone_all());
        let (stat, _) = two.create("/c", b"", &container).await.expect("created");
        assert_eq!(stat.ephemeral_owner, i64::MIN, "as ZooKeeper marks containers");
    });
}

#[test]
fn a_multi_is_all_or_nothing_and_says_what_failed() {
    let cluster = Cluster::start();
    run(async move {
        let zk = client(&cluster.all()).await;
        let mut writer = zk.new_multi_writer();
        writer.add_create("/m", b"0", &PERSISTENT).expect("valid");
        writer.add_create("/m/n-", b"", &SEQUENTIAL).expect("valid");
        writer.add_set_data("/m", b"1", Some(0)).expect("valid");
        writer.add_check_version("/m", 1).expect("valid");
        assert_eq!(writer.commit().await.expect("done").len(), 4);
        writer.add_set_data("/m", b"2", None).expect("valid");
        writer.add_delete("/m/n-0000000000", None).expect("valid");
        writer.add_check_version("/m", 1).expect("valid");
        let source = Error::BadVersion;
        let failed = MultiWriteError::OperationFailed { index: 2, source };
        assert_eq!(writer.commit().await.expect_err("a check"), failed);
        let mut reader = zk.new_multi_reader();
        reader.add_get_data("/m").expect("valid");
        reader.add_get_children("/m").expect("valid");
        reader.add_get_data("/none").expect("valid");
        let read = reader.commit().await.expect("read");
        assert!(matches!(&read[0], MultiReadResult::Data { data, .. } if data == b"1"));
        let children = ["n-0000000000".to_owned()];
        assert!(matches!(&read[1], MultiReadResult::Children { children: it } if *it == children));
        assert!(matches!(&read[2], MultiReadResult::Error { err: Error::NoNode }));
    });
}

#[test]
fn rights_are_those_of_whoever_has_proved_who_he_is() {
    let cluster = Cluster::start();
    run(async move {
        let alice = Client::connector().with_auth("digest", b"alice:secret");
        let alice = alice.connect(&cluster.one(0)).await.expect("a session");
        let own = CreateMode::Persistent.with_acls(Acls::creator_all());
        alice.create("/hers", b"1", &own).await.expect("created");
        let (acl, _) = alice.get_acl("/hers").await.expect("read");
        let id = AuthId::new("digest", "alice:aYXlLOpEooaV1cRAvUL1fp9Qt7E=");
        assert_eq!(acl, [Acl::new(Permission::ALL, id)]);
        let bob = client(&cluster.one(1)).await;
        bob.sync("/").await.expect("synced");
        assert_eq!(bob.get_data("/hers").await.expect_err("not his"), Error::NoAuth);
        assert_eq!(bob.set_data("/hers", b"", None).await.expect_err("not his"), Error::NoAuth);
        let below = bob.create("/hers/x", b"", &PERSISTENT).await;
        assert_eq!(below.expect_err("not his"), Error::NoAuth);
        bob.auth("digest", b"alice:wrong").await.expect("anybody may say so");
        assert_eq!(bob.get_data("/hers").await.expect_err("still not"), Error::NoAuth);
        bob.auth("digest", b"alice:secret").await.expect("proved");
        assert_eq!(bob.get_data("/hers").await.expect("read").0, b"1");
        let users = bob.list_auth_users().await.expect("listed");
        assert!(users.iter().any(|it| (it.scheme(), it.user()) == ("digest", "alice")));
        let read = [Acl::new(Permission::READ, AuthId::new("world", "anyone"))];
        bob.set_acl("/hers", &read, Some(0)).await.expect("he is alice, too");
        assert_eq!(alice.set_data("/hers", b"", None).await.expect_err("gone"), Error::NoAuth);
        let empty = alice.set_acl("/", &[], None).await;
        assert_eq!(empty.expect_err("no list"), Error::InvalidAcl);
    });
}
