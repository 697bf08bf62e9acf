"""Segmentation on a spiking backbone: which pixels of a photograph belong to which handwritten digit.

    python examples/segmentation.py --picture segmentation.jpg

Backbone and head are trained from scratch, the backbone by the exact backward pass. The head is a feature pyramid whose
finest map is classified pixel by pixel.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassJaccardIndex
from torchvision.ops import FeaturePyramidNetwork
from torchvision.transforms.v2 import functional
from torchvision.utils import draw_segmentation_masks

from pasted_digits import BACKGROUND, CLASSES, PastedDigits, Scene, backbone, enlarged, fit, parse_options, save_grid

WIDTH = 64
COLOURS = ["#D55E00", "#009E73", "#56B4E9"]  # of Okabe and Ito: told apart by colour-blind people too


class Segmenter(nn.Module):
    """Logits for every pixel, from the maps of levels 0, 1 and 3: every second, fourth and eighth pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.net = backbone((0, 1, 3))
        self.mean, self.std = (list(self.net.pretrained_cfg[name]) for name in ("mean", "std"))
        self.pyramid = FeaturePyramidNetwork(self.net.feature_info.channels(), WIDTH)
        self.classifier = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.GroupNorm(8, WIDTH), nn.ReLU(), nn.Conv2d(WIDTH, CLASSES + 1, 1)
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W), 0..1 -> (B, 4, H, W)."""
        maps = self.net(functional.normalize(pictures, self.mean, self.std))
        finest = self.pyramid({str(i): m for i, m in enumerate(maps)})["0"]
        return nn.functional.interpolate(self.classifier(finest), size=pictures.shape[2:], mode="bilinear")


def loss_of(segmenter: Segmenter, scenes: list[Scene]) -> Tensor:
    """Cross entropy of all pixels; the background, of which there is most, counts a fifth."""
    weight = torch.ones(CLASSES + 1)
    weight[BACKGROUND] = 0.2
    logits = segmenter(torch.stack([scene.picture for scene in scenes]))
    return nn.functional.cross_entropy(logits, torch.stack([scene.mask for scene in scenes]), weight)


@torch.no_grad()
def evaluate(segmenter: Segmenter, scenes: list[Scene]) -> tuple[float, Tensor]:
    """Mean intersection over union of the three digits and the background, and the class of every pixel (B, H, W)."""
    metric, found = MulticlassJaccardIndex(CLASSES + 1), []
    for start in range(0, len(scenes), 20):
        part = scenes[start : start + 20]
        found.append(segmenter(torch.stack([scene.picture for scene in part])).argmax(1))
        metric.update(found[-1], torch.stack([scene.mask for scene in part]))
    return float(metric.compute()), torch.cat(found)


def coloured(picture: Tensor, classes: Tensor) -> Tensor:
    """A picture, enlarged, with every digit's pixels in its colour."""
    masks = torch.stack([classes == digit for digit in range(CLASSES)])
    masks = masks.repeat_interleave(2, 1).repeat_interleave(2, 2)
    return draw_segmentation_masks(enlarged(picture), masks, alpha=0.7, colors=COLOURS)


def main() -> None:
    """Train a segmenter, measure it on test scenes, and write eight of them beside what it makes of them."""
    options = parse_options("a digit segmenter")
    torch.manual_seed(0)
    segmenter, start = Segmenter(), time.perf_counter()
    fit(segmenter, lambda scenes: loss_of(segmenter, scenes), options.steps)
    scenes = PastedDigits(test=True, seed=1)(options.scenes)
    result, found = evaluate(segmenter, scenes)
    print(f"mIoU {result:.3f}, {time.perf_counter() - start:.0f} s")
    if options.picture:
        pictures = [enlarged(scene.picture) for scene in scenes[:4]]
        save_grid([*pictures, *map(coloured, (s.picture for s in scenes[:4]), found)], options.picture)


if __name__ == "__main__":
    main()
