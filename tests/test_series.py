"""Series of trainings in benchmarks/: what is reported is what was asked for."""

import pytest

from series import Variant, finished, series_parser, train_all
from trevsnn.run.config import recipe_config
from trevsnn.run.folder import RunFolder
from trevsnn.run.lock import RunLock


def test_a_series_does_not_report_runs_of_another_config(tmp_path):
    variant, config = Variant("T = 2"), recipe_config("digits")
    run = RunFolder(variant.folder(tmp_path, 0))
    with RunLock() as lock:
        run.begin(config, lock)
    (run.path / "summary.json").write_text("{}")
    assert finished(tmp_path, variant, recipe_config("digits", ["--data.workers", "2"]), [0, 1]) == [{}]
    other = recipe_config("digits", ["--epochs", "13", "--model.channels", "[8,8]"])
    for report in (
        lambda: finished(tmp_path, variant, other, [0]),
        lambda: train_all(tmp_path, [variant], other, [0], 1),
    ):
        with pytest.raises(
            SystemExit, match=r"T-2-0 was trained with other values of model\.channels, epochs: name another"
        ):
            report()


@pytest.mark.parametrize("option", ["--seeds", "--processes"])
def test_a_series_of_nothing_is_an_error_of_usage(option, capsys):
    with pytest.raises(SystemExit, match="2"):
        series_parser("").parse_args(["--recipe", "digits", "--runs", "runs", option, "0"])
    assert f"argument {option}: invalid PositiveInt value: '0'" in capsys.readouterr().err
