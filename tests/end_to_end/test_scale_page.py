"""The scripts of docs/scale.md do what the page says: run with stand-ins for the services that are not here."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.commands.conftest import SHORT
from tests.conftest import CONVNET, write_images

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")

PAGE = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """The page's only code in a language."""
    (code,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return str(code)


def stand_in(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{script}\n")
    (folder / name).chmod(0o755)


def bash(script: str, folder: Path, **variables: str) -> str:
    """Run a script with the stand-ins of a folder before everything else; what it said."""
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **variables},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.long
def test_the_slurm_script_adapts_packs_and_embeds_on_two_machines_and_goes_on_when_it_is_started_again(
    tmp_path: Path, weights_file: Callable[[str], Path]
) -> None:
    images, run, tools = tmp_path / "images", tmp_path / "run", tmp_path / "tools"
    write_images(images, 24)
    script = block("bash").replace("/data/shards", str(images)).replace("/runs/leaves", str(run))
    settings = f"--arch {CONVNET} --weights {weights_file(CONVNET)} --keep last {SHORT}"
    script, count = re.subn(r"(?m)^settings=.*$", f"settings=({settings})", script)
    assert count == 1
    script = script.replace('embed "$images"', f'embed "$images" --weights {weights_file(CONVNET)}')
    stand_in(tools, "scontrol", '[ "$*" = "show hostnames node[1-2]" ] && printf "127.0.0.1\\n127.0.0.2\\n"')
    stand_in(tools, "smn", f'exec {sys.executable} -m smn_cli "$@"')
    stand_in(tools, "torchrun", f'exec {sys.executable} -m torch.distributed.run --local-addr 127.0.0.1 "$@"')
    # every machine's copy of the command; the first is ahead, so that it keeps the meeting point
    stand_in(tools, "srun", '"$@" & first=$!; sleep 3; "$@" || exit; wait $first')
    slurm = {
        "SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2",
        "SLURM_GPUS_ON_NODE": "1", "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    said = bash(script, tools, **slurm)
    assert said.count("kept step 3") == 1
    adapter = (run / "adapter.safetensors").read_bytes()
    rows = np.load(run / "features.npy")
    assert len(rows) == 24
    said = bash(script, tools, **slurm, SLURM_RESTART_COUNT="1")
    assert f"continuing {run} after step 3 of 3" in said
    assert (run / "adapter.safetensors").read_bytes() == adapter
    assert np.array_equal(np.load(run / "features.npy"), rows)


def test_the_kubernetes_job_is_consistent_and_its_command_starts_or_resumes(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    service, job = yaml.safe_load_all(block("yaml"))
    assert (service["kind"], job["kind"]) == ("Service", "Job")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert pod["subdomain"] == service["metadata"]["name"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    (script,) = container["args"]
    assert container["command"] == ["/bin/bash", "-euc"]

    stand_in(tmp_path / "tools", "torchrun", 'printf "%s\\n" "$@"')
    names = {entry["name"]: entry["value"] for entry in container["env"]} | {"RUN": str(tmp_path / "run")}
    run = tmp_path / "run"
    words = bash(f"set -eu\n{script}", tmp_path / "tools", **names).split("\n")[:-1]
    given = dict(zip(words[:12:2], words[1:12:2], strict=True))
    nodes, gpus = str(job["spec"]["completions"]), container["resources"]["limits"]["nvidia.com/gpu"]
    assert (given["--nnodes"], given["--nproc-per-node"]) == (nodes, gpus)
    assert job["spec"]["parallelism"] == int(nodes)
    first_pod = f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert given["--rdzv-endpoint"].split(":")[0] == first_pod
    assert words[12:] == [
        "-m", "--", "smn_cli", "adapt", names["IMAGES"], "--arch", "resnet50", "--save-every", "600", "--out", str(run)
    ]  # fmt: skip
    run.mkdir()
    (run / "config.json").touch()
    words = bash(f"set -eu\n{script}", tmp_path / "tools", **names).split("\n")[:-1]
    assert words[12:] == ["-m", "--", "smn_cli", "adapt", "--resume", "--out", str(run)]
