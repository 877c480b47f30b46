//! The history of a training as a table: the figures after each epoch.

use millefeuille_core::view::EpochRow;

use super::table::{Column, Table};

/// The history as a table of four decimals; what was not measured is a `-`.
pub fn table(rows: &[EpochRow]) -> String {
    let mut table = Table::new(
        ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy", "seconds"]
            .map(Column::Right),
    );
    for row in rows {
        let measured = [Some(row.loss), Some(row.accuracy), row.val_loss, row.val_accuracy];
        let tested = [Some(row.test_loss), Some(row.test_accuracy), Some(row.seconds)];
        let figures = measured.into_iter().chain(tested).map(four_decimals);
        table.row(std::iter::once(row.epoch.to_string()).chain(figures));
    }
    table.to_string()
}

fn four_decimals(figure: Option<f64>) -> String {
    figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.4}"))
}
