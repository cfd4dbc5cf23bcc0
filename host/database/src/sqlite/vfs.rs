//! A VFS for the files of one SQLite database. It counts each write before the write happens.
//!
//! SQLite reaches files through a VFS, a table of functions. This one wraps the system's own: it passes every
//! call on, asks the [`Room`] before a file grows, and puts temporary files beside the database. Nothing else
//! sees every byte. A hook runs once in many steps. One step of a statement may write a row of megabytes to a
//! table and all of its indexes.
//!
//! This is the only place with `unsafe` besides the one that loads machine code, since SQLite is written in C.
//! The code relies on SQLite's contract for a VFS (<https://sqlite.org/vfs.html>):
//!
//! - SQLite allocates `szOsFile` bytes for a file, aligned to 8, and passes that address to every method until
//!   `xClose` has returned. Here they contain a [`File`], followed by the file of the system's VFS.
//! - SQLite calls methods only for files whose `pMethods` `xOpen` has set, and one at a time for each file.
//! - A VFS stays registered, so the table and the data it points to are leaked: once for each database.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString, OsStr, c_char, c_int, c_void},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rusqlite::ffi::{self, sqlite3_file, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs};

use super::room::{Kind, Room};

/// The data of one of our VFSs.
struct VfsData {
    room: Arc<Room>,
    system: *mut sqlite3_vfs,
}

/// An open file. The system's file follows it in memory.
#[repr(C)]
struct File {
    base: sqlite3_file,
    /// Owned, from `open` to `close`.
    state: *mut State,
}

struct State {
    room: Arc<Room>,
    kind: Kind,
    size: u64,
    /// The system's VFS keeps the address of the name.
    _name: Option<CString>,
}

impl State {
    /// The size of the file. The room knows the size of the log, because several connections write it.
    fn size(&self) -> u64 {
        if self.kind == Kind::Log { self.room.log() } else { self.size }
    }
}

/// Registers a VFS for the files of this room, and returns its name.
///
/// # Errors
/// SQLite refuses the VFS.
pub(super) fn register(room: Arc<Room>) -> Result<String, String> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("posthouse-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let c_name = CString::new(name.as_str()).map_err(|error| error.to_string())?;
    // SAFETY: null asks for the default VFS; the result lives as long as the process.
    let system = unsafe { ffi::sqlite3_vfs_find(ptr::null()) };
    if system.is_null() {
        return Err("SQLite has no VFS for this system".to_owned());
    }
    // SAFETY: SQLite returned it.
    let (size, longest) = unsafe { ((*system).szOsFile, (*system).mxPathname) };
    let data = Box::leak(Box::new(VfsData { room, system }));
    let vfs = Box::leak(Box::new(sqlite3_vfs {
        iVersion: 2,
        szOsFile: size + size_of::<File>() as c_int,
        mxPathname: longest,
        pNext: ptr::null_mut(),
        zName: c_name.into_raw(),
        pAppData: ptr::from_mut(data).cast(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        // A database loads no code; SQLite uses these only if extensions are enabled.
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
    // SAFETY: the table is complete for its version, and leaked.
    match unsafe { ffi::sqlite3_vfs_register(vfs, 0) } {
        ffi::SQLITE_OK => Ok(name),
        code => Err(format!("SQLite does not take a VFS: error {code}")),
    }
}

/// The methods that SQLite calls, for each version of the interface that the system's file may have.
static METHODS: [sqlite3_io_methods; 3] = [methods(1), methods(2), methods(3)];

const fn methods(version: c_int) -> sqlite3_io_methods {
    sqlite3_io_methods {
        iVersion: version,
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
        xFetch: Some(fetch),
        xUnfetch: Some(unfetch),
    }
}

/// The system's file behind ours.
///
/// # Safety
/// SQLite allocated `file` for one of our VFSs.
unsafe fn behind(file: *mut sqlite3_file) -> *mut sqlite3_file {
    // SAFETY: SQLite allocated a `File` and the system's file behind it; the size of the first keeps the
    // alignment of the second.
    unsafe { file.cast::<File>().add(1).cast() }
}

/// Calls a method of the system's file with these arguments; the result is `$missing` if it has none.
macro_rules! pass_on {
    ($file:expr, $method:ident ( $($argument:expr),* ), $missing:expr) => {{
        // SAFETY: SQLite calls methods of open files only, and the system's is open while ours is.
        unsafe {
            let file = behind($file);
            match (*(*file).pMethods).$method {
                Some(method) => method(file, $($argument),*),
                None => $missing,
            }
        }
    }};
}

/// Calls a function of the system's VFS.
macro_rules! ask {
    ($vfs:expr, $function:ident ( $($argument:expr),* ), $missing:expr) => {{
        // SAFETY: SQLite passes the VFS that `register` gave it, whose data is a leaked `VfsData`.
        unsafe {
            let system = (*(*$vfs).pAppData.cast::<VfsData>()).system;
            match (*system).$function {
                Some(function) => function(system, $($argument),*),
                None => $missing,
            }
        }
    }};
}

unsafe extern "C" fn open(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes the VFS that `register` gave it.
    let room = unsafe { Arc::clone(&(*(*vfs).pAppData.cast::<VfsData>()).room) };
    // SAFETY: SQLite allocated both; null methods mean that a file is not open.
    unsafe {
        (*file).pMethods = ptr::null();
        (*behind(file)).pMethods = ptr::null();
    }
    let temporary = if name.is_null() { room.temporary_name() } else { None };
    let passed = temporary.as_ref().map_or(name, |name| name.as_ptr());
    let opened = ask!(vfs, xOpen(passed, behind(file), flags, out_flags), ffi::SQLITE_CANTOPEN);
    // SAFETY: as above; the system's VFS has set the methods of an open file.
    let version = unsafe { (*behind(file)).pMethods.as_ref().map(|methods| methods.iVersion) };
    let Some(version) = version else {
        return if opened == ffi::SQLITE_OK { ffi::SQLITE_CANTOPEN } else { opened };
    };
    if opened != ffi::SQLITE_OK {
        pass_on!(file, xClose(), 0);
        return opened;
    }
    let kind = match flags {
        flags if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 => Kind::Main,
        flags if flags & ffi::SQLITE_OPEN_WAL != 0 => Kind::Log,
        flags if flags & ffi::SQLITE_OPEN_MAIN_JOURNAL != 0 => Kind::Journal,
        _ => Kind::Temporary,
    };
    let mut size: sqlite3_int64 = 0;
    if kind != Kind::Temporary {
        pass_on!(file, xFileSize(&raw mut size), ffi::SQLITE_OK);
    }
    let size = u64::try_from(size).unwrap_or(0);
    match kind {
        Kind::Main => room.opened_main(),
        // SAFETY: a log has a name, which SQLite ends with a zero.
        Kind::Log if !name.is_null() => room.opened_log(path(unsafe { CStr::from_ptr(name) }), size),
        _ => {}
    }
    let state = Box::new(State { room, kind, size, _name: temporary });
    let version = usize::try_from(version).unwrap_or(1).clamp(1, METHODS.len());
    // SAFETY: the memory is a `File`, and no other code uses it yet.
    unsafe {
        (*file.cast::<File>()).state = Box::into_raw(state);
        (*file).pMethods = &raw const METHODS[version - 1];
    }
    ffi::SQLITE_OK
}

fn path(name: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(name.to_bytes()))
}

/// The state of an open file.
///
/// # Safety
/// [`open`] has opened `file`, and there is no other borrow of its state.
unsafe fn state<'a>(file: *mut sqlite3_file) -> &'a mut State {
    // SAFETY: `open` has set it, `close` frees it, and SQLite calls the methods of a file one at a time.
    unsafe { &mut *(*file.cast::<File>()).state }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    let closed = pass_on!(file, xClose(), ffi::SQLITE_OK);
    // SAFETY: `open` made it from a box, and SQLite closes a file once.
    let state = unsafe { Box::from_raw((*file.cast::<File>()).state) };
    match state.kind {
        Kind::Log => state.room.closed_log(),
        kind => state.room.shrunk(kind, state.size, 0),
    }
    closed
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    bytes: *const c_void,
    amount: c_int,
    offset: sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite calls methods of open files only.
    let state = unsafe { state(file) };
    let end = u64::try_from(offset.saturating_add(amount.into())).unwrap_or(0);
    let size = state.size();
    if !state.room.may_grow(state.kind, size, end) {
        return ffi::SQLITE_FULL;
    }
    let written = pass_on!(file, xWrite(bytes, amount, offset), ffi::SQLITE_IOERR_WRITE);
    if written == ffi::SQLITE_OK {
        state.room.grown(state.kind, size, end);
        state.size = state.size.max(end);
    } else if written & 0xff == ffi::SQLITE_FULL {
        state.room.disk_is_full();
    }
    written
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, left: sqlite3_int64) -> c_int {
    let truncated = pass_on!(file, xTruncate(left), ffi::SQLITE_IOERR_TRUNCATE);
    if truncated == ffi::SQLITE_OK {
        // SAFETY: SQLite calls methods of open files only.
        let state = unsafe { state(file) };
        let left = u64::try_from(left).unwrap_or(0).min(state.size());
        state.room.shrunk(state.kind, state.size(), left);
        state.size = left;
    }
    truncated
}

unsafe extern "C" fn read(
    file: *mut sqlite3_file,
    bytes: *mut c_void,
    amount: c_int,
    offset: sqlite3_int64,
) -> c_int {
    pass_on!(file, xRead(bytes, amount, offset), ffi::SQLITE_IOERR_READ)
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    pass_on!(file, xSync(flags), ffi::SQLITE_IOERR_FSYNC)
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, size: *mut sqlite3_int64) -> c_int {
    pass_on!(file, xFileSize(size), ffi::SQLITE_IOERR_FSTAT)
}

unsafe extern "C" fn lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    pass_on!(file, xLock(level), ffi::SQLITE_IOERR_LOCK)
}

unsafe extern "C" fn unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    pass_on!(file, xUnlock(level), ffi::SQLITE_IOERR_UNLOCK)
}

unsafe extern "C" fn check_reserved_lock(file: *mut sqlite3_file, out: *mut c_int) -> c_int {
    pass_on!(file, xCheckReservedLock(out), ffi::SQLITE_IOERR_CHECKRESERVEDLOCK)
}

unsafe extern "C" fn file_control(file: *mut sqlite3_file, op: c_int, argument: *mut c_void) -> c_int {
    pass_on!(file, xFileControl(op, argument), ffi::SQLITE_NOTFOUND)
}

unsafe extern "C" fn sector_size(file: *mut sqlite3_file) -> c_int {
    pass_on!(file, xSectorSize(), 4096)
}

unsafe extern "C" fn device_characteristics(file: *mut sqlite3_file) -> c_int {
    pass_on!(file, xDeviceCharacteristics(), 0)
}

unsafe extern "C" fn shm_map(
    file: *mut sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    pass_on!(file, xShmMap(region, size, extend, out), ffi::SQLITE_IOERR_SHMMAP)
}

unsafe extern "C" fn shm_lock(file: *mut sqlite3_file, offset: c_int, n: c_int, flags: c_int) -> c_int {
    pass_on!(file, xShmLock(offset, n, flags), ffi::SQLITE_IOERR_SHMLOCK)
}

unsafe extern "C" fn shm_barrier(file: *mut sqlite3_file) {
    pass_on!(file, xShmBarrier(), ());
}

unsafe extern "C" fn shm_unmap(file: *mut sqlite3_file, delete: c_int) -> c_int {
    pass_on!(file, xShmUnmap(delete), ffi::SQLITE_OK)
}

unsafe extern "C" fn fetch(
    file: *mut sqlite3_file,
    offset: sqlite3_int64,
    amount: c_int,
    out: *mut *mut c_void,
) -> c_int {
    pass_on!(file, xFetch(offset, amount, out), ffi::SQLITE_IOERR_MMAP)
}

unsafe extern "C" fn unfetch(file: *mut sqlite3_file, offset: sqlite3_int64, at: *mut c_void) -> c_int {
    pass_on!(file, xUnfetch(offset, at), ffi::SQLITE_IOERR_MMAP)
}

unsafe extern "C" fn delete(vfs: *mut sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    ask!(vfs, xDelete(name, sync), ffi::SQLITE_IOERR_DELETE)
}

unsafe extern "C" fn access(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    ask!(vfs, xAccess(name, flags, out), ffi::SQLITE_IOERR_ACCESS)
}

unsafe extern "C" fn full_pathname(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    size: c_int,
    out: *mut c_char,
) -> c_int {
    ask!(vfs, xFullPathname(name, size, out), ffi::SQLITE_CANTOPEN)
}

unsafe extern "C" fn randomness(vfs: *mut sqlite3_vfs, size: c_int, out: *mut c_char) -> c_int {
    ask!(vfs, xRandomness(size, out), 0)
}

unsafe extern "C" fn sleep(vfs: *mut sqlite3_vfs, microseconds: c_int) -> c_int {
    ask!(vfs, xSleep(microseconds), 0)
}

unsafe extern "C" fn current_time(vfs: *mut sqlite3_vfs, out: *mut f64) -> c_int {
    ask!(vfs, xCurrentTime(out), ffi::SQLITE_ERROR)
}

unsafe extern "C" fn current_time_int64(vfs: *mut sqlite3_vfs, out: *mut sqlite3_int64) -> c_int {
    ask!(vfs, xCurrentTimeInt64(out), ffi::SQLITE_ERROR)
}

unsafe extern "C" fn last_error(vfs: *mut sqlite3_vfs, size: c_int, out: *mut c_char) -> c_int {
    ask!(vfs, xGetLastError(size, out), 0)
}
