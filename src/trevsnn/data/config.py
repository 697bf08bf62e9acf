"""The part of a run's config that is about its data: typed, validated, and free of torch and numpy."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from trevsnn.checks import at_least, at_most, finite_at_least, within
from trevsnn.data.convention import Convention, Polarity, TimeUnit
from trevsnn.sizes import LONGEST, Size, height_and_width, plain_size, size_text

#: Names of data sets; "folder" and "shards" are your own pictures, "recordings" your own recordings.
DataSet = Literal[
    "digits", "mnist", "fashion-mnist", "cifar-10", "cifar-100", "tiny-imagenet", "imagenet", "folder", "shards",
    "n-mnist", "n-caltech101", "cifar10-dvs", "dvs128-gesture", "recordings",
]  # fmt: skip
EVENT_SETS: tuple[DataSet, ...] = ("n-mnist", "n-caltech101", "cifar10-dvs", "dvs128-gesture", "recordings")
#: How a recording is cut into frames: each of as many events ("count"), or each of as many microseconds ("time").
BinBy = Literal["count", "time"]
#: What is told of a recording: its class, or whether its time runs forward or is reversed.
Task = Literal["class", "direction"]
Split = Literal["train", "val", "test"]

#: Width and height of the sensors in pixels; of "recordings" ``data.sensor`` says it.
SENSORS: dict[str, tuple[int, int]] = {
    "dvs128-gesture": (128, 128), "cifar10-dvs": (128, 128), "n-mnist": (34, 34), "n-caltech101": (240, 180),
}  # fmt: skip

WORKERS = 1024  # loading processes, at most

#: Options for one kind of data alone.
_PICTURES = (
    "rows", "crop", "crop_scale", "crop_share", "auto_augment", "color_jitter", "reduced", "on_device", "grey",
    "exif_orientation",
)  # fmt: skip
PICTURE_FOLDERS: tuple[DataSet, ...] = ("imagenet", "tiny-imagenet", "folder")
_EVENTS = ("task", "piece_ms", "event_mix", "bin_by", "letterbox", "event_drop", "sensor", "time_unit", "polarity")
_RECORDINGS = ("sensor", "time_unit", "polarity")  # of one's own: the published sets have theirs


@dataclass
class DataConfig:
    """Which pictures or recordings, and how they are resized and augmented.

    Attributes:
        name: the data set; "folder" and "shards" for your own pictures, "recordings" for your own event recordings.
        root: folder of the data set; None: where Debian's package or an earlier download put it. Digits need none.
        download: whether to download a missing set (MNIST, Fashion-MNIST, CIFAR).
        image_size: side in pixels of the network's input, or height and width. Pictures are resized, events counted in
            larger pixels.
        rows: give a picture to the network row by row, as a line camera sees it: the first rows at the first timestep.
        crop: of training pictures: "pad" crops at random out of a zero-padded picture, "resized" scales a random crop.
        crop_padding: for "pad", pixels of zeros added on each side; for events, the largest shift in pixels.
        crop_scale: for "resized", the smallest crop as a share of the picture's area.
        crop_share: in evaluation, the centre crop's share of the picture's shorter side.
        flip: mirror half of the training items.
        rotation: largest random rotation of a training item, degrees; the same for all frames of a recording.
        shear: likewise the largest random shear along x.
        auto_augment: timm's name of a policy, such as "rand-m9-mstd0.5-inc1"; None for none. Colour pictures only.
        color_jitter: strength of changes of brightness, contrast and saturation where there is no ``auto_augment``.
        erasing: share of the training items with a random rectangle replaced, by noise in pictures, by zeros in events.
        mixup: alpha of timm's mixup of training batches; 0 for none.
        cutmix: alpha of timm's cutmix of training batches; 0 for none.
        event_mix: alpha of EventMix of training batches of recordings; 0 for none.
        task: what to tell of a recording: its "class", or the "direction" of its time. For the direction every recording
            occurs twice, as it is ("forward") and with its time reversed ("reversed").
        piece_ms: cut each recording into consecutive pieces of so many milliseconds, which are the items then; None for
            whole recordings.
        bin_by: cut recordings into frames of equal "count" of events or of equal "time".
        letterbox: of a sensor with another aspect than the frames, keep the sensor's and fill two sides with zeros; else the two
            directions are scaled each by its own factor.
        event_drop: share of the training recordings that lose some events at random, in time or in space.
        sensor: width and height of the sensor of "recordings", pixels.
        time_unit: of the times in "recordings" that are plain tables (.h5, .npz, .csv), where the file does not state it: "s",
            "ms", "us" or "ns". None: whole numbers are microseconds, and others are refused.
        polarity: in such tables, "binary" for 0 and 1, "signed" for -1 and 1. None: binary, and others are refused.
        cache: folder for binned frames and for what is known of shards; None for one in the home folder.
        on_unreadable: "fail" at a picture or recording that cannot be read, naming it, or "skip" and count it. Events outside
            the sensor are such a failure, too; with "skip" they are dropped and counted.
        workers: loading processes; 0 loads in the training process.
        reduced: decode a JPEG at 1/2, 1/4 or 1/8 of its size where the crop has that many more pixels than it is shown with.
        on_device: decode and augment pictures in whole batches on the device; loading processes only read the files.
        grey: read the pictures of a folder as one channel, of 16 bits with all their levels; else all are read as RGB.
        exif_orientation: turn pictures as the EXIF data in their files say, as cameras mean them to be looked at.

    Raises:
        ValueError: a value is out of its range, or for data of the other kind.
    """

    name: DataSet = "digits"
    root: str | None = None
    download: bool = True
    image_size: Size = 8
    rows: bool = False
    crop: Literal["pad", "resized"] = "pad"
    crop_padding: int = 0
    crop_scale: float = 0.08
    crop_share: float = 1.0
    flip: bool = False
    rotation: float = 0.0
    shear: float = 0.0
    auto_augment: str | None = None
    color_jitter: float = 0.0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    event_mix: float = 0.0
    task: Task = "class"
    piece_ms: float | None = None
    bin_by: BinBy = "count"
    letterbox: bool = False
    event_drop: float = 0.0
    sensor: tuple[int, int] = (128, 128)
    time_unit: TimeUnit | None = None
    polarity: Polarity | None = None
    cache: str | None = None
    on_unreadable: Literal["fail", "skip"] = "fail"
    workers: int = 0
    reduced: bool = False
    on_device: bool = False
    grey: bool = False
    exif_orientation: bool = True

    def __post_init__(self) -> None:
        self.image_size = plain_size("data.image_size", self.image_size)
        at_least("data.crop_padding", self.crop_padding, 0)
        at_most("data.crop_padding", self.crop_padding, LONGEST)
        at_least("data.workers", self.workers, 0)
        at_most("data.workers", self.workers, WORKERS)
        for name in ("root", "cache"):
            if getattr(self, name) == "":  # of a variable that is not set; it would be the working folder
                raise ValueError(f"data.{name} is an empty text: name a folder, or leave it out.")
        for name in ("erasing", "event_drop", "color_jitter"):
            within(f"data.{name}", getattr(self, name), 0, 1)
        for name in ("crop_scale", "crop_share"):
            within(f"data.{name}", getattr(self, name), 0.01, 1)
        for name in ("mixup", "cutmix", "event_mix"):
            finite_at_least(f"data.{name}", getattr(self, name), 0)
        within("data.rotation", self.rotation, 0, 180)
        within("data.shear", self.shear, 0, 80)  # at 90 degrees nothing is left
        for i, pixels in enumerate(self.sensor):
            at_least(f"data.sensor[{i}]", pixels, 1)
            at_most(f"data.sensor[{i}]", pixels, LONGEST)
        if self.piece_ms is not None:
            finite_at_least("data.piece_ms", self.piece_ms, 0.001)
        self._refuse_options_of_the_other_kind()
        if self.crop_padding >= min(self.size_HW):
            raise ValueError(
                f"data.crop_padding is {self.crop_padding}, but data.image_size is {size_text(self.image_size)}: with as many "
                "zeros as pixels a crop may hold nothing of the picture; lower it."
            )
        if self.on_device:
            self._refuse_what_needs_decoded_items()
        if self.grey:
            self._refuse_what_is_not_grey()
        if self.event_mix > 0 and (self.mixup > 0 or self.cutmix > 0):
            raise ValueError("data.event_mix is another way to mix than data.mixup and data.cutmix: choose one.")

    def _refuse_options_of_the_other_kind(self) -> None:
        recordings = self.name in EVENT_SETS
        others, kinds = (_PICTURES, ("pictures", "recordings")) if recordings else (_EVENTS, ("recordings", "pictures"))
        for field in fields(self):
            if field.name in others and getattr(self, field.name) != field.default:
                raise ValueError(f"data.{field.name} is for {kinds[0]}, but {self.name} are {kinds[1]}: leave it out.")
        for name in _RECORDINGS:
            if self.name != "recordings" and getattr(self, name) != getattr(DataConfig, name):
                raise ValueError(
                    f"data.{name} is for recordings of your own; {self.name} has its own sensor and units: leave it out."
                )

    def _refuse_what_needs_decoded_items(self) -> None:
        if self.auto_augment is not None:
            raise ValueError(
                "data.auto_augment changes pictures one by one in the loading processes, which data.on_device leaves to "
                "the device: set data.auto_augment to null, and data.color_jitter in its place, or leave out data.on_device."
            )
        if self.rows:
            raise ValueError("data.on_device makes whole pictures, but data.rows asks for their rows: choose one.")
        if self.reduced:
            raise ValueError(
                "data.reduced decodes in the loading processes, data.on_device on the device at full scale: choose one."
            )

    def _refuse_what_is_not_grey(self) -> None:
        if self.name not in PICTURE_FOLDERS:
            raise ValueError(f"data.grey is for pictures in folders, not for {self.name}: leave it out.")
        if self.on_device:
            raise ValueError("data.on_device decodes pictures to RGB, but data.grey asks for one channel: choose one.")
        for name in ("auto_augment", "color_jitter"):
            if getattr(self, name):
                raise ValueError(f"data.{name} changes colours, but data.grey asks for none: choose one.")

    @property
    def size_HW(self) -> tuple[int, int]:  # noqa: N802, its axes
        """Height and width of the network's input in pixels."""
        return height_and_width(self.image_size)

    @property
    def sensor_WH(self) -> tuple[int, int]:  # noqa: N802, its axes
        """Width and height of the sensor in pixels."""
        return SENSORS.get(self.name) or self.sensor

    @property
    def convention(self) -> Convention:
        """What numbers of plain tables mean."""
        return Convention(self.time_unit, self.polarity)

    @property
    def mixes(self) -> bool:
        """Whether training batches are mixed, by mixup, cutmix or EventMix."""
        return self.mixup > 0 or self.cutmix > 0 or self.event_mix > 0
