//! The words of job files: the documentation and the schema for editors are true.
//!
//! Both are written from [`keys`](millefeuille_core::job::keys). After a change of the keys
//! `UPDATE_GOLDENFILES=1 cargo nextest run -p millefeuille-core --test words` writes them anew.

mod page;
mod schema;

use std::fs;
use std::path::{Path, PathBuf};

use millefeuille_core::job::Job;
use millefeuille_core::job::keys::{Key, Kind, SECTIONS, Section, Value};

/// A file of the repository.
fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn text_of(path: &str) -> String {
    fs::read_to_string(at(path)).expect(path)
}

/// Checks that the file has this text, or writes it.
fn assert_golden(path: &str, text: &str) {
    if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
        fs::write(at(path), text).expect(path);
    }
    assert!(
        text_of(path) == text,
        "{path} is stale: `UPDATE_GOLDENFILES=1 cargo test -p millefeuille-core --test words` writes it"
    );
}

#[test]
fn the_page_has_every_key() {
    let page = text_of("docs/job.md");
    assert_eq!(page::missing(&page), None, "docs/job.md has a table of each section");
    assert_golden("docs/job.md", &page::filled(&page));
}

#[test]
fn the_readme_has_every_name() {
    assert_golden("README.md", &page::filled(&text_of("README.md")));
}

#[test]
fn the_schema_has_every_key() {
    let text = serde_json::to_string_pretty(&schema::schema()).expect("a schema is JSON");
    assert_golden("docs/job.schema.json", &(text + "\n"));
}

/// Every key with its section and its kind.
fn keys() -> impl Iterator<Item = (&'static Section, &'static Kind, &'static Key)> {
    let kinds = SECTIONS.iter().flat_map(|section| section.kinds.iter().map(move |kind| (section, kind)));
    kinds.flat_map(|(section, kind)| kind.keys.iter().map(move |key| (section, kind, key)))
}

/// The last layer of the article.
const OUTPUT: &str = "[[layers]]\ntype = \"dense\"\nunits = 10\nactivation = \"softmax\"\n";

/// A job file that has this key with this value, and whatever goes with it.
fn file_with(section: &Section, kind: &Kind, key: &Key, value: &str) -> String {
    let needed = kind.keys.iter().filter(|other| other.is_required && other.name != key.name);
    let needed = needed.map(|other| match other.name {
        "activation" => "activation = \"relu\"\n".to_string(),
        "metric" => "metric = \"val_loss\"\n".to_string(),
        "decay_rate" | "value" => format!("{} = 0.5\n", other.name),
        name => format!("{name} = 10\n"),
    });
    let stated: String = needed.chain([format!("{} = {value}\n", key.name)]).collect();
    match (section.name, kind.name, key.name) {
        ("", ..) => stated,
        // What is built in has a test set of its own.
        ("data", _, "test_split") => format!("[data]\nsource = \"table.csv\"\n{stated}"),
        // The article's loss has no such option.
        ("compile", _, "delta") => {
            let output = OUTPUT.replace("softmax", "linear");
            format!(
                "data.source = \"table.csv\"\n{output}[compile]\nloss = \"huber\"\nmetrics = []\n{stated}"
            )
        }
        ("layers", kind, _) => format!("[[layers]]\ntype = \"{kind}\"\n{stated}{OUTPUT}"),
        ("layers.kernel_regularizer", ..) => format!("{OUTPUT}kernel_regularizer = {{ {} }}", stated.trim()),
        (section, "", _) => format!("[{section}]\n{stated}"),
        (section, kind, _) => format!("[{section}]\ntype = \"{kind}\"\n{stated}"),
    }
}

fn parse(text: &str) -> Result<Job, String> {
    Job::parse("job.toml", text).map_err(|error| error.to_string())
}

/// Every job file of the repository.
fn job_files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let (directories, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let files = files.into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "toml"));
    files.chain(directories.iter().flat_map(|directory| job_files(directory))).collect()
}

/// The blocks of TOML in a text.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next())
}

#[test]
fn the_schema_takes_every_job_file() {
    let files: Vec<_> = ["jobs", "deploy"].iter().flat_map(|directory| job_files(&at(directory))).collect();
    assert!(files.len() > 5, "{files:?}");
    for file in files {
        let text = fs::read_to_string(&file).expect("a job file");
        assert!(parse(&text).is_ok() && schema::accepts(&text), "{}", file.display());
    }
    for page in ["README.md", "docs/job.md"] {
        let text = text_of(page);
        assert!(blocks(&text).count() > 0 && blocks(&text).all(schema::accepts), "the job files of {page}");
    }
}

#[test]
fn a_default_is_what_a_job_has_without_the_key() {
    for (section, kind, key) in keys() {
        let Some(default) = &key.default else { continue };
        let with = file_with(section, kind, key, default);
        let line = format!("{} = {default}", key.name);
        let without = with.replace(&format!("{line}\n"), "").replace(&line, "");
        assert_eq!(parse(&with), parse(&without), "{with}");
        assert!(parse(&with).is_ok(), "{with}");
    }
}

/// Whether a number is in the range of a key; `None` of keys without one.
fn is_within(value: &Value, number: f64) -> Option<bool> {
    match value {
        Value::Number(limits) => {
            let above = limits.least.is_none_or(|(end, included)| number > end || included && number == end);
            let below = limits.most.is_none_or(|(end, included)| number < end || included && number == end);
            Some(above && below)
        }
        Value::Whole(range) => {
            Some(number.fract() == 0.0 && number >= 0.0 && range.contains(&(number as u64)))
        }
        Value::Text(_) | Value::Flag | Value::Scale | Value::Name(_) | Value::Names(_) => None,
        Value::Columns | Value::Column | Value::Weights | Value::Layers | Value::Section => None,
    }
}

#[test]
fn a_range_is_what_the_check_allows() {
    for (section, kind, key) in keys() {
        for number in [-1.0, 0.0, 0.5, 1.0, 2.0, 1024.0] {
            let Some(is_within) = is_within(&key.value, number) else { continue };
            let file = file_with(section, kind, key, &number.to_string());
            let answer = parse(&file);
            assert_eq!(answer.is_ok(), is_within, "{file}\n{answer:?}");
            assert_eq!(schema::accepts(&file), is_within, "the schema, of {file}");
        }
    }
}
