"""Computes class shares, corrected by people's answers to a draw, and the outcome for regressions on labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum, sqrt
from statistics import NormalDist


@dataclass(frozen=True, slots=True)
class AnsweredRecord:
    """A record that was drawn with this probability: the model's class, and a person's."""

    label: str
    answer: str
    probability: float


@dataclass(frozen=True, slots=True)
class Share:
    """The share of a class among the labels, and the corrected share with its interval; all from 0 to 1.

    `n` is the number of answers behind the correction. Without any, `corrected`, `low`, and `high` are None.
    """

    raw: float
    corrected: float | None
    low: float | None
    high: float | None
    n: int


def class_shares(
    counts: Mapping[str, int], answered: Sequence[AnsweredRecord], confidence: float = 0.95
) -> dict[str, Share]:
    """Return the share of each class of the labels or answers, the most frequent label first.

    `counts` are the labels of the whole file, without any correction; `answered` are the drawn records that people
    answered without seeing the label. Each interval is for its class alone, not for all of them together.

    Prediction-powered inference: the share among the labels plus the weighted mean of 1{answer = c} - 1{label = c}.
    Angelopoulos et al. (2023), "Prediction-powered inference".
    """
    total = sum(counts.values())
    if not total:
        return {}
    classes = [*sorted(counts, key=lambda one: (-counts[one], one))]
    others = dict.fromkeys(one.answer for one in answered if one.answer not in counts)
    return {one: _share(one, counts.get(one, 0) / total, answered, confidence) for one in [*classes, *others]}


def _share(one: str, raw: float, answered: Sequence[AnsweredRecord], confidence: float) -> Share:
    if not answered:
        return Share(raw, None, None, None, 0)
    changes = [(each.answer == one) - (each.label == one) for each in answered]
    change, low, high = _mean_change(changes, [each.probability for each in answered], confidence)
    return Share(raw, _within(raw + change), _within(raw + low), _within(raw + high), len(answered))


def _within(share: float) -> float:
    return min(1.0, max(0.0, share))


def _mean_change(
    changes: Sequence[int], probabilities: Sequence[float], confidence: float
) -> tuple[float, float, float]:
    """Return the weighted mean of changes of -1, 0, or 1 over the file, and its interval.

    The normal interval fails if few or no changes were seen: its width would be 0. So, as in Bonett and Price (2012),
    "Adjusted Wald confidence interval for a difference of binomial proportions based on paired data", two answers are
    added for the interval, one change up and one down, with the mean weight. Records that were certain to be drawn have
    no uncertainty and narrow the interval.
    """
    m = len(changes)
    weights = [1 / probability for probability in probabilities]
    total = fsum(weights)
    mean = fsum(weight * change for weight, change in zip(weights, changes, strict=True)) / total
    unknown = fsum(1 - probability for probability in probabilities) / m
    # In units of the sum of weights: the two added answers have the mean weight each, and nothing cancels.
    spread = fsum(
        (1 - probability) * (weight * (change - mean)) ** 2
        for change, probability, weight in zip(changes, probabilities, weights, strict=True)
    ) + unknown * (total / m) ** 2 * ((1 - mean) ** 2 + (1 + mean) ** 2)
    half = NormalDist().inv_cdf((1 + confidence) / 2) * sqrt(spread) / (total * (m + 2) / m)
    middle = mean * (1 - unknown * 2 / (m + 2))
    return mean, min(mean, middle - half), max(mean, middle + half)


def pseudo_outcome(label: float, answer: float | None, probability: float) -> float:
    """Return the label of a record, or, if it was drawn and answered, label + (answer - label) / probability.

    Its mean is right whatever the errors of the labels depend on, so it can replace the true value on the left side of
    a regression. For a class: 1 if the label (the answer) is this class, otherwise 0. It may be far outside of 0 to 1.
    Design-based supervised learning: Egami, Hinck, Stewart and Wei (2023), "Using imperfect surrogates for downstream
    inference".
    """
    return label if answer is None else label + (answer - label) / probability
