//! Progress on stderr, and Ctrl-C.

use std::{
    ops::ControlFlow,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::benchmark::{BenchObserver, Event, Record, Task};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From here on the first Ctrl-C (or SIGTERM) asks for an end, and the second one forces it.
pub fn listen_for_interrupts() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        eprintln!("\nlongcast: ending; what is recorded stays (once more: end now)");
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
}

impl Progress {
    pub fn new(tasks: usize) -> Self {
        let bar = ProgressBar::new(tasks as u64);
        let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {elapsed} · {eta} left · {wide_msg}");
        bar.set_style(style.expect("the template is well-formed").progress_chars("━━┄"));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar }
    }

    /// A line that stays, above the bar.
    pub fn line(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl BenchObserver for Progress {
    fn event(&mut self, position: usize, task: &Task, event: Event<'_>) -> ControlFlow<()> {
        match event {
            Event::Kept => {}
            Event::Started => self.bar.set_message(task.to_string()),
            Event::Fitting(fit) => self.bar.set_message(format!("{task} · {} {}/{}", fit.unit, fit.done, fit.total)),
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
