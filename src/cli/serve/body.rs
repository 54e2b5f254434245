//! Reads the body of a request: so long, so large, and not too many at once.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, http::StatusCode};
use bytesize::ByteSize;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time,
};

use super::refusal::Refusal;

/// As many of the longest bodies may be in memory at a time.
const AT_A_TIME: usize = 32;

/// What a body may take.
pub struct Limits {
    most: ByteSize,
    timeout: Duration,
    /// A permit for each byte.
    memory: Arc<Semaphore>,
}

/// A whole body; while it lives, it counts.
pub struct Received {
    pub bytes: Vec<u8>,
    _memory: Option<OwnedSemaphorePermit>,
}

impl Limits {
    pub fn new(most: ByteSize, timeout: Duration) -> Self {
        let bytes = usize::try_from(most.as_u64()).unwrap_or(usize::MAX).saturating_mul(AT_A_TIME);
        Self { most, timeout, memory: Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))) }
    }

    /// The whole of `body`.
    ///
    /// # Errors
    /// If it is too long, too slow, or broken off, or if there are too many at once.
    pub async fn read(&self, body: Body) -> Result<Received, Refusal> {
        // What says of itself that it is too long is not begun with.
        if body.size_hint().lower() > self.most.as_u64() {
            return Err(self.too_long());
        }
        time::timeout(self.timeout, self.collect(body)).await.unwrap_or_else(|_| {
            let message = format!("the body did not arrive within {} seconds", self.timeout.as_secs());
            Err(Refusal::cut_off(StatusCode::REQUEST_TIMEOUT, message))
        })
    }

    async fn collect(&self, mut body: Body) -> Result<Received, Refusal> {
        let mut bytes = Vec::new();
        let mut memory: Option<OwnedSemaphorePermit> = None;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                Refusal::cut_off(StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}"))
            })?;
            let Ok(data) = frame.into_data() else { continue };
            if (bytes.len() + data.len()) as u64 > self.most.as_u64() {
                return Err(self.too_long());
            }
            let size = u32::try_from(data.len()).map_err(|_| self.too_long())?;
            let more = Arc::clone(&self.memory).try_acquire_many_owned(size);
            let more = more.map_err(|_| Refusal::busy("too much is being sent at once"))?;
            match &mut memory {
                Some(memory) => memory.merge(more),
                None => memory = Some(more),
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Received { bytes, _memory: memory })
    }

    fn too_long(&self) -> Refusal {
        let message = format!("the body is longer than {}: send fewer rows", self.most.display().si());
        Refusal::cut_off(StatusCode::PAYLOAD_TOO_LARGE, message)
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn bodies_that_are_still_needed_count_and_those_let_go_of_do_not() {
        let limits = Limits::new(ByteSize::b(10), Duration::from_secs(60));
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let read = |length: usize| {
            let read = runtime.block_on(limits.read(Body::from(vec![b'a'; length])));
            read.map_err(|refused| refused.into_response().status())
        };
        let mut held: Vec<Received> = (0..AT_A_TIME).map(|_| read(10).unwrap()).collect();
        assert_eq!(read(1).err(), Some(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(held.pop().unwrap().bytes, [b'a'; 10]);
        assert!(read(10).is_ok());
        assert_eq!(read(11).err(), Some(StatusCode::PAYLOAD_TOO_LARGE));
    }
}
