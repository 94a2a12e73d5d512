//! Setting up a simulated cluster.

use std::{fmt, time::Duration};

use crate::{
    config::{Config, ConfigBuilder, ConfigError},
    id::{ClusterId, NodeId},
    sim::{Application, Cluster, Faults, Plan, application::Idle},
};

/// Collects what a [`Cluster`] is made of.
#[must_use = "a builder makes nothing until `build` is called"]
pub struct Builder {
    pub(super) plan: Plan,
    pub(super) nodes: u64,
    pub(super) faults: Faults,
    pub(super) grace: Duration,
    pub(super) configure: Box<dyn Fn(ConfigBuilder) -> ConfigBuilder>,
    pub(super) application: Box<dyn FnMut(NodeId) -> Box<dyn Application>>,
    pub(super) invariants: Vec<Invariant>,
}

/// What must hold after each step.
pub(super) struct Invariant {
    pub(super) name: String,
    #[expect(clippy::type_complexity, reason = "it is what the user gives")]
    pub(super) holds: Box<dyn FnMut(&Cluster) -> Result<(), String>>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            plan: Plan::new(0),
            nodes: 3,
            faults: Faults::none(),
            grace: Duration::from_secs(3),
            configure: Box::new(|config| config),
            application: Box::new(|_| Box::new(Idle)),
            invariants: Vec::new(),
        }
    }

    /// Everything is drawn from this seed. Default: 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.plan = Plan::new(seed);
        self
    }

    /// The seed, and which of its faults happen: what [`search()`] hands out.
    ///
    /// [`search()`]: crate::sim::search()
    pub fn plan(mut self, plan: &Plan) -> Self {
        self.plan = plan.clone();
        self
    }

    /// How many members found the cluster, 1 to 9. Default: 3.
    pub fn nodes(mut self, nodes: u64) -> Self {
        self.nodes = nodes.clamp(1, 9);
        self
    }

    /// What goes wrong. Default: nothing.
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// How long nothing goes wrong at first: a cluster whose founders lose their disks while they
    /// found it is not founded. Default: 3 s.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Changes the members' configuration from its defaults, also that of members that join later.
    pub fn config(mut self, configure: impl Fn(ConfigBuilder) -> ConfigBuilder + 'static) -> Self {
        self.configure = Box::new(configure);
        self
    }

    /// What runs on each member; called at each start of its process. Default: nothing.
    pub fn application<T: Application + 'static>(
        mut self,
        mut start: impl FnMut(NodeId) -> T + 'static,
    ) -> Self {
        self.application = Box::new(move |node| Box::new(start(node)));
        self
    }

    /// What must hold after each step; an error ends the run as a [`Violation`].
    ///
    /// [`Violation`]: crate::sim::Violation
    pub fn invariant(
        mut self,
        name: &str,
        holds: impl FnMut(&Cluster) -> Result<(), String> + 'static,
    ) -> Self {
        self.invariants.push(Invariant { name: name.to_owned(), holds: Box::new(holds) });
        self
    }

    /// The cluster, whose members start with the first step.
    ///
    /// # Errors
    ///
    /// When the configuration is not possible.
    pub fn build(self) -> Result<Cluster, ConfigError> {
        let ids: Vec<NodeId> = (1..=self.nodes).filter_map(NodeId::new).collect();
        let cluster = ClusterId::named(CLUSTER);
        let mut configs = Vec::new();
        for id in &ids {
            let config = Config::founding(cluster, *id, ids.iter().copied());
            configs.push((self.configure)(config.seed(self.plan.seed())).build()?);
        }
        Ok(Cluster::new(self, configs))
    }

    /// The configuration of a member that joins later.
    pub(super) fn joining(
        configure: &dyn Fn(ConfigBuilder) -> ConfigBuilder,
        seed: u64,
        id: NodeId,
    ) -> Config {
        let config = Config::joining(ClusterId::named(CLUSTER), id).seed(seed);
        configure(config).build().expect("it is possible for the founders")
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("plan", &self.plan)
            .field("nodes", &self.nodes)
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

const CLUSTER: &str = "simulated";
