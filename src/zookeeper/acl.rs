//! Access control lists, identities, stats and errors, as ZooKeeper has them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha1::{Digest as _, Sha1};

use crate::{
    client::Error,
    node::{RequestError, SubmitError},
    op::{
        Acl, DigestId, Grant, Identities, Identity, Lifetime, LimitName, OpError, Principal,
        Rights, Stat, Subject,
    },
    zookeeper::{
        code::ErrorCode,
        record::{AclEntry, Id, StatRecord},
    },
};

/// The list that a client sets; `None` if it is none.
pub(super) fn acl_of(entries: &[AclEntry<'_>]) -> Option<Acl> {
    let mut grants: Vec<Grant> = Vec::with_capacity(entries.len().min(Acl::GRANTS_MAX));
    for entry in entries {
        let rights = u8::try_from(entry.perms & i32::from(Rights::ALL.bits())).ok()?;
        let rights = Rights::from_bits(rights)?;
        let grant = Grant { principal: principal(&entry.id)?, rights };
        if !grants.contains(&grant) {
            // One more than there may be is refused below.
            if grants.len() > Acl::GRANTS_MAX {
                return None;
            }
            grants.push(grant);
        }
    }
    Acl::new(grants).ok()
}

fn principal(id: &Id<'_>) -> Option<Principal> {
    match id.scheme {
        "world" => (id.id == "anyone").then_some(Principal::World),
        "auth" => Some(Principal::Auth),
        "digest" => {
            let (user, hash) = id.id.split_once(':')?;
            (!hash.contains(':')).then_some(())?;
            Some(Principal::Digest(DigestId::new(user, hash).ok()?))
        }
        "ip" => {
            let (addr, bits) = id.id.split_once('/').map_or((id.id, None), |it| (it.0, Some(it.1)));
            let addr: std::net::IpAddr = addr.parse().ok()?;
            let all = if addr.is_ipv4() { 32 } else { 128 };
            let bits = bits.map_or(Some(all), |bits| bits.parse().ok())?;
            (bits <= all).then_some(Principal::Ip { addr, bits })
        }
        "x509" => Some(Principal::X509(Subject::new(id.id).ok()?)),
        _ => None,
    }
}

/// Who somebody is, in a scheme.
pub(super) fn scheme_of(principal: &Principal) -> (&'static str, String) {
    match principal {
        Principal::World => ("world", "anyone".into()),
        Principal::Auth => ("auth", String::new()),
        Principal::Digest(id) => ("digest", format!("{}:{}", id.user(), id.hash())),
        Principal::Ip { addr, bits } => {
            let all = if addr.is_ipv4() { 32 } else { 128 };
            let one = *bits == all;
            ("ip", if one { addr.to_string() } else { format!("{addr}/{bits}") })
        }
        Principal::X509(subject) => ("x509", subject.as_str().into()),
    }
}

/// What whoAmI tells of an identity: its scheme and user.
pub(super) fn user_of(identity: &Identity) -> (&'static str, String) {
    match identity {
        Identity::Digest(id) => ("digest", id.user().into()),
        Identity::Ip(addr) => ("ip", addr.to_string()),
        Identity::X509(subject) => ("x509", subject.as_str().into()),
        Identity::Super => ("super", String::new()),
    }
}

/// The identities of a client that has proved one more; `None` if that cannot be.
///
/// The hash of a password is what ZooKeeper makes of it: Base64 of SHA-1 of `user:password`.
pub(super) fn with_proof(
    had: &Identities,
    (scheme, proof): (&str, &[u8]),
    super_digest: Option<&str>,
) -> Option<Identities> {
    let mut all = had.as_slice().to_vec();
    match scheme {
        // It is known from the connection.
        "ip" => {}
        "digest" => {
            let user = proof.split(|&byte| byte == b':').next().unwrap_or_default();
            let user = String::from_utf8_lossy(user);
            let hash = STANDARD.encode(Sha1::digest(proof));
            if super_digest == Some(&format!("{user}:{hash}")) {
                all.push(Identity::Super);
            }
            all.push(Identity::Digest(DigestId::new(&user, &hash).ok()?));
        }
        _ => return None,
    }
    let mut kept: Vec<Identity> = Vec::with_capacity(all.len());
    for identity in all {
        if !kept.contains(&identity) {
            kept.push(identity);
        }
    }
    Identities::new(kept).ok()
}

/// Counters wrap, as ZooKeeper's do.
pub(super) fn wrapped(count: u64) -> i32 {
    count as i32
}

/// The version that a client asks for; `None` for any.
pub(super) fn version_of(version: i32) -> Option<u64> {
    match version {
        -1 => None,
        // Below it, what a counter that has wrapped shows.
        version => Some(u64::from(u32::from_be_bytes(version.to_be_bytes()))),
    }
}

/// A stat, as ZooKeeper's clients see it.
pub(super) fn stat_of(stat: &Stat) -> StatRecord {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let ephemeral_owner = match (stat.owner, stat.lifetime) {
        (Some(owner), _) => signed(owner.as_u64()),
        (None, Lifetime::Unlimited) => 0,
        (None, Lifetime::Container) => i64::MIN,
        (None, Lifetime::Ttl(ttl)) => {
            let ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX) & TTL_MASK;
            !TTL_MASK << 16 | ms
        }
    };
    StatRecord {
        czxid: signed(stat.czxid.as_u64()),
        mzxid: signed(stat.mzxid.as_u64()),
        ctime: signed(stat.ctime_ms),
        mtime: signed(stat.mtime_ms),
        version: wrapped(stat.version),
        cversion: wrapped(stat.cversion),
        aversion: wrapped(stat.aversion),
        ephemeral_owner,
        data_length: i32::try_from(stat.data_length).unwrap_or(i32::MAX),
        num_children: i32::try_from(stat.children).unwrap_or(i32::MAX),
        pzxid: signed(stat.pzxid.as_u64()),
    }
}

/// What a client is told; `None` if its connection is to end, because nobody knows what became of
/// its request, or of its session.
pub(super) fn code_of(error: &Error) -> Option<ErrorCode> {
    match error {
        Error::Request(RequestError::Op(error)) => code_of_op(error),
        Error::Submit(SubmitError::Limit { limit, .. }) => Some(code_of_limit(*limit)),
        Error::Submit(SubmitError::Path(_)) => Some(ErrorCode::BadArguments),
        Error::Submit(SubmitError::Overloaded { .. } | SubmitError::RateLimited { .. }) => {
            Some(ErrorCode::ThrottledOp)
        }
        Error::Submit(SubmitError::DiskFull) => Some(ErrorCode::SystemError),
        _ => None,
    }
}

pub(super) fn code_of_op(error: &OpError) -> Option<ErrorCode> {
    Some(match error {
        OpError::NoNode { .. } => ErrorCode::NoNode,
        OpError::NodeExists { .. } => ErrorCode::NodeExists,
        OpError::BadVersion { .. } | OpError::GuardFailed { .. } => ErrorCode::BadVersion,
        OpError::NotEmpty { .. } => ErrorCode::NotEmpty,
        OpError::NoChildrenForEphemerals { .. } => ErrorCode::NoChildrenForEphemerals,
        OpError::Root => ErrorCode::NodeExists,
        OpError::NoAuth { .. } => ErrorCode::NoAuth,
        OpError::InvalidAcl { .. } => ErrorCode::InvalidAcl,
        OpError::Quota { .. } => ErrorCode::QuotaExceeded,
        OpError::Limit { limit, .. } => code_of_limit(*limit),
        OpError::InTxn { cause, .. } => return code_of_op(cause),
        OpError::SessionEnded { .. }
        | OpError::Moved { .. }
        | OpError::BadSecret { .. }
        | OpError::Gap { .. }
        | OpError::AlreadyAcknowledged { .. } => return None,
        _ => ErrorCode::SystemError,
    })
}

fn code_of_limit(limit: LimitName) -> ErrorCode {
    match limit {
        LimitName::Nodes
        | LimitName::Ephemerals
        | LimitName::QuotaNodes
        | LimitName::QuotaBytes
        | LimitName::NestedQuotas => ErrorCode::QuotaExceeded,
        LimitName::WindowCount | LimitName::WindowBytes => ErrorCode::ThrottledOp,
        _ => ErrorCode::BadArguments,
    }
}

/// Milliseconds of a time to live, in the owner of a node.
const TTL_MASK: i64 = (1 << 40) - 1;
