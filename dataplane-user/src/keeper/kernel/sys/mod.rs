//! bpf(2), as far as aya does not offer it: maps by descriptor, batches, links that are only ever links (aya falls back to
//! netlink, which leaves nothing to pin), and what the kernel says of an object.
#![expect(unsafe_code, reason = "system calls take pointers; every one is made here")]

mod ethtool;
mod run;

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub(super) use ethtool::receive_queues;
pub use run::TestRun;
pub(super) use run::test_run;

const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const MAP_GET_NEXT_KEY: libc::c_int = 4;
const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const PROG_TEST_RUN: libc::c_int = 10;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const MAP_LOOKUP_AND_DELETE_BATCH: libc::c_int = 25;
const MAP_UPDATE_BATCH: libc::c_int = 26;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;
const LINK_DETACH: libc::c_int = 34;

/// `BPF_XDP` and `BPF_SK_LOOKUP` of `enum bpf_attach_type`.
pub(super) const ATTACH_XDP: u32 = 37;
pub(super) const ATTACH_SK_LOOKUP: u32 = 36;
pub(super) const XDP_GENERIC: u32 = 1 << 1;
pub(super) const XDP_NATIVE: u32 = 1 << 2;
pub(super) const NO_PREALLOC: u32 = 1;
/// An array that userspace may map.
pub(super) const MAPPABLE: u32 = 1 << 10;
/// An array that may take the place of one of another size in a map of maps.
pub(super) const INNER_MAP: u32 = 1 << 12;

/// Map types we make or expect (`enum bpf_map_type`).
pub(super) const HASH: u32 = 1;
pub(super) const ARRAY: u32 = 2;
pub(super) const PERCPU_ARRAY: u32 = 6;
pub(super) const PROGRAM_ARRAY: u32 = 3;
pub(super) const LRU_HASH: u32 = 9;
pub(super) const LPM_TRIE: u32 = 11;
pub(super) const ARRAY_OF_MAPS: u32 = 12;
pub(super) const SOCKMAP: u32 = 15;
pub(super) const RINGBUF: u32 = 27;

/// One command. The kernel takes a shorter attribute than its own for one with zeros behind it.
fn bpf<A>(command: libc::c_int, attribute: &mut A) -> io::Result<libc::c_long> {
    // SAFETY: the attribute is a live, padding-free `repr(C)` structure of the size given; pointers inside it are to
    // buffers that the callers in this room keep alive and size as the command demands.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attribute, size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    let raw = i32::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the kernel just made this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn address<T>(slice: &[T]) -> u64 {
    slice.as_ptr() as u64
}

/// What a map is made as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) kind: u32,
    pub(super) key: u32,
    pub(super) value: u32,
    pub(super) entries: u32,
    pub(super) flags: u32,
}

pub(super) fn map_create(name: &str, shape: Shape) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attribute {
        kind: u32,
        key: u32,
        value: u32,
        entries: u32,
        flags: u32,
        inner: u32,
        numa: u32,
        name: [u8; 16],
    }
    let Shape { kind, key, value, entries, flags } = shape;
    let mut attribute = Attribute { kind, key, value, entries, flags, inner: 0, numa: 0, name: [0; 16] };
    attribute.name.iter_mut().zip(name.bytes().take(15)).for_each(|(to, from)| *to = from);
    descriptor(bpf(MAP_CREATE, &mut attribute)?)
}

#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl Element {
    fn new(map: BorrowedFd<'_>, key: &[u8], value: u64) -> Self {
        Self { map: number(map), padding: 0, key: address(key), value, flags: 0 }
    }
}

/// Sizes are the caller's duty: `key` and `value` must be as long as the map's.
pub(super) fn map_update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    bpf(MAP_UPDATE_ELEM, &mut Element::new(map, key, address(value))).map(drop)
}

pub(super) fn map_delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<()> {
    bpf(MAP_DELETE_ELEM, &mut Element::new(map, key, 0)).map(drop)
}

/// Reads into `value`, which must be as long as the map's values (times the possible CPUs for a per-CPU map).
pub(super) fn map_lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    match bpf(MAP_LOOKUP_ELEM, &mut Element::new(map, key, value.as_mut_ptr() as u64)) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// All keys, `N` bytes each.
pub(super) fn map_keys<const N: usize>(map: BorrowedFd<'_>) -> io::Result<Vec<[u8; N]>> {
    let mut keys: Vec<[u8; N]> = Vec::new();
    loop {
        let mut next = [0; N];
        let mut element = Element::new(map, &[], next.as_mut_ptr() as u64);
        element.key = keys.last().map_or(0, |last| address(last));
        match bpf(MAP_GET_NEXT_KEY, &mut element) {
            Ok(_) => keys.push(next),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(keys),
            Err(error) => return Err(error),
        }
    }
}

#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Takes every element out of a hash table, `most` with one call (or more where one bucket holds more), and gives each to
/// `each`. Sizes are the caller's duty, as in [`map_update`]; a key has at least the 4 bytes of a place in the table.
pub(super) fn map_take_all(
    map: BorrowedFd<'_>,
    (key_size, value_size): (usize, usize),
    most: usize,
    mut each: impl FnMut(&[u8], &[u8]) -> Option<()>,
) -> io::Result<()> {
    let (mut place, mut next, mut most) = ([0_u8; 4], [0_u8; 4], most);
    let mut begun = false;
    loop {
        let (mut keys, mut values) = (vec![0_u8; most * key_size], vec![0_u8; most * value_size]);
        let mut attribute = Batch {
            in_batch: if begun { address(&place) } else { 0 },
            out_batch: next.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: u32::try_from(most).map_err(io::Error::other)?,
            map: number(map),
            element_flags: 0,
            flags: 0,
        };
        let done = match bpf(MAP_LOOKUP_AND_DELETE_BATCH, &mut attribute) {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            // One bucket has more than fits: nothing was taken with this call.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && attribute.count == 0 => {
                most *= 2;
                continue;
            }
            Err(error) => return Err(error),
        };
        let elements = keys.chunks_exact(key_size).zip(values.chunks_exact(value_size));
        for (key, value) in elements.take(attribute.count as usize) {
            each(key, value).ok_or(io::ErrorKind::InvalidData)?;
        }
        if done {
            return Ok(());
        }
        (place, begun) = (next, true);
    }
}

/// Enters many elements with few calls. Keys and values lie one behind the other.
pub(super) fn map_update_batch(
    map: BorrowedFd<'_>,
    keys: &[u8],
    values: &[u8],
    count: u32,
) -> io::Result<()> {
    if count == 0 {
        return Ok(());
    }
    let mut attribute = Batch {
        in_batch: 0,
        out_batch: 0,
        keys: address(keys),
        values: address(values),
        count,
        map: number(map),
        element_flags: 0,
        flags: 0,
    };
    bpf(MAP_UPDATE_BATCH, &mut attribute).map(drop)
}

#[repr(C)]
struct Pinned {
    path: u64,
    object: u32,
    flags: u32,
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    bpf(OBJ_PIN, &mut Pinned { path: path.as_ptr() as u64, object: number(object), flags: 0 }).map(drop)
}

pub(super) fn pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    descriptor(bpf(OBJ_GET, &mut Pinned { path: path.as_ptr() as u64, object: 0, flags: 0 })?)
}

/// Needs `CAP_SYS_ADMIN`, which the keeper may lack.
pub(super) fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attribute {
        id: u32,
        next: u32,
        flags: u32,
    }
    descriptor(bpf(PROG_GET_FD_BY_ID, &mut Attribute { id, next: 0, flags: 0 })?)
}

pub(super) fn link_create(
    program: BorrowedFd<'_>,
    target: u32,
    attach: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attribute {
        program: u32,
        target: u32,
        attach: u32,
        flags: u32,
    }
    descriptor(bpf(LINK_CREATE, &mut Attribute { program: number(program), target, attach, flags })?)
}

/// Replaces a link's program atomically.
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Attribute {
        link: u32,
        program: u32,
        flags: u32,
        old: u32,
    }
    bpf(LINK_UPDATE, &mut Attribute { link: number(link), program: number(program), flags: 0, old: 0 })
        .map(drop)
}

pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(LINK_DETACH, &mut number(link)).map(drop)
}

/// What the kernel says of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MapInfo {
    pub(super) id: u32,
    pub(super) shape: Shape,
}

/// What the kernel says of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LinkInfo {
    pub(super) id: u32,
    pub(super) program: u32,
    /// The interface's index or the network namespace's inode; 0 when it is gone.
    pub(super) target: u32,
}

/// The first bytes of any `bpf_*_info`; shorter than every kernel's own, so they are always filled.
fn info<const WORDS: usize>(object: BorrowedFd<'_>) -> io::Result<[u32; WORDS]> {
    #[repr(C)]
    struct Attribute {
        object: u32,
        length: u32,
        info: u64,
    }
    let mut words = [0_u32; WORDS];
    let length = u32::try_from(size_of_val(&words)).map_err(io::Error::other)?;
    bpf(
        OBJ_GET_INFO_BY_FD,
        &mut Attribute { object: number(object), length, info: words.as_mut_ptr() as u64 },
    )?;
    Ok(words)
}

pub(super) fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let [kind, id, key, value, entries, flags] = info(map)?;
    Ok(MapInfo { id, shape: Shape { kind, key, value, entries, flags } })
}

/// Type, id, program, padding, then the union, whose first word is the target for both kinds of link we have.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let [_, id, program, _, target, _] = info(link)?;
    Ok(LinkInfo { id, program, target })
}

/// A program's id and name.
pub(super) fn program_info(program: BorrowedFd<'_>) -> io::Result<(u32, String)> {
    let words: [u32; 20] = info(program)?;
    let name: Vec<u8> =
        words[16..].iter().flat_map(|word| word.to_ne_bytes()).take_while(|&byte| byte != 0).collect();
    Ok((words[1], String::from_utf8_lossy(&name).into_owned()))
}

/// The clock that the kernel's programs read, milliseconds.
pub(super) fn monotonic_ms() -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is live and ours; this clock is there on every kernel.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

/// An interface's index in this thread's network namespace; /sys may show another one's.
pub(super) fn interface_index(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name is a live, terminated string.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

/// The name of an interface of this thread's network namespace.
pub(in crate::keeper) fn interface_name(index: u32) -> Option<String> {
    let mut name = [0_u8; libc::IF_NAMESIZE];
    // SAFETY: the buffer is as long as the longest name with its end.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) };
    let name = CStr::from_bytes_until_nul(&name).ok().filter(|_| !found.is_null())?;
    name.to_str().ok().map(str::to_owned)
}
