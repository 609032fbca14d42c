//! Builds a graph node by node. A value is known by its name, which is that of its node.

use super::proto::{self, Attribute, Dim, FLOAT, Graph, INT64, Node, Shape, Tensor, TensorType, Type, ValueInfo};
use lowrank::nn::Weight;
use lowrank::tensor::DType;
use lowrank::{Error, Result};
use std::collections::BTreeSet;

/// Most bytes of a protobuf message, in any language.
const LARGEST: usize = i32::MAX as usize;

/// A setting of an operator.
pub enum Setting<'a> {
    Float(&'a str, f32),
    Int(&'a str, i64),
    Ints(&'a str, &'a [i64]),
}

/// A graph that is being built.
#[derive(Default)]
pub struct Builder {
    graph: Graph,
    /// Names of the constants that are in the graph.
    constants: BTreeSet<String>,
    bytes: usize,
}

/// A size of an input or output.
pub enum Size<'a> {
    Fixed(usize),
    Free(&'a str),
}

impl Builder {
    /// Applies an operator. Returns the name of its value, which is `name`.
    pub fn node(&mut self, op: &str, name: &str, inputs: &[&str], settings: &[Setting]) -> String {
        let attribute = settings.iter().map(|setting| {
            let mut attribute = Attribute::default();
            let (name, kind) = match setting {
                Setting::Float(name, value) => {
                    attribute.f = Some(*value);
                    (name, proto::ATTRIBUTE_FLOAT)
                }
                Setting::Int(name, value) => {
                    attribute.i = Some(*value);
                    (name, proto::ATTRIBUTE_INT)
                }
                Setting::Ints(name, values) => {
                    attribute.ints = values.to_vec();
                    (name, proto::ATTRIBUTE_INTS)
                }
            };
            Attribute { name: Some(name.to_string()), kind: Some(kind), ..attribute }
        });
        self.graph.node.push(Node {
            input: inputs.iter().map(|input| input.to_string()).collect(),
            output: vec![name.to_string()],
            name: Some(name.to_string()),
            op_type: Some(op.to_string()),
            attribute: attribute.collect(),
        });
        name.to_string()
    }

    fn constant(&mut self, name: &str, dims: &[usize], data_type: i32, raw_data: Vec<u8>) -> Result<String> {
        if self.constants.insert(name.to_string()) {
            self.bytes += raw_data.len();
            if self.bytes > LARGEST {
                return Err(Error::invalid("export: the weights have more than 2 GB, which an ONNX file cannot hold"));
            }
            let dims = dims.iter().map(|&n| n as i64).collect();
            self.graph.initializer.push(Tensor {
                dims,
                data_type: Some(data_type),
                name: Some(name.to_string()),
                raw_data: Some(raw_data),
            });
        }
        Ok(name.to_string())
    }

    /// A constant of f32.
    pub fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) -> Result<String> {
        self.constant(name, dims, FLOAT, values.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    /// A scalar.
    pub fn scalar(&mut self, name: &str, value: f64) -> Result<String> {
        self.floats(name, &[], &[value as f32])
    }

    /// A constant list of i64.
    pub fn ints(&mut self, name: &str, values: &[i64]) -> Result<String> {
        self.constant(name, &[values.len()], INT64, values.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    /// A weight under its own name.
    pub fn weight(&mut self, weight: &Weight) -> Result<String> {
        let value = weight.value()?.to_dtype(DType::F32)?;
        self.floats(weight.name(), value.dims(), value.host::<f32>()?)
    }

    /// A matrix W `[out, in]` as `[in, out]`, so that a product with it on the right is x Wᵀ.
    pub fn transposed(&mut self, weight: &Weight) -> Result<String> {
        let value = weight.value()?.to_dtype(DType::F32)?;
        let (w, rows, cols) = (value.host::<f32>()?, value.shape().rows(), value.shape().cols());
        let turned: Vec<f32> = (0..cols).flat_map(|j| (0..rows).map(move |i| w[i * cols + j])).collect();
        self.floats(&format!("{}.transposed", weight.name()), &[cols, rows], &turned)
    }

    /// An input of token ids or of the like.
    pub fn input(&mut self, name: &str, sizes: &[Size]) {
        self.graph.input.push(value_info(name, INT64, sizes));
    }

    /// The file: the graph with this output of f32.
    pub fn finish(mut self, output: &str, sizes: &[Size]) -> proto::Model {
        self.graph.output.push(value_info(output, FLOAT, sizes));
        self.graph.name = Some("lowrank".to_string());
        proto::Model {
            // The IR version that came with the opset.
            ir_version: Some(8),
            producer_name: Some("lowrank".to_string()),
            producer_version: Some(env!("CARGO_PKG_VERSION").to_string()),
            graph: Some(self.graph),
            // The first opset with LayerNormalization.
            opset_import: vec![proto::OperatorSet { domain: Some(String::new()), version: Some(17) }],
        }
    }
}

fn value_info(name: &str, elem_type: i32, sizes: &[Size]) -> ValueInfo {
    let dim = sizes.iter().map(|size| match size {
        Size::Fixed(n) => Dim { value: Some(*n as i64), param: None },
        Size::Free(name) => Dim { value: None, param: Some(name.to_string()) },
    });
    let tensor = TensorType { elem_type: Some(elem_type), shape: Some(Shape { dim: dim.collect() }) };
    ValueInfo { name: Some(name.to_string()), of: Some(Type { tensor: Some(tensor) }) }
}
