"""smn push, pull and hf:// against a hub on this machine: what goes there comes back, and every failure is one line."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.forging import toy_adapter
from tests.conftest import Cached, Outcome
from tests.declared_json import check_json
from tests.hub_stand_in import Hub, running, smn
from tests.publishing.test_adapter_card import EVALUATION

pytestmark = pytest.mark.slow
ADAPTER = toy_adapter().described(licence="mit").to_bytes()


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running(Hub()) as made:
        yield made


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "a.safetensors").write_bytes(ADAPTER)
    (tmp_path / "eval.json").write_text(json.dumps(EVALUATION))
    (tmp_path / "page.html").write_text("<p>curves</p>")
    return tmp_path


def told(outcome: Outcome) -> dict[str, Any]:
    assert outcome.code == 0, outcome.err
    check_json(outcome.out)
    content: dict[str, Any] = json.loads(outcome.out)
    return content


def test_what_is_pushed_comes_back_by_pull_and_by_its_address(hub: Hub, home: Path) -> None:
    words = ("--eval", "eval.json", "--report", "page.html", "--private", "--json", "-")
    pushed = told(smn(home, hub, "push", "a.safetensors", "me/net", *words))
    files = hub.files["me/net"]
    assert (files["adapter.safetensors"], files["report.html"]) == (ADAPTER, b"<p>curves</p>")
    assert b"| knn.top1 | 0.800 | 0.850 | +0.050 (+0.031 to +0.070) |" in files["README.md"]
    assert pushed["files"] == {name: len(content) for name, content in files.items()}
    assert pushed["commit"].endswith(hub.commit("me/net"))
    assert hub.private == {"me/net"}
    assert [call for call in hub.calls if call.endswith("/commit/main")] == ["POST /api/models/me/net/commit/main"]
    pulled = told(smn(home, hub, "pull", "me/net", "--json", "-"))
    assert (home / "adapter.safetensors").read_bytes() == ADAPTER
    assert (pulled["revision"], pulled["adapted_digest"]) == (hub.commit("me/net"), pushed["adapted_digest"])
    shown = told(smn(home, hub, "inspect", "hf://me/net@main", "--json", "-"))
    assert (shown["license"], shown["adapted_digest"]) == ("mit", pushed["adapted_digest"])
    hub.endpoint = "http://127.0.0.1:9"  # nobody there: the cache is enough
    assert smn(home, hub, "verify", "hf://me/net", "--quick").code == 0


def test_pushing_again_adds_a_commit_and_private_is_not_public(hub: Hub, home: Path) -> None:
    assert smn(home, hub, "push", "a.safetensors", "me/net").code == 0
    outcome = smn(home, hub, "push", "a.safetensors", "me/net", "--private", "--eval", "eval.json")
    assert (outcome.code, outcome.err) == (
        5,
        "smn: me/net is there and public: make it private on the hub, or leave --private out\n",
    )
    assert b"knn.top1" not in hub.files["me/net"]["README.md"]
    assert smn(home, hub, "push", "a.safetensors", "me/net", "--eval", "eval.json").code == 0
    assert b"knn.top1" in hub.files["me/net"]["README.md"]


REFUSALS = {
    "no repository": (
        "pull me/none",
        {},
        "hf://me/none is not on the hub, or is private and the token does not open it (hf auth login, HF_TOKEN)",
    ),
    "no revision": ("inspect hf://me/net@v9", {}, "hf://me/net has no such revision: see its commits"),
    "no file": ("pull me/net/b.safetensors", {}, "hf://me/net has no b.safetensors: name its file as"),
    "wrong token": ("pull me/net", {"HF_TOKEN": "hf_wrong"}, "hf://me/net: the hub does not know the token (401)"),
    "wrong token, push": (
        "push a.safetensors me/new",
        {"HF_TOKEN": "hf_wrong"},
        "me/new: the hub does not know the token (401): log in with hf auth login, or set HF_TOKEN",
    ),
    "cut": ("pull me/cut", {}, "hf://me/cut cannot be reached (peer closed connection without sending complete"),
    "nobody there": ("pull me/net", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "hf://me/net cannot be reached ("),
    "nobody there, push": (
        "push a.safetensors me/new",
        {"HF_ENDPOINT": "http://127.0.0.1:9"},
        "me/new cannot be reached (",
    ),
    "offline": ("pull me/net", {"HF_HUB_OFFLINE": "1"}, "hf://me/net cannot be reached, for HF_HUB_OFFLINE is set"),
    "offline, push": (
        "push a.safetensors me/new",
        {"HF_HUB_OFFLINE": "1"},
        "me/new cannot be reached, for HF_HUB_OFFLINE is set: connect and try again",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_failure_is_one_line_and_leaves_nothing(case: str, hub: Hub, home: Path) -> None:
    words, variables, reason = REFUSALS[case]
    hub.files = {"me/net": {"adapter.safetensors": ADAPTER}, "me/cut": {"adapter.safetensors": ADAPTER}}
    hub.cut = {"adapter.safetensors"} if case == "cut" else set()
    before = {path.name for path in home.iterdir()}
    outcome = smn(home, hub, *words.split(), **variables)
    assert (outcome.code, outcome.out) == (5, "")
    assert outcome.err.startswith(f"smn: {reason}")
    assert outcome.err.count("\n") == 1
    assert {path.name for path in home.iterdir()} - {"hf"} == before
    assert hub.files.keys() == {"me/net", "me/cut"}


HOSTILE: dict[str, tuple[dict[str, str], str, int]] = {
    "names a blob outside": ({"ETag": '"../../../../outside"'}, "", 5),
    "names an absolute blob": ({"ETag": '"{home}/outside"'}, "", 5),
    "names a commit outside": ({"X-Repo-Commit": "../../../../outside"}, "", 5),
    "names an absolute commit": ({"X-Repo-Commit": "{home}/outside"}, "", 5),
    "promises more than there is": ({"Content-Length": "99999"}, "", 5),
    "promises more than any adapter has": ({"Content-Length": str(1 << 42)}, "", 5),
    "promises less than there is": ({"Content-Length": "9"}, "", 6),
    "promises no number": ({"Content-Length": "many"}, "", 5),
    "leads in a circle": ({}, "/me/net/resolve/main/adapter.safetensors", 5),
    "leads in a circle by its whole address": ({}, "{hub}/me/net/resolve/main/adapter.safetensors", 5),
    "leads to a file of this machine": ({}, "file:///etc/passwd", 5),
    "leads to no address": ({}, "http://[", 5),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_hub_is_one_line_and_writes_nothing_elsewhere(case: str, hub: Hub, home: Path) -> None:
    headers, leads_to, code = HOSTILE[case]
    hub.files = {"me/net": {"adapter.safetensors": ADAPTER}}
    hub.headers = {key: value.replace("{home}", str(home)) for key, value in headers.items()}
    hub.leads_to = leads_to.replace("{hub}", hub.endpoint)
    before = {path.name for path in home.iterdir()}
    # its client waits for bytes that were promised, five times; ten seconds each where nothing is set
    outcome = smn(home, hub, "pull", "me/net", "--out", "pulled.safetensors", HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert (outcome.code, outcome.out) == (code, ""), outcome.err
    assert outcome.err.startswith("smn: ")
    assert outcome.err.count("\n") == 1
    assert {path.name for path in home.iterdir()} - {"hf"} == before
    assert len(hub.calls) < 100


def test_a_card_that_the_hub_refuses_is_told_with_its_words(hub: Hub, home: Path) -> None:
    (home / "b.safetensors").write_bytes(toy_adapter().described(licence="mine").to_bytes())
    outcome = smn(home, hub, "push", "b.safetensors", "me/net")
    assert outcome.code == 5
    assert outcome.err.startswith("smn: me/net: the hub does not take it: Invalid metadata in README.md. - ")
    assert '"license" must be one of a list' in outcome.err
    assert hub.files == {"me/net": {}}


def test_a_commit_that_fails_puts_no_file_there(hub: Hub, home: Path) -> None:
    hub.fails_commits = True
    outcome = smn(home, hub, "push", "a.safetensors", "me/net")
    assert (outcome.code, outcome.err) == (5, "smn: me/net: the hub has a fault of its own (500): try again later\n")
    assert hub.files == {"me/net": {}}


def test_a_damaged_adapter_is_neither_pulled_nor_pushed(hub: Hub, home: Path) -> None:
    damaged = ADAPTER[:-40] + bytes(8) + ADAPTER[-32:]
    hub.files["me/net"] = {"adapter.safetensors": damaged}
    before = {path.name for path in home.iterdir()}
    outcome = smn(home, hub, "pull", "me/net")
    assert outcome.code == 6
    assert {path.name for path in home.iterdir()} - {"hf"} == before
    (home / "a.safetensors").write_bytes(damaged)
    hub.calls.clear()
    assert smn(home, hub, "push", "a.safetensors", "me/other").code == 6
    assert hub.calls == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("push a.safetensors net", "net: expected hf://USER/NAME"),
        ("push a.safetensors me/net/x", "me/net/x: expected USER/NAME, a repository without file"),
        ("push a.safetensors me/net --report none.html", "--report none.html: expected the report.html of a run"),
        ("pull net", "net: expected hf://USER/NAME"),
        ("pull me/net --out a.safetensors", "--out a.safetensors exists: --overwrite replaces it"),
    ],
)
def test_wrong_usage_is_told_before_the_hub_is_asked(
    words: str, reason: str, home: Path, run_cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    outcome = run_cli(*words.split())
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1].startswith(f"smn: {reason}")


def test_every_command_that_takes_an_adapter_takes_an_address(
    hub_cache: Cached, run_cli: Callable[..., Outcome], home: Path
) -> None:
    from safetensors.torch import save_file

    from tests.commands.conftest import quietly
    from tests.conftest import RESNET, random_weights, write_images
    from tests.publishing.conftest import adapter_over

    save_file(random_weights(RESNET), home / "w.safetensors")
    hub_cache.put("me/net", {"adapter.safetensors": adapter_over(RESNET, home / "w.safetensors", 32).to_bytes()})
    for label, name in enumerate(("red", "green")):
        write_images(home / "labeled" / name, 8, seed=label, colour=label)
    weights = ("--weights", home / "w.safetensors")
    quietly("inspect", "hf://me/net")
    quietly("verify", "hf://me/net", *weights)
    quietly("apply", "hf://me/net", "--out", home / "c.safetensors", *weights)
    quietly("diff", "hf://me/net", "hf://me/net", *weights)
    quietly("merge", "hf://me/net", "hf://me/net", "--out", home / "m.safetensors", *weights)
    quietly("embed", home / "labeled", "--adapter", "hf://me/net", "--out", home / "f.npy", *weights)
    quietly(
        "eval", home / "labeled", "--adapter", "hf://me/net", "--k", "3", "--no-controls", *weights, "--workers", "0"
    )
    outcome = run_cli("adapt", home / "labeled", "--start", "hf://me/none", "--arch", RESNET, "--out", home / "run")
    assert outcome.code == 5
    assert "hf://me/none cannot be reached, for HF_HUB_OFFLINE is set" in outcome.err
