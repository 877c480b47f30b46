//! Terminal output, compared with expected text.

#![allow(clippy::unwrap_used, reason = "clippy exempts test functions but not their helpers")]

use std::ffi::OsStr;
use std::time::Duration;

use millefeuille_coordinator::see::digits::{self, Tile};
use millefeuille_coordinator::see::history;
use millefeuille_coordinator::see::picture::Grey;
use millefeuille_coordinator::see::progress::{Progress, Style};
use millefeuille_coordinator::see::summary::{Layer, summary};
use millefeuille_coordinator::see::table::{Column, Table};
use millefeuille_coordinator::see::{Ink, chart, data, plots};
use millefeuille_core::data::schema::{Features, Schema, Target};
use millefeuille_core::view::EpochRow;

/// Rows 5 to 24 of MNIST's first training image, a 5, in hexadecimal; the others are empty.
const FIVE: &str = "
    000000000000000000000000031212127e88af1aa6fff77f00000000
    00000000000000001e245e9aaafdfdfdfdfde1acfdf2c34000000000
    0000000000000031eefdfdfdfdfdfdfdfdfb5d525238270000000000
    0000000000000012dbfdfdfdfdfdc6b6f7f100000000000000000000
    0000000000000000509c6bfdfdcd0b002b9a00000000000000000000
    0000000000000000000e019afd5a0000000000000000000000000000
    00000000000000000000008bfdbe0200000000000000000000000000
    00000000000000000000000bbefd4600000000000000000000000000
    00000000000000000000000023f1e1a06c0100000000000000000000
    0000000000000000000000000051f0fdfd7719000000000000000000
    00000000000000000000000000002dbafdfd961b0000000000000000
    000000000000000000000000000000105dfcfdbb0000000000000000
    0000000000000000000000000000000000f9fdf94000000000000000
    00000000000000000000000000002e82b7fdfdcf0200000000000000
    0000000000000000000000002794e5fdfdfdfab60000000000000000
    000000000000000000001872ddfdfdfdfdc94e000000000000000000
    00000000000000001742d5fdfdfdfdc6510200000000000000000000
    00000000000012abdbfdfdfdfdc35009000000000000000000000000
    0000000037ace2fdfdfdfdf4850b0000000000000000000000000000
    0000000088fdfdfdd487841000000000000000000000000000000000";

fn five() -> Grey {
    let rows = FIVE.split_whitespace().flat_map(|row| hex::decode(row).unwrap());
    let mut pixels = vec![0; 784];
    rows.enumerate().for_each(|(index, grey)| pixels[5 * 28 + index] = grey);
    Grey::new(28, 28, pixels).unwrap()
}

/// The article's five epochs, as the design's table has them.
fn article() -> Vec<EpochRow> {
    let figures = [
        (1.7161, 0.4407, 1.0014, 0.8277),
        (0.9448, 0.7340, 0.5955, 0.8803),
        (0.6777, 0.8140, 0.4454, 0.8982),
        (0.5533, 0.8485, 0.3726, 0.9076),
        (0.4818, 0.8672, 0.3311, 0.9131),
    ];
    let row = |(epoch, (loss, accuracy, val_loss, val_accuracy))| EpochRow {
        epoch,
        loss,
        accuracy: Some(accuracy),
        val_loss: Some(val_loss),
        val_accuracy: Some(val_accuracy),
        test_loss: Some(val_loss + 0.0047),
        test_accuracy: Some(val_accuracy - 0.0002),
        seconds: 0.4,
        weights_sha256: "0123456789abcdef".repeat(4),
        ..EpochRow::default()
    };
    (1..).zip(figures).map(row).collect()
}

fn without_validation(mut rows: Vec<EpochRow>) -> Vec<EpochRow> {
    rows.iter_mut().for_each(|row| (row.val_loss, row.val_accuracy) = (None, None));
    rows
}

/// Compares text with a block that begins on a new line. How far either is indented as a whole does not
/// matter.
fn assert_text(text: &str, block: &str) {
    let (got, expected) = (dedented(text), dedented(block.strip_prefix('\n').unwrap_or(block)));
    assert!(got == expected, "\n--- got ---\n{got}\n--- expected ---\n{expected}");
}

fn dedented(text: &str) -> String {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let least = text.lines().filter(|line| !line.trim().is_empty()).map(indent).min().unwrap_or(0);
    let lines: Vec<&str> = text.trim_end().lines().map(|line| line.get(least..).unwrap_or("")).collect();
    lines.join("\n")
}

// ---- ink and tables ----

#[test]
fn colour_is_used_only_on_terminals_that_allow_it() {
    let (on, off) = (Ink::Colour, Ink::Plain);
    let text = |text| Some(OsStr::new(text));
    assert_eq!(Ink::choose(true, None, text("xterm-256color")), on);
    assert_eq!(Ink::choose(true, text(""), None), on);
    assert_eq!(Ink::choose(true, text("1"), None), off);
    assert_eq!(Ink::choose(true, None, text("dumb")), off);
    assert_eq!(Ink::choose(false, None, text("xterm")), off);
}

#[test]
fn a_table_aligns_words_left_and_numbers_right() {
    let mut table = Table::new([Column::Left("worker"), Column::Right("samples/s"), Column::Left("state")]);
    table.row(["alpha", "120000", "working"]).row(["β", "7"]).row(["evil\x1b[2J\n", "1", "gone"]);
    assert_text(
        &table.to_string(),
        "
        worker     samples/s  state
        alpha         120000  working
        β                  7
        evil�[2J�          1  gone
        ",
    );
}

#[test]
fn a_job_that_asks_for_no_metric_is_shown_its_loss_alone() {
    let mut rows = article();
    for row in &mut rows {
        (row.accuracy, row.val_accuracy, row.test_accuracy) = (None, None, None);
    }
    let table = history::table(&rows[..1], 80);
    assert_eq!(table.lines().next().unwrap(), "epoch    loss  val_loss  test_loss  seconds");
    let drawn = chart::chart(&rows, 80, Ink::Plain);
    assert!(drawn.contains("loss by epoch") && !drawn.contains("accuracy"), "{drawn}");
    let plots = plots::plots(&rows).unwrap();
    assert_eq!(plots.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["loss.svg", "history.svg"]);
    let mut bar = Vec::new();
    Progress::to_writer(&mut bar, Style::Plain, 5, 96).epoch(&rows[0]);
    assert!(!String::from_utf8(bar).unwrap().contains("accuracy"));
}

// ---- the data and the model ----

#[test]
fn the_data_is_shown_with_shapes_and_one_hot_rows() {
    let one_hot = |label: u32| (0..10).map(|class| f32::from(u8::from(class == label))).collect();
    let first = [5, 0, 4].map(|label| (label, one_hot(label))).to_vec();
    let mut view = data::Overview {
        train: 60_000,
        test: 10_000,
        schema: Schema::new(Features::image(28, 28), Target::Class { classes: 10 }),
        values: (0.0, 255.0),
        columns: Vec::new(),
        classes: Vec::new(),
        targets: Vec::new(),
        validation_split: 0.2,
        validation: 12_000,
        first,
    };
    assert_text(
        &data::overview(&view, 80),
        "
        x_train: (60000, 28, 28) uint8 → (60000, 784) float32, values 0 … 255
        y_train: (60000,) uint8 → (60000, 10) float32, one-hot
        x_test:  (10000, 28, 28) uint8 → (10000, 784) float32, values 0 … 255
        y_test:  (10000,) uint8 → (10000, 10) float32, one-hot
        split:   48000 train / 12000 validation (the last 20 %)

        the first 3 training labels and their one-hot rows:
          5  [0. 0. 0. 0. 0. 1. 0. 0. 0. 0.]
          0  [1. 0. 0. 0. 0. 0. 0. 0. 0. 0.]
          4  [0. 0. 0. 0. 1. 0. 0. 0. 0. 0.]
        ",
    );
    view.validation = 0;
    assert!(data::overview(&view, 80).contains("split:   60000 train, no validation\n"));
    (view.validation, view.validation_split) = (4_200, 0.07);
    assert!(data::overview(&view, 80).contains("(the last 7 %)\n"));
}

#[test]
fn the_summary_is_that_of_keras() {
    let layer = |name: &str, kind: &str, output: &str, params| Layer {
        name: name.to_owned(),
        kind: kind.to_owned(),
        output: output.to_owned(),
        params,
    };
    let layers = [
        layer("dense", "Dense", "(None, 256)", 200_960),
        layer("dense_1", "Dense", "(None, 128)", 32_896),
        layer("dropout", "Dropout", "(None, 128)", 0),
        layer("dense_2", "Dense", "(None, 10)", 1_290),
    ];
    assert_text(
        &summary("sequential", &layers, 80),
        "
        Model: \"sequential\"
        ┏━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━┓
        ┃ Layer (type)                    ┃ Output Shape           ┃       Param # ┃
        ┡━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━┩
        │ dense (Dense)                   │ (None, 256)            │       200,960 │
        ├─────────────────────────────────┼────────────────────────┼───────────────┤
        │ dense_1 (Dense)                 │ (None, 128)            │        32,896 │
        ├─────────────────────────────────┼────────────────────────┼───────────────┤
        │ dropout (Dropout)               │ (None, 128)            │             0 │
        ├─────────────────────────────────┼────────────────────────┼───────────────┤
        │ dense_2 (Dense)                 │ (None, 10)             │         1,290 │
        └─────────────────────────────────┴────────────────────────┴───────────────┘
         Total params: 235,146 (918.54 KB)
         Trainable params: 235,146 (918.54 KB)
         Non-trainable params: 0 (0.00 B)
        ",
    );
}

#[test]
fn a_narrow_summary_and_overview_keep_every_word() {
    let layer = Layer { name: "d".into(), kind: "Dense".into(), output: "(None, 10)".into(), params: 7_850 };
    for (columns, widest) in [(80, 76), (60, 60), (45, 45), (20, 41)] {
        let text = summary("sequential", std::slice::from_ref(&layer), columns);
        let table = text.lines().skip(1).take(5);
        assert!(table.map(|line| line.chars().count()).all(|width| width == widest), "{columns}:\n{text}");
        assert!(
            text.contains("d (Dense)") && text.contains("(None, 10)") && text.contains("7,850"),
            "{text}"
        );
    }
}

// ---- history ----

#[test]
fn the_history_as_a_table() {
    assert_text(
        &history::table(&article()[..2], 82),
        "
        epoch    loss  accuracy  val_loss  val_accuracy  test_loss  test_accuracy  seconds
            1  1.7161    0.4407    1.0014        0.8277     1.0061         0.8275   0.4000
            2  0.9448    0.7340    0.5955        0.8803     0.6002         0.8801   0.4000
        ",
    );
    assert_text(
        &history::table(&without_validation(article())[..1], usize::MAX),
        "
        epoch    loss  accuracy  val_loss  val_accuracy  test_loss  test_accuracy  seconds
            1  1.7161    0.4407         -             -     1.0061         0.8275   0.4000
        ",
    );
}

#[test]
fn the_history_as_a_chart_in_80_columns() {
    let text = chart::chart(&article(), 80, Ink::Plain);
    assert_text(&text, CHART);
    assert!(text.lines().all(|line| line.chars().count() <= 80));
}

const CHART: &str = "
                   accuracy by epoch                          loss by epoch
       1.0 ┤                                    2.0 ┤
           │                          ⣀⡀○           │  ●
       0.9 ┤        ○⠄ ⠤⠄ ⠒○ ⠒⠂ ⠉⠁○⠉⠁  ⣀●           │  ⠘⢄
           │  ○⠄ ⠊⠁          ⣀⣀⠤⠤⠒●⠒⠉⠉⠉         1.5 ┤   ⠈⢢
       0.8 ┤            ⢀⡠⠔●⠉                       │     ⠱⡀
           │        ●⡠⠔⠊⠁                           │      ⠑⡄
       0.7 ┤       ⢠⠃                           1.0 ┤  ○⡀   ⠈●
           │      ⢠⠃                                │     ⢄   ⠉⠒⠤⣀
       0.6 ┤     ⢠⠃                                 │      ⠁ ⡀    ⠉⠒●⠤⣀⣀
           │    ⢠⠃                              0.5 ┤        ○⠁ ⠢⠄ ⣀    ⠉⠉⠒●⠒⠤⠤⠤⣀●
       0.5 ┤   ⢠⠃                                   │               ○ ⠉⠁ ⠒⠂○⠒⠄ ⠤⡀○
           │  ⢠⠃                                    │
       0.4 ┤  ●                                 0.0 ┤
           └──┴─────┴──────┴──────┴─────┴──         └──┴─────┴──────┴──────┴─────┴──
              1     2      3      4     5              1     2      3      4     5
               ● training  ○ validation                 ● training  ○ validation";

#[test]
fn charts_and_plots_accept_any_history() {
    let mut diverged = article();
    (diverged[2].loss, diverged[4].loss, diverged[1].val_loss) =
        (f64::NAN, f64::INFINITY, Some(f64::NEG_INFINITY));
    let mut constant = article();
    constant.iter_mut().for_each(|row| (row.loss, row.val_loss, row.accuracy) = (0.0, Some(0.0), Some(1.0)));
    let mut huge = article();
    (huge[0].loss, huge[1].loss, huge[2].loss) = (f64::MAX, 9e99, -9e99);
    let tiny: Vec<EpochRow> =
        article().into_iter().map(|row| EpochRow { loss: row.loss * 1e-300, ..row }).collect();
    let nothing_finite: Vec<EpochRow> =
        article().into_iter().map(|row| EpochRow { loss: f64::NAN, ..row }).collect();
    let long = (1..=3000).map(|epoch| EpochRow { epoch, ..article().remove(0) }).collect();
    let late = vec![EpochRow { epoch: u64::MAX, ..article().remove(0) }];
    let one = article()[..1].to_vec();
    let blind = without_validation(nothing_finite);
    for rows in [vec![], one, diverged, constant, huge, tiny, blind, long, late] {
        for columns in [0, 20, 71, 72, 80, 200] {
            let text = chart::chart(&rows, columns, Ink::Plain);
            let limit = columns.max(35);
            assert!(text.lines().all(|line| line.chars().count() <= limit), "wider than {limit}:\n{text}");
        }
        for (name, svg) in plots::plots(&rows).unwrap() {
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{name}: {svg}");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{name}: {svg}");
        }
    }
}

#[test]
fn plots_are_labelled_in_text_and_told_apart_without_colour() {
    let [(accuracy_name, accuracy), (loss_name, loss), (both_name, both)] =
        <[_; 3]>::try_from(plots::plots(&article()).unwrap()).unwrap();
    assert_eq!([accuracy_name, loss_name, both_name], ["accuracy.svg", "loss.svg", "history.svg"]);
    let labels =
        |svg: &str| svg.lines().filter(|line| !line.starts_with('<')).map(str::to_owned).collect::<Vec<_>>();
    for word in ["accuracy", "epoch", "training", "validation", "0.9", "5"] {
        assert!(labels(&accuracy).contains(&word.to_owned()), "{word} is missing of {:?}", labels(&accuracy));
    }
    assert!(labels(&loss).contains(&"loss".to_owned()));
    assert!(labels(&both).contains(&"loss".to_owned()) && labels(&both).contains(&"accuracy".to_owned()));
    // A disc at each epoch and one in the legend.
    assert_eq!(accuracy.matches("<circle").count(), 6);
    let alone = &plots::plots(&without_validation(article())).unwrap()[0].1;
    assert!(!labels(alone).contains(&"validation".to_owned()));
}

// ---- progress ----

fn progress(style: Style) -> Progress<Vec<u8>> {
    Progress::to_writer(Vec::new(), style, 5, 96)
}

fn written(progress: Progress<Vec<u8>>) -> String {
    String::from_utf8(progress.into_inner()).unwrap()
}

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn the_bar_is_drawn_in_place_and_ends_as_keras_ends_it() {
    let mut progress = progress(Style::Terminal(Ink::Plain));
    progress.step(1, 1, 2.3, &[("accuracy", 0.1)], MS(10));
    progress.step(1, 2, 2.3, &[("accuracy", 0.1)], MS(50)); // too early to draw
    progress.note("waiting for workers …");
    progress.step(1, 24, 2.0, &[("accuracy", 0.25)], MS(24 * 500));
    progress.epoch(&article()[0]);
    progress.finish();
    let text = written(progress);
    let lines: Vec<&str> = text.split_inclusive(['\r', '\n']).collect();
    assert_eq!(
        lines,
        [
            "Epoch 1/5\n",
            "\r",
            "\x1b[K\x1b[?7l 1/96 ──────────────────── 1s 10ms/step - accuracy: 0.1000 - loss: 2.3000\x1b[?7h\r",
            "\x1b[Kwaiting for workers …\n",
            "\r",
            "\x1b[K\x1b[?7l 1/96 ──────────────────── 1s 10ms/step - accuracy: 0.1000 - loss: 2.3000\x1b[?7h\r",
            "\x1b[K\x1b[?7l24/96 ━━━━━─────────────── 36s 500ms/step - accuracy: 0.2500 - loss: 2.0000\x1b[?7h\r",
            "\x1b[K96/96 ━━━━━━━━━━━━━━━━━━━━ 0s 4ms/step - accuracy: 0.4407 - loss: 1.7161\n",
            "      - val_accuracy: 0.8277 - val_loss: 1.0014\n",
        ]
    );
}

#[test]
fn the_bar_fits_into_any_width() {
    let drawn = |columns: usize| {
        let mut progress = progress(Style::Terminal(Ink::Plain));
        progress.fit(columns);
        progress.step(1, 24, 2.0, &[("accuracy", 0.25)], MS(24 * 500));
        let text = written(progress);
        let bar = text.split_once("\x1b[?7l").unwrap().1.split_once("\x1b[?7h").unwrap().0.to_string();
        assert!(bar.chars().count() <= columns, "{columns}: {bar}");
        bar
    };
    assert_eq!(drawn(200), "24/96 ━━━━━─────────────── 36s 500ms/step - accuracy: 0.2500 - loss: 2.0000");
    assert_eq!(drawn(60), "24/96 ━──── 36s 500ms/step - accuracy: 0.2500 - loss: 2.0000");
    assert_eq!(drawn(59), "24/96 ━──── 36s 500ms/step - accuracy: 0.2500");
    assert_eq!(drawn(30), "24/96 ━──── 36s 500ms/step");
    assert_eq!(drawn(20), "24/96 ━────");
}

#[test]
fn a_table_fits_into_a_terminal() {
    let history = |columns| history::table(&article()[..1], columns);
    assert_text(
        &history(81),
        "
        epoch   loss accuracy val_loss val_accuracy test_loss test_accuracy seconds
            1 1.7161   0.4407   1.0014       0.8277    1.0061        0.8275  0.4000
        ",
    );
    assert_text(
        &history(60),
        "
        epoch    loss  accuracy  val_loss  val_accuracy  test_loss
            1  1.7161    0.4407    1.0014        0.8277     1.0061

        epoch  test_accuracy  seconds
            1         0.8275   0.4000
        ",
    );
    let mut table = Table::new([Column::Left("id"), Column::Left("empty"), Column::Left("detail")]);
    table.row(["a-1", "", "it waits for three workers, and none has come"]);
    table.row(["日本-2", "", "none"]);
    assert_text(
        &table.fitting(30),
        "
        id      detail
        a-1     it waits for three
          workers, and none has come
        日本-2  none
        ",
    );
}

#[test]
fn the_bar_is_drawn_at_most_ten_times_a_second() {
    let mut progress = progress(Style::Terminal(Ink::Plain));
    (0..=96).for_each(|step| progress.step(1, step, 1.0, &[("accuracy", 0.5)], MS(step * 10)));
    // At 0, 100, … 900 ms, and the last step.
    assert_eq!(written(progress).matches('\r').count(), 11);
}

#[test]
fn an_unfinished_bar_is_kept() {
    let mut progress = progress(Style::Terminal(Ink::Colour));
    progress.step(3, 48, 1.0, &[("accuracy", 0.5)], MS(100));
    progress.finish();
    progress.finish();
    let text = written(progress);
    assert!(text.contains("\x1b[1m48/96\x1b[0m \x1b[32m━━━━━━━━━━\x1b[0m────────── 0s 2ms/step"), "{text:?}");
    assert!(text.ends_with("\x1b[?7h\n"));
}

#[test]
fn without_a_terminal_an_epoch_is_a_line() {
    let mut progress = progress(Style::Plain);
    progress.note("waiting for workers …");
    for row in without_validation(article()).iter().take(2) {
        progress.step(row.epoch, 10, 1.0, &[("accuracy", 0.5)], MS(10));
        progress.epoch(&EpochRow { seconds: 96.0 * row.epoch as f64, loss: row.loss * 1e-4, ..row.clone() });
    }
    progress.finish();
    assert_text(
        &written(progress),
        "
        waiting for workers …
        Epoch 1/5 - 1:36 1s/step - accuracy: 0.4407 - loss: 1.7161e-4
        Epoch 2/5 - 3:12 2s/step - accuracy: 0.7340 - loss: 9.4480e-5
        ",
    );
}

#[test]
fn silent_progress_prints_nothing() {
    let mut progress = progress(Style::Silent);
    progress.note("waiting");
    progress.step(1, 96, 1.0, &[("accuracy", 0.5)], MS(10));
    progress.epoch(&article()[0]);
    progress.finish();
    assert_eq!(written(progress), "");
}

// ---- digits ----

#[test]
fn ten_digits_stand_in_two_rows_of_80_columns() {
    let tile = |index| Tile::predicted(five(), if index == 8 { 6 } else { 5 }, 5);
    let tiles: Vec<Tile> = (0..10).map(tile).collect();
    let text = digits::terminal(&tiles, 80, Ink::Plain);
    assert!(text.lines().all(|line| line.chars().count() <= 80));
    assert_eq!(text.matches("5 ✓").count(), 9);
    assert_eq!(text.matches("6 ✗ (is 5)").count(), 1);
    assert_text(&digits::terminal(&tiles[7..9], 30, Ink::Plain), TWO_FIVES);
    assert!(digits::terminal(&tiles, 80, Ink::Colour).contains("\x1b[1;31m  6 ✗ (is 5)  \x1b[0m"));
}

const TWO_FIVES: &str = "

      ▄▄▄▄▄▄▟▌        ▄▄▄▄▄▄▟▌
      ▀▜█▘▀           ▀▜█▘▀
        ▀▙▄             ▀▙▄
         ▄▟█             ▄▟█
     ▄▄██▀▀          ▄▄██▀▀
    ▝▀▘             ▝▀▘
       5 ✓          6 ✗ (is 5)";

#[test]
fn greys_are_colours_of_half_blocks() {
    let image = Grey::new(2, 3, vec![0, 255, 10, 255, 7, 7]).unwrap();
    let text = digits::terminal(&[Tile::labelled(image, "5")], 80, Ink::Colour);
    let expected = "\x1b[38;2;0;0;0;48;2;10;10;10m▀\x1b[38;2;255;255;255;48;2;255;255;255m▀\x1b[0m\n\
                    \x1b[38;2;7;7;7;48;2;0;0;0m▀▀\x1b[0m\n5\n";
    assert_eq!(text, expected);
    assert_eq!(digits::terminal(&[], 80, Ink::Colour), "");
}

#[test]
fn an_svg_marks_a_wrong_prediction_with_more_than_colour() {
    let right = Tile::predicted(five(), 5, 5);
    let wrong = Tile::predicted(five(), 6, 5);
    let svg = digits::svg(&[right, wrong, Tile::labelled(five(), "<&>")]);
    assert_eq!(svg.matches("<image ").count(), 3);
    assert!(svg.contains("fill=\"#222222\">5 ✓</text>"));
    assert!(svg.contains("font-weight=\"bold\">6 ✗ (is 5)</text>"));
    assert!(svg.contains(">&lt;&amp;&gt;</text>"));
    assert!(svg.contains("data:image/png;base64,iVBORw0KGgo"));
    assert!(digits::svg(&[]).starts_with("<svg"));
}
