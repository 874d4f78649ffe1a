"""The hall's part that uses a trained model on pictures: labels, vectors, and the nearest ones of a collection."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer

from research.data.image_decoding import decode_image
from research.data.images import decode_pictures
from research.data.labelled import encode_rows
from research.data.media import SUFFIXES, Media
from research.data.media_sources import open_media
from research.data.rows import text_columns
from research.data.splits import fingerprint
from research.inference.pictures import Read, classify_pictures, nearest, rows_of_pictures
from research.models import PAIR_MODELS
from research.objectives.inputs import read_inputs, run_inputs
from research.trained import Trained


def predict_pictures(
    trained: Trained, task: str, places: Sequence[str], *, index: str, top: int, batch_size: int, workdir: Path
) -> Iterator[dict[str, Any]]:
    """One answer for each picture that the places name (files, folders, and all else that data blocks read).

    `search` answers with the nearest pictures of `index`, whose vectors are kept in the workdir for the next time. A
    model with two towers takes texts too: what is no file here is one.

    Raises:
      ValueError: no picture, one that cannot be decoded, or nothing to search in.
    """
    if not places:
        raise ValueError("give pictures to look at: files, folders, .npz, .tar or .parquet files")
    if task == "search" and not index:
        raise ValueError("--task=search looks for pictures like yours in --index=FOLDER; name one")
    if trained.about["model"]["name"] in PAIR_MODELS:
        names, queries = _of_towers(trained, places, batch_size=batch_size)
    elif task == "classify":
        names, images = _read(trained, places)
        yield from classify_pictures(
            names, images, _reader(trained, task), label_names=trained.spec.label_names, batch_size=batch_size
        )
        return
    else:
        names, images = _read(trained, places)
        queries = rows_of_pictures(images, _reader(trained, task), batch_size=batch_size)
    if task == "embed":
        yield from ({"input": name, "embedding": vector.tolist()} for name, vector in zip(names, queries, strict=True))
        return
    known, vectors = _indexed(trained, index, _reader(trained, task), batch_size=batch_size, workdir=workdir)
    for name, found in zip(names, nearest(queries, vectors, known, top=top), strict=True):
        yield {"input": name, "found": found}


def _reader(trained: Trained, task: str) -> Read:
    """Probabilities of the labels; or what an embedding head gives, the mean vector of the backbone without one; of two
    towers the images' unit vectors."""
    if trained.about["model"]["name"] in PAIR_MODELS:
        encode = jax.jit(
            lambda variables, images: trained.model.apply(
                variables, read_inputs(trained.model, {"image": images})["image"], method="encode_image"
            )
        )
        return lambda images: encode(trained.variables, jnp.asarray(images))
    embeds = trained.about["head"]["name"] == "embedding"

    def head(model: Any, hidden: jax.Array, mask: jax.Array) -> jax.Array:
        if task == "classify":
            return jax.nn.softmax(model.classify(hidden, mask, train=False), axis=-1)
        return model.embed(hidden, mask) if embeds else jnp.mean(hidden.astype(jnp.float32), axis=1)

    @jax.jit
    def read(variables: Any, images: jax.Array) -> jax.Array:
        return run_inputs(trained.model, variables, read_inputs(trained.model, {"image": images}), head)[0]

    return lambda images: read(trained.variables, jnp.asarray(images))


def _of_towers(trained: Trained, inputs: Sequence[str], *, batch_size: int) -> tuple[list[str], np.ndarray]:
    """Names and unit vectors [N E] of pictures, and of texts: what is no file, folder or glob here."""
    names, parts = [], []
    for given in inputs:
        if Path(given).expanduser().exists() or glob.glob(str(Path(given).expanduser())):
            found, images = _read(trained, [given])
            names += found
            parts.append(rows_of_pictures(images, _reader(trained, "embed"), batch_size=batch_size))
        else:
            names.append(given)
            parts.append(
                vectors_of_texts(trained.model, trained.variables, [given], trained.tokenizer, trained.spec.length)
            )
    return names, np.concatenate(parts)


def vectors_of_texts(
    model: Any, variables: Any, texts: Sequence[str], tokenizer: Tokenizer | None, length: int
) -> np.ndarray:
    """The unit vectors [N E] that the text tower of a pair gives; what does not fit into `length` tokens is cut off."""
    assert tokenizer is not None  # a tower reads them
    tokens, lengths, _, _ = encode_rows([(text,) for text in texts], tokenizer, length=length)
    columns = text_columns(tokens, lengths)
    places = {name: jnp.asarray(columns[name]) for name in ("positions", "segment_ids")}
    return np.asarray(model.apply(variables, jnp.asarray(columns["tokens"]), method="encode_text", **places))


def _read(trained: Trained, places: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Names and pictures uint8 [N S S C] of all places."""
    spec = trained.spec
    names, parts = [], []
    for place in places:
        file = Path(place).expanduser()
        if file.is_file() and file.suffix.lower() in SUFFIXES["image"]:
            try:
                image = decode_image(file.read_bytes(), size=spec.image_size, channels=spec.num_channels)
            except ValueError as error:
                raise ValueError(f"{place}: {error}; give a picture") from error
            names.append(place)
            parts.append(image[None])
            continue
        found, images = _collection(trained, open_media(place, "image", field="image"), place)
        names += found
        parts.append(images)
    return names, np.concatenate(parts)


def _collection(trained: Trained, media: Media, place: str) -> tuple[list[str], np.ndarray]:
    decoded = decode_pictures(media, size=trained.spec.image_size, channels=trained.spec.num_channels)
    if decoded.problems:
        bad, why = next(iter(decoded.problems.items()))
        raise ValueError(f"{place}, {media.names[bad]}: {why}; leave that picture out, or mend it")
    whole = Path(place).expanduser()
    names = [str(whole / name) if whole.is_dir() else name for name in media.names]
    return names, np.asarray(decoded.values)


def _indexed(
    trained: Trained, index: str, read: Read, *, batch_size: int, workdir: Path
) -> tuple[list[str], np.ndarray]:
    """Names and vectors [N D] of a collection; from the workdir where this checkpoint has read it before."""
    media = open_media(index, "image", field="image")
    key = fingerprint("index", media.fingerprint, str(trained.step), str(trained.spec.image_size))[:32]
    path = workdir / "index" / f"{key}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as kept:
            return kept["names"].tolist(), kept["vectors"]
    names, images = _collection(trained, media, index)
    vectors = rows_of_pictures(images, read, batch_size=batch_size)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp.npz")
    np.savez(temporary, names=np.array(names), vectors=vectors)
    temporary.replace(path)
    return names, vectors
