"""The vision transformer against a plain implementation in float64 numpy: to 1e-5 of the largest value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.models.attention_pool import AttentionPool
from research.models.vit import ViTConfig, sincos
from research.ops.rotary import rotary
from tests.models.plain import drawn_variables, slope_error, wide
from tests.models.test_transformer import activated, normed, plain_mlp
from tests.small import difference

CASES = {
    "learned": dict(),
    "no class token": dict(class_token=False),
    "sincos": dict(position="sincos", qkv_bias=False),
    "rotary": dict(position="rotary", activation="gelu_tanh"),
    "norm before the layers": dict(embed_norm=True, embed_bias=False, activation="quick_gelu"),
    "rotary alone": dict(position="rotary", class_token=False),
}
BATCH, SIZE, PATCH, CHANNELS = 2, 9, 3, 5


def config(**changes):
    sizes = dict(image_size=SIZE, patch_size=PATCH, num_channels=CHANNELS, width=8, depth=2, num_heads=2, mlp_dim=11)
    return ViTConfig(**(sizes | changes))


def images(height=SIZE, width=SIZE, seed=0):
    draw = np.random.default_rng(seed)
    return jnp.asarray(draw.normal(size=(BATCH, height, width, CHANNELS)), jnp.float32)


def turned_by_place(head, row, column, base):
    """Pairs as complex numbers: the first half of them turn by the row, the others by the column."""
    half = len(head) // 2
    pairs = head[:half] + 1j * head[half:]
    share = half // 2
    for pair in range(half):
        place = row if pair < share else column
        pairs[pair] *= np.exp(1j * place * base ** (-(pair % share) / share))
    return np.concatenate([pairs.real, pairs.imag])


def plain_sincos(row, column, width):
    """MAE's get_2d_sincos_pos_embed, whose first half is of the column."""
    found = []
    for place in (column, row):
        for function in (np.sin, np.cos):
            found += [function(place / 10_000.0 ** (k / (width / 4))) for k in range(width // 4)]
    return np.array(found)


def plain_attention(tokens, places, p, vit):
    query, key, value = (
        np.einsum("ld,dhk->lhk", tokens, p[name]["kernel"]) + p[name].get("bias", 0.0)
        for name in ("query", "key", "value")
    )
    mixed = np.zeros_like(query)
    for head in range(vit.num_heads):
        ours, theirs = query[:, head], key[:, head]
        if vit.position == "rotary":
            ours, theirs = (
                np.stack(
                    [turned_by_place(one, *place, vit.rotary_base) for one, place in zip(many, places, strict=True)]
                )
                for many in (ours, theirs)
            )
        weights = np.exp(ours @ theirs.T / np.sqrt(query.shape[-1]))
        mixed[:, head] = weights / weights.sum(-1, keepdims=True) @ value[:, head]
    return np.einsum("lhk,hkd->ld", mixed, p["out"]["kernel"]) + p["out"]["bias"]


def plain_vit(params, vit, image, keep=None):
    """One image [Y X C] to vectors [L D]; patches that are not kept are dropped after their positions are added."""
    tokens, places, first = [], [], int(vit.class_token)
    for row in range(image.shape[0] // PATCH):
        for column in range(image.shape[1] // PATCH):
            patch = image[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
            token = np.einsum("pqc,pqcd->d", patch, params["embed"]["kernel"]) + params["embed"].get("bias", 0.0)
            if vit.position == "learned":
                token = token + params["positions"]["embedding"][first + len(tokens)]
            elif vit.position == "sincos":
                token = token + plain_sincos(row, column, vit.width)
            tokens.append(token)
            places.append((row, column))
    if keep is not None:
        tokens, places = [tokens[i] for i in keep], [places[i] for i in keep]
    if vit.class_token:
        token = params["class_token"][0, 0]
        if vit.position == "learned":
            token = token + params["positions"]["embedding"][0]
        tokens, places = [token, *tokens], [(0, 0), *places]
    hidden = np.stack(tokens)
    if vit.embed_norm:
        hidden = normed(hidden, params["stem_norm"], "layer", vit.norm_epsilon)
    for layer in range(vit.depth):
        p = jax.tree.map(lambda leaf, layer=layer: leaf[layer], params["layers"])
        read = normed(hidden, p["norm1"], "layer", vit.norm_epsilon)
        hidden = hidden + plain_attention(read, places, p["attention"], vit)
        hidden = hidden + plain_mlp(normed(hidden, p["norm2"], "layer", vit.norm_epsilon), p["mlp"], vit.trunk)
    return normed(hidden, params["final_norm"], "layer", vit.norm_epsilon)


@pytest.mark.parametrize("name", CASES)
def test_a_vit_and_its_gradient_equal_the_plain_one(name):
    vit, image = config(**CASES[name]), images()
    module = vit.module()
    params = drawn_variables(module, image)["params"]
    weight = np.random.default_rng(3).normal(size=(BATCH, SIZE, vit.width))
    weight = weight.astype(np.float32) if not vit.class_token else np.pad(weight, ((0, 0), (1, 0), (0, 0)))

    def along(params):
        hidden = module.apply({"params": params}, image)
        return jnp.sum(hidden * weight.astype(np.float32)), hidden

    gradient, hidden = jax.jit(jax.grad(along, has_aux=True))(params)
    wanted = np.stack([plain_vit(wide(params), vit, one) for one in wide(image)])
    assert hidden.shape == wanted.shape
    assert difference(wanted, hidden) < 1e-5

    def plain_along(params):
        return sum(float((plain_vit(params, vit, one) * w).sum()) for one, w in zip(wide(image), weight, strict=True))

    assert slope_error(gradient, plain_along, params) < 1e-5


@pytest.mark.parametrize("name", CASES)
def test_kept_patches_are_encoded_as_if_there_were_no_others(name):
    vit, image = config(**CASES[name]), images()
    module = vit.module()
    variables = drawn_variables(module, image)
    encode = jax.jit(lambda keep: module.apply(variables, image, keep=keep))
    keep = jnp.array([[1, 2, 5, 7], [8, 0, 4, 3]])
    hidden = encode(keep)
    for one, kept, found in zip(wide(image), keep, hidden, strict=True):
        assert difference(plain_vit(wide(variables["params"]), vit, one, kept), found) < 1e-5

    order = np.random.default_rng(4).permuted(np.tile(np.arange(9), (BATCH, 1)), axis=1)
    whole, all_kept = np.asarray(encode(None)), np.asarray(encode(jnp.asarray(order)))
    first = int(vit.class_token)
    assert difference(whole[:, :first], all_kept[:, :first]) < 1e-5 if first else True
    assert difference(np.take_along_axis(whole[:, first:], order[:, :, None], axis=1), all_kept[:, first:]) < 1e-5


@pytest.mark.parametrize("position", ["sincos", "rotary"])
def test_positions_that_are_not_learned_take_images_of_any_size(position):
    vit, image = config(position=position), images(6, 15)
    module = vit.module()
    variables = drawn_variables(module, images())
    found = jax.jit(module.apply)(variables, image)
    wanted = np.stack([plain_vit(wide(variables["params"]), vit, one) for one in wide(image)])
    assert difference(wanted, found) < 1e-5


def test_sincos_and_axial_rotary_equal_loops():
    places = np.array([[[0, 0], [2, 3], [13, 1]]])
    wanted = np.stack([plain_sincos(*place, 12) for place in places[0]])
    assert difference(wanted, sincos(jnp.asarray(places), 12)[0]) < 1e-6
    heads = np.random.default_rng(0).normal(size=(1, 3, 5, 12)).astype(np.float32)
    turned = rotary(jnp.asarray(heads), jnp.asarray(places), base=100.0)
    for place in range(3):
        for head in range(5):
            wanted = turned_by_place(wide(heads)[0, place, head], *places[0, place], 100.0)
            assert difference(wanted, turned[0, place, head]) < 1e-6


def test_training_encodes_a_random_subset_of_the_patches():
    vit, image = config(patch_dropout=0.6), images()
    module = vit.module()
    variables = drawn_variables(module, image)

    def drawn(seed):
        return module.apply(variables, BATCH, 9, method="_draw", rngs={"dropout": jax.random.key(seed)})

    keep = np.asarray(drawn(0))
    assert keep.shape == (BATCH, 4)  # of 9, 3.6 are to stay
    assert (np.diff(keep, axis=1) > 0).all()
    assert (keep != drawn(1)).any()
    assert (keep[0] != keep[1]).any()
    trained = module.apply(variables, image, train=True, rngs={"dropout": jax.random.key(0)})
    assert difference(module.apply(variables, image, keep=jnp.asarray(keep)), trained) == 0.0
    assert module.apply(variables, image).shape == (BATCH, 10, 8)
    counts = np.bincount(np.concatenate([np.ravel(drawn(seed)) for seed in range(50)]), minlength=9)
    assert (counts > 20).all()  # 44 on average


@pytest.mark.parametrize("width", [6, 128])
def test_attention_pooling_equals_loops_over_the_real_positions(width):
    draw = np.random.default_rng(0)
    hidden = jnp.asarray(draw.normal(size=(3, 5, width)), jnp.float32)
    mask = jnp.array([[True] * 5, [True] * 2 + [False] * 3, [False, True, False, True, True]])
    module = AttentionPool()
    params = drawn_variables(module, hidden, mask)["params"]
    params = jax.tree.map(lambda leaf: leaf * np.float32(6 / width) ** 0.5 if leaf.ndim > 1 else leaf, params)

    def plain_pool(params, row):
        query, key, value = (
            np.einsum("ld,dhk->lhk", inputs, params[name]["kernel"]) + params[name]["bias"]
            for name, inputs in (("query", params["probe"][0]), ("key", row), ("value", row))
        )
        weights = np.exp(np.einsum("hk,mhk->mh", query[0], key) / np.sqrt(query.shape[-1]))
        mixed = np.einsum("mh,mhk->hk", weights / weights.sum(0), value)
        pooled = np.einsum("hk,hkd->d", mixed, params["out"]["kernel"]) + params["out"]["bias"]
        inner = normed(pooled, params["norm"], "layer", 1e-6) @ params["up"]["kernel"] + params["up"]["bias"]
        return pooled + activated(inner, "gelu") @ params["down"]["kernel"] + params["down"]["bias"]

    def plain_along(params):
        return sum(plain_pool(params, row[real]).sum() for row, real in zip(wide(hidden), mask, strict=True))

    found = jax.jit(module.apply)({"params": params}, hidden, mask)
    for row, real, vector in zip(wide(hidden), mask, found, strict=True):
        assert difference(plain_pool(wide(params), row[real]), vector) < 1e-5
    gradient = jax.jit(jax.grad(lambda params: jnp.sum(module.apply({"params": params}, hidden, mask))))(params)
    assert slope_error(gradient, plain_along, params) < 1e-5


def test_what_a_vit_cannot_do_is_refused():
    for wrong, message in (
        (dict(image_size=10), "patches of 3"),
        (dict(width=9), "heads"),
        (dict(width=6, position="sincos"), "multiple of 4"),
        (dict(width=12, position="rotary"), "must be a multiple of 4"),
        (dict(patch_dropout=1.0), "below 1"),
    ):
        with pytest.raises(ValueError, match=message):
            config(**wrong)
    module = config().module()
    variables = drawn_variables(module, images())
    for height, message in ((10, "does not divide"), (12, "resize it")):
        with pytest.raises(ValueError, match=message):
            module.apply(variables, images(height, height))


def test_flops_count_six_for_each_matrix_parameter_and_token():
    vit = config()
    params = drawn_variables(vit.module(), images())["params"]
    kernels = [leaf.size for path, leaf in jax.tree.leaves_with_path(params["layers"]) if "kernel" in str(path[-1])]
    mixing = 12 * vit.depth * vit.width
    patches = 6 * params["embed"]["kernel"].size
    assert vit.num_flops(SIZE) == 10 * (6 * sum(kernels) + 10 * mixing) + 9 * patches
    assert vit.num_flops(SIZE, share=0.25) == 3 * (6 * sum(kernels) + 3 * mixing) + 2 * patches


def test_a_vit_computes_in_the_type_it_is_told():
    image = images()
    for types, dtype in ((dict(dtype="bfloat16"), jnp.bfloat16), (dict(matmul_dtype="bfloat16"), jnp.float32)):
        module = config(**types).module()
        variables = drawn_variables(module, image)
        exact = config().module().apply(variables, image)
        found = module.apply(variables, image)
        assert found.dtype == dtype
        assert 1e-4 < difference(exact, found.astype(jnp.float32)) < 0.1
