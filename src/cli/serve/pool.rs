//! The threads that forecast, and the queue before them.

use std::sync::Arc;

use tokio::{sync::Semaphore, task};

use super::refusal::Refusal;

/// Runs so many pieces of work at a time and lets so many wait, in the order they came.
pub struct Pool {
    places: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

impl Pool {
    pub fn new(threads: usize, queue: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(threads + queue)), turns: Arc::new(Semaphore::new(threads)) }
    }

    /// What `work` gives, once it has had its turn.
    ///
    /// # Errors
    /// If too many wait already, or `work` panics.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Refusal::busy("the queue is full"))?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.expect("nobody closes the pool");
        // The work holds its place to its end, even if the client goes away and nobody waits for it.
        let done = task::spawn_blocking(move || {
            let _held = (place, turn);
            work()
        });
        done.await.map_err(|_| Refusal::failed("the model panicked on these rows; the log says where"))
    }
}
