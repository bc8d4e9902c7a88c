//! The streams of an emulated device. What is asked of one happens in order; what is asked of several happens in some order that their marks allow, another one on every
//! device of the process: drawn, so that whoever relies on an order that was not asked for is found out.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use strath_cuda::{GpuError, Mark};

/// Something to be done, on memory that whoever asks for it keeps until it is.
type Work = Box<dyn FnOnce() -> Result<(), GpuError> + Send>;

/// What a device was asked for.
#[derive(Default)]
pub struct Streams(Mutex<State>);

#[derive(Default)]
struct State {
    streams: Vec<Stream>,
    /// Of the draws.
    seed: u64,
    /// The stream that gets ahead for a while, as others stand still.
    ahead: usize,
    failure: Option<GpuError>,
}

#[derive(Default)]
struct Stream {
    waiting: VecDeque<Task>,
    asked: u64,
    done: u64,
}

enum Task {
    Work(Work),
    /// Comes once another stream has done so much.
    After(Place),
}

/// A stream, and so many things that were asked of it.
#[derive(Clone, Copy)]
struct Place {
    stream: usize,
    asked: u64,
}

/// Bits of a mark that count what was asked.
const COUNT: u32 = 48;

impl Place {
    /// What a mark says.
    fn of(Mark(mark): Mark) -> Self {
        Self { stream: (mark >> COUNT) as usize, asked: mark & ((1 << COUNT) - 1) }
    }
}

impl Streams {
    /// None yet; `seed` says which orders are taken.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(State { seed, ..State::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, and its number.
    pub fn open(&self) -> usize {
        let mut state = self.lock();
        state.streams.push(Stream::default());
        state.streams.len() - 1
    }

    /// Has something done on a stream, in its turn. Of a device with one stream that is now.
    ///
    /// # Errors
    /// What went wrong, now or with something before.
    pub fn ask(
        &self,
        stream: usize,
        work: impl FnOnce() -> Result<(), GpuError> + Send + 'static,
    ) -> Result<(), GpuError> {
        let state = &mut *self.lock();
        if state.streams.len() == 1 {
            return work();
        }
        state.push(stream, Task::Work(Box::new(work)));
        state.go_on();
        state.failure.clone().map_or(Ok(()), Err)
    }

    /// What was asked of a stream so far.
    pub fn mark(&self, stream: usize) -> Mark {
        Mark((stream as u64) << COUNT | self.lock().streams[stream].asked)
    }

    /// Has what comes next on a stream come after what another has marked.
    pub fn after(&self, stream: usize, mark: Mark) {
        self.lock().push(stream, Task::After(Place::of(mark)));
    }

    /// Does everything that was asked of a stream, and what that waits for.
    ///
    /// # Errors
    /// What went wrong.
    pub fn finish(&self, stream: usize) -> Result<(), GpuError> {
        self.reach(self.mark(stream))
    }

    /// Does everything that a stream has marked, and what that waits for.
    ///
    /// # Errors
    /// What went wrong.
    pub fn reach(&self, mark: Mark) -> Result<(), GpuError> {
        let mut state = self.lock();
        state.reach(Place::of(mark));
        state.failure.clone().map_or(Ok(()), Err)
    }
}

impl State {
    fn push(&mut self, stream: usize, task: Task) {
        let stream = &mut self.streams[stream];
        stream.asked += 1;
        stream.waiting.push_back(task);
    }

    /// A number below `end` (xorshift64*).
    fn draw(&mut self, end: usize) -> usize {
        self.seed = self.seed.max(1);
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        (self.seed.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }

    /// Does some of what may be done: much of one stream for a while, little of the others.
    fn go_on(&mut self) {
        let streams = self.streams.len();
        if self.draw(40) == 0 {
            self.ahead = self.draw(streams);
        }
        for _ in 0..self.draw(4) {
            let any = if self.draw(3) > 0 { self.ahead } else { self.draw(streams) };
            if self.streams[any].waiting.front().is_some_and(|task| self.may_come(task)) {
                self.next(any);
            }
        }
    }

    fn may_come(&self, task: &Task) -> bool {
        match task {
            Task::Work(_) => true,
            Task::After(Place { stream, asked }) => self.streams[*stream].done >= *asked,
        }
    }

    /// Does what is next on a stream, and what that waits for.
    fn next(&mut self, stream: usize) {
        let Some(task) = self.streams[stream].waiting.pop_front() else { return };
        match task {
            Task::Work(work) => {
                // Counted first: one that panics is not waited for by whoever tidies up.
                self.streams[stream].done += 1;
                // After a failure a device does nothing.
                if self.failure.is_none() {
                    self.failure = work().err();
                }
            }
            Task::After(place) => {
                self.reach(place);
                self.streams[stream].done += 1;
            }
        }
    }

    fn reach(&mut self, Place { stream, asked }: Place) {
        while self.streams[stream].done < asked {
            self.next(stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// In which order the work of two streams was done, `marked`: the second's after what the first was asked before.
    fn order(seed: u64, marked: bool) -> Vec<u32> {
        let (streams, done) = (Streams::new(seed), Arc::new(Mutex::new(Vec::new())));
        let (one, two) = (streams.open(), streams.open());
        let note = |stream, number: u32| {
            let done = done.clone();
            let work = move || {
                done.lock().unwrap_or_else(PoisonError::into_inner).push(number);
                Ok(())
            };
            streams.ask(stream, work).unwrap();
        };
        note(one, 1);
        note(one, 2);
        if marked {
            streams.after(two, streams.mark(one));
        }
        note(one, 3);
        note(two, 4);
        streams.finish(two).unwrap();
        streams.finish(one).unwrap();
        let done = done.lock().unwrap_or_else(PoisonError::into_inner);
        done.clone()
    }

    #[test]
    fn every_order_comes_that_is_not_ruled_out_and_no_other() {
        let orders = |marked| {
            let mut orders: Vec<_> = (1..2000).map(|seed| order(seed, marked)).collect();
            orders.sort();
            orders.dedup();
            orders
        };
        assert_eq!(orders(true), [vec![1, 2, 3, 4], vec![1, 2, 4, 3]]);
        assert_eq!(orders(false), [vec![1, 2, 3, 4], vec![1, 2, 4, 3], vec![1, 4, 2, 3], vec![4, 1, 2, 3]]);
    }

    #[test]
    fn after_a_failure_nothing_is_done_and_everybody_hears_of_it() {
        let streams = Streams::new(7);
        let (one, two) = (streams.open(), streams.open());
        let _ = streams.ask(one, || Err(GpuError::failed("do this", "a cause")));
        assert!(streams.finish(one).is_err());
        assert!(streams.ask(two, || panic!("nothing is done")).is_err());
        assert!(streams.finish(two).is_err());
    }
}
