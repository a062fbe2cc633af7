"""The plug-in of lmms-eval, against its documented classes and against the package itself where it is installed."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("transformers")

from codecmeta_cli.compress import app

from compress.errors import CompressError, ConfigError
from compress.integrations.lmms_eval import MODELS, TASKS, manifests


@dataclass
class TokenCounts:
    input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None


@dataclass
class GenerationResult:
    text: str
    token_counts: TokenCounts | None = None


@dataclass
class Instance:
    request_type: str
    arguments: tuple[Any, ...]
    idx: int
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def args(self) -> tuple[Any, ...]:
        return self.arguments


@dataclass(frozen=True)
class ModelManifest:
    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None
    aliases: tuple[str, ...] = ()


class Lmms:
    """The abstract model."""

    is_simple = True

    def __init__(self) -> None:
        self.task_dict: dict[str, Any] = {}


@pytest.fixture(params=["documented", "installed"])
def package(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    contents = {
        "lmms_eval": {},
        "lmms_eval.api": {},
        "lmms_eval.api.instance": {
            "GenerationResult": GenerationResult,
            "Instance": Instance,
            "TokenCounts": TokenCounts,
        },
        "lmms_eval.api.model": {"lmms": Lmms},
        "lmms_eval.models": {},
        "lmms_eval.models.registry_v2": {"ModelManifest": ModelManifest},
    }
    if request.param == "installed":
        for name in contents:
            pytest.importorskip(name)
        yield
        sys.modules.pop("compress.integrations.lmms_eval_model", None)
        return
    for name, members in contents.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    yield
    sys.modules.pop("compress.integrations.lmms_eval_model", None)


def build_model(**options: Any) -> Any:
    from compress.integrations.lmms_eval_model import CompressedModel

    settings = {"random_weights": "llava-onevision-tiny", "device": "cpu", "frames": 4, "layers": "1+2", **options}
    return CompressedModel(**settings)


def request(video: object, *, doc_id: int = 0, kind: str = "video", **options: Any) -> Any:
    def doc_to_messages(doc: Any) -> list[dict[str, Any]]:
        content = [{"type": kind, "url": str(doc["video"])}, {"type": "text", "text": "What?"}]
        return [{"role": "user", "content": content}]

    options = {"max_new_tokens": 5, "until": [], **options}
    return sys.modules["lmms_eval.api.instance"].Instance(
        request_type="generate_until",
        arguments=("What?", doc_to_messages, options, doc_id, "task", "test"),
        idx=doc_id,
        metadata={"task": "task", "doc_id": doc_id, "repeats": 1},
    )


def run(model: Any, *videos: object, **options: Any) -> list[GenerationResult]:
    model.task_dict = {"task": {"test": [{"video": video} for video in videos]}}
    found: list[GenerationResult] = model.generate_until(
        [request(video, doc_id=number, **options) for number, video in enumerate(videos)]
    )
    return found


def test_manifests(package: None) -> None:
    from importlib import import_module

    for manifest in manifests():
        module, _, name = manifest.chat_class_path.rpartition(".")
        assert getattr(import_module(module), name).is_simple is False
    assert [manifest.model_id for manifest in manifests()] == list(MODELS)


def test_its_registry_finds_the_models() -> None:
    registry = pytest.importorskip("lmms_eval.models.registry_v2").ModelRegistryV2()
    for manifest in manifests():
        registry.register_manifest(manifest)
    for name in MODELS:
        assert registry.get_model_class(name).__name__ == "CompressedModel"
    sys.modules.pop("compress.integrations.lmms_eval_model", None)


@pytest.mark.parametrize("config", ["llava-onevision-tiny", "llava-video-tiny", "qwen2-vl-tiny"])
def test_answers_with_counts(package: None, data: Path, config: str) -> None:
    model = build_model(random_weights=config, retention=0.3)
    videos = [data / "still_h264.mp4", data / "event_h264.mp4"]
    short = run(model, *videos)
    whole = run(build_model(random_weights=config, retention=1.0, tau_tem=1.0, target_keep=1.0), *videos)
    for one, other in zip(short, whole, strict=True):
        assert one.token_counts.output_tokens == 5
        assert one.token_counts.input_tokens < other.token_counts.input_tokens
        assert isinstance(one.text, str)


def test_a_folder_of_frames_is_encoded(package: None, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (65, 97, 3), dtype=np.uint8)
    for number in range(5):
        cv2.imwrite(str(tmp_path / f"{number:03d}.png"), np.roll(picture, 4 * number, axis=1))
    (result,) = run(build_model(), tmp_path)
    assert result.token_counts.output_tokens == 5
    cv2.imwrite(str(tmp_path / "900.png"), picture[:20])
    with pytest.raises(CompressError, match="of one size"):
        run(build_model(), tmp_path)


def test_failures_are_counted_and_never_scored(package: None, data: Path, tmp_path: Path) -> None:
    model = build_model()
    with pytest.raises(CompressError, match=r"1 of 2 samples failed, so none are scored: task/0: no such file"):
        run(model, tmp_path / "absent.mp4", data / "still_h264.mp4")
    assert len(model.failures) == 1
    with pytest.raises(CompressError, match="image"):
        run(model, data / "still_h264.mp4", kind="image")
    assert len(run(model, data / "still_h264.mp4")) == 1 and not model.failures


def test_what_is_not_offered(package: None) -> None:
    model = build_model()
    for wrong in (model.loglikelihood, model.generate_until_multi_round):
        with pytest.raises(NotImplementedError):
            wrong([])
    with pytest.raises(ConfigError, match="batch_size"):
        build_model(batch_size=2)
    with pytest.raises(ConfigError, match="no field 'speed'"):
        build_model(speed=9)
    assert (model.rank, model.world_size, model.device.type) == (0, 1, "cpu")
    assert model.tokenizer is not None and model.model is not None


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


def test_the_command() -> None:
    result = invoke("--model", "org/model", "--set", "layers=3,4", "--tasks", "videomme, egoschema", "--dry-run",
                    "--backbone", "qwen2_vl", "--limit", 8)  # fmt: skip
    assert result.exit_code == 0, result.stderr
    line = result.stdout
    assert "-m lmms_eval --model compress_qwen2_vl --model_args pretrained=org/model,method=metom,frames=32," in line
    asked = invoke("--model", "org/model", "--retention", 0.2, "--dry-run").stdout
    assert "method=metom,retention=0.2,frames=32," in asked
    assert "layers=3+4" in line and "--tasks videomme,egoschema_subset" in line and "--limit 8" in line
    assert "--verbosity DEBUG" in line
    everything = invoke("--model", "x", "--dry-run").stdout
    assert ",".join(TASKS.values()) in everything


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "videomme,mmlu"], "mmlu"),
        (["--backbone", "gpt"], "gpt"),
        (["--method", "fastest"], "fastest"),
        (["--retention", "7"], "retention"),
        (["--frames", "0"], "'--frames'"),
        (["--limit", "0"], "'--limit'"),
        (["--tasks", ""], "the argument after"),
        (["--model", ""], "the argument after"),
        (["--model", "a,b"], "without a comma"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str) -> None:
    result = invoke("--model", "x", "--dry-run", *arguments)
    assert result.exit_code == 2 and message in result.stderr


def test_without_lmms_eval() -> None:
    if importlib.util.find_spec("lmms_eval") is not None:
        pytest.skip("lmms-eval is installed")
    result = invoke("--model", "x")
    assert result.exit_code == 2 and "pip install 'codecmeta[eval]'" in result.stderr
