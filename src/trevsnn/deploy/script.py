"""The short program in a model card that uses an exported ONNX file without this package and without PyTorch."""

from __future__ import annotations

from trevsnn.data.pictures.file import FORMATS
from trevsnn.data.sets import is_event
from trevsnn.run.config import RunConfig

_BEGIN = """\
import json, sys
import numpy as np, onnxruntime
{image}session = onnxruntime.InferenceSession("{file}")
about = {{key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}}
"""

_PICTURE = """\
picture = Image.open(sys.argv[1], formats={formats})
assert not picture.mode.startswith(("I", "F")), "give a picture of 8 bits a channel; trevsnn predict reads more"
assert picture.mode not in ("1", "L", "RGB") or "transparency" not in picture.info, "one colour is transparent; trevsnn predict reads it"
{turn}if picture.has_transparency_data:
    picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
(w, h), (rows, columns), (height, width) = {size}, about["resize"], about["size"]
w, h = max((columns, h * columns // w), (w * rows // h, rows))  # covers rows x columns
{draft}picture = picture.convert("RGB").convert("L" if about["channels"] == 1 else "RGB").resize((w, h), Image.Resampling.BILINEAR{box})
x = np.asarray(picture).reshape(h, w, -1)[round((h - height) / 2) :, round((w - width) / 2) :][:height, :width]
x = (x.astype(np.float32) / np.float32(255) - np.float32(about["mean"])) / np.float32(about["std"])
"""

_TURN = "picture = ImageOps.exif_transpose(picture)\n"

_DRAFT = "reduced = picture.draft(None, (w, h))  # a JPEG is decoded no finer than it is shown\n"

# A JPEG has to be turned after its scale is chosen, and then begins with the pixels that end beyond what is stored.
_TURN_ALL_BUT_JPEGS = """\
turn = picture.getexif().get(274, 1) if picture.format in ("JPEG", "MPO") else None
picture = ImageOps.exif_transpose(picture) if turn is None else picture
order = -1 if turn in (5, 6, 7, 8) else 1
"""
_DRAFT_AND_TURN = """\
reduced = picture.draft(None, (w, h)[::order])  # a JPEG is decoded no finer than it is shown
if turn is not None:
    picture = ImageOps.exif_transpose(picture)
if reduced:
    (wide, high), left, top = reduced[1][2:][::order], turn in (2, 3, 6, 7), turn in (3, 4, 7, 8)
    left, top = left * (picture.width - wide), top * (picture.height - high)
    reduced = None, (left, top, left + wide, top + high)
"""

_ROWS = """\
cuts = [t * height // {timesteps} for t in range({timesteps} + 1)]
x = np.stack([x[a:b].mean(0).T[:, None] for a, b in zip(cuts, cuts[1:])])
"""

_FRAMES = """\
counts = np.load(sys.argv[1]).astype(np.float32)  # (T, 2, H, W): events of each polarity at each pixel of T frames
x = counts / counts[counts > 0].mean()
"""

_END = """\
print(about["classes"][session.run(None, {{"input": {x}[None]}})[0].argmax()])
"""


def script_section(config: RunConfig, file: str) -> str:
    """The section of a card with the program, and what it needs.

    Args:
        config: of the run.
        file: name of the ONNX file.
    """
    event, rows = is_event(config.data), config.data.rows
    turned, reduced = config.data.exif_orientation, config.data.reduced
    image = "from PIL import Image, ImageOps\n" if turned else "from PIL import Image\n"
    begin = _BEGIN.format(file=file, image="" if event else image)
    timesteps = config.model.timesteps
    picture = _PICTURE.format(
        formats=FORMATS,
        turn=(_TURN_ALL_BUT_JPEGS if reduced else _TURN) if turned else "",
        size="picture.size[::order]" if turned and reduced else "picture.size",
        draft=(_DRAFT_AND_TURN if turned else _DRAFT) if reduced else "",
        box=", reduced and reduced[1]" if reduced else "",
    )
    picture += _ROWS.format(timesteps=timesteps) if rows else ""
    needs = "onnxruntime and NumPy" if event else "onnxruntime, NumPy and Pillow"
    end = _END.format(x="x" if event or rows else "x.transpose(2, 0, 1)")
    lines = [f"Without this package and PyTorch, by {needs} alone; what it must know stands in the file's metadata:\n"]
    lines.append(
        f"```python\n# python classify.py {'counts.npy' if event else 'picture.jpg'}\n{begin}{_FRAMES if event else picture}{end}```\n"
    )
    if config.precision in ("bf16-mixed", "16-mixed"):
        lines.append(
            f"It computes in float32. The run's precision is {config.precision}, in which `trevsnn predict` computes the network, so "
            "that a picture between two classes may be given the other one; `--engine onnx` computes as the program does.\n"
        )
    if event:
        size = " x ".join(map(str, config.data.size_HW))
        lines.append(
            f"It takes counts as an array of NumPy, {timesteps} frames of {size} pixels. Recordings of an event camera need the "
            "package, which reads their formats and bins them: `trevsnn predict`.\n"
        )
    return "\n".join(lines)
