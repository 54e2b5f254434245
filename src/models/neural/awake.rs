//! Threads that stay awake for the parts of a short piece of work.
//!
//! Rayon lets a thread that waits for a part do other work meanwhile, and that may be to stay awake for somebody. It never is
//! for the work that the part is of: threads take the oldest first from one another, so all who stay awake for some work
//! have begun to before another thread has any part of it. So no work waits for itself, nor in a circle for
//! another that waits for it.

use std::{
    hint::spin_loop,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Does `work` on one of the threads that share work. Others, up to `threads` with it, ask for parts of it until it
/// is done: one that fell asleep in between would take longer to wake than its next part.
pub fn all_awake<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::scope(|_| {
        let done = Done::default();
        for _ in 1..threads.min(rayon::current_num_threads()) {
            let done = done.0.clone();
            rayon::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    if rayon::yield_now() != Some(rayon::Yield::Executed) {
                        spin_loop();
                    }
                }
            });
        }
        work()
    })
}

/// Says that the work is done when it ends, or panics.
#[derive(Default)]
struct Done(Arc<AtomicBool>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::{panic::catch_unwind, thread};

    use super::*;

    #[test]
    fn who_stays_awake_takes_parts_and_goes_when_the_work_ends() {
        let sum = || all_awake(4, || rayon::join(|| 1, || rayon::join(|| 2, || 3)));
        assert_eq!(sum(), (1, (2, 3)));
        assert!(catch_unwind(|| all_awake(4, || panic!("no work"))).is_err());
        // Each thread is there for other work again.
        assert_eq!(rayon::broadcast(|_| 1).len(), rayon::current_num_threads());
    }

    fn sum(from: u64, to: u64) -> u64 {
        if to - from < 4 {
            return (from..to).sum();
        }
        let middle = u64::midpoint(from, to);
        let (first, second) = rayon::join(|| sum(from, middle), || sum(middle, to));
        first + second
    }

    #[test]
    fn no_work_waits_for_itself() {
        for threads in [2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started");
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..200 {
                            let twice = || rayon::join(|| all_awake(5, || sum(0, 500)), || sum(0, 500));
                            assert_eq!(pool.install(|| all_awake(threads, twice)), (124_750, 124_750));
                        }
                    });
                }
            });
        }
    }
}
