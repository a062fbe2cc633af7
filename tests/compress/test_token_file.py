"""Files of a run: what they may be written over. More in test_runner.py."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from compress.token_file import write_whole


def test_what_is_no_file_is_not_done_away_with(tmp_path: Path) -> None:
    """Renaming over a device would replace it, for all programs of the machine."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        write_whole(tmp_path / "pipe", b"content")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
