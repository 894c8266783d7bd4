"""How good labels are: arithmetic only."""

from __future__ import annotations

from pipeline.quality.bounds import (
    Estimate,
    betting_upper,
    clopper_pearson,
    most_wrong,
    weighted_mean,
    wrong_within,
)
from pipeline.quality.certify import (
    Design,
    accepted,
    accepted_weighted,
    design_of,
    draw_size,
    error_bound,
)
from pipeline.quality.sequential import evidence_below, is_clearly_below
from pipeline.quality.shares import Answered, Share, class_shares, pseudo_outcome, union_probability

__all__ = [
    "Answered",
    "Design",
    "Estimate",
    "Share",
    "accepted",
    "accepted_weighted",
    "betting_upper",
    "class_shares",
    "clopper_pearson",
    "design_of",
    "draw_size",
    "error_bound",
    "evidence_below",
    "is_clearly_below",
    "most_wrong",
    "pseudo_outcome",
    "union_probability",
    "weighted_mean",
    "wrong_within",
]
