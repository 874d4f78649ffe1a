"""CLIP against transformers, on models drawn at random: nothing is downloaded."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs the extra hf: pip install -e '.[hf]'")
transformers = pytest.importorskip("transformers", reason="parity needs the extra hf: pip install -e '.[hf]'")

from research.build import build  # noqa: E402
from research.interop.hf_clip import clip  # noqa: E402
from research.interop.rules import give_variables, take_variables  # noqa: E402
from research.interop.tensor_files import read_json, read_tensors, write_tensors  # noqa: E402
from research.interop.verify import TOLERANCE, difference  # noqa: E402
from research.models import PAIR_MODELS  # noqa: E402

pytestmark = pytest.mark.parity

BOS, EOS = 1, 96
_IDS = dict(pad_token_id=EOS, bos_token_id=BOS, eos_token_id=EOS)
# Settings of the text, of the image and of both: a small shape of odd sizes, and the real widths.
SHAPES = {
    "small": (
        dict(hidden_size=20, num_attention_heads=5, num_hidden_layers=3, intermediate_size=28, vocab_size=97)
        | dict(max_position_embeddings=13, hidden_act="gelu", **_IDS),
        dict(hidden_size=24, num_attention_heads=3, num_hidden_layers=2, intermediate_size=40, num_channels=2)
        | dict(image_size=35, patch_size=7, hidden_act="gelu_new", layer_norm_eps=1e-6),
        dict(projection_dim=11, logit_scale_init_value=2.0),
    ),
    "real": (
        dict(num_hidden_layers=2, vocab_size=997, **(_IDS | dict(eos_token_id=996, pad_token_id=996))),
        dict(num_hidden_layers=2, image_size=96),
        dict(),
    ),
}


def perturb(model):
    """No parameter stays at its initial zero or one."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return model.eval()


def draw(shape, folder):
    text, image, both = SHAPES[shape]
    torch.manual_seed(3)
    model = perturb(transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=image, **both)))
    model.save_pretrained(folder)
    return model


def inputs(model):
    """Images, tokens that end with the end token, and the mask of the real ones."""
    rng, (text, image) = np.random.default_rng(5), (model.text_tower, model.image_tower)
    images = rng.normal(size=(4, image.image_size, image.image_size, image.num_channels)).astype(np.float32)
    lengths, eos = np.array([text.length, 7, 4, 2])[:, None], text.vocab_size - 1
    tokens = rng.integers(2, eos, (4, text.length))
    places = np.arange(text.length)
    tokens = np.where(places < lengths - 1, tokens, eos)
    tokens[:, 0] = BOS
    return images, tokens, (places < lengths).astype(np.int64)


def given_to_torch(images, tokens, mask):
    pixels = torch.tensor(np.moveaxis(images, 3, 1))
    return dict(pixel_values=pixels, input_ids=torch.tensor(tokens), attention_mask=torch.tensor(mask))


def their_outputs(model, *given):
    with torch.no_grad():
        found = model(**given_to_torch(*given))
    return [array.numpy() for array in (found.image_embeds, found.text_embeds, found.logits_per_image)]


def unscaled(config, images):
    """What our model, which scales pixels itself, is to be given for the images that theirs is given."""
    tower = config.image_tower
    return (images * np.array(tower.pixel_std) + np.array(tower.pixel_mean)).astype(np.float32)


def our_outputs(config, variables, images, tokens, mask):
    @jax.jit
    def run(variables, images, tokens, mask):
        bound = config.module().bind(variables)
        where = dict(positions=jnp.cumsum(mask, axis=1) - 1, segment_ids=mask)
        sides = bound(images, tokens, **where)
        return *sides, bound.scale() * jnp.einsum("be,ce->bc", *sides) + bound.bias()

    variables = jax.tree.map(jnp.asarray, variables)
    images = unscaled(config, images)
    return [np.asarray(array) for array in run(variables, images, tokens.astype(np.int32), mask.astype(np.int32))]


def write(folder, tensors, settings):
    folder.mkdir()
    write_tensors(folder, tensors)
    (folder / "config.json").write_text(json.dumps(settings | {"dtype": "float32"}))


@pytest.mark.parametrize("shape", SHAPES)
def test_values_agree_and_export_is_the_inverse(shape, tmp_path):
    theirs = draw(shape, tmp_path / "given")
    settings, tensors = read_json(tmp_path / "given" / "config.json"), read_tensors(tmp_path / "given")
    assert clip.task_of(settings) == "features"
    config = build(clip.read(settings), PAIR_MODELS, kind="model")
    rules = clip.backbone(config, settings)
    variables = take_variables(tensors, rules, depth=0, where="given")
    given = inputs(config)
    wanted = their_outputs(theirs, *given)
    found = [difference(one, other) for one, other in zip(our_outputs(config, variables, *given), wanted, strict=True)]
    print(f"{shape}: images {found[0]:.1e}, texts {found[1]:.1e}, logits {found[2]:.1e}")
    assert max(found) < TOLERANCE

    # By the rule of old files, which say eos_token_id=2, the end token is the largest id.
    theirs.text_model.eos_token_id = 2
    np.testing.assert_array_equal(their_outputs(theirs, *given)[1], wanted[1])

    back = give_variables(variables, rules, depth=0)
    assert back.keys() == tensors.keys()
    for name, array in back.items():
        assert array.dtype == tensors[name].dtype
        np.testing.assert_array_equal(array, tensors[name], err_msg=name)
    ids = {key: settings["text_config"][key] for key in _IDS}
    write(tmp_path / "exported", back, {"architectures": ["CLIPModel"], **clip.write(config, ids)})
    reloaded, info = transformers.AutoModel.from_pretrained(tmp_path / "exported", output_loading_info=True)
    assert type(reloaded) is transformers.CLIPModel
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for one, other in zip(their_outputs(reloaded.eval(), *given), wanted, strict=True):
        np.testing.assert_array_equal(one, other)
    reread = take_variables(read_tensors(tmp_path / "exported"), rules, depth=0, where="exported")
    jax.tree.map(np.testing.assert_array_equal, reread, variables)
