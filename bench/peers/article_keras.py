"""The article's program in Keras, as it stands: `article_keras.py SEED` saves model.keras here.

The last line that it prints is its result as JSON. `fit_seconds` is the time of `model.fit`: five epochs of 96 steps,
each epoch followed by the 12,000 validation samples. The test set is evaluated after that, once.
"""

import json
import platform
import sys
import time

import keras
import tensorflow
from keras.layers import Dense, Dropout
from keras.models import Sequential
from keras.optimizers import SGD
from keras.utils import to_categorical

import mnist

keras.utils.set_random_seed(int(sys.argv[1]))

(x_train, y_train), (x_test, y_test) = mnist.load_data()
x_train = x_train.reshape(60000, 784).astype("float32")
x_test = x_test.reshape(10000, 784).astype("float32")
y_train = to_categorical(y_train)
y_test = to_categorical(y_test)

model = Sequential()
model.add(Dense(256, activation="sigmoid", input_shape=(784,)))
model.add(Dense(128, activation="sigmoid"))
model.add(Dropout(rate=0.5))
model.add(Dense(10, activation="softmax"))
model.compile(loss="categorical_crossentropy", optimizer=SGD(learning_rate=0.1), metrics=["accuracy"])

started = time.perf_counter()
model.fit(x_train, y_train, batch_size=500, epochs=5, validation_split=0.2, verbose=2)
fit_seconds = time.perf_counter() - started

test_loss, test_accuracy = model.evaluate(x_test, y_test, verbose=2)
predictions = model.predict(x_test[:10], verbose=0).argmax(axis=1)
model.save("model.keras")

print(json.dumps({
    "fit_seconds": fit_seconds,
    "test_loss": test_loss,
    "test_accuracy": test_accuracy,
    "predictions": predictions.tolist(),
    "versions": {
        "Python": platform.python_version(),
        "Keras": keras.__version__,
        "TensorFlow": tensorflow.__version__,
    },
}))
