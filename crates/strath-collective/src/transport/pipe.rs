//! A pipe of frames in shared memory, one end a process.
//!
//! ```text
//!            head            tail
//!  ──────────┴───────────────┴──────────────────►   bytes since the beginning, at `position mod its size`
//!   read      frame  frame    free
//! ```
//!
//! The writer packs a frame behind the tail, in place, and moves the tail; the reader takes whole frames at the head, in place, and moves
//! the head. Who finds nothing to read and no room to write sleeps on the peer's connection: it says so, *then* looks again. The
//! other moves its end, *then* looks whether it is to ring. With a full fence between the two on both sides one of them sees the
//! other's word (Dekker 1965), so no wake is lost.

#![allow(unsafe_code, reason = "shared memory")]

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::sync::atomic::{Ordering, fence};

use super::map::Pages;
use crate::frame::HEADER_BYTES;

/// Frames begin at multiples of so many bytes, so that their values are aligned.
const ALIGNMENT: usize = 64;

fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT)
}

/// Whether a frame can end or begin at a position.
fn is_between_frames(at: u64) -> bool {
    at.is_multiple_of(ALIGNMENT as u64)
}

/// The end that sends.
#[derive(Debug)]
pub(super) struct Writer {
    pages: Pages,
    tail: u64,
    /// The reader's place when last looked at.
    head: Cell<u64>,
}

impl Writer {
    pub(super) fn new(pages: Pages) -> Self {
        Self { pages, tail: 0, head: Cell::new(0) }
    }

    /// Where the next frame of so many bytes goes, once there is room for it.
    pub(super) fn room(&mut self, bytes: usize) -> Option<&mut [u8]> {
        if !self.has_room(bytes) {
            return None;
        }
        // SAFETY: the reader is at `head` and is done with all before it; up to one size of the data further nothing is published.
        Some(unsafe { self.pages.slice_mut(self.tail, bytes) })
    }

    /// Whether a frame of so many bytes finds room by now. Room that was found stays.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let fits = || {
            let used = self.tail - self.head.get();
            self.pages.size().checked_sub(padded(bytes)).is_some_and(|most| used <= most as u64)
        };
        fits() || {
            let head = self.pages.control().head.0.load(Ordering::Acquire);
            // A reader that claims to be ahead of the writer, to have gone back, or to be within a frame makes no room.
            if (self.head.get()..=self.tail).contains(&head) && is_between_frames(head) {
                self.head.set(head);
            }
            fits()
        }
    }

    /// Hands over a frame of so many bytes, which was written to its [`room`](Self::room).
    pub(super) fn publish(&mut self, bytes: usize) {
        self.tail += padded(bytes) as u64;
        self.pages.control().tail.0.store(self.tail, Ordering::Release);
        // The place of the next frame is in the reader's cache.
        self.pages.fetch(self.tail, usize::MAX, true);
    }

    /// Whether the peer sleeps and is to be rung, after this end has published or the peer's pipe was read. Says so once.
    pub(super) fn peer_sleeps(&self) -> bool {
        fence(Ordering::SeqCst);
        let asleep = &self.pages.control().asleep.0;
        asleep.load(Ordering::Relaxed) != 0 && asleep.swap(0, Ordering::SeqCst) != 0
    }
}

/// The end that receives.
#[derive(Debug)]
pub(super) struct Reader {
    pages: Pages,
    head: u64,
    /// The writer's place when last looked at.
    tail: u64,
}

impl Reader {
    pub(super) fn new(pages: Pages) -> Self {
        Self { pages, head: 0, tail: 0 }
    }

    /// Looks what has come: so many bytes are there and not taken.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidData`] where the writer's place is further on than there is room for, behind where it was, or within a frame:
    /// the values of what comes after it would lie where they cannot be read in place.
    pub(super) fn refresh(&mut self) -> io::Result<usize> {
        let tail = self.pages.control().tail.0.load(Ordering::Acquire);
        let size = self.pages.size() as u64;
        if tail.wrapping_sub(self.head) > size || tail.wrapping_sub(self.tail) > size {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                "it wrote more to shared memory than there was room for",
            ));
        }
        if !is_between_frames(tail) {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                "it says that a frame in shared memory ends where none can",
            ));
        }
        if tail != self.tail {
            self.pages.fetch(self.tail, (tail - self.tail) as usize, false);
        }
        self.tail = tail;
        Ok((tail - self.head) as usize)
    }

    /// What has come and was not taken.
    pub(super) fn unread(&self) -> &[u8] {
        // SAFETY: published up to `tail`, and this end has not moved the head further.
        unsafe { self.pages.slice(self.head, (self.tail - self.head) as usize) }
    }

    /// The header of the next frame, where so much is there, read once: what is checked is what is then used. Word by word: byte by byte,
    /// as bytes would be, it takes as long as a small sum.
    #[allow(clippy::cast_ptr_alignment, reason = "frames begin at multiples of more than a word")]
    pub(super) fn front(&self) -> Option<[u8; HEADER_BYTES]> {
        let front = self.unread().first_chunk::<HEADER_BYTES>()?.as_ptr().cast::<u64>();
        // SAFETY: what a reference is to may be read; of the alignment see above.
        let words: [u64; HEADER_BYTES / 8] = std::array::from_fn(|at| unsafe { front.add(at).read_volatile() });
        Some(*bytemuck::bytes_of(&words).first_chunk().expect("a header is of whole words"))
    }

    /// Drops the next frame, of so many bytes.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.head = (self.head + padded(bytes) as u64).min(self.tail);
        self.pages.control().head.0.store(self.head, Ordering::Release);
    }

    /// Says that this process is about to sleep, before it looks for the last time whether there is something to do.
    pub(super) fn say_asleep(&self) {
        self.pages.control().asleep.0.store(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Whether the peer will still ring for what comes next.
    pub(super) fn will_be_rung(&self) -> bool {
        self.pages.control().asleep.0.load(Ordering::SeqCst) != 0
    }

    /// Whether anything is there by now and not taken.
    pub(super) fn has_more(&self) -> bool {
        self.pages.control().tail.0.load(Ordering::Acquire) != self.head
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::transport::map::PipeFile;
    use crate::transport::wake::{Wakeable, Waker};
    use crate::transport::watch::Watch;

    /// Of a file of three pipes.
    const DATA_BYTES: usize = 576 * 1024;

    /// Both ends of a pipe, the second by the way that a peer takes.
    fn ends(pipe: usize) -> (Writer, Reader) {
        let file = PipeFile::create(3).unwrap();
        let again = PipeFile::open(std::process::id(), file.descriptor() as u32, file.nonce, 3).unwrap();
        (Writer::new(file.map(pipe).unwrap()), Reader::new(again.map(pipe).unwrap()))
    }

    #[test]
    fn frames_of_every_length_arrive_whole_and_in_order_also_over_the_end() {
        let (mut writer, mut reader) = ends(1);
        let lengths = [1, 63, 64, 65, 80, 300_007, 524_368, 100, DATA_BYTES, 400_000, 400_001];
        for (round, bytes) in (0u8..).zip(lengths.iter().cycle().take(60)) {
            let room = writer.room(*bytes).unwrap();
            room.fill(round);
            room[*bytes - 1] = !round;
            assert!(!reader.has_more());
            writer.publish(*bytes);
            assert!(reader.has_more());
            assert_eq!(reader.refresh().unwrap(), bytes.next_multiple_of(ALIGNMENT));
            let found = &reader.unread()[..*bytes];
            assert!(found[..bytes - 1].iter().all(|byte| *byte == round) && found[bytes - 1] == !round);
            reader.consume(*bytes);
            assert!(reader.unread().is_empty());
        }
    }

    #[test]
    fn a_full_pipe_has_no_room_until_the_reader_is_done_with_a_frame() {
        let (mut writer, mut reader) = ends(0);
        for _ in 0..4 {
            assert_eq!(writer.room(DATA_BYTES / 4).unwrap().len(), DATA_BYTES / 4);
            writer.publish(DATA_BYTES / 4);
        }
        assert!(writer.room(1).is_none() && !writer.has_room(1));
        reader.refresh().unwrap();
        assert!(writer.room(1).is_none(), "read, and still in use");
        reader.consume(DATA_BYTES / 4);
        assert!(writer.has_room(DATA_BYTES / 4) && !writer.has_room(DATA_BYTES / 4 + 1));
        assert!(writer.room(DATA_BYTES / 4).is_some());
        assert!(writer.room(DATA_BYTES + 1).is_none(), "more than a pipe holds");
    }

    #[test]
    fn a_peer_whose_positions_make_no_sense_is_found_out() {
        let (mut writer, mut reader) = ends(2);
        let control = |pages: &Pages, tail: bool, value: u64| {
            let line: &AtomicU64 = if tail { &pages.control().tail.0 } else { &pages.control().head.0 };
            line.store(value, Ordering::SeqCst);
        };
        control(&writer.pages, true, DATA_BYTES as u64 + 64);
        assert!(reader.refresh().unwrap_err().to_string().contains("more to shared memory"));
        control(&writer.pages, true, u64::MAX);
        assert!(reader.refresh().is_err());
        writer.publish(DATA_BYTES);
        control(&writer.pages, false, DATA_BYTES as u64 + 64);
        assert!(writer.room(1).is_none(), "a reader ahead of the writer");
        control(&writer.pages, false, 640);
        assert!(writer.has_room(640));
        control(&writer.pages, false, 64);
        assert!(writer.room(640).is_some() && writer.room(641).is_none(), "a reader that went back");
        control(&writer.pages, false, 704 + 1);
        assert!(writer.room(641).is_none(), "a reader within a frame");
        control(&writer.pages, false, 704);
        assert!(writer.room(704).is_some());
    }

    #[test]
    fn a_writer_that_ends_a_frame_within_a_line_is_refused_wherever_that_is() {
        for wrong in [1, 63, 65, 88, 88 + 3, DATA_BYTES as u64 - 1] {
            let (mut writer, mut reader) = ends(2);
            writer.room(88).unwrap().fill(1);
            writer.publish(88);
            assert_eq!(reader.refresh().unwrap(), 128);
            reader.consume(88);
            writer.pages.control().tail.0.store(128 + wrong, Ordering::SeqCst);
            assert!(reader.refresh().unwrap_err().to_string().contains("where none can"), "{wrong}");
            assert!(reader.unread().is_empty(), "{wrong}: nothing of it is looked at");
        }
    }

    #[test]
    fn only_the_memory_that_a_rank_made_and_named_is_opened() {
        let file = PipeFile::create(1).unwrap();
        let open = |descriptor: i32, nonce, pipes| {
            let opened = PipeFile::open(std::process::id(), descriptor as u32, nonce, pipes);
            opened.map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(open(file.descriptor(), file.nonce, 1), Ok(()));
        assert!(open(file.descriptor(), file.nonce ^ 1, 1).unwrap_err().contains("of another rank"));
        assert!(open(file.descriptor(), file.nonce, 2).unwrap_err().contains("of another size"));
        let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let other = std::os::fd::AsRawFd::as_raw_fd(&other);
        assert!(open(other, file.nonce, 1).unwrap_err().contains("no memory of a rank"));
        assert!(open(9_999, file.nonce, 1).is_err());
    }

    /// Two threads hand one frame to and fro, each asleep whenever it finds nothing: a wake that is lost is a sleep that ends only
    /// with its limit.
    #[test]
    fn no_wake_is_lost_between_two_that_sleep_whenever_they_can() {
        fn play(mut writer: Writer, mut reader: Reader, bell: &Wakeable, peer: &Waker, first: bool) -> usize {
            let (mut late, mut waits_for_turn) = (0, !first);
            for _ in 0..20_000 {
                while waits_for_turn {
                    if reader.refresh().unwrap() > 0 {
                        reader.consume(8);
                        waits_for_turn = false;
                    } else {
                        reader.say_asleep();
                        if !reader.has_more() {
                            let events = Watch::new(None).sleep(bell, Some(Duration::from_secs(2)));
                            late += usize::from(!events.bell());
                        }
                    }
                }
                writer.room(8).unwrap().fill(1);
                writer.publish(8);
                if writer.peer_sleeps() {
                    peer.wake();
                }
                waits_for_turn = true;
            }
            late
        }
        let ((one_writes, other_reads), (other_writes, one_reads)) = (ends(0), ends(1));
        let ((one_bell, ring_one), (other_bell, ring_other)) = (Wakeable::new().unwrap(), Wakeable::new().unwrap());
        let late = thread::scope(|scope| {
            let one = scope.spawn(|| play(one_writes, one_reads, &one_bell, &ring_other, true));
            let other = scope.spawn(|| play(other_writes, other_reads, &other_bell, &ring_one, false));
            one.join().unwrap() + other.join().unwrap()
        });
        assert_eq!(late, 0);
    }
}
