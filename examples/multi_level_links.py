"""T-RevSNN with the paper's links from all levels above, beside the published code's from the adjacent one; and without alpha.

    python examples/multi_level_links.py

Each network takes a few steps on the digits of scikit-learn. The last one has no alphas, so that its states could be
inverted without any loss of precision: ``reversible`` then keeps nothing that grows with T, at any T.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits

from trevsnn import TRevSNN, TRevSNNConfig, deep_supervision_loss

SHAPE = {"channels": (8, 12, 16, 16), "num_classes": 10, "in_chans": 1, "encoder_stride": 1}
VARIANTS = {
    "adjacent links": TRevSNNConfig(**SHAPE, links="adjacent"),
    "links from all levels": TRevSNNConfig(**SHAPE, links="all"),
    "all links, no alpha, reversible": TRevSNNConfig(**SHAPE, links="all", alphas="one", backprop="reversible"),
}
STEPS, BATCH = 12, 128


def main() -> None:
    """Train each variant for some steps, and print its parameters and losses."""
    torch.set_num_threads(1)  # networks this small are slower with more
    pictures, classes = (torch.from_numpy(a) for a in load_digits(return_X_y=True))
    pictures = pictures.float().div(16).view(-1, 1, 8, 8)
    for name, config in VARIANTS.items():
        torch.manual_seed(0)
        model, losses = TRevSNN(config), []
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for rows in torch.randperm(len(pictures))[: STEPS * BATCH].split(BATCH):
            loss = deep_supervision_loss(model(pictures[rows], all_heads=True), classes[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        parameters = sum(p.numel() for p in model.parameters())
        print(f"{name}: {parameters} parameters, loss {losses[0]:.2f} -> {losses[-1]:.2f} in {STEPS} steps")


if __name__ == "__main__":
    main()
