"""Counters of videos: read back from a page of metrics."""

from __future__ import annotations

import pytest

from compress.serving.vllm.metrics import VideoCounters, read_tokens

PAGE = """# HELP compress:video_tokens_total Visual tokens of videos of requests.
# TYPE compress:video_tokens_total counter
compress:video_tokens_total{model="m",state="encoded"} 1200.0
compress:video_tokens_total{state="kept"} 1.2e+02
compress:video_tokens_created{state="kept"} 1.7e+09
vllm:prompt_tokens_total{model_name="m"} 99.0
"""


def test_tokens_are_read_off_a_page() -> None:
    assert read_tokens(PAGE) == {"encoded": 1200, "kept": 120}
    assert read_tokens("vllm:prompt_tokens_total 3.0\n") == {"encoded": 0, "kept": 0}


def test_videos_are_counted_also_when_their_tokens_are_in_a_cache() -> None:
    prometheus = pytest.importorskip("prometheus_client", reason="comes with vLLM: scripts/test-serving")

    def read() -> dict[str, float]:
        return read_tokens(prometheus.generate_latest().decode())

    counters = VideoCounters()
    before = read()
    counters.count("a", kept=10, encoded=100)
    counters.count("a", kept=10, encoded=None)
    counters.count("never seen", kept=10, encoded=None)
    # a second one of the process counts into the same metric
    VideoCounters().count("b", kept=5, encoded=50)
    after = read()
    assert {state: after[state] - before[state] for state in after} == {"encoded": 250, "kept": 25}
