//! Linear maps, one or several of the same input, with their bias; their gradients go to a sink.

use std::sync::RwLockReadGuard;

use candle_core::{CpuStorage, CustomOp2, D, Device, Layout, Result, Shape, Tensor};
use multiversion::multiversion;
use ndarray::{ArrayView2, Axis, s};

use super::{
    panels::{Panels, in_turn, through},
    product::{Threads, Write, matrix, matrix_mut, product_of, product_on, rows_times},
    tape::{self, Values},
};
use crate::models::neural::{
    pass::{Gradients, Pass, Sink},
    weights::Weight,
};

/// The weights of one map: `[out, in]` (a trailing 1, as of a convolution of width 1, is the same),
/// and `[out]`.
#[derive(Clone)]
pub struct Map {
    pub weight: Weight,
    pub bias: Option<Weight>,
}

impl Map {
    /// A map that is computed, not trained.
    ///
    /// # Errors
    /// If the tensors cannot be made.
    pub fn fixed(dims: &[usize], weight: Vec<f32>, bias: Vec<f32>, device: &Device) -> crate::Result<Self> {
        let outputs = bias.len();
        Ok(Self { weight: Weight::fixed(weight, dims, device)?, bias: Some(Weight::fixed(bias, &[outputs], device)?) })
    }

    /// The values of weight and bias; those of a bias that is not there are zero.
    ///
    /// # Errors
    /// If they cannot be read from their device.
    pub fn values(&self) -> crate::Result<(Vec<f32>, Vec<f32>)> {
        let bias = self.bias.as_ref().map_or_else(|| Ok(vec![0.0; self.weight.dims()[0]]), Weight::values)?;
        Ok((self.weight.values()?, bias))
    }
}

/// `x [.., in]` through each of `maps`, side by side: `[.., out of all maps]`.
pub fn linear(x: &Tensor, maps: &[Map], pass: &Pass) -> Result<Tensor> {
    if !pass.fuses(x) {
        return plain(x, maps, pass);
    }
    let x = x.contiguous()?;
    let op = Linear { maps: maps.to_vec(), sink: pass.sink(), threads: pass.threads() };
    // A weight that is trained puts the operation on the tape where its input is data; op reads all
    // weights itself.
    let mut weights = maps.iter().flat_map(|map| std::iter::once(&map.weight).chain(&map.bias));
    let weight = pass.tensor(weights.find(|weight| weight.is_trained()).unwrap_or(&maps[0].weight));
    pass.apply2(&x, &weight, op)
}

/// The same in candle's own operations.
pub fn plain(x: &Tensor, maps: &[Map], pass: &Pass) -> Result<Tensor> {
    let (rows, width) = (x.elem_count() / x.dim(D::Minus1)?, x.dim(D::Minus1)?);
    let flat = x.reshape((rows, width))?;
    let parts = maps.iter().map(|map| {
        let weight = pass.tensor(&map.weight);
        let weight = weight.reshape((weight.dim(0)?, width))?;
        let product = flat.matmul(&weight.t()?)?;
        match &map.bias {
            Some(bias) => product.broadcast_add(&pass.tensor(bias)),
            None => Ok(product),
        }
    });
    let joined = Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 1)?;
    let mut shape = x.dims().to_vec();
    *shape.last_mut().expect("a tensor that is mapped has an axis") = joined.dim(1)?;
    joined.reshape(shape)
}

/// A map whose values are being read.
pub(super) struct Reading<'a> {
    map: &'a Map,
    weight: Values<'a>,
    panels: RwLockReadGuard<'a, Option<Panels>>,
}

impl<'a> Reading<'a> {
    pub fn of(map: &'a Map) -> Self {
        Self { map, weight: Values::of(map.weight.tensor()), panels: map.weight.panels() }
    }

    /// The weight as it was laid out for inference.
    pub fn panels(&self) -> Option<&Panels> {
        self.panels.as_ref()
    }

    /// The weight as `[outputs, inputs]`.
    pub fn by_output(&self) -> Result<ArrayView2<'_, f32>> {
        let weight = &self.map.weight;
        Ok(matrix(self.weight.slice()?, weight.len() / weight.dims()[0]))
    }
}

/// Rows that each start as `biases`; where several threads share them they are still to be started, by
/// whoever works on them.
pub(super) fn rows_of(biases: &[f32], rows: usize, threads: Threads) -> Vec<f32> {
    match threads {
        // Nothing has to be cleared first.
        Threads::One => in_turn(biases, rows * biases.len()),
        Threads::All => vec![0.0; rows * biases.len()],
    }
}

/// Starts the rows of [`rows_of`] where they have not been.
pub(super) fn start_rows(out: &mut [f32], biases: &[f32], threads: Threads) {
    if threads == Threads::All {
        out.chunks_exact_mut(biases.len()).for_each(|row| row.copy_from_slice(biases));
    }
}

impl Map {
    /// The bias; zeros where there is none.
    pub(super) fn biases(&self) -> Result<Vec<f32>> {
        match &self.bias {
            Some(bias) => Values::of(bias.tensor()).slice().map(<[f32]>::to_vec),
            None => Ok(vec![0.0; self.weight.dims()[0]]),
        }
    }

    /// Adds the gradients of weight and bias, where they are trained, for the `gradient` of what `input`
    /// was mapped to.
    pub(super) fn add_gradients(
        &self,
        gradient: ArrayView2<'_, f32>,
        input: ArrayView2<'_, f32>,
        threads: Threads,
        into: &mut Gradients,
    ) {
        /// Columns that one of several threads adds up at a time.
        const COLUMNS: usize = 128;
        if self.weight.is_trained() {
            let (values, write) = into.of(&self.weight);
            product_on(threads, matrix_mut(values, input.ncols()), write, gradient.t(), input);
        }
        if let Some(bias) = self.bias.as_ref().filter(|bias| bias.is_trained()) {
            let (values, write) = into.of(bias);
            if write == Write::Set {
                values.fill(0.0);
            }
            let blocks = values.chunks_mut(COLUMNS).zip(gradient.axis_chunks_iter(Axis(1), COLUMNS));
            threads.each(blocks, || (), |(), (values, part)| add_rows(values, part));
        }
    }
}

struct Linear {
    maps: Vec<Map>,
    sink: Option<Sink>,
    threads: Threads,
}

impl Linear {
    /// Where the results of each map lie among the columns of the output.
    fn columns(&self) -> Vec<std::ops::Range<usize>> {
        let mut end = 0;
        let place = |map: &Map| {
            let start = end;
            end += map.weight.dims()[0];
            start..end
        };
        self.maps.iter().map(place).collect()
    }

    /// The biases of all maps, side by side; zeros where there is none.
    fn biases(&self) -> Result<Vec<f32>> {
        self.maps.iter().map(Map::biases).collect::<Result<Vec<_>>>().map(|biases| biases.concat())
    }
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let mut shape = layout.shape().dims().to_vec();
        let depth = shape.pop().expect("a tensor that is mapped has an axis");
        let x = matrix(tape::slice(storage, layout)?, depth);
        let columns = self.columns();
        let width = columns.last().map_or(0, |last| last.end);
        let biases = self.biases()?;
        let readings: Vec<Reading<'_>> = self.maps.iter().map(Reading::of).collect();
        shape.push(width);
        if let Some(panels) = readings.iter().map(Reading::panels).collect::<Option<Vec<_>>>() {
            return tape::result(through(panels, &biases, x, self.threads), shape);
        }
        let maps =
            readings.iter().zip(columns).map(|(reading, columns)| Ok((reading.by_output()?.reversed_axes(), columns)));
        let maps: Vec<_> = maps.collect::<Result<_>>()?;
        let mut out = rows_of(&biases, x.nrows(), self.threads);
        let rows = self.threads.rows(x.nrows(), depth * width);
        let blocks = out.chunks_mut(rows * width).zip(x.axis_chunks_iter(Axis(0), rows));
        self.threads.each(
            blocks,
            || (),
            |(), (out, x)| {
                start_rows(out, &biases, self.threads);
                for (weight, columns) in &maps {
                    let out = matrix_mut(out, width).slice_move(s![.., columns.clone()]);
                    rows_times(out, Write::Add, x, *weight, Threads::One);
                }
            },
        );
        tape::result(out, shape)
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let (x_values, gradient) = (Values::of(x), Values::of(&gradient));
        let depth = x.dim(D::Minus1)?;
        let input = matrix(x_values.slice()?, depth);
        let columns = self.columns();
        let gradient = matrix(gradient.slice()?, columns.last().map_or(0, |last| last.end));
        let sink = self.sink.as_ref().expect("an operation on the tape has a sink");
        let mut into = sink.lock();
        for (map, columns) in self.maps.iter().zip(&columns) {
            map.add_gradients(gradient.slice(s![.., columns.clone()]), input, self.threads, &mut into);
        }
        if !x.track_op() {
            return Ok((None, None));
        }
        let mut back: Vec<f32> = Vec::new();
        for (map, columns) in self.maps.iter().zip(columns) {
            let weight = Values::of(map.weight.tensor());
            let (part, weight) = (gradient.slice(s![.., columns]), matrix(weight.slice()?, depth));
            match back.is_empty() {
                true => back = product_of(self.threads, part, weight),
                false => product_on(self.threads, matrix_mut(&mut back, depth), Write::Add, part, weight),
            }
        }
        Ok((Some(tape::tensor(back, x.shape())?), None))
    }
}

/// Adds all rows to `sums`.
#[multiversion(targets("x86_64+avx2+fma"))]
fn add_rows(sums: &mut [f32], rows: ArrayView2<'_, f32>) {
    for row in rows.axis_iter(Axis(0)) {
        let row = row.to_slice().expect("columns lie side by side");
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
}
