//! Access control lists, identities and quotas as records, and back.

use std::net::IpAddr;

use bytes::{Buf, Bytes, BytesMut};
use prost::Message as _;

use super::CommandError;
use crate::{
    op::{Acl, DigestId, Grant, Identities, Identity, Principal, Quota, Rights, Subject},
    proto::{self, grant_record, identity_record},
    record::put_delimited,
};

/// Length-delimited grants; never empty.
pub(crate) fn acl_to_bytes(acl: &Acl) -> Bytes {
    let mut out = BytesMut::new();
    for grant in acl.grants() {
        use grant_record::Principal as Record;
        let principal = match &grant.principal {
            Principal::World => Record::World(true),
            Principal::Auth => Record::Auth(true),
            Principal::Digest(id) => Record::Digest(digest_to_record(id)),
            Principal::Ip { addr, bits } => {
                Record::Ip(proto::IpRecord { addr: ip_to_bytes(addr), bits: u32::from(*bits) })
            }
            Principal::X509(subject) => Record::X509(text(subject.as_str())),
        };
        let rights = grant.rights.bits().into();
        put_delimited(&mut out, &proto::GrantRecord { rights, principal: Some(principal) });
    }
    out.freeze()
}

pub(crate) fn acl_from_bytes(mut bytes: Bytes) -> Result<Acl, CommandError> {
    use grant_record::Principal as Record;
    let invalid = || CommandError::Field("acl");
    let mut grants = Vec::new();
    while bytes.has_remaining() {
        if grants.len() == Acl::GRANTS_MAX {
            return Err(invalid());
        }
        let record = proto::GrantRecord::decode_length_delimited(&mut bytes)
            .map_err(|_| CommandError::Malformed("grant"))?;
        let rights = u8::try_from(record.rights).ok().and_then(Rights::from_bits);
        let principal = match record.principal.ok_or(CommandError::UnknownKind)? {
            Record::World(true) => Principal::World,
            Record::Auth(true) => Principal::Auth,
            Record::World(false) | Record::Auth(false) => return Err(invalid()),
            Record::Digest(it) => Principal::Digest(digest(&it)?),
            Record::Ip(it) => Principal::Ip {
                addr: ip(&it.addr)?,
                bits: u8::try_from(it.bits).map_err(|_| invalid())?,
            },
            Record::X509(it) => Principal::X509(subject(&it)?),
        };
        // A right of a later release must not be passed over: those that know it grant it.
        grants.push(Grant { principal, rights: rights.ok_or(CommandError::UnknownKind)? });
    }
    Acl::new(grants).map_err(|_| invalid())
}

/// Length-delimited identities.
pub(crate) fn identities_to_bytes(identities: &Identities) -> Bytes {
    let mut out = BytesMut::new();
    for identity in identities.as_slice() {
        use identity_record::Kind as Record;
        let kind = match identity {
            Identity::Digest(id) => Record::Digest(digest_to_record(id)),
            Identity::Ip(addr) => Record::Ip(ip_to_bytes(addr)),
            Identity::X509(subject) => Record::X509(text(subject.as_str())),
            Identity::Super => Record::Super(true),
        };
        put_delimited(&mut out, &proto::IdentityRecord { kind: Some(kind) });
    }
    out.freeze()
}

pub(crate) fn identities_from_bytes(mut bytes: Bytes) -> Result<Identities, CommandError> {
    use identity_record::Kind as Record;
    let invalid = || CommandError::Field("identities");
    let mut identities = Vec::new();
    while bytes.has_remaining() {
        if identities.len() == Identities::MAX {
            return Err(invalid());
        }
        let record = proto::IdentityRecord::decode_length_delimited(&mut bytes)
            .map_err(|_| CommandError::Malformed("identity"))?;
        identities.push(match record.kind.ok_or(CommandError::UnknownKind)? {
            Record::Digest(it) => Identity::Digest(digest(&it)?),
            Record::Ip(it) => Identity::Ip(ip(&it)?),
            Record::X509(it) => Identity::X509(subject(&it)?),
            Record::Super(true) => Identity::Super,
            Record::Super(false) => return Err(invalid()),
        });
    }
    Identities::new(identities).map_err(|_| invalid())
}

pub(crate) fn quota_to_record(quota: &Quota) -> proto::QuotaRecord {
    proto::QuotaRecord {
        nodes_hard: quota.nodes_hard,
        bytes_hard: quota.bytes_hard,
        nodes_soft: quota.nodes_soft,
        bytes_soft: quota.bytes_soft,
    }
}

pub(crate) fn quota_from_record(record: &proto::QuotaRecord) -> Quota {
    Quota {
        nodes_hard: record.nodes_hard,
        bytes_hard: record.bytes_hard,
        nodes_soft: record.nodes_soft,
        bytes_soft: record.bytes_soft,
    }
}

fn digest_to_record(id: &DigestId) -> proto::DigestRecord {
    proto::DigestRecord { user: text(id.user()), hash: text(id.hash()) }
}

fn digest(record: &proto::DigestRecord) -> Result<DigestId, CommandError> {
    DigestId::new(utf8(&record.user)?, utf8(&record.hash)?)
        .map_err(|_| CommandError::Field("digest"))
}

fn subject(bytes: &[u8]) -> Result<Subject, CommandError> {
    Subject::new(utf8(bytes)?).map_err(|_| CommandError::Field("subject"))
}

fn ip_to_bytes(addr: &IpAddr) -> Bytes {
    match addr {
        IpAddr::V4(addr) => Bytes::copy_from_slice(&addr.octets()),
        IpAddr::V6(addr) => Bytes::copy_from_slice(&addr.octets()),
    }
}

fn ip(bytes: &[u8]) -> Result<IpAddr, CommandError> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Ok(octets.into());
    }
    let octets = <[u8; 16]>::try_from(bytes).map_err(|_| CommandError::Field("address"))?;
    Ok(octets.into())
}

fn utf8(bytes: &[u8]) -> Result<&str, CommandError> {
    std::str::from_utf8(bytes).map_err(|_| CommandError::Field("text"))
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_back_as_they_were_and_nothing_else_is_one() {
        let id = DigestId::new("ann", "hash").unwrap();
        let subject = Subject::new("CN=ann").unwrap();
        let (v4, v6) = ("10.0.0.1".parse().unwrap(), "fe80::1".parse().unwrap());
        let principals = [
            Principal::World,
            Principal::Auth,
            Principal::Digest(id.clone()),
            Principal::Ip { addr: v4, bits: 0 },
            Principal::Ip { addr: v6, bits: 128 },
            Principal::X509(subject.clone()),
        ];
        let rights = [Rights::NONE, Rights::READ, Rights::ALL].into_iter().cycle();
        let grants = principals.into_iter().zip(rights);
        let acl = Acl::new(grants.map(|(principal, rights)| Grant { principal, rights })).unwrap();
        let bytes = acl_to_bytes(&acl);
        assert_eq!(acl_from_bytes(bytes.clone()), Ok(acl));
        let all = [
            Identity::Digest(id),
            Identity::Ip(v4),
            Identity::Ip(v6),
            Identity::X509(subject),
            Identity::Super,
        ];
        let identities = Identities::new(all).unwrap();
        let identity_bytes = identities_to_bytes(&identities);
        assert_eq!(identities_from_bytes(identity_bytes.clone()), Ok(identities));
        assert_eq!(identities_from_bytes(Bytes::new()), Ok(Identities::none()));
        assert!(acl_from_bytes(Bytes::new()).is_err(), "an empty list is none");
        for end in 1..bytes.len() {
            if let Ok(shorter) = acl_from_bytes(bytes.slice(..end)) {
                assert_eq!(acl_to_bytes(&shorter), bytes.slice(..end), "cut between two grants");
            }
        }
        let many: Bytes = identity_bytes.repeat(4).into();
        assert_eq!(identities_from_bytes(many), Err(CommandError::Field("identities")));
        let many: Bytes = bytes.repeat(11).into();
        assert_eq!(acl_from_bytes(many), Err(CommandError::Field("acl")));
        let bits = proto::GrantRecord {
            rights: 32,
            principal: Some(grant_record::Principal::World(true)),
        };
        let mut out = BytesMut::new();
        put_delimited(&mut out, &bits);
        assert_eq!(acl_from_bytes(out.freeze()), Err(CommandError::UnknownKind));
    }
}
