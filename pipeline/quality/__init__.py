"""How good labels are: arithmetic only. Streaming counters, so that a million rows take seconds and flat memory."""

from pipeline.quality.agreement import Coincidences, cohen_kappa
from pipeline.quality.bounds import Estimate, hypergeometric_cdf, max_wrong, weighted_mean
from pipeline.quality.calibration import Calibration
from pipeline.quality.certify import Design, draw_size, error_bound, first_to_check, make_design
from pipeline.quality.draws import (
    DrawPart,
    certain_part,
    draw_records,
    lowest_scores,
    random_part,
    stratified_part,
    uniform,
)
from pipeline.quality.intervals import wilson
from pipeline.quality.paired import mcnemar_exact
from pipeline.quality.precision import answers_needed, estimate_share
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
from pipeline.quality.shares import AnsweredRecord, class_shares, pseudo_outcome
from pipeline.quality.shift import shift_of
