//! Random commands against the naive model, and against other replicas.

use std::collections::BTreeSet;

use super::{
    super::model::compare::{apply_to_both, compare, compare_past},
    *,
};
use crate::op::{LimitName, OpError};

/// Replies, changes, tree, sessions and history are those of the model, and a state that goes
/// through its snapshot goes on as if nothing had been (rules 2, 3, 4, 7, 9, 10 and 12 of
/// ARCHITECTURE.md). A million commands in all, in tests that run side by side.
#[test]
fn the_first_commands_of_a_million_do_what_the_model_does() {
    commands_do_what_the_model_does(1);
}

#[test]
fn the_second_commands_of_a_million_do_what_the_model_does() {
    commands_do_what_the_model_does(2);
}

#[test]
fn the_third_commands_of_a_million_do_what_the_model_does() {
    commands_do_what_the_model_does(3);
}

#[test]
fn the_fourth_commands_of_a_million_do_what_the_model_does() {
    commands_do_what_the_model_does(4);
}

/// A quarter of a million.
fn commands_do_what_the_model_does(seed: u64) {
    let parameters = tight();
    let mut model = Model::new(parameters);
    let mut ns = Namespace::new(parameters);
    let (mut random, mut reached) = (Random::new(seed), BTreeSet::new());
    for step in 0..250_000 {
        if random.below(4) == 0 {
            let (advance_us, wall_ms) = (random.below(4) * 40, random.below(1000) + step / 100);
            model.begin_entry(advance_us, wall_ms);
            ns.begin_entry(advance_us, wall_ms);
        }
        let command = random.command(&model);
        reached.extend(of_leases(&apply_to_both(&mut ns, &mut model, command)));
        if step % 1024 == 0 {
            compare(&ns, &model, &mut random);
        }
        if random.below(500) == 0 {
            ns = restored(&ns, 1 + random.below(200) as usize);
            check_indexes(&ns);
            compare_past(&ns, &model, &mut random);
        }
    }
    // The generator reaches what it is to reach.
    assert_eq!(reached.len(), 8, "{reached:?}");
    assert!(model.zxid > 30_000, "{}", model.zxid);
    assert!(model.next_session > 1_000, "{}", model.next_session);
    assert!(model.floor.as_u64() > 29_000, "{:?}", model.floor);
}

/// A replica that starts from another's snapshot halfway ends with the same bytes.
#[test]
fn replicas_end_with_the_same_bytes() {
    for seed in 100..110 {
        let parameters = tight();
        let mut model = Model::new(parameters);
        let mut first = Namespace::new(parameters);
        let mut second = None::<Namespace>;
        let mut random = Random::new(seed);
        for step in 0..4_000 {
            let (advance_us, wall_ms) = (random.below(50), random.below(1000));
            let command = random.command(&model);
            model.begin_entry(advance_us, wall_ms);
            model.apply(command.clone());
            first.begin_entry(advance_us, wall_ms);
            let applied = first.apply(command.clone());
            if let Some(second) = &mut second {
                second.begin_entry(advance_us, wall_ms);
                assert_eq!(second.apply(command), applied);
            }
            if step == 2_000 {
                second = Some(restored(&first, 100));
            }
        }
        let second = second.expect("it was made halfway");
        assert_eq!(snapshot(&first), snapshot(&second));
    }
}

/// ARCHITECTURE.md, S10: a snapshot is a point in time, however long it takes to write.
#[test]
fn a_snapshot_is_written_while_the_tree_changes() {
    let parameters = tight();
    let mut model = Model::new(parameters);
    let mut ns = Namespace::new(parameters);
    let mut random = Random::new(7);
    for _ in 0..20 {
        let at_once = snapshot(&ns);
        let mut encoder = encoder(&ns);
        let mut pieces = Vec::new();
        while let Some(chunk) = encoder.next_chunk(50) {
            assert!(chunk.len() == 50 || pieces.len() + chunk.len() == at_once.len());
            pieces.extend_from_slice(&chunk);
            for _ in 0..20 {
                let command = random.command(&model);
                model.apply(command.clone());
                ns.apply(command);
            }
        }
        assert!(pieces == at_once, "the snapshot changed while it was written");
        assert!(encoder.into_state().zxid() < ns.zxid());
        assert_ne!(snapshot(&ns), at_once);
    }
}

/// What a command did with leases, and which of their bounds it met.
fn of_leases(applied: &Applied) -> Option<&'static str> {
    let reply = match applied {
        Applied::LeaseExpired { .. } => return Some("expired"),
        Applied::KeepAlives { accepted, .. } => {
            return accepted.iter().any(|it| it.lease.is_some()).then_some("renewed");
        }
        Applied::Sequenced { reply, .. } => reply,
        _ => return None,
    };
    match &reply.result {
        Ok(Outcome::Granted { .. }) => Some("granted"),
        Ok(Outcome::Revoked { nodes: 1.., .. }) => Some("revoked with nodes"),
        Ok(Outcome::Txn { results, .. }) => {
            let revoked = |it: &Outcome| matches!(it, Outcome::Revoked { nodes: 1.., .. });
            results.iter().any(revoked).then_some("revoked with nodes")
        }
        Err(OpError::Limit { limit, .. }) => match limit {
            LimitName::SessionLeases => Some("leases of a session"),
            LimitName::Leases => Some("leases"),
            LimitName::Ephemerals => Some("ephemeral nodes"),
            LimitName::Nodes => Some("nodes"),
            _ => None,
        },
        _ => None,
    }
}
