"""The image families against transformers, on models drawn at random: nothing is downloaded."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs the extra hf: pip install -e '.[hf]'")
transformers = pytest.importorskip("transformers", reason="parity needs the extra hf: pip install -e '.[hf]'")

from research.build import build  # noqa: E402
from research.interop.hf_resnet import resnet  # noqa: E402
from research.interop.hf_vit import vit  # noqa: E402
from research.interop.rules import give_variables, take_variables  # noqa: E402
from research.interop.tensor_files import read_json, read_tensors, write_tensors  # noqa: E402
from research.interop.verify import TOLERANCE, difference  # noqa: E402
from research.models import HEADS, IMAGE_MODELS  # noqa: E402
from tests.interop.test_image_rules import rules_of  # noqa: E402

pytestmark = pytest.mark.parity

# Settings and the rows and columns of an image: a small shape of odd sizes, and the real width.
SHAPES = {
    "small vit": (
        dict(hidden_size=24, num_attention_heads=3, num_hidden_layers=3, intermediate_size=40, num_channels=2)
        | dict(image_size=35, patch_size=7, qkv_bias=False, hidden_act="gelu_new"),
        (35, 35),
    ),
    "real vit": (
        dict(hidden_size=768, num_attention_heads=12, num_hidden_layers=2, intermediate_size=3072, image_size=112),
        (112, 112),
    ),
    "small resnet": (
        dict(layer_type="basic", embedding_size=6, hidden_sizes=[6, 10, 14], depths=[2, 1, 2], num_channels=2),
        (37, 50),
    ),
    "real resnet": (dict(depths=[1, 2, 1, 1]), (65, 96)),
}
ARCHITECTURES = ["ViTModel", "ViTForImageClassification", "ResNetModel", "ResNetForImageClassification"]
CASES = [(name, shape) for name in ARCHITECTURES for shape in SHAPES if name.lower().startswith(shape.split()[1])]


def draw(architecture, shape, folder):
    """A model of transformers with no parameter or statistic at its initial zero or one, saved."""
    kind = transformers.ViTConfig if architecture.startswith("ViT") else transformers.ResNetConfig
    torch.manual_seed(3)
    model = getattr(transformers, architecture)(kind(num_labels=3, **SHAPES[shape][0])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)  # as wide as a fresh ViT's matrices
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(torch.randn_like(buffer) * 0.3)
            elif name.endswith("running_var"):
                buffer.mul_(torch.exp(torch.randn_like(buffer) * 0.3))
    model.save_pretrained(folder)
    return model


def run(model, image):
    """Vectors [B L D] and logits, or the pooled vector where there is no head."""
    found = {}
    hook = getattr(model, "vit", getattr(model, "resnet", model)).register_forward_hook(
        lambda module, inputs, outputs: found.update(hidden=outputs.last_hidden_state)
    )
    with torch.no_grad():
        outputs = model(torch.tensor(np.moveaxis(np.asarray(image), 3, 1)))
    hook.remove()
    hidden = found["hidden"].numpy()
    if hidden.ndim == 4:
        hidden = np.moveaxis(hidden, 1, 3).reshape(len(image), -1, hidden.shape[1])
    scores = outputs.logits if hasattr(outputs, "logits") else outputs.pooler_output
    return hidden, scores.numpy().reshape(len(image), -1)


def our_outputs(config, head, variables, image):
    variables = jax.tree.map(jnp.asarray, variables)
    of_backbone = {kind: tree["backbone"] for kind, tree in variables.items()}
    hidden = jax.jit(config.module().apply)(of_backbone, image)
    module, mask = build(head, HEADS, kind="head"), jnp.ones(hidden.shape[:2], bool)
    options = dict(train=False) if head["name"] == "classification" else {}
    return hidden, module.apply({"params": variables["params"].get("head", {})}, hidden, mask, **options)


@pytest.mark.parametrize(("architecture", "shape"), CASES)
def test_values_agree_and_export_is_the_inverse(architecture, shape, tmp_path):
    family = vit if architecture.startswith("ViT") else resnet
    given, exported = tmp_path / "given", tmp_path / "exported"
    model = draw(architecture, shape, given)
    settings, tensors = read_json(given / "config.json"), read_tensors(given)
    task = family.task_of(settings)
    config = build(family.read(settings), IMAGE_MODELS, kind="model")
    head = family.read_head(task, settings)
    rules = rules_of(family, task, config, head, settings)
    variables = take_variables(tensors, rules, depth=config.depth, where=str(given))

    size = (2, *SHAPES[shape][1], config.num_channels)
    image = jnp.asarray(np.random.default_rng(5).normal(size=size), jnp.float32)
    hidden, scores = our_outputs(config, head, variables, image)
    wanted_hidden, wanted_scores = run(model, image)
    assert hidden.shape == wanted_hidden.shape
    found = difference(np.asarray(hidden), wanted_hidden), difference(np.asarray(scores), wanted_scores)
    print(f"{architecture} {shape}: vectors {found[0]:.1e}, head {found[1]:.1e}")
    assert max(found) < TOLERANCE

    back = give_variables(variables, rules, depth=config.depth)
    assert back.keys() == tensors.keys()
    for name, array in back.items():
        assert array.dtype == tensors[name].dtype
        np.testing.assert_array_equal(array, tensors[name], err_msg=name)
    exported.mkdir()
    write_tensors(exported, back)
    labels = {key: settings[key] for key in ("id2label", "label2id") if task == "classification"}
    written = {"architectures": [architecture], "dtype": "float32", **family.write(config, {}), **labels}
    (exported / "config.json").write_text(json.dumps(written))
    auto = transformers.AutoModelForImageClassification if task == "classification" else transformers.AutoModel
    reloaded, info = auto.from_pretrained(exported, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    again_hidden, again_scores = run(reloaded.eval(), image)
    np.testing.assert_array_equal(again_hidden, wanted_hidden)
    np.testing.assert_array_equal(again_scores, wanted_scores)
    reread = take_variables(read_tensors(exported), rules, depth=config.depth, where=str(exported))
    jax.tree.map(np.testing.assert_array_equal, reread, variables)
