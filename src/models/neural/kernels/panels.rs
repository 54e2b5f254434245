//! Weights laid out for inference: the outputs in panels, each of which a product reads from end to end.
//!
//! A forecast of one window has few rows, and each weight takes part in few multiplications; how it lies in
//! memory then decides how long they take (reports/speed.md).

use candle_core::{Result, Tensor};
use ndarray::{ArrayView2, ArrayViewMut2, Axis};

use super::{
    product::{Threads, Write, copies_panels, matrix, matrix_mut, rows_times},
    tape::{self, Values},
};
use crate::models::neural::pass::Pass;

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

/// A map that was computed once and is not trained.
pub struct Fixed {
    /// `[outputs, inputs]`.
    weight: Tensor,
    /// `[rows, outputs]`: its rows are added to those of the result in turn.
    bias: Tensor,
    /// The weight, on the CPU.
    panels: Option<Panels>,
}

impl Fixed {
    /// # Errors
    /// If the tensors cannot be read.
    pub fn new(weight: Tensor, bias: Tensor) -> Result<Self> {
        let (weight, bias) = (weight.contiguous()?, bias.contiguous()?);
        let panels = || -> Result<Panels> { Ok(Panels::of(Values::of(&weight).slice()?, weight.dim(1)?)) };
        let panels = weight.device().is_cpu().then(panels).transpose()?;
        Ok(Self { weight, bias, panels })
    }

    /// `x [.., inputs]`, for inference.
    ///
    /// # Errors
    /// If the shape is another.
    pub fn of(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let Some(panels) = self.panels.as_ref().filter(|_| pass.fuses(x)) else {
            return x.broadcast_matmul(&self.weight.t()?)?.broadcast_add(&self.bias);
        };
        let x = x.contiguous()?;
        let (values, bias) = (Values::of(&x), Values::of(&self.bias));
        let out = through([panels], bias.slice()?, matrix(values.slice()?, panels.inputs), pass.threads());
        let mut shape = x.dims().to_vec();
        *shape.last_mut().expect("a tensor that is mapped has an axis") = self.weight.dim(0)?;
        tape::tensor(out, &shape.into())
    }
}

/// The rows of `biases` in turn, until there are `len` numbers.
pub fn in_turn(biases: &[f32], len: usize) -> Vec<f32> {
    let mut rows = Vec::with_capacity(len);
    while rows.len() < len {
        rows.extend_from_slice(&biases[..biases.len().min(len - rows.len())]);
    }
    rows
}

/// Rows of `x [rows, inputs]` through all of `maps`, side by side, with the rows of `biases` added in turn:
/// `[rows, outputs of all]`. A row depends on the same row of `x` alone, and no bit of it on `threads`.
pub fn through<'a>(
    maps: impl IntoIterator<Item = &'a Panels>,
    biases: &[f32],
    x: ArrayView2<'_, f32>,
    threads: Threads,
) -> Vec<f32> {
    let panels: Vec<_> = maps.into_iter().flat_map(Panels::each).collect();
    let width = panels.iter().map(ArrayView2::ncols).sum();
    let mut out = in_turn(biases, x.nrows() * width);
    let mut rest = matrix_mut(&mut out, width);
    let mut parts = Vec::with_capacity(panels.len());
    for panel in panels {
        let (columns, behind) = rest.split_at(Axis(1), panel.ncols());
        parts.push((panel, columns));
        rest = behind;
    }
    // Each thread reads its own panels, and no other's.
    let threads = threads.worth_it(x.len() * width);
    let rows = x.nrows().max(1);
    let at_once = if copies_panels() && (ROWS + 1..=2 * ROWS).contains(&rows) { rows.div_ceil(2) } else { rows };
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

    use candle_core::Device;

    use super::{super::product::tests::wave, *};

    #[test]
    fn a_fixed_map_is_the_same_in_panels_and_in_plain_operations() -> Result<()> {
        let tensor =
            |values: Array2<f32>| Tensor::from_iter(values.iter().copied(), &Device::Cpu)?.reshape(values.dim());
        let x = tensor(wave(6, 50, 0.7))?.reshape((2, 3, 50))?;
        for biases in [1, 3] {
            let map = Fixed::new(tensor(wave(40, 50, 0.3))?, tensor(wave(biases, 40, 0.1))?)?;
            let difference = (map.of(&x, &Pass::inference())? - map.of(&x, &Pass::inference().plain())?)?;
            let largest = difference.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
            assert!(difference.dims() == [2, 3, 40] && largest < 1e-5, "{biases} rows of biases: {largest}");
        }
        Ok(())
    }

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
