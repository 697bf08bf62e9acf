"""The examples run as their first lines say, and what they print holds."""

import re
from pathlib import Path

import pytest
import torch

import detection
import segmentation
from pasted_digits import BACKGROUND, PastedDigits, enlarged, fit, save_grid, with_boxes
from processes import run_program

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_each_begins_with_its_command(path):
    assert f"\n\n    python examples/{path.name}" in path.read_text()


def test_lif_networks():
    lines = run_program(EXAMPLES, "lif_networks.py", "--steps", "6")
    assert [line.split(",")[0] for line in lines] == ["VGG", "SEW-ResNet-18", "Spikformer"]
    for line in lines:
        exact, autograd, first, last = map(float, re.findall(r"\d+\.\d+", line))
        assert exact < 0.6 * autograd
        assert last < first


def test_own_neuron():
    window, arctan = run_program(EXAMPLES, "own_neuron.py")
    assert ": 2 bits" in window
    assert ": 64 bits" in arctan
    for line in (window, arctan):
        assert float(re.search(r"differ by (\S+) relative", line)[1]) < 1e-12


def test_own_modules():
    for line in run_program(EXAMPLES, "own_modules.py"):
        exact, autograd = map(float, re.findall(r"\d+\.\d", line))
        assert exact < 0.3 * autograd
        assert float(re.search(r"differ by (\S+) relative", line)[1]) < 1e-6


def test_multi_level_links():
    lines = run_program(EXAMPLES, "multi_level_links.py")
    numbers = [[float(n) for n in re.findall(r"\d+(?:\.\d+)?", line)] for line in lines]
    assert [int(parameters) for parameters, *_ in numbers] == [63524, 65036, 64880]
    assert all(last < first for _, first, last, _ in numbers)


def test_pasted_digits_are_where_their_boxes_and_masks_say():
    scenes = PastedDigits(test=True, seed=3)(30)
    for scene in scenes:
        found = torch.full_like(scene.mask, BACKGROUND)
        for box, label in zip(scene.boxes.int().tolist(), scene.labels, strict=True):
            left, top, right, bottom = box
            ink = scene.mask[top:bottom, left:right] == label
            assert all(side.any() for side in (ink[0], ink[-1], ink[:, 0], ink[:, -1]))  # as tight as it can be
            found[top:bottom, left:right] = torch.where(ink, label, BACKGROUND)
            inside = scene.picture[:, top:bottom, left:right]
            assert (inside[:, ink].mean() - inside[:, ~ink].mean()).abs() > 0.05  # it can be seen
        assert torch.equal(found, scene.mask)
        assert 0 <= scene.picture.min() < scene.picture.max() <= 1
    assert {int(label) for scene in scenes for label in scene.labels} == {0, 1, 2}
    again = PastedDigits(test=True, seed=3)(2)
    assert all(torch.equal(a.picture, b.picture) for a, b in zip(again, scenes, strict=False))
    train, test = PastedDigits(test=False, seed=3), PastedDigits(test=True, seed=3)
    assert (len(train.digits), len(test.digits)) == (429, 108)
    assert [t.shape[1] + u.shape[1] for t, u in zip(train.photographs, test.photographs, strict=True)] == [427, 427]


@pytest.mark.parametrize("name", ["detection", "segmentation"])
def test_a_few_steps_on_one_batch_of_pasted_digits(name):
    """The loss falls; with a whole training of it mAP and mIoU are those in docs/do/backbone.md."""
    pytest.importorskip("pycocotools")
    torch.manual_seed(0)
    example = {"detection": detection, "segmentation": segmentation}[name]
    module = detection.build() if name == "detection" else segmentation.Segmenter()
    scenes = PastedDigits(test=False, seed=0)(2)
    losses = fit(module, lambda _: example.loss_of(module, scenes), 3)
    assert losses[-1] < losses[0]
    result, found = example.evaluate(module, scenes)
    assert len(found) == 2
    assert 0 <= float(result["map"] if name == "detection" else result) < 1
    net = module.backbone.net if name == "detection" else module.net
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_right_detections_and_segments_score_one():
    pytest.importorskip("pycocotools")
    scenes = PastedDigits(test=True, seed=1)(60)

    def detector(pictures):
        known = {id(scene.picture): scene for scene in scenes}
        found = [known[id(picture)] for picture in pictures]
        return [{"boxes": s.boxes, "labels": s.labels, "scores": torch.ones(len(s.labels))} for s in found]

    def segmenter(pictures):
        masks = [next(s.mask for s in scenes if torch.equal(s.picture, picture)) for picture in pictures]
        return torch.nn.functional.one_hot(torch.stack(masks), 4).permute(0, 3, 1, 2)

    assert float(detection.evaluate(detector, scenes)[0]["map"]) == pytest.approx(1)
    assert segmentation.evaluate(segmenter, scenes)[0] == pytest.approx(1)


def test_pictures_of_what_was_found(tmp_path):
    scene = PastedDigits(test=True, seed=1)(1)[0]
    plain = enlarged(scene.picture)
    boxed = with_boxes(scene.picture, scene.boxes, scene.labels)
    x, y = (2 * scene.boxes[0, :2]).int().tolist()
    assert boxed[:, y, x].tolist() == [255, 255, 0]
    assert torch.equal(with_boxes(scene.picture, scene.boxes[:0], scene.labels[:0]), plain)
    shown = segmentation.coloured(scene.picture, scene.mask)
    outside = (scene.mask == BACKGROUND).repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(shown[:, outside], plain[:, outside])
    assert not torch.equal(shown, plain)
    save_grid([plain, boxed], str(tmp_path / "found.jpg"))
    assert 1000 < (tmp_path / "found.jpg").stat().st_size < 100_000
