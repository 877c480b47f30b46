//! Conversions: what goes to the wire comes back, and what makes no sense is refused with what is wrong.

use millefeuille_core::control::{Hello, JobId, Phase, WorkId};
use millefeuille_core::data::schema::{Features, Schema, Target};
use millefeuille_core::data::shard::Shard;
use millefeuille_core::data::split::{Sizes, Split};
use millefeuille_core::job::Job;
use millefeuille_core::learn::spec::Spec;
use millefeuille_core::learn::tree::{Node, Tree};
use millefeuille_proto::{convert, v1};

fn spec() -> Spec {
    let schema = Schema::new(Features::image(28, 28), Target::Class { classes: 10 });
    let spec = Job::default().spec(schema, Sizes { train: 48_000, validation: 12_000, test: 10_000 });
    Spec { seed: u64::MAX, scale: 1.0 / 255.0, ..spec }
}

fn refused(change: impl FnOnce(&mut v1::Spec)) -> String {
    let mut wire = v1::Spec::from(&spec());
    change(&mut wire);
    Spec::try_from(wire).expect_err("it makes no sense").to_string()
}

#[test]
fn a_spec_goes_to_the_wire_and_back() {
    let mut weighted = spec();
    weighted.schema.weighted = true;
    for spec in [spec(), weighted] {
        assert_eq!(Spec::try_from(v1::Spec::from(&spec)).unwrap(), spec);
    }
}

#[test]
fn a_spec_that_makes_no_sense_is_refused() {
    assert_eq!(refused(|spec| spec.shards = 0), "`shards` is 0, not from 1 to 1024");
    assert_eq!(refused(|spec| spec.batch_size = 0), "`batch_size` is 0, not from 1 to 4294967295");
    assert_eq!(refused(|spec| spec.schema = None), "`schema` is missing");
    let schema = |change: fn(&mut v1::Schema)| refused(|spec| change(spec.schema.as_mut().unwrap()));
    assert_eq!(schema(|schema| schema.shape = vec![28, 0]), "a sample has 0 values");
    assert_eq!(
        schema(|schema| schema.shape = vec![u32::MAX; 9]),
        format!("a sample has {} values", usize::MAX)
    );
    assert_eq!(
        schema(|schema| schema.element = "int4".into()),
        "this build does not know the element `int4`"
    );
    assert_eq!(schema(|schema| schema.target = None), "a schema has no target");
    assert_eq!(
        schema(|schema| schema.target = Some(v1::schema::Target::Reals(10))),
        "categorical_crossentropy needs targets that are classes"
    );
    assert_eq!(refused(|spec| spec.metrics[0] = "area".into()), "this build does not know the metric `area`");
    assert_eq!(refused(|spec| spec.metrics[0] = "auc".into()), "auc needs targets of two classes");
    assert_eq!(refused(|spec| spec.loss = "hinge".into()), "this build does not know the loss `hinge`");
    assert_eq!(refused(|spec| spec.layers[0].layer = None), "`layer` is missing");
    let dense = |units, activation: &str| {
        let dense = v1::Dense { units, activation: activation.into(), ..v1::Dense::default() };
        Some(v1::layer::Layer::Dense(dense))
    };
    assert_eq!(
        refused(|spec| spec.layers[0].layer = dense(0, "sigmoid")),
        "the number of units is 0, not from 1 to 65536"
    );
    let unknown = refused(|spec| spec.layers[0].layer = dense(9, "swish"));
    assert_eq!(unknown, "this build does not know the activation `swish`");
    let misfit = "the layers do not end in softmax with 10 units, and have it there only";
    assert_eq!(refused(|spec| spec.layers[3].layer = dense(9, "softmax")), misfit);
    assert_eq!(refused(|spec| spec.layers[0].layer = dense(9, "softmax")), misfit);
    assert_eq!(refused(|spec| spec.layers.clear()), misfit);
    let dropout = |rate| Some(v1::layer::Layer::Dropout(v1::Dropout { rate }));
    assert_eq!(refused(|spec| spec.layers[2].layer = dropout(1.0)), "a dropout rate is 1");
    assert_eq!(refused(|spec| spec.layers[2].layer = dropout(f32::NAN)), "a dropout rate is NaN");
    assert_eq!(refused(|spec| spec.scale = f32::INFINITY), "inputs cannot be multiplied by inf");
}

#[test]
fn a_spec_beyond_the_limits_of_a_job_is_refused() {
    assert_eq!(refused(|spec| spec.shards = u32::MAX), "`shards` is 4294967295, not from 1 to 1024");
    let dense = |units| v1::Layer {
        layer: Some(v1::layer::Layer::Dense(v1::Dense {
            units,
            activation: "sigmoid".into(),
            ..v1::Dense::default()
        })),
    };
    let units = refused(|spec| spec.layers[0] = dense(1 << 31));
    assert_eq!(units, "the number of units is 2147483648, not from 1 to 65536");
    let four_gigabytes = refused(|spec| {
        spec.layers[0] = dense(65_536);
        spec.layers[1] = dense(65_536);
    });
    assert_eq!(four_gigabytes, "4347133962 parameters are too many, 268435456 the most; use fewer units");
    let wide = refused(|spec| spec.schema.as_mut().unwrap().shape = vec![1 << 30]);
    assert!(wide.ends_with("parameters are too many, 268435456 the most; use fewer units"), "{wide}");
    let layers = refused(|spec| (0..256).for_each(|_| spec.layers.insert(0, dense(1))));
    assert_eq!(layers, "260 layers are too many, 256 the most");
}

#[test]
fn work_goes_to_the_wire_and_back() {
    for phase in [Phase::Train, Phase::Validate, Phase::Test] {
        let work = WorkId { job: JobId(3), incarnation: 9, epoch: 1, phase, step: 95, parameter_tag: 191 };
        assert_eq!(WorkId::try_from(v1::WorkId::from(work)).unwrap(), work);
    }
    let unknown = v1::WorkId { phase: 99, ..Default::default() };
    assert_eq!(WorkId::try_from(unknown).unwrap_err().to_string(), "unknown phase 99");
}

#[test]
fn a_shard_goes_to_the_wire_and_back() {
    for split in Split::ALL {
        let shard = Shard { split, index: 7 };
        assert_eq!(Shard::try_from(v1::ShardId::from(shard)).unwrap(), shard);
    }
    let unknown = v1::ShardId { split: 4, index: 0 };
    assert_eq!(Shard::try_from(unknown).unwrap_err().to_string(), "unknown split 4");
}

#[test]
fn only_nodes_of_the_tree_come_from_the_wire() {
    let tree = Tree::new(8);
    let named = |first, end| convert::in_tree(v1::Node { first, end }.into(), &tree);
    assert_eq!(named(4, 8).unwrap(), Node { first: 4, end: 8 });
    for (first, end) in [(1, 3), (4, 4), (8, 4), (0, 16), (u32::MAX, 0)] {
        let refused = named(first, end).unwrap_err().to_string();
        assert!(refused.starts_with("the tree has no node"), "{refused}");
    }
}

#[test]
fn a_hello_has_slots_and_an_arithmetic() {
    let arithmetic = v1::Arithmetic { kernel: "Zen".into(), ..Default::default() };
    let hello = v1::Hello { slots: 2, arithmetic: Some(arithmetic), ..Default::default() };
    assert_eq!(Hello::try_from(&hello).unwrap().arithmetic.kernel, "Zen");
    let without_slots = v1::Hello { slots: 0, ..hello.clone() };
    assert_eq!(Hello::try_from(&without_slots).unwrap_err().to_string(), "`slots` is 0");
    let without_arithmetic = v1::Hello { arithmetic: None, ..hello };
    assert_eq!(Hello::try_from(&without_arithmetic).unwrap_err().to_string(), "`arithmetic` is missing");
}
