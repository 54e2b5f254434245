//! Connections: taken on, given so much time, and brought to an end.

use std::{
    convert::Infallible,
    io::Write,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, server::conn::http1, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    select,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinSet,
    time,
};
use tokio_io_timeout::TimeoutStream;

use super::routes::Peer;

/// Open at a time; others wait until one ends. Below the 1024 files that a process may usually have open.
const CONNECTIONS: usize = 768;
/// What a connection may hold of a head or a body that has not been read yet.
const BUFFER: usize = 64 * 1024;
/// In the end, a connection that has not asked for anything has this long to do so.
const LAST_CALL: Duration = Duration::from_secs(1);
/// After a connection could not be taken on, as when no file may be opened any more.
const PAUSE: Duration = Duration::from_millis(50);

/// How serving ended.
pub enum Ended {
    /// Every request that was taken on was answered.
    AllAnswered,
    /// By a second signal.
    AtOnce,
}

/// Each Ctrl-C and SIGTERM from here on.
#[cfg(unix)]
pub fn signals() -> std::io::Result<mpsc::Receiver<()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (send, signals) = mpsc::channel(2);
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        loop {
            select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if send.send(()).await.is_err() {
                return;
            }
        }
    });
    Ok(signals)
}

/// Each Ctrl-C from here on.
#[cfg(not(unix))]
pub fn signals() -> std::io::Result<mpsc::Receiver<()>> {
    let (send, signals) = mpsc::channel(2);
    tokio::spawn(async move { while tokio::signal::ctrl_c().await.is_ok() && send.send(()).await.is_ok() {} });
    Ok(signals)
}

/// Serves until a signal comes; then takes on nothing new and answers what it has.
pub async fn serve(listener: TcpListener, router: Router, timeout: Duration, mut signals: mpsc::Receiver<()>) -> Ended {
    let service = TowerToHyperService::new(router);
    let (end, ending) = watch::channel(false);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut open = |accepted: std::io::Result<(TcpStream, SocketAddr)>, place: OwnedSemaphorePermit| match accepted {
        Ok((stream, peer)) => {
            let connection = connection(stream, peer, service.clone(), timeout, ending.clone());
            connections.spawn(async move {
                connection.await;
                drop(place);
            });
            // Those that have ended are let go of.
            while connections.try_join_next().is_some() {}
            true
        }
        Err(_) => false,
    };
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.expect("nobody closes the places");
            (listener.accept().await, place)
        };
        select! {
            (accepted, place) = next => if !open(accepted, place) {
                time::sleep(PAUSE).await;
            },
            _ = signals.recv() => break,
        }
    }
    // Nobody to read it is no reason to end in another way.
    let _ = writeln!(std::io::stderr(), "longcast: ending; requests that are here are answered (once more: end now)");
    // To their clients, connections that the system has taken on already are open.
    while let Ok(accepted) = time::timeout(Duration::ZERO, listener.accept()).await
        && let Ok(place) = Arc::clone(&places).try_acquire_owned()
        && open(accepted, place)
    {}
    drop(listener);
    end.send_replace(true);
    select! {
        () = async { while connections.join_next().await.is_some() {} } => Ended::AllAnswered,
        _ = signals.recv() => Ended::AtOnce,
    }
}

/// Answers the requests of one client, one after the other.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    service: TowerToHyperService<Router>,
    timeout: Duration,
    mut ending: watch::Receiver<bool>,
) {
    // Answers go out whole; there is nothing to wait for. Where it cannot be set, they are a little later.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(timeout));
    let asked = Arc::new(AtomicBool::new(false));
    let answer = hyper::service::service_fn({
        let asked = Arc::clone(&asked);
        move |request: Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer));
            let answer = service.call(request);
            async move { answer.await.map_err(|never: Infallible| never) }
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(timeout).max_buf_size(BUFFER);
    let mut served = pin!(http.serve_connection(TokioIo::new(Box::pin(stream)), answer));
    // What goes wrong with a connection is the client's affair: it went away, or sent no HTTP, or too slowly.
    select! {
        _ = served.as_mut() => return,
        _ = ending.wait_for(|ending| *ending) => {}
    }
    served.as_mut().graceful_shutdown();
    let ended = time::timeout(LAST_CALL, served.as_mut()).await.is_ok();
    if !ended && asked.load(Ordering::Relaxed) {
        let _ = served.await;
    }
}
