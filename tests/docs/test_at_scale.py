"""The commands of the page about many videos, as far as one machine can run them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from codecmeta import Options, extract_many, open_dataset
from codecmeta.batch.folder_status import read_status
from tests.scale.conftest import require

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "at-scale.md").read_text(encoding="utf-8")
LIGHT_PIXELS = Options(frames="uniform:2", residual="none", pixels=64)
LIGHT = "--residual none --pixels none --jobs 0"


@pytest.fixture
def place(tmp_path: Path, data: Path) -> Path:
    """Videos, and a `codecmeta` on the path that leaves pictures alone."""
    (tmp_path / "videos").mkdir()
    for number in range(6):
        (tmp_path / "videos" / f"{number}.mp4").symlink_to(data / "still_h264.mp4")
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "codecmeta"
    main = "from codecmeta_cli.codecmeta import main; main()"
    command.write_text(
        f'#!/bin/bash\nlight=""; [ "$1" = extract ] && light="{LIGHT}"\n'
        f'exec "{sys.executable}" -c "{main}" "$@" $light\n'
    )
    command.chmod(0o755)
    compress = tmp_path / "bin" / "compress"
    compress.write_text(
        f'#!/bin/bash\nexec "{sys.executable}" -c "{main.replace("codecmeta import", "compress import")}" "$@"\n'
    )
    compress.chmod(0o755)
    return tmp_path


def block(heading: str, *, kind: str = "bash", number: int = 0) -> str:
    """Return a block of code below a heading or a line of the page."""
    after = PAGE[PAGE.index(heading) :]
    blocks: list[str] = re.findall(rf"```{kind}\n(.*?)```", after, re.DOTALL)
    return blocks[number]


def run(script: str, place: Path, **variables: str) -> None:
    environment = {
        **os.environ,
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "VIDEOS": str(place / "videos"),
        "META": str(place / "meta"),
        **variables,
    }
    subprocess.run(["bash", "-ec", script], env=environment, check=True, capture_output=True, text=True)


def test_slurm(place: Path) -> None:
    for task in ("0", "1", "2"):
        run(block("Slurm:"), place, SLURM_ARRAY_TASK_ID=task, SLURM_ARRAY_TASK_COUNT="3")
    assert read_status(place / "meta").describe()["runs"] == dict.fromkeys(("0/3", "1/3", "2/3"), "complete")
    assert (read_status(place / "meta").done, read_status(place / "meta").missing) == (6, 0)


def test_kubernetes(place: Path) -> None:
    manifest = block("Kubernetes", kind="yaml")
    command = json.loads(re.search(r"command: (\[.*\])", manifest)[1])
    parts = int(re.search(r"completions: (\d+)", manifest)[1])
    assert f"/{parts}" in command[2]
    script = command[2].replace(f"/{parts}", "/2")
    for index in ("0", "1"):
        run(script, place, JOB_COMPLETION_INDEX=index)
    assert read_status(place / "meta").done == 6


def test_tokens_on_several_workers(place: Path, data: Path) -> None:
    extract_many([data / "still_h264.mp4", data / "event_h264.mp4"], place / "meta", options=LIGHT_PIXELS, jobs=0)
    run(block("## Tokens on many GPUs"), place, TOKENS=str(place / "tokens"))
    assert len(list((place / "tokens").glob("*.safetensors"))) == 2


def test_packed_records(place: Path) -> None:
    require("pyarrow")
    script = block("## Packed records").replace("pip install 'codecmeta[parquet]'\n", "")
    run(script, place, PACKED=str(place / "packed"))
    run(block("## Packed records", number=1), place, META=str(place / "packed"), PACKED=str(place / "again"))
    assert len(open_dataset(place / "packed")) == len(open_dataset(place / "again")) == 6


def test_object_stores(place: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands as they are, with a server of S3 on loopback."""
    server_module = require("moto.server")
    client = require("boto3").client
    require("s3fs")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        client("s3").create_bucket(Bucket="clips")
        client("s3").put_object(Bucket="clips", Key="videos/a.mp4", Body=(data / "still_h264.mp4").read_bytes())
        run(block("## Object stores").replace("pip install 'codecmeta[cloud]'\n", ""), place, BUCKET="clips")
        listed = client("s3").list_objects_v2(Bucket="clips", Prefix="meta/")
        assert "meta/a.mp4.npz" in {one["Key"] for one in listed["Contents"]}
        require("pyarrow")
        run(block("## Object stores", number=1), place, BUCKET="clips")
        script = block("## Object stores", kind="python").replace("s3://bucket/", "s3://clips/")
        read = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
        assert read.stdout == "a.mp4 False\n"
    finally:
        server.stop()


def test_one_machine_and_lists(place: Path) -> None:
    script = block("## One machine").replace("codecmeta warmup\n", "")
    # what is tried again has no failures here
    run(script, place)
    run(block("Names with line breaks"), place)
    assert read_status(place / "meta").done == 6
