"""Methods to compare with: selections and poolings that ignore the content, and published compressors.

DynVid is absent: its description lacks the threshold of its segments, its novelty and asymmetry terms and the weights
of its soft merge, and its code has no licence. MMG-Vid is absent: no formula of it is published.
TempMe is absent: it is trained.
"""

from compress.baselines.average_pooling import AveragePooling
from compress.baselines.d2pruner import D2Pruner
from compress.baselines.divprune import DivPrune
from compress.baselines.dycoke import DyCoke
from compress.baselines.dycoke_decoding import DyCokeDecoding
from compress.baselines.earlytom import EarlyTom
from compress.baselines.evs import EVS
from compress.baselines.fastv import FastV
from compress.baselines.fastvid import FastVID
from compress.baselines.fewer_frames import FewerFrames
from compress.baselines.flashvid import FlashVID, FlashVIDInner
from compress.baselines.holitom import HoliTom
from compress.baselines.holitom_inner import HoliTomInner
from compress.baselines.position_prior import PositionPrior
from compress.baselines.prunevid import PruneVid
from compress.baselines.prunevid_inner import PruneVidInner
from compress.baselines.pyramiddrop import PyramidDrop
from compress.baselines.random_tokens import RandomTokens
from compress.baselines.replay import replay
from compress.baselines.smaller_frames import SmallerFrames
from compress.baselines.sttm import STTM, STTMInner
from compress.baselines.tome import ToMe
from compress.baselines.tome_video import ToMeVideo, ToMeVideoInner
from compress.baselines.unified_sttc import UnifiedSTTC
from compress.baselines.unified_sttc_inner import UnifiedSTTCInner
from compress.baselines.uniform_stride import UniformStride
from compress.baselines.vidcom2 import VidCom2
from compress.baselines.visionzip import VisionZip

__all__ = [
    "EVS",
    "STTM",
    "AveragePooling",
    "D2Pruner",
    "DivPrune",
    "DyCoke",
    "DyCokeDecoding",
    "EarlyTom",
    "FastV",
    "FastVID",
    "FewerFrames",
    "FlashVID",
    "FlashVIDInner",
    "HoliTom",
    "HoliTomInner",
    "PositionPrior",
    "PruneVid",
    "PruneVidInner",
    "PyramidDrop",
    "RandomTokens",
    "STTMInner",
    "SmallerFrames",
    "ToMe",
    "ToMeVideo",
    "ToMeVideoInner",
    "UnifiedSTTC",
    "UnifiedSTTCInner",
    "UniformStride",
    "VidCom2",
    "VisionZip",
    "replay",
]
