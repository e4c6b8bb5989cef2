//! SQLite's interface to a file system, in terms of [`State`]. The only module, with the memory that
//! connections share, that needs unsafe code: SQLite calls it through C function pointers.
//!
//! What each method must do is described in SQLite's `sqlite3.h` (`sqlite3_io_methods`, `sqlite3_vfs`); where
//! that leaves room, it does what SQLite's own `os_unix.c` does.

use super::FileSystem;
use super::disk::{SECTOR_BYTES, parent};
use super::faults::{Failure, Operation};
use super::state::{Level, Place, Refusal, State};
use rusqlite::ffi;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};

/// SQLite allocates this, we fill it; `base` must come first.
#[repr(C)]
struct OpenFile {
    base: ffi::sqlite3_file,
    files: *const FileSystem,
    handle: usize,
}

static REGISTERED: AtomicUsize = AtomicUsize::new(0);

const PATH_BYTES_MAX: c_int = 512;

/// Registers the file system that `make` gives for a fresh name. It is never freed: SQLite keeps it.
pub fn register(make: impl FnOnce(String) -> FileSystem) -> &'static FileSystem {
    let name = format!("recount-simulated-{}", REGISTERED.fetch_add(1, Ordering::Relaxed));
    let name_for_sqlite = CString::new(name.as_str()).unwrap_or_default();
    let files: &'static FileSystem = Box::leak(Box::new(make(name)));
    let vfs = Box::leak(Box::new(ffi::sqlite3_vfs {
        iVersion: 2,
        szOsFile: size_of::<OpenFile>() as c_int,
        mxPathname: PATH_BYTES_MAX,
        pNext: std::ptr::null_mut(),
        zName: name_for_sqlite.into_raw(),
        pAppData: std::ptr::from_ref(files).cast_mut().cast(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        xDlOpen: None,
        xDlError: None,
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: Some(last_error),
        xCurrentTimeInt64: Some(current_time_int64),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }));
    // The structure is leaked, so that it outlives every connection; SQLite itself guards its list.
    unsafe { ffi::sqlite3_vfs_register(vfs, 0) };
    files
}

/// Makes SQLite's own generator (WAL salts, names of temporary files) start from the seed.
pub fn seed_sqlite(seed: u64) {
    let nonzero = (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as c_int | 1;
    // Two arguments as SQLITE_TESTCTRL_PRNG_SEED takes them: a number and no connection.
    unsafe {
        ffi::sqlite3_initialize();
        ffi::sqlite3_test_control(
            ffi::SQLITE_TESTCTRL_PRNG_SEED,
            nonzero,
            std::ptr::null_mut::<ffi::sqlite3>(),
        );
    }
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// # Safety
/// `vfs` must be one that [`register`] made.
unsafe fn of_vfs(vfs: *mut ffi::sqlite3_vfs) -> &'static FileSystem {
    unsafe { &*(*vfs).pAppData.cast::<FileSystem>() }
}

/// # Safety
/// `file` must be one that [`open`] filled.
unsafe fn of_file(file: *mut ffi::sqlite3_file) -> (&'static FileSystem, usize) {
    let open = unsafe { &*file.cast::<OpenFile>() };
    (unsafe { &*open.files }, open.handle)
}

/// # Safety
/// `path` must be a C string.
unsafe fn text<'a>(path: *const c_char) -> Option<&'a str> {
    unsafe { CStr::from_ptr(path) }.to_str().ok()
}

fn code(refusal: Refusal, operation: Operation) -> c_int {
    let io_error = match operation {
        Operation::Open => ffi::SQLITE_CANTOPEN,
        Operation::Read => ffi::SQLITE_IOERR_READ,
        Operation::Write => ffi::SQLITE_IOERR_WRITE,
        Operation::Truncate => ffi::SQLITE_IOERR_TRUNCATE,
        Operation::Sync => ffi::SQLITE_IOERR_FSYNC,
        Operation::Lock => ffi::SQLITE_IOERR_LOCK,
        Operation::Delete | Operation::Rename => ffi::SQLITE_IOERR_DELETE,
    };
    match refusal {
        Refusal::Dead | Refusal::Planned(Failure::IoError | Failure::Crash) => io_error,
        Refusal::NotFound => ffi::SQLITE_CANTOPEN,
        Refusal::Planned(Failure::Full) => ffi::SQLITE_FULL,
        Refusal::Held | Refusal::Planned(Failure::Busy) => ffi::SQLITE_BUSY,
        Refusal::Planned(Failure::CantOpen) => ffi::SQLITE_CANTOPEN,
    }
}

fn answer(result: Result<(), Refusal>, operation: Operation) -> c_int {
    result.map_or_else(|refusal| code(refusal, operation), |()| ffi::SQLITE_OK)
}

fn open_place(state: &mut State, place: Option<&Place>, flags: c_int) -> Result<usize, Refusal> {
    let temporary = Place { process: 0, disk: 0, name: String::new() };
    let Some(place) = place else {
        let file = state.disk_at(0).create(None);
        return Ok(state.add_handle(&temporary, file, false));
    };
    state.begin(place.process, place.disk, Operation::Open)?;
    let exclusive = flags & ffi::SQLITE_OPEN_EXCLUSIVE != 0;
    let disk = state.disk_at(place.disk);
    let file = match disk.find(&place.name) {
        Some(_) if exclusive => return Err(Refusal::NotFound),
        Some(file) => file,
        None if flags & ffi::SQLITE_OPEN_CREATE == 0 => return Err(Refusal::NotFound),
        None => disk.create(Some(&place.name)),
    };
    Ok(state.add_handle(place, file, flags & ffi::SQLITE_OPEN_DELETEONCLOSE != 0))
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SQLite gives a VFS of ours, room for an `OpenFile`, and a path or null for a temporary file. As long
    // as `pMethods` is null, it doesn't call `xClose`.
    unsafe {
        (*file).pMethods = std::ptr::null();
        let files = of_vfs(vfs);
        let mut state = files.lock();
        let place = match name.is_null() {
            true => None,
            false => match text(name).and_then(|path| state.place(path)) {
                None => return ffi::SQLITE_CANTOPEN,
                some => some,
            },
        };
        match open_place(&mut state, place.as_ref(), flags) {
            Err(refusal) => code(refusal, Operation::Open),
            Ok(handle) => {
                let base = ffi::sqlite3_file { pMethods: &raw const METHODS };
                file.cast::<OpenFile>().write(OpenFile { base, files, handle });
                if !out_flags.is_null() {
                    *out_flags = flags;
                }
                ffi::SQLITE_OK
            }
        }
    }
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    let (files, path) = unsafe { (of_vfs(vfs), text(name)) };
    let mut state = files.lock();
    let Some(place) = path.and_then(|path| state.place(path)) else { return ffi::SQLITE_IOERR_DELETE };
    if let Err(refusal) = state.begin(place.process, place.disk, Operation::Delete) {
        return code(refusal, Operation::Delete);
    }
    let disk = state.disk_at(place.disk);
    if !disk.remove(&place.name) {
        return ffi::SQLITE_IOERR_DELETE_NOENT;
    }
    if sync != 0 {
        disk.sync_folder(parent(&place.name));
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn access(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let (files, path) = unsafe { (of_vfs(vfs), text(name)) };
    let mut state = files.lock();
    let place = path.and_then(|path| state.place(path));
    if place.as_ref().is_some_and(|place| state.is_dead(place.process)) {
        return ffi::SQLITE_IOERR_ACCESS;
    }
    let there = place.is_some_and(|place| {
        let disk = state.disk_at(place.disk);
        let empty_counts = flags != ffi::SQLITE_ACCESS_EXISTS;
        let found = disk.find(&place.name);
        found.is_some_and(|file| empty_counts || !disk.file(file).current.is_empty())
    });
    unsafe { *out = c_int::from(there) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_pathname(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room_bytes: c_int,
    out: *mut c_char,
) -> c_int {
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
    if bytes.len() > room_bytes as usize {
        return ffi::SQLITE_CANTOPEN;
    }
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len()) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn randomness(vfs: *mut ffi::sqlite3_vfs, bytes: c_int, out: *mut c_char) -> c_int {
    let (files, out) =
        unsafe { (of_vfs(vfs), std::slice::from_raw_parts_mut(out.cast::<u8>(), bytes as usize)) };
    let mut state = files.lock();
    out.fill_with(|| state.rng.next() as u8);
    bytes
}

/// Nobody waits: in one thread, whoever holds the lock can't go on meanwhile.
unsafe extern "C" fn sleep(_: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    microseconds
}

unsafe extern "C" fn current_time(vfs: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    unsafe { *out = of_vfs(vfs).lock().now_julian_ms as f64 / 86_400_000.0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time_int64(vfs: *mut ffi::sqlite3_vfs, out: *mut i64) -> c_int {
    unsafe { *out = of_vfs(vfs).lock().now_julian_ms };
    ffi::SQLITE_OK
}

unsafe extern "C" fn last_error(_: *mut ffi::sqlite3_vfs, _: c_int, _: *mut c_char) -> c_int {
    0
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let (files, handle) = unsafe { of_file(file) };
    files.lock().close(handle);
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    out: *mut c_void,
    bytes: c_int,
    offset: i64,
) -> c_int {
    let (files, handle) = unsafe { of_file(file) };
    let out = unsafe { std::slice::from_raw_parts_mut(out.cast::<u8>(), bytes as usize) };
    let mut state = files.lock();
    let (disk, file) = match state.on_handle(handle, Operation::Read) {
        Ok(at) => at,
        Err(refusal) => return code(refusal, Operation::Read),
    };
    let current = &state.disk_at(disk).file(file).current;
    let from = (offset as usize).min(current.len());
    let there = (current.len() - from).min(out.len());
    out[..there].copy_from_slice(&current[from..from + there]);
    out[there..].fill(0);
    if there < out.len() { ffi::SQLITE_IOERR_SHORT_READ } else { ffi::SQLITE_OK }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    data: *const c_void,
    bytes: c_int,
    offset: i64,
) -> c_int {
    let (files, handle) = unsafe { of_file(file) };
    let data = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), bytes as usize) };
    let mut state = files.lock();
    let at = state.living(handle);
    state.note((offset as u64) << 20 | data.len() as u64);
    match state.on_handle(handle, Operation::Write) {
        Ok((disk, file)) => {
            state.disk_at(disk).file(file).write(offset as usize, data);
            ffi::SQLITE_OK
        }
        Err(refusal) => {
            if let (Refusal::Planned(Failure::Crash), Ok((_, disk, file))) = (refusal, at) {
                let sectors = state.rng.below(data.len().div_ceil(SECTOR_BYTES) as u64 + 1) as usize;
                let written = (sectors * SECTOR_BYTES).min(data.len());
                state.disk_at(disk).file(file).write(offset as usize, &data[..written]);
            }
            code(refusal, Operation::Write)
        }
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size_bytes: i64) -> c_int {
    let (files, handle) = unsafe { of_file(file) };
    let mut state = files.lock();
    let result = state.on_handle(handle, Operation::Truncate).map(|(disk, file)| {
        state.disk_at(disk).file(file).truncate(size_bytes as usize);
    });
    answer(result, Operation::Truncate)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    let (files, handle) = unsafe { of_file(file) };
    let mut state = files.lock();
    let result = state.on_handle(handle, Operation::Sync).map(|(disk, file)| {
        state.counts.syncs += 1;
        state.disk_at(disk).sync_file(file);
    });
    answer(result, Operation::Sync)
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    let (files, handle) = unsafe { of_file(file) };
    let mut state = files.lock();
    match state.living(handle) {
        Ok((_, disk, file)) => {
            unsafe { *out = state.disk_at(disk).file(file).current.len() as i64 };
            ffi::SQLITE_OK
        }
        Err(_) => ffi::SQLITE_IOERR_FSTAT,
    }
}

fn level(level: c_int) -> Level {
    match level {
        ffi::SQLITE_LOCK_NONE => Level::Unlocked,
        ffi::SQLITE_LOCK_SHARED => Level::Shared,
        ffi::SQLITE_LOCK_RESERVED => Level::Reserved,
        ffi::SQLITE_LOCK_PENDING => Level::Pending,
        _ => Level::Exclusive,
    }
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, wanted: c_int) -> c_int {
    let (files, handle) = unsafe { of_file(file) };
    answer(files.lock().lock(handle, level(wanted)), Operation::Lock)
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, to: c_int) -> c_int {
    let (files, handle) = unsafe { of_file(file) };
    files.lock().unlock(handle, level(to));
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    let (files, handle) = unsafe { of_file(file) };
    match files.lock().reserved(handle) {
        Ok(reserved) => {
            unsafe { *out = c_int::from(reserved) };
            ffi::SQLITE_OK
        }
        Err(_) => ffi::SQLITE_IOERR_CHECKRESERVEDLOCK,
    }
}

unsafe extern "C" fn file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    4096
}

unsafe extern "C" fn device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    size_bytes: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    let (files, handle) = unsafe { of_file(file) };
    match files.lock().shared_memory(handle) {
        Ok(memory) => {
            let at = memory.region(region as usize, size_bytes as usize, extend != 0);
            unsafe { *out = at.cast() };
            ffi::SQLITE_OK
        }
        Err(_) => {
            unsafe { *out = std::ptr::null_mut() };
            ffi::SQLITE_IOERR_SHMMAP
        }
    }
}

unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    first: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    let (files, handle) = unsafe { of_file(file) };
    let slots = (((1_u32 << count) - 1) << first) as u8;
    let mut state = files.lock();
    if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
        state.unlock_slots(handle, slots);
        return ffi::SQLITE_OK;
    }
    let exclusive = flags & ffi::SQLITE_SHM_EXCLUSIVE != 0;
    match state.lock_slots(handle, slots, exclusive) {
        Err(Refusal::Dead | Refusal::Planned(Failure::IoError | Failure::Crash)) => ffi::SQLITE_IOERR_SHMLOCK,
        other => answer(other, Operation::Lock),
    }
}

unsafe extern "C" fn shm_barrier(_: *mut ffi::sqlite3_file) {
    std::sync::atomic::fence(Ordering::SeqCst);
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    let (files, handle) = unsafe { of_file(file) };
    files.lock().leave_memory(handle);
    ffi::SQLITE_OK
}
