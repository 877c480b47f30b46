"""MNIST from this repository's files: what `keras.datasets.mnist.load_data()` gives, without a download."""

import gzip
from pathlib import Path

import numpy

FILES = Path(__file__).parents[2] / "data" / "mnist"


def load_data():
    return (images("train"), labels("train")), (images("t10k"), labels("t10k"))


def images(name):
    return numpy.frombuffer(contents(f"{name}-images-idx3-ubyte"), numpy.uint8, offset=16).reshape(-1, 28, 28)


def labels(name):
    return numpy.frombuffer(contents(f"{name}-labels-idx1-ubyte"), numpy.uint8, offset=8)


def contents(name):
    with gzip.open(FILES / f"{name}.gz") as file:
        return file.read()
