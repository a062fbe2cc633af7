"""The `codecmeta` command as its users see it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

import codecmeta as package
from tests.codecmeta.record.test_meta import record, rewrite, with_info

ROOT = Path(__file__).resolve().parents[2]


def codecmeta(*arguments: str | Path, cwd: Path | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
    code = "from codecmeta_cli.codecmeta import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd or ROOT,
        input=stdin,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160"},
        timeout=280,
    )


@pytest.fixture
def videos(tmp_path: Path, data: Path) -> Path:
    folder = tmp_path / "videos"
    (folder / "sub").mkdir(parents=True)
    (folder / "still.mp4").write_bytes((data / "still_h264.mp4").read_bytes())
    (folder / "sub" / "noise.avi").write_bytes((data / "noise_mpeg4.avi").read_bytes())
    return folder


def test_extract_show_plot(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "meta"
    ran = codecmeta("extract", videos, "--out", out, "--motion", "--qp")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == ""
    assert "2 done" in ran.stderr
    assert (out / "still.mp4.npz").is_file()
    assert (out / "sub" / "noise.avi.npz").is_file()
    again = codecmeta("extract", videos, "--out", out, "--motion", "--qp")
    assert (again.returncode, "2 kept" in again.stderr) == (0, True)
    shown = codecmeta("show", out / "sub" / "noise.avi.npz")
    assert shown.returncode == 0
    for text in ("mpeg4", "224x160", "60,", "5, 12 packets each", "motion"):
        assert text in shown.stdout, text
    facts = json.loads(codecmeta("show", out / "still.mp4.npz", "--json").stdout)
    assert facts["arrays"]["energy_carried"]["dtype"] == "<f4"
    assert facts["gops"]["count"] == 1
    drawn = codecmeta("plot", out / "still.mp4.npz", "--out", tmp_path / "x.png")
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"


def test_json_lines_and_exit_code_of_partial_success(videos: Path, tmp_path: Path) -> None:
    (videos / "bad.mp4").write_text("no video")
    ran = codecmeta("extract", videos, "--out", tmp_path / "meta", "--json", "--jobs", "0", "--pixels", "none")
    assert ran.returncode == 1
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert sorted(line["status"] for line in lines) == ["done", "done", "failed"]
    failed = next(line for line in lines if line["status"] == "failed")
    assert failed["code"] == "unreadable"
    assert failed["source"].endswith("bad.mp4")
    assert ran.stderr.count("bad.mp4") == 1, "one line names the file and the reason"


def test_list_on_standard_input(videos: Path, tmp_path: Path) -> None:
    arguments = ("extract", "-", "--out", tmp_path / "meta", "--jobs", "0", "--residual", "none", "--pixels", "none")
    ran = codecmeta(*arguments, cwd=videos, stdin="still.mp4\nsub/noise.avi\n")
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "meta" / "noise.avi.npz").is_file()


def test_names_on_standard_input_need_not_be_utf8(videos: Path, tmp_path: Path) -> None:
    name = b"odd-\xff\xfe.mp4"
    (videos / os.fsdecode(name)).write_bytes((videos / "still.mp4").read_bytes())
    code = "from codecmeta_cli.codecmeta import main; main()"
    options = ["--jobs", "0", "--residual", "none", "--pixels", "none", "--json"]
    ran = subprocess.run(
        [sys.executable, "-c", code, "extract", "-", "--out", str(tmp_path / "meta"), *options],
        cwd=videos,
        input=name + b"\nstill.mp4\n",
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8:strict"},
        timeout=280,
    )
    assert ran.returncode == 0, ran.stderr
    assert [json.loads(line)["status"] for line in ran.stdout.splitlines()] == ["done", "done"]
    assert (tmp_path / "meta" / os.fsdecode(name + b".npz")).is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--frames", "many"), "uniform:N"),
        (("--maps", "texture"), "innovation, carried"),
        (("--pixels", "big"), "whole number or none"),
        (("--pixels", "5"), "16..4320"),
        (("--residual", "best"), "bitstream"),
        (("--jobs", "-1"), "jobs"),
    ],
)
def test_wrong_usage(videos: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    ran = codecmeta("extract", videos, "--out", tmp_path / "meta", *arguments)
    assert ran.returncode == 2
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr


def test_inputs_and_outputs_that_cannot_be(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ran = codecmeta("extract", videos, "--out", tmp_path / "file", "--jobs", "0")
    assert ran.returncode == 3
    assert ran.stderr == f"codecmeta: output folder {tmp_path / 'file'}: File exists\n"
    assert codecmeta("extract", tmp_path / "*.nothing", "--out", tmp_path / "meta").returncode == 2
    missing = codecmeta("extract", tmp_path / "missing.mp4", "--out", tmp_path / "meta", "--jobs", "0")
    assert missing.returncode == 1
    assert "no such file" in missing.stderr
    for command in (("show", tmp_path / "file"), ("plot", tmp_path / "file", "--out", tmp_path / "x.png")):
        ran = codecmeta(*command)
        assert ran.returncode == 1
        assert "not a readable .npz" in ran.stderr
        assert "Traceback" not in ran.stderr


def test_the_version_is_that_of_the_distribution() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert package.__version__ == version
    assert codecmeta("--version").stdout.startswith(f"codecmeta {version} (")


def test_import_is_light(tmp_path: Path) -> None:
    code = (
        "import sys, codecmeta; codecmeta.errors if False else None;"
        "heavy = {'torch', 'numba', 'av', 'numpy', 'cv2', 'matplotlib'} & set(sys.modules);"
        "print(sorted(heavy)); import codecmeta.extraction; print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["[]", "False"]


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom codecmeta_cli.codecmeta import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'numba', 'av', 'numpy', 'cv2'} & set(sys.modules)), file=sys.stderr)"
    )
    begin = time.perf_counter()
    ran = subprocess.run([sys.executable, "-c", code, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert time.perf_counter() - begin < 5
    assert "extract" in ran.stdout
    assert ran.stderr.strip() == "[]"


def test_control_characters_of_a_file_do_not_reach_the_terminal(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    record().save(good)
    ran = codecmeta("show", rewrite(good, bad, {"info": with_info(**{"signals__\x1b[31m": 5})}))
    assert ran.returncode == 1
    assert r"signals.\x1b[31m is a whole number" in ran.stderr
    assert "\x1b" not in ran.stderr
