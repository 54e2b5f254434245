//! Windows as tensors: time last, as all that maps over time wants it.

use candle_core::{Device, Result, Tensor};
use ndarray::{Array3, ArrayView2, Axis};

use crate::windows::{Lookback, WindowShape, Windows};

/// Some lookbacks, time last.
#[derive(Clone)]
pub struct Input {
    /// `[batch, variates, lookback]`.
    pub values: Tensor,
    /// Calendar features of those rows, `[batch, time features, lookback]`; none for data without
    /// timestamps.
    pub past_time: Option<Tensor>,
    /// Calendar features of the rows to forecast, `[batch, time features, horizon]`.
    pub future_time: Option<Tensor>,
    /// Steps to forecast. Only a network whose weights do not depend on it may be asked for others than
    /// it was built for.
    pub horizon: usize,
}

impl Input {
    /// The last rows of each lookback, as many as the network looks back.
    ///
    /// # Errors
    /// If the tensors cannot be made.
    pub fn of_lookback(lookback: &Lookback, shape: WindowShape, device: &Device) -> Result<Self> {
        let skip = lookback.values.len_of(Axis(1)) - shape.lookback;
        let time_last = |array: &Array3<f32>, skip: usize| {
            let parts = array.axis_iter(Axis(0)).map(|part| part.slice_move(ndarray::s![skip.., ..]));
            Gathered::of(parts).tensor(device)
        };
        let time = |array: &Array3<f32>, skip: usize| match shape.time_features {
            0 => Ok(None),
            _ => time_last(array, skip).map(Some),
        };
        Ok(Self {
            values: time_last(&lookback.values, skip)?,
            past_time: time(&lookback.past_time, skip)?,
            future_time: time(&lookback.future_time, 0)?,
            horizon: shape.horizon,
        })
    }

    /// Only `count` of its windows, from `first` on.
    ///
    /// # Errors
    /// If there are not so many.
    pub fn narrow(&self, first: usize, count: usize) -> Result<Self> {
        let part = |tensor: &Tensor| tensor.narrow(0, first, count);
        Ok(Self {
            values: part(&self.values)?,
            past_time: self.past_time.as_ref().map(part).transpose()?,
            future_time: self.future_time.as_ref().map(part).transpose()?,
            horizon: self.horizon,
        })
    }

    /// The windows with these numbers, and their targets `[batch, variates, horizon]`.
    ///
    /// # Errors
    /// If the tensors cannot be made.
    pub fn gather(windows: &Windows<'_>, numbers: &[usize], device: &Device) -> Result<(Self, Tensor)> {
        let picked: Vec<_> = numbers.iter().map(|number| windows.get(*number)).collect();
        let timed = windows.shape().time_features > 0;
        let input = Self {
            values: Gathered::of(picked.iter().map(|window| window.lookback)).tensor(device)?,
            past_time: timed
                .then(|| Gathered::of(picked.iter().map(|window| window.past_time)).tensor(device))
                .transpose()?,
            future_time: timed
                .then(|| Gathered::of(picked.iter().map(|window| window.future_time)).tensor(device))
                .transpose()?,
            horizon: windows.shape().horizon,
        };
        Ok((input, Gathered::of(picked.iter().map(|window| window.target)).tensor(device)?))
    }
}

/// Parts `[time, columns]`, laid out `[part, columns, time]`.
struct Gathered {
    values: Vec<f32>,
    dims: (usize, usize, usize),
}

impl Gathered {
    fn of<'a, T: Number + 'a>(parts: impl ExactSizeIterator<Item = ArrayView2<'a, T>>) -> Self {
        let count = parts.len();
        let mut values = Vec::new();
        let mut dims = (count, 0, 0);
        for part in parts {
            let (time, columns) = part.dim();
            dims = (count, columns, time);
            values.reserve(part.len() * (count - values.len() / part.len().max(1)));
            for column in part.columns() {
                // A series lies variate by variate: its columns are slices.
                match column.to_slice() {
                    Some(column) => values.extend(column.iter().map(|value| value.to_f32())),
                    None => values.extend(column.iter().map(|value| value.to_f32())),
                }
            }
        }
        Self { values, dims }
    }

    fn tensor(self, device: &Device) -> Result<Tensor> {
        Tensor::from_vec(self.values, self.dims, device)
    }
}

trait Number: Copy {
    fn to_f32(self) -> f32;
}

impl Number for f32 {
    fn to_f32(self) -> f32 {
        self
    }
}

impl Number for f64 {
    fn to_f32(self) -> f32 {
        self as f32
    }
}
