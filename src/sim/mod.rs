//! Testing your application: a cluster of simulated members, with your program on each of them.
//!
//! Everything happens in one thread, on virtual time, and is drawn from one seed: hours pass in
//! seconds, machines lose their power and networks fall apart, and a failure that was seen once is
//! seen again whenever its seed is run. The code under test is that of production, quorate's and
//! your own: only the disk, the network, the clocks and the randomness are simulated.
//!
//! # How to write such a test
//!
//! 1. Put your program's steps behind [`Application::poll`], which does what can be done without
//!    waiting. It has the same [`Client`](crate::client::Client), sessions, watches and locks as in
//!    production, and looks at answers with
//!    [`try_take`](crate::client::Completion::try_take). It reads no clock but
//!    [`Instance::now`] and draws nothing but from [`Instance::rng`].
//! 2. Say what must always hold, as an [invariant](Builder::invariant) over what your program
//!    shares with the test, or over the trees of the members ([`Cluster::view`]).
//! 3. Choose what goes wrong: [`Faults::swarm`], or single kinds with [`Faults::every`].
//! 4. Let [`search()`] run seed after seed. A violation says which promise was broken and how to
//!    see it again, in one line (`QUORATE_SIM="17 loss:2,crash:0"`), with the fewest faults that
//!    were found to lead there.
//!
//! ```
//! use std::{cell::Cell, rc::Rc, time::Duration};
//! use quorate::client::{Completion, Written};
//! use quorate::sim::{Application, Cluster, Faults, Instance, Plan, Violation, search};
//! use quorate::{CreateMode, Path};
//!
//! /// Writes its own node again and again.
//! struct Writer { path: Path, write: Option<Completion<Written>>, done: Rc<Cell<u64>> }
//!
//! impl Application for Writer {
//!     fn poll(&mut self, at: &mut Instance<'_>) {
//!         let Some(write) = &mut self.write else {
//!             self.write = Some(at.client.create(&self.path, "", CreateMode::Persistent));
//!             return;
//!         };
//!         if let Some(answer) = write.try_take() {
//!             self.done.set(self.done.get() + u64::from(answer.is_ok()));
//!             self.write = Some(at.client.set(&self.path, "again", None));
//!         }
//!     }
//! }
//!
//! fn run(plan: &Plan) -> Result<(), Violation> {
//!     let done = Rc::new(Cell::new(0));
//!     let shared = Rc::clone(&done);
//!     let mut cluster = Cluster::builder()
//!         .plan(plan)
//!         .nodes(3)
//!         .faults(Faults::swarm())
//!         .application(move |node| Writer {
//!             path: format!("/{node}").parse().expect("valid"),
//!             write: None,
//!             done: Rc::clone(&shared),
//!         })
//!         .build()
//!         .expect("the defaults are possible");
//!     cluster.run_for(Duration::from_secs(10))?;
//!     cluster.heal();
//!     let before = done.get();
//!     cluster.run_until(Duration::from_secs(30), |_| (done.get() > before).then_some(()))
//! }
//!
//! search(0..2, run)?;
//! # Ok::<(), Violation>(())
//! ```
//!
//! `examples/simulated_app.rs` is a job scheduler on locks with a mistake, which this finds.
//!
//! # What is always checked
//!
//! After each turn of a member: no term has two leaders; what is committed is the same everywhere,
//! stays so, and is in the log of every later leader; members that have applied the same entries
//! have the same state, unless a memory has gone bad; terms, commits and zxids never go back, and
//! nobody votes twice in a term; a member that has lost its disk takes no part; no member ends, or
//! refuses to open its disk, unless the faults have destroyed what it needs. More, for what clients
//! see, is in [`check`]; [`swarm`] has all of it at work.
//!
//! # What is simulated, and how far
//!
//! - **Time** goes from one moment at which something happens to the next. Each member has clocks
//!   of its own; a turn takes no time but what its disk takes.
//! - **The network** carries frames in 0.1 ms and 0.3 ms more on average, in order on each link, as
//!   connections do. [`FaultKind`] has what happens to it.
//! - **Disks** are [`MemoryFs`](crate::wal::MemoryFs): bytes and names that were not synced are
//!   lost with the power, whole, in part, or by the sector of 512 bytes. The writes of a turn are
//!   made within it, not on a thread of their own as under a [`Driver`](crate::driver::Driver).
//! - **Processes** die between turns, or with the power in the middle of one, at any operation of
//!   the disk. The application dies with its member.
//! - **Machines** can be added ([`Cluster::join`]); [`FaultKind::Churn`] is an operator who lets
//!   new ones join and vote, and removes others.

mod application;
mod builder;
pub mod check;
mod churn;
mod clock;
mod cluster;
mod disk;
mod faults;
mod inject;
mod member;
mod network;
mod rng;
mod search;
pub mod swarm;
#[cfg(test)]
mod tests;

pub use application::{Application, Instance};
pub use builder::Builder;
pub use cluster::Cluster;
pub use faults::{FaultEvent, FaultId, FaultIdError, FaultKind, Faults};
pub use rng::Rng;
pub use search::{Plan, PlanError, Violation, search, shrink};
