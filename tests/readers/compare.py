"""Computes with exported models as their users would, and compares with the outputs of the program that has exported them.

usage: compare.py DIRECTORY...   (each with model.onnx, model.keras, model.npz, model.safetensors and expected.safetensors,
                                  which has raw `inputs` and the `outputs` for them)

Both programs compute with 32 bits and add in another order. So outputs differ: over all samples by less than 1e-6 of their
norm, and within a sample by less than 1e-5 of its largest output.
"""

import json
import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

import keras
import numpy
import onnxruntime
import safetensors
from safetensors.numpy import load_file

OVER_ALL = 1e-6
WITHIN_A_SAMPLE = 1e-5


def main(directories):
    problems = [f"{directory.name}: {problem}" for directory in directories for problem in check(directory)]
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    print(f"{len(directories)} models were compared")
    return 1 if problems else 0


def check(directory):
    expected = load_file(directory / "expected.safetensors")
    inputs, outputs = expected["inputs"], expected["outputs"]
    session = onnxruntime.InferenceSession(directory / "model.onnx")
    run = lambda rows: session.run(["outputs"], {"inputs": rows})[0]
    yield from differences("ONNX Runtime", run(inputs), outputs)
    yield from differences("ONNX Runtime, one sample", run(inputs[:1]), outputs[:1])
    model = keras.saving.load_model(directory / "model.keras")
    yield from differences("Keras", model.predict(inputs, batch_size=1000, verbose=0), outputs)
    yield from check_tensors(directory, model)
    yield from check_texts(directory, session)


def differences(reader, found, outputs):
    if found.shape != outputs.shape:
        yield f"{reader}: outputs of shape {found.shape}, not {outputs.shape}"
        return
    difference, outputs = found.astype(float) - outputs, outputs.astype(float)
    over_all = numpy.linalg.norm(difference) / numpy.linalg.norm(outputs)
    within = (abs(difference).max(axis=1) / abs(outputs).max(axis=1)).max()
    # Written so that what is not a number is wrong.
    if not (over_all < OVER_ALL and within < WITHIN_A_SAMPLE):
        yield f"{reader}: outputs differ by {over_all:.1e} over all samples, and by {within:.1e} within one"


def check_tensors(directory, model):
    """The tensors of Keras' model are those of the other files, by the same names."""
    arrays, tensors = numpy.load(directory / "model.npz"), load_file(directory / "model.safetensors")
    names = [f"{layer.name}/{variable.name}" for layer in model.layers for variable in layer.weights]
    values = [value for layer in model.layers for value in layer.get_weights()]
    for name, value in zip(names, values, strict=True):
        for file, there in ("npz", arrays), ("safetensors", tensors):
            if name not in there or not numpy.array_equal(there[name], value):
                yield f"{file}: {name} is not that of Keras"
    texts = {"layers", "feature_names", "class_names"}
    if set(arrays) - texts != set(tensors):
        yield f"npz has {sorted(arrays)}, safetensors {sorted(tensors)}"


def check_texts(directory, session):
    with safetensors.safe_open(directory / "model.safetensors", "numpy") as file:
        about = json.loads(file.metadata()["millefeuille"])
    arrays, graph = numpy.load(directory / "model.npz"), session.get_modelmeta().custom_metadata_map
    for key in "layers", "feature_names", "class_names":
        found = [list(arrays[key]) if key in arrays else None, json.loads(graph.get(key, "null")), about.get(key)]
        if found != [found[0]] * 3:
            yield f"{key} differ: {found}"


if __name__ == "__main__":
    sys.exit(main([Path(argument) for argument in sys.argv[1:]]))
