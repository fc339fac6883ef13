"""Kept responses: whose they are, how many, how large, how long."""

from __future__ import annotations

from typing import Any

import pytest

from frontend.responses.store import OBJECT_FACTOR, OVERHEAD_BYTES, Gone, Store, Stored

MIB = 2**20


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def stored(name: str, previous: str | None = None, text: str = "") -> Stored:
    """A response of one message to one message: resp_<name>, msg_<name> and in_<name>."""
    response = {"id": f"resp_{name}", "output": [{"id": f"msg_{name}", "text": text}]}
    return Stored(response, [{"id": f"in_{name}"}], previous)


def there(store: Store, *ids: str, owner: str = "a") -> list[str]:
    """Which of these responses are there; looking does not use them."""
    return [id for id in ids if id in store._owned.get(owner, {})]


def test_what_is_kept_can_be_read_and_gone_on_from() -> None:
    store = Store(10, MIB, 100)
    first, second = stored("1"), stored("2", "resp_1")
    store.add("a", first)
    store.add("a", second)
    assert store.get("a", "resp_1") == first
    assert store.chain("a", "resp_2") == [first, second]
    assert store.item("a", "msg_1") == {"id": "msg_1", "text": ""}
    assert store.item("a", "in_2") == {"id": "in_2"}


def test_nobody_sees_what_is_another_caller_s() -> None:
    store = Store(10, MIB, 100)
    store.add("a", stored("1"))
    store.add("b", stored("2", "resp_1"))
    asks: list[Any] = [store.get, store.chain, store.remove]
    for ask in asks:
        with pytest.raises(Gone, match="resp_1"):
            ask("b", "resp_1")
    with pytest.raises(Gone, match="msg_1"):
        store.item("b", "msg_1")
    with pytest.raises(Gone, match="resp_1"):
        store.chain("b", "resp_2")
    assert store.get("a", "resp_1").id == "resp_1"


def test_the_one_used_longest_ago_goes_when_there_are_too_many() -> None:
    store = Store(2, MIB, 100)
    store.add("a", stored("1"))
    store.add("a", stored("2"))
    store.add("b", stored("3"))
    store.get("a", "resp_1")
    store.add("a", stored("4"))
    assert there(store, "resp_1", "resp_2", "resp_4") == ["resp_1", "resp_4"]
    assert there(store, "resp_3", owner="b") == ["resp_3"]
    with pytest.raises(Gone):
        store.item("a", "msg_2")


def test_of_a_chain_the_oldest_goes_first() -> None:
    store = Store(3, MIB, 100)
    for name, previous in (("1", None), ("2", "resp_1"), ("3", "resp_2")):
        store.add("a", stored(name, previous))
    store.chain("a", "resp_3")
    store.add("a", stored("4"))
    assert there(store, "resp_1", "resp_2", "resp_3", "resp_4") == ["resp_2", "resp_3", "resp_4"]
    with pytest.raises(Gone, match="resp_1"):
        store.chain("a", "resp_3")


def test_a_caller_with_much_does_not_push_out_others() -> None:
    text = "x" * 1000
    each = OBJECT_FACTOR * 1100 + OVERHEAD_BYTES
    store = Store(100, 4 * each, 100)
    store.add("small", stored("0", text=text))
    for name in range(1, 10):
        store.add("large", stored(str(name), text=text))
    assert there(store, "resp_0", owner="small") == ["resp_0"]
    large = there(store, *(f"resp_{name}" for name in range(1, 10)), owner="large")
    assert large == ["resp_7", "resp_8", "resp_9"]
    assert 3 * each < store.size <= 4 * each


def test_one_that_is_larger_than_all_room_is_not_kept() -> None:
    store = Store(10, OVERHEAD_BYTES + 1000, 100)
    store.add("a", stored("1", text="x" * 2000))
    assert there(store, "resp_1") == []
    assert store.size == 0


def test_it_is_forgotten_when_it_has_not_been_used_for_long() -> None:
    clock = Clock()
    store = Store(10, MIB, 100, clock)
    store.add("a", stored("1"))
    store.add("a", stored("2", "resp_1"))
    clock.now = 60
    store.get("a", "resp_2")
    clock.now = 101
    with pytest.raises(Gone):
        store.get("a", "resp_1")
    with pytest.raises(Gone, match="resp_1"):
        store.chain("a", "resp_2")
    clock.now = 202
    store.add("b", stored("3"))
    assert there(store, "resp_1", "resp_2") == []


def test_to_go_on_from_one_uses_all_before_it() -> None:
    clock = Clock()
    store = Store(10, MIB, 100, clock)
    store.add("a", stored("1"))
    store.add("a", stored("2", "resp_1"))
    for clock.now in (60, 120, 180):
        assert [each.id for each in store.chain("a", "resp_2")] == ["resp_1", "resp_2"]


def test_an_item_of_several_responses_is_there_as_long_as_one_is() -> None:
    store = Store(10, MIB, 100)
    store.add("a", stored("1"))
    store.add("a", Stored({"id": "resp_2", "output": []}, [{"id": "msg_1", "text": "again"}], None))
    store.remove("a", "resp_2")
    assert store.item("a", "msg_1") == {"id": "msg_1", "text": ""}
    store.remove("a", "resp_1")
    with pytest.raises(Gone):
        store.item("a", "msg_1")
    assert (store.size, store._items, store._owned) == (0, {}, {})
