"""Packers of a run: which one takes the outcomes, by where records are written and by whom."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from codecmeta.batch.engines import Engine
from codecmeta.batch.output_folder import OutputFolder
from codecmeta.batch.packed_output import Packer, Packing, Plain
from codecmeta.batch.record_index import require_pyarrow
from codecmeta.batch.remote_output import RemoteOutput
from codecmeta.batch.remote_packing import RemotePacker
from codecmeta.errors import OutputError, SourceError


@contextmanager
def open_packer(folder: OutputFolder, packing: Packing | None, engine: Engine) -> Iterator[Plain]:
    """Yield what takes the outcomes of a run, by the places of their records; at the end, write the rest.

    Args:
        folder: the output folder.
        packing: size of the shards; None leaves each record a file.
        engine: of the workers that write records.

    Raises:
        UsageError: pyarrow is not installed, or another run packs the same part.
        OutputError: a shard or the index cannot be written.
    """
    if packing is None:
        yield Plain()
        return
    require_pyarrow()
    if isinstance(folder, RemoteOutput):
        with ExitStack() as stack:
            staging = None
            if engine.reach != "cluster":
                staging = f"{stack.enter_context(tempfile.TemporaryDirectory(prefix='codecmeta-'))}/"
            try:
                remote = RemotePacker(folder, packing, staging)
                try:
                    yield remote
                except BaseException:
                    # what waits would be lost with the temporary folder
                    with suppress(OSError, SourceError):
                        if staging is not None:
                            remote.write_waiting()
                    raise
                remote.finish()
            except SourceError as error:
                raise OutputError(None, f"output folder {folder.url}: {error}") from error
        return
    with folder.claim_packing():
        local = Packer(folder, packing)
        yield local
        local.finish()
