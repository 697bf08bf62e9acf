"""Named networks: their sizes, their trained weights, and how timm and the published implementation know them.

Sizes are plain data: nothing here loads PyTorch; :mod:`trevsnn.zoo.create` and :mod:`trevsnn.zoo.published` do.
"""

from trevsnn.zoo.presets import PRESETS, pretrained_folder

__all__ = ["PRESETS", "pretrained_folder"]
