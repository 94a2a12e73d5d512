//! What a read has found, as whoever asked for it wants it.

use std::task::Waker;

use bytes::Bytes;

use crate::{
    client::{Error, completion::Promise},
    id::Zxid,
    node::ReadOutcome,
    op::{Acl, LeaseStat, Owned, Page, Quota, Stat, Usage},
};

/// What a read found.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The zxid at which the tree was read.
    pub zxid: Zxid,
    /// What was found.
    pub outcome: ReadOutcome,
}

/// The promise of a read's answer.
#[derive(Debug)]
pub(crate) enum ReadPromise {
    Any(Promise<Answer>),
    Get(Promise<(Bytes, Stat)>),
    Exists(Promise<Option<Stat>>),
    List(Promise<Page>),
    Acl(Promise<(Acl, Stat)>),
    Quota(Promise<Option<(Quota, Usage)>>),
    Lease(Promise<LeaseStat>),
    Owned(Promise<Owned>),
    Descendants(Promise<(u64, bool)>),
}

impl ReadPromise {
    /// Fills it, and wakes who waits for it later, with the others.
    pub(crate) fn fill_quietly(self, answer: Result<Answer, Error>, wakers: &mut Vec<Waker>) {
        use ReadOutcome as Found;
        match self {
            Self::Any(it) => it.fill_quietly(answer, wakers),
            Self::Get(it) => it.fill_quietly(
                picked(answer, |found| match found {
                    Found::Node { data, stat } => Some((data, stat)),
                    _ => None,
                }),
                wakers,
            ),
            Self::Exists(it) => it.fill_quietly(
                picked(answer, |found| match found {
                    Found::Exists(stat) => Some(stat),
                    _ => None,
                }),
                wakers,
            ),
            Self::List(it) => it.fill_quietly(
                picked(answer, |found| match found {
                    Found::Listed(page) => Some(page),
                    _ => None,
                }),
                wakers,
            ),
            Self::Acl(it) => it.fill_quietly(
                picked(answer, |found| match found {
                    Found::Acl { acl, stat } => Some((acl, stat)),
                    _ => None,
                }),
                wakers,
            ),
            Self::Quota(it) => it.fill_quietly(
                picked(answer, |found| match found {
                    Found::Quota(quota) => Some(quota),
                    _ => None,
                }),
                wakers,
            ),
            Self::Lease(it) => it.fill_quietly(
                picked(answer, |found| match found {
                    Found::Lease(stat) => Some(stat),
                    _ => None,
                }),
                wakers,
            ),
            Self::Owned(it) => it.fill_quietly(
                picked(answer, |found| match found {
                    Found::Owned(owned) => Some(owned),
                    _ => None,
                }),
                wakers,
            ),
            Self::Descendants(it) => it.fill_quietly(
                picked(answer, |found| match found {
                    Found::Descendants { nodes, more } => Some((nodes, more)),
                    _ => None,
                }),
                wakers,
            ),
        }
    }

    /// Says why there is no answer.
    pub(crate) fn refuse(self, error: Error) {
        let mut wakers = Vec::new();
        self.fill_quietly(Err(error), &mut wakers);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Says that the node is gone.
    pub(crate) fn close(self, why: &str) {
        let (why, submitted) = (why.to_owned(), false);
        self.refuse(Error::Closed { why, submitted });
    }
}

fn picked<T>(
    answer: Result<Answer, Error>,
    pick: impl FnOnce(ReadOutcome) -> Option<T>,
) -> Result<T, Error> {
    pick(answer?.outcome).ok_or(Error::Taken)
}
