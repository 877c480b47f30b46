//! The tables of `docs/job.md` and of the README: what lies between `<!-- keys: SECTION -->` or `<!-- names: KIND -->` and `<!-- end -->`.

use millefeuille_core::job::keys::{Key, Limits, Names, SECTIONS, Section, Value};
use millefeuille_core::job::{Activation, DataFormat, Initializer, Loss};

const END: &str = "<!-- end -->";

/// The section that a page has no table of, if there is one: the line that begins it.
pub(crate) fn missing(page: &str) -> Option<String> {
    SECTIONS.iter().map(|section| marker("keys", section.name)).find(|marker| !page.contains(marker))
}

/// A page with its tables written anew.
///
/// # Panics
/// If a table has no end.
pub(crate) fn filled(page: &str) -> String {
    let mut filled = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        filled += &format!("{line}\n");
        if let Some(table) = table_of(line) {
            filled += &format!("{table}{END}\n");
            assert!(lines.any(|line| line == END), "{line} has no end");
        }
    }
    filled
}

fn marker(what: &str, name: &str) -> String {
    format!("<!-- {} -->", format!("{what}: {name}").trim_end())
}

/// The table that belongs below this line, if one does.
fn table_of(line: &str) -> Option<String> {
    let section = SECTIONS.iter().find(|section| line == marker("keys", section.name));
    section.map(keys).or_else(|| match line.strip_prefix("<!-- names: ")?.strip_suffix(" -->")? {
        "format" => Some(names(DataFormat::ALL, DataFormat::name, DataFormat::meaning)),
        "activation" => Some(names(Activation::ALL, Activation::name, Activation::meaning)),
        "initializer" => Some(names(Initializer::ALL, Initializer::name, Initializer::meaning)),
        "loss" => Some(names(Loss::ALL, Loss::name, Loss::meaning)),
        "all" => Some(overview()),
        _ => None,
    })
}

fn names<T: Copy>(all: &[T], name: fn(T) -> &'static str, meaning: fn(T) -> &'static str) -> String {
    let rows = all.iter().map(|&one| [code(name(one)), meaning(one).trim_end_matches('.').to_string()]);
    table(["name", "meaning"], rows)
}

/// What a job can say, in short: where it says it, the names that it can use, and Keras' words.
fn overview() -> String {
    let row = |what: &str, key: &str, names: Vec<String>, keras: &str| {
        [what.to_string(), code(key), names.join(", "), keras.to_string()]
    };
    let types = |section: &str| {
        let found = SECTIONS.iter().find(|other| other.name == section).expect("a section");
        found.kinds.iter().map(|kind| code(kind.name)).collect::<Vec<_>>()
    };
    let codes = |names: Vec<&str>| names.into_iter().map(code).collect::<Vec<_>>();
    let choices = |section: &str, name: &str| {
        let keys =
            SECTIONS.iter().filter(|other| other.name == section).flat_map(|found| &found.kinds[0].keys);
        match keys.into_iter().find(|key| key.name == name).map(|key| &key.value) {
            Some(Value::Name(names) | Value::Names(names)) => {
                let numbered = names.numbered.map(|(example, _)| example.to_string());
                names.listed.iter().cloned().chain(numbered).map(|name| code(&name)).collect()
            }
            other => panic!("{section}.{name} has no names: {other:?}"),
        }
    };
    let stopping = SECTIONS.iter().find(|other| other.name == "fit.early_stopping").expect("a section");
    table(
        ["", "key", "names", "in Keras"],
        [
            row("data", "data.format", choices("data", "format"), ""),
            row(
                "normalisation",
                "data.normalize",
                choices("data", "normalize"),
                "`Normalization`, `Rescaling`",
            ),
            row("layers", "layers", types("layers"), "`Dense`, `Dropout`, `LayerNormalization`"),
            row("activations", "layers.activation", choices("layers", "activation"), "the same"),
            row(
                "initialisers",
                "layers.kernel_initializer",
                choices("layers", "kernel_initializer"),
                "the same",
            ),
            row("regularisers", "layers.kernel_regularizer", codes(vec!["l1", "l2"]), "`L1L2`"),
            row("losses", "compile.loss", choices("compile", "loss"), "the same"),
            row("metrics", "compile.metrics", choices("compile", "metrics"), "the same, and scikit-learn's"),
            row(
                "optimizers",
                "compile.optimizer.type",
                types("compile.optimizer"),
                "`Adam`, `AdamW`, `RMSprop`, `SGD`, with the same parameters and clipping",
            ),
            row(
                "schedules",
                "compile.schedule.type",
                types("compile.schedule"),
                "`CosineDecay`, `ExponentialDecay`, `ReduceLROnPlateau`; PyTorch's `OneCycleLR`, `StepLR`",
            ),
            row("early stopping", "fit.early_stopping", codes(stopping.key_names()), "`EarlyStopping`"),
        ],
    )
}

fn keys(section: &Section) -> String {
    if !section.has_types() {
        let rows = section.kinds.iter().flat_map(|kind| &kind.keys);
        let rows = rows.map(|key| {
            let keras = key.keras.map(code).unwrap_or_default();
            [code(key.name), values(&key.value), default(key), meaning(key), keras]
        });
        return table(["key", "values", "default", "meaning", "in Keras"], rows);
    }
    let kinds = section.kinds.iter().map(|kind| {
        let meaning = kind.meaning.trim_end_matches('.');
        let default = if kind.is_default { " (the default)" } else { "" };
        [code(kind.name) + default, meaning.to_string()]
    });
    let mut rows: Vec<[String; 5]> = Vec::new();
    for (kind, key) in section.kinds.iter().flat_map(|kind| kind.keys.iter().map(move |key| (kind, key))) {
        let row = [code(key.name), code(kind.name), values(&key.value), default(key), meaning(key)];
        let same = |other: &&mut [String; 5]| other[0] == row[0] && other[2..] == row[2..];
        match rows.iter_mut().find(same) {
            Some(other) => other[1] += &format!(", {}", row[1]),
            None => rows.push(row),
        }
    }
    let keys = table(["key", "of", "values", "default", "meaning"], rows);
    format!("{}\n{keys}", table(["`type`", "meaning"], kinds))
}

fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | ")).replace("  ", " ");
    let rows = rows.into_iter().map(|row| line(&row.map(|cell| cell.replace('|', "\\|"))));
    let head = line(&head.map(str::to_string)) + &line(&[const { "---" }; N].map(str::to_string));
    head + &rows.collect::<String>()
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn default(key: &Key) -> String {
    match &key.default {
        None if key.is_required => "needed".to_string(),
        default => default.as_deref().map(code).unwrap_or_default(),
    }
}

fn meaning(key: &Key) -> String {
    let flag = key.flag.map(|flag| format!(" (`{flag}`)")).unwrap_or_default();
    format!("{}{flag}", key.meaning)
}

fn values(value: &Value) -> String {
    match value {
        Value::Text(_) => "text".to_string(),
        Value::Flag => "`true`, `false`".to_string(),
        Value::Whole(range) if *range.end() >= u32::MAX.into() => {
            format!("whole number from {}", range.start())
        }
        Value::Whole(range) => format!("whole number from {} to {}", range.start(), range.end()),
        Value::Number(limits) => format!("number{}", ends(*limits)),
        Value::Scale => "number but 0, or a fraction as `\"1/255\"`".to_string(),
        Value::Name(names) => listed(names),
        Value::Names(names) => format!("list of {}", listed(names)),
        Value::Columns => "name, number from 0, or a list of these".to_string(),
        Value::Column => "name, or number from 0".to_string(),
        Value::Layers => "list of names".to_string(),
        Value::Weights => "table of numbers, at least 0".to_string(),
        Value::Section => "table".to_string(),
    }
}

fn listed(names: &Names) -> String {
    match names.numbered {
        // Too many to read in a table.
        Some((numbered, _)) => {
            format!("names, such as `{}`, `{}` and `{numbered}`", names.listed[0], names.listed[1])
        }
        None => names.listed.iter().map(|name| code(name)).collect::<Vec<_>>().join(", "),
    }
}

/// `, at least 0 and less than 1`
fn ends(Limits { least, most }: Limits) -> String {
    let least = least.map(|(end, included)| format!("{} {end}", if included { "at least" } else { "above" }));
    let most =
        most.map(|(end, included)| format!("{} {end}", if included { "at most" } else { "less than" }));
    let ends: Vec<_> = least.into_iter().chain(most).collect();
    if ends.is_empty() { String::new() } else { format!(", {}", ends.join(" and ")) }
}
