//! NumPy's archive of arrays: the tensors of all layers with Keras' names (`dense_1/kernel`), `scale` and
//! `normalization/…` beside them, and as arrays of texts `layers`, and `feature_names` and `class_names` if there are any.

use npyz::{DType, WriteOptions, WriterBuilder as _};

use super::{Exported, archive};

pub(super) fn encode(model: &Exported<'_>) -> Result<Vec<u8>, String> {
    let numbers =
        model.arrays().into_iter().map(|(name, shape, values)| (name, array_of_numbers(&shape, values)));
    let texts = [
        ("layers", model.layer_texts()),
        ("feature_names", model.feature_names.clone()),
        ("class_names", model.class_names.clone()),
    ];
    let texts = texts.into_iter().filter(|(_, texts)| !texts.is_empty());
    let texts = texts.map(|(name, texts)| (name.to_owned(), array_of_texts(&texts)));
    let entry = |(name, array): (String, Result<_, String>)| Ok((format!("{name}.npy"), array?));
    archive::of(numbers.chain(texts).map(entry).collect::<Result<Vec<_>, String>>()?)
}

/// A `.npy` file of numbers.
fn array_of_numbers(shape: &[usize], values: &[f32]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let shape: Vec<u64> = shape.iter().map(|&side| side as u64).collect();
    let writer = WriteOptions::new().default_dtype().shape(&shape).writer(&mut bytes).begin_nd();
    let mut writer = writer.map_err(|error| error.to_string())?;
    writer.extend(values).map_err(|error| error.to_string())?;
    writer.finish().map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// A `.npy` file of texts, each as long as the longest in code points.
fn array_of_texts(texts: &[String]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let longest = texts.iter().map(|text| text.chars().count()).max().unwrap_or(0).max(1);
    let dtype = DType::Plain(format!("<U{longest}").parse().map_err(|error| format!("{error}"))?);
    let options = WriteOptions::<str>::new().dtype(dtype).shape(&[texts.len() as u64]);
    let mut writer = options.writer(&mut bytes).begin_nd().map_err(|error| error.to_string())?;
    texts.iter().try_for_each(|text| writer.push(text)).map_err(|error| error.to_string())?;
    writer.finish().map_err(|error| error.to_string())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use npyz::NpyFile;

    use super::super::examples::with_everything;
    use super::*;

    #[test]
    fn arrays_read_back() {
        with_everything(|model| {
            let entries = archive::entries(&encode(model).unwrap());
            for (name, shape, values) in model.arrays() {
                let array = NpyFile::new(&entries[&format!("{name}.npy")][..]).unwrap();
                let sides: Vec<_> = array.shape().iter().map(|&side| side as usize).collect();
                assert_eq!((sides, array.into_vec::<f32>().unwrap()), (shape, values.to_vec()), "{name}");
            }
            let classes = NpyFile::new(&entries["class_names.npy"][..]).unwrap();
            assert_eq!(classes.into_vec::<String>().unwrap(), model.class_names);
            assert_eq!(entries.len(), model.arrays().len() + 3);
        });
    }
}
