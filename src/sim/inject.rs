//! How each fault begins and ends.

use std::{path::Path, time::Duration};

use crate::{
    id::NodeId,
    node::Node,
    sim::{
        Cluster, FaultEvent, FaultId, FaultKind, Rng,
        faults::Schedule,
        member::{DIR, Member, State},
    },
    wal::{Keep, MemoryFs},
};

/// What ends when a lasting fault does.
#[derive(Clone, Debug)]
pub(super) enum Undo {
    Links(Vec<(NodeId, NodeId)>),
    Weather(FaultKind),
    Drift(NodeId),
    SlowDisk(NodeId),
    FullDisk(NodeId),
    /// The power goes, and with it what the disk had only said that it synced.
    LyingDisk(NodeId),
    /// It is started on this image.
    Image(NodeId, MemoryFs),
}

impl Cluster {
    /// Ends what is over by now.
    pub(super) fn end_faults(&mut self) {
        while self.undo.first_key_value().is_some_and(|((at, _), _)| *at <= self.now) {
            if let Some(((_, id), undo)) = self.undo.pop_first() {
                self.record(&[id.kind as u64, id.number.into()]);
                self.end_fault(undo);
            }
        }
    }

    /// Begins what is due by now.
    pub(super) fn begin_faults(&mut self) {
        let Some(since) = self.now.checked_sub(self.grace) else {
            return;
        };
        while let Some(event) = self.schedule.as_mut().and_then(|it: &mut Schedule| it.take(since))
        {
            if self.plan.takes(event.id) {
                let event = FaultEvent { at: self.now, ..event };
                if self.begin_fault(&event) {
                    self.record(&[event.id.kind as u64, event.id.number.into(), event.draw]);
                    *self.counts.entry(event.id.kind).or_default() += 1;
                    self.injected.push(event);
                }
            }
        }
    }

    /// Returns whether it has had an effect.
    fn begin_fault(&mut self, event: &FaultEvent) -> bool {
        let mut rng = Rng::new(event.draw);
        let until = self.now + event.lasts;
        match event.id.kind {
            FaultKind::Loss | FaultKind::Duplication | FaultKind::Reordering | FaultKind::Delay => {
                self.worsen(event.id.kind, &mut rng);
                self.undo_at(until, event.id, Undo::Weather(event.id.kind));
                true
            }
            FaultKind::Clog => match self.link(&mut rng) {
                Some(link) => {
                    self.network.clog(link, until);
                    true
                }
                None => false,
            },
            FaultKind::OneWay
            | FaultKind::Halves
            | FaultKind::Isolation
            | FaultKind::Bridge
            | FaultKind::MajorityRing => {
                let links = self.partition(event.id.kind, &mut rng);
                self.network.cut(&links);
                let any = !links.is_empty();
                self.undo_at(until, event.id, Undo::Links(links));
                any
            }
            FaultKind::Drift | FaultKind::ClockJump | FaultKind::WallJump => {
                self.disturb_clock(event, &mut rng)
            }
            FaultKind::BitRot
            | FaultKind::MisdirectedWrite
            | FaultKind::Rollback
            | FaultKind::Rewind
            | FaultKind::Wipe
            | FaultKind::LyingSync => self.destroy(event, &mut rng),
            FaultKind::Forgery => self.forge(&mut rng),
            FaultKind::MemoryRot => self.rot_memory(&mut rng),
            FaultKind::Churn => self.begin_change(event.draw),
            _ => self.disturb_process(event, &mut rng),
        }
    }

    fn disturb_process(&mut self, event: &FaultEvent, rng: &mut Rng) -> bool {
        let until = self.now + event.lasts;
        let Some(at) = self.running(rng) else {
            return false;
        };
        let member = &mut self.members[at];
        let id = member.id;
        match event.id.kind {
            FaultKind::Crash => self.crash(id, None, event.lasts),
            FaultKind::PowerLoss => member.disk.burn(1 + rng.below(60)),
            FaultKind::Pause => member.paused_until = until,
            FaultKind::FailedSync => member.disk.fail_next_sync(),
            FaultKind::FailedWrite => member.disk.fail_next_write(),
            FaultKind::SlowDisk => {
                let (least, most) = (Duration::from_millis(10), Duration::from_millis(300));
                member.disk.set_sync_time(rng.between(least, most));
                self.undo_at(until, event.id, Undo::SlowDisk(id));
            }
            FaultKind::FullDisk => {
                member.disk.set_full(true);
                self.undo_at(until, event.id, Undo::FullDisk(id));
            }
            _ => return false,
        }
        true
    }

    fn disturb_clock(&mut self, event: &FaultEvent, rng: &mut Rng) -> bool {
        let now = self.now;
        let at = rng.below(self.members.len() as u64) as usize;
        let member = &mut self.members[at];
        match event.id.kind {
            FaultKind::Drift => {
                let ppm = rng.below(2 * DRIFT_PPM_MAX + 1) as i64 - DRIFT_PPM_MAX as i64;
                member.clock.set_drift(now, ppm);
                let id = member.id;
                self.undo_at(now + event.lasts, event.id, Undo::Drift(id));
            }
            FaultKind::ClockJump => {
                let (least, most) = (Duration::from_millis(10), Duration::from_secs(10));
                let longest = rng.between(least, most);
                member.clock.jump(now, rng.between(least, longest));
            }
            _ => member.clock.set_wall_skew(rng.below(7_200_000) as i64 - 3_600_000),
        }
        self.members[at].clock_changed(now);
        true
    }

    /// Befalls a victim only.
    fn destroy(&mut self, event: &FaultEvent, rng: &mut Rng) -> bool {
        let Some(id) = rng.pick(&self.victims) else {
            return false;
        };
        let until = self.now + event.lasts;
        let is_known = self.is_known_to_all(id);
        let Some(member) = self.members.iter_mut().find(|member| member.id == id) else {
            return false;
        };
        if member.process().is_none() {
            return false;
        }
        match event.id.kind {
            FaultKind::BitRot => {
                member.destroyed = true;
                return member.disk.rot(Path::new(DIR), rng);
            }
            FaultKind::MisdirectedWrite => {
                member.destroyed = true;
                member.disk.misdirect_next_write(rng.next());
            }
            FaultKind::LyingSync => {
                member.destroyed = true;
                member.disk.set_lying(true);
                self.undo_at(until, event.id, Undo::LyingDisk(id));
            }
            FaultKind::Rewind => {
                let image = member.disk.image();
                self.undo_at(until, event.id, Undo::Image(id, image));
            }
            FaultKind::Wipe => {
                (member.destroyed, member.wiped) = (true, true);
                member.state = State::Down(until);
                member.disk.replace(MemoryFs::new());
            }
            // The image is one of an earlier life, which any peer can tell that has heard of it.
            _ if member.image.is_some() && !is_known => return false,
            _ => {
                member.state = State::Down(until);
                member.disk.crash(None);
                let image = member.disk.image();
                match member.image.replace(image) {
                    Some(earlier) => {
                        (member.destroyed, member.wiped) = (true, false);
                        member.disk.replace(earlier);
                    }
                    None => return false,
                }
            }
        }
        true
    }

    /// Whether every other member that is alive runs, and has pinned the opening of this one.
    fn is_known_to_all(&self, id: NodeId) -> bool {
        let node = |id| -> Option<&Node> { Some(self.member(id)?.process()?.node()) };
        let Some(opened) = node(id) else {
            return false;
        };
        let alive = |it: &&Member| it.id != id && !matches!(it.state, State::Dead(_));
        let mut others = self.members.iter().filter(alive);
        others.all(|other| node(other.id).is_some_and(|other| other.has_pinned(opened)))
    }

    /// A frame that is to be refused arrives at once.
    fn forge(&mut self, rng: &mut Rng) -> bool {
        let Some((from, to)) = self.link(rng) else {
            return false;
        };
        let (now, beyond) = (self.now, rng.below(2));
        let process = |id| self.member(id).and_then(Member::process);
        let (Some(sender), Some(receiver)) = (process(from), process(to)) else {
            return false;
        };
        let forged = sender.node().forge(to, receiver.node().glimpse().last_index + beyond);
        let receiver = self.member_mut(to).and_then(Member::process_mut);
        receiver.into_iter().for_each(|it| it.deliver(now, from, forged.clone()));
        true
    }

    /// Once in a run, and where two others are there to tell which state is the right one.
    fn rot_memory(&mut self, rng: &mut Rng) -> bool {
        let (few, victim) = (self.members.len() < 3, rng.pick(&self.victims));
        let destroyed = victim.is_none_or(|id| self.is_destroyed(id));
        if few || destroyed || self.counts.contains_key(&FaultKind::MemoryRot) {
            return false;
        }
        match victim.and_then(|id| self.member_mut(id)).and_then(Member::process_mut) {
            Some(process) => process.rot_memory(),
            None => return false,
        }
        self.agreement.expect_rot();
        true
    }

    fn end_fault(&mut self, undo: Undo) {
        let now = self.now;
        match undo {
            Undo::Links(links) => self.network.mend(&links),
            Undo::Weather(FaultKind::Loss) => self.network.weather.loss_ppm = 0,
            Undo::Weather(FaultKind::Duplication) => self.network.weather.duplication_ppm = 0,
            Undo::Weather(FaultKind::Reordering) => self.network.weather.reordering_ppm = 0,
            Undo::Weather(_) => self.network.weather.delay = Duration::ZERO,
            Undo::Drift(id) => {
                if let Some(member) = self.member_mut(id) {
                    member.clock.set_drift(now, 0);
                    member.clock_changed(now);
                }
            }
            Undo::SlowDisk(id) => {
                if let Some(member) = self.member_mut(id) {
                    member.disk.set_sync_time(Duration::ZERO);
                }
            }
            Undo::FullDisk(id) => {
                if let Some(member) = self.member_mut(id) {
                    member.disk.set_full(false);
                }
            }
            Undo::Image(id, image) => {
                let until = now + Duration::from_millis(100);
                if let Some(member) = self.member_mut(id).filter(|it| it.process().is_some()) {
                    member.destroyed = true;
                    member.state = State::Down(until);
                    member.disk.crash(None);
                    member.disk.replace(image);
                }
            }
            Undo::LyingDisk(id) => {
                if let Some(member) = self.member_mut(id) {
                    member.disk.set_lying(false);
                }
                self.crash(id, Some(Keep::Nothing), Duration::from_millis(100));
            }
        }
    }

    /// The power of a machine has gone in the middle of a turn.
    pub(super) fn power_off(&mut self, at: usize) {
        let down = self.rng.between(Duration::from_millis(50), Duration::from_secs(4));
        let keep = match self.rng.below(3) {
            0 => Keep::Nothing,
            1 => Keep::Everything,
            _ => Keep::Random { seed: self.rng.next() },
        };
        let (now, member) = (self.now, &mut self.members[at]);
        member.state = State::Down(now + down);
        member.disk.crash(Some(keep));
    }

    fn worsen(&mut self, kind: FaultKind, rng: &mut Rng) {
        let weather = &mut self.network.weather;
        match kind {
            FaultKind::Loss => weather.loss_ppm = 10_000 + rng.below(290_000) as u32,
            FaultKind::Duplication => weather.duplication_ppm = 10_000 + rng.below(490_000) as u32,
            FaultKind::Reordering => weather.reordering_ppm = 10_000 + rng.below(290_000) as u32,
            _ => {
                let (least, most) = (Duration::from_millis(5), Duration::from_millis(150));
                weather.delay = rng.between(least, most);
            }
        }
    }

    /// Which links a partition cuts, from and to.
    fn partition(&self, kind: FaultKind, rng: &mut Rng) -> Vec<(NodeId, NodeId)> {
        let mut ids = self.nodes();
        for at in (1..ids.len()).rev() {
            ids.swap(at, rng.below(at as u64 + 1) as usize);
        }
        let count = ids.len();
        if count < 2 {
            return Vec::new();
        }
        // Places in the shuffled row decide; the first one is the odd one.
        let half = 1 + rng.below(count as u64 - 1) as usize;
        let near = (count / 2).div_ceil(2);
        let apart = |one: usize, other: usize| match kind {
            FaultKind::OneWay => (one, other) == (0, 1),
            FaultKind::Isolation => one == 0 || other == 0,
            FaultKind::Halves => (one < half) != (other < half),
            FaultKind::Bridge => {
                one != 0 && other != 0 && (one <= count / 2) != (other <= count / 2)
            }
            _ => {
                let distance = one.abs_diff(other);
                distance.min(count - distance) > near
            }
        };
        let mut links = Vec::new();
        for one in 0..count {
            let others = (0..count).filter(|other| one != *other && apart(one, *other));
            links.extend(others.map(|other| (ids[one], ids[other])));
        }
        links
    }

    fn link(&self, rng: &mut Rng) -> Option<(NodeId, NodeId)> {
        let ids = self.nodes();
        let (from, to) = (rng.pick(&ids)?, rng.pick(&ids)?);
        (from != to).then_some((from, to))
    }

    /// A member whose process runs.
    fn running(&self, rng: &mut Rng) -> Option<usize> {
        let running = |at: &usize| self.members[*at].process().is_some();
        let running: Vec<usize> = (0..self.members.len()).filter(running).collect();
        rng.pick(&running)
    }

    fn undo_at(&mut self, at: Duration, id: FaultId, undo: Undo) {
        self.undo.insert((at, id), undo);
    }
}

/// Two clocks differ by at most twice as much, which is less than the default of
/// [`max_drift_ppm`](crate::ConfigBuilder::max_drift_ppm).
const DRIFT_PPM_MAX: u64 = 4_000;
