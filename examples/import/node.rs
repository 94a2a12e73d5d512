//! A node, as the port for clients tells of it, and how to write one.

use std::{sync::Arc, time::Duration};

use zookeeper_client::{Acl, Acls, Client, CreateMode, CreateOptions, Error, Stat};

use crate::tally::Tally;

/// Where the tree is, and where it is to be.
#[derive(Clone)]
pub(crate) struct Ends {
    pub(crate) from: Client,
    pub(crate) to: Client,
    /// Counters further behind are left as they are.
    pub(crate) counters_max: usize,
    pub(crate) tally: Arc<Tally>,
}

impl Ends {
    /// What both read next is not older than what anybody was told before.
    pub(crate) async fn sync(&self) -> Result<(), Error> {
        self.from.sync("/").await?;
        self.to.sync("/").await
    }
}

/// What is copied of a node.
pub(crate) struct Node {
    pub(crate) data: Vec<u8>,
    pub(crate) acl: Vec<Acl>,
    pub(crate) stat: Stat,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Persistent,
    Container,
    Ttl(Duration),
    Ephemeral,
}

impl Node {
    /// Reads it; `None` if there is none.
    pub(crate) async fn read(client: &Client, path: &str) -> Result<Option<Self>, Error> {
        // Both requests are under way before the first answer.
        let (data, acl) = (client.get_data(path), client.get_acl(path));
        match (data.await, acl.await) {
            (Ok((data, stat)), Ok((acl, _))) => Ok(Some(Self { data, acl, stat })),
            (Err(Error::NoNode), _) | (_, Err(Error::NoNode)) => Ok(None),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    /// The names of its children. The protocol has no pages: a list is one packet.
    pub(crate) async fn children(&self, client: &Client, path: &str) -> Result<Vec<String>, Error> {
        if self.stat.num_children == 0 {
            return Ok(Vec::new());
        }
        let mut names = match client.list_children(path).await {
            Err(Error::NoNode) => Vec::new(),
            listed => listed?,
        };
        if path == "/" {
            names.retain(|name| name != "zookeeper");
        }
        Ok(names)
    }

    /// As the owner of an ephemeral node tells it (`EphemeralType`).
    pub(crate) fn kind(&self) -> Kind {
        match self.stat.ephemeral_owner {
            0 => Kind::Persistent,
            i64::MIN => Kind::Container,
            owner if (owner as u64) >> 56 == 0xff => {
                Kind::Ttl(Duration::from_millis(owner as u64 & TTL_MASK))
            }
            _ => Kind::Ephemeral,
        }
    }

    /// How to make one like it.
    pub(crate) fn options(&self) -> CreateOptions<'_> {
        let acl = Acls::new(&self.acl);
        match self.kind() {
            Kind::Container => CreateMode::Container.with_acls(acl),
            Kind::Ttl(ttl) => CreateMode::Persistent.with_acls(acl).with_ttl(ttl),
            Kind::Persistent | Kind::Ephemeral => CreateMode::Persistent.with_acls(acl),
        }
    }

    /// How many children were ever made: the number of the next sequential one.
    pub(crate) fn children_made(&self) -> i64 {
        (i64::from(self.stat.cversion) + i64::from(self.stat.num_children)) / 2
    }
}

/// Makes a node if `options` say how, and writes its data so often that its version is as high.
pub(crate) async fn write(
    client: &Client,
    path: &str,
    options: Option<&CreateOptions<'_>>,
    (data, times): (&[u8], usize),
) -> Result<(), Error> {
    let (mut writer, mut ops) = (client.new_multi_writer(), 0);
    // The data itself comes last.
    let nth = |left: usize| if left == 0 { data } else { &[] };
    if let Some(options) = options {
        writer.add_create(path, nth(times), options)?;
        ops = 1;
    }
    for left in (0..times).rev() {
        writer.add_set_data(path, nth(left), None)?;
        ops += 1;
        if ops == OPS_MAX {
            writer.commit().await?;
            ops = 0;
        }
    }
    if ops > 0 {
        writer.commit().await?;
    }
    Ok(())
}

/// Makes and removes a child so many times: the parent counts on.
pub(crate) async fn make_and_remove(
    client: &Client,
    path: &str,
    times: usize,
) -> Result<(), Error> {
    let mut left = times;
    while left > 0 {
        let pairs = left.min(OPS_MAX / 2);
        let mut writer = client.new_multi_writer();
        for _ in 0..pairs {
            writer.add_create(path, &[], &OPEN)?;
            writer.add_delete(path, None)?;
        }
        writer.commit().await?;
        left -= pairs;
    }
    Ok(())
}

/// A node of which nothing is known.
pub(crate) const OPEN: CreateOptions<'_> = CreateMode::Persistent.with_acls(Acls::anyone_all());
const TTL_MASK: u64 = 0xff_ffff_ffff;
/// As many as any cluster takes in one transaction (`Limits::txn_ops_max`).
const OPS_MAX: usize = 100;
