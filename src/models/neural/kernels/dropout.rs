//! Dropout whose mask is a function of where it is, not of what was drawn before.
//!
//! Nothing is stored: the backward pass computes the same mask again. Threads and the cutting of a
//! batch into shards cannot change it.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use multiversion::multiversion;

use super::{
    product::Threads,
    tape::{self, Values},
};
use crate::models::neural::pass::Pass;

/// Elements that one thread takes at a time.
const CHUNK: usize = 1 << 16;

/// Which elements of one tensor are dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    keys: [u32; 2],
    /// Elements before those of this shard, in the whole batch.
    offset: u32,
    /// An element is dropped when its hash is below this.
    below: u32,
    /// What is kept is multiplied by this.
    scale: f32,
}

impl Dropout {
    /// Drops each element with `probability`, keyed by `key`, in a part of a tensor that `offset`
    /// elements come before.
    pub fn new(probability: f64, key: u64, offset: usize) -> Self {
        let key = mix(key);
        Self {
            keys: [key as u32, (key >> 32) as u32],
            offset: offset as u32,
            below: (probability * f64::from(u32::MAX)) as u32,
            scale: (1.0 / (1.0 - probability)) as f32,
        }
    }

    /// The same for what lies behind the first `elements` of this part.
    pub fn after(self, elements: usize) -> Self {
        Self { offset: self.offset.wrapping_add(elements as u32), ..self }
    }

    /// What element `index` of this part is multiplied by: 0, or more than 1.
    #[inline(always)]
    pub fn factor(&self, index: usize) -> f32 {
        let hash = hash((index as u32).wrapping_add(self.offset), self.keys);
        if hash < self.below { 0.0 } else { self.scale }
    }

    /// A tensor with elements dropped.
    pub fn apply(self, tensor: &Tensor, pass: &Pass) -> Result<Tensor> {
        match pass.fuses(tensor) {
            true => pass.apply1(tensor, Drop { dropout: self, threads: pass.threads() }),
            false => plain(tensor, Some(self)),
        }
    }

    /// `values` with elements dropped; its own backward pass.
    pub fn masked(&self, values: &[f32], threads: Threads) -> Vec<f32> {
        let mut out = vec![0.0; values.len()];
        let parts = values.chunks(CHUNK).zip(out.chunks_mut(CHUNK)).enumerate();
        threads.each(
            parts,
            || (),
            |(), (index, (values, out))| {
                out.copy_from_slice(values);
                self.mask(out, index * CHUNK);
            },
        );
        out
    }

    /// Drops elements of `values`, the first of which is element `first` of this part.
    pub fn mask(&self, values: &mut [f32], first: usize) {
        mask(self, values, first);
    }
}

/// `x` with elements dropped, in candle's own operations; the mask is the same on every device.
pub fn plain(x: &Tensor, dropout: Option<Dropout>) -> Result<Tensor> {
    let Some(dropout) = dropout else { return Ok(x.clone()) };
    let mut factors = vec![1.0; x.elem_count()];
    dropout.mask(&mut factors, 0);
    x * Tensor::from_vec(factors, x.shape(), x.device())?
}

#[multiversion(targets("x86_64+avx2+fma"))]
fn mask(dropout: &Dropout, values: &mut [f32], first: usize) {
    for (index, value) in values.iter_mut().enumerate() {
        *value *= dropout.factor(first + index);
    }
}

/// SplitMix64's step: keys that are near one another become unlike.
pub fn mix(key: u64) -> u64 {
    let key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ (key >> 31)
}

/// A number that looks drawn at random for each `index`: two rounds of multiply and shift, with the
/// constants of C. Wellons' `lowbias32`, and a key in each.
#[inline(always)]
fn hash(index: u32, keys: [u32; 2]) -> u32 {
    let x = index.wrapping_mul(0x9e37_79b9).wrapping_add(keys[0]);
    let x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    let x = (x ^ (x >> 15)).wrapping_add(keys[1]).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// Dropout as an operation on the tape.
struct Drop {
    dropout: Dropout,
    threads: Threads,
}

impl CustomOp1 for Drop {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        tape::result(self.dropout.masked(tape::slice(storage, layout)?, self.threads), layout.shape())
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let masked = self.dropout.masked(Values::of(&gradient).slice()?, self.threads);
        tape::tensor(masked, gradient.shape()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: usize = 100_000;

    fn kept(dropout: Dropout) -> Vec<bool> {
        (0..COUNT).map(|index| dropout.factor(index) > 0.0).collect()
    }

    fn share(of: impl Iterator<Item = bool>) -> f64 {
        of.filter(|hit| *hit).count() as f64 / COUNT as f64
    }

    #[test]
    fn as_many_are_dropped_as_asked_for_and_the_mean_stays() {
        for probability in [0.1, 0.5, 0.9] {
            let dropout = Dropout::new(probability, 0x1234_5678_9abc_def0, 0);
            // Four standard deviations of a share.
            let noise = 4.0 * (probability * (1.0 - probability) / COUNT as f64).sqrt();
            assert!((share(kept(dropout).into_iter()) - (1.0 - probability)).abs() < noise);
            assert!((f64::from(dropout.scale) * (1.0 - probability) - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn masks_do_not_follow_one_another() {
        let noise = 4.0 * (0.25 / COUNT as f64).sqrt();
        let mask = |key| kept(Dropout::new(0.5, key, 0));
        let first = mask(1);
        for (what, other) in [("low key", mask(2)), ("high key", mask(1 + (1 << 32))), ("far key", mask(77 << 20))] {
            let equal = share(first.iter().zip(&other).map(|(a, b)| a == b));
            assert!((equal - 0.5).abs() < noise, "{what}: {equal}");
        }
        for lag in [1, 2, 64, 512] {
            let equal = share(first.iter().zip(&first[lag..]).map(|(a, b)| a == b));
            assert!((equal - 0.5).abs() < noise + lag as f64 / COUNT as f64, "lag {lag}: {equal}");
        }
    }

    #[test]
    fn a_part_of_a_batch_has_its_part_of_the_mask() {
        let whole = kept(Dropout::new(0.3, 9, 0));
        let part = kept(Dropout::new(0.3, 9, 1000));
        assert_eq!(whole[1000..], part[..COUNT - 1000]);
    }
}
