"""The cap holds whatever the answers are, and what it allows is used."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.limits.budget import AHEAD_SHARE, Budget, BudgetReachedError, Reservation, Spend, prompt_bound
from pipeline.limits.price import Price
from pipeline.limits.remaining import describe_remaining, estimate_remaining
from pipeline.records import Usage

PRICE = Price(0.15, 0.6, 0.075, origin="config")
DOLLAR = Price(1.0, 1.0, 1.0, origin="config")  # a million tokens, a dollar

tokens = st.integers(0, 5000)
prices = st.builds(
    lambda fresh, output, off: Price(fresh, output, fresh * off, origin="config"),
    st.floats(0, 100),
    st.floats(0, 100),
    st.floats(0, 1),
)
#: what a call may be at most, what it uses of that, what of the prompt is cached, and how it ends
calls = st.tuples(
    tokens, tokens, st.floats(0, 1), st.floats(0, 1), st.sampled_from(["settle", "settle", "release", "lose", "close"])
)


def budget(*, usd: float | None = None, tokens: int | None = None, price: Price | None = DOLLAR) -> Budget:
    return Budget(usd=usd, tokens=tokens, price=price)


def reserved(budget: Budget, prompt: int, output: int) -> Reservation:
    reservation = budget.reserve(prompt, output)
    assert reservation is not None
    return reservation


@given(
    price=prices,
    usd=st.none() | st.floats(0, 0.05),
    cap=st.none() | st.integers(0, 50_000),
    calls=st.lists(calls, max_size=60),
    at_once=st.integers(1, 12),
)
def test_the_cap_is_never_passed(
    price: Price, usd: float | None, cap: int | None, calls: list[tuple[int, int, float, float, str]], at_once: int
) -> None:
    budget = Budget(usd=usd, tokens=cap, price=price)
    flight: list[tuple[Reservation, tuple[int, int, float, float, str]]] = []

    def land() -> None:
        reservation, (prompt, output, used, cached, how) = flight.pop(0)
        if how == "settle":
            spent = int(prompt * used)
            reservation.settle(Usage(spent, int(output * used), cached=int(spent * cached)))
        else:
            getattr(reservation, how)()

    for call in calls:
        try:
            reservation = budget.reserve(call[0], call[1])
        except BudgetReachedError:
            continue
        if reservation is None:
            assert flight, "nothing in flight, and it was to wait for something"
            land()
            continue
        flight.append((reservation, call))
        _check(budget, usd, cap)
        if len(flight) >= at_once:
            land()
            _check(budget, usd, cap)
    while flight:
        land()
        _check(budget, usd, cap)
    assert budget.counted == budget.spent


def _check(budget: Budget, usd: float | None, cap: int | None) -> None:
    counted = budget.counted
    assert usd is None or (counted.usd is not None and counted.usd <= usd)
    assert cap is None or (counted.tokens is not None and counted.tokens <= cap)


@dataclass
class Night:
    """A run of one call after another with up to `at_once` in flight, until the budget is reached."""

    budget: Budget
    at_once: int
    most: tuple[int, int]
    use: Callable[[random.Random], Usage]

    def run(self, seed: int) -> BudgetReachedError:
        rng = random.Random(seed)
        flight: list[Reservation] = []
        while True:
            try:
                reservation = self.budget.reserve(*self.most) if len(flight) < self.at_once else None
            except BudgetReachedError as reached:
                for left in flight:
                    left.settle(self.use(rng))
                return reached
            if reservation is not None:
                flight.append(reservation)
            else:
                flight.pop(rng.randrange(len(flight))).settle(self.use(rng))


@settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_any_run_uses_at_least_95_percent_and_never_more(seed: int) -> None:
    """The worst case is ten times what a call really uses; 64 of them at once are a third of the cap."""
    budget = Budget(usd=1.0, tokens=None, price=PRICE)
    night = Night(budget, 64, (4000, 8000), lambda rng: Usage(rng.randint(200, 700), rng.randint(5, 900)))

    reached = night.run(seed)

    assert budget.spent.usd is not None
    assert 0.95 <= budget.spent.usd <= 1.0
    assert reached.key == "limits.budget_usd"


@settings(max_examples=10)
@given(st.integers(0, 2**32))
def test_a_server_that_bills_more_than_expected_does_not_pass_the_cap(seed: int) -> None:
    """Each call uses up to twice what was reserved: learned from the first, for those in flight as well."""
    budget = Budget(usd=None, tokens=1_000_000, price=None)
    night = Night(budget, 32, (1000, 100), lambda rng: Usage(rng.randint(1500, 2000), rng.randint(50, 150)))

    night.run(seed)

    assert budget.spent.tokens is not None
    assert 950_000 <= budget.spent.tokens <= 1_000_000


def test_what_a_call_used_beyond_its_reservation_is_counted_as_it_is() -> None:
    capped = budget(tokens=10_000)
    reserved(capped, 100, 100).settle(Usage(400, 100))

    assert capped.spent.tokens == 500
    reserved(capped, 100, 100)
    # Four times as much of the prompt from now on, and a tenth of that.
    assert capped.counted.tokens in (500 + 440 + 100, 500 + 441 + 100)


def test_what_is_in_flight_already_is_reserved_anew() -> None:
    capped = budget(tokens=2_000)
    first, _second = reserved(capped, 500, 0), reserved(capped, 500, 0)
    first.settle(Usage(1000, 0))

    assert capped.counted.tokens == 1000 + 1100
    assert capped.left().tokens == 0


def test_it_waits_for_what_is_in_flight_and_no_longer() -> None:
    capped = budget(tokens=1000)
    first = reserved(capped, 600, 0)

    assert capped.reserve(600, 0) is None
    first.settle(Usage(300, 0))
    second = reserved(capped, 600, 0)
    second.settle(Usage(300, 0))
    with pytest.raises(BudgetReachedError) as caught:
        capped.reserve(600, 0)
    assert (caught.value.cap, caught.value.spent, caught.value.needed) == (1000, 600, 600)
    assert str(caught.value) == (
        "limits.budget_tokens = 1000: 600 tokens are used, and one more call could use up to 600"
    )


def test_a_call_larger_than_the_budget_is_refused_with_others_in_flight_too() -> None:
    capped = budget(tokens=1000)
    reserved(capped, 10, 0)

    with pytest.raises(BudgetReachedError):
        capped.reserve(1001, 0)


def test_money_is_counted_as_the_price_says() -> None:
    capped = budget(usd=1.0, price=PRICE)
    usage = Usage(1000, 200, cached=400, reasoning=100)
    reserved(capped, 2000, 500).settle(usage)

    assert capped.spent.usd == pytest.approx(PRICE.cost_usd(usage), rel=1e-12)
    assert capped.left().usd == pytest.approx(1.0 - PRICE.cost_usd(usage), rel=1e-12)


def test_a_prompt_that_is_written_to_the_cache_is_reserved_and_counted_at_its_price() -> None:
    price = Price(2.0, 8.0, 0.2, origin="config", cache_write=2.5)
    capped = budget(usd=1.0, price=price)
    reservation = reserved(capped, 1000, 0)
    assert capped.counted.usd == pytest.approx(1000 * 2.5 / 1e6)
    usage = Usage(1000, 0, cached=100, cache_write=700)
    reservation.settle(usage)
    assert capped.spent.usd == pytest.approx(price.cost_usd(usage), rel=1e-12)
    assert capped.spent.usd == pytest.approx((200 * 2.0 + 100 * 0.2 + 700 * 2.5) / 1e6, rel=1e-12)


def test_no_discount_is_reserved_and_a_dearer_cache_is() -> None:
    for cached in (0.0, 3.0):
        capped = budget(usd=1.0, price=Price(2.0, 0.0, cached, origin="config"))
        reserved(capped, 1000, 0)
        assert capped.counted.usd == max(2.0, cached) / 1000


def test_a_lost_call_stays_counted_and_a_refused_one_does_not() -> None:
    capped = budget(usd=1.0)
    reserved(capped, 1000, 1000).lose()
    reserved(capped, 1000, 1000).release()

    assert capped.maybe_usd == capped.spent.usd == 0.002
    with pytest.raises(BudgetReachedError, match=r"\$0.002 is spent, \$0.002 of it perhaps only \(no answer came\)"):
        capped.reserve(999_000, 0)


def test_after_a_resume_what_was_perhaps_billed_is_still_told_apart() -> None:
    capped = Budget(usd=0.0021, tokens=4000, price=PRICE, spent_usd=0.002, spent_tokens=1000, maybe=Spend(0.0015, 400))
    with pytest.raises(BudgetReachedError, match=r"\$0.002 is spent, \$0.0015 of it perhaps only \(no answer came\)"):
        capped.reserve(1000, 0)
    capped.set_caps(usd=None, tokens=1000)
    with pytest.raises(BudgetReachedError, match=r"1,000 tokens are used, 400 of them perhaps only \(no answer came\)"):
        capped.reserve(1, 0)


@pytest.mark.parametrize(("cap", "shown"), [(1e-05, "0.00001"), (50.0, "50"), (0.005, "0.005"), (1234567.0, "1234567")])
def test_a_cap_is_told_as_a_person_writes_it(cap: float, shown: str) -> None:
    with pytest.raises(BudgetReachedError, match=f"limits.budget_usd = {re.escape(shown)}: "):
        budget(usd=cap, price=PRICE).reserve(10**13, 0)


def test_an_answer_that_tells_no_usage_is_counted_as_lost() -> None:
    capped = budget(tokens=1000)
    reserved(capped, 100, 50).settle(Usage())

    assert capped.spent.tokens == 150


def test_a_reservation_ends_once_and_close_may_follow() -> None:
    capped = budget(tokens=1000)
    settled, open_ended = reserved(capped, 100, 0), reserved(capped, 100, 0)
    settled.settle(Usage(40, 0))
    settled.close()
    open_ended.close()

    assert capped.spent.tokens == 140
    for again in (settled.release, settled.lose, lambda: settled.settle(Usage(1, 1))):
        with pytest.raises(RuntimeError, match="has ended"):
            again()


def test_earlier_sessions_count() -> None:
    later = Budget(usd=1.0, tokens=1000, price=DOLLAR, spent_usd=0.5, spent_tokens=900)

    assert later.spent == Spend(0.5, 900)
    with pytest.raises(BudgetReachedError, match="budget_tokens"):
        later.reserve(101, 0)


def test_other_caps_are_taken_over() -> None:
    capped = budget(tokens=100)
    with pytest.raises(BudgetReachedError):
        capped.reserve(101, 0)
    capped.set_caps(usd=None, tokens=200)
    reserved(capped, 101, 0).settle(Usage(101, 0))
    capped.set_caps(usd=None, tokens=50)

    assert capped.left() == Spend(None, 0)
    with pytest.raises(BudgetReachedError):
        capped.reserve(1, 0)


def test_money_without_a_price_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"limits\.budget_usd = 5, .*set model\.price"):
        budget(usd=5, price=None)
    unpriced = budget(tokens=10, price=None)
    with pytest.raises(ConfigError):
        unpriced.set_caps(usd=1.0, tokens=None)
    assert unpriced.spent == Spend(None, 0)


def test_no_cap_lets_everything_through() -> None:
    free = budget()

    reserved(free, 10**9, 10**9)
    assert free.left() == Spend(None, None)
    assert free.bound_to_save() is None


@given(calls=st.lists(st.tuples(st.integers(1, 300), st.booleans()), min_size=1, max_size=60), usd=st.booleans())
def test_what_is_written_down_is_never_less_than_what_is_counted(calls: list[tuple[int, bool]], usd: bool) -> None:
    """The story: each mark is in the ledger before its call leaves; then the process is killed, at any moment."""
    capped = budget(usd=0.002) if usd else budget(tokens=2000)
    written = 0.0
    for most, answered in calls:
        try:
            reservation = capped.reserve(most, 0)
        except BudgetReachedError:
            break
        if mark := capped.bound_to_save():
            written = (mark.usd if usd else mark.tokens) or 0.0
        if reservation is not None and answered:
            reservation.settle(Usage(most // 2, 0))
        assert written >= ((capped.counted.usd if usd else capped.counted.tokens) or 0.0)
        assert written <= (0.002 if usd else 2000)


def test_what_is_written_down_is_ahead_so_that_it_is_written_rarely() -> None:
    capped, marks = budget(tokens=1_000_000), 0
    for _ in range(5000):
        reservation = reserved(capped, 100, 0)
        marks += capped.bound_to_save() is not None
        reservation.settle(Usage(100, 0))

    assert marks == pytest.approx(0.5 / AHEAD_SHARE, rel=0.05)


def test_a_prompt_has_fewer_tokens_than_its_request_has_bytes() -> None:
    assert prompt_bound(0) >= 400
    assert prompt_bound(1000) - prompt_bound(0) == 1000


@pytest.mark.parametrize(
    ("left", "spent", "done", "text"),
    [
        (
            6000,
            Spend(2.0, None),
            3000,
            "6,000 records are left; at what 3,000 cost so far they need about $4.00 more, the whole run $6.00",
        ),
        (
            1,
            Spend(None, 900),
            3,
            "1 record is left; at what 3 cost so far they need about 300 tokens more, the whole run 1,200 tokens",
        ),
        (
            None,
            Spend(0.5, 900),
            100,
            "how many records are left is not known; a thousand cost about $5.00 and 9,000 tokens",
        ),
        (7, Spend(0.0, 0), 0, "7 records are left; what they would cost is not known, since none is done"),
        (0, Spend(1.0, 10), 10, "no record is left"),
    ],
)
def test_what_is_left_to_do(left: int | None, spent: Spend, done: int, text: str) -> None:
    assert describe_remaining(left, spent, done) == text


def test_what_is_left_as_numbers() -> None:
    left = estimate_remaining(6000, Spend(2.0, 900), 3000, exact=False)
    assert (left.records, left.exact, left.more) == (6000, False, Spend(4.0, 1800))
    assert left.text.startswith("about 6,000 records are left; at what 3,000 cost so far")
    assert estimate_remaining(6000, Spend(None, 900), 3000).more == Spend(None, 1800)
    assert estimate_remaining(None, Spend(2.0, 900), 3000, exact=False).more is None
    assert estimate_remaining(10, Spend(0.0, 0), 0).more is None
    assert estimate_remaining(0, Spend(2.0, 900), 3000, exact=False).text == "no record is left"
