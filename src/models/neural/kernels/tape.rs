//! What every operation on candle's tape needs: slices out of tensors, and tensors out of values.

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Storage, StorageRef, Tensor, bail};

/// The values of a contiguous tensor on the CPU, borrowed for as long as this lives.
pub struct Values<'a>(StorageRef<'a>, &'a Layout);

impl<'a> Values<'a> {
    pub fn of(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self(storage, layout)
    }

    /// # Errors
    /// If the tensor is not contiguous, not f32 or not on the CPU.
    pub fn slice(&self) -> Result<&[f32]> {
        match &*self.0 {
            Storage::Cpu(storage) => slice(storage, self.1),
            _ => bail!("the tensor is not on the CPU"),
        }
    }
}

/// The values of a contiguous tensor.
///
/// # Errors
/// If it is not contiguous or not f32.
pub fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("the tensor is not contiguous"),
    }
}

/// What `cpu_fwd` returns.
pub fn result(values: Vec<f32>, shape: impl Into<Shape>) -> Result<(CpuStorage, Shape)> {
    Ok((CpuStorage::F32(values), shape.into()))
}

/// A tensor outside the tape.
pub fn tensor(values: Vec<f32>, shape: &Shape) -> Result<Tensor> {
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// A number on the tape, of which the gradient of `tensor` is `gradient`: where a backward pass starts.
///
/// # Errors
/// If the tensor is not on the CPU.
pub fn with_gradient(tensor: &Tensor, gradient: Vec<f32>) -> Result<Tensor> {
    let gradient = self::tensor(gradient, tensor.shape())?;
    tensor.apply_op1(WithGradient(gradient))
}

struct WithGradient(Tensor);

impl CustomOp1 for WithGradient {
    fn name(&self) -> &'static str {
        "with-gradient"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        result(vec![0.0], ())
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.0.clone()))
    }
}
