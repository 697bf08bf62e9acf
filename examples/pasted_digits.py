"""The handwritten digits 0, 1 and 2 pasted on photographs, all of them real, as they come with scikit-learn.

    python examples/pasted_digits.py

writes some of them, with their boxes, to pasted-digits.jpg. Training and test scenes have no digit and no part of a photograph
in common.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import torch
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor, nn
from torchvision.io import write_jpeg
from torchvision.transforms.v2 import functional
from torchvision.utils import draw_bounding_boxes, make_grid

from trevsnn import FeatureNet, create_model

SIZE, CLASSES, BACKGROUND = 64, 3, 3
SMALLEST, LARGEST, MOST = 16, 28, 6


def backbone(out_indices: tuple[int, ...]) -> FeatureNet:
    """A small network, not trained yet, whose maps have a side of 1/2, 1/4, 1/8 and 1/8 of the picture's."""
    return create_model(
        "trevsnn_nano", channels=(16, 48, 96, 96), timesteps=2, encoder_stride=2, features_only=True, out_indices=out_indices
    )  # fmt: skip


class Scene(NamedTuple):
    """A picture with digits on it.

    Attributes:
        picture: (3, 64, 64), float32, 0..1.
        boxes: (N, 4), x and y of a digit's corners, float32.
        labels: (N,), 0..2.
        mask: (64, 64), the digit that a pixel belongs to, or 3.
    """

    picture: Tensor
    boxes: Tensor
    labels: Tensor
    mask: Tensor


class PastedDigits:
    """As many scenes as are asked for.

    Args:
        test: of the last fifth of the digits and the lower third of the photographs; otherwise of the others.
        seed: of the random numbers.
    """

    def __init__(self, *, test: bool, seed: int) -> None:
        digits, classes = load_digits(n_class=CLASSES, return_X_y=True)
        cut = len(digits) * 4 // 5
        rows = slice(cut, None) if test else slice(0, cut)
        self.digits = torch.from_numpy(digits[rows]).float().div(16).view(-1, 1, 8, 8)
        self.classes = torch.from_numpy(classes[rows])
        photographs = [torch.from_numpy(image.copy()).permute(2, 0, 1) for image in load_sample_images().images]
        self.photographs = [p[:, 285:] if test else p[:, :285] for p in photographs]
        self.dice = torch.Generator().manual_seed(seed)

    def __call__(self, n: int) -> list[Scene]:
        """``n`` scenes."""
        return [self._scene() for _ in range(n)]

    def _below(self, end: int) -> int:
        return int(torch.randint(end, (), generator=self.dice))

    def _scene(self) -> Scene:
        picture, mask = self._background(), torch.full((SIZE, SIZE), BACKGROUND)
        taken, boxes, labels = torch.zeros(SIZE, SIZE, dtype=torch.bool), [], []
        for _ in range(1 + self._below(MOST)):
            index, side = self._below(len(self.digits)), SMALLEST + self._below(LARGEST - SMALLEST + 1)
            x, y = self._below(SIZE - side), self._below(SIZE - side)
            if taken[y : y + side, x : x + side].any():  # digits do not overlap; the first one always fits
                continue
            taken[y : y + side, x : x + side] = True
            ink = functional.resize(self.digits[index], [side, side], antialias=True).clamp(0, 1)
            colour = torch.rand(3, 1, 1, generator=self.dice)
            here = picture[:, y : y + side, x : x + side]
            colour = torch.where(here.mean() > colour.mean(), colour * 0.4, 1 - 0.4 * colour)  # to be seen there
            here.mul_(1 - ink).add_(ink * colour)
            seen = ink[0] > 0.4
            mask[y : y + side, x : x + side][seen] = self.classes[index]
            rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
            boxes.append([x + int(columns[0]), y + int(rows[0]), x + int(columns[-1]) + 1, y + int(rows[-1]) + 1])
            labels.append(self.classes[index])
        return Scene(picture, torch.tensor(boxes, dtype=torch.float32), torch.stack(labels), mask)

    def _background(self) -> Tensor:
        """A square of a photograph."""
        photograph = self.photographs[self._below(len(self.photographs))]
        side = SIZE + self._below(photograph.shape[1] - SIZE + 1)
        top, left = (self._below(n - side + 1) for n in photograph.shape[1:])
        square = photograph[:, top : top + side, left : left + side]
        return functional.resize(square, [SIZE, SIZE], antialias=True).float().div(255)


def fit(module: nn.Module, loss_of_scenes, steps: int, batch: int = 8, lr: float = 3e-3, seed: int = 0) -> list[float]:
    """Train ``module`` by AdamW on fresh scenes; prints and returns the losses."""
    scenes, losses = PastedDigits(test=False, seed=seed), []
    optimizer = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps + 1)
    module.train()
    for step in range(steps):
        loss = loss_of_scenes(scenes(batch))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 50 == 49 or step + 1 == steps:
            print(f"step {step + 1}: loss {sum(losses[-50:]) / len(losses[-50:]):.3f}", flush=True)
    module.eval()
    return losses


def parse_options(what: str) -> argparse.Namespace:
    """The options of an example that trains ``what``, measures it on test scenes, and draws what it finds."""
    parser = argparse.ArgumentParser(description=f"Train {what} on a spiking backbone.")
    parser.add_argument("--steps", type=int, default=500, help="training steps of eight pictures")
    parser.add_argument("--scenes", type=int, default=200, help="test pictures")
    parser.add_argument("--picture", help="write what is found on some of them to this file (JPEG)")
    return parser.parse_args()


def save_grid(pictures: list[Tensor], file: str) -> None:
    """Write pictures (3, H, W), uint8, side by side as a JPEG."""
    write_jpeg(make_grid(torch.stack(pictures), nrow=4, pad_value=255), file, quality=85)


def enlarged(picture: Tensor) -> Tensor:
    """A picture of twice the side, uint8."""
    return functional.resize(
        picture.mul(255).byte(), [2 * SIZE, 2 * SIZE], interpolation=functional.InterpolationMode.NEAREST
    )


def with_boxes(picture: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
    """An enlarged picture with boxes and their digits drawn on it."""
    if not len(boxes):
        return enlarged(picture)
    return draw_bounding_boxes(enlarged(picture), 2 * boxes, [str(int(label)) for label in labels], colors="yellow")


def main() -> None:
    """Write eight training scenes."""
    scenes = PastedDigits(test=False, seed=0)(8)
    save_grid([with_boxes(scene.picture, scene.boxes, scene.labels) for scene in scenes], "pasted-digits.jpg")
    print(f"{sum(len(scene.labels) for scene in scenes)} digits on 8 pictures: pasted-digits.jpg")


if __name__ == "__main__":
    main()
