//! What a connection answers: each slot with what the node has said.

use std::cmp::Ordering;

use super::{Connection, Phase};
use crate::{
    client::{Ask, Error},
    id::Zxid,
    namespace::View,
    node::{ReadOutcome, RequestError},
    op::{OpError, Outcome},
    path::Path,
    zookeeper::{
        acl::{code_of, code_of_op, stat_of, user_of},
        code::{ErrorCode, OpCode, WatcherType},
        jute::Jute,
        record::{ClientIdentity, Create2Response, NumberResponse, PathRecord, WhoAmIResponse},
        request::Request,
        response::{PartResponse, Response},
        slot::{Plan, Slot, Turn, Waits, checked},
        view,
        watches::{Kind, Watches},
    },
};

impl Connection {
    /// Answers what needs nothing but its turn.
    pub(super) fn take_turns(&mut self, watches: &mut Watches) {
        while matches!(self.slots.front(), Some(Slot { waits: Waits::Turn(_), .. })) {
            let Some(Slot { header, waits: Waits::Turn(turn), .. }) = self.next_slot() else {
                return;
            };
            let (at, mut code) = ((header.xid, self.wire_zxid()), ErrorCode::Ok);
            let body = match turn {
                Turn::Unknown => {
                    self.outbox.reply(at, ErrorCode::Unimplemented, |_| {});
                    return self.leave();
                }
                Turn::Ping => Response::Empty,
                Turn::Refused(refused) => {
                    code = refused;
                    Response::Empty
                }
                Turn::Nothing => Response::Multi(Vec::new()),
                Turn::Watch(packet) => {
                    let adds = Request::header(&packet).map(|it| it.op);
                    code = self.watch(&packet, watches);
                    match code {
                        ErrorCode::Ok if adds == Ok(OpCode::AddWatch.number()) => {
                            Response::Number(NumberResponse { number: 0 })
                        }
                        _ => Response::Empty,
                    }
                }
                Turn::WhoAmI => {
                    self.who_am_i(at);
                    continue;
                }
            };
            self.outbox.reply(at, code, |out| body.write(out));
        }
    }

    fn who_am_i(&mut self, at: (i32, i64)) {
        let all: Vec<_> = self.identities.as_slice().iter().map(user_of).collect();
        let clients = all.iter().map(|it| ClientIdentity { scheme: it.0, user: &it.1 }).collect();
        self.outbox.reply(at, ErrorCode::Ok, |out| WhoAmIResponse { clients }.write(out));
    }

    fn watch(&self, packet: &[u8], watches: &mut Watches) -> ErrorCode {
        let Ok((_, request)) = Request::decode(packet) else {
            return ErrorCode::MarshallingError;
        };
        let (Request::AddWatch(it) | Request::CheckWatches(it) | Request::RemoveWatches(it)) =
            &request
        else {
            return ErrorCode::MarshallingError;
        };
        let path = match checked(it.path) {
            Ok(path) => path,
            Err(code) => return code,
        };
        let found = match (&request, it.kind, WatcherType::from_number(it.kind)) {
            (Request::AddWatch(_), mode @ (0 | 1), _) => {
                let kind = if mode == 0 { Kind::Persistent } else { Kind::Recursive };
                watches.add(self.id, kind, path);
                true
            }
            (Request::CheckWatches(_), _, Some(meant)) => watches.has(self.id, meant, &path),
            (Request::RemoveWatches(_), _, Some(meant)) => watches.remove(self.id, meant, &path),
            _ => return ErrorCode::BadArguments,
        };
        if found { ErrorCode::Ok } else { ErrorCode::NoWatcher }
    }

    pub(super) fn replied(&mut self, zxid: Zxid, result: Result<Outcome, Error>) {
        self.zxid = self.zxid.max(zxid);
        let Some(Slot { header, waits, .. }) = self.next_slot() else {
            return self.abort();
        };
        let at = (header.xid, self.wire_zxid());
        match waits {
            Waits::Write(op) => self.written(at, op, result),
            Waits::Multi(plan) => self.multi(at, &plan, result),
            Waits::Close => {
                self.outbox.reply(at, ErrorCode::Ok, |_| {});
                self.session = None;
                self.asks.push(Ask::Leave);
                self.phase = Phase::Closing;
            }
            _ => self.abort(),
        }
    }

    fn written(&mut self, at: (i32, i64), op: OpCode, result: Result<Outcome, Error>) {
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(error) => {
                let code = match (&error, op) {
                    (
                        Error::Request(RequestError::Op(OpError::InTxn { index: 0, cause })),
                        OpCode::Check,
                    ) if matches!(**cause, OpError::GuardFailed { .. }) => Some(ErrorCode::NoNode),
                    _ => code_of(&error),
                };
                return self.refuse(at, code);
            }
        };
        // The last step of several is the one that was asked for.
        let outcome = match &outcome {
            Outcome::Txn { results, .. } => results.last().unwrap_or(&outcome),
            one => one,
        };
        let body = match (outcome, op) {
            (Outcome::Created { path, .. }, OpCode::Create) => {
                Response::Path(PathRecord { path: path.as_str() })
            }
            (outcome, _) => done(outcome),
        };
        self.outbox.reply(at, ErrorCode::Ok, |out| body.write(out));
    }

    fn refuse(&mut self, at: (i32, i64), code: Option<ErrorCode>) {
        match code {
            Some(code) => self.outbox.reply(at, code, |_| {}),
            None => self.abort(),
        }
    }

    fn multi(&mut self, at: (i32, i64), plan: &Plan, result: Result<Outcome, Error>) {
        let parts: Vec<PartResponse<'_>> = match &result {
            Ok(Outcome::Txn { results, .. }) => {
                let mut part_done = plan.ops.iter().zip(results).peekable();
                let mut parts = Vec::with_capacity(plan.parts.len());
                for (at, &op) in plan.parts.iter().enumerate() {
                    let mut last = None;
                    while let Some(((_, _), outcome)) = part_done.next_if(|it| it.0.0 == at) {
                        last = Some(outcome);
                    }
                    let response = match (last, op) {
                        (Some(Outcome::Created { path, .. }), OpCode::Create) => {
                            Response::Path(PathRecord { path: path.as_str() })
                        }
                        (last, _) => last.map_or(Response::Empty, done),
                    };
                    parts.push(PartResponse::Done(op, response));
                }
                parts
            }
            Err(Error::Request(RequestError::Op(OpError::InTxn { index, cause }))) => {
                let at_op = usize::try_from(*index).ok().and_then(|it| plan.ops.get(it));
                let Some(&(failed, guarded)) = at_op else {
                    return self.abort();
                };
                let code = match &**cause {
                    OpError::GuardFailed { .. } => Some(guarded),
                    cause => code_of_op(cause),
                };
                let Some(code) = code else {
                    return self.abort();
                };
                let code = |part: usize| match part.cmp(&failed) {
                    Ordering::Less => ErrorCode::Ok,
                    Ordering::Equal => code,
                    Ordering::Greater => ErrorCode::RuntimeInconsistency,
                };
                let all = 0..plan.parts.len();
                all.map(|part| PartResponse::Failed(code(part).number())).collect()
            }
            Ok(_) => return self.abort(),
            Err(error) => return self.refuse(at, code_of(error)),
        };
        self.outbox.reply(at, ErrorCode::Ok, |out| Response::Multi(parts).write(out));
    }

    pub(super) fn read(
        &mut self,
        zxid: Zxid,
        result: Result<ReadOutcome, Error>,
        watches: &mut Watches,
    ) {
        self.zxid = self.zxid.max(zxid);
        let Some(Slot { header, waits, .. }) = self.next_slot() else {
            return self.abort();
        };
        let (at, id) = ((header.xid, self.wire_zxid()), self.id);
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(error) => return self.refuse(at, code_of(&error)),
        };
        match (waits, outcome) {
            (Waits::Exists(path, watch), ReadOutcome::Exists(stat)) => {
                if watch {
                    watches.add(id, Kind::Data, path);
                }
                match stat {
                    Some(stat) => {
                        self.outbox.reply(at, ErrorCode::Ok, |out| stat_of(&stat).write(out));
                    }
                    None => self.refuse(at, Some(ErrorCode::NoNode)),
                }
            }
            (Waits::Data(path, watch), ReadOutcome::Node { data, stat }) => {
                if watch {
                    watches.add(id, Kind::Data, path);
                }
                self.outbox.node(at, (!stat.null).then_some(&data), &stat_of(&stat));
            }
            (Waits::Sync(packet), ReadOutcome::Barrier) => match Request::decode(&packet) {
                Ok((_, Request::Sync(it))) => {
                    self.outbox.reply(at, ErrorCode::Ok, |out| it.write(out));
                }
                _ => self.abort(),
            },
            (Waits::View(packet), ReadOutcome::View(view)) => {
                self.look(at, &packet, &view, watches);
            }
            _ => self.abort(),
        }
    }

    fn look(&mut self, at: (i32, i64), packet: &[u8], tree: &View, watches: &mut Watches) {
        let (Ok((_, request)), Some(session)) = (Request::decode(packet), self.session) else {
            return self.abort();
        };
        let id = self.id;
        if let Some(all) = view::all_watches(&request) {
            let mut told = Vec::new();
            let tell = |kind, path: &Path| told.push((kind, path.clone()));
            view::set_watches(&all, tree, (watches, id), tell);
            for (kind, path) in told {
                self.tell(tree.zxid(), kind, &path);
            }
            return self.outbox.reply(at, ErrorCode::Ok, |_| {});
        }
        let mut body = Vec::new();
        let watch = |kind, path| watches.add(id, kind, path);
        match view::look(&request, tree, session.session, watch, &mut body) {
            Ok(()) => self.outbox.reply(at, ErrorCode::Ok, |out| out.append(&mut body)),
            Err(code) => self.refuse(at, Some(code)),
        }
    }
}

/// What an operation is answered with, but for a create without a stat.
fn done(outcome: &Outcome) -> Response<'_> {
    match outcome {
        Outcome::Created { path, stat } => {
            let (path, stat) = (path.as_str(), stat_of(stat));
            Response::Created(Create2Response { path, stat })
        }
        Outcome::Set { stat } | Outcome::AclSet { stat } => Response::Stat(stat_of(stat)),
        _ => Response::Empty,
    }
}
