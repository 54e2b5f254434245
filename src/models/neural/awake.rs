//! Threads that stay awake for the parts of a short piece of work.

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
    use std::panic::catch_unwind;

    use super::*;

    #[test]
    fn who_stays_awake_takes_parts_and_goes_when_the_work_ends() {
        let sum = || all_awake(4, || rayon::join(|| 1, || rayon::join(|| 2, || 3)));
        assert_eq!(sum(), (1, (2, 3)));
        assert!(catch_unwind(|| all_awake(4, || panic!("no work"))).is_err());
        // Each thread is there for other work again.
        assert_eq!(rayon::broadcast(|_| 1).len(), rayon::current_num_threads());
    }
}
