"""Standard output of both commands: a failure to write it is reported in one line."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class StandardOutputError(Exception):
    """Standard output that cannot be written. Not an OSError, to be distinguished from those of files."""


class _Output(io.TextIOWrapper):
    def write(self, text: str, /) -> int:
        with _distinguish_errors():
            return super().write(text)

    def flush(self) -> None:
        with _distinguish_errors():
            super().flush()


@contextmanager
def guard_output(command: str) -> Iterator[None]:
    """Run a command whose standard output may be full or closed, or whose reader may have gone.

    From here on `sys.stdout` raises `StandardOutputError` where it would raise an OSError.

    Args:
        command: its name, with which the message begins.

    Raises:
        SystemExit: with code 3; with code 1, and no message, where the reader has gone, as `| head` goes.
    """
    plain = sys.stdout
    if plain is None:
        # closed by the shell: a descriptor that cannot be written, so that only a command that writes is stopped
        sys.stdout = _Output(os.fdopen(os.open(os.devnull, os.O_RDONLY), "wb"))
    elif isinstance(plain, io.TextIOWrapper):
        sys.stdout = _Output(
            plain.buffer, encoding=plain.encoding, errors=plain.errors, line_buffering=plain.line_buffering
        )
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except (StandardOutputError, BrokenPipeError) as error:
        # what is left in the buffers is discarded
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, StandardOutputError):
            sys.stderr.write(f"{command}: {error}\n")
            sys.exit(3)
        sys.exit(1)


@contextmanager
def _distinguish_errors() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StandardOutputError(f"standard output cannot be written: {error.strerror or error}") from error
