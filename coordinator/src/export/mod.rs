//! A trained model in files that other programs read.
//!
//! An [`Exported`] model is all that they need: what happens to raw inputs before the first layer, the layers with their
//! tensors, and the names of what goes in and comes out. Each format is a file here that writes one:
//!
//! | format | for | has |
//! | --- | --- | --- |
//! | `onnx` | ONNX Runtime and others | the whole computation, from raw inputs to outputs |
//! | `keras` | Keras 3 | the same, as a `Sequential` model |
//! | `npz` | NumPy | the tensors, with Keras' names |
//! | `safetensors` | other frameworks | the same |
//!
//! A file is a function of the model: no time, no path, and nothing in an order that varies. Formats match on every layer
//! and every activation without a wildcard, so that a new one can't be forgotten.
//!
//! Left out: what only training needs (losses, optimizers, regularisation). Dropout is a layer in Keras' file, where it does
//! nothing outside of training, and nothing in ONNX'.

mod archive;
mod keras;
mod npz;
mod onnx;
mod safetensors;

use clap::ValueEnum;
use millefeuille_core::data::inputs::Inputs;
pub use millefeuille_core::data::normalize::Normalizer;
use millefeuille_core::job::{Job, Layer};
use millefeuille_core::learn::model::Model;
use serde_json::{Map, Value, json};

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// ONNX: the whole computation, for ONNX Runtime and others
    Onnx,
    /// Keras 3: a model that `keras.saving.load_model` loads
    Keras,
    /// NumPy: the tensors by name, and the scale of the inputs
    Npz,
    /// Safetensors: the same, for other frameworks
    Safetensors,
}

/// A trained model, with what other programs must know to compute with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Exported<'a> {
    /// The job's name.
    pub name: String,
    /// Values of a sample that go in.
    pub inputs: usize,
    /// What raw inputs go through first.
    pub normalization: Option<Normalizer>,
    /// The factor that multiplies every input, after the normalisation.
    pub scale: f32,
    /// The layers, from input to output.
    pub layers: Vec<ExportedLayer<'a>>,
    /// The names of the inputs; empty if they have none.
    pub feature_names: Vec<String>,
    /// The names of the classes, one for each output; empty if they are just their numbers, or if there are no classes.
    pub class_names: Vec<String>,
    /// The hash of the parameters, as the receipt has it.
    pub weights_sha256: String,
}

/// A layer with its tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportedLayer<'a> {
    /// As Keras calls it: `dense_1`.
    pub name: String,
    /// What it computes.
    pub layer: Layer,
    /// Its tensors, in Keras' order.
    pub tensors: Vec<ExportedTensor<'a>>,
}

/// A tensor of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportedTensor<'a> {
    /// As Keras calls it: `kernel`.
    pub name: String,
    /// Row-major.
    pub shape: Vec<usize>,
    /// As many values as the shape has.
    pub values: &'a [f32],
}

impl<'a> Exported<'a> {
    /// The model of a job with these parameters, whose inputs and classes have no names.
    pub fn new(job: &Job, model: &Model, parameters: &'a [f32], weights_sha256: String) -> Self {
        let names = model.summary().into_iter().map(|row| row.name);
        let layers = names.zip(&job.layers).map(|(name, layer)| ExportedLayer {
            tensors: tensors_of(&name, model, parameters),
            layer: *layer,
            name,
        });
        Self {
            name: job.name.clone(),
            inputs: model.inputs(),
            normalization: None,
            scale: job.data.scale,
            layers: layers.collect(),
            feature_names: Vec::new(),
            class_names: Vec::new(),
            weights_sha256,
        }
    }

    /// The same, with what the inputs go through first, and the names of inputs and outputs.
    pub fn described_by(self, inputs: Inputs) -> Self {
        let outputs = self.layers.last().and_then(|layer| layer.tensors.first()?.shape.last().copied());
        // Two classes may have one output.
        let class_names = Some(inputs.classes.clone()).filter(|names| Some(names.len()) == outputs);
        Self {
            feature_names: inputs.feature_names(),
            class_names: class_names.unwrap_or_default(),
            normalization: inputs.normalization,
            ..self
        }
    }

    /// Encodes it as a file of this format.
    ///
    /// # Errors
    /// If a library can't encode it: it is too large for the format, or there is a bug.
    pub fn encode(&self, format: ExportFormat) -> Result<Vec<u8>, String> {
        match format {
            ExportFormat::Onnx => Ok(onnx::encode(self)),
            ExportFormat::Keras => keras::encode(self),
            ExportFormat::Npz => npz::encode(self),
            ExportFormat::Safetensors => safetensors::encode(self),
        }
    }

    /// The tensors of all layers, by their full names: `dense_1/kernel`.
    fn tensors(&self) -> impl Iterator<Item = (String, &ExportedTensor<'a>)> {
        let named = |layer: &'_ ExportedLayer<'a>, tensor: &ExportedTensor<'a>| {
            format!("{}/{}", layer.name, tensor.name)
        };
        self.layers
            .iter()
            .flat_map(move |layer| layer.tensors.iter().map(move |tensor| (named(layer, tensor), tensor)))
    }

    /// Everything that is numbers, for formats without a graph: names, shapes and values.
    fn arrays(&self) -> Vec<(String, Vec<usize>, &[f32])> {
        let mut arrays: Vec<(_, _, &[f32])> =
            self.tensors().map(|(name, tensor)| (name, tensor.shape.clone(), tensor.values)).collect();
        arrays.push(("scale".into(), vec![], std::slice::from_ref(&self.scale)));
        if let Some(Normalizer { offset, divisor }) = &self.normalization {
            arrays.push(("normalization/offset".into(), vec![offset.len()], offset));
            arrays.push(("normalization/divisor".into(), vec![divisor.len()], divisor));
        }
        arrays
    }

    /// The layers as `show model` and receipts name them: `dense 128 sigmoid`.
    fn layer_texts(&self) -> Vec<String> {
        self.layers.iter().map(|layer| layer.layer.to_string()).collect()
    }

    /// What there is to know besides the numbers. Names that are absent are left out.
    fn about(&self) -> Map<String, Value> {
        let producer = format!("millefeuille {}", env!("CARGO_PKG_VERSION"));
        let about = [
            ("producer", json!(producer)),
            ("name", json!(self.name)),
            ("layers", json!(self.layer_texts())),
            ("weights_sha256", json!(self.weights_sha256)),
            ("feature_names", json!(self.feature_names)),
            ("class_names", json!(self.class_names)),
        ];
        let present =
            about.into_iter().filter(|(_, value)| value.as_array().is_none_or(|names| !names.is_empty()));
        present.map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

impl<'a> ExportedLayer<'a> {
    /// The tensor with this name, if the layer has one.
    fn tensor(&self, name: &str) -> Option<&ExportedTensor<'a>> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}

/// The tensors of the model's layer with this name.
fn tensors_of<'a>(layer: &str, model: &Model, parameters: &'a [f32]) -> Vec<ExportedTensor<'a>> {
    let own = model.tensors().into_iter().filter_map(|tensor| {
        let name = tensor.name.strip_prefix(layer)?.strip_prefix('/')?.to_owned();
        let len: usize = tensor.shape.iter().product();
        Some(ExportedTensor {
            name,
            values: &parameters[tensor.offset..tensor.offset + len],
            shape: tensor.shape,
        })
    });
    own.collect()
}

/// A number for people: the shortest text that reads back as the same `f32`.
fn number(value: f32) -> Value {
    json!(value.to_string().parse::<f64>().unwrap_or(value.into()))
}

#[cfg(test)]
mod examples {
    use super::*;
    use millefeuille_core::job::Activation;

    /// A job with a layer of each activation, and of each other kind.
    pub(super) fn job() -> Job {
        let hidden = Activation::ALL.iter().filter(|activation| activation.fits_hidden_layers());
        let mut layers: Vec<_> = hidden.map(|&activation| Layer::dense(3, activation)).collect();
        layers.insert(1, Layer::Dropout { rate: 0.3 });
        layers.push(Layer::LayerNormalization(millefeuille_core::job::Normalization::default()));
        layers.push(Layer::dense(2, Activation::Softmax));
        let mut job = Job { name: "each".into(), layers, ..Job::default() };
        job.data.scale = 0.1;
        job
    }

    /// Calls `check` with its model, with everything that a model can have.
    pub(super) fn with_everything(check: impl FnOnce(&Exported<'_>)) {
        let job = job();
        let model = Model::new(4, &job.layers);
        let parameters = model.initial_parameters(1);
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let exported = Exported {
            normalization: Some(Normalizer {
                offset: vec![1.0, 2.0, 3.0, 4.0],
                divisor: vec![0.5, 1.0, 2.0, 3.0],
            }),
            feature_names: names(&["a", "b", "c", "d"]),
            class_names: names(&["chèvre", "loup"]),
            ..Exported::new(&job, &model, &parameters, "abc".into())
        };
        check(&exported);
    }
}

#[cfg(test)]
mod tests {
    use super::examples::{job, with_everything};
    use super::*;

    #[test]
    fn a_file_depends_on_the_model_alone() {
        with_everything(|model| {
            for &format in ExportFormat::value_variants() {
                assert_eq!(model.encode(format).unwrap(), model.encode(format).unwrap(), "{format:?}");
            }
        });
    }

    #[test]
    fn every_parameter_is_in_one_tensor() {
        let job = job();
        let model = Model::new(4, &job.layers);
        let parameters: Vec<f32> = (0..model.parameter_count()).map(|index| index as f32).collect();

        let exported = Exported::new(&job, &model, &parameters, String::new());

        let values: Vec<f32> = exported.tensors().flat_map(|(_, tensor)| tensor.values).copied().collect();
        assert_eq!(values, parameters);
        let names: Vec<_> = exported.tensors().map(|(name, _)| name).collect();
        assert_eq!(names[..4], ["dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias"]);
        assert_eq!(exported.layers.len(), job.layers.len());
    }

    #[test]
    fn what_is_absent_is_left_out() {
        let job = job();
        let model = Model::new(4, &job.layers);
        let parameters = model.initial_parameters(1);
        let about = Exported::new(&job, &model, &parameters, "abc".into()).about();
        assert!(about.contains_key("layers") && !about.contains_key("class_names"), "{about:?}");
    }
}
