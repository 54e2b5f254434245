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

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use axum::{http::StatusCode, response::IntoResponse};
    use tokio::{runtime::Builder, time};

    use super::*;

    fn with_pool(threads: usize, queue: usize, test: impl AsyncFnOnce(Arc<Pool>)) {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(Arc::new(Pool::new(threads, queue))));
    }

    fn status(refused: Result<(), Refusal>) -> StatusCode {
        refused.unwrap_err().into_response().status()
    }

    #[test]
    fn what_finds_no_place_is_refused_and_what_waits_has_its_turn() {
        with_pool(1, 1, async |pool| {
            let (go, wait) = mpsc::channel::<()>();
            let run = |work: Box<dyn FnOnce() + Send>| {
                let pool = Arc::clone(&pool);
                tokio::spawn(async move { pool.run(work).await })
            };
            let first = run(Box::new(move || wait.recv().unwrap()));
            let second = run(Box::new(|| {}));
            while pool.places.available_permits() > 0 {
                task::yield_now().await;
            }
            assert_eq!(status(pool.run(|| {}).await), StatusCode::SERVICE_UNAVAILABLE);
            assert!(!second.is_finished());
            go.send(()).unwrap();
            assert!(first.await.unwrap().is_ok() && second.await.unwrap().is_ok());
            assert!(pool.run(|| {}).await.is_ok());
        });
    }

    #[test]
    fn who_goes_away_leaves_the_queue_but_work_keeps_its_thread() {
        with_pool(1, 1, async |pool| {
            let (go, wait) = mpsc::channel::<()>();
            let gone = time::timeout(Duration::from_millis(20), pool.run(move || wait.recv().unwrap())).await;
            assert!(gone.is_err());
            let waited = time::timeout(Duration::from_millis(20), pool.run(|| {})).await;
            assert!(waited.is_err(), "the thread is still taken");
            assert_eq!(pool.places.available_permits(), 1);
            go.send(()).unwrap();
            assert!(pool.run(|| {}).await.is_ok());
        });
    }

    #[test]
    fn a_panic_is_an_answer_and_the_pool_goes_on() {
        with_pool(1, 0, async |pool| {
            assert_eq!(status(pool.run(|| panic!("as meant")).await), StatusCode::INTERNAL_SERVER_ERROR);
            assert!(pool.run(|| {}).await.is_ok());
        });
    }
}
