"""Strings on which tokenisers are compared: written ones, and mixtures drawn from a fixed seed."""

from __future__ import annotations

import random
import unicodedata

SPECIALS = ["<|begin_of_text|>", "<|end_of_text|>", "<|user|>", "<|assistant|>", "<think>", "</think>"]

WRITTEN = [
    "",
    " ",
    "  ",
    "   \n\n  \t\t\r\n x",
    "\n",
    "\r\n\r\n",
    "a\u00a0b\u3000c\u2028d\u0085e\u200bf",
    "您好，请问我的订单什么时候发货？退货地址在哪里。",
    "价格是￥1,299.00（含税），比上月低 15%！",
    "新员工入职的第一天：先到前台领取工牌——然后联系HR。",
    "我想在apple工作1314151天～",
    "“引号”和‘单引号’，省略号……破折号——",
    "한국어와 ひらがな、カタカナ、ㄅㄆㄇ混ぜて",
    "The quick brown fox doesn't jump over I'LL, we'VE, they'd, it's O'Neill's.",
    "camelCaseName HTTPServerError XMLHttpRequest iPhone15ProMax snake_case_name CONSTANT_NAME",
    "3 33 333 3333 33333 3.14159 1e-6 0xFF 1,000,000 ½ Ⅷ ² ٣",
    "def is_prime(n: int) -> bool:\n    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))\n",
    "@functools.wraps(f)\ndef timed(*args, **kwargs):\n\tstart = time.perf_counter()\n",
    "SELECT * FROM orders WHERE id = 'A-17' AND price >= 9.99; -- comment",
    "<div class=\"a\">{{ x|safe }}</div><!-- ok -->\n```python\nprint('hi')\n```",
    "https://example.com/a/b?c=d&e=%20#f //path/to\\file",
    "🙂🙃 👨‍👩‍👧‍👦 🏳️‍🌈 ✈️ 👍🏽 🇨🇳🇬🇧 1️⃣",
    "e\u0301 n\u0303 Å ﬁ ß ǅ ª क्षि ไทย العربية עברית Ελληνικά Русский",
    "=== ---- ~~~~ !!!! ???? ........ ('''```\"\"\")",
    "<|user|>你好<|assistant|><think>\nhm\n</think>Hello!<|end_of_text|>",
    "<|user|> <|user|>\n<|us er|> <|user|<|user|>> < think > <think",
    "x" * 300,
    " " * 300,
    "好" * 300,
]  # fmt: skip

_PIECES = [
    *("Hello", " world", "camelCase", "HTTPServer", "don't", "I'LL", "it’s", " the", " of", "_name", "self."),
    *("def f(x):", "    return", "=", "==", "->", "/", "//", "\\", "()", "{}", "$", "€"),
    *("~", "`", "“", "'", '"', "ㄅㄆ"),
    *("你好", "，世界。", "订单", "什么时候", "！", "…", "——", "「", "」", "한국어", "ひらがな", "カタカナ"),
    *("ñandú", "Ünï", "Жизнь", "ß", "क्षि", "ไทย", "e\u0301", "3", "3141", " 12", "½", "²", "٣"),
    *("\n", "\n\n", "\r\n", "\t", " ", "  ", "     ", "\u00a0", "\u3000", "\u0085", "\u2028", "\u200b"),
    *("🙂", "👨‍👩‍👧‍👦", "🏳️‍🌈", "✈️", "👍🏽"),
    *SPECIALS,
]  # fmt: skip


def texts(count: int, seed: int = 20261124) -> list[str]:
    """`count` strings: the written ones first, then mixtures of pieces and of any assigned characters."""
    draw = random.Random(seed)
    anything = [
        chr(c) for c in range(0x20, 0x30000) if unicodedata.category(chr(c)) not in ("Cs", "Cn", "Co")
    ]
    found = list(WRITTEN)
    while len(found) < count:
        share = draw.choice((0.0, 0.0, 0.3, 1.0))  # of arbitrary characters; half the strings have none
        parts = [
            draw.choice(anything if draw.random() < share else _PIECES) for _ in range(draw.randint(1, 12))
        ]
        found.append("".join(parts))
    return found
