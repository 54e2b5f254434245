//! `longcast serve`: the forecasts of one saved pipeline over HTTP.
//!
//! A request is read and answered on async threads, which a slow client never holds; rows are parsed, forecast and
//! written on threads of their own, as many as there are cores, with a queue before them that has an end.

mod answer;
mod body;
mod page;
mod pool;
mod refusal;
mod routes;
mod rows;
mod server;

use std::{io::ErrorKind, net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use bytesize::ByteSize;
use clap::{Args, value_parser};
use tokio::{net::TcpListener, runtime};

use self::routes::{Service, Token};
use super::Usage;
use crate::forecaster::{Pipeline, Registry};

/// A token that requests have to carry is taken from here.
const TOKEN: &str = "LONGCAST_TOKEN";

#[derive(Debug, Args)]
#[command(after_help = "With LONGCAST_TOKEN in the environment, every request but GET /health needs the header\n\
    `Authorization: Bearer <token>`.\n\n\
    Examples:\n  \
    longcast serve models/ridge\n  \
    longcast serve models/ridge --listen 127.0.0.1:9000 --max-body 1MB --timeout 5\n  \
    curl --data-binary @recent.csv -H 'Content-Type: text/csv' http://127.0.0.1:8080/forecast")]
pub struct ServeArgs {
    /// The folder of a fitted pipeline
    dir: PathBuf,
    /// Where to listen; port 0 is any that is free
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// A longer body is refused with 413
    #[arg(long, default_value = "8MB", value_name = "SIZE")]
    max_body: ByteSize,
    /// For a request to arrive, and for a client to take on the next part of its answer
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Requests that wait for a thread; one more is refused with 503
    #[arg(long, default_value_t = 64, value_name = "REQUESTS", value_parser = value_parser!(u32).range(..=65_536))]
    queue: u32,
    /// Forecasts at a time; by default one for each core
    #[arg(long, value_name = "THREADS", value_parser = value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// No line for each request
    #[arg(long)]
    quiet: bool,
}

pub fn run(args: &ServeArgs, models: &Registry) -> anyhow::Result<ExitCode> {
    let token = token()?;
    let pipeline = Pipeline::load(&args.dir, models)?;
    let shape = pipeline.shape();
    let variates = if shape.variates == 1 { "variate" } else { "variates" };
    let about = format!("{}, {} → {}, {} {variates}", pipeline.model(), shape.lookback, shape.horizon, shape.variates);
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.map_or_else(cores, |threads| threads as usize);
    let timeout = Duration::from_secs(args.timeout);
    let public = !args.listen.ip().is_loopback();
    if public && token.is_none() {
        say!(
            "longcast: warning: {} is not a loopback address and {TOKEN} is not set: whoever reaches it gets forecasts",
            args.listen
        );
    }
    let limits = body::Limits::new(args.max_body, timeout);
    let pool = pool::Pool::new(threads, args.queue as usize);
    let service = Service::new(pipeline, pool, limits, token, args.quiet)?;

    // Async threads only move bytes; forecasts have the others.
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(threads)
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let ended = runtime.block_on(async {
        let signals = server::signals().context("cannot listen for signals")?;
        let listener = TcpListener::bind(args.listen).await.map_err(|error| {
            let remedy = match error.kind() {
                ErrorKind::AddrInUse => ": end what listens there, or choose another port with --listen",
                _ => ": choose another address with --listen",
            };
            anyhow::anyhow!("cannot listen on {}: {error}{remedy}", args.listen)
        })?;
        say!("longcast: listening on http://{} ({about})", listener.local_addr()?);
        Ok::<_, anyhow::Error>(server::serve(listener, routes::router(Arc::new(service)), timeout, signals).await)
    })?;
    // A forecast that was not waited for is not waited for now.
    runtime.shutdown_background();
    Ok(match ended {
        server::Ended::AllAnswered => ExitCode::SUCCESS,
        server::Ended::AtOnce => ExitCode::from(130),
    })
}

fn token() -> anyhow::Result<Option<Token>> {
    match std::env::var_os(TOKEN).map(|token| token.into_string()) {
        None => Ok(None),
        Some(Ok(token)) if token.trim() == token && !token.is_empty() => Ok(Some(Token::new(&token))),
        Some(_) => {
            let message = format!("{TOKEN} is set but is no token: give it text without spaces around it, or unset it");
            Err(Usage(message).into())
        }
    }
}
