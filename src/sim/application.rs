//! The seam between the simulator and what is tested on it.

use std::time::Duration;

use crate::{client::Client, id::NodeId, sim::Rng};

/// The user's program on one member, as it runs in production, but without threads: it is asked
/// again and again to do what it can do without waiting.
///
/// It is dropped when its process dies, and made anew when that starts again. What outlives a
/// process, such as files of its own, it shares with the test (`Rc<RefCell<..>>`).
///
/// ```
/// use quorate::{client::{Completion, Written}, sim::{Application, Instance}, CreateMode};
///
/// struct Greeter(Option<Completion<Written>>);
///
/// impl Application for Greeter {
///     fn poll(&mut self, at: &mut Instance<'_>) {
///         let path = "/hello".parse().expect("valid");
///         let create = self.0.get_or_insert_with(|| {
///             at.client.create(&path, "world", CreateMode::Persistent)
///         });
///         if let Some(answer) = create.try_take() {
///             println!("{answer:?} at {:?} on member {}", at.now, at.node);
///         }
///     }
/// }
/// ```
pub trait Application {
    /// Does what can be done now; called after each turn of its member, and every 10 ms.
    ///
    /// Completions and acquisitions are looked at with `try_take`, or polled as futures.
    fn poll(&mut self, at: &mut Instance<'_>);
}

/// Where an application runs.
#[derive(Debug)]
#[non_exhaustive]
pub struct Instance<'a> {
    /// A handle of the member that it runs on.
    pub client: &'a Client,
    /// The member.
    pub node: NodeId,
    /// How often the member was started, this time included.
    pub life: u64,
    /// Its own monotonic clock, which drifts and jumps, since the process was started.
    pub now: Duration,
    /// Chance: the only one that repeats.
    pub rng: &'a mut Rng,
}

/// A member without a program.
#[derive(Debug)]
pub(super) struct Idle;

impl Application for Idle {
    fn poll(&mut self, _: &mut Instance<'_>) {}
}
