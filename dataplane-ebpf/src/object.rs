//! The compiled programs. build.rs has checked that they were built from the sources beside this file.

/// Aligned for its ELF headers, which the loader reads in place.
#[repr(C, align(64))]
struct Aligned<B: ?Sized>(B);

static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/sallyport-bpf.o")));

/// The ELF object, programs and map definitions.
pub static OBJECT: &[u8] = &ALIGNED.0;
