"""Generating with a cache and in batches is generating one text at a time without."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.batch import Spec
from research.data.tokenizers import Byte, facts
from research.inference.generate import Sampling, _Program, generate, generate_tokens
from research.inference.prompts import answer_prompts
from research.inference.text_model import TextModel, vocabulary_logits
from research.models import MODELS, Model
from research.models.heads import LanguageHead

VOCAB = 23
HEADS = dict(gpt2=3, modern=3, llama=4)
PROMPTS = [[2, 7], [2, 9, 11, 5, 6, 8, 19], [2, 13, 13]]


@functools.cache
def make(name: str, vocab_size: int = VOCAB, length: int = 31):
    sizes = dict(vocab_size=vocab_size, length=length, causal=True, width=12, depth=2)
    if name in HEADS:
        sizes |= dict(width=4 * HEADS[name], num_heads=HEADS[name], num_kv_heads=2 if name == "llama" else 0)
    else:
        sizes |= dict(unroll=1)
    config = MODELS[name](**sizes)
    model = Model(config.module(), LanguageHead(vocab_size, config.width, tied=False, bias=True))

    def init(module, tokens):
        hidden, _ = module(tokens, positions=tokens, segment_ids=tokens)
        return module.vocabulary(hidden)

    shapes = jax.eval_shape(functools.partial(model.init, method=init), jax.random.key(0), jnp.ones((1, 3), jnp.int32))
    return model, jax.tree_util.tree_map_with_path(draw, nn.meta.unbox(shapes)["params"])


def draw(path, leaf):
    """Values so large that the likeliest token follows from the whole text and not from the last token alone."""
    name = jax.tree_util.keystr(path)
    values = np.random.default_rng(len(name)).normal(0.0, 0.1 if "bias" in name else 0.5, leaf.shape)
    return (values + ("scale" in name)).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def all_logits(model, params, tokens, lengths):
    """Logits at every position, without a cache; rows are padded behind their tokens."""
    column = jnp.arange(tokens.shape[1])[None, :]
    real = column < lengths[:, None]
    positions = jnp.where(real, column, 0)
    hidden, _ = model.apply({"params": params}, tokens, positions=positions, segment_ids=real.astype(jnp.int32))
    return vocabulary_logits(model, params, hidden)[:, :, :VOCAB]


def greedy_without_cache(model, params, prompts, num_tokens):
    lengths = np.array([len(prompt) for prompt in prompts])
    rows = np.arange(len(prompts))
    tokens = np.zeros((len(prompts), 19), np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
    for count in range(num_tokens):
        logits = all_logits(model, params, tokens, lengths + count)
        tokens[rows, lengths + count] = jnp.argmax(logits[rows, lengths + count - 1], axis=-1)
    return [tokens[row, lengths[row] : lengths[row] + num_tokens].tolist() for row in rows]


@pytest.mark.parametrize("name", ["gpt2", "modern", "llama", "lstm", "gru"])
def test_greedy_with_cache_equals_greedy_without_for_prompts_of_different_lengths(name):
    model, params = make(name)
    found = generate_tokens(model, params, PROMPTS, sampling=Sampling(11, temperature=0.0), vocab_size=VOCAB)
    expected = greedy_without_cache(model, params, PROMPTS, 11)
    assert found == expected
    assert len({tuple(tokens) for tokens in expected}) == len(PROMPTS), "the prompt does not matter: nothing is tested"


@pytest.mark.parametrize("name", ["modern", "lstm"])
def test_a_sample_does_not_depend_on_its_batch(name):
    model, params = make(name)
    sampling = Sampling(13, temperature=1.3, top_k=17, top_p=0.9, seed=3)
    together = generate_tokens(model, params, PROMPTS, sampling=sampling, vocab_size=VOCAB, first_index=5)
    alone = [
        generate_tokens(model, params, [prompt], sampling=sampling, vocab_size=VOCAB, first_index=5 + index)[0]
        for index, prompt in enumerate(PROMPTS)
    ]
    assert together == alone


def test_the_seed_and_the_index_of_a_prompt_decide_the_sample():
    model, params = make("modern")

    def draw(seed, index):
        sampling = Sampling(13, temperature=1.3, top_k=17, top_p=0.9, seed=seed)  # compiled for the test above
        return generate_tokens(model, params, PROMPTS[:1], sampling=sampling, vocab_size=VOCAB, first_index=index)[0]

    assert draw(0, 0) == draw(0, 0)
    assert draw(0, 0) != draw(1, 0)
    assert draw(0, 0) != draw(0, 1)


def test_tokens_are_drawn_with_the_probabilities_of_the_model():
    model, params = make("modern")
    sampling = Sampling(1, temperature=1.0)
    count = 512
    drawn = generate_tokens(model, params, PROMPTS[1:2] * count, sampling=sampling, vocab_size=VOCAB)
    shares = np.bincount([tokens[0] for tokens in drawn], minlength=VOCAB) / count
    expected = np.asarray(jax.nn.softmax(all_logits(model, params, np.array(PROMPTS[1:2]), np.array([7]))[0, -1]))
    np.testing.assert_allclose(shares, expected, atol=5 * 0.5 / np.sqrt(count))


def test_padding_of_the_vocabulary_and_banned_tokens_are_never_drawn():
    model, params = make("modern")
    bias = params["head"]["bias"].copy()
    assert len(bias) > VOCAB
    bias[VOCAB:] = bias[[0, 4]] = 1e3
    params = params | {"head": params["head"] | {"bias": bias}}
    for temperature in (0.0, 2.0):
        sampling = Sampling(17, temperature=temperature)
        found = generate_tokens(model, params, PROMPTS, sampling=sampling, vocab_size=VOCAB, banned=(0, 4))
        drawn = {token for tokens in found for token in tokens}
        assert drawn and all(0 < token < VOCAB and token != 4 for token in drawn)


def test_generation_ends_with_a_stop_token_and_others_go_on():
    model, params = make("modern")
    greedy = Sampling(11, temperature=0.0)
    free = generate_tokens(model, params, PROMPTS, sampling=greedy, vocab_size=VOCAB)
    stop = free[0][4]
    found = generate_tokens(model, params, PROMPTS, sampling=greedy, vocab_size=VOCAB, stop=(stop,))
    for tokens, before in zip(found, free, strict=True):
        end = before.index(stop) + 1 if stop in before else len(before)
        assert tokens == before[:end]
    assert len(found[0]) < 11


def text_model(name: str, length: int = 31) -> TextModel:
    tokenizer = Byte().train(["text"])
    spec = Spec(length=length, **facts(tokenizer))
    model, params = make(name, vocab_size=spec.vocab_size, length=length)
    return TextModel(model, params, tokenizer.to_str(), spec, length)


def test_output_begins_with_the_input_and_batches_do_not_matter():
    trained = text_model("modern")
    texts = ["Zw\u00f6", "", "<mask>"]
    sampling = Sampling(7, temperature=1.0, seed=1)
    found = list(generate(trained, texts, sampling=sampling, batch_size=2))
    assert [result["input"] for result in found] == texts
    assert all(result["output"].startswith(result["input"]) for result in found)
    assert all(result["num_tokens"] == 7 or result["ended"] for result in found)
    one_by_one = [next(generate(trained, [text], sampling=sampling, first_index=i)) for i, text in enumerate(texts)]
    assert found == one_by_one


@pytest.mark.parametrize("name", ["gpt2", "modern"])
def test_text_beyond_the_positions_is_refused_before_any_work(name):
    trained = text_model(name, length=13)
    with pytest.raises(ValueError, match=r"text 2 has 5 tokens, with max_tokens=9 14; the model has 13 .*max_tokens=8"):
        next(generate(trained, ["a", "abcd"], sampling=Sampling(9)))
    with pytest.raises(ValueError, match="give a shorter text"):
        next(generate(trained, ["a" * 13], sampling=Sampling(1)))


def test_text_may_fill_the_positions():
    found = next(generate(text_model("gpt2", length=13), ["abcd"], sampling=Sampling(8, temperature=0.0)))
    assert found["num_tokens"] == 8 or found["ended"]


def test_an_answer_is_the_continuation_of_prompt_and_separator():
    trained, sampling, prompts = text_model("modern"), Sampling(7, temperature=1.0, seed=1), ["one", "a b"]
    found = list(answer_prompts(trained, prompts, separator=" : ", sampling=sampling))
    plain = list(generate(trained, [prompt + " : " for prompt in prompts], sampling=sampling))
    assert [given["input"] for given in found] == prompts
    assert [given["output"] for given in found] == [given["output"] for given in plain]
    for prompt, given in zip(prompts, found, strict=True):
        assert given["output"] == f"{prompt} : {given['answer']}" and given["answer"]


def test_a_recurrent_model_has_no_last_position():
    trained = text_model("lstm", length=13)
    assert trained.num_positions == 0
    assert next(generate(trained, ["a" * 29], sampling=Sampling(3)))["input"] == "a" * 29


def test_programs_are_compiled_for_powers_of_two_only(monkeypatch):
    model, params = make("modern")
    traced = []
    stops = _Program.stops
    monkeypatch.setattr(_Program, "stops", lambda self, tokens: traced.append(1) or stops(self, tokens))
    for length in (2, 3, 5, 7, 8):
        for max_tokens in (1, 4, 8):
            prompts = [[2] * length] * 3
            generate_tokens(model, params, prompts, sampling=Sampling(max_tokens, temperature=0.7), vocab_size=VOCAB)
    once = len(traced)
    generate_tokens(model, params, [[2] * 9], sampling=Sampling(1, temperature=0.7), vocab_size=VOCAB)
    assert len(traced) == 2 * once > 0


@pytest.mark.parametrize("wrong", [dict(max_tokens=0), dict(temperature=-1.0), dict(top_k=-1), dict(top_p=0.0)])
def test_bad_sampling_is_refused(wrong):
    model, params = make("modern")
    with pytest.raises(ValueError, match=next(iter(wrong))):
        generate_tokens(model, params, PROMPTS, sampling=Sampling(**wrong), vocab_size=VOCAB)
