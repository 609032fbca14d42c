//! The best epoch of a run so far.

use super::held_out::Selection;
use lowrank::nn::DistilBert;
use lowrank::tensor::Tensor;
use lowrank::tensor::safetensors::SafeTensors;
use lowrank::{Error, Result};

/// The best epoch: its figure, its number from 1, and its parameters.
pub struct Best {
    pub value: f64,
    pub epoch: usize,
    values: Vec<Tensor>,
}

/// The parameters of the model.
pub fn values(model: &DistilBert) -> Vec<Tensor> {
    model.parameters().iter().map(|p| p.value().clone()).collect()
}

/// Gives the model these parameters.
pub fn set_values(model: &mut DistilBert, values: &[Tensor]) {
    model.parameters_mut().into_iter().zip(values).for_each(|(p, value)| p.set(value.clone()));
}

/// A number that was saved as text.
pub fn number<T: std::str::FromStr>(file: &SafeTensors, key: &str) -> Result<T> {
    let number = file.metadata().get(key).and_then(|text| text.parse().ok());
    number.ok_or_else(|| Error::file(file.path(), key, "is missing, or no number: the saved state is damaged"))
}

impl Best {
    /// Replaces the best epoch by this one if it is better. Returns whether it was.
    pub fn update(best: &mut Option<Best>, selection: &Selection, value: f64, epoch: usize, model: &DistilBert) -> bool {
        let better = best.as_ref().is_none_or(|best| selection.metric.is_better(value, best.value));
        if better {
            *best = Some(Best { value, epoch, values: values(model) });
        }
        better
    }

    /// Gives the model the parameters of the best epoch.
    pub fn restore(&self, model: &mut DistilBert) {
        set_values(model, &self.values);
    }

    /// The texts that are saved, by their names.
    pub fn saved_texts(&self) -> [(String, String); 2] {
        [("best".to_string(), self.value.to_string()), ("best_epoch".to_string(), self.epoch.to_string())]
    }

    /// The tensors that are saved, by their names.
    pub fn saved_tensors(&self, model: &DistilBert) -> Vec<(String, Tensor)> {
        let tensor = |(p, value): (&&lowrank::autograd::Parameter, &Tensor)| (format!("best.{}", p.name()), value.clone());
        model.parameters().iter().zip(&self.values).map(tensor).collect()
    }

    /// Reads what was saved; `None` if there was no best epoch. `measured` is the number of measured epochs: older versions did not save which was best.
    ///
    /// # Errors
    /// If something is missing or damaged.
    pub fn read(file: &SafeTensors, model: &DistilBert, measured: usize) -> Result<Option<Best>> {
        if !file.metadata().contains_key("best") {
            return Ok(None);
        }
        let value = |p: &&lowrank::autograd::Parameter| {
            let name = format!("best.{}", p.name());
            let value = file.tensor(&name)?;
            match value.shape() == p.value().shape() && value.dtype() == p.value().dtype() {
                true => value.to_device_of(p.value()),
                false => Err(Error::file(file.path(), format!("tensor {name:?}"), "has another shape or type than the model's")),
            }
        };
        let values = model.parameters().iter().map(value).collect::<Result<_>>()?;
        let epoch = if file.metadata().contains_key("best_epoch") { number(file, "best_epoch")? } else { measured };
        Ok(Some(Best { value: number(file, "best")?, epoch, values }))
    }
}
