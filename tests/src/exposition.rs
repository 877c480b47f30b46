//! A strict parser of Prometheus' text format: errors that a lenient parser would accept fail here.

use std::collections::BTreeMap;

/// The samples of a page, by name and labels as written.
#[derive(Clone, Debug)]
pub struct Page {
    samples: BTreeMap<String, f64>,
}

impl Page {
    /// Parses a page whose names begin with this prefix.
    ///
    /// # Panics
    /// If it violates a rule of the format or of naming.
    pub fn read(text: &str, prefix: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line ends");
        let mut page = Self { samples: BTreeMap::new() };
        let mut families = BTreeMap::new();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let (name, help) = comment(line, "HELP");
            assert!(help.ends_with('.') && !help.ends_with(".."), "a help text is a sentence: {line}");
            let typed = lines.next().unwrap_or_default();
            let (same, kind) = comment(typed, "TYPE");
            assert_eq!(name, same, "HELP and TYPE are of the same metric");
            check_name(name, kind, prefix);
            assert!(families.insert(name, kind).is_none(), "{name} is there twice");
            let before = page.samples.len();
            while let Some(sample) = lines.next_if(|line| !line.starts_with('#')) {
                page.sample(sample, name, kind);
            }
            assert!(page.samples.len() > before, "{name} has no sample");
        }
        page
    }

    fn sample(&mut self, line: &str, family: &str, kind: &str) {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        let labels = series.strip_prefix(family).unwrap_or_else(|| panic!("not of {family}: {line}"));
        check_labels(labels);
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        assert!(kind != "counter" || (value.is_finite() && value >= 0.0), "no count: {line}");
        let twice = self.samples.insert(series.to_string(), value);
        assert!(twice.is_none(), "{series} is there twice");
    }

    /// The value of a sample, if it exists.
    pub fn find(&self, series: &str) -> Option<f64> {
        self.samples.get(series).copied()
    }

    /// The value of a sample.
    ///
    /// # Panics
    /// If it does not exist.
    pub fn value(&self, series: &str) -> f64 {
        self.find(series).unwrap_or_else(|| panic!("no {series} in {:#?}", self.samples))
    }

    /// The sum over all labels of a metric.
    pub fn sum(&self, name: &str) -> f64 {
        let of_it = |series: &str| series == name || series.starts_with(&format!("{name}{{"));
        self.samples.iter().filter(|(series, _)| of_it(series)).map(|(_, value)| value).sum()
    }

    /// The series of this page.
    pub fn series(&self) -> impl Iterator<Item = &str> {
        self.samples.keys().map(String::as_str)
    }
}

fn comment<'l>(line: &'l str, kind: &str) -> (&'l str, &'l str) {
    let rest = line.strip_prefix("# ").and_then(|rest| rest.strip_prefix(kind)?.strip_prefix(' '));
    let rest = rest.unwrap_or_else(|| panic!("{kind} is expected: {line:?}"));
    rest.split_once(' ').unwrap_or_else(|| panic!("a name and more: {line:?}"))
}

fn check_name(name: &str, kind: &str, prefix: &str) {
    assert!(name.starts_with(prefix), "{name} begins with {prefix}");
    assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
    assert!(!name.contains("__") && !name.ends_with('_'), "{name}");
    assert!(matches!(kind, "counter" | "gauge"), "{name} is a {kind}");
    assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
    let odd = ["_ms", "_milliseconds", "_mb", "_kb", "_percent", "_minutes"];
    let unit = name.trim_end_matches("_total");
    assert!(!odd.iter().any(|odd| unit.ends_with(odd)), "{name} is not in base units");
}

/// `{name="value",name="value"}`, or nothing.
fn check_labels(text: &str) {
    if text.is_empty() {
        return;
    }
    let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    let mut rest = inner.unwrap_or_else(|| panic!("no labels: {text}"));
    loop {
        let (name, value) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {text}"));
        assert!(
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
            "{text}"
        );
        let end = end_of_value(value).unwrap_or_else(|| panic!("a value without an end: {text}"));
        rest = &value[end + 1..];
        if rest.is_empty() {
            return;
        }
        rest = rest.strip_prefix(',').unwrap_or_else(|| panic!("labels are separated by commas: {text}"));
    }
}

/// Where the value's closing quote is: backslashes stand before backslashes, quotes and `n` only.
fn end_of_value(text: &str) -> Option<usize> {
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some(at),
            '\\' => _ = characters.next().filter(|(_, next)| matches!(next, '\\' | '"' | 'n'))?,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Page {
        Page::read(text, "cake")
    }

    const GOOD: &str = "# HELP cake_slices_total Slices.\n# TYPE cake_slices_total counter\n\
                        cake_slices_total{by=\"a \\\"big\\\" knife\"} 2\ncake_slices_total{by=\"hand\"} 1\n\
                        # HELP cake_layers Layers of it.\n# TYPE cake_layers gauge\ncake_layers 1000\n";

    #[test]
    fn a_good_page_is_read() {
        let page = read(GOOD);
        assert_eq!((page.value("cake_layers"), page.sum("cake_slices_total")), (1000.0, 3.0));
    }

    #[test]
    fn any_fault_is_found() {
        let faults = [
            ("cake_layers 1000\n", "cake_layers 1000"),
            ("cake_layers 1000", "cake_layers many"),
            ("cake_layers 1000\n", ""),
            ("cake_layers 1000\n", "cake_layers 1000\ncake_layers 1000\n"),
            ("# TYPE cake_layers gauge\n", ""),
            ("# TYPE cake_layers gauge", "# TYPE cake_layers counter"),
            ("# HELP cake_layers Layers of it.", "# HELP cake_layers Layers of it"),
            ("# HELP cake_layers Layers of it.", "# HELP cake_crumbs Layers of it."),
            ("{by=\"hand\"} 1", "{by=\"hand\"} -1"),
            ("{by=\"hand\"} 1", "{by=\"ha\\nd\\\"} 1"),
            ("{by=\"hand\"} 1", "{by=\"hand\" with=\"care\"} 1"),
            ("cake_layers", "layers"),
        ];
        std::panic::set_hook(Box::new(|_| {}));
        let passed = faults.iter().filter(|(good, bad)| {
            let text = GOOD.replace(good, bad);
            assert_ne!(text, GOOD);
            std::panic::catch_unwind(|| read(&text)).is_ok()
        });
        let passed: Vec<_> = passed.collect();
        let _ = std::panic::take_hook();
        assert!(passed.is_empty(), "{passed:?}");
    }
}
