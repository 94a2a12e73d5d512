//! A disk in memory that loses what was not synced, and fails when it is told to.
//!
//! **What was not synced is lost, kept or torn by the sector; names and bytes apart.** Bytes and
//! lengths become durable by `sync_data` of their file, names by `sync_dir` of their directory, and
//! neither implies the other. A failed sync marks the pages clean: they are read back as long as
//! the machine runs, are lost by a power cut, and no later sync saves them unless they are written
//! again. Blocks of zeros that were never written to take no memory.

mod disk;
mod file;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use self::{
    disk::{Counts, Disk, NameChange, power_cut},
    file::Node,
};
use crate::wal::{Fs, FsFile};

/// A file system in memory. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryFs {
    disk: Arc<Mutex<Disk>>,
}

/// What shall go wrong. Numbers count from 1, from the moment when the fault is armed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// This write fails; half of it is in the page cache.
    FailWrite(u64),
    /// This write, and all after it, find the disk full.
    NoSpace(u64),
    /// This read fails.
    FailRead(u64),
    /// This sync of a file fails, and its pages are marked clean.
    FailSync(u64),
    /// From this sync of a file on, all say that they worked and did nothing.
    LieSync(u64),
    /// The power goes at this operation; it and all after it fail until [`MemoryFs::crash`].
    PowerCut(u64),
    /// This operation, of whatever kind, fails and does nothing.
    Fail(u64),
}

/// What a power cut leaves of what was not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Keep {
    /// Nothing of it.
    Nothing,
    /// All of it.
    Everything,
    /// Each sector of 512 bytes, each length and each name at random.
    Random {
        /// The same seed keeps the same.
        seed: u64,
    },
    /// The first sectors of 512 bytes that were written, and the first names that were changed; a
    /// file ends where what is kept of it does. [`MemoryFs::unsynced`] says how many there are.
    First {
        /// So many sectors.
        sectors: u64,
        /// So many changes of names.
        names: u64,
    },
}

/// What a power cut could take away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Unsynced {
    /// Sectors of 512 bytes; one that was written twice counts twice.
    pub sectors: u64,
    /// Files that were made, renamed and removed.
    pub names: u64,
}

impl MemoryFs {
    /// An empty disk on which nothing fails.
    pub fn new() -> Self {
        Self::default()
    }

    /// Arms faults, in place of those that were armed; counting starts again.
    pub fn arm(&self, faults: &[Fault]) {
        let mut disk = self.disk();
        disk.faults = faults.to_vec();
        disk.counts = Counts::default();
        disk.lying = false;
    }

    /// Cuts the power and brings it back: what was not synced is lost as `keep` says, open files
    /// are dead, locks are free, faults are disarmed.
    pub fn crash(&self, keep: Keep) {
        let mut disk = self.disk();
        let mut random = match keep {
            Keep::Random { seed } => seed,
            _ => 0,
        };
        let mut survives = || match keep {
            Keep::Nothing | Keep::First { .. } => false,
            Keep::Everything => true,
            Keep::Random { .. } => next_random(&mut random) & 1 == 1,
        };
        let mut names = 0;
        if let Keep::First { sectors, names: first } = keep {
            names = first;
            disk.keep_first(sectors);
        }
        for node in disk.nodes.values_mut() {
            node.crash(&mut survives);
        }
        for (nth, change) in (0..).zip(std::mem::take(&mut disk.renames)) {
            if nth < names || survives() {
                change.apply(&mut disk.durable_names);
            }
        }
        disk.names = disk.durable_names.clone();
        disk.forget_nameless();
        disk.calm();
        disk.life += 1;
    }

    /// What a power cut could take away now.
    pub fn unsynced(&self) -> Unsynced {
        let disk = self.disk();
        let sectors = disk.nodes.values().flat_map(|node| &node.undo).map(|undo| undo.sectors);
        Unsynced { sectors: sectors.sum(), names: disk.renames.len() as u64 }
    }

    /// From now on keeps a copy of the disk after each change: a write, a sync, a file that is
    /// made, renamed or removed. These are the moments at which a crash can find it.
    ///
    /// ```
    /// # use std::{path::Path, sync::Arc};
    /// # use quorate::{ClusterId, NodeId};
    /// use quorate::wal::{Keep, MemoryFs, Wal};
    /// # let (cluster, node) = (ClusterId::named("orders"), NodeId::new(1).expect("from 1 on"));
    /// let disk = MemoryFs::new();
    /// disk.record();
    /// Wal::open(Arc::new(disk.clone()), Path::new("data"), cluster, node)?;
    /// for moment in disk.recorded() {
    ///     moment.crash(Keep::Nothing);
    ///     Wal::open(Arc::new(moment), Path::new("data"), cluster, node)?;
    /// }
    /// # Ok::<(), quorate::wal::WalError>(())
    /// ```
    pub fn record(&self) {
        self.disk().moments = Some(Vec::new());
    }

    /// The copies since [`record`](Self::record) or since they were last taken, oldest first; with
    /// nothing open and no faults armed.
    pub fn recorded(&self) -> Vec<Self> {
        let moments = self.disk().moments.as_mut().map(std::mem::take).unwrap_or_default();
        let disk = |disk| Self { disk: Arc::new(Mutex::new(disk)) };
        moments.into_iter().map(disk).collect()
    }

    /// How many operations there were since faults were armed; each is a moment for a power cut.
    pub fn operations(&self) -> u64 {
        self.disk().counts.operations
    }

    /// A file's bytes as they are read, or `None` when there is none.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.disk();
        let node = disk.nodes.get(disk.names.get(path)?)?;
        let mut bytes = vec![0; node.length as usize];
        node.read(&mut bytes, 0);
        Some(bytes)
    }

    /// Puts a durable file with these bytes there, as damage or an operator would.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut disk = self.disk();
        let mut node = Node::default();
        node.write(bytes, 0, 0);
        node.sync();
        let number = disk.add(node);
        disk.names.insert(path.to_path_buf(), number);
        disk.durable_names.insert(path.to_path_buf(), number);
    }

    /// Takes a file away, durably; says whether there was one.
    pub fn take(&self, path: &Path) -> bool {
        let mut disk = self.disk();
        disk.durable_names.remove(path);
        disk.names.remove(path).is_some()
    }

    /// A disk of its own in the same state, with nothing open and no faults armed.
    pub fn fork(&self) -> Self {
        let disk = self.disk().copy();
        Self { disk: Arc::new(Mutex::new(disk)) }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fs for MemoryFs {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        self.disk().quiet_operation()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut disk = self.disk();
        disk.quiet_operation()?;
        let inside = disk.names.keys().filter(|path| path.parent() == Some(dir));
        let names = inside.filter_map(|path| path.file_name()?.to_str());
        Ok(names.map(str::to_owned).collect())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        let mut disk = self.disk();
        disk.quiet_operation()?;
        let number = *disk.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(&disk, number, None))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        let mut disk = self.disk();
        disk.operation()?;
        if disk.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let number = disk.add(Node::default());
        disk.change_names(None, Some((path.to_path_buf(), number)));
        disk.lit()?;
        Ok(self.handle(&disk, number, None))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.operation()?;
        let number = *disk.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        disk.change_names(Some(from.to_path_buf()), Some((to.to_path_buf(), number)));
        disk.lit()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.operation()?;
        if !disk.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.change_names(Some(path.to_path_buf()), None);
        disk.lit()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.quiet_operation()?;
        let disk = &mut *disk;
        let inside = |path: &Path| path.parent() == Some(dir);
        let (now, later) = std::mem::take(&mut disk.renames)
            .into_iter()
            .partition(|change: &NameChange| change.paths().any(inside));
        disk.renames = later;
        let now: Vec<NameChange> = now;
        for change in now {
            change.apply(&mut disk.durable_names);
        }
        disk.forget_nameless();
        disk.changed();
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        let mut disk = self.disk();
        disk.quiet_operation()?;
        if !disk.locked.insert(path.to_path_buf()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let number = match disk.names.get(path) {
            Some(number) => *number,
            None => {
                let number = disk.add(Node::default());
                disk.change_names(None, Some((path.to_path_buf(), number)));
                number
            }
        };
        Ok(self.handle(&disk, number, Some(path.to_path_buf())))
    }
}

impl MemoryFs {
    fn handle(&self, disk: &Disk, node: u64, lock: Option<PathBuf>) -> Box<dyn FsFile> {
        Box::new(MemoryFile { disk: Arc::clone(&self.disk), life: disk.life, node, lock })
    }
}

/// An open file of a [`MemoryFs`].
#[derive(Debug)]
struct MemoryFile {
    disk: Arc<Mutex<Disk>>,
    life: u64,
    node: u64,
    lock: Option<PathBuf>,
}

impl MemoryFile {
    /// The disk, unless the power was cut since the file was opened.
    fn disk(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        if disk.life != self.life {
            return Err(power_cut());
        }
        Ok(disk)
    }
}

impl FsFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.disk()?;
        disk.quiet_operation()?;
        disk.counts.reads += 1;
        let reads = disk.counts.reads;
        if disk.armed(|fault| *fault == Fault::FailRead(reads)) {
            return Err(io::Error::other("the medium cannot be read here (injected)"));
        }
        Ok(disk.node(self.node).read(buffer, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut disk = self.disk()?;
        disk.operation()?;
        disk.counts.writes += 1;
        let writes = disk.counts.writes;
        if disk.armed(|fault| matches!(fault, Fault::NoSpace(from) if *from <= writes)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let fails = disk.armed(|fault| *fault == Fault::FailWrite(writes));
        disk.written += 1;
        let number = disk.written;
        let bytes = if fails { &bytes[..bytes.len() / 2] } else { bytes };
        disk.node(self.node).write(bytes, offset, number);
        disk.changed();
        if fails {
            return Err(io::Error::other("the write failed (injected)"));
        }
        disk.lit()
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.disk()?;
        disk.quiet_operation()?;
        disk.counts.syncs += 1;
        let syncs = disk.counts.syncs;
        let fails = disk.armed(|fault| *fault == Fault::FailSync(syncs));
        disk.lying |= disk.armed(|fault| *fault == Fault::LieSync(syncs));
        let lies = disk.lying;
        if !fails && !lies {
            disk.node(self.node).sync();
            disk.changed();
            return Ok(());
        }
        disk.node(self.node).mark_clean();
        if fails {
            return Err(io::Error::other("the sync failed (injected)"));
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let mut disk = self.disk()?;
        disk.quiet_operation()?;
        Ok(disk.node(self.node).length)
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        if let (Some(path), Ok(mut disk)) = (self.lock.take(), self.disk()) {
            disk.locked.remove(&path);
        }
    }
}

/// SplitMix64.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
