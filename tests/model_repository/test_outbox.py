"""The stream interval: which piece leaves at once, which one waits, and for how long."""

from __future__ import annotations

import threading
import time

from outbox import Outbox, Paced

INTERVAL_S = 0.2
AT_ONCE_S = 0.05


def seconds_to(outbox: Outbox[Paced], stream: Paced) -> float:
    """How long `take` waits until it gives `stream`."""
    begun = time.monotonic()
    assert outbox.take() is stream
    return time.monotonic() - begun


def test_the_first_piece_never_waits_and_the_second_waits_for_one_interval_at_most() -> None:
    """No further token comes: the piece leaves all the same."""
    outbox, stream = Outbox[Paced](INTERVAL_S), Paced()
    outbox.post(stream, last=False)
    assert seconds_to(outbox, stream) < AT_ONCE_S
    outbox.post(stream, last=False)
    assert INTERVAL_S - 0.01 < seconds_to(outbox, stream) < INTERVAL_S + AT_ONCE_S


def test_a_piece_leaves_with_the_first_token_after_the_interval() -> None:
    outbox, stream = Outbox[Paced](INTERVAL_S), Paced()
    outbox.post(stream, last=False)
    outbox.take()
    time.sleep(INTERVAL_S / 2)
    outbox.post(stream, last=False)  # would wait until 1.5 intervals
    time.sleep(INTERVAL_S * 0.6)
    outbox.post(stream, last=False)  # comes at 1.1
    assert seconds_to(outbox, stream) < AT_ONCE_S
    outbox.post(stream, last=False)
    assert seconds_to(outbox, stream) > INTERVAL_S - 0.01, "the time of what has been sent counted again"


def test_the_last_piece_does_not_wait() -> None:
    outbox, stream = Outbox[Paced](INTERVAL_S), Paced()
    outbox.post(stream, last=False)
    outbox.take()
    outbox.post(stream, last=False)
    outbox.post(stream, last=True)
    assert seconds_to(outbox, stream) < AT_ONCE_S


def test_streams_do_not_wait_for_one_another() -> None:
    outbox, first, second = Outbox[Paced](INTERVAL_S), Paced(), Paced()
    outbox.post(first, last=False)
    outbox.take()
    outbox.post(first, last=False)
    outbox.post(second, last=False)
    assert seconds_to(outbox, second) < AT_ONCE_S
    assert seconds_to(outbox, first) > INTERVAL_S / 2


def test_one_who_waits_without_a_limit_hears_of_a_piece_that_is_held_back() -> None:
    outbox, stream = Outbox[Paced](INTERVAL_S), Paced()
    outbox.post(stream, last=False)
    outbox.take()
    later = threading.Timer(INTERVAL_S / 4, outbox.post, [stream], {"last": False})
    later.start()
    assert INTERVAL_S < seconds_to(outbox, stream) < 1.25 * INTERVAL_S + AT_ONCE_S


def test_without_an_interval_every_piece_leaves_at_once() -> None:
    outbox, stream = Outbox[Paced](0.0), Paced()
    for _ in range(100):
        outbox.post(stream, last=False)
        assert seconds_to(outbox, stream) < AT_ONCE_S


def test_what_is_to_go_out_at_once_is_taken_before_the_end() -> None:
    outbox, stream = Outbox[Paced](INTERVAL_S), Paced()
    outbox.post(stream, last=True)
    outbox.close()
    assert outbox.take() is stream
    assert outbox.take() is None
