"""A clip of the benchmark and the demo model with random, sharpened weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from compress.accuracy.answering import Examinee, Sheet  # noqa: E402
from compress.accuracy.clips import Clip, open_clip  # noqa: E402
from compress.accuracy.questions import WORDS  # noqa: E402
from compress.accuracy.tower import TowerMemory  # noqa: E402
from compress.demo import WordTokenizer, build  # noqa: E402


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("accuracy")


@pytest.fixture(scope="session")
def clip(cache: Path) -> Clip:
    return open_clip(cache, "val", 3)


@pytest.fixture(scope="session")
def model() -> Any:
    """Random weights whose attention is not nearly uniform, so that wrong positions and masks change the answers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = build(WORDS)
    with torch.no_grad():
        for key, weight in made.named_parameters():
            if key.endswith(("q_proj.weight", "k_proj.weight")):
                weight *= 6
            elif "embed_tokens" in key or "multi_modal_projector" in key or "patch_embed" in key:
                weight *= 5
            elif key.endswith("bias"):
                weight += torch.linspace(-0.3, 0.3, weight.numel()).view_as(weight)
    return made


@pytest.fixture(scope="session")
def examinee(model: Any) -> Examinee:
    return Examinee(model, WordTokenizer(WORDS))


@pytest.fixture(scope="session")
def sheet(examinee: Examinee, clip: Clip) -> Sheet:
    return examinee.write_sheet(clip.meta, clip.questions)


@pytest.fixture(scope="session")
def memory(examinee: Examinee, clip: Clip) -> TowerMemory:
    return examinee.look(clip.meta)
