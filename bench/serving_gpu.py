"""A model served by vLLM on a GPU: plain, pruned by vLLM's own EVS, and compressed, under the same load.

    python -m bench.serving_gpu Qwen/Qwen2.5-VL-7B-Instruct --video clips/*.mp4 [--methods infomerge,btm,cover]
        [--retention 0.3,0.1] [--clients 1,8,32] [--requests 200] [--out serving_gpu.json] [-- OPTIONS OF vllm serve]

Needs vLLM 0.32.0 on a machine with a GPU and the weights. A server is started for every method and retention and takes
the load of `bench.serving` from every number of clients, one after the other: seconds to the first token, requests per
second, tokens of the prompts, errors, and answers that differ from those of single requests. In bfloat16, which is the
default on a GPU, sums of a batch are ordered otherwise and likeliest tokens may change: such answers are counted under
`wrong` for plain vLLM as well. A server that does not start or stops answering is named with the reason (vLLM prunes
only some models by EVS). What is measured is written after every server. No figure of a GPU is claimed: it was run on a
CPU, with tiny models (`tests/serving/test_gpu_benchmark.py`).
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench.serving import RequestError, measure, server_of, split_arguments, write_questions
from compress.errors import ConfigError
from compress.serving.vllm.command import write_command
from compress.serving.vllm.server import ServerError
from compress.serving.vllm.settings import ServedMethod
from compress.serving.vllm.version import check_version, installed_version
from compress.settings import parse_retentions

COLUMNS = (
    "prompt_tokens",
    "first_token_alone",
    "first_token_median",
    "first_token_p95",
    "requests_per_second",
    "wrong",
)


def list_servers(
    checkpoint: str, methods: list[str], retentions: tuple[float, ...], options: list[str]
) -> dict[str, tuple[str, ...]]:
    """List the servers to compare: name -> arguments of vLLM, from ``serve`` on."""
    servers = {"vLLM": ("serve", checkpoint, *options)}
    for retention in retentions:
        rate = ServedMethod(method="infomerge", retention=retention).pruning_rate
        servers[f"EVS of vLLM {retention:g}"] = ("serve", checkpoint, *options, "--video-pruning-rate", str(rate))
        for method in methods:
            served = ServedMethod(method=method, retention=retention)
            servers[f"{method} {retention:g}"] = write_command(checkpoint, served, more=options).arguments
    return servers


def describe_machine() -> dict[str, Any]:
    """Describe what the figures were measured on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.machine()})"
    return {"device": device, "vllm": installed_version(), "torch": torch.__version__}


def parse_clients(text: str) -> tuple[int, ...]:
    """Parse numbers of clients.

    Raises:
        ConfigError: one is not a number above 0.
    """
    words = text.split(",")
    if not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise ConfigError(f"--clients {text}: give numbers above 0, for example 1,8,32")
    return tuple(map(int, words))


def load(
    name: str,
    arguments: Sequence[str],
    bodies: Sequence[dict[str, Any]],
    rows: list[dict[str, Any]],
    *,
    requests: int,
    clients: Sequence[int],
) -> None:
    """Start a server, let it take the load from each number of clients, and add a row for each.

    Raises:
        ServerError: it does not start.
        RequestError: it answers no single request.
        OSError: it does not answer at all.
    """
    with tempfile.TemporaryDirectory() as folder, server_of(arguments, Path(folder, "log")) as endpoint:
        for count in clients:
            rows.append({"server": name, **measure(endpoint, bodies, requests=requests, clients=count)})
            print(json.dumps(rows[-1]), flush=True)


def main() -> None:
    """Run all servers and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--video", type=Path, nargs="+", required=True)
    parser.add_argument("--methods", default="infomerge,btm,cover")
    parser.add_argument("--retention", default="0.3,0.1")
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--out", type=Path)
    own, options = split_arguments(sys.argv[1:])
    given = parser.parse_args(own)
    check_version()
    retentions = parse_retentions("--retention", given.retention)
    clients = parse_clients(given.clients)
    servers = list_servers(given.checkpoint, given.methods.split(","), retentions, options)
    bodies = write_questions(given.video)
    about = {**describe_machine(), "checkpoint": Path(given.checkpoint).name, "options": options}
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for name, arguments in servers.items():
        try:
            load(name, arguments, bodies, rows, requests=given.requests, clients=clients)
        except (ServerError, RequestError, OSError) as error:
            failed[name] = str(error)
        if given.out is not None:
            given.out.write_text(json.dumps({**about, "rows": rows, "failed": failed}, indent=1) + "\n")
    print(f"\n{'server':24s} {'clients':>8s} " + " ".join(f"{column:>20s}" for column in COLUMNS))
    for row in rows:
        print(f"{row['server']:24s} {row['clients']:8d} " + " ".join(f"{row[column]!s:>20s}" for column in COLUMNS))
    for name, reason in failed.items():
        print(f"{name}: {reason}")
    sys.exit(1 if any(row["errors"] for row in rows) or not rows else 0)


if __name__ == "__main__":
    main()
