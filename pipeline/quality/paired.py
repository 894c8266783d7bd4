"""Two runs on the same records: which is right more often."""

from math import exp, fsum, lgamma, log


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """The two-sided p-value of McNemar's exact test; 1 where both are right on the same records.

    `only_first` is how many records only the first has right, `only_second` only the second: under the null hypothesis
    each of these is a toss of a fair coin. McNemar (1947); the exact form is the binomial test.
    """
    n, k = only_first + only_second, min(only_first, only_second)
    if n == 0 or only_first == only_second:
        return 1.0
    constant = lgamma(n + 1) - n * log(2)
    tail = fsum(exp(constant - lgamma(i + 1) - lgamma(n - i + 1)) for i in range(k + 1))
    return min(1.0, 2 * tail)
