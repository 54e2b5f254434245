//! Linear maps, one or several of the same input, with their bias; their gradients go to a sink.

use candle_core::{CpuStorage, CustomOp2, D, Device, Layout, Result, Shape, Tensor};
use multiversion::multiversion;
use ndarray::{ArrayView2, Axis, s};

use super::{
    product::{Threads, Write, matrix, matrix_mut, product_on, rows_times},
    tape::{self, Values},
};
use crate::models::neural::{
    pass::{Pass, Sink},
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
    if pass.is_training() { x.apply_op2(&weight, op) } else { x.apply_op2_no_bwd(&weight, &op) }
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

/// Columns whose gradients one of several threads adds up at a time.
const COLUMNS: usize = 128;

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
        let mut biases = Vec::new();
        for map in &self.maps {
            match &map.bias {
                Some(bias) => biases.extend_from_slice(Values::of(bias.tensor()).slice()?),
                None => biases.resize(biases.len() + map.weight.dims()[0], 0.0),
            }
        }
        Ok(biases)
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
        let mut out = vec![0.0; x.nrows() * width];
        let weights: Vec<_> =
            self.maps.iter().map(|map| (Values::of(map.weight.tensor()), map.weight.turned())).collect();
        let mut maps = Vec::with_capacity(weights.len());
        for ((weight, turned), columns) in weights.iter().zip(columns) {
            let by_input = match &**turned {
                Some(turned) => matrix(turned, columns.len()),
                None => matrix(weight.slice()?, depth).reversed_axes(),
            };
            maps.push((by_input, columns));
        }
        let rows = self.threads.rows(x.nrows(), depth * width);
        let blocks = out.chunks_mut(rows * width).zip(x.axis_chunks_iter(Axis(0), rows));
        self.threads.each(
            blocks,
            || (),
            |(), (out, x)| {
                // Each row starts as the biases.
                out.chunks_exact_mut(width).for_each(|row| row.copy_from_slice(&biases));
                for (by_input, columns) in &maps {
                    let out = matrix_mut(out, width).slice_move(s![.., columns.clone()]);
                    rows_times(out, Write::Add, x, *by_input, Threads::One);
                }
            },
        );
        shape.push(width);
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
            let part = gradient.slice(s![.., columns.clone()]);
            if map.weight.is_trained() {
                let (values, write) = into.of(&map.weight);
                product_on(self.threads, matrix_mut(values, depth), write, part.t(), input);
            }
            if let Some(bias) = map.bias.as_ref().filter(|bias| bias.is_trained()) {
                let (values, write) = into.of(bias);
                if write == Write::Set {
                    values.fill(0.0);
                }
                let blocks = values.chunks_mut(COLUMNS).zip(part.axis_chunks_iter(Axis(1), COLUMNS));
                self.threads.each(blocks, || (), |(), (values, part)| add_rows(values, part));
            }
        }
        if !x.track_op() {
            return Ok((None, None));
        }
        let mut back = vec![0.0; input.len()];
        let mut write = Write::Set;
        for (map, columns) in self.maps.iter().zip(columns) {
            let weight = Values::of(map.weight.tensor());
            let part = gradient.slice(s![.., columns]);
            product_on(self.threads, matrix_mut(&mut back, depth), write, part, matrix(weight.slice()?, depth));
            write = Write::Add;
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
