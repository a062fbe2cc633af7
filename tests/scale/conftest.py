"""Engines to try. Where CODECMETA_SCALE is set (`scripts/test --scale`), a missing one is a failure, not a skip."""

from __future__ import annotations

import importlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from codecmeta.batch.engines import Engine, LocalEngine, SerialEngine
from codecmeta.batch.ray_engine import RayEngine

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}
BUCKET = "clips"
TOKEN = secrets.token_hex(20)
"""One for all modules: a process keeps the first that Ray has read."""


def require(module: str) -> Any:
    """Import a module that an engine or format needs."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        if os.environ.get("CODECMETA_SCALE"):
            pytest.fail(f"{module} is not installed; scripts/test --scale needs the extra dev-scale")
        pytest.skip(f"{module} is not installed: what needs it was NOT tested")


@dataclass(frozen=True)
class Bench:
    """An engine of two workers, and what a test may do to it."""

    name: str
    make: Callable[..., Engine]
    lose_node: Callable[[], None] | None = None

    @property
    def isolated(self) -> bool:
        """Whether a worker may die or hang without taking the test along."""
        return self.name != "in-process"


@pytest.fixture(scope="module")
def ray_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Ray as it behaves on loopback, without reports to anyone and without a token in the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", TOKEN)
        yield require("ray")


def make_ray(*, timeout: float | None = None, workers: int | None = None, **options: Any) -> Engine:
    """Tasks of the cluster that this process is connected to."""
    return RayEngine(workers=workers, timeout=timeout, **options)


@contextmanager
def one_machine(ray: Any) -> Iterator[Bench]:
    """One machine of two cores."""
    ray.init("local", **(NODE | {"num_cpus": 2}), include_dashboard=False, log_to_driver=False)
    try:
        yield Bench("ray, one node", make_ray)
    finally:
        ray.shutdown()


@contextmanager
def two_machines(ray: Any) -> Iterator[Bench]:
    """Two machines of one core each, as far as Ray knows."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    nodes = [cluster.add_node(**NODE)]

    def lose_node() -> None:
        cluster.remove_node(nodes.pop(), allow_graceful=False)

    ray.init(address=cluster.address, log_to_driver=False)
    try:
        yield Bench("ray, two nodes", make_ray, lose_node)
    finally:
        ray.shutdown()
        cluster.shutdown()


def local(*, timeout: float | None = None, workers: int | None = None, **options: Any) -> Engine:
    """Two processes of this machine, whose window is not for a caller to choose."""
    return LocalEngine(workers=2, timeout=timeout, modules=(), **options)


def serial(**options: Any) -> Engine:
    """Return an engine of this process, which knows no limits."""
    return SerialEngine()


@pytest.fixture(params=["in-process", "pebble", "ray, one node", "ray, two nodes"], scope="module")
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Each engine in turn."""
    if not request.param.startswith("ray"):
        yield Bench(request.param, serial if request.param == "in-process" else local)
        return
    cluster = one_machine if request.param == "ray, one node" else two_machines
    with cluster(request.getfixturevalue("ray_environment")) as found:
        yield found


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """Serve S3 on loopback, with one bucket: one server, since s3fs keeps the first address that it has read."""
    server_module, boto3 = require("moto.server"), require("boto3")
    require("s3fs")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "50")
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield f"s3://{BUCKET}"
    server.stop()


@pytest.fixture(params=["memory", "s3"])
def folder(request: pytest.FixtureRequest) -> str:
    """Return the URL of an empty folder in each store that is written."""
    require("fsspec")
    base = "memory://clips" if request.param == "memory" else request.getfixturevalue("s3")
    return f"{base}/{secrets.token_hex(4)}"
