"""Which networks can be folded, and which of those can be written as graphs of other libraries."""

from __future__ import annotations

from torch import nn

from trevsnn.network.encoders import ImageEncoder
from trevsnn.network.heads import LastHead
from trevsnn.network.model import TRevSNN
from trevsnn.network.slicing import has_hooks, has_its_parts


def check_foldable(model: TRevSNN) -> None:
    """Check that a network is what :func:`trevsnn.deploy.folded.fold` folds, so that nothing of it is left out.

    Raises:
        ValueError: a BatchNorm has no running statistics; a module is not one of this network's own; or one has a hook.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is None:
            raise ValueError(
                f"{name} has no running statistics to fold into its convolution: use the network as it is, or a BatchNorm "
                "with track_running_stats=True."
            )
    last = f"heads.{len(model.heads) - 1}"
    own: dict[str, bool] = {"encoder": type(model.encoder) in (ImageEncoder, nn.Identity)}
    for i, level in enumerate(model.levels):
        own |= {f"levels.{i}.steps.{t}": has_its_parts(step) for t, step in enumerate(level.steps)}  # type: ignore[arg-type]
        own[f"levels.{i}.shared"] = has_its_parts(level.shared)  # type: ignore[arg-type]
    own[last] = type(model.heads[-1]) is LastHead
    for name, is_own in own.items():
        if not is_own:
            raise ValueError(
                f"{name} is, or holds, a module that is not the library's own, which cannot be folded: use the network itself, or "
                "torch.export of it."
            )
    for name, module in model.named_modules():
        if name.startswith(("encoder", "levels", last)) and has_hooks(module):
            raise ValueError(
                f"{name} has a hook or a forward of its own, which a folded network would leave out: remove it first, or use "
                "torch.export of the network."
            )


def check_writable(folded: nn.Module) -> None:
    """Check that a folded network can be written as ONNX or NIR: what is written of a convolution is its weight, stride and groups,
    and zeros beyond the border.

    Raises:
        ValueError: a convolution computes otherwise, or a number of the network is not finite.
    """
    for name, module in folded.named_modules():
        if isinstance(module, nn.Conv2d) and not _keeps_the_size(module):
            raise ValueError(
                f"{name} is {module}, which is not written: of convolutions only those with an odd kernel, zeros of half its size "
                "around and no dilation are; use torch.export of the network."
            )
    for name, tensor in folded.state_dict().items():
        if not tensor.isfinite().all():
            raise ValueError(f"{name} holds a number that is not finite: such a network has no answer to export.")


def _keeps_the_size(conv: nn.Conv2d) -> bool:
    """Whether the output has ``ceil(n / stride)`` pixels of n, with zeros beyond the border."""
    return (
        conv.padding_mode == "zeros"
        and set(conv.dilation) == {1}
        and not isinstance(conv.padding, str)
        and all(kernel == 2 * padding + 1 for kernel, padding in zip(conv.kernel_size, conv.padding, strict=True))
    )
