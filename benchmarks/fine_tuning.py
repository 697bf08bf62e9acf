"""What fine-tuning is worth: half of a folder's classes to train on first, and few pictures of each of the other half.

    python benchmarks/fine_tuning.py --recipe tiny-imagenet --data DIR --runs runs/fine-tuning [--few 50] [--before 9] [--seeds 3] \
      [--processes 2] [trevsnn options]

DIR holds {train,val}/CLASS/picture. One network is trained on the first half of the classes in alphabetical order, for ``--before``
epochs, with all of their pictures. Then networks are trained on the other half, with the first ``--few`` pictures of each class,
for as many epochs as the options say and with the batch and warm-up that ``trevsnn train --data.root FOLDER`` chooses for as many
pictures: from scratch; from the first network's weights, at a fifth of the learning rate, and decaying rates from the heads down;
and from these with the two lowest levels frozen. What stands after these options is handed to the recipe, as ``trevsnn train``
takes it. Writes every run's figures to results.json in the folder. Finished runs in it are not run again and
begun ones go on.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from series import Variant, figures, finished, report, series_parser, train_all
from trevsnn.run.config import recipe_config
from trevsnn.run.own_pictures import batch_size, warmup_epochs

LR_SHARE, LAYER_DECAY = 0.2, 0.8
FROZEN = 2


def main() -> None:
    parser = series_parser(__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--few", type=int, default=50, help="pictures of a class to fine-tune on")
    parser.add_argument("--before", type=int, default=9, help="epochs on the first half of the classes")
    options, rest = parser.parse_known_args()
    runs: Path = options.runs
    classes = sorted(folder.name for folder in (options.data / "train").iterdir() if folder.is_dir())
    half = len(classes) // 2
    link_pictures(options.data, runs / "data" / "first", classes[:half], None)
    link_pictures(options.data, runs / "data" / "other", classes[half:], options.few)

    base = recipe_config(options.recipe, ["--data.name", "folder", *rest])
    first = replace(
        base, model=replace(base.model, num_classes=half), data=replace(base.data, root=str(runs / "data" / "first"))
    )
    before = Variant("before", run={"epochs": options.before})
    train_all(runs, [before], first, [0], options.processes)

    model = replace(base.model, num_classes=len(classes) - half)
    other = replace(
        base,
        model=model,
        data=replace(base.data, root=str(runs / "data" / "other")),
        batch_size=batch_size(options.few * (len(classes) - half)),
        optim=replace(base.optim, warmup_epochs=warmup_epochs(base.epochs)),
    )
    gently = replace(other.optim, lr=LR_SHARE * other.optim.lr, layer_decay=LAYER_DECAY)
    weights = {"init": str(before.folder(runs, 0)), "optim": gently}
    variants = [
        Variant("from scratch"),
        Variant("fine-tuned", run=weights),
        Variant(f"fine-tuned, {FROZEN} levels frozen", run={**weights, "freeze": FROZEN}),
    ]
    train_all(runs, variants, other, range(options.seeds), options.processes)
    results: dict[str, Any] = {"before, on the first half": {"runs": figures(finished(runs, before, first, [0]))}}
    for variant in variants:
        results[variant.name] = {"runs": figures(finished(runs, variant, other, range(options.seeds)))}
    report(runs, results)


def link_pictures(source: Path, target: Path, classes: list[str], few: int | None) -> None:
    """Links to the pictures of some classes, of training ones to the first ``few`` of each in alphabetical order."""
    for part in ("train", "val"):
        for name in classes:
            files = sorted(file for file in (source / part / name).rglob("*") if file.is_file())
            folder = target / part / name
            folder.mkdir(parents=True, exist_ok=True)
            for file in files[: few if part == "train" else None]:
                link = folder / file.name
                if not link.is_symlink():
                    link.symlink_to(file.resolve())


if __name__ == "__main__":
    main()
