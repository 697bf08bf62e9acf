"""Train this network, or SpikingJelly's SEW-ResNet-18, on a recipe's data for the same minutes by the same script.

    python benchmarks/peer.py --recipe fashion-mnist --minutes 30 --network trevsnn [trevsnn options]
    python benchmarks/peer.py --recipe fashion-mnist --minutes 30 --network sew [--width 24] [trevsnn options]

Everything after these options is handed to the recipe as ``trevsnn train`` takes it. Data, augmentation, batch size,
optimizer and averaging are the recipe's for both; the learning rate's warm-up and cosine run over the given minutes,
which are of processor time, so that other programs do not take any of them. Of a recipe's other options, ``start``,
``slope_epochs``, ``accumulate``, ``optim.lr_per`` and ``optim.min_lr`` have no effect here. The weights at the end are
evaluated, as they are and averaged. SEW-ResNet-18 needs ``pip install 'trevsnn[bench]'``.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.model import sew_resnet
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from trevsnn import TRevSNN
from trevsnn.data.config import Split
from trevsnn.data.loading import TensorDataset, batches, make_loader
from trevsnn.data.mixing import batch_mix
from trevsnn.data.part import Part
from trevsnn.data.sampling import EpochSampler
from trevsnn.data.sets import load, splits
from trevsnn.network.losses import deep_supervision_loss, temporal_loss
from trevsnn.run.config import RunConfig, recipe_config, to_dict
from trevsnn.train.optim import build_optimizer, clip_gradients
from trevsnn.train.summary import processor_name

WARMUP = 0.05  # of the minutes


class SEWResNet18(nn.Module):
    """SEW-ResNet-18 (Fang et al., NeurIPS 2021) with IF neurons, T = 4, the picture given at every timestep.

    Its first stage has one element for ``stride`` pixels: behind the published stem for 4, and else a 3 x 3 convolution
    without pooling, as usual for CIFAR.

    Args:
        channels, classes: of input and output.
        timesteps: T.
        width: channels of the first stage, 64 as published; fewer for as few parameters as ours has.
        stride: pixels per element of the first stage, 4, 2 or 1.
    """

    def __init__(self, channels: int, classes: int, timesteps: int, width: int, stride: int) -> None:
        super().__init__()
        self.timesteps = timesteps
        options: dict[str, Any] = {
            "spiking_neuron": neuron.IFNode, "surrogate_function": surrogate.ATan(), "detach_reset": True,
        }  # fmt: skip
        self.net = sew_resnet.sew_resnet18(num_classes=classes, cnf="ADD", **options)
        kernel = 7 if stride == 4 else 3
        self.net.conv1 = layer.Conv2d(channels, 64, kernel, min(stride, 2), kernel // 2, bias=False)
        if stride < 4:
            self.net.maxpool = nn.Identity()
        _narrow(self.net, width / 64)
        functional.set_step_mode(self.net, "m")

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), or frames (B, T, C, H, W), to logits (B, K), the mean over time."""
        functional.reset_net(self.net)
        frames_TBCHW = x.transpose(0, 1) if x.dim() == 5 else x.expand(self.timesteps, *x.shape)
        return self.net(frames_TBCHW).mean(0)


def _narrow(net: nn.Module, share: float) -> None:
    """Scale the width of every convolution, normalisation and of the classifier's input."""
    if share == 1:
        return
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                into = child.in_channels if child.in_channels < 4 else round(child.in_channels * share)
                new: nn.Module = layer.Conv2d(
                    into, round(child.out_channels * share), child.kernel_size, child.stride, child.padding, bias=False
                )
            elif isinstance(child, nn.BatchNorm2d):
                new = layer.BatchNorm2d(round(child.num_features * share))
            elif isinstance(child, nn.Linear):
                new = layer.Linear(round(child.in_features * share), child.out_features)
            else:
                continue
            setattr(parent, name, new)


def build(config: RunConfig, part: Part, options: argparse.Namespace) -> TRevSNN | SEWResNet18:
    """The network that ``--network`` names."""
    if options.network == "trevsnn":
        return TRevSNN(config.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    timesteps = config.model.timesteps if config.model.input == "event" else options.peer_timesteps
    stride = config.model.encoder_stride or 1
    return SEWResNet18(part.channels, len(part.classes), timesteps, options.width, stride)


def loss_of(model: TRevSNN | SEWResNet18, config: RunConfig, inputs: Tensor, labels: Tensor) -> Tensor:
    """Each network's own loss: for this one the recipe's, for the other cross entropy."""
    if isinstance(model, TRevSNN) and config.loss == "temporal":
        return temporal_loss(model.forward_time(inputs), labels, config.label_smoothing)
    if isinstance(model, TRevSNN):
        return deep_supervision_loss(model.forward_heads(inputs), labels, config.label_smoothing)
    return nn.functional.cross_entropy(model(inputs), labels, label_smoothing=config.label_smoothing)


def train(config: RunConfig, options: argparse.Namespace) -> dict[str, Any]:
    """Train until the minutes are over, and evaluate."""
    torch.manual_seed(config.seed)
    part = load(config.data, "train", config.model.timesteps)
    model = build(config, part, options)
    heads = (model.heads if isinstance(model, TRevSNN) else model.net.fc).parameters
    optimizer = build_optimizer(model, config)
    average = ModelEmaV3(model, config.ema_decay or 0.0, use_warmup=True)
    dataset = TensorDataset(part, config.data, config.seed, timesteps=config.model.timesteps, training=True)
    sampler = EpochSampler(len(dataset), config.seed, shuffle=True)
    loader = make_loader(dataset, sampler, config.batch_size, config.data, torch.device("cpu"))
    mix = batch_mix(config.data, len(part.classes), config.label_smoothing, config.seed)
    if mix is not None:
        config = replace(config, label_smoothing=0.0)  # it is in the target
    spent, step, epoch, loss_sum = 0.0, 0, 0, 0.0
    begin = time.process_time()
    while spent < 60 * options.minutes:
        sampler.epoch = epoch
        model.train()
        for batch_inputs, batch_labels, _ in batches(loader):
            inputs, labels = batch_inputs, batch_labels
            share = min(spent / (60 * options.minutes), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = config.optim.lr * min(share / WARMUP, 0.5 * (1 + math.cos(math.pi * share)))
            if mix is not None:
                inputs, labels = mix(inputs, labels, step)
            with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16-mixed"):
                loss = loss_of(model, config, inputs, labels)
            loss.backward()
            clip_gradients(model.parameters(), heads(), config.optim)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            average.update(model, step)
            step += 1
            loss_sum += loss.item()
            spent = (time.process_time() - begin) / torch.get_num_threads()
            if spent >= 60 * options.minutes:
                break
        epoch += 1
        print(f"epoch {epoch}  {step} steps  mean loss so far {loss_sum / step:.3f}  {spent:.0f} s", flush=True)
    result: dict[str, Any] = {
        "network": "this network" if isinstance(model, TRevSNN) else f"SEW-ResNet-18, width {options.width}",
        "timesteps": (model.config if isinstance(model, TRevSNN) else model).timesteps,
        "parameters": sum(p.numel() for p in model.parameters()), "minutes": options.minutes, "seconds": spent,
        "steps": step, "epochs": step * config.batch_size / len(dataset), "seed": config.seed,
        "machine": f"{processor_name()}, {torch.get_num_threads()} threads",
    }  # fmt: skip
    result["split"] = splits(config.data)[-1]
    for name, share in accuracies({"averaged": average.module, "last": model}, config, result["split"]).items():
        result[f"accuracy_{name}"] = share
    return result


@torch.no_grad()
def accuracies(networks: dict[str, nn.Module], config: RunConfig, split: Split) -> dict[str, float]:
    """Share of right answers of each network on a part, which is read once."""
    timesteps = config.model.timesteps
    part = load(config.data, split, timesteps)
    dataset = TensorDataset(part, config.data, config.seed, timesteps=timesteps, training=False)
    sampler = EpochSampler(len(dataset), 0, shuffle=False)
    loader = make_loader(dataset, sampler, config.batch_size, config.data, torch.device("cpu"))
    right = dict.fromkeys(networks, 0)
    for inputs, labels, _ in batches(loader):
        for name, network in networks.items():
            with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16-mixed"):
                right[name] += int((network.eval()(inputs).argmax(1) == labels).sum())
    return {name: count / len(dataset) for name, count in right.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--network", choices=("trevsnn", "sew"), required=True)
    parser.add_argument("--width", type=int, default=64, help="of SEW-ResNet-18's first stage")
    parser.add_argument(
        "--peer_timesteps", type=int, default=4, help="T of SEW-ResNet-18; recordings have the recipe's"
    )
    parser.add_argument(
        "--run",
        type=Path,
        help="folder for summary.json; benchmarks/results.py reads runs/peers/RECIPE-NETWORK-MINUTES-SEED",
    )
    options, rest = parser.parse_known_args()
    config = recipe_config(options.recipe, rest)
    result = train(config, options)
    print(json.dumps(result, indent=1))
    if options.run is not None:
        options.run.mkdir(parents=True, exist_ok=True)
        (options.run / "summary.json").write_text(json.dumps(result | {"config": to_dict(config)}, indent=1))


if __name__ == "__main__":
    main()
