//! Which incarnation stands at each place now.

use super::content::Packing;
use super::identity::{FileId, IDENTITY_BYTES_MAX, Sameness, head_of};
use super::listing::Place;
use super::{FileSettings, KnownFile, rotation};
use recount_engine::{SourceError, SourcePartition};
use recount_model::{Partition, SourceId};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the source and its readers know together.
#[derive(Debug, Default)]
pub(super) struct Shared {
    partitions: Mutex<HashMap<Partition, Current>>,
    /// Files of a folder that are rotated ones, decided to their ends, with their sizes then.
    passed_over: Mutex<HashMap<PathBuf, u64>>,
}

/// The incarnation of a partition that this process works on.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) source: SourceId,
    pub(super) path: PathBuf,
    /// A reader is open: it watches the file itself.
    pub(super) reading: bool,
    /// Everything below is settled, as far as this process knows.
    pub(super) settled_next_offset: u64,
    /// It was rotated away and everything in it is settled.
    pub(super) finished: bool,
    /// Some line ordinals with the bytes where they begin, ascending.
    pub(super) checkpoints: Vec<(u64, u64)>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<Partition, Current>> {
        // Each change below is one assignment, so a panic elsewhere leaves nothing half done.
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn place_of(&self, partition: &Partition, source: &SourceId) -> Option<PathBuf> {
        self.lock().get(partition).filter(|c| &c.source == source).map(|c| c.path.clone())
    }

    /// Whether the file is a rotated one; `rotated_from` is asked once for each size of it.
    fn passes_over(
        &self,
        path: &Path,
        rotated_from: impl FnOnce() -> Result<Option<Partition>, SourceError>,
    ) -> Result<bool, SourceError> {
        let mut passed_over = self.passed_over.lock().unwrap_or_else(PoisonError::into_inner);
        let file_bytes = path.metadata().map_or(0, |m| m.len());
        if passed_over.get(path) == Some(&file_bytes) {
            return Ok(true);
        }
        let Some(owner) = rotated_from()? else { return Ok(false) };
        tracing::info!(file = %path.display(), partition = %owner, "passed over: it was rotated from there");
        passed_over.insert(path.to_owned(), file_bytes);
        Ok(true)
    }

    /// Changes what is known of an incarnation, if it is still the current one.
    pub(super) fn update(&self, partition: &Partition, source: &SourceId, change: impl FnOnce(&mut Current)) {
        if let Some(current) = self.lock().get_mut(partition).filter(|c| &c.source == source) {
            change(current);
        }
    }
}

/// The partitions at `place`, each with its incarnation.
pub(super) fn partitions(
    settings: &FileSettings,
    shared: &Shared,
    place: &Place,
) -> Result<Vec<SourcePartition>, SourceError> {
    let mut current = shared.lock();
    let files = place.files()?;
    let mut found = Vec::new();
    for (partition, path) in &files {
        if matches!(place, Place::Many { .. })
            && shared.passes_over(path, || renamed_from(settings, &current, &files, partition, path))?
        {
            continue;
        }
        let alone = matches!(place, Place::One(_));
        let Some(source) = resolve(settings, &mut current, partition, path, alone)? else { continue };
        found.push(SourcePartition {
            source,
            partition: partition.clone(),
            place: path.display().to_string(),
        });
    }
    for (partition, gone) in current.iter().filter(|(_, c)| c.reading && !c.finished) {
        if !found.iter().any(|f| &f.partition == partition) {
            let place = gone.path.display().to_string();
            found.push(SourcePartition { source: gone.source.clone(), partition: partition.clone(), place });
        }
    }
    if settings.follow && found.is_empty() {
        // Not an empty list, which would say that there is nothing to wait for.
        return Err(SourceError::Away(format!(
            "{} holds no complete line yet: waiting for the first",
            settings.path.display()
        )));
    }
    Ok(found)
}

/// The incarnation at `path`; `None` where there is none yet.
fn resolve(
    settings: &FileSettings,
    current: &mut HashMap<Partition, Current>,
    partition: &Partition,
    path: &Path,
    alone: bool,
) -> Result<Option<SourceId>, SourceError> {
    let was = current.get(partition);
    if let Some(open) = was.filter(|c| c.reading && !c.finished) {
        return Ok(Some(open.source.clone()));
    }
    let head = match head_of(path) {
        Ok(head) => head,
        Err(e) if e.kind() == io::ErrorKind::NotFound && !alone => return Ok(None),
        Err(e) => return missing(settings, was, path, e),
    };
    let known: Vec<&KnownFile> = settings.known.iter().filter(|k| &k.partition == partition).collect();
    let source = match was {
        Some(was) if !was.finished && is_same(&was.source, &head) => return Ok(Some(was.source.clone())),
        Some(was) => {
            let replaced = !was.finished;
            let decided = was.settled_next_offset.max(decided_of(&known, &was.source));
            let before = was.source.clone();
            if replaced {
                successor_allowed(path, &head, &before, decided)?;
            }
            fresh(settings, &head, &known, Some(&before))
        }
        None if settings.again => fresh(settings, &head, &known, None),
        None => match known.iter().rev().find(|k| is_same(&k.source, &head)) {
            Some(same) => Some(same.source.clone()),
            None => {
                if let Some(newest) = known.last() {
                    successor_allowed(path, &head, &newest.source, newest.next_offset)?;
                }
                fresh(settings, &head, &known, None)
            }
        },
    };
    if let Some(source) = &source {
        let entry = Current {
            source: source.clone(),
            path: path.to_owned(),
            reading: false,
            settled_next_offset: 0,
            finished: false,
            checkpoints: Vec::new(),
        };
        current.insert(partition.clone(), entry);
    }
    Ok(source)
}

fn missing(
    settings: &FileSettings,
    was: Option<&Current>,
    path: &Path,
    e: io::Error,
) -> Result<Option<SourceId>, SourceError> {
    match (e.kind(), was) {
        (io::ErrorKind::NotFound, Some(was)) if settings.follow && !was.finished => {
            Ok(Some(was.source.clone()))
        }
        (io::ErrorKind::NotFound, _) if settings.follow => {
            Err(SourceError::Away(format!("file {} does not exist yet: waiting for it", path.display())))
        }
        (io::ErrorKind::NotFound, _) => Err(SourceError::Broken(format!(
            "file {} does not exist: correct source.file, or set follow = true to wait for it",
            path.display()
        ))),
        _ => Err(SourceError::Broken(format!(
            "file {} can't be read: {e}: check its kind and its permissions",
            path.display()
        ))),
    }
}

fn is_same(source: &SourceId, head: &[u8]) -> bool {
    FileId::parse(source).is_some_and(|id| id.compare(head) == Sameness::Same)
}

fn decided_of(known: &[&KnownFile], source: &SourceId) -> u64 {
    known.iter().filter(|k| &k.source == source).map(|k| k.next_offset).max().unwrap_or(0)
}

/// A new incarnation: another generation than any that began alike. `None` while the file is empty, or is
/// followed and has no complete line: few bytes make a poor identity.
fn fresh(
    settings: &FileSettings,
    head: &[u8],
    known: &[&KnownFile],
    before: Option<&SourceId>,
) -> Option<SourceId> {
    let waits = settings.follow
        && head.len() < IDENTITY_BYTES_MAX
        && Packing::of_head(head) == Packing::Plain
        && !head.contains(&b'\n');
    if waits {
        return None;
    }
    let earlier = known.iter().map(|k| &k.source).chain(before).filter_map(FileId::parse);
    let alike: Vec<FileId> = earlier.filter(|id| id.compare(head) == Sameness::Same).collect();
    let generation = alike.iter().map(|id| id.generation).max().unwrap_or(0) + 1;
    let bytes = alike.iter().map(|id| id.bytes).max().unwrap_or(IDENTITY_BYTES_MAX);
    Some(FileId::of_head(&head[..head.len().min(bytes)], generation)?.source_id())
}

/// Whether the file at `path` may follow upon `before` without being asked: only a renamed predecessor that
/// was decided to its end allows it.
fn successor_allowed(
    path: &Path,
    head: &[u8],
    before: &SourceId,
    decided_next_offset: u64,
) -> Result<(), SourceError> {
    let shown = path.display();
    let again = "run with --again to read it as a new incarnation from its first line";
    let Some(id) = FileId::parse(before) else {
        return Err(SourceError::Changed(format!(
            "the flow decided about source {before} so far, which is not a file, and now reads file {shown}: \
             restore the source, or {again}"
        )));
    };
    let unreadable = |e: io::Error| SourceError::Away(format!("beside file {shown}: {e}"));
    if let Some(predecessor) = rotation::renamed_predecessor(path, &id).map_err(unreadable)? {
        let lines = rotation::count_lines(&predecessor).map_err(unreadable)?;
        if lines <= decided_next_offset {
            return Ok(());
        }
        return Err(SourceError::Changed(format!(
            "file {shown} took the place of {0}, of whose {lines} lines only {decided_next_offset} were \
             decided: set source.file to {0} and run to its end first, or leave the rest: {again}",
            predecessor.display()
        )));
    }
    Err(SourceError::Changed(match id.compare(head) {
        Sameness::Shorter { recorded_bytes, now_bytes } => format!(
            "file {shown} was cut short: it has {now_bytes} bytes, and its first {recorded_bytes} are known; \
             an unknown number of lines may be lost: restore it, or {again}"
        ),
        _ => format!(
            "file {shown} is another one than the one decided so far ({decided_next_offset} lines of it): its \
             first bytes differ and no renamed predecessor is beside it; if it was copied and truncated, an \
             unknown number of lines may be lost: restore it, or {again}"
        ),
    }))
}

/// In a folder: the partition whose file was renamed to `path`, so that it is not read twice. Fails with
/// `Changed` if it was not decided to its end.
fn renamed_from(
    settings: &FileSettings,
    current: &HashMap<Partition, Current>,
    files: &[(Partition, PathBuf)],
    partition: &Partition,
    path: &Path,
) -> Result<Option<Partition>, SourceError> {
    let own = current.contains_key(partition) || settings.known.iter().any(|k| &k.partition == partition);
    if own || settings.again {
        return Ok(None);
    }
    let Ok(head) = head_of(path) else { return Ok(None) };
    let recorded = settings.known.iter().map(|k| (&k.partition, &k.source, k.next_offset, false));
    let running = current.iter().map(|(p, c)| (p, &c.source, c.settled_next_offset, c.reading || c.finished));
    let mut unfinished = None;
    for (owner, source, decided, by_reader) in running.chain(recorded) {
        let stays = files.iter().any(|(p, path)| {
            p == owner && head_of(path).is_ok_and(|head| head.is_empty() || is_same(source, &head))
        });
        if stays || !is_same(source, &head) {
            continue;
        }
        if by_reader {
            return Ok(Some(owner.clone()));
        }
        let lines = rotation::count_lines(path)
            .map_err(|e| SourceError::Broken(format!("file {} can't be read: {e}", path.display())))?;
        if lines <= decided {
            return Ok(Some(owner.clone()));
        }
        unfinished = Some((owner, lines, decided));
    }
    match unfinished {
        None => Ok(None),
        Some((owner, lines, decided)) => Err(SourceError::Changed(format!(
            "file {} was {owner} before, and only {decided} of its {lines} lines were decided: rename it back \
             and run to its end first, or run with --again to read all files as new incarnations",
            path.display()
        ))),
    }
}
