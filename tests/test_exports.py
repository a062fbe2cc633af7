"""What the packages offer is what they say they offer."""

from __future__ import annotations

import importlib
import inspect

import pytest


@pytest.mark.parametrize("name", ["codecmeta", "compress"])
def test_public_names(name: str) -> None:
    package = importlib.import_module(name)
    assert set(package.__all__) == set(package._HOME)
    for exported in package.__all__:
        value = getattr(package, exported)
        # constants and aliases have no name of their own
        assert not (inspect.isclass(value) or inspect.isfunction(value)) or value.__name__ == exported
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing


def test_errors_survive_a_process_boundary() -> None:
    import pickle

    from codecmeta.errors import BitstreamError, MetaFormatError, SourceError

    for error in (
        SourceError("truncated", "cut"),
        BitstreamError("bad", slice_index=2, macroblock=7, unsupported="FMO"),
        MetaFormatError("a.npz", "mv", "wrong"),
    ):
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert str(copy) == str(error)
        assert vars(copy) == vars(error)
