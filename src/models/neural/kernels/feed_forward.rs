//! Two linear maps with an activation and dropout between them: the larger half of a Transformer's layer.
//!
//! What lies between is four times as wide as what goes in, so only what the activation is applied to is
//! kept for the way back; the activation itself is computed again there.

use std::{iter::once, sync::Mutex};

use candle_core::{CpuStorage, CustomOp2, D, Layout, Result, Shape, Tensor};
use ndarray::Axis;

use super::{
    activation::{self, Activation},
    dropout::Dropout,
    linear::{self, Map, Reading, rows_of, start_rows},
    panels::through,
    product::{Threads, Write, matrix, matrix_mut, rows_on, rows_times},
    tape::{self, Values},
};
use crate::models::neural::{
    pass::{Pass, Sink},
    weights::Weight,
};

/// The two maps, and what stands between them.
#[derive(Clone)]
pub struct TwoMaps {
    pub inner: Map,
    pub outer: Map,
    pub activation: Activation,
}

/// outer(dropout(activation(inner(`x [.., in]`)))): `[.., out]`. The elements that `dropout` drops of are
/// those of the inner map, row by row.
///
/// # Errors
/// If the shape is another.
pub fn feed_forward(x: &Tensor, maps: &TwoMaps, dropout: Option<Dropout>, pass: &Pass) -> Result<Tensor> {
    if !pass.fuses(x) {
        return plain(x, maps, dropout, pass);
    }
    let x = x.contiguous()?;
    let op =
        FeedForward { maps: maps.clone(), dropout, sink: pass.sink(), threads: pass.threads(), kept: Mutex::default() };
    // One of the weights puts the operation on the tape where its input is data.
    let trained = maps.weights().find(|weight| weight.is_trained()).unwrap_or(&maps.inner.weight);
    let weight = pass.tensor(trained);
    pass.apply2(&x, &weight, op)
}

/// The same in candle's own operations.
///
/// # Errors
/// If the shape is another.
pub fn plain(x: &Tensor, maps: &TwoMaps, dropout: Option<Dropout>, pass: &Pass) -> Result<Tensor> {
    let inner = linear::plain(x, std::slice::from_ref(&maps.inner), pass)?;
    let inner = activation::plain(&inner, maps.activation, dropout)?;
    linear::plain(&inner, std::slice::from_ref(&maps.outer), pass)
}

impl TwoMaps {
    fn weights(&self) -> impl Iterator<Item = &Weight> {
        [&self.inner, &self.outer].into_iter().flat_map(|map| once(&map.weight).chain(&map.bias))
    }
}

struct FeedForward {
    maps: TwoMaps,
    dropout: Option<Dropout>,
    sink: Option<Sink>,
    threads: Threads,
    /// What the activation was applied to, `[rows, between]`.
    kept: Mutex<Vec<f32>>,
}

impl FeedForward {
    /// The activation, and dropout, of all of `before`, of which threads take `block` numbers at a time.
    fn activated(&self, before: &[f32], block: usize) -> Vec<f32> {
        let mut after = vec![0.0; before.len()];
        self.threads.each(
            before.chunks(block).zip(after.chunks_mut(block)).enumerate(),
            || (),
            |(), (index, (before, after))| {
                let dropout = self.dropout.map(|dropout| dropout.after(index * block));
                activation::forward(self.maps.activation, dropout, before, after);
            },
        );
        after
    }
}

impl CustomOp2 for FeedForward {
    fn name(&self) -> &'static str {
        "feed-forward"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let TwoMaps { inner, outer, activation } = &self.maps;
        let mut shape = layout.shape().dims().to_vec();
        let depth = shape.pop().expect("a tensor that is mapped has an axis");
        let x = matrix(tape::slice(storage, layout)?, depth);
        let biases = [inner.biases()?, outer.biases()?];
        let readings = [Reading::of(inner), Reading::of(outer)];
        let [between, width] = [biases[0].len(), biases[1].len()];
        let rows = self.threads.rows(x.nrows(), between * (depth + width));
        shape.push(width);
        if let (None, [Some(inner), Some(outer)]) = (&self.sink, readings.each_ref().map(Reading::panels)) {
            let before = through([inner], &biases[0], x, self.threads);
            let after = self.activated(&before, rows * between);
            return tape::result(through([outer], &biases[1], matrix(&after, between), self.threads), shape);
        }
        let weights = [readings[0].by_output()?.reversed_axes(), readings[1].by_output()?.reversed_axes()];
        let mut before = rows_of(&biases[0], x.nrows(), self.threads);
        let mut out = rows_of(&biases[1], x.nrows(), self.threads);
        let blocks = before.chunks_mut(rows * between).zip(out.chunks_mut(rows * width));
        self.threads.each(
            blocks.zip(x.axis_chunks_iter(Axis(0), rows)).enumerate(),
            Vec::new,
            |after, (block, ((before, out), x))| {
                start_rows(before, &biases[0], self.threads);
                rows_times(matrix_mut(before, between), Write::Add, x, weights[0], Threads::One);
                after.resize(before.len(), 0.0);
                let dropout = self.dropout.map(|dropout| dropout.after(block * rows * between));
                activation::forward(*activation, dropout, before, after);
                start_rows(out, &biases[1], self.threads);
                rows_times(matrix_mut(out, width), Write::Add, matrix(after, between), weights[1], Threads::One);
            },
        );
        if self.sink.is_some() {
            *self.kept.lock().expect("no thread panics holding it") = before;
        }
        tape::result(out, shape)
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let TwoMaps { inner, outer, activation } = &self.maps;
        let gradient = gradient.contiguous()?;
        let (x_values, gradient) = (Values::of(x), Values::of(&gradient));
        let depth = x.dim(D::Minus1)?;
        let input = matrix(x_values.slice()?, depth);
        let readings = [Reading::of(inner), Reading::of(outer)];
        let weights = [readings[0].by_output()?, readings[1].by_output()?];
        let (width, between) = weights[1].dim();
        let gradient = matrix(gradient.slice()?, width);
        let before = std::mem::take(&mut *self.kept.lock().expect("no thread panics holding it"));
        let sink = self.sink.as_ref().expect("an operation on the tape has a sink");
        let rows = self.threads.rows(input.nrows(), between * width);
        let dropout = |block: usize| self.dropout.map(|dropout| dropout.after(block * rows * between));

        let mut after = self.activated(&before, rows * between);
        outer.add_gradients(gradient, matrix(&after, between), self.threads, &mut sink.lock());

        // From here on the gradient of what the activation was applied to, in the same memory.
        let blocks = before.chunks(rows * between).zip(after.chunks_mut(rows * between));
        self.threads.each(
            blocks.zip(gradient.axis_chunks_iter(Axis(0), rows)).enumerate(),
            || (),
            |(), (block, ((before, back), gradient))| {
                rows_on(self.threads, matrix_mut(back, between), gradient, weights[1]);
                activation::backward(*activation, dropout(block), before, back);
            },
        );
        drop(before);
        let d_before = matrix(&after, between);
        inner.add_gradients(d_before, input, self.threads, &mut sink.lock());
        if !x.track_op() {
            return Ok((None, None));
        }
        let mut back = vec![0.0; input.len()];
        let blocks = back.chunks_mut(rows * depth).zip(d_before.axis_chunks_iter(Axis(0), rows));
        self.threads.each(
            blocks,
            || (),
            |(), (back, d_before)| {
                rows_on(self.threads, matrix_mut(back, depth), d_before, weights[0]);
            },
        );
        Ok((Some(tape::tensor(back, x.shape())?), None))
    }
}
