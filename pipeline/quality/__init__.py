"""How good labels are: arithmetic only. Streaming counters, so that a million rows take seconds and flat memory."""

from pipeline.quality.agreement import Coincidences, cohen_kappa
from pipeline.quality.bounds import Estimate, most_wrong, weighted_mean, wrong_within
from pipeline.quality.calibration import Calibration
from pipeline.quality.certify import Design, design_of, draw_size, error_bound, first_to_check
from pipeline.quality.draws import Part, drawn, least, per_class, picked, sample, uniform
from pipeline.quality.intervals import wilson
from pipeline.quality.paired import mcnemar_exact
from pipeline.quality.precision import answers_to_come, drawn_share
from pipeline.quality.scores import (
    ClassScore,
    NumberTally,
    SetTally,
    TextTally,
    class_scores,
    macro_f1,
    normalised,
    spearman,
    weighted_f1,
)
from pipeline.quality.sequential import evidence_below, is_clearly_below
from pipeline.quality.shares import Answered, class_shares, pseudo_outcome
from pipeline.quality.shift import shift_of
