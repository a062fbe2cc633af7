"""Packages that reach URLs. Where they are missing, what needs them is not tested, which is said."""

from __future__ import annotations

import pytest

pytest.importorskip("fsspec", reason="fsspec is not installed: URLs were NOT tested")
pytest.importorskip("urllib3", reason="urllib3 is not installed: URLs were NOT tested")
