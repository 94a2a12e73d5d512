//! Every record there and back, against bytes written by hand where the two sides could agree on
//! something wrong, and against hostile bytes.

use crate::zookeeper::{
    record::*,
    samples::{requests, responses, stat},
    *,
};

#[test]
fn every_request_comes_back_as_it_was() {
    let mut seen = Vec::new();
    for request in requests() {
        let mut packet = Vec::new();
        request.encode(17, &mut packet);
        assert_eq!(Request::decode(&packet), Ok((17, request.clone())));
        seen.push(request.op());
    }
    let between_servers = [OpCode::DeleteContainer, OpCode::CreateSession, OpCode::Error];
    for op in OpCode::ALL {
        assert_ne!(seen.contains(op), between_servers.contains(op), "{op:?}");
    }
}

#[test]
fn every_response_comes_back_as_it_was() {
    for (op, response) in responses() {
        let (mut packet, header) = (Vec::new(), ReplyHeader { xid: 3, zxid: 1 << 40, err: 0 });
        response.encode(&header, &mut packet);
        assert_eq!(Response::decode(Some(op), &packet), Ok((header, response)));
    }
    let (mut packet, header) = (Vec::new(), ReplyHeader { xid: 3, zxid: 4, err: -101 });
    Response::Empty.encode(&header, &mut packet);
    let refused = Response::decode(Some(OpCode::GetData), &packet);
    assert_eq!(refused, Ok((header, Response::Empty)));
    let event = Response::Event(WatcherEvent { kind: 3, state: 3, path: "/a" });
    let (mut packet, header) = (Vec::new(), ReplyHeader { xid: -1, zxid: 9, err: 0 });
    event.encode(&header, &mut packet);
    assert_eq!(Response::decode(None, &packet), Ok((header, event)));
}

#[test]
fn a_multi_has_no_more_parts_than_any_transaction() {
    for (count, max) in [(4_096, None), (4_097, Some(4_096))] {
        let mut packet = Vec::new();
        let part = Request::Check(VersionRequest { path: "/", version: -1 });
        Request::Multi(vec![part; count]).encode(17, &mut packet);
        let error = max.map(|max| JuteError::Parts { max });
        assert_eq!(Request::decode(&packet).err(), error, "{count} parts");
    }
}

#[test]
fn connects_with_and_without_the_last_byte() {
    for read_only in [None, Some(true), Some(false)] {
        let (mut asked, mut told) = (Vec::new(), Vec::new());
        let (protocol_version, timeout, session) = (0, 10_000, 7);
        let password = Some(&[1; 16][..]);
        let request = ConnectRequest {
            protocol_version,
            last_zxid_seen: 4,
            timeout,
            session,
            password,
            read_only,
        };
        request.encode(&mut asked);
        assert_eq!(asked.len(), 44 + usize::from(read_only.is_some()));
        assert_eq!(ConnectRequest::decode(&asked), Ok(request));
        let response = ConnectResponse { protocol_version, timeout, session, password, read_only };
        response.encode(&mut told);
        assert_eq!(told.len(), 36 + usize::from(read_only.is_some()));
        assert_eq!(ConnectResponse::decode(&told), Ok(response));
    }
}

/// As kazoo writes it: header, path, data, list, flags.
#[test]
fn a_create_has_the_bytes_of_other_clients() {
    let packet = b"\0\0\0\x05\0\0\0\x01\0\0\0\x02/a\0\0\0\x01v\0\0\0\x01\
        \0\0\0\x1f\0\0\0\x05world\0\0\0\x06anyone\0\0\0\x02";
    let acl = vec![AclEntry { perms: 31, id: Id { scheme: "world", id: "anyone" } }];
    let create = CreateRequest { path: "/a", data: Some(b"v"), acl, flags: 2 };
    let request = Request::Create(OpCode::Create, create);
    assert_eq!(Request::decode(packet), Ok((5, request.clone())));
    let mut out = Vec::new();
    request.encode(5, &mut out);
    assert_eq!(out, packet);
}

/// Headers of 9 bytes between the parts, and the stat's fields in their order.
#[test]
fn the_answer_to_a_multi_has_the_bytes_of_other_servers() {
    let parts = vec![
        PartResponse::Done(OpCode::Delete, Response::Empty),
        PartResponse::Failed(-2),
        PartResponse::Done(OpCode::SetData, Response::Stat(stat())),
    ];
    let mut out = Vec::new();
    Response::Multi(parts).write(&mut out);
    let mut expected = b"\0\0\0\x02\0\0\0\0\0\xff\xff\xff\xff\0\xff\xff\xff\xfe\xff\xff\xff\xfe\
        \0\0\0\x05\0\0\0\0\0"
        .to_vec();
    for number in [1, -2, i64::MAX, i64::MIN] {
        expected.extend_from_slice(&number.to_be_bytes());
    }
    for number in [5, -6, i32::MAX] {
        expected.extend_from_slice(&number.to_be_bytes());
    }
    expected.extend_from_slice(&8i64.to_be_bytes());
    expected.extend_from_slice(&[0, 0, 0, 9, 0, 0, 0, 10]);
    expected.extend_from_slice(&11i64.to_be_bytes());
    expected.extend_from_slice(b"\xff\xff\xff\xff\x01\xff\xff\xff\xff");
    assert_eq!(out, expected);
}

/// What is cut off anywhere, or has any byte wrong, is refused or is something else; nothing
/// panics.
#[test]
fn hostile_packets_are_refused() {
    for request in requests() {
        let mut packet = Vec::new();
        request.encode(1, &mut packet);
        for length in 0..packet.len() {
            assert!(Request::decode(&packet[..length]).is_err(), "{request:?} cut at {length}");
        }
        for at in 0..packet.len() {
            for wrong in [0x80, 0xff, 0x01] {
                let mut packet = packet.clone();
                packet[at] ^= wrong;
                let _ = Request::decode(&packet);
            }
        }
    }
    for (op, response) in responses() {
        let (mut packet, header) = (Vec::new(), ReplyHeader { xid: 3, zxid: 4, err: 0 });
        response.encode(&header, &mut packet);
        for length in 0..packet.len() {
            assert!(Response::decode(Some(op), &packet[..length]).is_err());
        }
    }
    let nested = [&[0u8, 0, 0, 1, 0, 0, 0, 14][..], &[0, 0, 0, 14, 0, 0, 0, 0, 0]].concat();
    assert_eq!(Request::decode(&nested), Err(JuteError::Operation(14)));
    let unknown = [0u8, 0, 0, 1, 0, 0, 0, 99];
    assert_eq!(Request::decode(&unknown), Err(JuteError::Operation(99)));
}

#[test]
fn numbers_are_those_of_zookeeper() {
    for op in OpCode::ALL {
        assert_eq!(OpCode::from_number(op.number()), Some(*op));
    }
    for code in ErrorCode::ALL {
        assert_eq!(ErrorCode::from_number(code.number()), Some(*code));
    }
    assert_eq!(OpCode::from_number(99), None);
}
