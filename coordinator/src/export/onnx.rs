//! ONNX: the computation as a graph of operators, from raw inputs `[batch, inputs]` to outputs `[batch, outputs]`.
//!
//! The batch may have any size. The operators are those of version 17, of the year 2022, so that runtimes of any age read
//! the file. That version has no GELU and no SiLU: both are made of several operators.

use std::f32::consts::SQRT_2;

use millefeuille_core::job::{Activation, Layer};
use prost::Message as _;
use serde_json::Value;

use super::{Exported, ExportedLayer};

#[allow(missing_docs, unreachable_pub)]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
}

use proto::attribute_proto::AttributeType;
use proto::tensor_proto::DataType;
use proto::tensor_shape_proto::Dimension;
use proto::tensor_shape_proto::dimension::Value as Side;
use proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};

/// The version of the file's form.
const IR_VERSION: i64 = 8;
/// The version of the operators.
const OPERATORS: i64 = 17;
const INPUTS: &str = "inputs";
const OUTPUTS: &str = "outputs";
/// Keras' slope of `leaky_relu` below zero.
const LEAKY_SLOPE: f32 = 0.2;

pub(super) fn encode(model: &Exported<'_>) -> Vec<u8> {
    file(model).encode_to_vec()
}

fn file(model: &Exported<'_>) -> ModelProto {
    let text = |value| if let Value::String(text) = value { text } else { value.to_string() };
    let about =
        model.about().into_iter().map(|(key, value)| StringStringEntryProto { key, value: text(value) });
    ModelProto {
        ir_version: IR_VERSION,
        producer_name: "millefeuille".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(graph(model)),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPERATORS }],
        metadata_props: about.collect(),
    }
}

fn graph(model: &Exported<'_>) -> GraphProto {
    let mut graph = Growing { value: INPUTS.into(), width: model.inputs, nodes: vec![], constants: vec![] };
    if let Some(normalization) = &model.normalization {
        for (operator, name, values) in
            [("Sub", "offset", &normalization.offset), ("Div", "divisor", &normalization.divisor)]
        {
            let constant = graph.constant(&format!("normalization/{name}"), &[values.len()], values);
            graph.apply(operator, &format!("normalization/{operator}"), [constant], vec![]);
        }
    }
    // A multiplication by 1 changes nothing.
    if model.scale != 1.0 {
        let scale = graph.constant("scale", &[], &[model.scale]);
        graph.apply("Mul", "scale/Mul", [scale], vec![]);
    }
    model.layers.iter().for_each(|layer| graph.layer(layer));
    let Growing { mut nodes, constants, width, .. } = graph;
    if let Some(last) = nodes.last_mut() {
        last.output = vec![OUTPUTS.into()];
    }
    GraphProto {
        name: model.name.clone(),
        node: nodes,
        initializer: constants,
        input: vec![value_info(INPUTS, model.inputs)],
        output: vec![value_info(OUTPUTS, width)],
    }
}

/// A graph that grows from the inputs on.
struct Growing {
    /// The newest value's name.
    value: String,
    /// How many numbers of a sample it has.
    width: usize,
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
}

impl Growing {
    fn layer(&mut self, layer: &ExportedLayer<'_>) {
        match layer.layer {
            Layer::Dense(dense) => {
                let tensors = self.tensors(layer);
                self.apply("Gemm", &format!("{}/Gemm", layer.name), tensors, vec![]);
                self.width = dense.units as usize;
                self.activation(&layer.name, dense.activation);
            }
            Layer::LayerNormalization(normalization) => {
                let tensors = self.tensors(layer);
                let attributes = vec![integer("axis", -1), float("epsilon", normalization.epsilon)];
                self.apply(
                    "LayerNormalization",
                    &format!("{}/LayerNormalization", layer.name),
                    tensors,
                    attributes,
                );
            }
            // It does nothing outside of training.
            Layer::Dropout { rate: _ } => {}
        }
    }

    /// Adds a layer's tensors; returns their names.
    fn tensors(&mut self, layer: &ExportedLayer<'_>) -> Vec<String> {
        let tensors = layer.tensors.iter().map(|tensor| {
            self.constant(&format!("{}/{}", layer.name, tensor.name), &tensor.shape, tensor.values)
        });
        tensors.collect()
    }

    fn activation(&mut self, layer: &str, activation: Activation) {
        let name = |operator: &str| format!("{layer}/{operator}");
        match activation {
            Activation::Gelu => {
                // x · (1 + erf(x / √2)) · ½
                let x = self.value.clone();
                let root = self.constant(&name("root"), &[], &[SQRT_2]);
                let one = self.constant(&name("one"), &[], &[1.0]);
                let half = self.constant(&name("half"), &[], &[0.5]);
                self.apply("Div", &name("Div"), [root], vec![]);
                self.apply("Erf", &name("Erf"), [], vec![]);
                self.apply("Add", &name("Add"), [one], vec![]);
                self.apply("Mul", &name("Mul"), [x], vec![]);
                self.apply("Mul", &name("Half"), [half], vec![]);
            }
            Activation::LeakyRelu => {
                self.apply("LeakyRelu", &name("LeakyRelu"), [], vec![float("alpha", LEAKY_SLOPE)])
            }
            Activation::Linear => {}
            Activation::Relu => self.apply("Relu", &name("Relu"), [], vec![]),
            Activation::Sigmoid => self.apply("Sigmoid", &name("Sigmoid"), [], vec![]),
            Activation::Silu => {
                let x = self.value.clone();
                self.apply("Sigmoid", &name("Sigmoid"), [], vec![]);
                self.apply("Mul", &name("Mul"), [x], vec![]);
            }
            Activation::Softmax => self.apply("Softmax", &name("Softmax"), [], vec![integer("axis", -1)]),
            Activation::Tanh => self.apply("Tanh", &name("Tanh"), [], vec![]),
        }
    }

    /// Applies an operator to the newest value and others. Its name becomes that of the result.
    fn apply(
        &mut self,
        operator: &str,
        name: &str,
        others: impl IntoIterator<Item = String>,
        attribute: Vec<AttributeProto>,
    ) {
        let input = std::iter::once(std::mem::replace(&mut self.value, name.into())).chain(others).collect();
        let (op_type, name, output) = (operator.into(), name.into(), vec![name.into()]);
        self.nodes.push(NodeProto { input, output, name, op_type, attribute });
    }

    /// Adds a constant; returns its name.
    fn constant(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        self.constants.push(TensorProto {
            dims: shape.iter().map(|&side| side as i64).collect(),
            data_type: DataType::Float.into(),
            name: name.into(),
            raw_data: bytemuck::cast_slice(values).to_vec(),
        });
        name.into()
    }
}

fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { name: name.into(), f: Some(value), i: None, r#type: AttributeType::Float.into() }
}

fn integer(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.into(), f: None, i: Some(value), r#type: AttributeType::Int.into() }
}

/// Numbers in rows, of which a batch may have any count.
fn value_info(name: &str, width: usize) -> ValueInfoProto {
    let dim = [Side::DimParam("batch".into()), Side::DimValue(width as i64)];
    let dim = dim.map(|side| Dimension { value: Some(side) }).to_vec();
    let tensor =
        type_proto::Tensor { elem_type: DataType::Float.into(), shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type: Some(tensor) }) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::examples::with_everything;
    use super::*;

    fn read(model: &Exported<'_>) -> (ModelProto, GraphProto) {
        let file = ModelProto::decode(&encode(model)[..]).unwrap();
        let graph = file.graph.clone().unwrap();
        (file, graph)
    }

    #[test]
    fn every_value_is_computed_once_before_it_is_taken() {
        with_everything(|model| {
            let (_, graph) = read(model);
            let mut known: BTreeSet<_> = graph.initializer.iter().map(|constant| &constant.name).collect();
            assert_eq!(known.len(), graph.initializer.len(), "each constant has a name of its own");
            known.insert(&graph.input[0].name);
            let mut taken = BTreeSet::new();
            for node in &graph.node {
                assert!(node.input.iter().all(|input| known.contains(input)), "{node:?}");
                taken.extend(&node.input);
                assert!(node.output.iter().all(|output| known.insert(output)), "{node:?}");
            }
            known.retain(|name| !taken.contains(name));
            assert_eq!(
                known.into_iter().collect::<Vec<_>>(),
                [OUTPUTS],
                "only the outputs are taken by nobody"
            );
        });
    }

    #[test]
    fn raw_inputs_are_normalised_and_scaled_first() {
        with_everything(|model| {
            let (_, graph) = read(model);
            let operators: Vec<_> = graph.node.iter().map(|node| &node.op_type[..]).collect();
            assert_eq!(operators[..4], ["Sub", "Div", "Mul", "Gemm"]);
            assert_eq!(graph.node[0].input, [INPUTS, "normalization/offset"]);

            let plain = Exported { normalization: None, scale: 1.0, ..model.clone() };
            let (_, graph) = read(&plain);
            assert_eq!((&graph.node[0].op_type[..], &graph.node[0].input[0][..]), ("Gemm", INPUTS));
        });
    }

    #[test]
    fn tensors_names_and_versions_read_back() {
        with_everything(|model| {
            let (file, graph) = read(model);
            assert_eq!((file.ir_version, file.opset_import[0].version), (IR_VERSION, OPERATORS));
            for (name, tensor) in model.tensors() {
                let found = graph.initializer.iter().find(|constant| constant.name == name).unwrap();
                let shape: Vec<_> = found.dims.iter().map(|&side| side as usize).collect();
                let values: Vec<f32> = bytemuck::pod_collect_to_vec(&found.raw_data);
                assert_eq!((shape, &values[..]), (tensor.shape.clone(), tensor.values), "{name}");
            }
            let width = |info: &ValueInfoProto| {
                let shape = info.r#type.clone().unwrap().tensor_type.unwrap().shape.unwrap();
                shape.dim.into_iter().map(|side| side.value.unwrap()).collect::<Vec<_>>()
            };
            let batch = || Side::DimParam("batch".into());
            assert_eq!(width(&graph.input[0]), [batch(), Side::DimValue(4)]);
            assert_eq!(width(&graph.output[0]), [batch(), Side::DimValue(2)]);
            let classes = file.metadata_props.iter().find(|entry| entry.key == "class_names").unwrap();
            assert_eq!(classes.value, r#"["chèvre","loup"]"#);
        });
    }
}
