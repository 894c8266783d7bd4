"""Detects praise and blame in English and Korean, well enough for sample texts."""

import re
from collections.abc import Sequence
from typing import Any

_CLASSES = {
    1: "positive pos good favorable favourable 긍정 긍정적 호평 좋음",
    -1: "negative neg bad unfavorable unfavourable 부정 부정적 혹평 나쁨",
    0: "neutral neu mixed neither okay 중립 중립적 보통",
}
_SIGN = {word: sign for sign, words in _CLASSES.items() for word in words.split()}

_ENGLISH = {
    2: """love loved loves adore best excellent amazing perfect perfectly wonderful fantastic awesome brilliant superb
        outstanding delighted flawless incredible""",
    1: """good great nice happy pleased recommend recommended like liked enjoy enjoyed enjoyable helpful fast sturdy
        comfortable worth better easy reliable beautiful satisfied impressed glad delicious smooth friendly fun useful
        quality works thanks pleasant""",
    -1: """bad poor slow cheap flimsy late noisy uncomfortable overpriced expensive problem problems issue issues
        difficult annoying rude confusing unhappy dirty worse sadly mediocre boring weak leaks leaked scratched missing
        wrong cracked cold bland""",
    -2: """worst terrible awful horrible hate hated useless waste wasted garbage trash broken broke refund disappointed
        disappointing disappointment regret defective faulty scam junk disgusting unusable failed fails""",
}
_MILD = {"ok", "okay", "average", "fine", "decent", "acceptable", "so-so", "ordinary", "alright", "adequate"}
_NOT = {"not", "no", "never", "hardly", "barely", "cannot", "without", "nothing", "neither", "nor"}
_WORDS = {word: weight for weight, words in _ENGLISH.items() for word in words.split()}
_TOKEN = re.compile(r"so-so|[a-z]+(?:'[a-z]+)?|[.,;!?]")
#: How many words a "not" affects.
_REACH = 3

_KOREAN = {
    2: "사랑 최고 훌륭 완벽 감동 대만족 환상적 강추",
    1: """좋 만족 추천 예쁘 예뻐 예쁜 이쁘 빠르 빨라 빠른 편하 편해 편리 행복 맛있 튼튼 마음에 유용 친절 저렴 재구매
        감사 부드럽""",
    0: "그저 그냥 보통 무난 평범 괜찮 쏘쏘 나름",
    -1: "별로 아쉽 아쉬 나쁘 나빠 나쁜 불편 느리 느려 느린 싫 비싸 비추 맛없 불친절 시끄럽 약하 늦 안좋",
    -2: "아깝 아까 최악 실망 환불 고장 불만 불만족 후회 쓰레기 형편없 망가 짜증 사기 엉망 불량",
}
_STEMS = {stem: weight for weight, stems in _KOREAN.items() for stem in stems.split()}
#: Longest stem first, so that "불만족" is not read as "만족".
_STEM = re.compile("|".join(sorted(_STEMS, key=len, reverse=True)))
_KOREAN_NOT_AFTER = re.compile(r"\S{0,3}?지[는도가]? ?(?:않|못)")
_KOREAN_NOT_BEFORE = re.compile(r"(?:^|\s)(?:안|못) ?$")


def sentiment_values(values: Sequence[Any]) -> dict[int, Any] | None:
    """Return which of an enum's values mean praise (1), blame (-1), and neither (0); None for other enums."""
    by_sign: dict[int, Any] = {}
    for value in values:
        sign = _SIGN.get(value.strip().casefold()) if isinstance(value, str) else None
        if sign is not None:
            by_sign.setdefault(sign, value)
    return by_sign if 1 in by_sign and -1 in by_sign else None


def sentiment_sign(text: str) -> int:
    """Return 1 for praise, -1 for blame, 0 for neither or both."""
    score, mild = _english(text.lower().replace("’", "'"))
    more, milder = _korean(text)
    score += more
    mild += milder
    # An "okay" outweighs one mild word, but not a strong one.
    if abs(score) <= mild:
        return 0
    return (score > 0) - (score < 0)


def _english(text: str) -> tuple[int, int]:
    score = mild = reach = 0
    for word in _TOKEN.findall(text):
        if word in _NOT or word.endswith("n't"):
            reach = _REACH
            continue
        if word in ".,;!?" or word == "but":
            reach = 0
            continue
        weight = _WORDS.get(word, 0)
        # "not great" is mild blame, and "not the worst" mild praise: a "not" reverses a word and weakens it.
        score += weight if not reach else (weight < 0) - (weight > 0)
        mild += word in _MILD
        reach = max(0, reach - 1)
    return score, mild


def _korean(text: str) -> tuple[int, int]:
    score = mild = 0
    for match in _STEM.finditer(text):
        weight = _STEMS[match[0]]
        turned = _KOREAN_NOT_AFTER.match(text, match.end()) or _KOREAN_NOT_BEFORE.search(text[: match.start()])
        score += weight if not turned else (weight < 0) - (weight > 0)
        mild += weight == 0
    return score, mild
