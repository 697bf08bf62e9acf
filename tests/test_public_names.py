"""``import trevsnn``: every public name, at no cost before it is used, and known to timm whatever is imported first."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch

import trevsnn


def run(program: str) -> str:
    """What a Python program prints in a process of its own."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


FORKS = """
import os, sys, torch, torchvision.models.feature_extraction
for program in sys.argv[1:]:
    if (child := os.fork()) == 0:
        exec(program, {})
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, program
"""


def run_each(programs: list[str]) -> list[str]:
    """The lines they print, each forked from one process that has PyTorch, most of what they take, and not timm."""
    done = subprocess.run([sys.executable, "-c", FORKS, *programs], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_importing_it_loads_nothing_heavy():
    names = ["torch", "numpy", "timm", "torchvision", "jsonargparse", "trevsnn.network", "trevsnn.zoo"]
    assert run(f"import sys, trevsnn; print([n for n in {names} if n in sys.modules])") == "[]\n"


def test_presets_and_configs_need_no_torch():
    used = "trevsnn.zoo.PRESETS, trevsnn.TRevSNNConfig, trevsnn.errors.RunError"
    assert run(f"import sys, trevsnn; {used}; print('torch' in sys.modules)") == "False\n"


def test_every_public_name_is_there():
    assert set(trevsnn.__all__) == {
        "FeatureNet", "ReversibilityError", "TRevSNN", "TRevSNNConfig", "create_model", "deep_supervision_loss", "from_published",
        "neurons", "published_names", "reversible", "temporal_loss",
    }  # fmt: skip
    listed = run("import trevsnn; print(*dir(trevsnn))").split()
    assert {*trevsnn.__all__, "__version__", "network", "zoo", "errors"} <= set(listed)
    assert run("import trevsnn; print(trevsnn.zoo.presets.PRESETS is trevsnn.zoo.PRESETS)") == "True\n"


def test_recordings_from_python():
    """Without torch; and nothing is loaded before a name is used."""
    program = """
import sys, trevsnn
names = trevsnn.data.__all__
print(names, set(names) <= set(dir(trevsnn.data)), "numpy" in sys.modules)
print(trevsnn.data.read_recording.__module__, trevsnn.data.bin_events.__module__, "torch" in sys.modules)
"""
    assert run(program).splitlines() == [
        "['Convention', 'bin_events', 'read_recording'] True False",
        "trevsnn.data.events.recordings trevsnn.data.events.frames False",
    ]
    with pytest.raises(AttributeError, match=r"module 'trevsnn\.data' has no attribute 'read_recordings'"):
        trevsnn.data.read_recordings  # noqa: B018


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'trevsnn' has no attribute 'TRevSMM'"):
        trevsnn.TRevSMM  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'TRevSMM' from 'trevsnn'"):
        from trevsnn import TRevSMM  # noqa: F401


IMPORTS = [
    "import trevsnn, timm; from timm import create_model",
    "import timm, trevsnn; from timm import create_model",
    "import trevsnn; from timm.models import create_model",
    "from timm.models import create_model; import trevsnn",
    "import trevsnn; trevsnn.TRevSNN; from timm import create_model",
]


def test_timm_knows_the_networks_and_a_star_gives_all_names():
    used = """
import timm
assert timm.list_models("trevsnn*") == sorted(trevsnn.zoo.PRESETS)
assert timm.is_model("trevsnn_tiny")
model = create_model("trevsnn_nano", num_classes=7, backprop="reversible")
print(type(model).__name__, model.config == trevsnn.create_model("trevsnn_nano", num_classes=7, backprop="reversible").config)
"""
    programs = [
        "import trevsnn, timm, sys; print('trevsnn.network' in sys.modules)",
        "from trevsnn import *; print(TRevSNN.__name__, reversible.run.__name__, neurons.LIF.__name__)",
    ]
    found = run_each([f"{imports}\n{used}" for imports in IMPORTS] + programs)
    assert found == ["TRevSNN True"] * len(IMPORTS) + ["False", "TRevSNN run LIF"]


def test_models_are_copied_and_pickled():
    model = trevsnn.create_model("trevsnn_digits", pretrained=True).eval()
    x = torch.randn(2, 1, 8, 8)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(again) is trevsnn.TRevSNN
        assert torch.equal(again(x), model(x))
