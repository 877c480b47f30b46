//! The history of a training as a table: the figures after each epoch.

use millefeuille_core::view::{EpochMetric, EpochRow};

use super::figure::metric_names;
use super::table::{Column, Table};

/// The history as a table with four decimals, with the metrics that the job asks for; `-` if a value was not
/// measured. It fits into `columns`.
pub fn table(rows: &[EpochRow], columns: usize) -> String {
    let metrics = metric_names(rows);
    // Without a validation split its columns stay, as they always did; without a test set they would always be empty.
    let has_test = rows.iter().any(|row| row.test_loss.is_some());
    let splits = &SPLITS[..if has_test { 3 } else { 2 }];
    let of_split = |split: &Split| {
        let names = std::iter::once("loss").chain(metrics.iter().map(String::as_str));
        names.map(|name| format!("{}{name}", split.prefix)).collect::<Vec<_>>()
    };
    let names: Vec<String> = splits.iter().flat_map(of_split).collect();
    let all = ["epoch"].into_iter().chain(names.iter().map(String::as_str)).chain(["seconds"]);
    let mut table = Table::new(all.map(Column::Right));
    for row in rows {
        let mut cells = vec![row.epoch.to_string()];
        for split in splits {
            cells.push(four_decimals((split.loss)(row)));
            let figure = |name: &String| row.metric(name).and_then(|metric| (split.metric)(&metric));
            cells.extend(metrics.iter().map(|name| four_decimals(figure(name))));
        }
        cells.push(four_decimals(Some(row.seconds)));
        table.row(cells);
    }
    table.fitting(columns)
}

/// What a row has of a split.
struct Split {
    prefix: &'static str,
    loss: fn(&EpochRow) -> Option<f64>,
    metric: fn(&EpochMetric) -> Option<f64>,
}

const SPLITS: [Split; 3] = [
    Split { prefix: "", loss: |row| Some(row.loss), metric: |metric| metric.train },
    Split { prefix: "val_", loss: |row| row.val_loss, metric: |metric| metric.validation },
    Split { prefix: "test_", loss: |row| row.test_loss, metric: |metric| metric.test },
];

fn four_decimals(figure: Option<f64>) -> String {
    figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.4}"))
}
