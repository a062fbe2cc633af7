"""Workers fork from their engine instead of importing vLLM again, in processes that import this."""

from __future__ import annotations

import gc
import multiprocessing

from vllm.v1.executor import multiproc_executor

multiproc_executor.get_mp_context = lambda: multiprocessing.get_context("fork")

# of what is imported nothing becomes garbage, see `engine.work`
gc.freeze()
