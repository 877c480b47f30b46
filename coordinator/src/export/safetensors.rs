//! A safetensors file: the tensors of all layers with Keras' names (`dense_1/kernel`), and `scale` and
//! `normalization/…` beside them.
//!
//! Its metadata has one key, `millefeuille`, with all the rest as JSON. The library writes several keys in an order that
//! varies.

use std::collections::HashMap;

use ::safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

use super::Exported;

/// The key of the metadata.
const KEY: &str = "millefeuille";

pub(super) fn encode(model: &Exported<'_>) -> Result<Vec<u8>, String> {
    let view = |(name, shape, values)| {
        let bytes = bytemuck::cast_slice::<f32, u8>(values);
        let view = TensorView::new(Dtype::F32, shape, bytes).map_err(|error| error.to_string())?;
        Ok::<_, String>((name, view))
    };
    let views = model.arrays().into_iter().map(view).collect::<Result<Vec<_>, _>>()?;
    let about = Value::Object(model.about()).to_string();
    ::safetensors::serialize(views, Some(HashMap::from([(KEY.to_owned(), about)])))
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use ::safetensors::SafeTensors;

    use super::super::examples::with_everything;
    use super::*;

    #[test]
    fn tensors_and_metadata_read_back() {
        with_everything(|model| {
            let bytes = encode(model).unwrap();
            let file = SafeTensors::deserialize(&bytes).unwrap();
            for (name, shape, values) in model.arrays() {
                let found = file.tensor(&name).unwrap();
                assert_eq!(
                    (found.shape(), found.data()),
                    (&shape[..], bytemuck::cast_slice(values)),
                    "{name}"
                );
            }
            assert_eq!(file.len(), model.arrays().len());

            let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
            let about: Value = serde_json::from_str(&metadata.metadata().as_ref().unwrap()[KEY]).unwrap();
            assert_eq!(about["layers"][0], "dense 3 gelu");
            assert_eq!(about["class_names"][0], "chèvre");
        });
    }
}
