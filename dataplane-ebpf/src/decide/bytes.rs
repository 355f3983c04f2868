//! A frame as the parser reads it, in the kernel and on the host.

/// A frame's bytes; the one way to read them. Numbers are given as they lie, in network order where they are numbers.
pub trait Bytes {
    /// Two bytes.
    fn half(&self, offset: usize) -> Option<u16>;

    /// `N` times four bytes.
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]>;

    /// `N` times eight bytes.
    fn longs<const N: usize>(&self, offset: usize) -> Option<[u64; N]>;

    /// A copy of `N` bytes at `offset`, `N` at least 2 (of a single byte's bounds check the compiler makes a comparison
    /// the verifier does not follow); nothing when the frame ends before.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// The first `N` bytes.
    type Front<const N: usize>: Front;

    /// The first `N` bytes, where the frame has them, in one piece of memory.
    fn front<const N: usize>(&self) -> Option<Self::Front<N>>;

    /// Whether the frame has `length` bytes in one piece of memory.
    fn is_near(&self, length: usize) -> bool;

    /// Whether the frame has `length` bytes.
    fn reaches(&self, length: usize) -> bool;

    /// Whether it came over the loopback interface, where this host's own addresses are at home.
    fn is_looped(&self) -> bool;

    /// The number as it is. In the kernel the verifier knows nothing of it any more, if it knows nothing of `other`, so that it
    /// finds the paths that lead here alike and walks on from one of them.
    #[inline(always)]
    fn forget(&self, number: usize, _other: usize) -> usize {
        number
    }
}

/// Bytes that are known to be there. What reaches beyond them does not compile.
pub trait Front {
    /// A byte.
    fn byte<const AT: usize>(&self) -> u8;

    /// Two bytes.
    fn half<const AT: usize>(&self) -> u16;

    /// Four bytes.
    fn word<const AT: usize>(&self) -> u32;

    /// Eight bytes.
    fn long<const AT: usize>(&self) -> u64;
}

impl<const N: usize> Front for [u8; N] {
    fn byte<const AT: usize>(&self) -> u8 {
        let [byte] = piece::<AT, 1, N>(self);
        byte
    }

    fn half<const AT: usize>(&self) -> u16 {
        u16::from_ne_bytes(piece::<AT, 2, N>(self))
    }

    fn word<const AT: usize>(&self) -> u32 {
        u32::from_ne_bytes(piece::<AT, 4, N>(self))
    }

    fn long<const AT: usize>(&self) -> u64 {
        u64::from_ne_bytes(piece::<AT, 8, N>(self))
    }
}

/// `L` of the bytes, from `AT` on.
fn piece<const AT: usize, const L: usize, const N: usize>(bytes: &[u8; N]) -> [u8; L] {
    const { assert!(AT + L <= N) };
    core::array::from_fn(|index| bytes[AT + index])
}

/// A frame that came over a wire.
impl Bytes for [u8] {
    type Front<const N: usize> = [u8; N];

    fn front<const N: usize>(&self) -> Option<[u8; N]> {
        self.first_chunk().copied()
    }

    fn is_near(&self, length: usize) -> bool {
        self.reaches(length)
    }

    fn half(&self, offset: usize) -> Option<u16> {
        self.read(offset).map(u16::from_ne_bytes)
    }

    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let bytes: &[[u8; 4]; N] = self.get(offset..)?.as_chunks().0.first_chunk()?;
        Some(bytes.map(u32::from_ne_bytes))
    }

    fn longs<const N: usize>(&self, offset: usize) -> Option<[u64; N]> {
        let bytes: &[[u8; 8]; N] = self.get(offset..)?.as_chunks().0.first_chunk()?;
        Some(bytes.map(u64::from_ne_bytes))
    }

    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..offset.checked_add(N)?)?.try_into().ok()
    }

    fn reaches(&self, length: usize) -> bool {
        self.len() >= length
    }

    fn is_looped(&self) -> bool {
        false
    }
}

/// A frame that came over the loopback interface.
#[derive(Debug, Clone, Copy)]
pub struct Looped<'a>(pub &'a [u8]);

impl Bytes for Looped<'_> {
    type Front<const N: usize> = [u8; N];

    fn front<const N: usize>(&self) -> Option<[u8; N]> {
        self.0.front()
    }

    fn is_near(&self, length: usize) -> bool {
        self.0.is_near(length)
    }

    fn half(&self, offset: usize) -> Option<u16> {
        self.0.half(offset)
    }

    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        self.0.words(offset)
    }

    fn longs<const N: usize>(&self, offset: usize) -> Option<[u64; N]> {
        self.0.longs(offset)
    }

    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.read(offset)
    }

    fn reaches(&self, length: usize) -> bool {
        self.0.reaches(length)
    }

    fn is_looped(&self) -> bool {
        true
    }
}
