"""Where the tests find real material, and how they say that it is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"

if not Path("/dev/nvidiactl").exists():
    # Without a GPU, Triton's interpreter runs kernels; it has to be known before anything imports Triton.
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real clips and expected residuals; the test is skipped, loudly, where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"real clips and expected residuals are not here ({SHARED})")
    return SHARED


@pytest.fixture(scope="session")
def clips(shared: Path) -> Path:
    """Folder of the real clips."""
    return shared / "clips"


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of the clips that this project renders itself."""
    return ROOT / "data"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in the summary where the real clips came from, or that everything on them was skipped."""
    if SHARED.is_dir():
        terminalreporter.write_line(f"real clips: {SHARED / 'clips'}")
    else:
        terminalreporter.write_line(
            f"REAL CLIPS MISSING: tests on them were skipped ({SHARED} does not exist)", red=True
        )
