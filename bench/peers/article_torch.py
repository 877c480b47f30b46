"""The article's program in PyTorch: `article_torch.py SEED` in one process saves model.pt here. Under `torchrun` its
processes train together (DistributedDataParallel over Gloo) with the same mini-batch of 500, each its part of it.

The layers begin as Keras' do. All samples are tensors in memory, and a mini-batch is picked by its indices: that takes
less time than a DataLoader. `fit_seconds` is the time of the five epochs: in each, 96 steps and then the 12,000
validation samples, of which each process takes its part too. The test set is evaluated after that, once, by the first
process. The last line printed is the result as JSON.
"""

import json
import os
import platform
import sys
import time

import torch
from torch import distributed, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import mnist

BATCH, EPOCHS, VALIDATION = 500, 5, 12000
RANK, PROCESSES = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def main(seed):
    torch.manual_seed(seed)
    if PROCESSES > 1:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // PROCESSES))
        distributed.init_process_group("gloo")
    train, test = map(tensors, mnist.load_data())
    model = article()
    seconds = fit(DistributedDataParallel(model) if PROCESSES > 1 else model, *train)
    if RANK == 0:
        test_loss, test_accuracy = (evaluate(model, *test) / len(test[0])).tolist()
        torch.save(model.state_dict(), "model.pt")
        report(fit_seconds=seconds, test_loss=test_loss, test_accuracy=test_accuracy)
    if PROCESSES > 1:
        distributed.destroy_process_group()


def tensors(split):
    images, labels = split
    return torch.tensor(images.reshape(-1, 784)).float(), torch.tensor(labels).long()


def article():
    """The output's softmax is in the loss."""
    hidden = [nn.Linear(784, 256), nn.Sigmoid(), nn.Linear(256, 128), nn.Sigmoid(), nn.Dropout(0.5)]
    model = nn.Sequential(*hidden, nn.Linear(128, 10))
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return model


def fit(model, x, y):
    train = len(x) - VALIDATION
    x_val, y_val = x[train + RANK::PROCESSES], y[train + RANK::PROCESSES]
    # All processes shuffle alike, and drop out each in its own way.
    order = torch.Generator().manual_seed(torch.initial_seed())
    torch.manual_seed(torch.initial_seed() * PROCESSES + RANK)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    started = time.perf_counter()
    for epoch in range(1, EPOCHS + 1):
        model.train()
        figures = torch.zeros(2)
        for batch in torch.randperm(train, generator=order).split(BATCH):
            mine = batch[RANK::PROCESSES]
            labels = y[mine]
            outputs = model(x[mine])
            loss = cross_entropy(outputs, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            figures += torch.stack([loss.detach() * len(mine), correct(outputs, labels)])
        show(epoch, figures, evaluate(model, x_val, y_val))
    return time.perf_counter() - started


@torch.no_grad()
def evaluate(model, x, y):
    """The sum of the losses, and how many are right."""
    model.eval()
    figures = torch.zeros(2)
    for samples, labels in zip(x.split(BATCH), y.split(BATCH)):
        outputs = model(samples)
        figures += torch.stack([cross_entropy(outputs, labels, reduction="sum"), correct(outputs, labels)])
    return figures


def correct(outputs, labels):
    return (outputs.argmax(1) == labels).sum().float()


def show(epoch, train, validation):
    """A line as Keras prints it, of the sums over all processes."""
    figures = torch.stack([train, validation])
    if PROCESSES > 1:
        distributed.all_reduce(figures)
    (loss, accuracy), (val_loss, val_accuracy) = (figures / torch.tensor([[48000.0], [12000.0]])).tolist()
    if RANK == 0:
        print(f"epoch {epoch}: {loss=:.4f} {accuracy=:.4f} {val_loss=:.4f} {val_accuracy=:.4f}", flush=True)


def report(**result):
    versions = {"Python": platform.python_version(), "PyTorch": torch.__version__}
    print(json.dumps({**result, "threads": torch.get_num_threads(), "versions": versions}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
