//! A process that does the work, and one that watches over it: where memory runs out, the system ends a process
//! without a word, and only another can tell what it was at.

use std::{
    env,
    io::ErrorKind,
    os::unix::process::{CommandExt, ExitStatusExt, parent_id},
    path::Path,
    process::{Command, ExitCode, ExitStatus},
    sync::atomic::{AtomicI32, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use nix::{
    sys::{
        prctl::set_pdeathsig,
        signal::{Signal, kill},
    },
    unistd::Pid,
};

use super::progress;
use crate::benchmark::Watched;

/// Tells a process that it is watched, and by whom.
const BY: &str = "LONGCAST_WATCHED_BY";
/// Tells it how the one before it ended.
const ENDED: &str = "LONGCAST_ENDED";

/// The process at work; 0 where there is none.
static AT_WORK: AtomicI32 = AtomicI32::new(0);

/// What this process was told by the one that watches over it, if there is one.
///
/// # Errors
/// If that has gone meanwhile.
pub fn watched() -> anyhow::Result<Option<Watched>> {
    let Ok(by) = env::var(BY) else { return Ok(None) };
    // Nobody goes on alone, beside the next run perhaps.
    set_pdeathsig(Signal::SIGKILL).context("cannot ask to end with the process that watches")?;
    if by.split('-').next() != Some(&*parent_id().to_string()) {
        bail!("the process that watches over this one has ended");
    }
    Ok(Some(Watched { by, ended: env::var(ENDED).ok() }))
}

/// Runs this program again, with the same arguments, as often as the system ends it while it is at a task in the
/// results folder `dir`.
///
/// # Errors
/// If it cannot be run, or is ended before it is at a task.
pub fn watch(dir: &Path) -> anyhow::Result<ExitCode> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let by = format!("{}-{}", std::process::id(), now.as_nanos());
    // In a group of its own: Ctrl-C reaches it once, from here.
    progress::on_interrupts(|| {
        let at_work = AT_WORK.load(Ordering::SeqCst);
        if at_work != 0 {
            // It may just have ended.
            let _ = kill(Pid::from_raw(at_work), Signal::SIGTERM);
        }
    })?;
    let program = env::current_exe().context("cannot find this program")?;
    let mut ended: Option<String> = None;
    loop {
        let mut command = Command::new(&program);
        command.args(env::args_os().skip(1)).env(BY, &by).env_remove(ENDED).process_group(0);
        command.envs(ended.iter().map(|ended| (ENDED, ended)));
        let mut process = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
        AT_WORK.store(i32::try_from(process.id()).context("a number of a process")?, Ordering::SeqCst);
        let status = loop {
            match process.wait() {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                waited => break waited.context("cannot wait for the process at work")?,
            }
        };
        AT_WORK.store(0, Ordering::SeqCst);
        match status.code() {
            Some(code) => return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1))),
            None if progress::interrupted().is_break() => return Ok(ExitCode::from(130)),
            None if !Watched::was_at_work(dir, &by) => bail!("{} before any task", words(status)),
            None => {}
        }
        say!("longcast: {}; going on with the next task", words(status));
        ended = Some(words(status));
    }
}

fn words(status: ExitStatus) -> String {
    match status.signal().map(Signal::try_from) {
        Some(Ok(Signal::SIGABRT)) => "the process gave up (SIGABRT), as where memory cannot be had".into(),
        Some(Ok(Signal::SIGKILL)) => "the process was killed (SIGKILL), as where memory runs out".into(),
        Some(Ok(signal)) => format!("the process was ended by {signal}"),
        _ => format!("the process ended: {status}"),
    }
}
