//! Matrix products on one thread: through the `gemm` crate, or with AVX-512 where the processor has it.
//!
//! Threads work on parts of a batch, not inside a product: a product on one thread runs at the full
//! rate of its core, and its bits do not depend on how many threads there are, nor on the width of the
//! processor's vectors or the sizes of its caches.
#![allow(unsafe_code)]

use gemm::{Parallelism, gemm};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::avx512;

/// Terms of a sum that one call adds up at most. Cut here, and not where `gemm` would by the sizes of the
/// nearest cache and of all three matrices.
const DEPTH: usize = 512;

/// What becomes of the values that stood in the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// They are overwritten.
    Set,
    /// The product is added to them.
    Add,
}

/// Who works on a product.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Threads {
    /// The thread that asks for it: there are other parts of the batch for the others.
    #[default]
    One,
    /// All of them, each on some rows.
    All,
}

impl Threads {
    /// Does `each` to all parts, which share nothing; whoever works on one brings what `scratch` makes.
    pub fn each<T: Send, S>(
        self,
        parts: impl Iterator<Item = T>,
        scratch: impl Fn() -> S + Sync + Send,
        each: impl Fn(&mut S, T) + Sync + Send,
    ) {
        match self {
            Self::One => {
                let mut scratch = scratch();
                parts.for_each(|part| each(&mut scratch, part));
            }
            Self::All => parts.collect::<Vec<_>>().into_par_iter().for_each_init(scratch, each),
        }
    }

    /// One thread for what takes too few multiplications for two.
    pub fn worth_it(self, multiplications: usize) -> Self {
        if multiplications < 2 * WORTH_A_THREAD { Self::One } else { self }
    }

    /// How many of `rows` rows are one part, where each takes `multiplications`.
    pub fn rows(self, rows: usize, multiplications: usize) -> usize {
        let parts = match self {
            Self::One => 1,
            Self::All => (rows * multiplications / WORTH_A_THREAD).clamp(1, rayon::current_num_threads()),
        };
        rows.div_ceil(parts).max(1)
    }
}

/// Multiplications that are worth another thread.
const WORTH_A_THREAD: usize = 1 << 19;

/// `out = factor · a b`, or added to it: `[rows, depth]` times `[depth, columns]`, any strides.
///
/// The last bits of a row may depend on how many rows there are; [`rows_times`] is for where they must
/// not.
///
/// # Panics
/// If the sizes do not go together.
pub fn product(out: ArrayViewMut2<'_, f32>, write: Write, a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>, factor: f32) {
    let ((rows, depth), columns) = (a.dim(), b.ncols());
    assert_eq!((out.dim(), b.nrows()), ((rows, columns), depth), "matrices fit together");
    // For these gemm has other ways, with other orders of sums.
    let along_depth = a.stride_of(Axis(1)) == 1 && b.stride_of(Axis(0)) == 1;
    if rows < 2 || columns < 2 || depth < 3 || (along_depth && rows * columns <= 256) {
        return by_gemm(out, write, a, b, factor);
    }
    let part = match rows.max(columns) {
        ..=64 => DEPTH,
        _ => depth.div_ceil(depth.div_ceil(DEPTH)),
    };
    in_parts(out, write, a, b, factor, part);
}

/// The same for a depth of at most [`DEPTH`], or for sizes that `gemm` does not cut.
fn by_gemm(mut out: ArrayViewMut2<'_, f32>, write: Write, a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>, factor: f32) {
    let ((rows, depth), columns) = (a.dim(), b.ncols());
    let out_strides = (out.stride_of(Axis(1)), out.stride_of(Axis(0)));
    // SAFETY: pointers, sizes and strides are those of views that ndarray has checked, `out` is
    // borrowed for writing, and the sizes of the three go together.
    unsafe {
        gemm(
            rows,
            columns,
            depth,
            out.as_mut_ptr(),
            out_strides.0,
            out_strides.1,
            write == Write::Add,
            a.as_ptr(),
            a.stride_of(Axis(1)),
            a.stride_of(Axis(0)),
            b.as_ptr(),
            b.stride_of(Axis(1)),
            b.stride_of(Axis(0)),
            1.0,
            factor,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// `out = a b`, or added to it, where each row of the result depends on the same row of `a` alone, to
/// the last bit, however many other rows there are, and whoever works on it.
///
/// # Panics
/// If the sizes do not go together.
pub fn rows_times(
    mut out: ArrayViewMut2<'_, f32>,
    write: Write,
    a: ArrayView2<'_, f32>,
    b: ArrayView2<'_, f32>,
    threads: Threads,
) {
    let (rows, depth) = a.dim();
    assert_eq!((out.dim(), b.nrows()), ((rows, b.ncols()), depth), "matrices fit together");
    if threads == Threads::All {
        let parts = (rows * depth * b.ncols() / WORTH_A_THREAD).min(rayon::current_num_threads()).min(rows);
        return shared(out, write, a, b, parts);
    }
    // gemm has other ways, with other orders of sums, for a single row or column and for small results of
    // matrices that both lie along the depth. It gets no single row or column, and the depth across.
    if b.ncols() == 1 {
        let mut both = Array2::zeros((rows, 2));
        if write == Write::Add {
            both.column_mut(0).assign(&out.column(0));
        }
        let twice = b.broadcast((depth, 2)).expect("one column can be seen as two");
        rows_times(both.view_mut(), write, a, twice, Threads::One);
        out.column_mut(0).assign(&both.column(0));
        return;
    }
    if rows == 1 {
        let mut both = Array2::zeros((2, b.ncols()));
        if write == Write::Add {
            both.row_mut(0).assign(&out.row(0));
        }
        let twice = a.broadcast((2, depth)).expect("one row can be seen as two");
        rows_times(both.view_mut(), write, twice, b, Threads::One);
        out.row_mut(0).assign(&both.row(0));
        return;
    }
    if rows * b.ncols() <= 256 && b.stride_of(Axis(0)) == 1 {
        let across = a.t().as_standard_layout().into_owned();
        return in_parts(out, write, across.t(), b, 1.0, DEPTH);
    }
    in_parts(out, write, a, b, 1.0, DEPTH);
}

/// `out = a b`, or added to it, on one thread or on all; the latter as [`rows_times`], so that bits do not
/// depend on how many there are.
///
/// # Panics
/// If the sizes do not go together.
pub fn product_on(
    threads: Threads,
    out: ArrayViewMut2<'_, f32>,
    write: Write,
    a: ArrayView2<'_, f32>,
    b: ArrayView2<'_, f32>,
) {
    match threads {
        Threads::One => product(out, write, a, b, 1.0),
        Threads::All => rows_times(out, write, a, b, threads),
    }
}

/// `a b`, row after row, on one thread or on all; for one that is written to, see [`product_on`].
///
/// # Panics
/// If the sizes do not go together.
pub fn product_of(threads: Threads, a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>) -> Vec<f32> {
    let len = a.nrows() * b.ncols();
    if a.ncols() == 0 {
        return vec![0.0; len];
    }
    // Clearing what is overwritten takes a tenth of the time of a small product.
    let mut out = Vec::with_capacity(len);
    // SAFETY: there is room for all of the product, and where there is something to add up, all of it is written
    // and nothing read.
    unsafe {
        let view = ArrayViewMut2::from_shape_ptr((a.nrows(), b.ncols()), out.as_mut_ptr());
        product_on(threads, view, Write::Set, a, b);
        out.set_len(len);
    }
    out
}

/// `out = a b` for the rows that one of `threads` has: as [`product`] where there is but one, and as
/// [`rows_times`] where others have other rows.
///
/// # Panics
/// If the sizes do not go together.
pub fn rows_on(threads: Threads, out: ArrayViewMut2<'_, f32>, a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>) {
    match threads {
        Threads::One => product(out, Write::Set, a, b, 1.0),
        Threads::All => rows_times(out, Write::Set, a, b, Threads::One),
    }
}

/// The same by `parts` threads, each on as many rows.
fn shared(out: ArrayViewMut2<'_, f32>, write: Write, a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>, parts: usize) {
    if parts < 2 {
        return rows_times(out, write, a, b, Threads::One);
    }
    let middle = a.nrows() * (parts / 2) / parts;
    let ((a_first, a_second), (first, second)) = (a.split_at(Axis(0), middle), out.split_at(Axis(0), middle));
    rayon::join(
        || shared(first, write, a_first, b, parts / 2),
        || shared(second, write, a_second, b, parts - parts / 2),
    );
}

/// The sum of the products of `part` terms each.
fn in_parts(
    mut out: ArrayViewMut2<'_, f32>,
    write: Write,
    a: ArrayView2<'_, f32>,
    b: ArrayView2<'_, f32>,
    factor: f32,
    part: usize,
) {
    let depth = b.nrows();
    let mut write = write;
    for start in (0..depth).step_by(part) {
        let part = start..(start + part).min(depth);
        one_part(out.view_mut(), write, a.slice(s![.., part.clone()]), b.slice(s![part, ..]), factor);
        write = Write::Add;
    }
}

fn one_part(out: ArrayViewMut2<'_, f32>, write: Write, a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>, factor: f32) {
    #[cfg(target_arch = "x86_64")]
    if avx512::suits(&out) {
        return avx512::multiply(out, write, a, b, factor);
    }
    by_gemm(out, write, a, b, factor);
}

/// Whether a product of many rows begins with a copy of the columns that they are multiplied by.
pub fn copies_panels() -> bool {
    #[cfg(target_arch = "x86_64")]
    return !avx512::is_there();
    #[cfg(not(target_arch = "x86_64"))]
    true
}

/// A slice as a matrix with this many columns, row after row.
///
/// # Panics
/// If the slice does not hold whole rows.
pub fn matrix(values: &[f32], columns: usize) -> ArrayView2<'_, f32> {
    ArrayView2::from_shape((values.len() / columns, columns), values).expect("a slice holds whole rows")
}

/// The same, to write to.
///
/// # Panics
/// If the slice does not hold whole rows.
pub fn matrix_mut(values: &mut [f32], columns: usize) -> ArrayViewMut2<'_, f32> {
    ArrayViewMut2::from_shape((values.len() / columns, columns), values).expect("a slice holds whole rows")
}

#[cfg(test)]
pub(super) mod tests {
    use ndarray::Array2;

    use super::*;

    /// Numbers that do not repeat soon.
    pub fn wave(rows: usize, columns: usize, step: f32) -> Array2<f32> {
        Array2::from_shape_fn((rows, columns), |(row, column)| ((row * 31 + column * 17) as f32 * step).sin())
    }

    #[test]
    fn a_product_is_the_sum_of_products() {
        for (rows, depth, columns) in [(1, 3, 5), (3, 2, 1), (7, 700, 9), (65, 40, 70)] {
            let (a, b) = (wave(rows, depth, 0.37), wave(columns, depth, 0.11));
            let exact = a.mapv(f64::from).dot(&b.mapv(f64::from).t());
            let mut out = Array2::ones((rows, columns));
            product(out.view_mut(), Write::Set, a.view(), b.t(), 2.0);
            let mut added = out.clone();
            product(added.view_mut(), Write::Add, a.view(), b.t(), 1.0);
            for ((out, added), exact) in out.iter().zip(&added).zip(&exact) {
                assert!((f64::from(*out) - 2.0 * exact).abs() < 1e-4);
                assert!((f64::from(*added) - 3.0 * exact).abs() < 2e-4);
            }
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn a_product_has_the_same_bits_on_every_processor() {
        if !is_x86_feature_detected!("fma") {
            return eprintln!("skipped: this processor does not multiply and add at once");
        }
        // Sums are cut evenly where a matrix is large, and after 512 terms where all are small.
        for (rows, depth, columns, cut) in
            [(70, 512, 20, 512), (70, 600, 20, 300), (20, 1537, 65, 385), (60, 600, 64, 512), (5, 40, 70, 40)]
        {
            let (a, b) = (wave(rows, depth, 0.7), wave(columns, depth, 0.3));
            let mut out = Array2::zeros((rows, columns));
            product(out.view_mut(), Write::Set, a.view(), b.t(), 0.3);
            for ((row, column), value) in out.indexed_iter() {
                let terms: Vec<_> = a.row(row).into_iter().zip(b.row(column)).collect();
                let sum = |part: &[(&f32, &f32)]| part.iter().fold(0f32, |sum, (a, b)| a.mul_add(**b, sum));
                let (first, rest) = terms.split_at(cut);
                let expected = rest.chunks(cut).fold(0.3 * sum(first), |all, part| 0.3f32.mul_add(sum(part), all));
                assert_eq!(*value, expected, "{rows} {depth} {columns}: {row} {column}");
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_how_many_there_are() {
        for (depth, columns) in
            [(11, 1), (96, 96), (1536, 24), (512, 720), (700, 512), (700, 1), (3, 7), (2, 5), (1, 3)]
        {
            let (a, b) = (wave(70, depth, 0.7), wave(columns, depth, 0.3));
            let rows_of = |range: std::ops::Range<usize>| {
                let mut out = Array2::zeros((range.len(), columns));
                rows_times(out.view_mut(), Write::Set, a.slice(s![range, ..]), b.t(), Threads::One);
                out
            };
            let all = rows_of(0..70);
            let mut shared = Array2::zeros((70, columns));
            rows_times(shared.view_mut(), Write::Set, a.view(), b.t(), Threads::All);
            assert_eq!(shared, all, "{depth} {columns} on all threads");
            for range in [0..1, 3..4, 5..16, 7..40, 64..70, 0..69] {
                assert_eq!(rows_of(range.clone()), all.slice(s![range.clone(), ..]), "{depth} {columns} {range:?}");
            }
        }
    }
}
