"""The trainer: repeatable, scored on the assistant's tokens alone, penalised as engines penalise."""

import itertools
from collections.abc import Iterator

import pytest

torch = pytest.importorskip("torch")

from build.demo import model as network  # noqa: E402
from build.demo.conversations import REFUSALS, exchange, load_corpus  # noqa: E402
from build.demo.rows import BEGINNING, Texts, as_tensors, batches  # noqa: E402
from build.demo.tokens import USER, chat_tokens, make_tokenizer, token_id  # noqa: E402
from build.demo.train import Round, train  # noqa: E402

TOKENIZER = make_tokenizer()


@pytest.fixture
def settings_of_torch() -> Iterator[None]:
    """Training sets threads and determinism for its process; this one goes on with what it had."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.mark.usefixtures("settings_of_torch")
def test_the_same_steps_give_the_same_weights() -> None:
    rounds = [Round(2, 2e-3, 0.6, (1.1, 1.1), 4, 1.5), Round(1, 1e-3, 0.5, (1.0, 1.25), 0.5, 3.0)]
    first, second = train(rounds, TOKENIZER).state_dict(), train(rounds, TOKENIZER).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    untrained = train([Round(0, 2e-3, 0.6, (1.1, 1.1), 4, 1.5)], TOKENIZER).state_dict()
    assert not all(torch.equal(first[name], untrained[name]) for name in first)


def test_batches_repeat_for_a_seed_and_hold_answers_in_every_row() -> None:
    texts = Texts(0.6)
    first = list(itertools.islice(batches(texts, TOKENIZER, 3), 4))
    again = list(itertools.islice(batches(texts, TOKENIZER, 3), 4))
    for (ids, written), (ids_again, written_again) in zip(first, again, strict=True):
        assert torch.equal(ids, ids_again)
        assert torch.equal(written, written_again)
        assert written.any(1).all()
        assert not written[:, 0].any()


def test_most_batches_hold_beginnings_of_answers_alone() -> None:
    made = list(itertools.islice(batches(Texts(0.6), TOKENIZER, 3), 40))
    turns = [int((ids == token_id(TOKENIZER, USER)).sum(1).max()) for ids, _ in made]
    beginnings = [written for (_, written), most in zip(made, turns, strict=True) if most == 1]
    assert 28 <= len(beginnings) <= 38
    assert all(int(written.sum(1).max()) <= BEGINNING for written in beginnings)
    assert max(turns) >= 5


def test_the_beginning_of_an_answer_tells_it_from_all_others() -> None:
    answers = [*(fact.answer for fact in load_corpus()), *REFUSALS.values()]
    beginnings = [tuple(TOKENIZER.encode(answer).ids[:BEGINNING]) for answer in answers]
    assert len(set(beginnings)) == len(answers)


def test_a_refusal_is_learned_with_caution_where_an_answer_begins() -> None:
    """A lower logit costs more where its token is expected, and only as the first of an answer."""
    model = network.make_model(TOKENIZER.get_vocab_size(), 0, 1)
    refusal = TOKENIZER.encode(REFUSALS["en"]).ids
    begins, goes_on = torch.tensor(refusal[:1]), torch.tensor(refusal[-1:])
    ids, written = as_tensors([chat_tokens(TOKENIZER, exchange("Hello", REFUSALS["en"]))], fill=1)
    with torch.no_grad():
        usual = network.loss(model, ids, written, 1.1)
        assert network.loss(model, ids, written, 1.1, begins, 1.5) > usual + 0.01
        assert abs(network.loss(model, ids, written, 1.1, goes_on, 1.5) - usual) < 0.01


def test_sharpening_multiplies_the_logits() -> None:
    model = network.make_model(TOKENIZER.get_vocab_size(), 0, 1)
    ids = torch.tensor([[0, 2, 300, 301, 3]])
    with torch.no_grad():
        before = model(input_ids=ids).logits
        network.sharpen(model, 2.0)
        assert torch.allclose(model(input_ids=ids).logits, 2 * before, rtol=1e-4, atol=1e-5)


def test_only_the_assistants_tokens_count() -> None:
    model = network.make_model(TOKENIZER.get_vocab_size(), 0, 1)
    short = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi there"}]
    row = chat_tokens(TOKENIZER, short)
    ids, written = as_tensors([row], fill=1)
    _, _, targets = network.answer_logits(model, ids, written)
    assert TOKENIZER.decode(targets.tolist(), skip_special_tokens=False) == "Hi there<|end_of_text|>"
    padded_ids, padded_written = as_tensors([row, (row[0] * 3, row[1] * 3)], fill=1)
    alone = network.loss(model, ids, written, 1.1)
    assert torch.allclose(network.loss(model, padded_ids[:1], padded_written[:1], 1.1), alone, atol=1e-5)


def test_the_penalty_is_the_one_transformers_applies() -> None:
    from transformers import RepetitionPenaltyLogitsProcessor

    model = network.make_model(TOKENIZER.get_vocab_size(), 0, 1)
    chat = [{"role": "user", "content": "tea tea"}, {"role": "assistant", "content": "tea and tea and cups"}]
    ids, written = as_tensors([chat_tokens(TOKENIZER, chat)], fill=1)
    with torch.no_grad():
        logits, penalised, targets = network.answer_logits(model, ids, written)
    apply = RepetitionPenaltyLogitsProcessor(network.REPETITION_PENALTY)
    prompt = ids.shape[1] - len(targets)
    for i in range(len(targets)):
        expected = apply(ids[:, : prompt + i], logits[i : i + 1].clone())
        assert torch.allclose(penalised[i : i + 1], expected)


def test_noise_is_taken_back() -> None:
    model = network.make_model(TOKENIZER.get_vocab_size(), 0, 1)
    original = [weight.clone() for weight in model.parameters()]
    before = network.add_noise(model, 0.02, torch.Generator().manual_seed(1))
    assert not torch.equal(model.model.layers[0].mlp.up_proj.weight, original[3])
    network.restore(model, before)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), original, strict=True))


def test_int8_rounding_is_that_of_q8_0() -> None:
    quants = pytest.importorskip("gguf.quants")
    from gguf import GGMLQuantizationType

    model = network.make_model(TOKENIZER.get_vocab_size(), 0, 1)
    weight = model.model.layers[0].mlp.up_proj.weight
    raw = quants.quantize(weight.detach().numpy(), GGMLQuantizationType.Q8_0)
    expected = torch.from_numpy(quants.dequantize(raw, GGMLQuantizationType.Q8_0))
    network.round_to_int8(model)
    assert torch.allclose(weight, expected, atol=1e-6)
