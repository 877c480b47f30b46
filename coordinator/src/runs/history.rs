//! `history.jsonl`: one line per epoch.
//!
//! A line keeps every bit of a number: it is written in the shortest form that reads back as the same `f64`. JSON has no
//! NaN and no infinity, so these are written as `null`. Training stops at the first such value, so the
//! row is only ever displayed.

use millefeuille_core::view::EpochRow;

/// The row as one line of JSON, without a line feed.
pub fn to_line(row: &EpochRow) -> String {
    serde_json::to_string(row).expect("a row of numbers and one string always has a JSON form")
}

/// Reads a line that [`to_line`] wrote. Unknown keys are ignored, so that a later version may add some.
///
/// # Errors
/// When the line is not JSON or lacks a field. The caller knows which file and line to name.
pub fn from_line(line: &str) -> Result<EpochRow, serde_json::Error> {
    serde_json::from_str(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> EpochRow {
        EpochRow {
            epoch: 1,
            loss: 1.0 / 3.0,
            accuracy: Some(0.1 + 0.2),
            val_loss: Some(f64::MIN_POSITIVE),
            val_accuracy: None,
            test_loss: 1.5,
            test_accuracy: Some(0.5),
            seconds: 0.25,
            weights_sha256: "0123456789abcdef".into(),
        }
    }

    #[test]
    fn a_line_has_the_contracts_keys_and_keeps_every_bit() {
        let line = to_line(&row());
        assert!(!line.contains('\n'));
        let expected = "{\"epoch\":1,\"loss\":0.3333333333333333,\"accuracy\":0.30000000000000004,\
                        \"val_loss\":2.2250738585072014e-308,\"val_accuracy\":null,\"test_loss\":1.5,\
                        \"test_accuracy\":0.5,\"seconds\":0.25,\"weights_sha256\":\"0123456789abcdef\"}";
        assert_eq!(line, expected);
        assert_eq!(from_line(&line).unwrap(), row());
    }

    #[test]
    fn what_is_not_finite_is_null_and_reads_back_as_nan() {
        let line = to_line(&EpochRow { loss: f64::NAN, ..row() });
        assert!(line.contains("\"loss\":null"), "{line}");
        assert!(from_line(&line).unwrap().loss.is_nan());
        assert!(from_line("{\"epoch\":1}").is_err());
    }
}
