//! Label selectors, as Kubernetes evaluates them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// The labels of a pod or of a namespace.
pub type Labels = BTreeMap<String, String>;

/// Whether a selector matches these labels. An empty selector matches everything.
pub fn picks(selector: &LabelSelector, labels: &Labels) -> bool {
    let pairs = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    pairs && selector.match_expressions.iter().flatten().all(|requirement| is_met(requirement, labels))
}

/// Whether a Service's selector matches these labels. An empty selector matches nothing.
pub fn service_picks(selector: &Labels, labels: &Labels) -> bool {
    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn is_met(requirement: &LabelSelectorRequirement, labels: &Labels) -> bool {
    let value = labels.get(&requirement.key);
    let listed = |value: &String| requirement.values.iter().flatten().any(|listed| listed == value);
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        other => panic!("{other} is no operator of a selector"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    #[test]
    fn selectors_pick_as_kubernetes_does() {
        let worker = labels(&[("app", "m"), ("component", "worker")]);
        let picks_it = |selector| picks(&serde_json::from_value(selector).unwrap(), &worker);
        assert!(picks_it(json!({})));
        assert!(picks_it(json!({ "matchLabels": { "app": "m" } })));
        assert!(!picks_it(json!({ "matchLabels": { "app": "m", "component": "coordinator" } })));
        let expression = |operator: &str, values: &[&str]| json!({ "matchExpressions": [{ "key": "component", "operator": operator, "values": values }] });
        assert!(picks_it(expression("In", &["worker", "operator"])));
        assert!(!picks_it(expression("In", &["operator"])));
        assert!(picks_it(expression("NotIn", &["operator"])));
        assert!(picks_it(expression("Exists", &[])));
        assert!(!picks_it(expression("DoesNotExist", &[])));
        assert!(!service_picks(&labels(&[]), &worker));
        assert!(service_picks(&labels(&[("app", "m")]), &worker));
    }
}
