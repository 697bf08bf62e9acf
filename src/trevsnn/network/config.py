"""Everything that determines a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from trevsnn.backprop import BACKPROP_MODES, Backprop
from trevsnn.checks import at_most, choice, positive
from trevsnn.network.keep import check_keep

#: A picture (B, in_chans, H, W) for all timesteps, or event frames (B, T, in_chans, H, W), one for each.
Input = Literal["image", "event"]
#: Of a picture: one map for all timesteps, or a part of the channels for each.
Encoding = Literal["shared", "grouped"]
#: Which levels of the timestep before F[l,t] sees: l+1, or every i > l.
Links = Literal["adjacent", "all"]
#: What the earlier state is multiplied by: a number of each channel that is learned, or 1.
Alphas = Literal["learned", "one"]
#: When the head of an event network reads the top level: after the last timestep, or after every one.
EventReadout = Literal["last", "mean"]
#: What computes the blocks in "exact" and "reversible".
Kernels = Literal["auto", "eager", "triton"]

#: Fields that say how a network is computed, not what: results do not depend on them.
CIRCUMSTANCES = ("backprop", "slice_bytes", "kernels", "keep")


#: The largest values of fields; of ``channels`` those of one level. Sub-networks, levels times timesteps, are ``SUBNETS`` at most.
LARGEST = {
    "timesteps": 4096, "kernel_size": 255, "num_classes": 2**20, "in_chans": 65_536, "channels": 65_536, "slice_bytes": 2**50,
}  # fmt: skip
LEVELS, SUBNETS = 32, 2**15


@dataclass(frozen=True)
class TRevSNNConfig:
    """Everything that determines a network's weights and what its backward pass keeps.

    Attributes:
        channels: C_l of the levels, lowest first, two at least. The resolution halves from level to level, except
            from the last but one to the last.
        timesteps: T, the number of sub-networks.
        kernel_size: of the depthwise convolutions, odd.
        num_classes: K, two at least; 0 for no classifier: the network then gives the top level's pooled spikes (B, C).
        in_chans: channels of a picture, or of an event frame; None for 3 and 2.
        input: "image", (B, in_chans, H, W) for all timesteps, or "event", frames (B, T, in_chans, H, W).
        encoding: "shared": every timestep of an image gets the same map (published code); "grouped": each has its own
            part of the encoder (the paper). Event frames always have their own.
        encoder_stride: pixels per element of the lowest level, 4, 2 or 1; None for 4 (image) and 1 (event).
        links: which levels F[l,t] sees of t-1: "adjacent", l+1 (published code); "all", every i > l, the sum of the paper.
            "all" has sum of C_l (C_i + 2) over all i >= l + 2 more parameters for each timestep from t = 1 on.
        alphas: "learned": c[l,t-1] is multiplied by an alpha[l,t] of each channel (the paper); "one": it is not, and there are
            sum of C_l parameters fewer for each timestep from t = 1 on. Then inverting the recurrence does not amplify
            rounding errors, and "exact" keeps no float states.
        readout: which states of the top level an event network's head reads: "last", s(c[L-1,T-1] / T) (published code), of
            which a new network's head sees nothing from T = 8 on; "mean", s(c[L-1,t]) after every timestep, and the logits
            are the mean of the head's logits over t. Images have "last".
        backprop: "exact", "reversible" or "autograd"; see :func:`trevsnn.reversible.run`.
        slice_bytes: what the widest map of one slice of the batch may take, in every mode and in evaluation; a slice is
            one item at least. A backward pass needs about three times as much for a moment. Smaller slices need less
            memory, larger ones fewer calls; results differ by rounding alone. None for 3.25 MiB on a CPU and 512 MiB
            elsewhere.
        kernels: what computes the blocks in "exact" and "reversible": "auto", Triton kernels on a CUDA device in bfloat16 or
            float16, else plain operations; "eager", always these; "triton", kernels or an error. Results differ by rounding.
        keep: memory that "exact" may take to compute less again, to the same bits: "4GB"; "12MB/item", of each picture or clip
            of a batch; or "30%" of the device's memory. What spares most for its bytes is kept first: codes of hidden neurons, maps
            of the links, what PW2 makes of spikes. None for nothing.

    Raises:
        ValueError: a field is of another type, is none of its names, or is out of its range: positive integers up to 4,096
            timesteps, a kernel size of 255, 2^20 classes, 65,536 channels of a level or of the input, 32 levels, and 2^15
            levels times timesteps. Or fields do not go together: ``keep`` with another ``backprop`` than "exact";
            ``kernels="triton"`` with "autograd"; ``encoding="grouped"`` with event frames; ``readout="mean"`` with
            pictures. The message names them and what can be.
    """

    channels: tuple[int, ...] = (64, 128, 256, 384)
    timesteps: int = 4
    kernel_size: int = 3
    num_classes: int = 1000
    in_chans: int | None = None
    input: Input = "image"
    encoding: Encoding = "shared"
    encoder_stride: int | None = None
    links: Links = "adjacent"
    alphas: Alphas = "learned"
    readout: EventReadout = "last"
    backprop: Backprop = "exact"
    slice_bytes: int | None = None
    kernels: Kernels = "auto"
    keep: str | None = None

    def __post_init__(self) -> None:
        choice("input", self.input, get_args(Input))
        choice("encoding", self.encoding, get_args(Encoding))
        choice("links", self.links, get_args(Links))
        choice("alphas", self.alphas, get_args(Alphas))
        choice("readout", self.readout, get_args(EventReadout))
        choice("backprop", self.backprop, BACKPROP_MODES)
        choice("kernels", self.kernels, get_args(Kernels))
        if not isinstance(self.channels, list | tuple):
            raise ValueError(f"channels is {self.channels!r}; give a list of positive integers, lowest level first.")
        image = self.input == "image"
        object.__setattr__(self, "channels", tuple(self.channels))
        object.__setattr__(self, "in_chans", (3 if image else 2) if self.in_chans is None else self.in_chans)
        object.__setattr__(
            self, "encoder_stride", (4 if image else 1) if self.encoder_stride is None else self.encoder_stride
        )
        for i, channels in enumerate(self.channels):
            positive(f"channels[{i}]", channels)
            at_most(f"channels[{i}]", channels, LARGEST["channels"])
        if len(self.channels) < 2:
            raise ValueError(f"channels is {self.channels}; a network has two levels at least.")
        at_most("the number of channels, one for each level,", len(self.channels), LEVELS)
        for name in ("timesteps", "kernel_size", "in_chans"):
            positive(name, getattr(self, name))
            at_most(name, getattr(self, name), LARGEST[name])
        at_most("levels times timesteps", len(self.channels) * self.timesteps, SUBNETS)
        if self.num_classes != 0:
            positive("num_classes", self.num_classes)
            at_most("num_classes", self.num_classes, LARGEST["num_classes"])
            if self.num_classes == 1 or self.channels[-1] == 1:
                one = "num_classes" if self.num_classes == 1 else f"channels[{len(self.channels) - 1}]"
                raise ValueError(
                    f"{one} is 1, of which the heads' standardised weights would all be 0: give two at least."
                )
        if self.slice_bytes is not None:
            positive("slice_bytes", self.slice_bytes)
            at_most("slice_bytes", self.slice_bytes, LARGEST["slice_bytes"])
        if self.keep is not None:
            check_keep(self.keep)
            if self.backprop != "exact":
                raise ValueError(
                    f"keep is for backprop 'exact'; in {self.backprop!r} nothing is kept by it: leave it out."
                )
        if self.kernels == "triton" and self.backprop == "autograd":
            raise ValueError(
                "kernels 'triton' are for backprop 'exact' and 'reversible'; 'autograd' takes plain operations: leave it out."
            )
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {self.kernel_size}; it must be odd, so that maps keep their size.")
        choice("encoder_stride", self.encoder_stride, (4, 2, 1))
        if self.encoding == "grouped" and not image:
            raise ValueError(
                "encoding='grouped' is for images; each event frame has its own encoder already, use 'shared'."
            )
        if self.readout == "mean" and image:
            raise ValueError(
                "readout='mean' is for event frames; an image has heads after each quarter of T, use 'last'."
            )

    @property
    def read_timesteps(self) -> range:
        """The timesteps after which the last head reads the top level's state."""
        return range(0 if self.readout == "mean" else self.timesteps - 1, self.timesteps)

    @property
    def read_divisor(self) -> int:
        """What the last head divides the state by before its threshold: T where it reads the last state of an event network."""
        return self.timesteps if self.input == "event" and self.readout == "last" else 1
