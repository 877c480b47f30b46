//! `model.safetensors`: the layers' `F32` tensors, with Keras' names and shapes.

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Display;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use millefeuille_core::data::inputs::Inputs;
use millefeuille_core::job::Job;
use millefeuille_core::learn::model::{Model, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata, TensorView};
use sha2::{Digest as _, Sha256};

/// Upper bound on the header of a model's file.
const HEADER_BYTES: usize = 16 << 20;
/// The entry of the header that has the [`Inputs`].
const INPUTS: &str = "millefeuille.inputs";
/// Upper bound on a model file's size: the most parameters that a job may have, and the header.
pub const MAX_FILE_BYTES: u64 = (1 << 30) + HEADER_BYTES as u64;
/// Bytes that are hashed at a time.
const PART: usize = 128 << 10;

/// Encodes the parameters as a file, with what the model takes and answers, unless these are plain numbers.
///
/// # Errors
/// If the tensors can't be serialized, which would be a bug.
pub fn encode(parameters: &[f32], model: &Model, inputs: &Inputs) -> Result<Vec<u8>, String> {
    let described = |text| HashMap::from([(INPUTS.to_string(), text)]);
    let metadata = match inputs.are_plain() {
        true => None,
        false => Some(described(serde_json::to_string(inputs).map_err(|error| error.to_string())?)),
    };
    serialized(parameters, model, [], metadata)
}

/// What the model in a file takes and answers; `None` if these are plain numbers.
///
/// # Errors
/// What is wrong with the file.
pub fn described_inputs(bytes: &[u8]) -> Result<Option<Inputs>, String> {
    let wrong = |error: &dyn Display| format!("not a safetensors file: {error}");
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| wrong(&error))?;
    let Some(text) = metadata.metadata().as_ref().and_then(|entries| entries.get(INPUTS)) else {
        return Ok(None);
    };
    let inputs: Inputs = serde_json::from_str(text).map_err(|error| wrong(&format!("{INPUTS}: {error}")))?;
    inputs.check().map_err(|what| wrong(&format!("{INPUTS}: {what}")))?;
    Ok(Some(inputs))
}

/// Encodes the parameters and additional named tensors.
///
/// # Errors
/// As [`encode`].
pub fn encode_with<'a>(
    parameters: &'a [f32],
    model: &Model,
    more: impl IntoIterator<Item = (String, &'a [f32])>,
) -> Result<Vec<u8>, String> {
    serialized(parameters, model, more, None)
}

fn serialized<'a>(
    parameters: &'a [f32],
    model: &Model,
    more: impl IntoIterator<Item = (String, &'a [f32])>,
    metadata: Option<HashMap<String, String>>,
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
    safetensors::serialize(tensors, metadata).map_err(|error| error.to_string())
}

/// Decodes the parameters, in layer order.
///
/// # Errors
/// The tensor that does not fit the model.
pub fn decode(bytes: &[u8], model: &Model) -> Result<Vec<f32>, String> {
    decode_with(bytes, model, [])
}

/// Decodes the parameters, and the additional tensors with these names into the given slices, whose lengths must
/// match.
///
/// # Errors
/// The tensor that does not fit.
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
    // Allocate only now, when the file is known to have this many bytes.
    let mut parameters = vec![0.0; model.parameter_count()];
    for (tensor, view) in tensors.iter().zip(views) {
        let len: usize = tensor.shape.iter().product();
        let place: &mut [u8] = bytemuck::cast_slice_mut(&mut parameters[tensor.offset..tensor.offset + len]);
        place.copy_from_slice(view.data());
    }
    Ok(parameters)
}

/// Decodes the parameters of these layers, of all if none is named, into their places among `parameters`. The file may have
/// more.
///
/// # Errors
/// The tensor that is missing or does not fit.
pub fn decode_layers(
    bytes: &[u8],
    model: &Model,
    layers: &[String],
    parameters: &mut [f32],
) -> Result<(), String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| format!("not a safetensors file: {error}"))?;
    let layer = |tensor: &Tensor| tensor.name.split('/').next().unwrap_or_default().to_string();
    let tensors = model.tensors().into_iter();
    for tensor in tensors.filter(|tensor| layers.is_empty() || layers.contains(&layer(tensor))) {
        let advice = format!("(or leave {} out of init.layers)", layer(&tensor));
        let Ok(view) = file.tensor(&tensor.name) else {
            return Err(format!("has no tensor {}, which the job begins with {advice}", tensor.name));
        };
        let (dtype, shape) = (view.dtype(), view.shape());
        if dtype != Dtype::F32 || shape != &tensor.shape[..] {
            let wanted = &tensor.shape;
            return Err(format!(
                "{} is {dtype:?} {shape:?}, and the job's is F32 {wanted:?} {advice}",
                tensor.name
            ));
        }
        let place = &mut parameters[tensor.offset..][..tensor.shape.iter().product()];
        bytemuck::cast_slice_mut::<f32, u8>(place).copy_from_slice(view.data());
    }
    Ok(())
}

/// The file's tensor for one of the model's.
fn fitting<'a>(file: &SafeTensors<'a>, tensor: &Tensor) -> Result<TensorView<'a>, String> {
    let view = file.tensor(&tensor.name).map_err(|_| misfit(&format!("it has no tensor {}", tensor.name)))?;
    if view.dtype() == Dtype::F32 && view.shape() == &tensor.shape[..] {
        return Ok(view);
    }
    let (dtype, shape) = (view.dtype(), view.shape());
    Err(misfit(&format!("{} is {dtype:?} {shape:?}, not F32 {:?}", tensor.name, tensor.shape)))
}

/// Describes the first parameter that is not finite, if there is one.
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

/// The model's number of inputs: the rows of its first kernel. The job's model with that many inputs is of a size
/// that a machine can hold.
///
/// # Errors
/// If there is no first kernel, or if no model of the job can be that large: the shape comes from the file, which may
/// be damaged.
pub fn inputs(bytes: &[u8], job: &Job) -> Result<u32, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| format!("not a safetensors file: {error}"))?;
    let kernel = file.tensor("dense/kernel").map_err(|_| misfit("it has no tensor dense/kernel"))?;
    inputs_of(kernel.shape(), job)
}

/// The inputs of a model whose first kernel has this shape.
fn inputs_of(kernel: &[usize], job: &Job) -> Result<u32, String> {
    let rows = kernel.first().copied().filter(|&rows| rows > 0);
    let rows = rows.ok_or_else(|| misfit("dense/kernel is empty"))?;
    let too_large = |what: String| misfit(&format!("dense/kernel is {kernel:?}: {what}"));
    let inputs = u32::try_from(rows).map_err(|_| too_large(format!("{rows} rows are too many")))?;
    job.check_size(inputs).map_err(too_large)?;
    Ok(inputs)
}

/// Hex SHA-256 of the parameters in a model's file. Reads a part at a time: the file may be large.
///
/// # Errors
/// What is wrong with the file.
pub fn hash_of_file(file: &File, job: &Job) -> Result<String, String> {
    let wrong = |error: &dyn Display| format!("not a safetensors file: {error}");
    let (metadata, values_begin) = header(file).map_err(|error| wrong(&error))?;
    let shape = |name: &str| metadata.info(name).ok_or_else(|| misfit(&format!("it has no tensor {name}")));
    let inputs = inputs_of(&shape("dense/kernel")?.shape, job)?;
    let (mut sha256, mut part) = (Sha256::new(), vec![0; PART]);
    for tensor in Model::new(inputs as usize, &job.layers).tensors() {
        let found = shape(&tensor.name)?;
        if found.dtype != Dtype::F32 || found.shape != tensor.shape {
            let (name, dtype, shape) = (&tensor.name, found.dtype, &found.shape);
            return Err(misfit(&format!("{name} is {dtype:?} {shape:?}, not F32 {:?}", tensor.shape)));
        }
        let (mut at, end) = found.data_offsets;
        while at < end {
            let part = &mut part[..PART.min(end - at)];
            file.read_exact_at(part, values_begin + at as u64).map_err(|error| wrong(&error))?;
            sha256.update(&*part);
            at += part.len();
        }
    }
    Ok(hex::encode(sha256.finalize()))
}

/// The names, types and places of the tensors in a file, and where the tensors begin.
fn header(file: &File) -> Result<(Metadata, u64), Box<dyn Error>> {
    let mut len = [0; 8];
    file.read_exact_at(&mut len, 0)?;
    let header = usize::try_from(u64::from_le_bytes(len)).ok().filter(|&header| header <= HEADER_BYTES);
    let header = header.ok_or("its header is too long")?;
    let mut bytes = vec![0; len.len() + header];
    file.read_exact_at(&mut bytes, 0)?;
    Ok((serde_json::from_slice(&bytes[len.len()..])?, bytes.len() as u64))
}

fn misfit(what: &str) -> String {
    format!("does not fit the run's job.toml: {what}")
}
