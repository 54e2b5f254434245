//! Elementwise mathematics that the compiler turns into vector instructions.
//!
//! The loops that use it are functions compiled a second time for AVX2 and FMA and chosen when the
//! program runs (the `multiversion` crate), so that one binary runs everywhere. What such a function
//! calls has to be inlined into it.

/// Lanes in which sums are kept: two vectors of eight.
const LANES: usize = 16;

/// The sum of `term(index)` over `0..len`, always in the same order.
#[inline(always)]
pub fn sum_of(len: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let whole = len / LANES * LANES;
    let mut start = 0;
    while start < whole {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(start + lane);
        }
        start += LANES;
    }
    let mut rest = 0.0;
    for index in whole..len {
        rest += term(index);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0] + rest
}

/// The largest of the values.
#[inline(always)]
pub fn largest_of(values: &[f32]) -> f32 {
    let larger = |one: f32, other: f32| if other > one { other } else { one };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for values in whole {
        for (lane, value) in lanes.iter_mut().zip(values) {
            *lane = larger(*lane, *value);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |largest, value| larger(largest, *value))
}

/// eˣ to 1e-7 of its value; 0 below -64, and the largest it can give above 88.
///
/// Cephes' `expf`: 2ᵏ eʳ with |r| ≤ ln 2 / 2.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Added and taken away again, it leaves the nearest whole number, whose bits are at the low end.
    const WHOLE: f32 = 12_582_912.0;
    // No sum that it enters would show what is below, 2e-28, but what it is multiplied by would make it
    // subnormal, and an Intel core takes some hundred cycles for each product with such a number: where
    // many units of a network are off, a step took four times as long.
    const ZERO_BELOW: f32 = -64.0;
    let is_zero = x < ZERO_BELOW;
    let x = x.clamp(ZERO_BELOW, 88.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, WHOLE);
    let k = shifted - WHOLE;
    let r = k.mul_add(-0.693_359_4, x);
    let r = k.mul_add(2.121_944_4e-4, r);
    let p = 1.987_569_2e-4f32;
    let p = p.mul_add(r, 1.398_2e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 5e-1);
    let p = (p * r).mul_add(r, r) + 1.0;
    if is_zero { 0.0 } else { p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23)) }
}

/// The normal distribution at `x`: how much lies below it, and its density.
///
/// Abramowitz & Stegun 7.1.26, to 1e-7; both share one exponential.
#[inline(always)]
pub fn normal(x: f32) -> (f32, f32) {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / 0.327_591_1f32.mul_add(z, 1.0);
    let e = exp(-z * z);
    let p = 1.061_405_4f32;
    let p = p.mul_add(t, -1.453_152);
    let p = p.mul_add(t, 1.421_413_8);
    let p = p.mul_add(t, -0.284_496_72);
    let p = p.mul_add(t, 0.254_829_6);
    let tail = 0.5 * p * t * e;
    let below = if x < 0.0 { tail } else { 1.0 - tail };
    (below, e * 0.398_942_3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_exp() {
        for index in -6400..=8800 {
            let x = index as f32 / 100.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) - exact).abs() <= 2e-7 * exact, "{x}");
        }
        assert_eq!([exp(-64.001), exp(-200.0), exp(f32::NEG_INFINITY)], [0.0; 3]);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn the_normal_distribution_is_that_of_the_tables() {
        // Φ and φ to ten digits.
        for (x, below, density) in [
            (0.0, 0.5, 0.398_942_280_4),
            (1.0, 0.841_344_746_1, 0.241_970_724_5),
            (-1.96, 0.024_997_895_1, 0.058_440_944_3),
            (3.0, 0.998_650_102_0, 0.004_431_848_4),
            (-5.0, 0.000_000_286_7, 0.000_001_486_7),
        ] {
            let (found_below, found_density) = normal(x);
            assert!((f64::from(found_below) - below).abs() < 1.5e-7, "{x}: {found_below}");
            assert!((f64::from(found_density) - density).abs() < 1.5e-7, "{x}: {found_density}");
        }
    }

    #[test]
    fn a_sum_leaves_nothing_out() {
        for len in [0, 1, 15, 16, 17, 100] {
            assert_eq!(sum_of(len, |index| index as f32), (len * len.saturating_sub(1) / 2) as f32);
        }
    }
}
