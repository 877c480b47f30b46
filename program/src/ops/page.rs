//! The text of `/metrics`, generated at each scrape.
//!
//! Between scrapes this costs nothing: a [`table`] is a function that reads state that its process publishes anyway.
//! Code that counts events itself registers its counters beside the table, in the same registry.

use std::fmt;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric, MetricEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use millefeuille_core::blas;

/// A page that is being written. Pass names without the registry's prefix, and help texts without a full stop.
pub struct Page<'a>(DescriptorEncoder<'a>);

/// A registry that contains a table. All names begin with `prefix`.
pub fn table(prefix: &str, write: impl Fn(&mut Page<'_>) -> fmt::Result + Send + Sync + 'static) -> Registry {
    LazyLock::force(&STARTED);
    let mut registry = Registry::with_prefix(prefix);
    registry.register_collector(Box::new(Table(write)));
    registry
}

struct Table<W>(W);

impl<W> fmt::Debug for Table<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Table")
    }
}

impl<W: Fn(&mut Page<'_>) -> fmt::Result + Send + Sync + 'static> Collector for Table<W> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        (self.0)(&mut Page(encoder))
    }
}

/// The time when this process set up its metrics, shortly after its start.
static STARTED: LazyLock<SystemTime> = LazyLock::new(SystemTime::now);

impl Page<'_> {
    /// Writes the metrics that every process has.
    pub fn process(&mut self, ready: bool) -> fmt::Result {
        let labels = [
            ("version", env!("CARGO_PKG_VERSION").to_string()),
            ("blas_version", blas::version()),
            ("blas_kernel", blas::kernel()),
        ];
        let build = "The version of this program, with the OpenBLAS and the kernel that it has loaded";
        let mut encoder = self.begin("build_info", build, MetricType::Gauge)?;
        ConstGauge::new(1u32).encode(encoder.encode_family(&labels)?)?;
        let started = STARTED.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.gauge("start_time_seconds", "When this process started, in seconds since 1970", started)?;
        self.gauge("ready", "Whether /readyz answers 200", u32::from(ready))
    }

    fn begin<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        // The registry writes help texts in the same form.
        self.0.encode_descriptor(name, &format!("{help}."), None, kind)
    }

    /// Writes a gauge, a number that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        let encoder = self.begin(name, help, MetricType::Gauge)?;
        ConstGauge::new(value).encode(encoder)
    }

    /// Writes one gauge per value of a label; nothing if there are no values.
    pub fn gauges<'v, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'v str, V)>,
    ) -> fmt::Result {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return Ok(());
        }
        let mut encoder = self.begin(name, help, MetricType::Gauge)?;
        values.try_for_each(|(which, value)| {
            ConstGauge::new(value).encode(encoder.encode_family(&[(label, which)])?)
        })
    }

    /// Writes a counter, a number that only grows. On the page its name ends in `_total`.
    pub fn counter(&mut self, name: &str, help: &str, value: impl EncodeCounterValue) -> fmt::Result {
        let encoder = self.begin(name, help, MetricType::Counter)?;
        ConstCounter::new(value).encode(encoder)
    }

    /// Writes one counter per value of a label.
    pub fn counters<'v, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'v str, V)>,
    ) -> fmt::Result {
        let mut encoder = self.begin(name, help, MetricType::Counter)?;
        values.into_iter().try_for_each(|(which, value)| {
            ConstCounter::new(value).encode(encoder.encode_family(&[(label, which)])?)
        })
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::prometheus_text;

    use super::*;

    #[test]
    fn a_table_is_written_for_each_request() {
        let registry = table("cake", |page| {
            page.gauge("layers", "Layers of it", 1000u32)?;
            page.counters("slices", "Slices cut", "by", [("knife", 2u64), ("hand", 1)])?;
            page.gauges("guests", "No guests", "name", Vec::<(&str, f64)>::new())
        });

        let mut text = String::new();
        prometheus_text::encode(&mut text, &registry).unwrap();

        let expected = "# HELP cake_layers Layers of it.\n# TYPE cake_layers gauge\ncake_layers 1000\n\
             # HELP cake_slices_total Slices cut.\n# TYPE cake_slices_total counter\n\
             cake_slices_total{by=\"knife\"} 2\ncake_slices_total{by=\"hand\"} 1\n";
        assert_eq!(text, expected);
    }
}
