"""Mixup and CutMix against plain loops; shares, partners, and what each row may depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.ops.mixing import cut_box, cutmix, draw_shares, mixup, paste

B, Y, X, C = 6, 7, 11, 3
RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.uniform(size=(B, Y, X, C)), jnp.float32)
LABELS = jax.nn.one_hot(jnp.array([0, 1, 2, 3, 0, 2]), 4)
KEYS = jax.random.split(jax.random.key(7), B)


def mixed(images, share):
    plain = np.asarray(images, np.float64)
    return np.stack([share[i] * plain[i] + (1 - share[i]) * plain[(i + 1) % len(plain)] for i in range(len(plain))])


@pytest.mark.parametrize("arrays", [IMAGES, IMAGES[:, :, 0, 0]], ids=["images", "features"])
def test_mixup_is_a_plain_loop_over_neighbours(arrays):
    found, labels = mixup(arrays, LABELS, KEYS, alpha=1.0)
    share = np.asarray(draw_shares(KEYS, alpha=1.0), np.float64)
    np.testing.assert_allclose(found, mixed(arrays, share), rtol=0, atol=1e-6)
    np.testing.assert_allclose(labels, mixed(LABELS, share), rtol=0, atol=1e-6)
    np.testing.assert_allclose(labels.sum(axis=1), 1.0, atol=1e-6)
    assert len(set(share.tolist())) == B


def test_shares_are_beta_distributed():
    share = np.asarray(jax.jit(lambda keys: draw_shares(keys, alpha=0.4))(jax.random.split(jax.random.key(1), 3000)))
    # Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)) = 0.139; 3,000 draws, five standard errors of the mean are 0.034.
    assert share.min() >= 0.0 and share.max() <= 1.0
    assert abs(share.mean() - 0.5) < 0.034
    assert abs(share.var() - 1 / (4 * 1.8)) < 0.01


@pytest.mark.parametrize("centre", [(0.5, 0.5), (0.0, 0.99), (0.95, 0.3)])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.75, 1.0])
def test_cut_box_is_the_authors(share, centre):
    half_y, half_x = int(Y * np.sqrt(1 - share)) // 2, int(X * np.sqrt(1 - share)) // 2
    y, x = int(Y * centre[0]), int(X * centre[1])
    top, bottom = max(y - half_y, 0), min(y + half_y, Y)
    left, right = max(x - half_x, 0), min(x + half_x, X)
    found = cut_box(jnp.float32(share), jnp.array(centre), rows=Y, columns=X)
    np.testing.assert_array_equal(found, [top, left, bottom - top, right - left])


def test_paste_takes_the_box_from_the_other_and_counts_what_is_left():
    boxes = np.array([[0, 0, 0, 0], [0, 0, Y, X], [2, 3, 4, 5], [6, 0, 1, 11], [1, 10, 3, 1], [3, 0, 4, 2]])
    others = jnp.roll(IMAGES, 2, axis=0)
    found, share = paste(IMAGES, others, jnp.asarray(boxes, jnp.float32))
    for i, (top, left, height, width) in enumerate(boxes):
        wanted = np.array(IMAGES[i])
        wanted[top : top + height, left : left + width] = others[i, top : top + height, left : left + width]
        np.testing.assert_array_equal(found[i], wanted)
        np.testing.assert_allclose(share[i], 1 - height * width / (Y * X), atol=1e-6)


def test_cutmix_labels_are_in_proportion_to_the_pixels():
    images = jnp.broadcast_to(jnp.arange(B, dtype=jnp.float32)[:, None, None, None], (B, Y, X, C))
    found, labels = cutmix(images, jnp.eye(B), KEYS, alpha=1.0)
    for i in range(B):
        own, others = (np.asarray(found[i, ..., 0]) == i).mean(), (np.asarray(found[i, ..., 0]) == (i + 1) % B).mean()
        assert own + others == pytest.approx(1.0)
        np.testing.assert_allclose(labels[i, i], own, atol=1e-6)
        np.testing.assert_allclose(labels[i, (i + 1) % B], others, atol=1e-6)
    assert 0.1 < float(jnp.diagonal(labels).mean()) < 0.99


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_a_row_depends_on_its_key_and_the_next_row_alone(mix):
    found, labels = mix(IMAGES, LABELS, KEYS, alpha=1.0)
    fewer, fewer_labels = mix(IMAGES[1:4], LABELS[1:4], KEYS[1:4], alpha=1.0)
    np.testing.assert_array_equal(fewer[:2], found[1:3])
    np.testing.assert_array_equal(fewer_labels[:2], labels[1:3])


def test_devices_do_not_change_the_partner():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
    sharded = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))

    def both(*arrays):
        return mixup(*arrays, alpha=1.0), cutmix(*arrays, alpha=1.0)

    found = jax.jit(both)(*jax.device_put((IMAGES, LABELS, KEYS), sharded))
    assert len(found[0][0].sharding.device_set) == 2
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=0, atol=1e-6), found, both(IMAGES, LABELS, KEYS)
    )


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_what_cannot_be_mixed_is_refused(mix):
    with pytest.raises(ValueError, match="mixing alpha=0.0; wanted a number above 0"):
        mix(IMAGES, LABELS, KEYS, alpha=0.0)
    with pytest.raises(ValueError, match="mixing alpha=nan"):
        mix(IMAGES, LABELS, KEYS, alpha=float("nan"))
