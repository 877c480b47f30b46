//! Keras 3's file: a zip archive of `config.json` (the layers), `model.weights.h5` (their tensors, in HDF5) and
//! `metadata.json`.
//!
//! The model is a `Sequential` that takes raw inputs: its first layers, each a `Rescaling`, do what happens before the
//! network. Of the many keys that Keras writes, those are here that have no default. The model is not compiled.

use hdf5_writer::{AttributeBuilder, DatasetBuilder, Hdf5Builder, WriteOptions};
use millefeuille_core::job::Layer;
use serde_json::{Value, json};

use super::{Exported, ExportedLayer, archive, number};

/// The first version whose file this is.
const KERAS: &str = "3.0.0";

pub(super) fn encode(model: &Exported<'_>) -> Result<Vec<u8>, String> {
    let mut metadata = model.about();
    metadata.insert("keras_version".into(), KERAS.into());
    archive::of([
        ("metadata.json".to_owned(), Value::Object(metadata).to_string().into_bytes()),
        ("config.json".to_owned(), config(model).to_string().into_bytes()),
        ("model.weights.h5".to_owned(), weights(model)?),
    ])
}

fn config(model: &Exported<'_>) -> Value {
    let shape = json!([null, model.inputs]);
    let input = json!({ "name": "inputs", "batch_shape": shape, "dtype": "float32" });
    let mut layers = vec![object("InputLayer", input)];
    layers.extend(rescalings(model).into_iter().enumerate().map(|(index, (scale, offset))| {
        object("Rescaling", json!({ "name": rescaling(index), "scale": scale, "offset": offset }))
    }));
    layers.extend(model.layers.iter().map(layer));
    json!({
        "module": "keras",
        "class_name": "Sequential",
        "config": { "name": model.name, "layers": layers, "build_input_shape": shape },
        "registered_name": null,
        "build_config": { "input_shape": shape },
    })
}

/// Factors and summands of the inputs, one step after another: a subtraction, a division, the job's scale.
fn rescalings(model: &Exported<'_>) -> Vec<(Value, Value)> {
    let mut rescalings = Vec::new();
    if let Some(normalization) = &model.normalization {
        // With both in one step, the offset would be rounded with the quotient: large ones would cost digits.
        rescalings.push((json!(1.0), numbers(normalization.offset.iter().map(|offset| -offset))));
        rescalings.push((numbers(normalization.divisor.iter().map(|divisor| divisor.recip())), json!(0.0)));
    }
    if model.scale != 1.0 {
        rescalings.push((number(model.scale), json!(0.0)));
    }
    rescalings
}

/// The name of such a step, as Keras numbers layers of a type.
fn rescaling(index: usize) -> String {
    if index == 0 { "rescaling".into() } else { format!("rescaling_{index}") }
}

fn numbers(values: impl Iterator<Item = f32>) -> Value {
    values.map(number).collect()
}

fn layer(layer: &ExportedLayer<'_>) -> Value {
    let name = &layer.name;
    match layer.layer {
        Layer::Dense(dense) => {
            let use_bias = layer.tensor("bias").is_some();
            // The names of activations are Keras', and so are their parameters.
            let activation = dense.activation.name();
            object(
                "Dense",
                json!({ "name": name, "units": dense.units, "activation": activation, "use_bias": use_bias }),
            )
        }
        Layer::LayerNormalization(normalization) => {
            let epsilon = number(normalization.epsilon);
            object("LayerNormalization", json!({ "name": name, "axis": -1, "epsilon": epsilon }))
        }
        Layer::Dropout { rate } => object("Dropout", json!({ "name": name, "rate": number(rate) })),
    }
}

fn object(class: &str, config: Value) -> Value {
    json!({ "module": "keras.layers", "class_name": class, "config": config, "registered_name": null })
}

/// The tensors, where Keras looks for them: `layers/dense_1/vars/0` is the first tensor of the second dense layer. The first
/// versions of Keras 3 look for a group even where there are no tensors: a group that has its name exists.
fn weights(model: &Exported<'_>) -> Result<Vec<u8>, String> {
    let group = |file: Hdf5Builder, path: &str, name: &str| {
        file.group_attribute(path, AttributeBuilder::fixed_string("name", name))
    };
    let mut file = group(Hdf5Builder::new(), "vars", &model.name);
    for index in 0..rescalings(model).len() {
        let name = rescaling(index);
        file = group(file, &format!("layers/{name}/vars"), &name);
    }
    for layer in &model.layers {
        file = group(file, &format!("layers/{}/vars", layer.name), &layer.name);
        for (index, tensor) in layer.tensors.iter().enumerate() {
            let path = format!("layers/{}/vars/{index}", layer.name);
            let shape: Vec<u64> = tensor.shape.iter().map(|&side| side as u64).collect();
            let dataset = DatasetBuilder::typed_data(path, shape, tensor.values);
            file = file.dataset(dataset.map_err(|error| error.to_string())?);
        }
    }
    let plan = file.into_plan().map_err(|error| error.to_string())?;
    plan.encode(WriteOptions::default()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::examples::with_everything;
    use super::*;

    #[test]
    fn the_archive_has_the_layers_and_the_signature_of_hdf5() {
        with_everything(|model| {
            let entries = archive::entries(&encode(model).unwrap());
            assert_eq!(
                entries.keys().collect::<Vec<_>>(),
                ["config.json", "metadata.json", "model.weights.h5"]
            );
            assert!(entries["model.weights.h5"].starts_with(b"\x89HDF\r\n\x1a\n"));
            let metadata: Value = serde_json::from_slice(&entries["metadata.json"]).unwrap();
            assert_eq!(metadata["class_names"], json!(["chèvre", "loup"]));

            let config: Value = serde_json::from_slice(&entries["config.json"]).unwrap();
            let layers = config["config"]["layers"].as_array().unwrap();
            let names: Vec<_> =
                layers.iter().map(|layer| layer["config"]["name"].as_str().unwrap()).collect();
            let first = ["inputs", "rescaling", "rescaling_1", "rescaling_2", "dense", "dropout", "dense_1"];
            assert_eq!(names[..7], first);
            assert_eq!(layers[1]["config"]["offset"], json!([-1.0, -2.0, -3.0, -4.0]));
            assert_eq!(layers[3]["config"]["scale"], json!(0.1));
            assert_eq!(layers[5]["config"]["rate"], json!(0.3));
        });
    }
}
