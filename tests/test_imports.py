"""Quick imports turn garbage collection off for their own length, and only where something heavy is to come."""

import gc
import subprocess
import sys

import pytest

from smn_cli.imports import quick_imports

CODE = """
import gc, sys
from smn_cli.imports import quick_imports
try:
    with quick_imports():
        inside = gc.isenabled()
        import json
        if sys.argv[1:]:
            raise KeyError
except KeyError:
    pass
print(inside, gc.isenabled(), gc.get_freeze_count() > 0)
"""


@pytest.mark.parametrize("words", [[], ["fail"]])
def test_collection_is_off_inside_and_on_again_after(words: list[str]) -> None:
    found = subprocess.run([sys.executable, "-c", CODE, *words], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "True", "True"]


@pytest.mark.parametrize(
    ("version", "is_let_go"), [("", False), ("3.8.1", False), ("3.9.0", True), ("3.10.0+git", True)]
)
def test_at_the_end_what_was_imported_is_let_go_where_triton_would_call_it_leaked(
    version: str, is_let_go: bool
) -> None:
    code = f"""
import atexit, gc, sys
atexit.register(lambda: print(gc.get_freeze_count() > 0))  # the first that is registered runs last
from smn_cli.imports import quick_imports
with quick_imports():
    if {version!r}:
        sys.modules["triton"] = type(sys)("triton")
        sys.modules["triton"].__version__ = {version!r}
print(gc.get_freeze_count() > 0)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["True", str(not is_let_go)]


def test_where_torch_is_loaded_already_nothing_is_touched() -> None:
    import torch  # noqa: F401

    before = gc.get_freeze_count()
    with quick_imports():
        assert gc.isenabled()
    assert gc.get_freeze_count() == before


LATER = """
import sys
from smn_cli.imports import quick_imports
with quick_imports():
    import timm
    import torchvision
    if sys.argv[1:]:
        exec(sys.argv[1])
print("torch._dynamo.convert_frame" in sys.modules)
import torch
import torch._dynamo
print(type(torch._dynamo).__name__, torch._dynamo is sys.modules["torch._dynamo"])
print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item())
boxes = torch.tensor([[0.0, 0, 0, 4, 4]])
print(tuple(torchvision.ops.roi_align(torch.ones(1, 1, 8, 8), boxes, 2).shape))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "is_loaded"),
    [
        ("", False),
        ("import inspect; inspect.stack()", False),
        ("import torch; torch._dynamo.config", True),
        ("from torch._dynamo.eval_frame import OptimizedModule", True),
        ("from torch._dynamo.utils import counters; counters.clear()", True),
        ("import torch; assert torch.compiler.disable(lambda x: x + 1)(1) == 2", True),
    ],
)
def test_torchs_compiler_is_left_until_something_of_it_is_asked(asked: str, is_loaded: bool) -> None:
    """Imported twice or left away, it would not compile; torchvision asks it whether it can."""
    words = [sys.executable, "-c", LATER, *([asked] if asked else [])]
    found = subprocess.run(words, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == [str(is_loaded), "module True", "2.0", "(1, 1, 2, 2)"]
