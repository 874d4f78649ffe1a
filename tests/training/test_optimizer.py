"""Every optimizer against float64 numpy, layer by layer; multipliers, masks, and shardings of the state."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from research.build import build, resolve
from research.training.optimizer import OPTIMIZERS, layer_multipliers, state_shardings
from research.training.transforms import names

LAYERS, D, H, K, F, V = 3, 7, 2, 5, 11, 13
SHAPES = {
    "backbone": {
        "embed": {"embedding": (V, D)},
        "layers": {
            "attention": {"query": {"kernel": (LAYERS, D, H, K)}, "out": {"kernel": (LAYERS, H, K, D)}},
            "mlp": {"up": {"kernel": (LAYERS, D, F), "bias": (LAYERS, F)}, "down": {"kernel": (LAYERS, F, D)}},
            "norm1": {"scale": (LAYERS, D)},
        },
        "final_norm": {"scale": (D,)},
    },
    "head": {"kernel": (D, V), "bias": (V,)},
}
PEAK, NUM_STEPS = 0.02, 17
KERNELS = ("kernel",)


def random_tree(seed, scale=1.0):
    leaves, treedef = jax.tree.flatten(SHAPES, is_leaf=lambda shape: isinstance(shape, tuple))
    random = np.random.default_rng(seed)
    return treedef.unflatten([(scale * random.normal(size=shape)).astype(np.float32) for shape in leaves])


def flat(tree):
    return {names(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(tree)}


def update_by(optimizer, params, gradients, multipliers=None):
    """The parameters after each step."""
    transform = optimizer.transform(params, multipliers)
    state = jax.jit(transform.init)(params)
    trail = []
    step = jax.jit(transform.update)
    for gradient in gradients:
        updates, state = step(gradient, state, params)
        params = optax.apply_updates(params, updates)
        trail.append(params)
    return trail


def reference(rule, *, decay=0.0, decayed=KERNELS, clip_norm=1.0, seed=0):
    """Three steps in float64. `rule(memory, gradient, parameter, step, path)` sees the arrays of one layer."""
    params = {path: leaf.astype(np.float64) for path, leaf in flat(random_tree(seed)).items()}
    memories, trail = {}, []
    for step in range(3):
        gradient = {path: leaf.astype(np.float64) for path, leaf in flat(random_tree(100 + step)).items()}
        norm = np.sqrt(sum(np.sum(leaf**2) for leaf in gradient.values()))
        factor = min(1.0, clip_norm / norm) if clip_norm else 1.0
        rate = PEAK * (1.0 - step / NUM_STEPS)
        for path, leaf in params.items():
            index = [(layer,) for layer in range(LAYERS)] if "layers" in path else [()]
            for layer in index:
                memory = memories.setdefault((path, layer), {})
                wd = decay if path[-1] in decayed else 0.0
                update = rule(memory, factor * gradient[path][layer], leaf[layer], step, path, wd)
                leaf[layer] = leaf[layer] - rate * update
        trail.append({path: leaf.copy() for path, leaf in params.items()})
    return trail


def assert_trails_agree(actual, desired, tolerance=2e-6):
    for after, expected in zip(actual, desired, strict=True):
        for path, leaf in flat(after).items():
            error = np.max(np.abs(leaf - expected[path])) / np.max(np.abs(expected[path]))
            assert error < tolerance, (path, error)


def make(name, **arguments):
    block = dict(name=name, peak_rate=PEAK, schedule=dict(name="linear"), **arguments)
    return build(block, OPTIMIZERS, kind="optimizer", num_steps=NUM_STEPS)


def run(name, **arguments):
    return update_by(make(name, **arguments), random_tree(0), [random_tree(100 + step) for step in range(3)])


def adam_rule(beta1=0.9, beta2=0.999, epsilon=1e-8):
    def rule(memory, gradient, parameter, step, path, decay):
        memory["m"] = beta1 * memory.get("m", 0.0) + (1 - beta1) * gradient
        memory["v"] = beta2 * memory.get("v", 0.0) + (1 - beta2) * gradient**2
        m, v = memory["m"] / (1 - beta1 ** (step + 1)), memory["v"] / (1 - beta2 ** (step + 1))
        return m / (np.sqrt(v) + epsilon) + decay * parameter

    return rule


def sgd_rule(momentum, nesterov):
    def rule(memory, gradient, parameter, step, path, decay):
        memory["m"] = momentum * memory.get("m", 0.0) + gradient
        return (gradient + momentum * memory["m"] if nesterov else memory["m"]) + decay * parameter

    return rule


def lamb_rule(memory, gradient, parameter, step, path, decay):
    update = adam_rule(epsilon=1e-6)(memory, gradient, parameter, step, path, decay)
    return update * np.linalg.norm(parameter) / np.linalg.norm(update)


def adafactor_rule(memory, gradient, parameter, step, path, decay):
    beta = 1.0 - (step + 1.0) ** -0.8
    square = gradient**2 + 1e-30
    if gradient.ndim >= 2 and np.sort(gradient.shape)[-2] >= 5:
        small, large = np.sort(np.argsort(gradient.shape, kind="stable")[-2:])
        for name, axis in (("row", large), ("column", small)):
            memory[name] = beta * memory.get(name, 0.0) + (1 - beta) * square.mean(axis=axis, keepdims=True)
        mean = memory["row"].mean(axis=small, keepdims=True)
        update = gradient / np.sqrt(memory["row"] * memory["column"] / mean)
    else:
        memory["v"] = beta * memory.get("v", 0.0) + (1 - beta) * square
        update = gradient / np.sqrt(memory["v"])
    update /= max(1.0, np.sqrt(np.mean(update**2)))
    return update * max(1e-3, np.sqrt(np.mean(parameter**2))) + decay * parameter


def muon_rule(memory, gradient, parameter, step, path, decay):
    if "layers" not in path or path[-1] != "kernel":
        return 0.5 * adam_rule(beta2=0.95)(memory, gradient, parameter, step, path, decay)
    memory["m"] = 0.95 * memory.get("m", 0.0) + 0.05 * gradient
    update = 0.95 * memory["m"] + 0.05 * gradient
    matrix = update.reshape(-1, D) if "out" in path else update.reshape(update.shape[0], -1)
    left, singular, right = np.linalg.svd(matrix, full_matrices=False)
    singular = singular / (np.linalg.norm(singular) + 1e-7)
    for _ in range(5):
        singular = 3.4445 * singular - 4.7750 * singular**3 + 2.0315 * singular**5
    scaled = 0.2 * np.sqrt(max(matrix.shape)) * (left * singular) @ right
    return scaled.reshape(update.shape) + decay * parameter


@pytest.mark.parametrize("clip_norm", [0.0, 1.0, 1e6])
def test_adamw(clip_norm):
    expected = reference(adam_rule(), decay=0.1, clip_norm=clip_norm)
    assert_trails_agree(run("adamw", weight_decay=0.1, clip_norm=clip_norm), expected)


def test_adamw_decays_embeddings_when_told_to():
    expected = reference(adam_rule(0.8, 0.95, 1e-6), decay=0.1, decayed=("kernel", "embedding"))
    found = run("adamw", weight_decay=0.1, decay_embeddings=True, beta1=0.8, beta2=0.95, epsilon=1e-6)
    assert_trails_agree(found, expected)


def test_adam_has_no_decay():
    assert_trails_agree(run("adam"), reference(adam_rule()))


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd(momentum, nesterov):
    expected = reference(sgd_rule(momentum, nesterov), decay=0.1)
    assert_trails_agree(run("sgd", momentum=momentum, nesterov=nesterov, weight_decay=0.1), expected)


def test_lamb_has_a_trust_ratio_for_every_layer():
    assert_trails_agree(run("lamb", weight_decay=0.1), reference(lamb_rule, decay=0.1))


def test_adafactor_factors_every_layer_by_itself():
    found = run("adafactor", weight_decay=0.1, min_dim_size_to_factor=5)
    assert_trails_agree(found, reference(adafactor_rule, decay=0.1))


def test_adafactor_agrees_with_optax_where_nothing_is_stacked():
    params, gradients = {"head": random_tree(0)["head"]}, [{"head": random_tree(100 + n)["head"]} for n in range(3)]
    ours = update_by(make("adafactor", min_dim_size_to_factor=5, clip_norm=0.0), params, gradients)
    theirs = optax.adafactor(lambda count: PEAK * (1 - count / NUM_STEPS), min_dim_size_to_factor=5)
    state = theirs.init(params)
    for gradient, after in zip(gradients, ours, strict=True):
        updates, state = theirs.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), after, params)


def test_muon_is_newton_schulz_on_each_layer_and_adamw_elsewhere():
    found = run("muon", weight_decay=0.1, adam_rate=PEAK / 2)
    assert_trails_agree(found, reference(muon_rule, decay=0.1), tolerance=2e-5)


def test_muon_updates_have_the_stated_size_in_every_layer():
    params, gradient = random_tree(0), random_tree(1)
    weak = jax.tree.map(np.copy, gradient)
    for leaf in jax.tree.leaves(weak["backbone"]["layers"]):
        leaf[0] /= 8  # norms are per layer: a weaker gradient of layer 0 changes no update
    optimizer = make("muon", weight_decay=0.0, clip_norm=0.0)
    (after,), (after_weak,) = (update_by(optimizer, params, [gradient]) for gradient in (gradient, weak))
    for path in (("mlp", "up", "kernel"), ("attention", "query", "kernel"), ("attention", "out", "kernel")):
        path = ("backbone", "layers", *path)
        update = flat(after)[path] - flat(params)[path]
        rms = np.sqrt(np.mean(update.reshape(LAYERS, -1) ** 2, axis=1))
        np.testing.assert_allclose(rms, 0.2 * PEAK, rtol=0.3)
        # Five iterations enlarge the rounding of small singular values by up to 3.4^5.
        np.testing.assert_allclose(flat(after_weak)[path], flat(after)[path], rtol=0, atol=1e-4 * np.abs(update).max())


def test_muon_without_stacked_kernels_is_refused():
    with pytest.raises(ValueError, match='kernels under "layers"'):
        make("muon").transform({"head": random_tree(0)["head"]})


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_multiplier_of_zero_keeps_every_bit(name):
    params = random_tree(0)
    params["backbone"]["layers"]["mlp"]["up"]["kernel"][0, 0] = -0.0
    params["backbone"]["embed"]["embedding"][0] = -0.0
    multipliers = layer_multipliers(params, freeze_backbone=False, freeze_layers=2, layer_decay=1.0)
    gradients = [random_tree(100 + step, scale=1e4) for step in range(3)]
    gradients[1]["backbone"]["embed"]["embedding"][1] = np.inf
    after = flat(update_by(make(name), params, gradients, multipliers)[-1])
    for path, before in flat(params).items():
        frozen = slice(0, 2) if "layers" in path else slice(None) if "embed" in path else slice(0, 0)
        moved = slice(2, None) if "layers" in path else slice(0, 0) if "embed" in path else slice(None)
        np.testing.assert_array_equal(after[path][frozen].view(np.uint32), before[frozen].view(np.uint32))
        assert np.all(np.isfinite(after[path])) and np.all(np.any(after[path][moved] != before[moved], axis=-1))


def test_multipliers_scale_rate_and_decay():
    params, gradients = random_tree(0), [random_tree(100)]
    multipliers = layer_multipliers(params, freeze_backbone=False, freeze_layers=0, layer_decay=0.5)
    (plain,) = update_by(make("adamw", weight_decay=0.1), params, gradients)
    (scaled,) = update_by(make("adamw", weight_decay=0.1), params, gradients, multipliers)
    for path, before in flat(params).items():
        factor = np.float64(flat(multipliers)[path])
        expected = factor * (flat(plain)[path].astype(np.float64) - before)
        np.testing.assert_allclose(flat(scaled)[path] - before, expected, rtol=0, atol=1e-6)


def test_frozen_parameters_have_no_part_in_the_clipping_norm():
    params = random_tree(0)
    multipliers = layer_multipliers(params, freeze_backbone=True, freeze_layers=0, layer_decay=1.0)
    gradient = random_tree(100)
    (after,) = update_by(make("sgd", momentum=0.0), params, [gradient], multipliers)
    head = gradient["head"]
    norm = np.sqrt(np.sum(head["kernel"] ** 2) + np.sum(head["bias"] ** 2))
    expected = params["head"]["kernel"] - PEAK * head["kernel"] / norm
    np.testing.assert_allclose(after["head"]["kernel"], expected, rtol=0, atol=1e-6)


def test_layer_multipliers():
    found = flat(layer_multipliers(random_tree(0), freeze_backbone=False, freeze_layers=0, layer_decay=0.5))
    up = found[("backbone", "layers", "mlp", "up", "kernel")]
    assert up.shape == (LAYERS, 1, 1)
    np.testing.assert_array_equal(up.ravel(), [0.125, 0.25, 0.5])
    assert found[("backbone", "embed", "embedding")] == 0.5**4
    assert found[("backbone", "final_norm", "scale")] == 1.0 and found[("head", "kernel")] == 1.0
    found = flat(layer_multipliers(random_tree(0), freeze_backbone=False, freeze_layers=2, layer_decay=0.5))
    np.testing.assert_array_equal(found[("backbone", "layers", "norm1", "scale")].ravel(), [0.0, 0.0, 0.5])
    assert found[("backbone", "embed", "embedding")] == 0.0
    found = flat(layer_multipliers(random_tree(0), freeze_backbone=True, freeze_layers=0, layer_decay=0.5))
    assert all(np.all(leaf == (path[0] == "head")) for path, leaf in found.items())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(dict(freeze_layers=LAYERS + 1), "freeze_layers=4"), (dict(layer_decay=0.0), "layer_decay=0")],
)
def test_wrong_layer_multipliers_are_named(arguments, said):
    arguments = dict(freeze_backbone=False, freeze_layers=0, layer_decay=1.0) | arguments
    with pytest.raises(ValueError, match=said):
        layer_multipliers(random_tree(0), **arguments)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_moments_of_bfloat16_parameters_are_float32(name):
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), random_tree(0))
    transform = make(name).transform(params)
    state = jax.eval_shape(transform.init, params)
    _, after = jax.eval_shape(transform.update, params, state, params)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )
    assert all(leaf.dtype in (jnp.float32, jnp.int32) for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_lies_as_the_parameters_do(name):
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), random_tree(0))
    by_path = {names(path): PartitionSpec(*names(path)) for path, _ in jax.tree.leaves_with_path(params)}
    shardings = jax.tree.map_with_path(lambda path, leaf: by_path[names(path)], params)
    arguments = dict(min_dim_size_to_factor=5) if name == "adafactor" else {}
    state = jax.eval_shape(make(name, **arguments).transform(params).init, params)
    found = state_shardings(state, params, shardings, PartitionSpec())
    assert jax.tree.structure(found) == jax.tree.structure(state)
    matched = set()
    for (path, leaf), sharding in zip(jax.tree.leaves_with_path(state), jax.tree.leaves(found), strict=True):
        owners = [known for known in by_path if names(path)[-len(known) :] == known]
        if owners and leaf.shape == flat(random_tree(0))[owners[0]].shape:
            assert sharding == by_path[owners[0]]
            matched.add(owners[0])
        else:
            assert sharding == PartitionSpec()
    factored = {path for path in by_path if name == "adafactor" and path[-1] in ("kernel", "embedding")}
    assert matched == set(by_path) - factored


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_schedule_is_the_rate(name):
    schedule = make(name).schedule
    np.testing.assert_allclose([float(schedule(step)) for step in (0, 8)], [PEAK, PEAK * 9 / 17], rtol=1e-6)


def test_a_block_is_resolved_with_its_schedule():
    block = dict(name="adamw", peak_rate=1e-3, schedule=dict(name="wsd", warmup_steps=2))
    full = resolve(block, OPTIMIZERS, kind="optimizer", num_steps=5)
    assert full["schedule"] == dict(name="wsd", warmup_steps=2, decay_fraction=0.2, final_fraction=0.0)
    assert full["beta2"] == 0.999 and full["num_steps"] == 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (dict(schedule=dict(name="cosin")), "did you mean cosine"),
        (dict(schedule=dict(name="linear", warmup_steps=17)), "warmup_steps=17"),
        (dict(schedule=dict(name="constant", final_fraction=0.1)), "final_fraction"),
        (dict(clip_norm=-1.0), "clip_norm=-1.0"),
        (dict(betas=0.9), "betas"),
    ],
)
def test_wrong_arguments_are_named(arguments, said):
    with pytest.raises(ValueError, match=said):
        build(dict(name="adamw", peak_rate=PEAK) | arguments, OPTIMIZERS, kind="optimizer", num_steps=NUM_STEPS)
