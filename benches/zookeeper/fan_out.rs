//! One change, and many sessions that watch the node.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use quorate::zookeeper::{Request, SetDataRequest};

use crate::{
    Size, VALUE_BYTES,
    crowd::{Crowd, Told},
    load,
    servers::{Cpu, Servers},
    table::Row,
};

/// Every session watches one node, which changes; again and again. Arming is not measured.
pub(crate) fn run(servers: &Servers, size: Size) -> Result<Row, Box<dyn Error>> {
    let mut crowd = Crowd::open(servers.addresses(), size.sessions)?;
    load::create_all(&mut crowd, &[WATCHED.to_owned()])?;
    let (mut samples, mut elapsed, mut cost) = (Vec::new(), Duration::ZERO, Cpu::default());
    for _ in 0..size.rounds {
        for some in 0..crowd.len().div_ceil(ARMED_AT_ONCE) {
            let first = some * ARMED_AT_ONCE;
            for client in first..(first + ARMED_AT_ONCE).min(crowd.len()) {
                crowd.ask(client, &load::get(WATCHED, true));
            }
            crowd.settle()?;
        }
        let (before, start, mut told) = (servers.cpu()?, Instant::now(), 0);
        let data = Some(&[8; VALUE_BYTES][..]);
        crowd.ask(0, &Request::SetData(SetDataRequest { path: WATCHED, data, version: -1 }));
        while told < crowd.len() {
            crowd.turn(|_, _, it| {
                if matches!(it, Told::Event) {
                    told += 1;
                    samples.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
                }
                Ok(())
            })?;
            if start.elapsed() > EVENTS_MAX {
                return Err(format!("{told} of {} events came", crowd.len()).into());
            }
        }
        elapsed += start.elapsed();
        cost = cost.plus(servers.cpu()?.since(before));
        crowd.settle()?;
    }
    Ok(Row::new("fan_out", servers.name(), (elapsed, cost), &mut samples))
}

const WATCHED: &str = "/watched";
/// Requests under way while the watches are armed.
const ARMED_AT_ONCE: usize = 512;
const EVENTS_MAX: Duration = Duration::from_secs(30);
