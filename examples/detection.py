"""Detection on a spiking backbone: torchvision's FCOS with a feature pyramid finds handwritten digits on photographs.

    python examples/detection.py --picture detection.jpg

Backbone and head are trained from scratch, the backbone by the exact backward pass. mAP needs pycocotools, which
``pip install 'trevsnn[detection]'`` brings.
"""

from __future__ import annotations

import importlib.util
import time

import torch
from torch import Tensor, nn
from torchmetrics.detection import MeanAveragePrecision
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork

from pasted_digits import CLASSES, SIZE, PastedDigits, Scene, backbone, fit, parse_options, save_grid, with_boxes
from trevsnn import FeatureNet

WIDTH = 64


class Pyramid(nn.Module):
    """Maps of a feature pyramid on those of a backbone, as torchvision's detectors take them."""

    def __init__(self, net: FeatureNet, width: int) -> None:
        super().__init__()
        self.net, self.out_channels = net, width
        self.pyramid = FeaturePyramidNetwork(net.feature_info.channels(), width)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> for each map of the backbone one of ``width`` channels, of the same size."""
        return self.pyramid({str(i): maps for i, maps in enumerate(self.net(x))})


def build() -> FCOS:
    """A detector on every fourth and every eighth pixel: the maps of levels 1 and 3."""
    net = backbone((1, 3))
    sizes = tuple((stride,) for stride in net.feature_info.reduction())
    return FCOS(
        Pyramid(net, WIDTH), CLASSES, min_size=SIZE, max_size=SIZE, score_thresh=0.05,
        image_mean=list(net.pretrained_cfg["mean"]), image_std=list(net.pretrained_cfg["std"]),
        anchor_generator=AnchorGenerator(sizes, ((1.0,),) * len(sizes)),
    )  # fmt: skip


def loss_of(detector: FCOS, scenes: list[Scene]) -> Tensor:
    """The sum of FCOS's losses: classes, boxes, and how central a pixel is."""
    targets = [{"boxes": scene.boxes, "labels": scene.labels} for scene in scenes]
    return sum(detector([scene.picture for scene in scenes], targets).values())


@torch.no_grad()
def evaluate(detector: FCOS, scenes: list[Scene]) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """Mean average precision, and what was found."""
    metric, found = MeanAveragePrecision(), []
    for start in range(0, len(scenes), 20):
        part = scenes[start : start + 20]
        found += (here := detector([scene.picture for scene in part]))
        metric.update(here, [{"boxes": scene.boxes, "labels": scene.labels} for scene in part])
    return metric.compute(), found


def main() -> None:
    """Train a detector, measure it on test scenes, and write what it finds on eight of them."""
    options = parse_options("a digit detector")
    if importlib.util.find_spec("pycocotools") is None:
        raise SystemExit("pycocotools is not installed: pip install 'trevsnn[detection]'.")
    torch.manual_seed(0)
    detector, start = build(), time.perf_counter()
    fit(detector, lambda scenes: loss_of(detector, scenes), options.steps)
    scenes = PastedDigits(test=True, seed=1)(options.scenes)
    result, found = evaluate(detector, scenes)
    print(f"mAP {result['map']:.3f}, mAP at IoU 0.5 {result['map_50']:.3f}, {time.perf_counter() - start:.0f} s")
    if options.picture:
        sure = [boxes["scores"] > 0.4 for boxes in found[:8]]
        pictures = [
            with_boxes(scene.picture, boxes["boxes"][kept], boxes["labels"][kept])
            for scene, boxes, kept in zip(scenes, found, sure, strict=False)
        ]
        save_grid(pictures, options.picture)


if __name__ == "__main__":
    main()
