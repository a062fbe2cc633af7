"""The `codecmeta` command as its users see it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import codecmeta as package
from tests.codecmeta.make_video import write_video
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
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'cli'}", "COLUMNS": "160"},
    )


@pytest.fixture
def videos(tmp_path: Path, data: Path) -> Path:
    folder = tmp_path / "videos"
    (folder / "sub").mkdir(parents=True)
    (folder / "still.mp4").write_bytes((data / "still_h264.mp4").read_bytes())
    (folder / "sub" / "noise.avi").write_bytes((data / "noise_mpeg4.avi").read_bytes())
    return folder


def test_square_pixels(tmp_path: Path) -> None:
    source = write_video(tmp_path / "wide.mp4", frames=4, options={"x264-params": "sar=2/1"})
    for option, width in (("--square-pixels", 192), ("--no-square-pixels", 96)):
        out = tmp_path / str(width)
        ran = codecmeta("extract", source, "--out", out, "--maps", "innovation", "--jobs", "0", option)
        assert ran.returncode == 0, ran.stderr
        (meta,) = out.rglob("*.npz")
        shown = codecmeta("show", meta)
        assert "192x64 (samples of 2:1)" in shown.stdout
        assert f"4x64x{width}x3" in shown.stdout


def test_plot(videos: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "meta"
    assert codecmeta("extract", videos / "still.mp4", "--out", out).returncode == 0
    drawn = codecmeta("plot", out / "still.mp4.npz", "--out", tmp_path / "x.png")
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"


def test_extract_show(videos: Path, tmp_path: Path) -> None:
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
    assert facts["arrays"]["energy_innovation"]["dtype"] == "<f4"
    assert "energy_carried" not in facts["arrays"]
    assert facts["gops"]["count"] == 1


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
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'cli'}", "PYTHONIOENCODING": "utf-8:strict"},
    )
    assert ran.returncode == 0, ran.stderr
    assert [json.loads(line)["status"] for line in ran.stdout.splitlines()] == ["done", "done"]
    assert (tmp_path / "meta" / os.fsdecode(name + b".npz")).is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--frames", "many"), "uniform:N"),
        (("--maps", "texture"), "innovation, carried"),
        (("--pixels", "big"), "allowed are a whole number, jpeg"),
        (("--pixels", "5"), "16..4320"),
        (("--pixels", "jpeg:"), "allowed are a whole number, jpeg"),
        (("--maps", ","), "names no map"),
        (("--maps", "carried", "--residual", "none"), "leave one of them out"),
        (("--residual", "best"), "bitstream"),
        (("--jobs", "-1"), "jobs"),
    ],
)
def test_wrong_usage(videos: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    ran = codecmeta("extract", videos, "--out", tmp_path / "meta", *arguments)
    assert ran.returncode == 2
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr


def test_limits_and_options_of_another_run(videos: Path, tmp_path: Path) -> None:
    common = ("extract", videos, "--out", tmp_path / "meta", "--jobs", "0", "--pixels", "none")
    ran = codecmeta(*common, "--max-pixels", "100")
    assert ran.returncode == 1
    assert ran.stderr.count("allowed are 100 pixels [limit_exceeded]") == 2
    assert codecmeta(*common, "--max-frames", "10").stderr.count("[limit_exceeded]") == 2
    assert codecmeta(*common, "--max-bytes", "10").stderr.count("[limit_exceeded]") == 2
    ran = codecmeta(*common, "--qp")
    assert ran.returncode == 2
    assert "holds records of other options (qp False, now True); use another --out, or --overwrite" in ran.stderr
    assert codecmeta(*common, "--memory", "3").returncode == 2
    (tmp_path / "run.json").write_text("not a run record")
    assert codecmeta(*common[:3], tmp_path, *common[4:]).returncode == 0


@pytest.mark.parametrize("out", ["http://host/meta", "file:///tmp/meta", "hf://datasets/x"])
def test_urls_that_cannot_be_written(videos: Path, tmp_path: Path, out: str) -> None:
    ran = codecmeta("extract", videos, "--out", out, cwd=tmp_path)
    assert ran.returncode == 2
    assert f"'{out}'" in ran.stderr
    assert "allowed are local" in " ".join(ran.stderr.split())
    assert [path.name for path in tmp_path.iterdir()] == ["videos"], "nothing is made"


def test_warnings_are_where_users_look(videos: Path, tmp_path: Path) -> None:
    """In the line of a video, in its JSON object, and in the manifest; also when the record is kept."""
    options = ("--jobs", "0", "--pixels", "none", "--maps", "carried", "--frames", "uniform:2")
    out = tmp_path / "meta"
    still = ROOT / "data" / "pan_hevc.mp4"
    ran = codecmeta("extract", still, "--out", out, *options)
    assert ran.returncode == 0
    assert "no carried map (hevc" in ran.stderr.splitlines()[0]
    assert "1 done (1 with warnings)" in ran.stderr
    again = codecmeta("extract", still, "--out", out, *options, "--json")
    (line,) = [json.loads(text) for text in again.stdout.splitlines()]
    assert line["status"] == "kept"
    (warning,) = line["warnings"]
    assert warning.startswith("no carried map (hevc")
    (recorded,) = [json.loads(text) for text in (out / "manifest.jsonl").read_text().splitlines()]
    assert recorded["warnings"] == [warning]


def test_a_codec_whose_residual_is_not_read_is_no_alarm(tmp_path: Path) -> None:
    out = tmp_path / "meta"
    options = (ROOT / "data" / "objects_vp9.webm", "--out", out, "--jobs", "0", "--frames", "uniform:2", "--json")
    ran = codecmeta("extract", *options)
    assert ran.returncode == 0, ran.stderr
    line = json.loads(ran.stdout)
    assert (line["status"], line["residual"], line["warnings"]) == ("done", None, [])
    assert "1 done (1 without a residual; --residual proxy makes one for any codec)" in ran.stderr
    shown = codecmeta("show", out / "objects_vp9.webm.npz").stdout
    assert "a proxy is made on request only" in " ".join(shown.split())
    asked = codecmeta("extract", *options, "--residual", "proxy", "--overwrite")
    assert json.loads(asked.stdout)["residual"] == "proxy"
    assert "without" not in asked.stderr


def test_the_defaults_of_the_command_are_those_of_the_library(videos: Path, tmp_path: Path) -> None:
    options = ("--out", tmp_path / "meta", "--jobs", "0", "--frames", "uniform:2", "--pixels", "none")
    assert codecmeta("extract", videos / "still.mp4", *options).returncode == 0
    by_command = package.load(tmp_path / "meta" / "still.mp4.npz").info
    by_library = package.extract(videos / "still.mp4", frames="uniform:2", pixels=None).info
    assert by_command["extraction"]["options"] == by_library["extraction"]["options"]
    shown = " ".join(codecmeta("extract", "--help").stdout.replace("│", " ").split())
    assert f"[default: ({','.join(by_library['extraction']['options']['maps'])})]" in shown


def test_a_disk_that_is_full(videos: Path, tmp_path: Path) -> None:
    """A real one of 100 kB: the run stops at the first video that does not fit, and leaves nothing half-written."""
    for number in range(4):
        (videos / f"more{number}.mp4").write_bytes((videos / "still.mp4").read_bytes())
    out = tmp_path / "meta"
    out.mkdir()
    command = "from codecmeta_cli.codecmeta import main; main()"
    script = (
        f"mount -t tmpfs -o size=100k tmpfs '{out}' && echo mounted && "
        f"{sys.executable} -c '{command}' extract '{videos}' --out '{out}' --jobs 0 --frames uniform:4 --json; "
        f"echo code $?; ls -A '{out}'"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'cli'}"}
    ran = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, env=environment)
    lines = ran.stdout.splitlines()
    if not lines or lines[0] != "mounted":
        pytest.skip(f"no file system can be mounted here: {ran.stderr}")
    place = lines.index("code 3")
    outcomes = [json.loads(text) for text in lines[1:place]]
    assert [outcome["code"] for outcome in outcomes if outcome["status"] == "failed"] == ["disk_full"]
    assert outcomes[-1]["code"] == "disk_full"
    assert "No space left on device" in ran.stderr
    assert not [name for name in lines[place:] if name.endswith(".tmp")]


def test_verify(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "meta"
    codecmeta("extract", videos, "--out", out, "--jobs", "0", "--residual", "none", "--pixels", "none")
    ran = codecmeta("verify", out, "--deep", "--jobs", "1")
    assert (ran.returncode, ran.stdout) == (0, "")
    assert "2 sound; metadata in" in ran.stderr
    (videos / "still.mp4").write_bytes(b"something else")
    ran = codecmeta("verify", out, "--jobs", "0", "--json")
    assert ran.returncode == 1
    lines = {line["meta"]: line for line in map(json.loads, ran.stdout.splitlines())}
    assert lines[str(out / "still.mp4.npz")]["code"] == "stale"
    assert lines[str(out / "sub" / "noise.avi.npz")]["status"] == "sound"
    assert ran.stderr.count("still.mp4.npz") == 1, "one line names the record and the reason"
    assert "1 sound, 1 failed" in ran.stderr
    assert codecmeta("verify", videos).returncode == 2


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
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in configuration["project"]["dynamic"]
    assert ROOT / configuration["tool"]["hatch"]["version"]["path"] == Path(package.__file__)
    version = package.__version__
    assert codecmeta("--version").stdout.startswith(f"codecmeta {version} (")


def test_import_is_light(tmp_path: Path) -> None:
    code = (
        "import sys, codecmeta; codecmeta.errors if False else None;"
        "heavy = {'torch', 'numba', 'av', 'numpy', 'cv2', 'matplotlib'} & set(sys.modules);"
        "print(sorted(heavy)); import codecmeta.extraction; print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["[]", "False"]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom codecmeta_cli.codecmeta import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'numba', 'av', 'numpy', 'cv2'} & set(sys.modules)), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "extract" in ran.stdout
    assert ran.stderr.strip() == "[]"


def test_control_characters_of_a_file_do_not_reach_the_terminal(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    record().save(good)
    ran = codecmeta("show", rewrite(good, bad, {"info": with_info(**{"signals__\x1b[31m": 5})}))
    assert ran.returncode == 1
    assert r"signals.\x1b[31m is a whole number" in ran.stderr
    assert "\x1b" not in ran.stderr
