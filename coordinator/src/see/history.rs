//! The history of a training as a table: the figures after each epoch.

use millefeuille_core::view::EpochRow;

use super::table::{Column, Table};

/// The history as a table with four decimals, with the metrics that the job asks for; `-` if a value was not
/// measured. It fits into `columns`.
pub fn table(rows: &[EpochRow], columns: usize) -> String {
    let is_asked_for = |figure: Figure| rows.iter().any(|row| figure(row).is_some());
    // Without a validation split its columns stay, as they always did; without a test set they would always be empty.
    let has = [("accuracy", is_asked_for(|row| row.accuracy)), ("test_", is_asked_for(|row| row.test_loss))];
    let is_shown = |name: &str| has.iter().all(|(part, has)| *has || !name.contains(part));
    let shown: Vec<_> = COLUMNS.iter().filter(|(name, _)| is_shown(name)).collect();
    let names = shown.iter().map(|(name, _)| *name);
    let mut table = Table::new(["epoch"].into_iter().chain(names).map(Column::Right));
    for row in rows {
        let figures = shown.iter().map(|(_, figure)| four_decimals(figure(row)));
        table.row(std::iter::once(row.epoch.to_string()).chain(figures));
    }
    table.fitting(columns)
}

/// A figure of an epoch, if it was measured.
type Figure = fn(&EpochRow) -> Option<f64>;

/// The columns, with the figure that each shows.
const COLUMNS: [(&str, Figure); 7] = [
    ("loss", |row| Some(row.loss)),
    ("accuracy", |row| row.accuracy),
    ("val_loss", |row| row.val_loss),
    ("val_accuracy", |row| row.val_accuracy),
    ("test_loss", |row| row.test_loss),
    ("test_accuracy", |row| row.test_accuracy),
    ("seconds", |row| Some(row.seconds)),
];

fn four_decimals(figure: Option<f64>) -> String {
    figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.4}"))
}
