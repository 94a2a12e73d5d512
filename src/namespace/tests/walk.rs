//! Walks meet every node once, wherever lists are cut.

use std::collections::BTreeSet;

use super::*;
use crate::namespace::walk::Walk;

#[test]
fn a_walk_meets_every_node_below_once_parents_first_in_byte_order() {
    let mut paths = BTreeSet::from(["/a".to_owned(), "/a/b".into(), "/a/b/c".into(), "/a-".into()]);
    // As many children as are taken from a list at once, some fewer and some more.
    for wide in [1, 255, 256, 257, 600] {
        paths.insert(format!("/w{wide}"));
        paths.extend((0..wide).map(|n| format!("/w{wide}/{n:04}")));
    }
    paths.extend((0..300).map(|n| format!("/w600/0255/{n}")));
    let mut it = Fixture::new();
    for path in &paths {
        it.plain(create(path, "", CreateMode::Persistent)).result.unwrap();
    }
    let tree = &it.ns.state.tree;
    for top in ["/", "/a", "/w256", "/w257", "/w600", "/w600/0255", "/a/b/c"] {
        let mut walk = Walk::below(&Arc::from(top), tree.get(top).unwrap());
        let met: Vec<_> = std::iter::from_fn(|| walk.next(tree)).map(|it| it.0).collect();
        let start = format!("{}/", top.trim_end_matches('/'));
        let mut below: Vec<_> = paths.iter().filter(|it| it.starts_with(&start)).collect();
        // In byte order "/a-" comes before "/a/b", in a walk what is below "/a" does.
        below.sort_by(|one, two| one.split('/').cmp(two.split('/')));
        assert!(met.iter().map(|it| &**it).eq(below), "below {top}: {met:?}");
    }
}
