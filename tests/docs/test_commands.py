"""The commands and Python of the pages: all parse, and what needs no network, weights or GPU runs as written."""

from __future__ import annotations

import ast
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from codecmeta_cli.codecmeta import app as codecmeta_app
from codecmeta_cli.compress import app as compress_app
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
APPS = {"codecmeta": codecmeta_app, "compress": compress_app}
LABORATORY = "accuracy-lab.md"
"""Its commands train and measure for hours; they are parsed."""

NOT_RUN = {
    r"llava-hf/|Qwen/|ID_OR_PATH": "needs weights from a network",
    r"--device cuda": "needs a GPU",
    r"send_embeddings": "needs a server: tests/serving/test_embeddings.py",
    r"lmms_eval|compress eval": "needs lmms-eval: tests/compress/integrations/test_sprites_task.py",
    r"\$": "takes its paths from variables: tests/docs/test_at_scale.py",
    r"^pip |^python3? -m venv|^docker ": "installs packages",
    r"^scripts/": "runs these tests, the site or both",
    r"warmup|doctor": "compiles all kernels, or looks at the machine: tests/cli",
    r"^python -m bench\.|^python bench/": "measures for minutes",
    r"^export ": "sets a variable for the next command",
    r"^compress accuracy +#": "measures 500 clips; the next line of its page runs with a slice",
}
"""What is only parsed, and why."""

SLICED = {
    "--slice 500": "--slice 1 --cache cache",
    "compare --meta": "compare --methods metom,stride --retention 0.1 --repeats 1 --meta",
}
"""Options of long commands, and what the tests run instead."""

SYNTAX = re.compile(r"\[(--[^\]]*)\]")


class Command(NamedTuple):
    page: Path
    text: str

    @property
    def words(self) -> list[str]:
        """Words without a redirection, comment or the brackets of what is optional."""
        text = SYNTAX.sub(r"\1", self.text)
        text = re.sub(r"\$\{\w+:-(\w+)\}", r"\1", text)
        return shlex.split(re.sub(r"\s>\s.*", "", text), comments=True)

    @property
    def reason(self) -> str | None:
        """Why it is not run."""
        return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, self.text)), None)


def commands(page: Path) -> list[Command]:
    """Commands of the code blocks of a page."""
    text = page.read_text(encoding="utf-8").replace("\\\n", "")
    text = re.sub(r"^```\s*\{?\s*\.?(?:python|json|yaml).*?^```$", "", text, flags=re.M | re.S)
    fenced = [line for block in re.findall(r"^```bash\n(.*?)^```$", text, re.M | re.S) for line in block.splitlines()]
    indented = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    starts = ("codecmeta ", "compress ", "python ", "python3 ", "scripts/", "pip ", "docker ", "export ")
    return [Command(page, line) for line in fenced + indented if line.startswith(starts)]


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)


RUNNABLE = [
    page for page in PAGES if page.name != LABORATORY and any(command.reason is None for command in commands(page))
]

ALL = [command for page in PAGES for command in commands(page)]


def parse(command: str, words: list[str]) -> None:
    """Parse options and values as the command line does, without running anything."""
    group: Any = typer.main.get_command(APPS[command])
    group.commands[words[0]].make_context(words[0], words[1:])


def test_the_pages_have_commands_of_every_kind() -> None:
    assert len(ALL) > 30
    assert {command.reason for command in ALL} == {None, *NOT_RUN.values()}
    run = [command for command in ALL if command.reason is None and command.page.name != LABORATORY]
    assert len(run) > 15


@pytest.mark.parametrize(
    "command", [one for one in ALL if one.words[0] in APPS], ids=lambda one: one.text.split("#")[0]
)
def test_commands_parse(command: Command) -> None:
    parse(command.words[0], command.words[1:])


def test_a_command_that_is_wrong_is_found() -> None:
    for words in (["run", "--meta", "x", "--retentoin", "0.3"], ["run"], ["run", "--meta", "x", "--retention", "a"]):
        with pytest.raises(Exception, match=r"retentoin|Missing|valid"):
            parse("compress", words)


def test_commands_within_sentences_have_options_that_exist() -> None:
    for page in [*PAGES, ROOT / "CHANGELOG.md"]:
        for app, name, rest in re.findall(r"`(codecmeta|compress) ([a-z]+)([^`]*)`", page.read_text(encoding="utf-8")):
            group: Any = typer.main.get_command(APPS[app])
            assert name in group.commands, f"{page.name}: {app} {name}"
            known = {
                one for parameter in group.commands[name].params for one in parameter.opts + parameter.secondary_opts
            }
            assert set(re.findall(r"(--[a-z-]+)", rest)) <= known | {"--help"}, f"{page.name}: {app} {name}{rest}"


def test_scripts_and_modules_exist() -> None:
    for command in ALL:
        if command.words[0] in ("python", "python3") and command.words[1] != "-m":
            assert (ROOT / command.words[1]).is_file(), command.text
        elif command.words[0].startswith("scripts/"):
            assert (ROOT / command.words[0]).is_file(), command.text
    for page in PAGES:
        for module in re.findall(r"python -m (bench(?:\.\w+)+)", page.read_text(encoding="utf-8")):
            path = ROOT / module.replace(".", "/")
            assert path.with_suffix(".py").is_file() or path.is_dir(), f"{page.name}: {module}"


def test_python_of_the_pages_is_python() -> None:
    blocks = [block for page in PAGES for block in python_blocks(page)]
    assert len(blocks) > 8
    for block in blocks:
        ast.parse(block)


@pytest.fixture
def workspace(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with the files that the pages name: the clips of the project, and a few user files."""
    (tmp_path / "data").symlink_to(data)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for folder in ("videos/a", "VIDEOS/a"):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(data / "still_h264.mp4", tmp_path / folder / "clip.mp4")
    shutil.copy(data / "event_h264.mp4", tmp_path / "video.mp4")
    for name in ("a", "b", "c"):
        shutil.copy(data / "still_h264.mp4", tmp_path / f"{name}.mp4")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: Command, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a command in this process and return its output."""
    words = command.words
    if words[0] == "python":
        monkeypatch.setattr(sys, "argv", [*words[1:], "--jobs", "0"] if "shards" in words[1] else words[1:])
        runpy.run_path(words[1], run_name="__main__")
        return ""
    if words[:2] in (["codecmeta", "extract"], ["codecmeta", "verify"]):
        words = [*words, "--jobs", "0"]
        shutil.rmtree("meta" if words[1] == "extract" and "meta/" in words else "nothing", ignore_errors=True)
    result = CliRunner().invoke(APPS[words[0]], words[1:])
    assert result.exit_code == 0, f"{command.text}: {result.output}"
    redirected = re.search(r">\s*(\S+)$", command.text)
    if redirected:
        Path(redirected[1]).write_text(result.stdout)
    return result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.stem)
def test_commands_run(page: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in (one for one in commands(page) if one.reason is None):
        text = command.text
        for long, short in SLICED.items():
            text = text.replace(long, short)
        if (
            "ask" in command.words
            or "generate" in text
            or "own_method" in text
            or {"accuracy", "--model"} & {*command.words}
        ):
            pytest.importorskip("transformers")
        run(Command(page, text), monkeypatch)


RUN_BLOCKS = {"README.md": [0, 1], "quickstart.md": [0, 1], "json-lines.md": [0]}
"""Python blocks that stand by themselves."""


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN_BLOCKS)
def test_python_runs(page: str, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("jsonschema" if page == "json-lines.md" else "transformers")
    blocks = python_blocks(next(path for path in PAGES if path.name == page))
    for number in RUN_BLOCKS[page]:
        exec(compile(blocks[number], f"{page}, block {number}", "exec"), {})
    printed = capsys.readouterr().out
    assert (workspace / "event.npz").is_file() == (page == "README.md")
    assert ("complete" in printed) == (page == "quickstart.md")


def test_a_model_of_ones_own_is_shortened_as_the_page_does(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    block = next(one for one in python_blocks(ROOT / "docs" / "models.md") if "from_pretrained" in one)
    loading = re.compile(r"^model = .*\ntokenizer = .*$", re.M)
    tiny = "from compress import open_model\nmodel, tokenizer = open_model(random_config='qwen2.5-vl-tiny')"
    assert loading.search(block)
    exec(compile(loading.sub(tiny, block), "models.md", "exec"), {})
    counts = re.findall(r"^(\d+) -> (\d+)$", capsys.readouterr().out, re.M)
    assert len(counts) == 3
    assert all(int(left) == round(0.15 * int(entered)) for entered, left in counts)


def test_broken_files_are_listed_as_the_reliability_page_does(
    workspace: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One list of what either command finds, each file once, and none that is whole."""
    videos = workspace / "VIDEOS"
    (videos / "half.mp4").write_bytes((data / "event_h264.mp4").read_bytes()[:9000])
    (videos / "joined.mp4").write_bytes((data / "still_h264.mp4").read_bytes() * 2)
    shutil.copy(data / "still_h264.mp4", videos / "changed.mp4")
    page = ROOT / "docs" / "reliability.md"
    for name in ("lines.jsonl", "deep.jsonl"):
        command = next(one for one in commands(page) if name in one.text)
        result = CliRunner().invoke(codecmeta_app, [*command.words[1:], "--jobs", "0"])
        assert result.exit_code == 1
        Path(name).write_text(result.stdout)
        shutil.copy(data / "cut_h264.mkv", videos / "changed.mp4")
    (block,) = python_blocks(page)
    exec(compile(block, "reliability.md", "exec"), {})
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [(Path(path).name, code) for path, code, *_ in printed] == [
        ("changed.mp4", "stale"),
        ("half.mp4", "truncated"),
        ("joined.mp4", "damaged"),
    ]
