"""The short program in a model card that uses an exported ONNX file without this package and without PyTorch."""

from __future__ import annotations

from trevsnn.data.sets import is_event
from trevsnn.run.config import RunConfig

_BEGIN = """\
import json, sys
import numpy as np, onnxruntime
{image}
session = onnxruntime.InferenceSession("{file}")
about = {{key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}}
"""

_PICTURE = """\
picture = Image.open(sys.argv[1]).convert("RGB").convert("L" if about["channels"] == 1 else "RGB")
(w, h), (height, width) = picture.size, about["size"]
rows, columns = int(height / about["crop"]), int(width / about["crop"])  # which the picture has to cover
w, h = (columns, h * columns // w) if w * rows <= h * columns else (w * rows // h, rows)
left, top = round((w - width) / 2), round((h - height) / 2)
picture = picture.resize((w, h), Image.Resampling.BILINEAR).crop((left, top, left + width, top + height))
x = np.asarray(picture, np.float32).reshape(height, width, -1) / np.float32(255)
x = ((x - np.float32(about["mean"])) / np.float32(about["std"])).transpose(2, 0, 1)
"""

_ROWS = """\
cuts = [t * height // {timesteps} for t in range({timesteps} + 1)]
x = np.stack([x[:, a:b].mean(1, keepdims=True) for a, b in zip(cuts, cuts[1:])])
"""

_FRAMES = """\
counts = np.load(sys.argv[1]).astype(np.float32)  # (T, 2, H, W): events of each polarity at each pixel of T frames
x = counts / counts[counts > 0].mean()
"""

_END = """\
logits = session.run(None, {"input": x[None]})[0][0].astype(np.float64)
p = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
print(about["classes"][p.argmax()], p.max())
"""


def script_section(config: RunConfig, file: str) -> str:
    """The section of a card with the program, and what it needs.

    Args:
        config: of the run.
        file: name of the ONNX file.
    """
    event, rows = is_event(config.data), config.data.rows
    begin = _BEGIN.format(file=file, image="" if event else "from PIL import Image\n")
    timesteps = config.model.timesteps
    body = _FRAMES if event else _PICTURE + (_ROWS.format(timesteps=timesteps) if rows else "")
    needs = "onnxruntime and NumPy" if event else "onnxruntime, NumPy and Pillow"
    lines = [f"Without this package and PyTorch, by {needs} alone; what it must know stands in the file's metadata:\n"]
    lines.append(
        f"```python\n# python classify.py {'counts.npy' if event else 'picture.jpg'}\n{begin}{body}{_END}```\n"
    )
    if event:
        size = " x ".join(map(str, config.data.size_HW))
        lines.append(
            f"It takes counts as an array of NumPy, {timesteps} frames of {size} pixels. Recordings of an event camera need the "
            "package, which reads their formats and bins them: `trevsnn predict`.\n"
        )
    return "\n".join(lines)
