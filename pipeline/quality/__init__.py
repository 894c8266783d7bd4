"""The statistics of label quality, without I/O. Counters work on streams: a million rows take seconds, flat memory."""

from pipeline.quality.agreement import Coincidences, cohen_kappa
from pipeline.quality.bounds import hypergeometric_cdf, max_wrong
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
from pipeline.quality.hypothesis_tests import evidence_below, is_clearly_below, mcnemar_exact, shift_of
from pipeline.quality.intervals import Estimate, answers_needed, estimate_share, weighted_mean, wilson
from pipeline.quality.scores import (
    ClassScore,
    NumberTally,
    SetTally,
    TextTally,
    class_scores,
    macro_f1,
    normalize_text,
    spearman,
    weighted_f1,
)
from pipeline.quality.shares import AnsweredRecord, class_shares, pseudo_outcome
