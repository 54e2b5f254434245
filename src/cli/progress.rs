//! Progress on stderr, and Ctrl-C.

use std::{
    ops::ControlFlow,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use crate::{
    benchmark::{BenchObserver, Event, Record, Task},
    forecaster::{EpochReport, FitProgress},
};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From here on the first Ctrl-C (or SIGTERM) asks for an end, and the second one forces it.
pub fn listen_for_interrupts() -> anyhow::Result<()> {
    // One wish may come twice, where both a process and the one that watches over it are told.
    const ONE_WISH: Duration = Duration::from_millis(200);
    let first: OnceLock<Instant> = OnceLock::new();
    on_interrupts(move || match first.get() {
        None => {
            let _ = first.set(Instant::now());
            say!("\nlongcast: ending; what is recorded stays (once more: end now)");
        }
        Some(first) if first.elapsed() > ONE_WISH => std::process::exit(130),
        Some(_) => {}
    })
}

/// From here on Ctrl-C (or SIGTERM) is noted, and `handle` is called.
pub fn on_interrupts(handle: impl Fn() + Send + 'static) -> anyhow::Result<()> {
    ctrlc::set_handler(move || {
        INTERRUPTED.store(true, Ordering::SeqCst);
        handle();
    })?;
    Ok(())
}

/// Whether to go on, for whoever asks between two pieces of work.
pub fn interrupted() -> ControlFlow<()> {
    match INTERRUPTED.load(Ordering::SeqCst) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    }
}

/// A bar for all tasks, with the one in flight beside it; hidden where stderr is no terminal.
pub struct Progress {
    bar: ProgressBar,
    /// When the task in flight started, and when it was last shown.
    started: Instant,
    shown: Instant,
    /// Its last epoch.
    /// Units of the fit that were done before its first one here.
    first: Option<usize>,
    epoch: Option<EpochReport>,
}

/// Between two lines of a fit: steps can be much faster than anyone reads.
const PAUSE: Duration = Duration::from_millis(100);

impl Progress {
    pub fn new(tasks: usize) -> Self {
        let bar = ProgressBar::new(tasks as u64);
        let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {elapsed} · {eta} left · {wide_msg}");
        bar.set_style(style.expect("the template is well-formed").progress_chars("━━┄"));
        bar.enable_steady_tick(Duration::from_millis(200));
        let now = Instant::now();
        Self { bar, started: now, shown: now, first: None, epoch: None }
    }

    fn fitting(&mut self, task: &Task, fit: &FitProgress) {
        self.first.get_or_insert(fit.done.saturating_sub(1));
        if self.shown.elapsed() < PAUSE && fit.done < fit.total {
            return;
        }
        self.shown = Instant::now();
        let mut text = format!("{task} · {} {}/{}", fit.unit, fit.done, fit.total);
        if let Some(loss) = fit.loss {
            // What an earlier run did took none of this time.
            let first = self.first.unwrap_or(0).min(fit.done);
            let rate = (fit.done - first) as f64 / self.started.elapsed().as_secs_f64();
            let left = Duration::from_secs_f64((fit.total - fit.done) as f64 / rate);
            text += &format!(" · loss {loss:.4} · {rate:.1} {}s/s · {} left", fit.unit, HumanDuration(left));
        }
        if let Some(EpochReport { epoch, valid_loss, .. }) = self.epoch {
            text += &format!(" · epoch {epoch}: valid {valid_loss:.4}");
        }
        self.bar.set_message(text);
    }

    /// A line that stays, above the bar.
    pub fn line(&self, text: &str) {
        self.bar.suspend(|| say!("{text}"));
    }

    /// A result, on stdout, before all are there.
    pub fn result(&self, text: &str) -> std::io::Result<()> {
        self.bar.suspend(|| super::print(text))
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// What is being done, on a line that goes when it is done; hidden where stderr is no terminal.
pub struct Work {
    bar: ProgressBar,
    about: String,
    shown: Instant,
}

impl Work {
    pub fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { bar, about: String::new(), shown: Instant::now() }
    }

    /// The whole that all else is a part of.
    pub fn about(&mut self, text: &str) {
        self.about = format!("{text} · ");
    }

    pub fn say(&self, text: &str) {
        self.bar.set_message(format!("{}{text}", self.about));
    }

    /// How far the fit of `model` has come; `Break` where it shall end.
    pub fn fitting(&mut self, model: &str, progress: Option<FitProgress>) -> ControlFlow<()> {
        match progress {
            None => self.say(model),
            Some(fit) if self.shown.elapsed() >= PAUSE => {
                self.shown = Instant::now();
                self.say(&format!("{model} · {} {}/{}", fit.unit, fit.done, fit.total));
            }
            Some(_) => {}
        }
        interrupted()
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl BenchObserver for Progress {
    fn event(&mut self, position: usize, task: &Task, event: Event<'_>) -> ControlFlow<()> {
        match event {
            Event::Kept => {}
            Event::Started => {
                (self.epoch, self.first) = (None, None);
                self.started = Instant::now();
                self.bar.set_message(task.to_string());
            }
            Event::Fitting(fit) => self.fitting(task, &fit),
            Event::Epoch(report) => self.epoch = Some(*report),
            Event::Scoring { done, total } => self.bar.set_message(format!("{task} · window {done}/{total}")),
            Event::Recorded(record) => self.line(&summary(record)),
            Event::Failed(error) => self.line(&format!("longcast: {task}: {error}")),
            Event::Warning(text) => self.line(&format!("longcast: warning: {text}")),
        }
        if matches!(event, Event::Kept | Event::Recorded(_) | Event::Failed(_)) {
            self.bar.set_position(position as u64 + 1);
        }
        interrupted()
    }
}

fn summary(record: &Record) -> String {
    let (scores, seconds) = (&record.scores, record.seconds);
    format!(
        "{:<44} MSE {:.4}  MAE {:.4}  {} windows  fit {:.2} s  score {:.2} s",
        record.task.to_string(),
        scores.mse,
        scores.mae,
        record.windows_scored,
        seconds.fit,
        seconds.evaluate
    )
}
