"""What every command does once in a process, done in the server that the tests' processes are forked from, before they are."""

import gc

import torch
from safetensors.torch import save

from trevsnn.cli.main import build_parser
from trevsnn.data.config import DataConfig
from trevsnn.data.sets import load
from trevsnn.files import figure_bytes
from trevsnn.run.config import config_parser
from trevsnn.train.curves import curves

build_parser()
config_parser()
load(DataConfig(), "val", 1)  # scikit-learn
save({"weight": torch.zeros(1)})
figure_bytes(
    curves([dict.fromkeys(("epoch", "train_loss", "val_loss", "train_ce", "val_accuracy", "rate_level0"), 1.0)])
)
gc.freeze()  # nothing of this is garbage; a collection in a process of the tests would scan, and so copy, all of it
