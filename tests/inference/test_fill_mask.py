"""Masks are filled with what one plain pass of the model finds likeliest."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.batch import Spec
from research.data.tokenizers import TOKENIZERS, facts
from research.inference.fill_mask import fill_mask
from research.inference.text_model import TextModel, vocabulary_logits
from research.models import MODELS, Model
from research.models.heads import LanguageHead

LENGTH = 29
TEXT = "the cat sat on the mat, the cats played on the mats; a cat plays."
BANNED = range(5)


def make(kind: str, text: str = TEXT) -> TextModel:
    arguments = {} if kind in ("byte", "character") else {"vocab_size": 300 if kind == "bpe" else 60}
    tokenizer = TOKENIZERS[kind](**arguments).train([text] * 3)
    spec = Spec(length=LENGTH, **facts(tokenizer))
    config = MODELS["modern"](vocab_size=spec.vocab_size, length=LENGTH, width=6, depth=2, num_heads=3, unroll=1)
    model = Model(config.module(), LanguageHead(spec.vocab_size, 6, bias=True))
    row = jnp.ones((1, 3), jnp.int32)

    def init(module):
        return module.vocabulary(module(row, positions=row, segment_ids=row)[0])

    params = jax.eval_shape(lambda: model.init(jax.random.key(0), method=init))["params"]
    params = jax.tree.map(lambda leaf: leaf.value, params, is_leaf=lambda leaf: hasattr(leaf, "value"))
    draw = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: draw.normal(0.0, 0.5, leaf.shape).astype(np.float32), params)
    return TextModel(model, params, tokenizer.to_str(), spec, LENGTH)


@functools.partial(jax.jit, static_argnums=0)
def all_logits(model, params, tokens, length):
    column = jnp.arange(LENGTH)[None, :]
    real = column < length
    hidden, _ = model.apply(
        {"params": params}, tokens, positions=jnp.where(real, column, 0), segment_ids=real.astype(jnp.int32)
    )
    return vocabulary_logits(model, params, hidden[0])


def probabilities(trained: TextModel, tokens: list[int]) -> np.ndarray:
    """[L V] for one text."""
    row = np.zeros((1, LENGTH), np.int32)
    row[0, : len(tokens)] = tokens
    logits = all_logits(trained.model, trained.params, row, len(tokens))[:, : trained.facts.vocab_size]
    return np.array(jax.nn.softmax(logits, axis=-1))


@pytest.fixture(scope="module")
def character():
    return make("character")


@pytest.mark.parametrize("mask", ["<mask>", "[MASK]"])
def test_candidates_are_the_likeliest_tokens_of_the_model(character, mask):
    found = next(fill_mask(character, [f"the c{mask}t"], num_candidates=7))
    ids = [2, *character.encode("the c"), 4, *character.encode("t")]
    expected = probabilities(character, ids)[6]
    expected[list(BANNED)] = 0.0
    best = np.argsort(-expected)[:7]
    (candidates,) = found["masks"]
    assert [candidate["token"] for candidate in candidates] == [character.tokenizer.decode([i]) for i in best]
    np.testing.assert_allclose([candidate["probability"] for candidate in candidates], expected[best], rtol=1e-5)
    assert found["output"] == f"the c{candidates[0]['token']}t"


def test_several_masks_are_filled_the_most_certain_first(character):
    text = "<mask>he c<mask>t s[MASK]t"
    found = next(fill_mask(character, [text]))
    pieces = text.replace("[MASK]", "<mask>").split("<mask>")
    tokens, slots = [2], []
    for number, piece in enumerate(pieces):
        if number:
            slots.append(len(tokens))
            tokens.append(4)
        tokens += character.encode(piece)
    first = probabilities(character, tokens)[slots]
    while slots:
        shares = probabilities(character, tokens)[slots]
        shares[:, list(BANNED)] = 0.0
        surest = int(np.argmax(shares.max(axis=1)))
        tokens[slots.pop(surest)] = int(np.argmax(shares[surest]))
    assert found["output"] == character.tokenizer.decode(tokens)
    first[:, list(BANNED)] = 0.0
    shown = [candidates[0]["probability"] for candidates in found["masks"]]
    np.testing.assert_allclose(shown, first.max(axis=1), rtol=1e-5)


def test_a_text_is_filled_the_same_in_any_batch(character):
    texts = ["<mask>at", "the <mask>at sat on the m<mask>t", "a <mask>", "<mask><mask><mask>"]
    together = list(fill_mask(character, texts, batch_size=3))
    alone = [next(fill_mask(character, [text])) for text in texts]
    assert [result["input"] for result in together] == texts
    for one, other in zip(together, alone, strict=True):
        assert one["output"] == other["output"]
        shares = [[c["probability"] for m in result["masks"] for c in m] for result in (one, other)]
        np.testing.assert_allclose(*shares, rtol=1e-5)


def test_padding_and_special_tokens_are_no_candidates(character):
    bias = character.params["head"]["bias"].copy()
    bias[character.facts.vocab_size :] = bias[list(BANNED)] = 1e3
    head = character.params["head"] | {"bias": bias}
    params = {**character.params, "head": head}
    biased = TextModel(character.model, params, character.tokenizer_json, character.facts, LENGTH)
    found = next(fill_mask(biased, ["a <mask>"], num_candidates=999))
    tokens = [candidate["token"] for candidate in found["masks"][0]]
    assert len(tokens) == len(set(tokens)) == character.facts.vocab_size - len(BANNED)
    assert not any("<" in token for token in tokens)


def filled_with(trained: TextModel, text: str, token: str) -> str:
    """The output where the bias makes `token` certain."""
    index = trained.tokenizer.token_to_id(token)
    assert index is not None
    bias = np.zeros_like(trained.params["head"]["bias"])
    bias[index] = 1e3
    head = trained.params["head"] | {"bias": bias}
    params = {**trained.params, "head": head}
    sure = TextModel(trained.model, params, trained.tokenizer_json, trained.facts, LENGTH)
    return next(fill_mask(sure, [text]))["output"]


def test_bpe_tokens_bring_the_space_before_the_mask():
    trained = make("bpe")
    assert filled_with(trained, "a <mask> plays", "\u0120mat") == "a mat plays"
    assert filled_with(trained, "a cat<mask>  plays", "s") == "a cats  plays"


def test_wordpiece_continuations_join_the_word_before_the_mask():
    trained = make("wordpiece")
    assert filled_with(trained, "The CAT <mask> plays", "##s") == "The CATs plays"
    assert filled_with(trained, "The CAT<mask>, plays", "mat") == "The CAT mat, plays"


def test_bytes_of_one_character_are_decoded_together():
    trained = make("byte", "\u00e9")
    two = "\u00c3"  # the byte 0xC3 as byte-level tokenizers write it; twice it is no UTF-8
    assert filled_with(trained, "caf<mask><mask>!", two) == "caf\ufffd\ufffd!"
    assert next(fill_mask(trained, ["caf\u00e9<mask>"]))["output"].startswith("caf\u00e9")


def test_bad_input_is_refused_before_any_work(character):
    with pytest.raises(ValueError, match=r"text 2 has no mask: 'the cat'; write <mask> or \[MASK\]"):
        next(fill_mask(character, ["<mask>", "the cat"]))
    with pytest.raises(ValueError, match="has 32 tokens, the model 29 positions"):
        next(fill_mask(character, ["a" * 30 + "<mask>"]))
    with pytest.raises(ValueError, match="0 candidates"):
        next(fill_mask(character, ["<mask>"], num_candidates=0))
