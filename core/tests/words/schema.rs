//! The JSON Schema of job files, and what it says of files.
//!
//! It is of draft 7, which editors know. A file that it refuses is no job. The other way round there are rules that it
//! does not have: those that look at more than one key, and those of the data.

use std::sync::LazyLock;

use jsonschema::Validator;
use millefeuille_core::job::keys::{Key, Kind, Limits, Names, SECTIONS, Section, Value};
use millefeuille_core::learn::limits::MAX_LAYERS;
use serde_json::{Map, Value as Json, json};

/// The schema.
pub(crate) fn schema() -> Json {
    let Json::Object(root) = of_section(&SECTIONS[0]) else { unreachable!("a section is a table") };
    let mut schema = Map::new();
    schema.insert("$schema".to_string(), json!("http://json-schema.org/draft-07/schema#"));
    schema.insert("title".to_string(), json!("A job of Millefeuille"));
    schema.extend(root);
    schema.into()
}

/// Whether the schema takes this job file.
pub(crate) fn accepts(file: &str) -> bool {
    static VALIDATOR: LazyLock<Validator> =
        LazyLock::new(|| jsonschema::draft7::new(&schema()).expect("a schema of draft 7"));
    toml::from_str::<Json>(file).is_ok_and(|job| VALIDATOR.is_valid(&job))
}

fn of_section(section: &Section) -> Json {
    match &section.kinds[..] {
        [kind] if !section.has_types() => of_kind(section, kind),
        kinds => json!({ "oneOf": kinds.iter().map(|kind| of_kind(section, kind)).collect::<Vec<_>>() }),
    }
}

fn of_kind(section: &Section, kind: &Kind) -> Json {
    let property = |key: &Key| (key.name.to_string(), of_key(section, key));
    let mut properties: Map<String, Json> = kind.keys.iter().map(property).collect();
    let mut required: Vec<_> = kind.keys.iter().filter(|key| key.is_required).map(|key| key.name).collect();
    let mut schema = Map::from_iter([("type".to_string(), json!("object"))]);
    if section.has_types() {
        properties.insert("type".to_string(), json!({ "const": kind.name, "description": kind.meaning }));
        schema.insert("description".to_string(), json!(kind.meaning));
        required.extend((!kind.is_default).then_some("type"));
    }
    schema.insert("properties".to_string(), properties.into());
    schema.insert("additionalProperties".to_string(), json!(false));
    if !required.is_empty() {
        schema.insert("required".to_string(), json!(required));
    }
    schema.into()
}

fn of_key(section: &Section, key: &Key) -> Json {
    let mut schema = match &key.value {
        Value::Section => {
            let path = if section.name.is_empty() {
                key.name.to_string()
            } else {
                format!("{}.{}", section.name, key.name)
            };
            let below = SECTIONS.iter().find(|other| other.name == path).expect("a section");
            let item = of_section(below);
            if key.name == "layers" {
                json!({ "type": "array", "minItems": 1, "maxItems": MAX_LAYERS, "items": item })
            } else {
                item
            }
        }
        value => of_value(value),
    };
    schema["description"] = json!(key.meaning);
    if let Some(default) = &key.default {
        let table: Map<String, Json> =
            toml::from_str(&format!("default = {default}")).expect("defaults are TOML");
        schema.as_object_mut().expect("a schema is an object").extend(table);
    }
    schema
}

fn of_value(value: &Value) -> Json {
    match value {
        Value::Text(pattern) => json!({ "type": "string", "pattern": pattern }),
        Value::Flag => json!({ "type": "boolean" }),
        Value::Whole(range) => json!({ "type": "integer", "minimum": range.start(), "maximum": range.end() }),
        Value::Number(limits) => of_number(*limits),
        Value::Scale => {
            let fraction = "^\\s*[-+0-9.eE]+\\s*(/\\s*[-+0-9.eE]+\\s*)?$";
            let number = json!({ "type": "number", "not": { "const": 0 } });
            json!({ "anyOf": [number, { "type": "string", "pattern": fraction }] })
        }
        Value::Name(names) => of_names(names),
        Value::Names(names) => json!({ "type": "array", "items": of_names(names), "uniqueItems": true }),
        Value::Columns => {
            let column = of_value(&Value::Column);
            json!({ "anyOf": [column, { "type": "array", "items": column }] })
        }
        Value::Column => json!({ "anyOf": [{ "type": "string" }, { "type": "integer", "minimum": 0 }] }),
        Value::Layers => json!({ "type": "array", "items": { "type": "string" }, "uniqueItems": true }),
        Value::Weights => {
            json!({ "type": "object", "additionalProperties": { "type": "number", "minimum": 0 } })
        }
        Value::Section => unreachable!("a section has keys of its own"),
    }
}

fn of_number(Limits { least, most }: Limits) -> Json {
    let mut schema = json!({ "type": "number" });
    if let Some((end, included)) = least {
        schema[if included { "minimum" } else { "exclusiveMinimum" }] = json!(end);
    }
    if let Some((end, included)) = most {
        schema[if included { "maximum" } else { "exclusiveMaximum" }] = json!(end);
    }
    schema
}

fn of_names(names: &Names) -> Json {
    let listed = json!({ "enum": names.listed });
    match names.numbered {
        None => listed,
        Some((_, pattern)) => json!({ "anyOf": [listed, { "type": "string", "pattern": pattern }] }),
    }
}
