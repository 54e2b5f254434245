//! Matrix products with AVX-512, which `gemm` has only with a feature that also changes how `faer` adds up
//! (both have it from the same crate), and so the last bits of every eigenvector.
//!
//! An element of the result is the same chain of fused multiplications and additions along the depth as in
//! `gemm`'s kernels for AVX2: the two give the same bits, and a processor with twice the width takes half
//! the time (reports/speed.md).
#![allow(unsafe_code)]

use std::{arch::x86_64::*, cell::RefCell};

use ndarray::{ArrayView2, ArrayViewMut2, Axis};

use super::product::Write;

/// Floats of a vector.
const LANES: usize = 16;

/// Columns of a tile, two vectors: with [`ROWS`] rows they are 24 sums, which with what is multiplied take
/// 27 of the 32 registers.
const WIDTH: usize = 2 * LANES;

/// Rows of a tile at most.
const ROWS: usize = 12;

/// Floats of `b` that are laid out at a time: half a MiB, for the second cache.
const LAID_OUT: usize = 1 << 17;

/// Rows from which on laying out columns that lie side by side takes less time than it saves.
const WORTH_LAYING_OUT: usize = 3 * ROWS;

/// Rows of `b` that are fetched ahead.
const AHEAD: isize = 32;

/// Rows, and lines of the cache, that are fetched ahead of what is laid out: weights have left the second cache
/// since they were last used.
const ROWS_AHEAD: usize = 6;
const LINES_AHEAD: usize = 8;

/// Tiles of a panel from which on the panel behind it is fetched while they are multiplied: with fewer, weights are
/// all that there is to wait for.
const WORTH_FETCHING: usize = 3;

/// Brings what lies there, if anything does, into the nearest cache.
#[target_feature(enable = "avx512f")]
#[inline]
fn fetch(address: *const f32) {
    _mm_prefetch::<_MM_HINT_T0>(address.cast());
}

/// Whether the processor has AVX-512.
pub fn is_there() -> bool {
    is_x86_feature_detected!("avx512f")
}

/// Whether [`multiply`] can be asked for a product that is written to `out`: the processor has AVX-512, and
/// elements lie side by side along rows or along columns.
pub fn suits(out: &ArrayViewMut2<'_, f32>) -> bool {
    is_there() && (out.stride_of(Axis(1)) == 1 || out.stride_of(Axis(0)) == 1)
}

/// Where a matrix begins and how far its rows and columns are apart.
#[derive(Clone, Copy)]
struct Place {
    start: *const f32,
    row: isize,
    column: isize,
}

impl Place {
    fn of(view: ArrayView2<'_, f32>) -> Self {
        Self { start: view.as_ptr(), row: view.stride_of(Axis(0)), column: view.stride_of(Axis(1)) }
    }

    /// The same matrix from this row and column on.
    fn from(self, row: usize, column: usize) -> Self {
        let away = row as isize * self.row + column as isize * self.column;
        Self { start: self.start.wrapping_offset(away), ..self }
    }
}

/// `out = factor · a b`, or added to it.
///
/// # Panics
/// If `out` is none that this [`suits`], or the sizes do not go together.
pub fn multiply(
    out: ArrayViewMut2<'_, f32>,
    write: Write,
    a: ArrayView2<'_, f32>,
    b: ArrayView2<'_, f32>,
    factor: f32,
) {
    assert!(suits(&out), "the processor has AVX-512, and the result an axis along which it lies");
    assert_eq!((out.dim(), b.nrows()), ((a.nrows(), b.ncols()), a.ncols()), "matrices fit together");
    let (a, b) = (a.reborrow(), b.reborrow());
    let (out, a, b) = match out.stride_of(Axis(1)) == 1 {
        true => (out, a, b),
        false => (out.reversed_axes(), b.reversed_axes(), a.reversed_axes()),
    };
    // SAFETY: the processor has AVX-512, sizes go together, and the columns of `out` lie side by side.
    unsafe { along_rows(out, write, a, b, factor) }
}

thread_local! {
    /// What was laid out: columns of `b`, and rows of `a`.
    static SPACE: RefCell<(Vec<f32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// The same for an `out` whose columns lie side by side.
#[target_feature(enable = "avx512f")]
unsafe fn along_rows(
    mut out: ArrayViewMut2<'_, f32>,
    write: Write,
    a: ArrayView2<'_, f32>,
    b: ArrayView2<'_, f32>,
    factor: f32,
) {
    let ((rows, depth), columns) = (a.dim(), b.ncols());
    let (out, out_row) = (out.as_mut_ptr(), out.stride_of(Axis(0)));
    let (a, b) = (Place::of(a), Place::of(b));
    // Tiles of about as many rows each: one of a single row would take as long as one of four.
    let tiles = rows.div_ceil(ROWS);
    let along = a.column == 1;
    SPACE.with_borrow_mut(|(columns_laid_out, rows_laid_out)| {
        let at_once = (LAID_OUT / depth.max(1) / WIDTH).max(1) * WIDTH;
        for start in (0..columns).step_by(at_once) {
            let end = (start + at_once).min(columns);
            let mut block = b.from(0, start);
            // From a panel to the next.
            let mut panel_away = WIDTH as isize;
            // Weights for inference, one panel behind the other in memory: what is multiplied next lies there.
            let goes_on = columns == WIDTH && b.column == 1 && b.row == WIDTH as isize;
            let fetches = goes_on && along && tiles >= WORTH_FETCHING;
            if b.column != 1 || (rows > WORTH_LAYING_OUT && b.row != WIDTH as isize) {
                // SAFETY: the block lies within `b`.
                unsafe { lay_out_columns(columns_laid_out, block, depth, end - start) };
                block = Place { start: columns_laid_out.as_ptr(), row: WIDTH as isize, column: 1 };
                panel_away = (WIDTH * depth) as isize;
            }
            for tile in 0..tiles {
                let (first, behind) = (rows * tile / tiles, rows * (tile + 1) / tiles);
                let mut part = a.from(first, 0);
                if !along && (a.row != 1 || end - start > 2 * WIDTH) {
                    // SAFETY: the rows lie within `a`.
                    unsafe { lay_out_rows(rows_laid_out, part, depth, behind - first) };
                    part = Place { start: rows_laid_out.as_ptr(), row: 1, column: (behind - first) as isize };
                }
                for (panel, column) in (start..end).step_by(WIDTH).enumerate() {
                    let width = (end - column).min(WIDTH);
                    let multiply = match fetches {
                        true => TILES_OF_PANELS[behind - first - 1],
                        false => TILES[behind - first - 1][usize::from(width > LANES)][usize::from(along)],
                    };
                    let last = u16::MAX >> (width.next_multiple_of(LANES) - width);
                    // SAFETY: tile and panel lie within the matrices or what was laid out of them, and the
                    // mask ends where the last column does.
                    unsafe {
                        multiply(Tile {
                            depth,
                            a: part.start,
                            a_away: if along { part.row } else { part.column },
                            b: block.start.offset(panel as isize * panel_away),
                            b_away: block.row,
                            next: block.start.wrapping_add(depth * WIDTH * (tiles + tile) / tiles),
                            of: tiles,
                            last,
                            out: out.offset(first as isize * out_row).add(column),
                            out_away: out_row,
                            write,
                            factor,
                        });
                    }
                }
            }
        }
    });
}

/// Up to [`ROWS`] rows and [`WIDTH`] columns of a result.
struct Tile {
    depth: usize,
    a: *const f32,
    /// From a row to the next, or from a column to the next; the other is 1.
    a_away: isize,
    /// Columns side by side.
    b: *const f32,
    b_away: isize,
    /// This tile's part of what lies behind the panel, and of how many it is one.
    next: *const f32,
    of: usize,
    /// Which columns of the last vector there are.
    last: __mmask16,
    out: *mut f32,
    out_away: isize,
    write: Write,
    factor: f32,
}

/// `R` rows and `V` vectors of columns; with `ALONG` the rows of `a` lie along the depth, otherwise they
/// are side by side. With `NEXT` the next panel is fetched, a part by each tile: memory is read while this one is
/// multiplied, which takes longer.
#[target_feature(enable = "avx512f")]
unsafe fn multiply_tile<const R: usize, const V: usize, const ALONG: bool, const NEXT: bool>(tile: Tile) {
    let mask = |vector: usize| if vector + 1 == V { tile.last } else { u16::MAX };
    let mut sums = [[_mm512_setzero_ps(); V]; R];
    for row in 0..R {
        let out = tile.out.wrapping_offset(row as isize * tile.out_away);
        (0..V).for_each(|vector| fetch(out.wrapping_add(vector * LANES)));
    }
    let (mut a, mut b) = (tile.a, tile.b);
    // Lines of the cache, in 256ths: of the `V` of each row as many as are this tile's.
    let (mut fetched, step) = (0, (V << 8) / tile.of);
    for _ in 0..tile.depth {
        if NEXT {
            // Into the second cache: the nearest is full of what is multiplied.
            _mm_prefetch::<_MM_HINT_T1>(tile.next.wrapping_add((fetched >> 8) * LANES).cast());
            fetched += step;
        } else {
            let ahead = b.wrapping_offset(AHEAD * tile.b_away);
            (0..V).for_each(|vector| fetch(ahead.wrapping_add(vector * LANES)));
        }
        let mut values = [_mm512_setzero_ps(); V];
        for (vector, values) in values.iter_mut().enumerate() {
            // SAFETY: masked columns are not read.
            *values = unsafe { _mm512_maskz_loadu_ps(mask(vector), b.add(vector * LANES)) };
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            let away = if ALONG { row as isize * tile.a_away } else { row as isize };
            // SAFETY: there are so many rows, and columns up to the depth.
            let factor = _mm512_set1_ps(unsafe { *a.offset(away) });
            for (sum, values) in sums.iter_mut().zip(values) {
                *sum = _mm512_fmadd_ps(factor, values, *sum);
            }
        }
        a = a.wrapping_offset(if ALONG { 1 } else { tile.a_away });
        b = b.wrapping_offset(tile.b_away);
    }
    let factor = _mm512_set1_ps(tile.factor);
    for (row, sums) in sums.into_iter().enumerate() {
        for (vector, sum) in sums.into_iter().enumerate() {
            // SAFETY: the rows are those of the result, and masked columns are neither read nor written.
            unsafe {
                let out = tile.out.offset(row as isize * tile.out_away).add(vector * LANES);
                let value = match tile.write {
                    Write::Set => _mm512_mul_ps(factor, sum),
                    Write::Add => _mm512_fmadd_ps(factor, sum, _mm512_maskz_loadu_ps(mask(vector), out)),
                };
                _mm512_mask_storeu_ps(out, mask(vector), value);
            }
        }
    }
}

macro_rules! tiles {
    ($($rows:literal)*) => {
        [$([
            [multiply_tile::<$rows, 1, false, false>, multiply_tile::<$rows, 1, true, false>],
            [multiply_tile::<$rows, 2, false, false>, multiply_tile::<$rows, 2, true, false>],
        ],)*]
    };
    (of panels $($rows:literal)*) => {
        [$(multiply_tile::<$rows, 2, true, true>,)*]
    };
}

/// By vectors less one, and whether rows lie along the depth.
type OfRows = [[unsafe fn(Tile); 2]; 2];

/// By rows less one.
static TILES: [OfRows; ROWS] = tiles!(1 2 3 4 5 6 7 8 9 10 11 12);

/// The same for whole panels, where the next one is fetched.
static TILES_OF_PANELS: [unsafe fn(Tile); ROWS] = tiles!(of panels 1 2 3 4 5 6 7 8 9 10 11 12);

/// `columns` of a matrix, [`WIDTH`] of them side by side, one such panel after the other.
#[target_feature(enable = "avx512f")]
unsafe fn lay_out_columns(into: &mut Vec<f32>, from: Place, depth: usize, columns: usize) {
    into.resize(into.len().max(columns.div_ceil(WIDTH) * WIDTH * depth), 0.0);
    // SAFETY: what is resized above has room for `depth` rows of whole panels; of `from` nothing beyond its
    // columns is read.
    unsafe {
        let start = into.as_mut_ptr();
        let place = |column: usize| {
            let inside = column % WIDTH;
            start.add((column - inside) * depth + inside)
        };
        if from.column == 1 {
            // Row by row, as they lie in memory.
            for row in 0..depth {
                let (here, ahead) = (from.from(row, 0).start, from.from(row + ROWS_AHEAD, 0).start);
                for column in (0..columns).step_by(LANES) {
                    let mask = u16::MAX >> LANES.saturating_sub(columns - column);
                    fetch(ahead.wrapping_add(column));
                    let values = _mm512_maskz_loadu_ps(mask, here.add(column));
                    _mm512_storeu_ps(place(column).add(row * WIDTH), values);
                }
            }
            return;
        }
        for column in (0..columns).step_by(LANES) {
            let lanes = (columns - column).min(LANES);
            let (into, from) = (place(column), from.from(0, column));
            if from.row == 1 {
                turn(into, from, depth, lanes);
            } else {
                for row in 0..depth {
                    for lane in 0..lanes {
                        *into.add(row * WIDTH + lane) = *from.from(row, lane).start;
                    }
                }
            }
        }
    }
}

/// Up to [`LANES`] columns that each lie along the depth, side by side.
#[target_feature(enable = "avx512f")]
unsafe fn turn(into: *mut f32, from: Place, depth: usize, columns: usize) {
    for row in (0..depth).step_by(LANES) {
        let rows = (depth - row).min(LANES);
        let mask = u16::MAX >> (LANES - rows);
        let mut block = [_mm512_setzero_ps(); LANES];
        for (column, values) in block.iter_mut().enumerate().take(columns) {
            fetch(from.from(row + LINES_AHEAD * LANES, column).start);
            // SAFETY: rows beyond the depth are masked.
            *values = unsafe { _mm512_maskz_loadu_ps(mask, from.from(row, column).start) };
        }
        for (offset, values) in transposed(block).into_iter().enumerate().take(rows) {
            // SAFETY: the caller has room for as many rows as the depth.
            unsafe { _mm512_storeu_ps(into.add((row + offset) * WIDTH), values) };
        }
    }
}

#[target_feature(enable = "avx512f")]
fn transposed(rows: [__m512; LANES]) -> [__m512; LANES] {
    // Pairs of rows, then fours: `fours[4 i + j]` holds, of rows 4i to 4i + 3, column j in its first quarter,
    // 4 + j in the second, and so on.
    let mut fours = [_mm512_setzero_ps(); LANES];
    for four in (0..LANES).step_by(4) {
        let low = |row: usize| _mm512_castps_pd(_mm512_unpacklo_ps(rows[four + row], rows[four + row + 1]));
        let high = |row: usize| _mm512_castps_pd(_mm512_unpackhi_ps(rows[four + row], rows[four + row + 1]));
        fours[four] = _mm512_castpd_ps(_mm512_unpacklo_pd(low(0), low(2)));
        fours[four + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low(0), low(2)));
        fours[four + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high(0), high(2)));
        fours[four + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high(0), high(2)));
    }
    let mut columns = [_mm512_setzero_ps(); LANES];
    for column in 0..4 {
        // Quarters 0 and 2 of two, or 1 and 3.
        let even = |four: usize| _mm512_shuffle_f32x4::<0x88>(fours[four + column], fours[four + 4 + column]);
        let odd = |four: usize| _mm512_shuffle_f32x4::<0xdd>(fours[four + column], fours[four + 4 + column]);
        columns[column] = _mm512_shuffle_f32x4::<0x88>(even(0), even(8));
        columns[4 + column] = _mm512_shuffle_f32x4::<0x88>(odd(0), odd(8));
        columns[8 + column] = _mm512_shuffle_f32x4::<0xdd>(even(0), even(8));
        columns[12 + column] = _mm512_shuffle_f32x4::<0xdd>(odd(0), odd(8));
    }
    columns
}

/// Up to [`ROWS`] rows of a matrix, side by side.
#[target_feature(enable = "avx512f")]
unsafe fn lay_out_rows(into: &mut Vec<f32>, from: Place, depth: usize, rows: usize) {
    // The last of them is written as a whole vector.
    into.resize(into.len().max(rows * depth + LANES), 0.0);
    let mask = u16::MAX >> (LANES - rows);
    for column in 0..depth {
        // SAFETY: what is resized above has room, and no row beyond the last is read.
        unsafe {
            let (into, from) = (into.as_mut_ptr().add(column * rows), from.from(0, column));
            if from.row == 1 {
                _mm512_storeu_ps(into, _mm512_maskz_loadu_ps(mask, from.start));
            } else {
                for row in 0..rows {
                    *into.add(row) = *from.from(row, 0).start;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, ShapeBuilder};

    use super::{super::product::tests::wave, *};

    #[test]
    fn a_product_is_a_chain_of_fused_additions() {
        if !is_there() {
            return eprintln!("skipped: this processor has no AVX-512");
        }
        let laid_out = |rows: usize, columns: usize, step: f32, turned: bool| match turned {
            true => wave(columns, rows, step).reversed_axes(),
            false => wave(rows, columns, step),
        };
        let sizes = [(2, 3, 2), (11, 256, 33), (12, 17, 16), (13, 64, 31), (49, 100, 70), (70, 512, 300), (1, 1, 1)];
        for (rows, depth, columns) in sizes {
            for layout in 0..8 {
                let a = laid_out(rows, depth, 0.7, layout & 1 > 0);
                let b = laid_out(depth, columns, 0.3, layout & 2 > 0);
                for write in [Write::Set, Write::Add] {
                    let mut out = Array2::from_elem((rows, columns).set_f(layout & 4 > 0), 0.5f32);
                    multiply(out.view_mut(), write, a.view(), b.view(), 0.3);
                    for ((row, column), value) in out.indexed_iter() {
                        let terms = a.row(row).into_iter().zip(b.column(column));
                        let sum = terms.fold(0f32, |sum, (a, b)| a.mul_add(*b, sum));
                        let expected = if write == Write::Set { 0.3 * sum } else { 0.3f32.mul_add(sum, 0.5) };
                        assert_eq!(*value, expected, "{rows} {depth} {columns}, layout {layout}: {row} {column}");
                    }
                }
            }
        }
    }

    #[test]
    fn matrices_may_be_parts_of_others() {
        if !is_there() {
            return eprintln!("skipped: this processor has no AVX-512");
        }
        let (all_a, all_b) = (wave(60, 90, 0.7), wave(90, 140, 0.3));
        let (a, b) = (all_a.slice(ndarray::s![..;2, 3..43]), all_b.slice(ndarray::s![10..90;2, 5..110;3]));
        let mut whole = Array2::from_elem((40, 50), 0.5f32);
        multiply(whole.slice_mut(ndarray::s![3..33, 7..42]), Write::Set, a, b, 1.0);
        for ((row, column), value) in whole.indexed_iter() {
            let expected = match (3..33).contains(&row) && (7..42).contains(&column) {
                true => {
                    let terms = a.row(row - 3).into_iter().zip(b.column(column - 7));
                    terms.fold(0f32, |sum, (a, b)| a.mul_add(*b, sum))
                }
                false => 0.5,
            };
            assert_eq!(*value, expected, "{row} {column}");
        }
    }
}
