"""The words of a text that a search looks for: Chinese by jieba's dictionary, English by its stems."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any

_TOKEN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+|[^\W_]+", re.UNICODE)
_CHINESE = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")

ENGLISH = """
a an and are as at be been but by can could did do does for from had has have how i if in into is it its may
me my of on or our shall should so than that the their them then there these they this those to us was we were
what when where which who why will with would you your
"""
CHINESE = """
的 了 和 是 在 我 你 他 她 它 们 我们 你们 他们 这 那 这个 那个 有 就 也 都 而 及 与 或 被 把 对 于 为
吗 呢 吧 啊 么 什么 怎么 怎样 如何 多少 几 哪 哪些 哪个 谁 请问 一个 以 从 到 中 之 其 并 等 可以 能 会
的話 嗎 這 這個 們 我們 什麼 怎麼 個 與 為 對 於
"""
STOP_WORDS = frozenset(f"{ENGLISH} {CHINESE}".split())


@cache
def _stemmer() -> Any:
    import snowballstemmer

    return snowballstemmer.stemmer("english")


@cache
def _stem(word: str) -> str:
    stem: str = _stemmer().stemWord(word)
    return stem


def words(text: str) -> list[str]:
    """The words in order, without those that stand in every text."""
    import rjieba

    found: list[str] = []
    for token in _TOKEN.findall(unicodedata.normalize("NFKC", text).lower()):
        if not _CHINESE.match(token):
            if token not in STOP_WORDS:
                found.append(_stem(token) if token.isascii() and token.isalpha() else token)
            continue
        # Long words also by their parts, so that 差旅费 is found by 差旅.
        found += [word for word in rjieba.cut_for_search(token) if word not in STOP_WORDS]
    return found
