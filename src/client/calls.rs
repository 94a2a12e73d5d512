//! The calls that a client and a session have alike.
//!
//! They differ in who asks: a [`Client`](super::Client) with its identities, a
//! [`Session`](super::Session) in its order and with those of its attachment. Each has `txn`,
//! `caller` and `ask`, and the rest is written once.

macro_rules! calls {
    () => {
        /// Makes a node.
        pub fn create(
            &self,
            path: &Path,
            data: impl Into<Bytes>,
            mode: CreateMode,
        ) -> Completion<Written> {
            let (path, data) = (path.clone().into(), data.into());
            self.txn(Txn::new(Op::Create { path, data, mode, acl: None }))
        }

        /// Makes a node whose name is `prefix`, as [`Path::sequential_prefix`] gives it, followed
        /// by the parent's next number; a `mode` that is not sequential is taken as the one that
        /// is. The answer has the [path](Written::path).
        pub fn create_sequential(
            &self,
            prefix: PathPrefix,
            data: impl Into<Bytes>,
            mode: CreateMode,
        ) -> Completion<Written> {
            let (path, data, mode) = (prefix, data.into(), mode.sequential());
            self.txn(Txn::new(Op::Create { path, data, mode, acl: None }))
        }

        /// Replaces a node's data; if given, only at this version.
        pub fn set(
            &self,
            path: &Path,
            data: impl Into<Bytes>,
            version: Option<u64>,
        ) -> Completion<Written> {
            let (path, data) = (path.clone(), data.into());
            self.txn(Txn::new(Op::Set { path, data, version }))
        }

        /// Removes a node without children; if given, only at this version.
        pub fn delete(&self, path: &Path, version: Option<u64>) -> Completion<Written> {
            self.txn(Txn::new(Op::Delete { path: path.clone(), version }))
        }

        /// Removes a node and everything below it, at once; bounded, see
        /// [`Op::DeleteTree`].
        pub fn delete_tree(&self, path: &Path) -> Completion<Written> {
            self.txn(Txn::new(Op::DeleteTree { path: path.clone() }))
        }

        /// Replaces a node's access control list; if given, only at this version of the list.
        pub fn set_acl(&self, path: &Path, acl: Acl, version: Option<u64>) -> Completion<Written> {
            self.txn(Txn::new(Op::SetAcl { path: path.clone(), acl, version }))
        }

        /// Bounds a node and everything below it, or takes the bounds away.
        pub fn set_quota(&self, path: &Path, quota: Option<Quota>) -> Completion<Written> {
            self.txn(Txn::new(Op::SetQuota { path: path.clone(), quota }))
        }

        /// Looks at the tree.
        pub fn read(&self, op: ReadOp, consistency: Consistency) -> Completion<Answer> {
            self.look(op, consistency, ReadPromise::Any)
        }

        /// A node's data and stat.
        pub fn get(&self, path: &Path, consistency: Consistency) -> Completion<(Bytes, Stat)> {
            self.look(ReadOp::Get(path.clone()), consistency, ReadPromise::Get)
        }

        /// A node's stat, or `None` if there is no such node.
        pub fn exists(&self, path: &Path, consistency: Consistency) -> Completion<Option<Stat>> {
            self.look(ReadOp::Exists(path.clone()), consistency, ReadPromise::Exists)
        }

        /// A page of a node's children, all at one zxid.
        pub fn list(&self, list: List, consistency: Consistency) -> Completion<Page> {
            self.look(ReadOp::List(list), consistency, ReadPromise::List)
        }

        /// A node's access control list and its stat. Who may not replace the list sees no hashes
        /// in it.
        pub fn get_acl(&self, path: &Path, consistency: Consistency) -> Completion<(Acl, Stat)> {
            self.look(ReadOp::GetAcl(path.clone()), consistency, ReadPromise::Acl)
        }

        /// The quota that is set on a node, and what it counts; `None` if none is set on this one.
        pub fn quota(
            &self,
            path: &Path,
            consistency: Consistency,
        ) -> Completion<Option<(Quota, Usage)>> {
            self.look(ReadOp::Quota(path.clone()), consistency, ReadPromise::Quota)
        }

        /// A page of the ephemeral nodes of a lease, or of a session's own
        /// ([`SessionId::lease`](crate::SessionId::lease)), without those that may not be read; go
        /// on after [`Owned::resume`].
        pub fn owned(
            &self,
            lease: LeaseId,
            after: Option<&Path>,
            consistency: Consistency,
        ) -> Completion<Owned> {
            let op = ReadOp::Owned { lease, after: after.cloned() };
            self.look(op, consistency, ReadPromise::Owned)
        }

        /// How many nodes lie below a node, itself not counted, and whether there are more than
        /// [`ReadOp::DESCENDANTS_MAX`].
        pub fn descendants(
            &self,
            path: &Path,
            consistency: Consistency,
        ) -> Completion<(u64, bool)> {
            let (path, max) = (path.clone(), ReadOp::DESCENDANTS_MAX);
            self.look(ReadOp::Descendants { path, max }, consistency, ReadPromise::Descendants)
        }

        /// Watches, from now on or from after the transaction `from`. What was read at or before
        /// `from` and the changes of the watch have no gap between them; it waits until this
        /// member has applied `from`.
        ///
        /// What is there to begin with is in [`Watcher::view`]: list the children there, for
        /// instance, and follow them from then on. Changes name paths; to get data with them, see
        /// [`watch_with`](Self::watch_with) and [`Detail`](crate::Detail).
        ///
        /// It tells of what may be read only: see [`Watch`](crate::node::Watch).
        pub fn watch(&self, filter: Filter, from: Option<Zxid>) -> Completion<Watcher> {
            self.watch_with(Watch { from, ..Watch::of(filter, WATCH_BUFFER) })
        }

        /// As [`watch`](Self::watch), with everything that a watch can be asked for; its caller is
        /// whoever calls this. Its credit is how many events lie in the handle at most; it is
        /// given back as they are taken.
        pub fn watch_with(&self, watch: Watch) -> Completion<Watcher> {
            let watch = Watch { caller: self.caller(), ..watch };
            self.ask(|promise| Call::Watch { watch, promise })
        }

        /// The node's tree, and what it was at every zxid that is retained.
        ///
        /// ```no_run
        /// # fn example(client: quorate::client::Client, seen: quorate::Zxid)
        /// # -> Result<(), Box<dyn std::error::Error>> {
        /// let past = client.past().wait()?;
        /// println!("{:?}", past.at(seen)?.read(&"/config".parse()?));
        /// # Ok(())
        /// # }
        /// ```
        pub fn past(&self) -> Completion<Past> {
            let caller = self.caller();
            self.ask(|promise| Call::Past { caller, promise })
        }

        pub(super) fn look<T>(
            &self,
            op: ReadOp,
            consistency: Consistency,
            wrap: impl FnOnce(Promise<T>) -> ReadPromise,
        ) -> Completion<T> {
            let read = Read { caller: self.caller(), op, consistency };
            self.ask(|promise| Call::Read { read, promise: wrap(promise) })
        }
    };
}

pub(super) use calls;

/// Events that a watch's buffer holds.
pub(super) const WATCH_BUFFER: u32 = 1024;
