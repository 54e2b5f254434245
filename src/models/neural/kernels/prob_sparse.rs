//! ProbSparse attention: few queries attend, the others take what costs nothing.
//!
//! Zhou et al., "Informer", AAAI 2021, <https://arxiv.org/abs/2012.07436>, equations 3 and 4, as the authors'
//! code has them: how far a query is from attending to all keys alike is the largest of its products with
//! some keys drawn at random, less their sum over the number of *all* keys. The queries that stand out
//! attend; each other one gets the mean of all values or, where it must not look ahead, the *sum* of the
//! values so far. Which queries attend is a constant to the gradient.
//!
//! Nothing of size queries × keys outlives a head, and for many keys nothing of that size is made: time and
//! memory grow as L log L.

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, DType, Layout, Result, Shape, Tensor};
use multiversion::multiversion;
use ndarray::ArrayView2;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    attention::{Place, Sizes, through_softmax},
    product::{Threads, Write, matrix, matrix_mut, product},
    simd::{exp, largest_of, sum_of},
    tape::{self, Values},
};
use crate::models::neural::pass::Pass;

/// Up to so many keys the product of all queries and keys is faster than one product for each drawn pair.
const FEW: usize = 512;

/// Which keys each query is tried with: the same for all heads and all windows.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    /// `[queries, tried]`.
    table: Arc<[u32]>,
    tried: usize,
}

impl Samples {
    /// `tried` of `keys` keys for each query, drawn with replacement; all follows from `key`.
    pub fn draw(queries: usize, keys: usize, tried: usize, key: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(key);
        let table = (0..queries * tried).map(|_| random.random_range(0..keys as u32));
        Self { table: table.collect(), tried }
    }

    /// A table from elsewhere, `[queries, tried]`.
    pub fn of(table: &[u32], tried: usize) -> Self {
        Self { table: table.into(), tried }
    }

    fn of_query(&self, query: usize) -> &[u32] {
        &self.table[query * self.tried..][..self.tried]
    }
}

/// How it is done.
#[derive(Clone, Debug)]
pub struct ProbSparse {
    pub heads: usize,
    /// Queries that attend.
    pub active: usize,
    /// Whether a query must not look at later keys. There have to be as many keys as queries.
    pub masked: bool,
    /// Whether the result lies head by head, `[heads, queries, width of a head]`, and is taken for
    /// `[queries, d_model]` as it lies: what the published code does, where it leaves out a transposition.
    pub mixed: bool,
    pub samples: Samples,
}

impl ProbSparse {
    /// `qkv` is `[batch, tokens, 3 · d_model]`, queries, keys and values side by side; the result `[batch,
    /// tokens, d_model]`.
    ///
    /// # Errors
    /// If the shape is another.
    pub fn to_itself(&self, qkv: &Tensor, pass: &Pass) -> Result<Tensor> {
        let width = qkv.dim(D::Minus1)? / 3;
        if !pass.fuses(qkv) {
            return self.plain(&qkv.narrow(2, 0, width)?, &qkv.narrow(2, width, 2 * width)?);
        }
        let op = Op { how: self.clone(), threads: pass.threads(), kept: Mutex::default() };
        let qkv = qkv.contiguous()?;
        pass.apply1(&qkv, op)
    }

    /// `queries [batch, queries, d_model]` to the keys and values, side by side, of `kv [batch, keys, 2 ·
    /// d_model]`; the result is like the queries.
    ///
    /// # Errors
    /// If the shapes do not go together.
    pub fn to_others(&self, queries: &Tensor, kv: &Tensor, pass: &Pass) -> Result<Tensor> {
        if !pass.fuses(kv) {
            return self.plain(queries, kv);
        }
        let op = Op { how: self.clone(), threads: pass.threads(), kept: Mutex::default() };
        let (queries, kv) = (queries.contiguous()?, kv.contiguous()?);
        pass.apply2(&queries, &kv, op)
    }

    /// The same in candle's own operations: all queries attend, and those that do not count are masked.
    ///
    /// # Errors
    /// If the shapes do not go together.
    pub fn plain(&self, queries: &Tensor, kv: &Tensor) -> Result<Tensor> {
        let (batch, rows, d_model) = queries.dims3()?;
        let (heads, width, keys, device) = (self.heads, d_model / self.heads, kv.dim(1)?, queries.device());
        let split = |tensor: Tensor| tensor.reshape((batch, (), heads, width))?.transpose(1, 2)?.contiguous();
        let q = split(queries.contiguous()?)?;
        let k = split(kv.narrow(2, 0, d_model)?.contiguous()?)?;
        let v = split(kv.narrow(2, d_model, d_model)?.contiguous()?)?;
        let products = q.matmul(&k.t()?)?;
        let all: Vec<f32> = products.flatten_all()?.to_vec1()?;
        let mut attends = Vec::with_capacity(batch * heads * rows);
        for products in all.chunks_exact(rows * keys) {
            let chosen = self.choose((0..rows).map(|query| {
                let row = &products[query * keys..][..keys];
                measure(self.samples.of_query(query).iter().map(|key| row[*key as usize]), keys)
            }));
            attends.extend((0..rows).map(|query| u8::from(chosen.contains(&query))));
        }
        let attends = Tensor::from_vec(attends, (batch, heads, rows, 1), device)?.to_dtype(DType::F32)?;
        let triangle = |above: f32, below: f32| {
            let value = |at: usize| if at % keys > at / keys { above } else { below };
            Tensor::from_vec((0..rows * keys).map(value).collect::<Vec<_>>(), (1, 1, rows, keys), device)
        };
        let mut scores = (products / (width as f64).sqrt())?;
        if self.masked {
            scores = scores.broadcast_add(&triangle(-1e9, 0.0)?)?;
        }
        let scores = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
        let attended = scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?.matmul(&v)?;
        let default = match self.masked {
            true => triangle(0.0, 1.0)?.broadcast_matmul(&v)?,
            false => v.mean_keepdim(2)?.broadcast_as(attended.shape())?.contiguous()?,
        };
        let rest = attends.affine(-1.0, 1.0)?;
        let out = (attended.broadcast_mul(&attends)? + default.broadcast_mul(&rest)?)?;
        let out = if self.mixed { out } else { out.transpose(1, 2)?.contiguous()? };
        out.reshape((batch, rows, d_model))
    }

    /// The queries that attend, in order, by how far each is from attending to all keys alike; of equal
    /// ones the first.
    fn choose(&self, measures: impl Iterator<Item = f32>) -> Vec<usize> {
        let measures: Vec<f32> = measures.collect();
        let mut order: Vec<usize> = (0..measures.len()).collect();
        order.sort_by(|one, other| measures[*other].total_cmp(&measures[*one]));
        order.truncate(self.active);
        order.sort_unstable();
        order
    }

    /// Where a head's results lie in those of its window.
    fn place(&self, sizes: &Sizes, head: usize) -> Place {
        let (rows, width) = (sizes.queries, sizes.d_model / self.heads);
        match self.mixed {
            true => Place { rows, width, stride: width, start: head * rows * width },
            false => Place { rows, width, stride: sizes.d_model, start: head * width },
        }
    }

    /// The keys that a query may look at.
    fn visible(&self, query: usize, keys: usize) -> usize {
        if self.masked { query + 1 } else { keys }
    }
}

fn measure(products: impl Iterator<Item = f32>, keys: usize) -> f32 {
    let (largest, sum) = products.fold((f32::NEG_INFINITY, 0.0), |(largest, sum): (f32, f64), product| {
        (largest.max(product), sum + f64::from(product))
    });
    (f64::from(largest) - sum / keys as f64) as f32
}

#[multiversion(targets("x86_64+avx2+fma"))]
fn dot(one: &[f32], other: &[f32]) -> f32 {
    sum_of(one.len(), |index| one[index] * other[index])
}

#[multiversion(targets("x86_64+avx2+fma"))]
fn softmax(scores: &mut [f32], scale: f32) {
    scores.iter_mut().for_each(|score| *score *= scale);
    let largest = largest_of(scores);
    scores.iter_mut().for_each(|score| *score = exp(*score - largest));
    let factor = 1.0 / sum_of(scores.len(), |key| scores[key]);
    scores.iter_mut().for_each(|score| *score *= factor);
}

/// The rows of a matrix with these numbers, side by side.
fn rows_of(matrix: ArrayView2<'_, f32>, numbers: &[usize]) -> Vec<f32> {
    let mut rows = Vec::with_capacity(numbers.len() * matrix.ncols());
    for number in numbers {
        rows.extend_from_slice(matrix.row(*number).to_slice().expect("columns lie side by side"));
    }
    rows
}

/// What a head keeps for its backward pass.
struct Kept {
    /// The queries that attended, in order.
    chosen: Vec<usize>,
    /// `[chosen, keys]`.
    probabilities: Vec<f32>,
}

struct Op {
    how: ProbSparse,
    threads: Threads,
    /// Those of each window.
    kept: Mutex<Vec<Vec<Kept>>>,
}

impl Op {
    /// `q` and `kv` may be one and the same slice.
    fn forward(&self, q: &[f32], kv: &[f32], sizes: &Sizes) -> Result<(CpuStorage, Shape)> {
        let block = sizes.queries * sizes.d_model;
        let mut out = vec![0.0; sizes.batch * block];
        let mut kept: Vec<Vec<Kept>> = (0..sizes.batch).map(|_| Vec::new()).collect();
        let windows = out.chunks_exact_mut(block).zip(&mut kept).enumerate();
        self.threads.each(windows, Vec::new, |scratch, (window, (out, kept))| {
            *kept = (0..self.how.heads).map(|head| self.head(window, head, q, kv, sizes, out, scratch)).collect();
        });
        *self.kept.lock().expect("no thread panics holding it") = kept;
        tape::result(out, (sizes.batch, sizes.queries, sizes.d_model))
    }

    #[expect(clippy::too_many_arguments, reason = "all that a head is")]
    fn head(
        &self,
        window: usize,
        head: usize,
        q: &[f32],
        kv: &[f32],
        sizes: &Sizes,
        out: &mut [f32],
        scratch: &mut Vec<f32>,
    ) -> Kept {
        let (how, keys) = (&self.how, sizes.keys);
        let places = sizes.head(window, how.heads, head);
        let (q, k, v) = (places.q.of(q), places.k.of(kv), places.v.of(kv));
        let all = keys <= FEW;
        if all {
            scratch.resize(sizes.queries * keys, 0.0);
            product(matrix_mut(scratch, keys), Write::Set, q, k.t(), 1.0);
        }
        let chosen = how.choose((0..sizes.queries).map(|query| {
            let tried = how.samples.of_query(query).iter().map(|key| *key as usize);
            match all {
                true => measure(tried.map(|key| scratch[query * keys + key]), keys),
                false => {
                    let own = q.row(query);
                    let own = own.to_slice().expect("columns lie side by side");
                    measure(tried.map(|key| dot(own, k.row(key).to_slice().expect("columns lie side by side"))), keys)
                }
            }
        }));
        let mut probabilities = if all {
            chosen.iter().flat_map(|query| &scratch[query * keys..][..keys]).copied().collect()
        } else {
            let mut scores = vec![0.0; chosen.len() * keys];
            let queries = rows_of(q, &chosen);
            product(matrix_mut(&mut scores, keys), Write::Set, matrix(&queries, q.ncols()), k.t(), 1.0);
            scores
        };
        for (row, query) in probabilities.chunks_exact_mut(keys).zip(&chosen) {
            let (seen, later) = row.split_at_mut(how.visible(*query, keys));
            softmax(seen, sizes.scale(how.heads));
            later.fill(0.0);
        }
        let width = q.ncols();
        let mut attended = vec![0.0; chosen.len() * width];
        product(matrix_mut(&mut attended, width), Write::Set, matrix(&probabilities, keys), v, 1.0);
        let mut out = how.place(sizes, head).of_mut(out);
        let mut sum = vec![0f64; width];
        let add = |sum: &mut [f64], key: usize| {
            sum.iter_mut().zip(v.row(key)).for_each(|(sum, value)| *sum += f64::from(*value));
        };
        if !how.masked {
            (0..keys).for_each(|key| add(&mut sum, key));
            sum.iter_mut().for_each(|sum| *sum /= keys as f64);
        }
        for (query, mut out) in out.rows_mut().into_iter().enumerate() {
            if how.masked {
                add(&mut sum, query);
            }
            out.iter_mut().zip(&sum).for_each(|(out, sum)| *out = *sum as f32);
        }
        for (attended, query) in attended.chunks_exact(width).zip(&chosen) {
            out.row_mut(*query).iter_mut().zip(attended).for_each(|(out, value)| *out = *value);
        }
        Kept { chosen, probabilities }
    }

    /// Gradients of the queries, keys and values of the heads of one window, each given to `write` with
    /// where it lies.
    fn window_back(
        &self,
        window: usize,
        (q, kv, gradient): (&[f32], &[f32], &[f32]),
        sizes: &Sizes,
        kept: &[Kept],
        mut write: impl FnMut([Place; 3], [&[f32]; 3]),
    ) {
        let (how, keys, queries) = (&self.how, sizes.keys, sizes.queries);
        let width = sizes.d_model / how.heads;
        let scale = sizes.scale(how.heads);
        let gradient = &gradient[window * queries * sizes.d_model..][..queries * sizes.d_model];
        for (head, Kept { chosen, probabilities }) in kept.iter().enumerate() {
            let places = sizes.head(window, how.heads, head);
            let (q, k, v) = (places.q.of(q), places.k.of(kv), places.v.of(kv));
            let gradient = how.place(sizes, head).of(gradient);
            let (mut dq, mut dk, mut dv) =
                (vec![0.0; queries * width], vec![0.0; keys * width], vec![0.0; keys * width]);

            let d_attended = rows_of(gradient, chosen);
            let d_attended = matrix(&d_attended, width);
            product(matrix_mut(&mut dv, width), Write::Set, matrix(probabilities, keys).t(), d_attended, 1.0);
            let mut d_scores = vec![0.0; chosen.len() * keys];
            product(matrix_mut(&mut d_scores, keys), Write::Set, d_attended, v.t(), 1.0);
            through_softmax(&mut d_scores, probabilities, keys);
            let d_scores = matrix(&d_scores, keys);
            let active = rows_of(q, chosen);
            product(matrix_mut(&mut dk, width), Write::Set, d_scores.t(), matrix(&active, width), scale);
            let mut d_active = vec![0.0; chosen.len() * width];
            product(matrix_mut(&mut d_active, width), Write::Set, d_scores, k, scale);
            for (row, query) in d_active.chunks_exact(width).zip(chosen) {
                dq[query * width..][..width].copy_from_slice(row);
            }

            // What went into the others: every value into every mean, or each into the sums from it on.
            let mut sum = vec![0f64; width];
            let mut attend = chosen.iter().rev().peekable();
            for query in (0..queries).rev() {
                if attend.next_if(|chosen| **chosen == query).is_none() {
                    sum.iter_mut().zip(gradient.row(query)).for_each(|(sum, value)| *sum += f64::from(*value));
                }
                if how.masked {
                    let dv = &mut dv[query * width..][..width];
                    dv.iter_mut().zip(&sum).for_each(|(dv, sum)| *dv += *sum as f32);
                }
            }
            if !how.masked {
                for dv in dv.chunks_exact_mut(width) {
                    dv.iter_mut().zip(&sum).for_each(|(dv, sum)| *dv += (sum / keys as f64) as f32);
                }
            }
            // Where they lie in a window's own part of the tensors.
            let own = sizes.head(0, how.heads, head);
            write([own.q, own.k, own.v], [&dq, &dk, &dv]);
        }
    }

    fn taken(&self) -> Vec<Vec<Kept>> {
        std::mem::take(&mut *self.kept.lock().expect("no thread panics holding it"))
    }
}

impl CustomOp1 for Op {
    fn name(&self) -> &'static str {
        "prob-sparse"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let qkv = tape::slice(storage, layout)?;
        self.forward(qkv, qkv, &Sizes::packed(layout.shape())?)
    }

    fn bwd(&self, qkv: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let (qkv_values, gradient) = (Values::of(qkv), Values::of(&gradient));
        let (values, gradient) = (qkv_values.slice()?, gradient.slice()?);
        let sizes = Sizes::packed(qkv.shape())?;
        let kept = self.taken();
        let mut back = vec![0.0; values.len()];
        let windows = back.chunks_exact_mut(values.len() / sizes.batch).zip(&kept).enumerate();
        self.threads.each(
            windows,
            || (),
            |(), (window, (back, kept))| {
                self.window_back(window, (values, values, gradient), &sizes, kept, |places, parts| {
                    places.into_iter().zip(parts).for_each(|(place, part)| place.set(back, part));
                });
            },
        );
        tape::tensor(back, qkv.shape()).map(Some)
    }
}

impl CustomOp2 for Op {
    fn name(&self) -> &'static str {
        "prob-sparse to others"
    }

    fn cpu_fwd(
        &self,
        queries: &CpuStorage,
        queries_layout: &Layout,
        kv: &CpuStorage,
        kv_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let sizes = Sizes::apart(queries_layout.shape(), kv_layout.shape())?;
        self.forward(tape::slice(queries, queries_layout)?, tape::slice(kv, kv_layout)?, &sizes)
    }

    fn bwd(
        &self,
        queries: &Tensor,
        kv: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let (q_values, kv_values, gradient) = (Values::of(queries), Values::of(kv), Values::of(&gradient));
        let (q, others, gradient) = (q_values.slice()?, kv_values.slice()?, gradient.slice()?);
        let sizes = Sizes::apart(queries.shape(), kv.shape())?;
        let kept = self.taken();
        let (mut to_q, mut to_kv) = (vec![0.0; q.len()], vec![0.0; others.len()]);
        let back = to_q.chunks_exact_mut(q.len() / sizes.batch).zip(to_kv.chunks_exact_mut(others.len() / sizes.batch));
        let windows = back.zip(&kept).enumerate();
        self.threads.each(
            windows,
            || (),
            |(), (window, ((to_q, to_kv), kept))| {
                self.window_back(window, (q, others, gradient), &sizes, kept, |[q, k, v], [dq, dk, dv]| {
                    q.set(to_q, dq);
                    k.set(to_kv, dk);
                    v.set(to_kv, dv);
                });
            },
        );
        Ok((Some(tape::tensor(to_q, queries.shape())?), Some(tape::tensor(to_kv, kv.shape())?)))
    }
}
