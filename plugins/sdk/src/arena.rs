//! The memory of a guest: an arena that exists from the start, so that an attempt does not grow its memory.
//! Growing needs page-table work in the host, which is half the cost of a small attempt.
//!
//! ```text
//!   arena   ████ live ████ free ██ live ██│···················│
//!           0                             bump              SIZE
//! ```
//!
//! Sizes are rounded up to classes, four to an octave. A freed block goes to the list of its class, or lowers
//! the bump if it was the last one. When nothing is live, the whole arena is free again. So an instance that
//! serves many attempts reuses the blocks that earlier ones freed. Larger requests go to the fallback
//! allocator, which grows the memory and can free blocks.
//!
//! A guest has one thread. Nothing here is thread-safe.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::UnsafeCell,
    ptr::{self, null_mut},
};

/// Bytes of the arena. The host keeps more than this resident for an instance.
#[cfg(target_family = "wasm")]
const SIZE: usize = 192 * 1024;

#[cfg(target_family = "wasm")]
#[global_allocator]
static ARENA: Arena<SIZE> = Arena::new(System);

/// Every block begins at a multiple of this; the fallback handles larger alignments.
const ALIGN: usize = 16;

/// Classes of blocks up to 256 KiB: 16, 32, 48, 64, and then four to an octave.
const CLASSES: usize = 4 + 4 * 12;

/// An allocator of `SIZE` bytes, and another for requests that do not fit. It is all zeros at first, so that
/// it takes no room in the module.
pub(crate) struct Arena<const SIZE: usize, F = System> {
    memory: Memory<SIZE>,
    book: UnsafeCell<Book>,
    fallback: F,
}

/// The memory of the blocks. Accessed only by raw pointers, because blocks in use are part of it.
#[repr(align(16))]
struct Memory<const SIZE: usize>(UnsafeCell<[u8; SIZE]>);

// SAFETY: a guest has one thread (there are no threads in components of WASI 0.2).
#[cfg(all(target_family = "wasm", not(target_feature = "atomics")))]
unsafe impl<const SIZE: usize, F> Sync for Arena<SIZE, F> {}

impl<const SIZE: usize, F> Arena<SIZE, F> {
    pub(crate) const fn new(fallback: F) -> Self {
        assert!(SIZE <= 256 * 1024 && SIZE.is_multiple_of(ALIGN));
        Self { memory: Memory(UnsafeCell::new([0; SIZE])), book: UnsafeCell::new(Book::NEW), fallback }
    }

    /// The beginning of the arena.
    fn start(&self) -> *mut u8 {
        self.memory.0.get().cast()
    }

    /// The block's offset in the arena, or none if it is not in the arena.
    fn offset(&self, block: *mut u8) -> Option<usize> {
        (block as usize).checked_sub(self.start() as usize).filter(|offset| *offset < SIZE)
    }
}

// SAFETY: blocks are disjoint parts of `memory`, aligned to `ALIGN`, or are from the fallback; each is
// returned to its origin. References to the book do not outlive a call.
unsafe impl<const SIZE: usize, F: GlobalAlloc> GlobalAlloc for Arena<SIZE, F> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= ALIGN && layout.size() <= SIZE {
            // SAFETY: one thread; the book describes this memory, which has `SIZE` bytes.
            let taken = unsafe { (*self.book.get()).take(self.start(), SIZE, Class::of(layout.size())) };
            if let Some(offset) = taken {
                return self.start().wrapping_add(offset);
            }
        }
        // SAFETY: guaranteed by the caller.
        unsafe { self.fallback.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match self.offset(block) {
            // SAFETY: as in `alloc`; the caller guarantees that the block is in use and of this class.
            Some(offset) => unsafe {
                (*self.book.get()).give(self.start(), offset, Class::of(layout.size()));
            },
            // SAFETY: the fallback allocated it.
            None => unsafe { self.fallback.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(offset) = self.offset(block) else {
            // SAFETY: the fallback allocated it, and still owns it.
            return unsafe { self.fallback.realloc(block, layout, size) };
        };
        // SAFETY: as in `dealloc`. The caller guarantees that the new layout is sound. The blocks do not
        // overlap, and the copy has the size of the smaller one.
        unsafe {
            if size <= SIZE
                && (*self.book.get()).resize(SIZE, offset, Class::of(layout.size()), Class::of(size))
            {
                return block;
            }
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if new.is_null() {
                return null_mut();
            }
            ptr::copy_nonoverlapping(block, new, layout.size().min(size));
            self.dealloc(block, layout);
            new
        }
    }
}

/// The parts of the arena that are in use.
struct Book {
    /// The beginning of the untouched part.
    bump: usize,
    /// The number of blocks in use.
    live: usize,
    /// Whether any list contains a block.
    any_free: bool,
    /// The first free block of each class: its offset plus one, or 0 for none. A free block begins with the
    /// same value for the next one.
    free: [u32; CLASSES],
}

impl Book {
    const NEW: Self = Self { bump: 0, live: 0, any_free: false, free: [0; CLASSES] };

    /// Takes a block of this class and returns its offset.
    ///
    /// # Safety
    /// `memory` points to the beginning of the arena, which has `size` bytes.
    unsafe fn take(&mut self, memory: *mut u8, size: usize, class: Class) -> Option<usize> {
        let head = &mut self.free[class.index];
        let offset = if *head != 0 {
            let offset = *head as usize - 1;
            // SAFETY: a block in a list is free, and contains the link that `give` wrote.
            *head = unsafe { memory.add(offset).cast::<u32>().read() };
            offset
        } else if class.size <= size - self.bump {
            let offset = self.bump;
            self.bump += class.size;
            offset
        } else {
            return None;
        };
        self.live += 1;
        Some(offset)
    }

    /// Returns a block to the arena.
    ///
    /// # Safety
    /// `memory` points to the beginning of the arena; the block is in use and of this class.
    unsafe fn give(&mut self, memory: *mut u8, offset: usize, class: Class) {
        self.live -= 1;
        if self.live == 0 {
            self.bump = 0;
            if self.any_free {
                self.free = [0; CLASSES];
                self.any_free = false;
            }
        } else if offset + class.size == self.bump {
            self.bump = offset;
        } else {
            // SAFETY: the block is free again, and has room for a link.
            unsafe { memory.add(offset).cast::<u32>().write(self.free[class.index]) };
            self.free[class.index] = offset as u32 + 1;
            self.any_free = true;
        }
    }

    /// Changes the class of a block in place, if possible, and returns whether it did. A block that is not
    /// the last keeps its class; otherwise its rest would be lost when it is freed.
    fn resize(&mut self, size: usize, offset: usize, old: Class, new: Class) -> bool {
        if offset + old.size == self.bump && new.size <= size - offset {
            self.bump = offset + new.size;
            return true;
        }
        new == old
    }
}

/// The class of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Class {
    index: usize,
    /// Bytes of each block of this class.
    size: usize,
}

impl Class {
    /// The smallest class for `size` bytes, which may be 1 to 256 KiB.
    fn of(size: usize) -> Self {
        let most = size.max(1) - 1;
        if most < 64 {
            return Self { index: most / ALIGN, size: (most / ALIGN + 1) * ALIGN };
        }
        let octave = most.ilog2() as usize;
        let step = 1 << (octave - 2);
        let quarter = (most - (1 << octave)) / step;
        Self { index: 4 + (octave - 6) * 4 + quarter, size: (1 << octave) + (quarter + 1) * step }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        hash::{BuildHasher, Hasher, RandomState},
    };

    use super::*;

    /// The system's allocator, which counts its live allocations.
    #[derive(Default)]
    struct Counting(Cell<isize>);

    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            self.0.set(self.0.get() + 1);
            unsafe { System.alloc(layout) }
        }
        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            self.0.set(self.0.get() - 1);
            unsafe { System.dealloc(block, layout) }
        }
    }

    fn arena<const SIZE: usize>() -> Box<Arena<SIZE, Counting>> {
        Box::new(Arena::new(Counting::default()))
    }

    fn state<const SIZE: usize>(arena: &Arena<SIZE, Counting>) -> (usize, usize) {
        let book = unsafe { &*arena.book.get() };
        (book.bump, book.live)
    }

    #[test]
    fn classes_hold_their_sizes_and_waste_at_most_a_quarter() {
        let mut last = Class::of(1);
        for size in 1..=256 * 1024 {
            let class = Class::of(size);
            assert!(
                class.size >= size && class.size.is_multiple_of(ALIGN) && class.index < CLASSES,
                "{size}: {class:?}"
            );
            assert!(class.size - size < ALIGN.max(class.size / 4), "{size}: {class:?}");
            assert!(
                class == last || (class.index == last.index + 1 && size == last.size + 1),
                "{size}: {class:?}"
            );
            last = class;
        }
    }

    /// A block in use, filled with its tag.
    struct Block {
        at: *mut u8,
        layout: Layout,
        tag: u8,
    }

    impl Block {
        fn fill(&self) {
            unsafe { ptr::write_bytes(self.at, self.tag, self.layout.size()) };
        }
        fn check(&self, size: usize) {
            assert_eq!(self.at as usize % self.layout.align(), 0, "alignment of {:?}", self.layout);
            let bytes = unsafe { std::slice::from_raw_parts(self.at, size) };
            assert!(bytes.iter().all(|&byte| byte == self.tag), "another block wrote into {:?}", self.layout);
        }
    }

    #[test]
    fn blocks_never_overlap_and_everything_comes_back() {
        let seed = std::env::var("POSTHOUSE_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| RandomState::new().build_hasher().finish()) | 1;
        println!("POSTHOUSE_SEED={seed}");
        let mut state_of_random = seed;
        let mut random = move |below: usize| {
            state_of_random ^= state_of_random << 13;
            state_of_random ^= state_of_random >> 7;
            state_of_random ^= state_of_random << 17;
            (state_of_random >> 33) as usize % below
        };
        let arena = arena::<{ 16 * 1024 }>();
        let mut blocks: Vec<Block> = Vec::new();
        for step in 0..60_000 {
            // Fills up for a while, then empties for a while.
            let filling = (step / 500) % 2 == 0;
            match random(10) {
                0..=5 if filling || blocks.is_empty() => {
                    let size = 1 + if random(20) == 0 { random(20_000) } else { random(400) };
                    let layout = Layout::from_size_align(size, 1 << random(7)).unwrap();
                    let block = Block { at: unsafe { arena.alloc(layout) }, layout, tag: step as u8 };
                    block.fill();
                    blocks.push(block);
                }
                6..=7 if !blocks.is_empty() => {
                    let index = random(blocks.len());
                    let size = 1 + random(600);
                    let block = &mut blocks[index];
                    let kept = block.layout.size().min(size);
                    block.at = unsafe { arena.realloc(block.at, block.layout, size) };
                    block.layout = Layout::from_size_align(size, block.layout.align()).unwrap();
                    block.check(kept);
                    block.fill();
                }
                _ if !blocks.is_empty() => {
                    let block = blocks.swap_remove(random(blocks.len()));
                    block.check(block.layout.size());
                    unsafe { arena.dealloc(block.at, block.layout) };
                }
                _ => {}
            }
        }
        for block in blocks {
            block.check(block.layout.size());
            unsafe { arena.dealloc(block.at, block.layout) };
        }
        assert_eq!(state(&arena), (0, 0), "the arena is one free piece again");
        assert_eq!(arena.fallback.0.get(), 0, "the fallback got all back");
    }

    #[test]
    fn an_instance_that_lives_on_needs_no_more_each_time() {
        let arena = arena::<{ 16 * 1024 }>();
        let layout = |size| Layout::from_size_align(size, 8).unwrap();
        let for_ever = unsafe { arena.alloc(layout(24)) };
        let mut highest = Vec::new();
        for _ in 0..10_000 {
            let mut blocks = Vec::new();
            for size in [10, 700, 40, 3000, 100] {
                let block = unsafe { arena.alloc(layout(size)) };
                let block = unsafe { arena.realloc(block, layout(size), size * 2) };
                blocks.push((block, size * 2));
            }
            let (block, size) = blocks.remove(1);
            blocks.push((unsafe { arena.realloc(block, layout(size), 300) }, 300));
            highest.push(state(&arena).0);
            for (block, size) in blocks {
                unsafe { arena.dealloc(block, layout(size)) };
            }
        }
        assert_eq!(highest[100], highest[9_999], "the same work needs the same room");
        assert_eq!(arena.fallback.0.get(), 0, "nothing had to go elsewhere");
        unsafe { arena.dealloc(for_ever, layout(24)) };
        assert_eq!(state(&arena), (0, 0));
    }

    #[test]
    fn what_does_not_fit_goes_to_the_fallback() {
        let arena = arena::<1024>();
        for layout in [Layout::from_size_align(2000, 8).unwrap(), Layout::from_size_align(8, 64).unwrap()] {
            let block = unsafe { arena.alloc(layout) };
            assert!(arena.offset(block).is_none(), "{layout:?}");
            unsafe { arena.dealloc(block, layout) };
        }
        let layout = Layout::from_size_align(1024, 16).unwrap();
        let all = unsafe { arena.alloc(layout) };
        assert!(arena.offset(all).is_some(), "the last byte can be had");
        let grown = unsafe { arena.realloc(all, layout, 1025) };
        assert!(arena.offset(grown).is_none() && state(&arena) == (0, 0));
        unsafe { arena.dealloc(grown, Layout::from_size_align(1025, 16).unwrap()) };
        assert_eq!(arena.fallback.0.get(), 0);
    }
}
