"""The NIR graph run by nirtorch, with the map of nodes that stands in the guide."""

from typing import Any

import nirtorch
import torch

from doc_pages import blocks
from trevsnn.deploy.folded import fold
from trevsnn.deploy.nir.network import to_nir


@torch.no_grad()
def test_nirtorch_gives_the_network_s_logits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks("docs/do/nir.md", "python"):
        exec(compile(block.text, "nir.md", "exec"), names)
    assert names["logits"].shape == (16, 10)
    model = names["model"].double()
    pictures = torch.rand(64, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    network = nirtorch.nir_to_torch(to_nir(fold(model), (8, 8)), names["maps"], dtype=torch.float64)
    assert torch.allclose(network(pictures)[0], model(pictures), rtol=0, atol=1e-12)
