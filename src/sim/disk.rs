//! The simulated disk: a [`MemoryFs`] on which more can go wrong, and which takes time.

use std::{io, path::Path, sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::{
    sim::Rng,
    wal::{Fault, Fs, FsFile, Keep, MemoryFs},
};

/// A member's disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    memory: MemoryFs,
    control: Arc<Mutex<Control>>,
}

/// What goes wrong now.
#[derive(Debug, Default)]
struct Control {
    /// Operations until the power goes; 0 when it stays.
    fuse: u64,
    dark: bool,
    fail_sync: bool,
    fail_write: bool,
    full: bool,
    lying: bool,
    /// Chooses where the next write goes instead; 0 for where it belongs.
    misdirect: u64,
    sync_time: Duration,
    /// How long it has worked in this turn.
    busy: Duration,
}

impl Disk {
    pub(super) fn new() -> Self {
        Self { memory: MemoryFs::new(), control: Arc::default() }
    }

    /// A copy of what is on it.
    pub(super) fn image(&self) -> MemoryFs {
        self.memory.fork()
    }

    /// Another disk is put in.
    pub(super) fn replace(&mut self, memory: MemoryFs) {
        self.memory = memory;
    }

    pub(super) fn is_dark(&self) -> bool {
        self.control.lock().dark
    }

    /// How long it has worked since [`begin_turn`](Self::begin_turn).
    pub(super) fn busy(&self) -> Duration {
        self.control.lock().busy
    }

    pub(super) fn begin_turn(&self) {
        self.control.lock().busy = Duration::ZERO;
    }

    /// The power goes after so many operations.
    pub(super) fn burn(&self, operations: u64) {
        self.control.lock().fuse = operations;
    }

    pub(super) fn fail_next_sync(&self) {
        self.control.lock().fail_sync = true;
    }

    pub(super) fn fail_next_write(&self) {
        self.control.lock().fail_write = true;
    }

    pub(super) fn misdirect_next_write(&self, draw: u64) {
        self.control.lock().misdirect = draw | 1;
    }

    pub(super) fn set_full(&self, full: bool) {
        self.control.lock().full = full;
    }

    pub(super) fn set_lying(&self, lying: bool) {
        self.control.lock().lying = lying;
    }

    pub(super) fn set_sync_time(&self, time: Duration) {
        self.control.lock().sync_time = time;
    }

    /// The process is gone; its page cache is not, unless the power has gone, too. What was armed
    /// for it is forgotten.
    pub(super) fn crash(&self, power: Option<Keep>) {
        if let Some(keep) = power {
            self.memory.crash(keep);
        }
        let mut control = self.control.lock();
        let (sync_time, full) = (control.sync_time, control.full);
        *control = Control { sync_time, full, ..Control::default() };
    }

    /// Nothing goes wrong any more.
    pub(super) fn heal(&self) {
        *self.control.lock() = Control::default();
    }

    /// Changes a durable bit of one file in `dir`; says whether there was one.
    pub(super) fn rot(&self, dir: &Path, rng: &mut Rng) -> bool {
        let mut rot = || -> io::Result<bool> {
            let names = self.memory.list(dir)?;
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let Some(name) = rng.pick(&names) else {
                return Ok(false);
            };
            let file = self.memory.open(&dir.join(name))?;
            let length = file.len()?;
            if length == 0 {
                return Ok(false);
            }
            let (at, mut byte) = (rng.below(length), [0]);
            file.read_at(&mut byte, at)?;
            byte[0] ^= 1 << rng.below(8);
            file.write_at(&byte, at)?;
            file.sync_data()?;
            Ok(true)
        };
        rot().unwrap_or(false)
    }

    /// Counts an operation, and says whether the power goes at it.
    fn operation(&self) {
        let mut control = self.control.lock();
        control.busy += OPERATION;
        if control.fuse > 0 {
            control.fuse -= 1;
            if control.fuse == 0 {
                control.dark = true;
                self.memory.arm(&[Fault::PowerCut(1)]);
            }
        }
    }

    fn full(&self) -> bool {
        self.control.lock().full
    }
}

impl Fs for Disk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.operation();
        self.memory.create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.operation();
        self.memory.list(dir)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.operation();
        Ok(Box::new(File { disk: self.clone(), file: self.memory.open(path)? }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.operation();
        if self.full() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(Box::new(File { disk: self.clone(), file: self.memory.create(path)? }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operation();
        self.memory.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operation();
        self.memory.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.operation();
        self.memory.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.operation();
        Ok(Box::new(File { disk: self.clone(), file: self.memory.lock(path)? }))
    }
}

#[derive(Debug)]
struct File {
    disk: Disk,
    file: Box<dyn FsFile>,
}

impl FsFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.operation();
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.operation();
        let mut control = self.disk.control.lock();
        if control.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if std::mem::take(&mut control.fail_write) && !control.dark {
            self.disk.memory.arm(&[Fault::FailWrite(1)]);
        }
        let misdirect = std::mem::take(&mut control.misdirect);
        drop(control);
        let offset = match misdirect {
            0 => offset,
            draw => {
                let sectors = self.file.len()?.saturating_sub(bytes.len() as u64) / SECTOR;
                Rng::new(draw).below(sectors + 1) * SECTOR
            }
        };
        self.file.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.operation();
        let mut control = self.disk.control.lock();
        let time = control.sync_time.max(SYNC);
        control.busy += time;
        if std::mem::take(&mut control.fail_sync) && !control.dark {
            self.disk.memory.arm(&[Fault::FailSync(1)]);
        } else if control.lying && !control.dark {
            self.disk.memory.arm(&[Fault::LieSync(1)]);
        }
        drop(control);
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.operation();
        self.file.len()
    }
}

const SECTOR: u64 = 512;
/// What any operation takes.
const OPERATION: Duration = Duration::from_micros(1);
/// What a sync takes on a good disk.
const SYNC: Duration = Duration::from_micros(50);
