//! Quotas as ZooKeeper's clients set them: by nodes below `/zookeeper/quota`.
//!
//! `/zookeeper/quota/a/zookeeper_limits` holds the bounds of `/a`. They are the tree's own quota:
//! an operation on the one brings along one on the other. What is counted is read at
//! `/zookeeper/quota/a/zookeeper_stats`.

use crate::{
    op::{Op, Quota, Usage},
    path::Path,
    zookeeper::code::ErrorCode,
};

/// What new content of the node at `path`, or its end, does to the quota of another node.
///
/// # Errors
///
/// [`ErrorCode::BadArguments`] if the content says no bounds.
pub(super) fn change(path: &str, data: Option<&[u8]>) -> Result<Option<Op>, ErrorCode> {
    let Some(path) = below(path, "/zookeeper_limits") else {
        return Ok(None);
    };
    let quota = data.map(|data| bounds(data).ok_or(ErrorCode::BadArguments)).transpose()?;
    Ok(Some(Op::SetQuota { path, quota }))
}

/// The node whose usage the node at `path` tells.
pub(super) fn counted(path: &str) -> Option<Path> {
    below(path, "/zookeeper_stats")
}

/// ZooKeeper keeps no quota of the root: of it, these are nodes like others.
fn below(path: &str, name: &str) -> Option<Path> {
    let path = path.strip_prefix(ROOT)?.strip_suffix(name)?;
    Path::new(path).ok()
}

/// The bounds that data says, as `count=5,bytes=-1;countHardLimit=9`; a negative one is none.
fn bounds(data: &[u8]) -> Option<Quota> {
    let mut quota = Quota::default();
    let pairs = std::str::from_utf8(data).ok()?.split([',', ';']).filter(|it| !it.is_empty());
    for pair in pairs {
        let mut parts = pair.split('=');
        let (name, value) = (parts.next()?, parts.next()?);
        let value: i64 = if value.is_empty() { -1 } else { value.parse().ok()? };
        let bound = u64::try_from(value).ok();
        match name {
            "count" => quota.nodes_soft = bound,
            "bytes" => quota.bytes_soft = bound,
            "countHardLimit" => quota.nodes_hard = bound,
            "byteHardLimit" => quota.bytes_hard = bound,
            _ => {}
        }
    }
    Some(quota)
}

/// What the node that tells of it holds.
pub(super) fn stats(usage: Usage) -> String {
    format!("count={},bytes={}", usage.nodes, usage.bytes)
}

const ROOT: &str = "/zookeeper/quota";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_as_zookeepers_clients_write_them() {
        let none = Quota::default();
        let soft = Quota { nodes_soft: Some(5), ..none };
        for (data, expected) in [
            ("", Some(none)),
            ("count=-1,bytes=-1", Some(none)),
            ("count=5,bytes=-1", Some(soft)),
            ("count=5,bytes=-1;countHardLimit=-1;byteHardLimit=", Some(soft)),
            (
                "count=5,bytes=7;byteHardLimit=9;countHardLimit=0",
                Some(Quota {
                    bytes_soft: Some(7),
                    bytes_hard: Some(9),
                    nodes_hard: Some(0),
                    ..soft
                }),
            ),
            ("later=3,count=5", Some(soft)),
            ("count", None),
            ("count=many", None),
            ("count=99999999999999999999", None),
        ] {
            assert_eq!(bounds(data.as_bytes()), expected, "{data}");
        }
        assert_eq!(bounds(&[0xff]), None);
        assert_eq!(stats(Usage { nodes: 2, bytes: 10 }), "count=2,bytes=10");
    }

    #[test]
    fn only_these_names_below_the_root_of_quotas_mean_a_quota() {
        let path = |text: &str| Path::new(text).ok();
        assert_eq!(counted("/zookeeper/quota/a/b/zookeeper_stats"), path("/a/b"));
        let taken = Op::SetQuota { path: path("/a").expect("a path"), quota: None };
        assert_eq!(change("/zookeeper/quota/a/zookeeper_limits", None), Ok(Some(taken)));
        let bad = change("/zookeeper/quota/a/zookeeper_limits", Some(b"count"));
        assert_eq!(bad, Err(ErrorCode::BadArguments));
        for other in [
            "/zookeeper/quota/zookeeper_limits",
            "/zookeeper/quota/a/zookeeper_stats",
            "/zookeeper/quota/a/b",
            "/zookeeper/quotas/a/zookeeper_limits",
            "/a/zookeeper_limits",
        ] {
            assert_eq!(change(other, Some(b"count")), Ok(None), "{other}");
        }
        assert_eq!(counted("/zookeeper/quota/a/zookeeper_limits"), None);
    }
}
