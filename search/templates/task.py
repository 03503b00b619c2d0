"""Your model, your data, your metric. Replace the five marked places by your own."""

import torch
from sklearn.datasets import load_digits
from torch import nn

from compressors.base import Task
from compressors.training import fit, train_once

DATA = load_digits()
IMAGES = torch.tensor(DATA.images[:, None] / 16, dtype=torch.float32)
LABELS = torch.tensor(DATA.target)


def batches(first, last, size=32):
    """(inputs, labels) tensors, samples along dimension 0; a DataLoader does as well."""
    return [(IMAGES[i : i + size], LABELS[i : i + size]) for i in range(first, last, size)]


class MyTask(Task):
    # score_name = "accuracy"  # per-sample records and their mean: override records() and score()

    def model(self):  # 1. build your model and load its weights: load_state_dict(torch.load(...))
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Flatten()]
        return train_once(nn.Sequential(*layers, nn.Linear(512, 10)), self.train, content=["v1"])

    def train_batches(self):  # 2. for distillation
        return batches(0, 960)

    def calibration_batches(self):  # 3. some hundred samples, for the ranges of quantization
        return batches(960, 1088)

    def eval_batches(self):  # 4. every candidate is scored on these: keep them out of training
        return batches(1088, 1797)

    def train(self, model):  # 5. only because this example has no trained weights to load
        fit(model, self.train_batches, self.loss, inputs=self.inputs, epochs=5, lr=0.005)
