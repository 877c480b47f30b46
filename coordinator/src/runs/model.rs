//! `model.safetensors`: the layers' `F32` tensors, named and shaped as Keras does.

use millefeuille_core::learn::model::Model;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

/// More bytes than any file of a model has: as many parameters as a job may have, and the header.
pub const MAX_FILE_BYTES: u64 = (1 << 30) + (1 << 20);

/// The file's content.
///
/// # Errors
/// If the tensors can't be written down, which would be a mistake of ours.
pub fn encode(parameters: &[f32], model: &Model) -> Result<Vec<u8>, String> {
    let tensors = model.tensors().into_iter().map(|tensor| {
        let len: usize = tensor.shape.iter().product();
        let bytes = bytemuck::cast_slice(&parameters[tensor.offset..tensor.offset + len]);
        let view = TensorView::new(Dtype::F32, tensor.shape.to_vec(), bytes);
        view.map(|view| (tensor.name, view)).map_err(|error| error.to_string())
    });
    let tensors = tensors.collect::<Result<Vec<_>, _>>()?;
    safetensors::serialize(tensors, None).map_err(|error| error.to_string())
}

/// The parameters in it, in layer order.
///
/// # Errors
/// What does not fit the model.
pub fn decode(bytes: &[u8], model: &Model) -> Result<Vec<f32>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| format!("not a safetensors file: {error}"))?;
    let mut parameters = vec![0.0; model.parameter_count()];
    let tensors = model.tensors();
    for tensor in &tensors {
        let view =
            file.tensor(&tensor.name).map_err(|_| misfit(&format!("it has no tensor {}", tensor.name)))?;
        if view.dtype() != Dtype::F32 || view.shape() != &tensor.shape[..] {
            let (dtype, shape) = (view.dtype(), view.shape());
            return Err(misfit(&format!(
                "{} is {dtype:?} {shape:?}, not F32 {:?}",
                tensor.name, tensor.shape
            )));
        }
        let len: usize = tensor.shape.iter().product();
        let place: &mut [u8] = bytemuck::cast_slice_mut(&mut parameters[tensor.offset..tensor.offset + len]);
        place.copy_from_slice(view.data());
    }
    if file.len() != tensors.len() {
        return Err(misfit(&format!("it has {} tensors, the model {}", file.len(), tensors.len())));
    }
    Ok(parameters)
}

/// The first parameter that is no finite number, in words, if there is one.
pub fn not_finite(parameters: &[f32], model: &Model) -> Option<String> {
    let place = parameters.iter().position(|value| !value.is_finite())?;
    let tensors = model.tensors();
    let tensor = tensors.iter().rev().find(|tensor| tensor.offset <= place)?;
    let index = place - tensor.offset;
    Some(format!(
        "{} has {} at index {index}, which nothing can be computed with",
        tensor.name, parameters[place]
    ))
}

/// How many values the model takes: the rows of its first kernel.
///
/// # Errors
/// If there is none.
pub fn inputs(bytes: &[u8]) -> Result<usize, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| format!("not a safetensors file: {error}"))?;
    let kernel = file.tensor("dense/kernel").map_err(|_| misfit("it has no tensor dense/kernel"))?;
    kernel
        .shape()
        .first()
        .copied()
        .filter(|&inputs| inputs > 0)
        .ok_or_else(|| misfit("dense/kernel is empty"))
}

fn misfit(what: &str) -> String {
    format!("does not fit the run's job.toml: {what}")
}
