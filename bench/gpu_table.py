"""Tables of `bench/results/gpu.json` for the documentation: `python -m bench.gpu_table [bench/results/gpu.json]`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

HEAD = ("case", "tokens", "tower ms", "compression ms", "prefill ms", "times its floor", "prefill x", "first token x",
        "launches, waits", "GB")  # fmt: skip


def render(result: dict[str, Any]) -> str:
    """Return one Markdown table per model, and what was measured besides."""
    measured = {title: record for title, record in result["models"].items() if "cases" in record}
    return "\n\n".join([_introduce(result), *(_tabulate(title, record) for title, record in measured.items())])


def _introduce(result: dict[str, Any]) -> str:
    ceilings, extraction = result["ceilings"], result["extraction"]
    first = next((one for one in result["models"].values() if "cases" in one), None)
    where = "" if first is None else f"{first['machine']['accelerator'] or first['machine']['processor']}, "
    versions = "" if first is None else ", ".join(f"{name} {value}" for name, value in first["versions"].items())
    lines = [
        f"{where}{versions}, commit {result['commit']}{'' if result['complete'] else ', cut off'}. "
        f"Ceiling {ceilings['flops'] / 1e12:.0f} TFLOP/s, {ceilings['bytes_per_second'] / 1e9:.0f} GB/s.",
        _describe_extraction(extraction, None if first is None else first["cases"][0]["seconds"]["ttft"]),
    ]
    for row in result["methods"]:
        calls = "" if not row["calls"] else ", " + ", ".join(f"{count} {name}" for name, count in row["calls"].items())
        lines.append(f"{row['method']} alone: {1000 * row['seconds']:.2f} ms{calls}.")
    return "\n".join(lines)


def _describe_extraction(extraction: dict[str, Any], first_token: float | None) -> str:
    if "error" in extraction:
        return f"Extraction was not measured: {extraction['error']}."
    spent = {name: f"{1000 * value:.0f} ms" for name, value in extraction["seconds"].items()}
    token = "" if first_token is None else f", the uncompressed first token {1000 * first_token:.0f} ms"
    return (
        f"Extraction of {extraction['clip']}, {extraction['cores']} cores: pixels {spent['pixels']}, with metadata "
        f"{spent['pixels and metadata']}{token}."
    )


def _tabulate(title: str, record: dict[str, Any]) -> str:
    rows = [f"**{title}**", "", "| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
    plain = record["cases"][0]["seconds"]
    for one in record["cases"]:
        seconds, inner = one["seconds"], one["tokens_inner"]
        tokens = str(one["tokens_out"]) if inner == one["tokens_out"] else f"{one['tokens_out']}, then {inner}"
        calls = record.get("calls", {}).get(one["name"])
        cells = (
            one["name"],
            tokens,
            f"{1000 * seconds.get('tower', 0.0):.1f}",
            f"{1000 * seconds['compress']:.1f}" if "compress" in seconds else "",
            f"{1000 * seconds['prefill']:.1f}",
            f"{seconds['prefill'] / record['prefill_floor_seconds'][one['name']]:.2f}",
            f"{plain['prefill'] / seconds['prefill']:.1f}",
            f"{plain['ttft'] / seconds['ttft']:.2f}",
            f"{calls['kernels'] + calls.get('graphs', 0)}, {calls['waits']}" if isinstance(calls, dict) else "",
            f"{one['memory'] / 1e9:.1f}" if one["memory"] else "",
        )
        rows.append("| " + " | ".join(cells) + " |")
    for goal, figures in record["goals"].items():
        if figures["goal"] is not None:
            rows.append(f"\n{goal}: {figures['reached']:.3g} (goal {figures['goal']:g})")
    if record["failures"]:
        rows.append(f"\nfailed: {', '.join(record['failures'])}")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=Path("bench/results/gpu.json"))
    print(render(json.loads(parser.parse_args().file.read_text())))


if __name__ == "__main__":
    main()
