"""The command line `compress`: exit codes, what stands on standard output, resume, and failures."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from codecmeta_cli.compress import app
from typer.testing import CliRunner, Result

import codecmeta
from codecmeta import DENSITY_MAPS
from compress import runner
from compress.methods import METHODS
from compress.token_file import read_tokens

DATA = Path(__file__).resolve().parent.parent.parent / "data"
KEYS = {"video", "method", "retention", "frames", "tokens_in", "tokens_out", "budgets", "seconds", "out"}


def compress(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def lines(result: Result) -> list[dict[str, Any]]:
    """Parse standard output as JSON lines; fail if it holds anything else."""
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Metadata of small clips of the project: with residuals, without, and without pixels."""
    folder = tmp_path_factory.mktemp("records")
    options: dict[str, dict[str, Any]] = {
        "full": {},
        "carried": {"maps": ("carried",)},
        "no_residual": {"residual": "none"},
        "no_pixels": {"residual": "none", "pixels": None},
    }
    for name, chosen in options.items():
        codecmeta.extract(DATA / "cut_h264.mkv", frames="uniform:8", **chosen).save(folder / f"{name}.npz")
    return {name: folder / f"{name}.npz" for name in options}


@pytest.fixture
def meta(records: dict[str, Path], tmp_path: Path) -> Path:
    """Make a folder with one good video, in a folder of its own."""
    folder = tmp_path / "meta"
    (folder / "shots").mkdir(parents=True)
    (folder / "shots" / "cut.mkv.npz").write_bytes(records["full"].read_bytes())
    return folder


def test_run_writes_tokens_and_a_table(meta: Path, tmp_path: Path) -> None:
    out = tmp_path / "tokens"
    result = compress("run", "--meta", meta, "--out", out)
    assert result.exit_code == 0, result.output
    for expected in ("shots/cut.mkv", "1568", "encode", "compress"):
        assert expected in result.stdout
    file = read_tokens(out / "shots" / "cut.mkv.safetensors")
    assert len(file.tokens) <= round(0.3 * 1568)
    assert str(len(file.tokens)) in result.stdout
    assert not list(out.rglob("*.png"))


def test_json_is_one_line_per_video_and_nothing_else(meta: Path, records: dict[str, Path], tmp_path: Path) -> None:
    (meta / "bad.npz").write_bytes(b"no archive")
    (meta / os.fsdecode(b"n\xe4me\n.npz")).write_bytes(records["no_residual"].read_bytes())
    result = compress("run", "--meta", meta, "--out", tmp_path / "tokens", "--json", "--plot")
    assert result.exit_code == 1
    reports = lines(result)
    assert [r["video"] for r in reports] == ["bad", os.fsdecode(b"n\xe4me\n"), "shots/cut.mkv"]
    assert all(set(r) >= KEYS for r in reports)
    bad, skipped, done = reports
    assert bad["status"] == "failed"
    assert bad["out"] is None
    assert "bad.npz" in bad["message"]
    assert skipped["status"] == "done"
    assert skipped["sources"]["rpm"] == done["sources"]["rpm"] == skipped["sources"]["density"] == "texture"
    assert skipped["message"] == done["message"] == ""
    assert sum(done["budgets"]) == done["tokens_out"] == len(read_tokens(done["out"]).tokens)
    assert Path(done["picture"]).read_bytes().startswith(b"\x89PNG")


def test_second_run_keeps_what_is_done(meta: Path, records: dict[str, Path], tmp_path: Path) -> None:
    command = ("run", "--meta", meta, "--out", tmp_path / "tokens", "--json")
    assert [r["status"] for r in lines(compress(*command))] == ["done"]
    (meta / "new.npz").write_bytes(records["no_residual"].read_bytes())
    assert {r["video"]: r["status"] for r in lines(compress(*command))} == {"new": "done", "shots/cut.mkv": "kept"}
    assert [r["status"] for r in lines(compress(*command, "--retention", "0.2"))] == ["done", "done"]
    changed = compress(*command, "--retention", "0.2", "--set", "tau_tem=0.8")
    assert [r["status"] for r in lines(changed)] == ["done", "done"]
    again = compress(*command, "--retention", "0.2", "--set", "tau_tem=0.8")
    assert [r["status"] for r in lines(again)] == ["kept", "kept"]
    assert [r["tokens_out"] for r in lines(again)] == [r["tokens_out"] for r in lines(changed)]


def test_missing_pixels_fail_that_video_and_name_the_command(
    meta: Path, records: dict[str, Path], tmp_path: Path
) -> None:
    (meta / "blind.npz").write_bytes(records["no_pixels"].read_bytes())
    result = compress("run", "--meta", meta, "--out", tmp_path / "tokens")
    assert result.exit_code == 1
    assert "codecmeta extract PATH/cut_h264.mkv --out META --pixels 384" in result.stdout.replace("\n", "")
    assert (tmp_path / "tokens" / "shots" / "cut.mkv.safetensors").is_file()


def test_a_map_that_the_record_lacks_is_refused(records: dict[str, Path], tmp_path: Path) -> None:
    for name, option in (("carried", "--maps carried"), ("texture-coded", "--maps innovation")):
        asked = compress("run", "--meta", records["no_residual"], "--out", tmp_path, "--map", name)
        assert asked.exit_code == 1
        assert f"no map '{name}' (not asked for" in asked.stdout.replace("\n", " ")
        assert option in asked.stdout.replace("\n", " ")
    result = compress(
        "run", "--meta", records["no_residual"], "--out", tmp_path, "--map", "none", "--html", tmp_path / "page.html"
    )
    assert result.exit_code == 0
    assert "RPM skipped: map is none; tokens are ranked by texture" in result.stdout.replace("\n", " ")
    assert "density: texture" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("name", DENSITY_MAPS)
def test_every_map_can_be_asked_for_and_is_named(name: str, records: dict[str, Path], tmp_path: Path) -> None:
    record = records["carried" if name == "carried" else "full"]
    (report,) = lines(compress("run", "--meta", record, "--out", tmp_path, "--json", "--map", name))
    assert report["sources"]["rpm"] == report["sources"]["density"] == name
    assert read_tokens(report["out"]).sources["density"] == name


def test_an_engine_that_is_not_installed_is_wrong_usage(
    meta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = compress("run", "--meta", meta, "--out", tmp_path, "--engine", "ray")
    assert result.exit_code == 2
    assert result.stderr.endswith("compress: --engine ray needs Ray: pip install 'codecmeta[ray]'\n")


def test_set_changes_what_comes_out(meta: Path, tmp_path: Path) -> None:
    plain, literal = (
        lines(compress("run", "--meta", meta, "--out", tmp_path / name, "--json", *more))[0]
        for name, more in (("a", ()), ("b", ("--set", "refill=no")))
    )
    assert literal["tokens_out"] < plain["tokens_out"] == round(0.3 * 1568)


@pytest.mark.parametrize(("method", "share"), [("metom", 0.3), ("infomerge", 0.1), ("vidcom2", 0.25), ("pool", 0.1)])
def test_every_method_brings_its_own_retention(method: str, share: float, meta: Path, tmp_path: Path) -> None:
    (report,) = lines(compress("run", "--meta", meta, "--out", tmp_path, "--json", "--method", method))
    assert report["retention"] == share
    assert report["tokens_out"] == round(share * 1568)


@pytest.mark.parametrize("method", ["metom", "infomerge", "evs", "fastvid", "flashvid"])
def test_retention_is_met_by_every_method(method: str, meta: Path, tmp_path: Path) -> None:
    for retention in ("0.05", "0.5", "1"):
        result = compress(
            "run", "--meta", meta, "--out", tmp_path / retention, "--json", "--method", method, "--retention", retention
        )
        (report,) = lines(result)
        assert report["tokens_out"] == round(float(retention) * 1568)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--method", "best"), "best"),
        (("--retention", "0"), "retention"),
        (("--retention", "1.5"), "retention"),
        (("--set", "tau"), "FIELD=VALUE"),
        (("--set", "tau_hot=1"), "tau_tem"),
        (("--set", "tau_tem=high"), "tau_tem"),
        (("--set", "tau_tem=2"), "tau_tem"),
        (("--map", "colours"), "colours"),
        (("--device", "abacus"), "abacus"),
        (("--meta", "/nowhere/at/all"), "codecmeta extract"),
        (("--flag",), "--flag"),
    ],
)
def test_wrong_usage_is_2_and_leaves_standard_output_empty(
    arguments: tuple[str, ...], said: str, meta: Path, tmp_path: Path
) -> None:
    result = compress("run", "--meta", meta, "--out", tmp_path / "tokens", "--json", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert said in result.stderr
    assert not (tmp_path / "tokens").exists()


def test_html_page_is_written(meta: Path, tmp_path: Path) -> None:
    page = tmp_path / "pages" / "run.html"
    result = compress("run", "--meta", meta, "--out", tmp_path / "tokens", "--html", page)
    assert result.exit_code == 0
    text = page.read_text(encoding="utf-8")
    assert "shots/cut.mkv" in text
    assert "data:image/png;base64," in text


def test_a_page_that_cannot_be_written_is_refused_before_the_work(meta: Path, tmp_path: Path) -> None:
    result = compress("run", "--meta", meta, "--out", tmp_path / "tokens", "--html", tmp_path)
    assert result.exit_code == 2
    assert f"--html is '{tmp_path}', a folder; name a file" in result.stderr
    assert not (tmp_path / "tokens").exists()


def test_methods_lists_all_and_the_constants_of_one() -> None:
    result = compress("methods")
    assert result.exit_code == 0
    assert "metom" in result.stdout
    assert "infomerge" in result.stdout
    one = compress("methods", "metom")
    assert "tau_tem" in one.stdout
    assert "0.9" in one.stdout
    names = {entry["name"] for entry in lines(compress("methods", "--json"))}
    assert {"metom", "infomerge"} <= names
    assert compress("methods", "best").exit_code == 2


def test_methods_say_how_exact_they_are_and_whose_they_are() -> None:
    described = {line["name"]: line for line in lines(compress("methods", "--json"))}
    assert set(described) == set(METHODS)
    for line in described.values():
        assert line["budget"] and line["licence"] and line["combines"] and line["source"]
    assert described["flashvid"]["query_agnostic"]
    assert not described["metom"]["query_agnostic"]
    assert described["divprune"]["licence"].startswith("CC BY-NC")
    assert "licence of the original code: MIT" in compress("methods", "fastvid").stdout.replace("\n", " ")


def test_flops_prints_the_papers_rows_beside_ours() -> None:
    result = compress("flops")
    assert result.exit_code == 0
    assert "InfoMerge Table 1" in result.stdout
    assert "48.8" in result.stdout
    rows = lines(compress("flops", "--json"))
    assert len(rows) >= 12
    other = [row for row in rows if not row["agrees"]]
    assert [(round(row["share"], 1), row["printed_share"]) for row in other] == [(11.6, "11.7")]
    assert other[0]["agrees_rounded"]
    marks = [line.split()[-1] for line in result.stdout.splitlines() if "LLaVA-" in line]
    assert (marks.count("="), marks.count("≈")) == (len(rows) - 1, 1)


def test_help_and_version_are_those_of_codecmeta() -> None:
    assert compress("-h").stdout == compress("--help").stdout
    assert "--retention" in compress("run", "-h").stdout
    assert compress("--version").stdout == f"compress {codecmeta.__version__}\n"


def test_an_output_folder_that_cannot_be_is_blamed_itself(
    meta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "taken"
    place.touch()
    for out in (place, place / "below"):
        result = compress("run", "--meta", meta, "--out", out, "--json")
        assert (result.exit_code, result.stdout) == (3, "")
        assert f"{out} cannot be the output folder" in result.stderr
        assert "cut.mkv" not in result.stderr

    for out in ("s3://bucket/tokens", Path("s3://bucket/tokens")):
        result = compress("run", "--meta", meta, "--out", out, "--json")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "is an address; allowed is a folder" in result.stderr


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS])
def test_a_disk_that_cannot_be_written_ends_the_run(
    meta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(runner, "write_tokens", refuse)
    result = compress("run", "--meta", meta, "--out", tmp_path / "tokens", "--json")
    assert (result.exit_code, result.stdout) == (3, "")
    assert f"shots cannot be written: {os.strerror(number)}" in result.stderr
    monkeypatch.undo()
    # the same of a record that cannot be read concerns that one
    monkeypatch.setattr(runner, "load_record", refuse)
    result = compress("run", "--meta", meta, "--out", tmp_path / "tokens", "--json")
    assert (result.exit_code, [line["status"] for line in lines(result)]) == (1, ["failed"])


def test_stale_temporary_files_are_swept(meta: Path, tmp_path: Path) -> None:
    """Also when there is nothing else to do."""
    out = tmp_path / "tokens"
    for _ in range(2):
        (out / "shots").mkdir(parents=True, exist_ok=True)
        for name, age in ((".compress-old.tmp", 10_000), (".compress-new.tmp", 10)):
            (out / "shots" / name).touch()
            os.utime(out / "shots" / name, (time.time() - age,) * 2)
        assert compress("run", "--meta", meta, "--out", out, "--json").exit_code == 0
        assert [path.name for path in (out / "shots").glob(".*")] == [".compress-new.tmp"]


def test_a_folder_below_the_output_that_cannot_be_fails_its_video_alone(
    meta: Path, records: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "shots").touch()
    (meta / "other.npz").write_bytes(records["no_residual"].read_bytes())
    result = compress("run", "--meta", meta, "--out", tmp_path / "tokens", "--json")
    assert result.exit_code == 1
    assert {r["video"]: r["status"] for r in lines(result)} == {"other": "done", "shots/cut.mkv": "failed"}
    assert "shots" in next(r["message"] for r in lines(result) if r["status"] == "failed")


def test_a_folder_that_cannot_be_listed_is_told(meta: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in it is missing from the run: that must not look like success."""
    (meta / "closed").mkdir()
    plain = os.scandir

    def scandir(path: str) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", path)
        return plain(path)

    monkeypatch.setattr(os, "scandir", scandir)
    result = compress("run", "--meta", meta, "--out", meta.parent / "tokens", "--json")
    assert result.exit_code == 1
    assert {r["video"]: r["status"] for r in lines(result)} == {"closed": "failed", "shots/cut.mkv": "done"}
    assert "closed is a folder that cannot be listed" in lines(result)[0]["message"]


def test_control_characters_of_a_file_do_not_reach_the_terminal(meta: Path, records: dict[str, Path]) -> None:
    record = codecmeta.load(records["no_pixels"])
    named = {**record.info, "source": {**record.info["source"], "name": "\x1b[31mred.mp4"}}
    replace(record, info=named).save(meta / "red.npz")
    result = compress("run", "--meta", meta, "--out", meta.parent / "tokens")
    assert result.exit_code == 1
    assert "red.mp4 --out META --pixels 384" in result.stdout
    assert "\x1b" not in result.stdout + result.stderr


def test_without_torch_the_extra_is_named() -> None:
    code = "import sys; sys.modules['torch'] = None; from codecmeta_cli.compress import main; main()"
    root = Path(__file__).resolve().parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "--meta", "data"], capture_output=True, text=True, cwd=root
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "compress: this needs torch: pip install 'codecmeta[compress]'\n"


def test_help_imports_no_torch() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from codecmeta_cli.compress import app\n"
        "assert CliRunner().invoke(app, ['run', '--help']).exit_code == 0\n"
        "print(sorted({'torch', 'numpy', 'numba', 'matplotlib', 'av'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parent.parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"
