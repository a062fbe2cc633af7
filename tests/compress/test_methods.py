"""The registry tells the truth about its classes; pipelines have the stages of their methods."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from compress.compressor import Pipeline
from compress.errors import ConfigError
from compress.infomerge import InfoMerge
from compress.methods import METHODS, STAGES, Method, build, find, retained_fraction
from compress.metom import BTM, MATM, RPM, MeToM
from compress.stage import BeforeEncoder, BeforeLLM, InsideLLM, PlansFrames, Signals


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_entries_agree_with_their_classes(method: Method) -> None:
    loaded = method.load()
    assert tuple(stage for stage in STAGES if hasattr(loaded, stage)) == method.stages
    assert loaded.__dataclass_params__.frozen
    with pytest.raises(TypeError):
        loaded(0.3)


def test_build_from_text() -> None:
    assert build("btm", retention=0.25, settings={"tau_tem": "0.8", "refill": "true"}) == BTM(
        retention=0.25, tau_tem=0.8, refill=True
    )
    assert build("metom", retention=0.5, settings={"layers": "3,4", "window": "2"}) == MeToM(
        retention=0.5, layers=(3, 4), window=2
    )
    assert build("infomerge", settings={"budget": "paper", "alpha": "0.5"}) == InfoMerge(budget="paper", alpha=0.5)
    assert build("rpm", retention=0.6) == RPM(target_keep=0.6)
    assert build("matm", retention=0.25).merge_percent == 75
    with pytest.raises(ConfigError, match="unknown method 'x'; choose from"):
        find("x")
    with pytest.raises(ConfigError, match="no field"):
        build("btm", settings={"tua": "1"})


def test_the_retained_fraction_of_a_method() -> None:
    for name, share in (("metom", 0.3), ("infomerge", 0.1), ("rpm", 0.87), ("matm", 0.5), ("flashvid-inner", 0.3)):
        assert retained_fraction(build(name)) == pytest.approx(share)
        assert retained_fraction(build(name, retention=0.25)) == pytest.approx(0.25)
    assert retained_fraction(RPM(tau=0.2)) == 1


def test_registry_alone_imports_no_torch() -> None:
    code = "import sys, compress.methods; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    code = "import sys, compress.metom; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 1


def test_metom_is_its_three_stages() -> None:
    method = MeToM(retention=0.4, tau=0.2, layers=(1, 2), tau_tem=0.7)
    assert isinstance(method, (PlansFrames, BeforeEncoder, BeforeLLM, InsideLLM))
    assert method.btm == BTM(retention=0.4, tau_tem=0.7)
    assert method.rpm == RPM(tau=0.2)
    assert method.merge_layer == 3
    rng = np.random.default_rng(0)
    tokens, signals = torch.randn(4, 9, 6), Signals(density=rng.random((4, 9)), packet_size=[1, 2, 3, 4])
    ours, alone = method.before_llm(tokens, signals), method.btm.before_llm(tokens, signals)
    assert torch.equal(ours.plan.keep, alone.plan.keep)
    density = rng.random((2, 5, 5))
    assert method.before_encoder(density).achieved == method.rpm.before_encoder(density).achieved
    with pytest.raises(ConfigError, match="tau_tem"):
        MeToM(tau_tem=2)


def test_metom_composes_stages_and_takes_their_fields() -> None:
    rpm, btm, matm = RPM(tau=0.2, max_region=9), BTM(retention=0.4, window=2), MATM(layers=(1, 2))
    composed = MeToM(rpm=rpm, btm=btm, matm=matm)
    assert (composed.rpm, composed.btm, composed.matm) == (rpm, btm, matm)
    assert composed == MeToM(tau=0.2, max_region=9, retention=0.4, window=2, layers=(1, 2))
    assert composed != MeToM(tau=0.2, retention=0.4, window=2, layers=(1, 2))
    assert MeToM(btm=btm, retention=0.1).btm == BTM(retention=0.1, window=2)
    assert replace(composed, retention=0.1) == MeToM(rpm=rpm, btm=replace(btm, retention=0.1), matm=matm)
    assert MeToM() == MeToM(rpm=RPM(), btm=BTM(), matm=MATM())
    assert (composed.retention, composed.max_region, composed.merge_percent) == (0.4, 9, 50)
    assert copy.copy(composed) == composed == pickle.loads(pickle.dumps(composed))
    assert hash(composed) == hash(MeToM(rpm=rpm, btm=btm, matm=matm))
    settings = {"max_region": "9", "tau": "0.2", "window": "2", "layers": "1,2"}
    assert build("metom", retention=0.4, settings=settings) == composed
    # one word stands for one field
    names = [field.name for stage in (rpm, btm, matm) for field in fields(stage)]
    assert len(set(names)) == len(names)


def test_metom_refuses_what_no_stage_has() -> None:
    with pytest.raises(TypeError, match="no field 'tua'; choose from tau, target_keep"):
        MeToM(tua=0.2)
    with pytest.raises(ConfigError, match=r"btm is RPM.*give BTM"):
        MeToM(btm=RPM())
    with pytest.raises(AttributeError, match="no attribute 'tua'"):
        _ = MeToM().tua


def test_pipeline_has_the_stages_of_its_methods() -> None:
    pipeline = Pipeline(RPM(), InfoMerge(retention=0.2), MATM(layers=(13, 14, 15)))
    assert isinstance(pipeline, BeforeEncoder)
    assert isinstance(pipeline, BeforeLLM)
    assert isinstance(pipeline, InsideLLM)
    assert not isinstance(pipeline, PlansFrames)
    assert not isinstance(Pipeline(InfoMerge()), InsideLLM)
    # How isinstance() asks from Python 3.12 on.
    assert inspect.getattr_static(pipeline, "before_llm") == pipeline.methods[1].before_llm
    assert inspect.getattr_static(Pipeline(InfoMerge()), "inside_llm", None) is None
    assert pipeline.retention == 0.2
    assert pipeline.merge_layer == inspect.getattr_static(pipeline, "merge_layer") == 16
    tokens = torch.randn(5, 9, 6)
    assert pipeline.before_llm(tokens, Signals()).achieved == 9
    assert repr(pipeline).startswith("Pipeline(methods=(RPM(")
    assert copy.copy(pipeline) == pipeline == pickle.loads(pickle.dumps(pipeline))
    assert hash(pipeline) == hash(Pipeline(RPM(), InfoMerge(retention=0.2), MATM(layers=(13, 14, 15))))


def test_bad_pipelines_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        Pipeline()
    with pytest.raises(ConfigError, match="is not a method"):
        Pipeline(3)
    with pytest.raises(ConfigError, match="BTM and InfoMerge both have the stage before_llm"):
        Pipeline(BTM(), InfoMerge())
