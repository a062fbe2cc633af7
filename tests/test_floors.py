"""The structure of the packages, read from their imports: floors in order, no circles, one way from `compress` to
`codecmeta`.

Imports inside functions count, those under ``TYPE_CHECKING`` do not, nor do the lazy exports of the packages' roots.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

FLOORS = (
    ("codecmeta.batch",),
    (
        "codecmeta.bit_cost_maps",
        "codecmeta.extraction",
        "codecmeta.frame_columns",
        "codecmeta.frame_reader",
        "codecmeta.frame_table",
        "codecmeta.picture_folder",
        "codecmeta.picture_sequence",
        "codecmeta.plot",
        "codecmeta.provenance",
        "codecmeta.signals",
        "codecmeta.stream_description",
        "codecmeta.verdict",
    ),
    ("codecmeta.residual",),
    ("codecmeta.prediction",),
    ("codecmeta.decoding",),
    ("codecmeta.container",),
    ("codecmeta.h264", "codecmeta.hevc"),
    ("codecmeta.entropy",),
    ("codecmeta.record",),
    ("codecmeta.storage",),
    ("codecmeta.simd",),
    ("codecmeta.errors",),
)
"""Rooms of codecmeta from the top floor to the ground; a module may import from its own floor and from those below."""


def modules(package: str) -> dict[str, Path]:
    """Names and files of a package's modules."""
    folder = ROOT / ("cli" if package == "codecmeta_cli" else "") / package
    names = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def statements(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements, at module level or inside functions, but not under ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from statements(other)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        else:
            yield from statements(node)


def imports(path: Path, known: set[str]) -> set[str]:
    """Modules among the known ones that a file imports."""
    found = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
            continue
        assert node.level == 0, f"{path}: relative import"
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            if name in known:
                found.add(name)
            elif node.module in known:
                found.add(node.module)
    return found


def graph(*packages: str) -> dict[str, set[str]]:
    """Modules and what each imports."""
    files = {name: path for package in packages for name, path in modules(package).items()}
    return {name: imports(path, set(files)) - {name} for name, path in files.items()}


def find_circle(edges: dict[str, set[str]]) -> list[str]:
    """Find a circle of imports; return an empty list if there is none."""
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return []
        for other in sorted(edges[name]):
            if circle := visit(other, [*trail, name]):
                return circle
        done.add(name)
        return []

    for name in sorted(edges):
        if circle := visit(name, []):
            return circle
    return []


def floor_of(name: str) -> int | None:
    """Return the number of a module's floor from the top; None for the root of the package."""
    for number, rooms in enumerate(FLOORS):
        if any(name == room or name.startswith(f"{room}.") for room in rooms):
            return number
    return None


def test_circles_are_found() -> None:
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_imports_inside_functions_count_and_those_for_types_do_not(tmp_path: Path) -> None:
    path = tmp_path / "one.py"
    path.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import p.types\ndef f():\n    from p import late\n"
    )
    assert imports(path, {"p", "p.types", "p.late"}) == {"p.late"}


@pytest.mark.parametrize("package", ["codecmeta", "compress", "codecmeta_cli"])
def test_no_import_circles(package: str) -> None:
    edges = graph(package)
    assert len(edges) > 5
    assert find_circle(edges) == []


def test_floors_fall() -> None:
    edges = graph("codecmeta")
    homeless = [name for name in edges if floor_of(name) is None and name != "codecmeta"]
    assert homeless == []
    rising = [
        f"{name} -> {other}"
        for name, others in sorted(edges.items())
        for other in sorted(others)
        if (upper := floor_of(name)) is not None and (lower := floor_of(other)) is not None and lower < upper
    ]
    assert rising == []


def test_compress_knows_codecmeta_by_its_exports_only() -> None:
    known = set(modules("codecmeta"))
    leaks = {
        name: inner for name, path in modules("compress").items() if (inner := imports(path, known) - {"codecmeta"})
    }
    assert leaks == {}


def test_codecmeta_knows_neither_compress_nor_torch() -> None:
    for path in modules("codecmeta").values():
        for node in statements(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert not {name.partition(".")[0] for name in names} & {"torch", "compress", "codecmeta_cli"}, path
