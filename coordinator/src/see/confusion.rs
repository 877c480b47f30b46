//! A confusion matrix as tables: the figures of each class, and what its samples are taken for.

use millefeuille_core::learn::metrics::Confusion;

use super::table::{Column, Table};

/// With more classes a matrix is not shown: nobody reads it.
const MOST_CLASSES: usize = 30;

/// The figures by class, then the matrix: a row for each class, a column for each prediction. Both fit into `columns`.
pub fn tables(confusion: &Confusion, columns: usize) -> String {
    let text = by_class(confusion).fitting(columns);
    let classes = confusion.matrix.len();
    if classes > MOST_CLASSES {
        return format!("{text}\nThe confusion matrix of {classes} classes is in `evaluate --json`.\n");
    }
    let header = "Confusion matrix (a row for each class, a column for each prediction):";
    format!("{text}\n{header}\n{}", matrix(confusion, columns))
}

fn by_class(confusion: &Confusion) -> Table<'static> {
    let mut table = Table::new(["class", "precision", "recall", "f1_score", "samples"].map(Column::Right));
    for of in confusion.by_class() {
        let figures = [of.precision, of.recall, of.f1_score].map(|figure| format!("{figure:.4}"));
        table.row([of.class.to_string()].into_iter().chain(figures).chain([of.samples.to_string()]));
    }
    table
}

fn matrix(confusion: &Confusion, columns: usize) -> String {
    let names: Vec<String> = (0..confusion.matrix.len()).map(|class| class.to_string()).collect();
    let mut table =
        Table::new(["class"].into_iter().chain(names.iter().map(String::as_str)).map(Column::Right));
    for (name, row) in names.iter().zip(&confusion.matrix) {
        table.row(std::iter::once(name.clone()).chain(row.iter().map(ToString::to_string)));
    }
    table.fitting(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_is_two_tables() {
        let confusion = Confusion { matrix: vec![vec![980, 20], vec![5, 95]] };
        let expected = "class  precision  recall  f1_score  samples\n    \
                            0     0.9949  0.9800    0.9874     1000\n    \
                            1     0.8261  0.9500    0.8837      100\n\n\
                        Confusion matrix (a row for each class, a column for each prediction):\n\
                        class    0   1\n    0  980  20\n    1    5  95\n";
        assert_eq!(tables(&confusion, 80), expected);
    }

    #[test]
    fn a_large_matrix_is_for_programs() {
        let confusion = Confusion { matrix: vec![vec![1; 31]; 31] };
        let text = tables(&confusion, 80);
        assert!(text.ends_with("The confusion matrix of 31 classes is in `evaluate --json`.\n"), "{text}");
    }
}
