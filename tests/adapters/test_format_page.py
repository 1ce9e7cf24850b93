"""docs/format.md tells the truth: its worked file is what smn writes and reads, byte for byte."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from smn_cli.adapters.adapter import Adapter, adapter_from_bytes, make_adapter
from smn_cli.adapters.codecs import CODECS
from smn_cli.adapters.fingerprint import tensor_digest
from smn_cli.adapters.head import store_head
from smn_cli.evaluation.classifier import LinearClassifier
from tests.adapters.forging import take_apart, toy_base, toy_masks, toy_statistics
from tests.golden.make_golden import readout

PAGE = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")

BASE = {
    "bn.running_mean": torch.tensor([0.5]),
    "bn.running_var": torch.tensor([2.0]),
    "w": torch.arange(6.0).view(2, 3),
}


def worked_adapter() -> Adapter:
    mask = torch.tensor([[True, False, True], [True, True, False]])
    statistics = {"bn.running_mean": torch.tensor([0.25])}
    return make_adapter(BASE, {"w": mask}, arch="toy", norm_stats=statistics, codec="bits")


def hexdump(data: bytes) -> str:
    """Sixteen bytes a line: offset, hexadecimal, printable characters."""
    lines = []
    for start in range(0, len(data), 16):
        row = data[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{start:04x}  {row.hex(' '):47}  {text}")
    return "\n".join(lines)


def block() -> str:
    found = re.search(r"```hexdump\n(.*?)\n```", PAGE, re.DOTALL)
    assert found
    return found[1]


def test_the_worked_file_is_what_smn_writes() -> None:
    assert block() == hexdump(worked_adapter().to_bytes())


def test_the_worked_file_rebuilds_to_the_values_of_the_page() -> None:
    data = b"".join(bytes.fromhex(line[6:53]) for line in block().splitlines())
    rebuilt = adapter_from_bytes(data).rebuild(BASE)
    scale = np.float32(np.sqrt(6 / 4))
    assert rebuilt["w"].tolist() == (np.array([[0, 0, 2], [3, 4, 0]], dtype=np.float32) * scale).tolist()
    values = [str(np.float32(factor) * scale) for factor in (2, 3, 4)]
    assert f"`w` is [[0, 0, {values[0]}], [{values[1]}, {values[2]}, 0]] and `bn.running_mean` is [0.25]" in PAGE
    assert rebuilt["bn.running_mean"].tolist() == [0.25]
    assert rebuilt["bn.running_var"].tolist() == [2]


def test_the_parts_of_the_worked_file_are_those_of_the_table() -> None:
    _, parts = take_apart(worked_adapter().to_bytes())
    rows = dict(re.findall(r"^\| (.*?) \| `([0-9a-f ]+)` \|$", PAGE, re.MULTILINE))
    assert rows["mask, bits 1 0 1 1 1 0 from the lowest"] == parts["mask"][2].hex()
    assert rows["`norm_stats`, 0.25"] == parts["norm_stats"][2].hex()
    assert bytes.fromhex(rows["text before the values of `w` in its digest"]) == b"w\0float32\x002x3\0"
    digest = tensor_digest("w", BASE["w"])
    assert rows["digest of `w`"] == digest.hex()
    assert parts["base_digests"][2][8:].hex() == rows["SHA-256 of the name `w`, first 3 bytes"] + digest[:1].hex()
    assert rows["scale, float32(sqrt(6 / 4))"] == np.float32(np.sqrt(6 / 4)).tobytes().hex()


def test_the_tensors_stand_in_the_order_of_the_page() -> None:
    head = store_head(LinearClassifier(torch.ones(2, 5), torch.zeros(2)), name="top", classes=("a", "b"))
    adapter = make_adapter(toy_base(), toy_masks(), arch="toy", norm_stats=toy_statistics(), head=head)
    container = PAGE[PAGE.index("## Container") : PAGE.index("## Header")]
    told = re.findall(r"^\| `(\w+)` \|", container, re.MULTILINE)
    found = set()
    for kind in ("centred", "stages"):  # no kind has all the tensors of a readout
        header, parts = take_apart(adapter.with_readout(readout(kind)).to_bytes())
        assert header["head"] == ["top", 5, ["a", "b"]]
        assert header["readout"] == readout(kind).entry.to_json()
        assert [*parts, "sha256"] == [name for name in told if name in {*parts, "sha256"}]
        found |= {*parts, "sha256"}
    assert found == set(told)


def test_every_header_field_and_codec_has_its_place_on_the_page() -> None:
    header, _ = take_apart(worked_adapter().to_bytes())
    section = PAGE[PAGE.index("## Header") : PAGE.index("## Fingerprint")]
    optional = {"head", "readout", "license", "description"}
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == {*header} | optional
    codecs = PAGE[PAGE.index("## Codecs") : PAGE.index("## Rebuilding")]
    assert set(CODECS) <= set(re.findall(r"^`(\w+)`:", codecs, re.MULTILINE))


@pytest.mark.parametrize("codec", ["context", "context2"])
def test_the_worked_payload_of_context_is_what_smn_writes(codec: str) -> None:
    payload = CODECS[codec].encode(np.array([False, False, True, True, True, True]), [BASE["w"].numpy()])
    assert f"the payload is `{payload.hex()}`" in PAGE
