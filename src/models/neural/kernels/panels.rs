//! Weights laid out for inference: the outputs in panels, each of which a product reads from end to end.
//!
//! A forecast of one window has few rows, and each weight takes part in few multiplications; how it lies in
//! memory then decides how long they take (reports/speed.md).

use ndarray::{ArrayView2, ArrayViewMut2, Axis};

use super::product::{Threads, Write, matrix, matrix_mut, rows_times};

/// Outputs of a panel: two strips of `gemm`, which takes it as it lies. One strip would be fewer than it
/// likes, three would no longer stay in the nearest cache.
const WIDTH: usize = 32;

/// Rows that `gemm` multiplies by a panel as it lies; for more it makes a copy of the panel first, which
/// is worth it only for many more.
const ROWS: usize = 48;

/// A matrix `[outputs, inputs]` in panels of at most 32 outputs, each `[inputs, outputs]`.
pub struct Panels {
    inputs: usize,
    values: Vec<f32>,
}

impl Panels {
    /// Of the rows of a matrix, each one output.
    pub fn of(values: &[f32], inputs: usize) -> Self {
        let panels = values.chunks(inputs * WIDTH);
        let turned = panels.flat_map(|panel| (0..inputs).flat_map(|input| panel[input..].iter().step_by(inputs)));
        Self { inputs, values: turned.copied().collect() }
    }

    /// One panel after the other.
    fn each(&self) -> impl Iterator<Item = ArrayView2<'_, f32>> {
        self.values.chunks(self.inputs * WIDTH).map(|panel| matrix(panel, panel.len() / self.inputs))
    }
}

/// Rows of `x [rows, inputs]` through all of `maps`, side by side, with `biases` added: `[rows, outputs of
/// all]`. A row depends on the same row of `x` alone, and no bit of it on `threads`.
pub fn through<'a>(
    maps: impl IntoIterator<Item = &'a Panels>,
    biases: &[f32],
    x: ArrayView2<'_, f32>,
    threads: Threads,
) -> Vec<f32> {
    let mut out = biases.repeat(x.nrows());
    let mut rest = matrix_mut(&mut out, biases.len());
    let mut parts = Vec::new();
    for panel in maps.into_iter().flat_map(Panels::each) {
        let (columns, behind) = rest.split_at(Axis(1), panel.ncols());
        parts.push((panel, columns));
        rest = behind;
    }
    // Each thread reads its own panels, and no other's.
    let threads = threads.worth_it(x.len() * biases.len());
    let rows = x.nrows().max(1);
    let at_once = if (ROWS + 1..=2 * ROWS).contains(&rows) { rows.div_ceil(2) } else { rows };
    let multiply = |(panel, mut out): (ArrayView2<'_, f32>, ArrayViewMut2<'_, f32>)| {
        for (x, out) in x.axis_chunks_iter(Axis(0), at_once).zip(out.axis_chunks_iter_mut(Axis(0), at_once)) {
            rows_times(out, Write::Add, x, panel, Threads::One);
        }
    };
    threads.each(parts.into_iter(), || (), |(), part| multiply(part));
    out
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, s};

    use super::{super::product::tests::wave, *};

    #[test]
    fn rows_go_through_panels_alike_however_many_there_are() {
        for (inputs, outputs) in [(11, 1), (96, 96), (700, 33), (512, 70), (3, 31), (1, 40)] {
            let (x, weights) = (wave(130, inputs, 0.7), [wave(outputs, inputs, 0.3), wave(7, inputs, 0.1)]);
            let panels = weights.each_ref().map(|weight| Panels::of(weight.as_slice().unwrap(), inputs));
            let biases: Vec<f32> = (0..outputs + 7).map(|output| output as f32 / 8.0).collect();
            let rows_of = |rows: std::ops::Range<usize>, threads| {
                let out = through(&panels, &biases, x.slice(s![rows.clone(), ..]), threads);
                Array2::from_shape_vec((rows.len(), biases.len()), out).unwrap()
            };
            let all = rows_of(0..130, Threads::One);
            let exact = |weight: &Array2<f32>| x.mapv(f64::from).dot(&weight.mapv(f64::from).t());
            let exact = ndarray::concatenate![Axis(1), exact(&weights[0]), exact(&weights[1])];
            for ((row, column), value) in all.indexed_iter() {
                let exact = exact[[row, column]] + f64::from(biases[column]);
                assert!((f64::from(*value) - exact).abs() < 1e-4, "{inputs} {outputs} {row} {column}");
            }
            for rows in [0..1, 0..130, 3..9, 7..56, 64..130, 20..129] {
                for threads in [Threads::One, Threads::All] {
                    let part = rows_of(rows.clone(), threads);
                    assert_eq!(part, all.slice(s![rows.clone(), ..]), "{inputs} {outputs} {rows:?} {threads:?}");
                }
            }
        }
    }
}
