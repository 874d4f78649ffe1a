"""Cross-entropy against float64 numpy and finite differences; tolerances relative to each array's largest value."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.ops.cross_entropy import chunked_cross_entropy, cross_entropy

N, D, V, NUM_VALID = 7, 5, 13, 11
OPTIONS = [
    dict(),
    dict(num_valid=NUM_VALID),
    dict(label_smoothing=0.1, z_loss=0.01, num_valid=NUM_VALID),
]


def reference(logits, targets, where, *, label_smoothing=0.0, z_loss=0.0, num_valid=None):
    """float64, one position after the other, from the definition."""
    losses = np.zeros(len(targets))
    for row in np.flatnonzero(where):
        valid = np.asarray(logits[row, :num_valid], np.float64)
        log_partition = np.log(np.sum(np.exp(valid)))
        wanted = np.full(len(valid), label_smoothing / len(valid))
        wanted[targets[row]] += 1.0 - label_smoothing
        losses[row] = -np.sum(wanted * (valid - log_partition)) + z_loss * log_partition**2
    return losses


def numeric_gradient(function, array, step=1e-5):
    gradient = np.zeros(array.shape)
    for index in np.ndindex(array.shape):
        moved = [np.array(array) for _ in range(2)]
        moved[0][index] += step
        moved[1][index] -= step
        gradient[index] = (function(moved[0]) - function(moved[1])) / (2 * step)
    return gradient


def assert_close(actual, desired, tolerance):
    np.testing.assert_allclose(actual, desired, rtol=0, atol=tolerance * np.max(np.abs(desired)))


@pytest.fixture
def problem():
    random = np.random.default_rng(0)
    return dict(
        hidden=random.normal(size=(N, D)),
        table=random.normal(size=(V, D)),
        bias=random.normal(size=V),
        targets=random.integers(0, NUM_VALID, N),
        where=np.array([True, True, False, True, True, False, True]),
        weights=random.normal(size=N),
    )


def in_float32(problem):
    kinds = dict(targets=jnp.int32, where=bool)
    return {name: jnp.asarray(array, kinds.get(name, jnp.float32)) for name, array in problem.items()}


@pytest.mark.parametrize("options", OPTIONS)
def test_values_and_gradients_are_those_of_float64(problem, options):
    logits = problem["hidden"] @ problem["table"].T
    p = in_float32(problem)

    def weighted(logits):
        return np.sum(problem["weights"] * reference(logits, problem["targets"], problem["where"], **options))

    def traced(logits):
        return jnp.sum(p["weights"] * cross_entropy(logits, p["targets"], p["where"], **options))

    losses = jax.jit(functools.partial(cross_entropy, **options))(
        jnp.asarray(logits, jnp.float32), p["targets"], p["where"]
    )
    assert_close(losses, reference(logits, problem["targets"], problem["where"], **options), 1e-6)
    gradient = jax.jit(jax.grad(traced))(jnp.asarray(logits, jnp.float32))
    assert_close(gradient, numeric_gradient(weighted, logits), 1e-6)


@pytest.mark.parametrize("chunk", [3, N])
@pytest.mark.parametrize(("options", "with_bias"), [(OPTIONS[0], False), (OPTIONS[1], True), (OPTIONS[2], True)])
def test_chunked_values_and_gradients_are_those_of_float64(problem, options, chunk, with_bias):
    p = in_float32(problem)
    names = ("hidden", "table", "bias") if with_bias else ("hidden", "table")

    def weighted(**changed):
        q = problem | changed
        logits = q["hidden"] @ q["table"].T + (q["bias"] if with_bias else 0.0)
        return np.sum(q["weights"] * reference(logits, q["targets"], q["where"], **options))

    def traced(arrays):
        losses, correct = chunked_cross_entropy(
            arrays["hidden"], arrays["table"], arrays.get("bias"), p["targets"], p["where"], chunk=chunk, **options
        )
        return jnp.sum(p["weights"] * losses), (losses, correct)

    gradients, (losses, correct) = jax.jit(jax.grad(traced, has_aux=True))({name: p[name] for name in names})
    logits = problem["hidden"] @ problem["table"].T + (problem["bias"] if with_bias else 0.0)
    assert_close(losses, reference(logits, problem["targets"], problem["where"], **options), 1e-6)
    best = np.argmax(logits[:, : options.get("num_valid")], axis=1)
    np.testing.assert_array_equal(correct, problem["where"] & (best == problem["targets"]))
    for name in names:
        assert_close(gradients[name], numeric_gradient(lambda x, name=name: weighted(**{name: x}), problem[name]), 1e-6)


def test_correct_is_the_first_of_equal_logits():
    hidden, table = jnp.zeros((3, D)), jnp.zeros((V, D))
    _, correct = chunked_cross_entropy(hidden, table, None, jnp.array([0, 1, 12]), jnp.ones(3, bool), chunk=2)
    np.testing.assert_array_equal(correct, [True, False, False])


@pytest.mark.parametrize("chunk", [3, 100])
@pytest.mark.parametrize("target", [-100, 2**30])
def test_what_is_not_counted_cannot_give_nan(problem, chunk, target):
    p = in_float32(problem)
    targets = jnp.where(p["where"], p["targets"], target)
    hidden = jnp.where(p["where"][:, None], p["hidden"], jnp.nan)

    def chunked(hidden, table):
        return jnp.sum(chunked_cross_entropy(hidden, table, p["bias"], targets, p["where"], chunk=chunk)[0])

    def plain(hidden, table):
        return jnp.sum(cross_entropy(hidden @ table.T + p["bias"][None], targets, p["where"]))

    clean = jnp.where(p["where"][:, None], p["hidden"], 0.0)
    for function in (chunked, plain):
        loss, (d_hidden, d_table) = jax.jit(jax.value_and_grad(function, argnums=(0, 1)))(hidden, p["table"])
        assert np.isfinite(loss)
        np.testing.assert_array_equal(d_hidden[~p["where"]], 0.0)
        if function is chunked:  # the NaN of `hidden` enters the product of `plain` before the selection
            assert_close(d_table, jax.jit(jax.grad(plain, argnums=1))(clean, p["table"]), 1e-6)


def test_a_counted_target_out_of_range_is_loud(problem):
    p = in_float32(problem)
    logits = p["hidden"] @ p["table"].T
    losses = cross_entropy(logits, p["targets"].at[0].set(NUM_VALID), p["where"], num_valid=NUM_VALID)
    assert np.isnan(losses[0]) and np.all(np.isfinite(losses[1:]))


def test_padding_of_the_vocabulary_changes_nothing(problem):
    p = in_float32(problem)
    logits = p["hidden"] @ p["table"].T
    padded = logits.at[:, NUM_VALID:].set(1e4)
    small = cross_entropy(logits[:, :NUM_VALID], p["targets"], p["where"], label_smoothing=0.1)
    np.testing.assert_array_equal(
        cross_entropy(padded, p["targets"], p["where"], label_smoothing=0.1, num_valid=NUM_VALID), small
    )
    gradient = jax.grad(lambda x: jnp.sum(cross_entropy(x, p["targets"], label_smoothing=0.1, num_valid=NUM_VALID)))
    np.testing.assert_array_equal(gradient(padded)[:, NUM_VALID:], 0.0)


def test_losses_of_bfloat16_are_float32(problem):
    p = in_float32(problem)
    logits = (p["hidden"] @ p["table"].T).astype(jnp.bfloat16)
    losses = cross_entropy(logits, p["targets"])
    assert losses.dtype == jnp.float32
    assert_close(losses, reference(np.asarray(logits, np.float64), problem["targets"], np.ones(N, bool)), 1e-6)

    hidden = p["hidden"].astype(jnp.bfloat16)

    def total(hidden, table, chunk):
        return jnp.sum(chunked_cross_entropy(hidden, table, None, p["targets"], p["where"], chunk=chunk)[0])

    d_hidden, d_table = jax.grad(total, argnums=(0, 1))(hidden, p["table"], 2)
    assert d_hidden.dtype == jnp.bfloat16 and d_table.dtype == jnp.float32
    exact = jax.grad(total, argnums=1)(
        hidden.astype(jnp.float32), p["table"].astype(jnp.bfloat16).astype(jnp.float32), 100
    )
    assert_close(d_table, exact, 2**-8)  # bfloat16 has 8 bits: the gradient of the logits is rounded, the sum is not


def test_logits_are_never_whole_in_memory():
    rows, width, vocab_size, chunk = 512, 8, 1024, 32

    def total(hidden, table, targets, where):
        return jnp.sum(chunked_cross_entropy(hidden, table, None, targets, where, chunk=chunk)[0])

    shapes = [((rows, width), jnp.float32), ((vocab_size, width), jnp.float32), ((rows,), jnp.int32), ((rows,), bool)]
    arguments = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
    compiled = jax.jit(jax.grad(total, argnums=(0, 1))).lower(*arguments).compile()
    analysis = compiled.memory_analysis()
    assert analysis is not None and analysis.temp_size_in_bytes < rows * vocab_size * 4 / 2


def test_leading_axes_are_kept():
    logits = jax.random.normal(jax.random.key(0), (2, 3, V))
    targets = jnp.array([[0, 1, 2], [3, 4, 5]])
    flat = jax.jit(cross_entropy)(logits.reshape(6, V), targets.reshape(6))
    np.testing.assert_array_equal(jax.jit(cross_entropy)(logits, targets), flat.reshape(2, 3))
