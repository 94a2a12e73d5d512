//! Opens a store: locks it, reads and checks everything, makes it durable, and counts the opening.

use std::{io, path::Path, sync::Arc};

use sha2::{Digest, Sha256};

use crate::{
    id::{Boot, ClusterId, NodeId, StoreId},
    mutant::Mutant,
    node::{Restored, RestoredSnapshot},
    wal::{
        Wal, WalError, WalOptions, chore,
        fs::{Fs, FsFile},
        log::{Active, SPARE_PREFIX, Spare},
        manifest::{MANIFEST, Manifest, SnapshotFile},
        recover::{self, Recovered, segment_name, segment_sequence},
        sector::{SECTOR, Sectors, Stamps},
        snapshot,
    },
};

/// Opens the store in `dir`; see [`Wal::open`].
pub(super) fn open(
    fs: Arc<dyn Fs>,
    dir: &Path,
    cluster: ClusterId,
    node: NodeId,
    options: WalOptions,
) -> Result<(Wal, Restored), WalError> {
    options.check()?;
    fs.create_dir(dir).map_err(|error| WalError::io("make", dir, error))?;
    let lock = lock(&*fs, dir)?;
    let names = fs.list(dir).map_err(|error| WalError::io("list", dir, error))?;
    let mut manifest = match Manifest::read(&*fs, dir)? {
        Some(manifest) => manifest,
        None => found(dir, &names, cluster, node, &options)?,
    };
    check_owner(dir, &manifest, cluster, node)?;
    let snapshot = read_snapshot(&*fs, dir, &manifest)?;
    let mut recovered = recover::recover(&*fs, dir, &manifest)?;
    check_state(dir, &manifest, &recovered)?;
    check_leftovers(&*fs, dir, &manifest, &recovered, &names)?;
    if Mutant::TailCutTooFar.active() && !recovered.cut.is_empty() {
        recovered.entries.pop();
    }

    // From here on the store is sound, and things are written.
    if recovered.ambiguous {
        manifest.tail_cut_lsn = recovered.next_lsn;
        manifest.write(&*fs, dir)?;
    } else if recovered.local_after_cut {
        manifest.tail_cut_lsn = 0;
    }
    settle(&*fs, dir, &manifest, &recovered)?;
    manifest.synced_lsn = recovered.next_lsn - 1;
    manifest.boot.counter += 1;
    manifest.boot.nonce = u64::from_le_bytes(draw(&options, "nonce", manifest.boot.counter)?);
    manifest.write(&*fs, dir)?;
    let (staged, spares) = clean(&*fs, dir, &manifest, &names, &options)?;

    let mut restored = Restored::new(manifest.store, manifest.boot);
    restored.hard_state = recovered.carried.hard_state;
    restored.local = recovered.carried.local.clone();
    restored.snapshot = snapshot;
    restored.tail_cut = manifest.tail_cut_lsn != 0;
    restored.entries = std::mem::take(&mut recovered.entries);
    let active = match recovered.segments.last() {
        Some(segment) => Some(Active {
            file: reopen(&*fs, &dir.join(segment_name(segment.sequence)))?,
            offset: recovered.offset,
        }),
        None => None,
    };
    let log = Wal::assemble(
        (fs, dir.to_path_buf(), lock, options),
        manifest,
        recovered,
        active,
        staged,
        spares,
    )?;
    Ok((log, restored))
}

fn lock(fs: &dyn Fs, dir: &Path) -> Result<Box<dyn FsFile>, WalError> {
    let path = dir.join(LOCK);
    match fs.lock(&path) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(WalError::Locked { dir: dir.to_path_buf() })
        }
        locked => locked.map_err(|error| WalError::io("lock", &path, error)),
    }
}

/// The manifest of a new store; only an empty directory becomes one.
fn found(
    dir: &Path,
    names: &[String],
    cluster: ClusterId,
    node: NodeId,
    options: &WalOptions,
) -> Result<Manifest, WalError> {
    let remains = |name: &&String| {
        segment_sequence(name).is_some()
            || name.starts_with(SPARE_PREFIX)
            || name.starts_with(snapshot::PREFIX)
    };
    if let Some(file) = names.iter().find(remains) {
        return Err(WalError::ManifestMissing { dir: dir.to_path_buf(), file: file.clone() });
    }
    Ok(Manifest {
        cluster,
        node,
        store: StoreId::from_bytes(draw(options, "store", 0)?),
        key: u64::from_le_bytes(draw(options, "key", 0)?),
        boot: Boot { counter: 0, nonce: 0 },
        first_segment: 1,
        first_lsn: 1,
        active_segment: 0,
        active_length: 0,
        synced_lsn: 0,
        tail_cut_lsn: 0,
        next_serial: 1,
        snapshots: Vec::new(),
    })
}

fn check_owner(
    dir: &Path,
    manifest: &Manifest,
    cluster: ClusterId,
    node: NodeId,
) -> Result<(), WalError> {
    if manifest.cluster != cluster {
        return Err(WalError::OtherCluster {
            dir: dir.to_path_buf(),
            found: manifest.cluster,
            expected: cluster,
        });
    }
    if manifest.node != node {
        return Err(WalError::OtherNode {
            dir: dir.to_path_buf(),
            found: manifest.node,
            expected: node,
        });
    }
    let path = dir.join(MANIFEST);
    // All of them go on from here: none may reach its end, or what this opening writes is refused
    // by the next one.
    let numbers = [
        manifest.boot.counter,
        manifest.first_segment,
        manifest.active_segment,
        manifest.first_lsn,
        manifest.synced_lsn,
        manifest.tail_cut_lsn,
        manifest.next_serial,
    ];
    let in_range = numbers.iter().all(|number| *number < 1 << 62);
    let begins = manifest.first_segment >= 1 && manifest.first_lsn >= 1;
    if !in_range || !begins || manifest.active_segment + 1 < manifest.first_segment {
        return Err(WalError::corrupt(&path, 0, "its numbers are out of range"));
    }
    Ok(())
}

/// Reads the current snapshot, and sees that the older ones are there.
fn read_snapshot(
    fs: &dyn Fs,
    dir: &Path,
    manifest: &Manifest,
) -> Result<Option<RestoredSnapshot>, WalError> {
    for older in manifest.snapshots.iter().skip(1) {
        let path = dir.join(snapshot::file_name(older));
        match fs.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(WalError::Missing { file: path });
            }
            opened => opened.map_err(|error| WalError::io("open", &path, error))?,
        };
    }
    let Some(current) = manifest.snapshots.first() else {
        return Ok(None);
    };
    let mut chunks = Vec::new();
    snapshot::read(fs, dir, manifest.store, current, |chunk| chunks.push(chunk))?;
    Ok(Some(RestoredSnapshot::new(current.index, current.term, chunks)))
}

/// Whether what was read fits together: nothing below a watermark is gone (S3).
fn check_state(dir: &Path, manifest: &Manifest, log: &Recovered) -> Result<(), WalError> {
    let path = dir.join(segment_name(manifest.active_segment));
    let corrupt = |reason: String| Err(WalError::corrupt(&path, log.offset, reason));
    let snapshot = manifest.snapshots.first().map_or(0, |file| file.index);
    let first = log.entries.first().map(|entry| entry.index);
    if first.is_some_and(|first| first > snapshot + 1) {
        return corrupt(format!("the log begins at {first:?}, the snapshot ends at {snapshot}"));
    }
    let last = log.entries.last().map_or(snapshot, |entry| entry.index);
    if last < snapshot {
        return corrupt(format!("the log ends at {last}, below the snapshot at {snapshot}"));
    }
    let commit = log.carried.hard_state.map_or(0, |state| state.commit);
    if commit > last {
        return corrupt(format!("the log ends at {last}, below the commit {commit}"));
    }
    if log.next_lsn <= manifest.synced_lsn {
        return corrupt(format!(
            "the log ends before batch {}, but batch {} was durable",
            log.next_lsn, manifest.synced_lsn
        ));
    }
    Ok(())
}

/// A segment beyond the active one has no records; if it has, the manifest is an older copy.
fn check_leftovers(
    fs: &dyn Fs,
    dir: &Path,
    manifest: &Manifest,
    log: &Recovered,
    names: &[String],
) -> Result<(), WalError> {
    for name in names {
        if segment_sequence(name).is_none_or(|sequence| sequence <= manifest.active_segment) {
            continue;
        }
        let path = dir.join(name);
        let mut sector = [0; SECTOR];
        let file = reopen(fs, &path)?;
        file.read_at(&mut sector, 0).map_err(|error| WalError::io("read", &path, error))?;
        if recover::is_ahead(&sector, manifest.key, log.next_lsn) {
            let reason = "the manifest is older than this segment: somebody put it back";
            return Err(WalError::corrupt(&path, 0, reason));
        }
    }
    Ok(())
}

/// Blanks what was cut, and writes the last batch once more: were its pages marked clean by a
/// failed fsync of the process before (S1), only writing makes them durable. Syncs all (H5).
fn settle(fs: &dyn Fs, dir: &Path, manifest: &Manifest, log: &Recovered) -> Result<(), WalError> {
    fs.sync_dir(dir).map_err(|error| WalError::io("sync", dir, error))?;
    if manifest.active_segment < manifest.first_segment {
        return Ok(());
    }
    let path = dir.join(segment_name(manifest.active_segment));
    let file = reopen(fs, &path)?;
    let write = |bytes: &[u8], at| {
        file.write_at(bytes, at).map_err(|error| WalError::io("write", &path, error))
    };
    for place in &log.cut {
        write(&[0; SECTOR], *place)?;
    }
    if let Some((offset, bytes)) = &log.last {
        write(bytes, *offset)?;
    }
    file.sync_data().map_err(|error| WalError::io("sync", &path, error))
}

/// Removes what nothing names, keeps a finished snapshot and spare segments.
fn clean(
    fs: &dyn Fs,
    dir: &Path,
    manifest: &Manifest,
    names: &[String],
    options: &WalOptions,
) -> Result<(Option<SnapshotFile>, Vec<Spare>), WalError> {
    let mut staged = None;
    let mut spares = Vec::new();
    let mut garbage = Vec::new();
    for name in names {
        let path = dir.join(name);
        let mut keep = true;
        if name.ends_with(snapshot::STAGED) && is_ours(name) {
            keep = false;
        } else if let Some(sequence) = segment_sequence(name) {
            keep = (manifest.first_segment..=manifest.active_segment).contains(&sequence);
        } else if name.starts_with(SPARE_PREFIX) {
            let length =
                reopen(fs, &path)?.len().map_err(|error| WalError::io("measure", &path, error))?;
            keep = length == options.segment_bytes && spares.len() < options.spares_max;
            if keep {
                spares.push(Spare { name: name.clone(), length });
            }
        } else if name.starts_with(snapshot::PREFIX) && !is_named(manifest, name) {
            staged = staged.or(finished(fs, dir, manifest, &path)?);
            keep = staged.is_some_and(|file| snapshot::file_name(&file) == *name);
        }
        if !keep {
            garbage.push(name.clone());
        }
    }
    chore::remove_all(fs, dir, &garbage)?;
    Ok((staged, spares))
}

/// A snapshot that was finished and not installed, if every byte of it is sound.
fn finished(
    fs: &dyn Fs,
    dir: &Path,
    manifest: &Manifest,
    path: &Path,
) -> Result<Option<SnapshotFile>, WalError> {
    let current = manifest.snapshots.first().map_or(0, |file| file.serial);
    let Some(file) = snapshot::peek(fs, path, manifest.store)?.filter(|file| file.serial > current)
    else {
        return Ok(None);
    };
    match snapshot::read(fs, dir, manifest.store, &file, drop) {
        Ok(()) => Ok(Some(file)),
        Err(WalError::Corrupt { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_named(manifest: &Manifest, name: &str) -> bool {
    let mut files = manifest.snapshots.iter();
    files.any(|file| snapshot::file_name(file) == name)
}

fn is_ours(name: &str) -> bool {
    [MANIFEST, SPARE_PREFIX, snapshot::PREFIX, "wal-"].iter().any(|prefix| name.starts_with(prefix))
}

fn reopen(fs: &dyn Fs, path: &Path) -> Result<Box<dyn FsFile>, WalError> {
    fs.open(path).map_err(|error| WalError::io("open", path, error))
}

/// Random bytes: of the operating system, or from the given entropy.
fn draw<const N: usize>(
    options: &WalOptions,
    what: &str,
    counter: u64,
) -> Result<[u8; N], WalError> {
    let mut out = [0; N];
    match options.entropy {
        Some(entropy) => {
            let hash = Sha256::new()
                .chain_update(entropy)
                .chain_update(what)
                .chain_update(counter.to_le_bytes())
                .finalize();
            out.iter_mut().zip(hash).for_each(|(out, byte)| *out = byte);
        }
        None => getrandom::fill(&mut out)
            .map_err(|error| WalError::Entropy { reason: error.to_string() })?,
    }
    Ok(out)
}

/// The buffer and the stamps of a log with this key.
pub(super) fn tools(key: u64) -> (Sectors, Stamps) {
    (Sectors::default(), Stamps::new(key))
}

const LOCK: &str = "LOCK";
