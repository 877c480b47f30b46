//! `model.safetensors`: the layers' `F32` tensors, named and shaped as Keras does.

use millefeuille_core::job::Job;
use millefeuille_core::learn::model::{Model, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

/// More bytes than any file of a model has: as many parameters as a job may have, and the header.
pub const MAX_FILE_BYTES: u64 = (1 << 30) + (1 << 20);

/// The file's content.
///
/// # Errors
/// If the tensors can't be written down, which would be a mistake of ours.
pub fn encode(parameters: &[f32], model: &Model) -> Result<Vec<u8>, String> {
    encode_with(parameters, model, [])
}

/// The content of a file that has more tensors, each by its name.
///
/// # Errors
/// As [`encode`].
pub fn encode_with<'a>(
    parameters: &'a [f32],
    model: &Model,
    more: impl IntoIterator<Item = (String, &'a [f32])>,
) -> Result<Vec<u8>, String> {
    let more = more.into_iter().map(|(name, values)| {
        let view = TensorView::new(Dtype::F32, vec![values.len()], bytemuck::cast_slice(values));
        view.map(|view| (name, view)).map_err(|error| error.to_string())
    });
    let tensors = model.tensors().into_iter().map(|tensor| {
        let len: usize = tensor.shape.iter().product();
        let bytes = bytemuck::cast_slice(&parameters[tensor.offset..tensor.offset + len]);
        let view = TensorView::new(Dtype::F32, tensor.shape.to_vec(), bytes);
        view.map(|view| (tensor.name, view)).map_err(|error| error.to_string())
    });
    let tensors = tensors.chain(more).collect::<Result<Vec<_>, _>>()?;
    safetensors::serialize(tensors, None).map_err(|error| error.to_string())
}

/// The parameters in it, in layer order.
///
/// # Errors
/// What does not fit the model.
pub fn decode(bytes: &[u8], model: &Model) -> Result<Vec<f32>, String> {
    decode_with(bytes, model, [])
}

/// The parameters, and what else is there by these names, into slices as long as it is.
///
/// # Errors
/// What does not fit.
pub fn decode_with<'a>(
    bytes: &[u8],
    model: &Model,
    more: impl IntoIterator<Item = (String, &'a mut [f32])>,
) -> Result<Vec<f32>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| format!("not a safetensors file: {error}"))?;
    let tensors = model.tensors();
    let views = tensors.iter().map(|tensor| fitting(&file, tensor)).collect::<Result<Vec<_>, _>>()?;
    let mut known = tensors.len();
    for (name, values) in more {
        let tensor = Tensor { name, shape: vec![values.len()], offset: 0 };
        let view = fitting(&file, &tensor)?;
        bytemuck::cast_slice_mut::<f32, u8>(values).copy_from_slice(view.data());
        known += 1;
    }
    if file.len() != known {
        return Err(misfit(&format!("it has {} tensors, not {known}", file.len())));
    }
    // Only now is it known that the file has as many bytes as this takes.
    let mut parameters = vec![0.0; model.parameter_count()];
    for (tensor, view) in tensors.iter().zip(views) {
        let len: usize = tensor.shape.iter().product();
        let place: &mut [u8] = bytemuck::cast_slice_mut(&mut parameters[tensor.offset..tensor.offset + len]);
        place.copy_from_slice(view.data());
    }
    Ok(parameters)
}

/// The file's part for one of the model's.
fn fitting<'a>(file: &SafeTensors<'a>, tensor: &Tensor) -> Result<TensorView<'a>, String> {
    let view = file.tensor(&tensor.name).map_err(|_| misfit(&format!("it has no tensor {}", tensor.name)))?;
    if view.dtype() == Dtype::F32 && view.shape() == &tensor.shape[..] {
        return Ok(view);
    }
    let (dtype, shape) = (view.dtype(), view.shape());
    Err(misfit(&format!("{} is {dtype:?} {shape:?}, not F32 {:?}", tensor.name, tensor.shape)))
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

/// How many values the model takes: the rows of its first kernel. The job's model over so many has a size that a machine
/// can hold.
///
/// # Errors
/// If there is none, or if no model of the job can be that large: a shape is what the file says, whatever it has in it.
pub fn inputs(bytes: &[u8], job: &Job) -> Result<u32, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| format!("not a safetensors file: {error}"))?;
    let kernel = file.tensor("dense/kernel").map_err(|_| misfit("it has no tensor dense/kernel"))?;
    let rows = kernel.shape().first().copied().filter(|&rows| rows > 0);
    let rows = rows.ok_or_else(|| misfit("dense/kernel is empty"))?;
    let too_large = |what: String| misfit(&format!("dense/kernel is {:?}: {what}", kernel.shape()));
    let inputs = u32::try_from(rows).map_err(|_| too_large(format!("{rows} rows are too many")))?;
    job.check_size(inputs).map_err(too_large)?;
    Ok(inputs)
}

fn misfit(what: &str) -> String {
    format!("does not fit the run's job.toml: {what}")
}
