//! Messages of consensus and of everything else between members, made from real ones.

use std::sync::OnceLock;

use super::{
    input::Input,
    members::{Members, id},
    records, samples,
};
use crate::{
    id::{Incarnation, NodeId},
    node::{Request, Role, Status},
    wire::{Body, Frame, FrameError, RaftMessage},
};

/// Messages made from real ones, to a member in any role of a cluster of three that lives: nothing
/// panics, no term or commit goes back, the other two go on, and what was refused has done nothing.
pub(super) fn peer_message(data: &[u8]) {
    let mut input = Input::new(data);
    let (mut members, target) = in_role(input.below(ROLES));
    members.cut_off = Some(target);
    let mut refused = true;
    for _ in 0..MESSAGES_MAX {
        if input.is_spent() {
            break;
        }
        let before = status(&members, target);
        match input.below(8) {
            0 => members.tick(target),
            _ => refused &= !stepped(&mut members, target, &mut input),
        }
        let after = status(&members, target);
        assert!(after.term >= before.term, "the term goes back: {before:?} {after:?}");
        assert!(after.commit >= before.commit, "the commit goes back: {before:?} {after:?}");
        let ended = after.ended.map(|it| it.to_string()).unwrap_or_default();
        assert!(!ended.contains("panicked"), "{ended}");
    }
    go_on(&mut members);
    if refused {
        members.cut_off = None;
        let there = |it: &Members| it.exists(target, "/after") || target.as_u64() > 3;
        members.run_until(400, "after refusals alone it is as before", there);
        let ended = status(&members, target).ended;
        assert_eq!(ended, None);
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    // In each role: messages as they were, and each kind of change.
    let plain = |role: u8| [vec![role], [1, 0, 0, 0, 1, 0, 9].repeat(12)].concat();
    let changed = |role: u8| {
        let messages = (0..24_u8).flat_map(|nth| {
            [1, nth * 7, nth, nth % 3, 1 + nth % 3, nth % 4, nth * 11, nth * 5, nth * 3, nth]
        });
        std::iter::once(role).chain(messages).collect()
    };
    (0..ROLES as u8).flat_map(|role| [plain(role), changed(role)]).collect()
}

/// Whether one more message was taken.
fn stepped(members: &mut Members, target: NodeId, input: &mut Input) -> bool {
    let mut frame = real_frames()[usize::from(input.short()) % real_frames().len()].clone();
    let status = status(members, target);
    // Mostly another member, else the member itself or nobody that is known.
    let peers: Vec<NodeId> = members.nodes.keys().copied().filter(|it| *it != target).collect();
    let from = match input.below(16) {
        0 => target,
        1 => id(9),
        at => peers[at % peers.len()],
    };
    (frame.from, frame.to) = (from, target);
    if let Some(sender) = members.nodes.get(&from) {
        frame.incarnation = sender.status().incarnation;
    }
    if let Body::Raft(message) = &mut frame.body {
        fit(message, &status, input.below(4));
    }
    let bytes = frame.encode();
    let (head, body) = bytes.split_at(samples::HEADER_BYTES);
    let near = [status.term, status.last_index, status.commit];
    let mut body = body.to_vec();
    for _ in 0..input.below(4) {
        body = records::mutated(&body, &near, input);
    }
    let kind = match input.below(16) {
        0 => input.byte(),
        _ => head[6],
    };
    let bytes = samples::sealed(head, kind.into(), &body);
    let taken = members.nodes.get_mut(&target).is_some_and(|node| node.step(from, bytes).is_ok());
    members.drain(target);
    taken
}

/// Moves a real message to where it may fit the term and the log of its receiver.
fn fit(message: &mut RaftMessage, status: &Status, how: usize) {
    if how == 0 {
        return;
    }
    message.term = status.term + u64::from(how == 2);
    message.log_term = message.log_term.min(message.term);
    if how == 3 {
        (message.index, message.log_term) = (status.last_index, status.term);
        message.commit = status.commit;
        for (entry, index) in message.entries.iter_mut().zip(message.index + 1..) {
            (entry.index, entry.term) = (index, message.term);
        }
    }
}

/// The members that were spared elect a leader, if they must, and write.
fn go_on(members: &mut Members) {
    members.run_until(400, "a leader of those that are left", |it| it.leader().is_some());
    for _ in 0..20 {
        if let Some(leader) = members.leader() {
            members.create(leader, "/after");
            members.run(20);
            if members.exists(leader, "/after") {
                return;
            }
        }
    }
    panic!("a majority that nobody has touched cannot write");
}

fn status(members: &Members, target: NodeId) -> Status {
    match members.nodes.get(&target) {
        Some(node) => node.status(),
        None => panic!("{target} was started"),
    }
}

/// A cluster with a member in this role, and which one.
fn in_role(role: usize) -> (Members, NodeId) {
    let mut members = Members::founded();
    members.run_until(400, "the first leader", |it| it.leader().is_some());
    let leader = members.leader().unwrap_or(id(1));
    members.create(leader, "/before");
    members.run(2);
    let follower = [1, 2, 3].map(id).into_iter().find(|it| *it != leader).unwrap_or(leader);
    let is = |it: &Members, member, role| status(it, member).role == role;
    match role {
        0 => (members, follower),
        1 => {
            members.cut_off = Some(follower);
            members.run_until(100, "it asks", |it| is(it, follower, Role::PreCandidate));
            (members, follower)
        }
        2 => {
            // Nobody hears of the leader, and no vote arrives.
            members.lose =
                |frame| matches!(&frame.body, Body::Raft(it) if [3, 6, 8].contains(&it.kind));
            let campaigns = |it: &Members| {
                let mut all = it.nodes.iter();
                all.find(|(_, node)| node.status().role == Role::Candidate).map(|(id, _)| *id)
            };
            members.run_until(400, "somebody campaigns", |it| campaigns(it).is_some());
            let candidate = campaigns(&members).unwrap_or(follower);
            members.lose = |_| false;
            (members, candidate)
        }
        3 => (members, leader),
        4 => {
            members.add(4);
            members.submit(leader, Request::AddLearner(id(4)));
            members.run_until(100, "a learner", |it| is(it, id(4), Role::Learner));
            (members, id(4))
        }
        _ => {
            members.add(4);
            members.run(2);
            (members, id(4))
        }
    }
}

/// Frames of a run, and one of each kind that is rare.
fn real_frames() -> &'static [Frame] {
    static FRAMES: OnceLock<Vec<Frame>> = OnceLock::new();
    FRAMES.get_or_init(|| thinned(recorded()))
}

/// Every frame of a founding, elections, writes, reads, a snapshot and a change of membership.
fn recorded() -> Vec<Frame> {
    let mut members = Members::founded();
    members.sent = Some(Vec::new());
    (1..=3).for_each(|it| members.start(id(it)));
    members.run_until(400, "the first leader", |it| it.leader().is_some());
    let leader = members.leader().unwrap_or(id(1));
    let follower = [1, 2, 3].map(id).into_iter().find(|it| *it != leader).unwrap_or(leader);
    members.cut_off = Some(follower);
    for n in 0..40 {
        members.create(leader, &format!("/n{n}"));
        members.run(1);
    }
    // It has missed so much that it needs a snapshot.
    members.cut_off = None;
    members.run(60);
    members.create(follower, "/by-a-follower");
    members.read(follower);
    members.run(5);
    members.add(4);
    members.leader().map(|leader| members.submit(leader, Request::AddLearner(id(4))));
    members.run(20);
    members.cut_off = members.leader();
    members.run(60);
    let sent = members.sent.take().unwrap_or_default();
    let frames: Result<Vec<Frame>, FrameError> =
        sent.iter().map(|bytes| Frame::decode(bytes, usize::MAX)).collect();
    frames.unwrap_or_default()
}

/// Few of each kind, so that each is as likely as the others.
fn thinned(sent: Vec<Frame>) -> Vec<Frame> {
    let incarnation = sent.first().map(|frame| frame.incarnation);
    let rare = samples::bodies().into_iter().map(|body| frame_of(body, incarnation));
    let kind = |frame: &Frame| match &frame.body {
        Body::Raft(message) => 100 + u64::from(message.kind) * 2 + u64::from(message.reject),
        _ => frame.encode()[6].into(),
    };
    let mut taken = std::collections::BTreeMap::<u64, Vec<Frame>>::new();
    for frame in sent.into_iter().chain(rare) {
        let of_kind = taken.entry(kind(&frame)).or_default();
        if of_kind.len() < OF_KIND_MAX && !of_kind.iter().any(|it| it.body == frame.body) {
            of_kind.push(frame);
        }
    }
    taken.into_values().flatten().collect()
}

fn frame_of(body: Body, incarnation: Option<Incarnation>) -> Frame {
    let incarnation = incarnation.unwrap_or(samples::incarnation());
    Frame { cluster: samples::cluster(), from: id(1), to: id(2), incarnation, body }
}

const ROLES: usize = 6;
const MESSAGES_MAX: usize = 64;
const OF_KIND_MAX: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    /// What messages are made from has all of them, and each role is reached.
    #[test]
    fn there_is_a_frame_of_each_kind_and_a_member_in_each_role() {
        let kinds: std::collections::BTreeSet<u8> =
            real_frames().iter().map(|frame| frame.encode()[6]).collect();
        assert_eq!(kinds, (1..=16).collect());
        let sent: std::collections::BTreeSet<u8> =
            recorded().iter().map(|frame| frame.encode()[6]).collect();
        assert!(sent.is_superset(&[1, 3, 4, 5, 6, 7, 8, 9, 10, 11].into()), "{sent:?}");
        let raft = real_frames().iter().filter_map(|frame| match &frame.body {
            Body::Raft(message) => Some(message.kind),
            _ => None,
        });
        let raft: std::collections::BTreeSet<u32> = raft.collect();
        assert!(raft.len() >= 9, "{raft:?}");
        let roles = [
            Role::Follower,
            Role::PreCandidate,
            Role::Candidate,
            Role::Leader,
            Role::Learner,
            Role::Learner,
        ];
        for (number, role) in roles.into_iter().enumerate() {
            let (members, target) = in_role(number);
            assert_eq!(status(&members, target).role, role, "{number}");
        }
    }
}
