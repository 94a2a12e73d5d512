//! What a server needs for many nodes.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use quorate::zookeeper::Request;

use crate::{
    Size,
    crowd::{Crowd, Told},
    load,
    servers::Servers,
    table::Row,
};

/// Makes nodes with values, and says by how much the memory of a server has grown, on average.
pub(crate) fn run(servers: &Servers, size: Size) -> Result<Row, Box<dyn Error>> {
    let mut crowd = Crowd::open(servers.addresses(), 3)?;
    let parents: Vec<String> =
        (0..size.nodes / CHILDREN).map(|it| format!("/many-{it:04}")).collect();
    load::create_all(&mut crowd, &parents)?;
    let before = servers.memory_bytes()?;
    // A transaction is a part of a parent's children.
    let mut left =
        parents.iter().flat_map(|it| (0..CHILDREN / TXN_OPS).map(move |part| (it, part * TXN_OPS)));
    let mut next = || -> Option<Vec<String>> {
        let (parent, first) = left.next()?;
        Some((0..TXN_OPS).map(|n| format!("{parent}/node-{:04}", first + n)).collect())
    };
    for client in 0..crowd.len() * TXNS_UNDER_WAY {
        if let Some(paths) = next() {
            crowd.ask(client % crowd.len(), &multi(&paths));
        }
    }
    while crowd.under_way() > 0 {
        crowd.turn(|_, line, told| {
            if let (Told::Answer(..), Some(paths)) = (told, next()) {
                line.ask(&multi(&paths), Instant::now());
            }
            Ok(())
        })?;
    }
    // Snapshots that are under way need memory, too, and are soon done.
    std::thread::sleep(SETTLE);
    let grown = servers.memory_bytes()? - before;
    Ok(Row::of_memory("memory", servers.name(), grown / size.nodes as f64))
}

fn multi(paths: &[String]) -> Request<'_> {
    Request::Multi(paths.iter().map(|it| load::create(it)).collect())
}

const CHILDREN: usize = 1_000;
const TXN_OPS: usize = 100;
const TXNS_UNDER_WAY: usize = 4;
const SETTLE: Duration = Duration::from_secs(5);
