"""Writes the tables of the examples in jobs/ into the current directory, from scikit-learn's package.

Rows 0, 5, 10 ... are the test set, the others train in their order.
"""

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits


def split(x, y):
    test = np.arange(len(x)) % 5 == 0
    return x[~test], y[~test], x[test], y[test]


def write_csv(name, x, y, columns):
    with open(name, "w", encoding="utf-8") as file:
        file.write(",".join([*columns, "y"]) + "\n")
        for row, target in zip(x, y):
            file.write(",".join([*(repr(float(value)) for value in row), repr(target)]) + "\n")


def tables(name, data, targets, columns):
    x, y, x_test, y_test = split(data, targets)
    write_csv(f"{name}.csv", x, y.tolist(), columns)
    write_csv(f"{name}-test.csv", x_test, y_test.tolist(), columns)


cancer = load_breast_cancer()
tables("breast-cancer", cancer.data, cancer.target, [name.replace(" ", "_") for name in cancer.feature_names])
diabetes = load_diabetes()
tables("diabetes", diabetes.data, diabetes.target / 100, diabetes.feature_names)
digits = load_digits()
x_train, y_train, x_test, y_test = split(digits.data, digits.target)
np.savez("digits.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
