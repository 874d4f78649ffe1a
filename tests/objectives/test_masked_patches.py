"""Masked autoencoding: the loss in float64, what the encoder sees, whose masks they are, and sounds with padding."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.build import build, resolve
from research.models import ALL_MODELS, HEADS, join
from research.objectives import OBJECTIVES
from research.objectives.inputs import read_inputs, run_inputs
from research.types import Keys
from tests.models.plain import wide
from tests.objectives.test_simclr import draw
from tests.small import difference
from tests.test_equivalence import assert_equal, loss_and_gradient

ROWS = 8
VIT = dict(name="vit", patch_size=2, width=8, depth=1, num_heads=2, position="sincos")


def objective(block: Any = None, **changes: Any) -> Any:
    block = block or VIT | dict(image_size=6, num_channels=1)
    block = resolve(block, ALL_MODELS, kind="model", image_size=0, num_channels=0)  # offered where there are no images
    config = build(block, ALL_MODELS, kind="model")
    head = build(dict(name="patch_decoder", decoder_width=12, depth=1, num_heads=3), HEADS, kind="head")
    return build(
        dict(name="masked_patches", rate=0.6) | changes, OBJECTIVES, kind="objective", model=join(config, head)
    )


def of_sounds() -> Any:
    options = dict(sample_rate=1000, audio_length=300, num_mels=4, window_seconds=0.032, hop_seconds=0.02)
    return objective(dict(name="spectrogram", tower=VIT, **options))


def clips() -> dict[str, Any]:
    audio = np.random.default_rng(0).integers(-9000, 9000, (3, 300)).astype(np.int16)
    lengths = np.array([300, 130, 20], np.int32)
    audio[np.arange(300)[None, :] >= lengths[:, None]] = 0
    return {"audio": audio, "audio_length": lengths, "example_id": np.arange(3, dtype=np.uint32)}


def keys() -> Keys:
    return Keys(noise=jax.random.key(3), dropout=jax.random.key(4))


def started(found: Any, batch: Any) -> Any:
    return nn.meta.unbox(jax.jit(found.init)(jax.random.key(0), batch))


def told(found: Any, variables: Any, batch: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What the decoder says of every patch, the patches as they are, those that were encoded and those masked."""
    inputs = read_inputs(found.model, batch)
    targets, real = found.model.apply({}, **inputs, method="patches")
    keep, masked = found.masks(batch, keys().noise, real)
    rows, columns = (side // 2 for side in inputs["image"].shape[1:3])
    run = jax.jit(
        lambda inputs, keep: run_inputs(
            found.model,
            variables,
            inputs,
            lambda model, hidden, mask: model.reconstruct(hidden, keep, grid=(rows, columns), num_values=4),
            keep=keep,
        )[0]
    )
    return np.asarray(run(inputs, keep)), np.asarray(targets), np.asarray(keep), np.asarray(masked)


def evaluated(found: Any, variables: Any, batch: Any) -> float:
    call: dict[str, Any] = dict(rng=keys(), step=jnp.int32(0), train=False)
    return float(jax.jit(lambda batch: found.loss(variables, batch, **call).value())(batch))


@pytest.fixture(scope="module")
def images():
    found, batch = objective(), jax.tree.map(jnp.asarray, draw())
    variables = started(found, batch)
    return found, batch, variables, told(found, variables, batch)


@pytest.mark.parametrize("normalize", [True, False])
def test_the_loss_is_the_mean_squared_error_of_masked_patches_in_float64(images, normalize):
    _, batch, variables, (said, _, keep, masked) = images
    found = objective(normalize_targets=normalize)
    image = (np.asarray(batch["image"], np.float64) / 255.0 - 0.5) / 0.5
    errors = []
    for row in range(ROWS):
        hidden = [patch for patch in range(9) if patch not in keep[row]]
        assert hidden == np.flatnonzero(masked[row]).tolist()
        for patch in hidden:
            top, left = 2 * (patch // 3), 2 * (patch % 3)
            wanted = image[row, top : top + 2, left : left + 2, 0].reshape(-1)
            if normalize:
                wanted = (wanted - wanted.mean()) / np.sqrt(wanted.var(ddof=1) + 1e-6)
            errors.append(np.mean((wide(said[row, patch]) - wanted) ** 2))
    assert len(errors) == ROWS * 6
    assert evaluated(found, variables, batch) == pytest.approx(np.mean(errors), rel=1e-5)


def test_what_is_masked_is_not_seen_and_what_is_kept_is(images):
    found, batch, variables, (said, _, keep, masked) = images
    image = np.asarray(batch["image"]).copy()

    def changed(patch):
        other = image.copy()
        top, left = 2 * (patch // 3), 2 * (patch % 3)
        other[0, top : top + 2, left : left + 2] ^= 128
        return told(found, variables, {**batch, "image": jnp.asarray(other)})

    after = changed(int(np.flatnonzero(masked[0])[0]))
    np.testing.assert_array_equal(after[0], said)
    np.testing.assert_array_equal(after[2], keep)
    assert np.abs(changed(int(keep[0, 0]))[0][0] - said[0]).max() > 1e-3


def test_masks_depend_on_the_example_alone(images):
    found, batch, _, (_, _, keep, masked) = images
    order = np.random.default_rng(1).permutation(ROWS)
    moved = {key: values[order] for key, values in batch.items()}
    after = found.masks(moved, keys().noise, jnp.ones((ROWS, 9), bool))
    np.testing.assert_array_equal(after[0], keep[order])
    np.testing.assert_array_equal(after[1], masked[order])


def test_rows_that_fill_the_last_batch_do_not_count(images):
    found, batch, variables, _ = images
    few = {key: values[:5] for key, values in batch.items()}
    padded = {**batch, "example_mask": jnp.arange(ROWS) < 5}
    assert evaluated(found, variables, few) == pytest.approx(evaluated(found, variables, padded), rel=1e-5)


@pytest.mark.slow
def test_accumulated_microbatches_equal_the_whole_batch():
    assert_equal(loss_and_gradient(objective(), draw()), loss_and_gradient(objective(), draw(), accumulate=2))


@pytest.mark.slow
def test_of_sounds_the_frames_of_padding_do_not_count():
    found, batch = of_sounds(), jax.tree.map(jnp.asarray, clips())
    variables = started(found, batch)
    said, targets, _, masked = told(found, variables, batch)
    # 16, 7 and 2 frames in patches of two rows, and two of them side by side.
    assert targets.shape == (3, 16, 4)
    assert masked.sum(axis=1).tolist() == [16 - 6, 8 - 3, 2 - 1]
    assert not masked[1, 8:].any() and not masked[2, 2:].any()
    wide_targets = wide(targets)
    wide_targets -= wide_targets.mean(axis=-1, keepdims=True)
    wide_targets /= np.sqrt(wide_targets.var(axis=-1, ddof=1, keepdims=True) + 1e-6)
    errors = np.mean((wide(said) - wide_targets) ** 2, axis=-1)
    assert evaluated(found, variables, batch) == pytest.approx(errors[masked].mean(), rel=1e-5)
    gradient = jax.jit(
        jax.grad(
            lambda params: found.loss({"params": params}, batch, rng=keys(), step=jnp.int32(0), train=True).value()
        )
    )(variables["params"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert difference(gradient["head"]["mask_token"], jnp.zeros_like(gradient["head"]["mask_token"])) == 1.0


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"objective.rate=1.0: wanted a share"):
        objective(rate=1.0)
    with pytest.raises(ValueError, match="encodes a part of the patches"):
        objective(dict(name="cnn", num_channels=1))
    with pytest.raises(ValueError, match="1 values each"):
        jax.eval_shape(
            objective(VIT | dict(image_size=6, num_channels=1, patch_size=1)).init, jax.random.key(0), draw()
        )
    with pytest.raises(ValueError, match="is for sounds and the data are images"):
        jax.eval_shape(objective(augmentation=dict(name="waves", shift=0.1)).init, jax.random.key(0), draw())
