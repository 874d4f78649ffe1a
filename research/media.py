"""The hall's part that uses a trained model on pictures or recordings: labels, vectors, the nearest of a collection."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer

from research.data.audio import decode_recordings
from research.data.audio_decoding import decode_audio
from research.data.image_decoding import decode_image
from research.data.images import decode_pictures
from research.data.labelled import encode_rows
from research.data.media import SUFFIXES, UNITS, Kind, Media
from research.data.media_sources import open_media
from research.data.rows import text_columns
from research.data.splits import fingerprint
from research.inference.media import Columns, Read, classify_media, nearest, rows_of_media
from research.models import PAIR_MODELS
from research.objectives.inputs import read_inputs, run_inputs
from research.trained import Trained


def predict_media(
    trained: Trained, task: str, places: Sequence[str], *, index: str, top: int, batch_size: int, workdir: Path
) -> Iterator[dict[str, Any]]:
    """One answer for each picture (or recording) that the places name: files, folders, and all that data blocks read.

    `search` answers with the nearest ones of `index`, whose vectors are kept in the workdir for the next time. A model
    with two towers takes texts too: what is no file here is one.

    Raises:
      ValueError: no picture, one that cannot be decoded, or nothing to search in.
    """
    kind = _kind(trained)
    if not places:
        raise ValueError(f"give {UNITS[kind]} as files, folders, .npz, .tar or .parquet files")
    if task == "search" and not index:
        raise ValueError(f"--task=search looks for {UNITS[kind]} like yours in --index=FOLDER; name one")
    if trained.about["model"]["name"] in PAIR_MODELS:
        names, queries = _of_towers(trained, places, batch_size=batch_size)
    elif task == "classify":
        names, columns = _read(trained, places)
        yield from classify_media(
            names, columns, _reader(trained, task), label_names=trained.spec.label_names, batch_size=batch_size
        )
        return
    else:
        names, columns = _read(trained, places)
        queries = rows_of_media(columns, _reader(trained, task), batch_size=batch_size)
    if task == "embed":
        yield from ({"input": name, "embedding": vector.tolist()} for name, vector in zip(names, queries, strict=True))
        return
    known, vectors = _indexed(trained, index, _reader(trained, task), batch_size=batch_size, workdir=workdir)
    for name, found in zip(names, nearest(queries, vectors, known, top=top), strict=True):
        yield {"input": name, "found": found}


def vectors_of_texts(
    model: Any, variables: Any, texts: Sequence[str], tokenizer: Tokenizer | None, length: int
) -> np.ndarray:
    """The unit vectors [N E] that the text tower of a pair gives; what does not fit into `length` tokens is cut off."""
    assert tokenizer is not None  # a tower reads them
    tokens, lengths, _, _ = encode_rows([(text,) for text in texts], tokenizer, length=length)
    columns = text_columns(tokens, lengths)
    places = {name: jnp.asarray(columns[name]) for name in ("positions", "segment_ids")}
    return np.asarray(model.apply(variables, jnp.asarray(columns["tokens"]), method="encode_text", **places))


def _kind(trained: Trained) -> Kind:
    return "audio" if trained.spec.sample_rate else "image"


def _reader(trained: Trained, task: str) -> Read:
    """Probabilities of the labels; or what an embedding head gives, the mean vector of the backbone without one; of two
    towers the images' unit vectors."""
    if trained.about["model"]["name"] in PAIR_MODELS:
        encode = jax.jit(
            lambda variables, columns: trained.model.apply(
                variables, read_inputs(trained.model, columns)["image"], method="encode_image"
            )
        )
        return lambda columns: encode(trained.variables, jax.tree.map(jnp.asarray, dict(columns)))
    embeds = trained.about["head"]["name"] == "embedding"

    def head(model: Any, hidden: jax.Array, mask: jax.Array) -> jax.Array:
        if task == "classify":
            return jax.nn.softmax(model.classify(hidden, mask, train=False), axis=-1)
        if embeds:
            return model.embed(hidden, mask)
        total = jnp.sum(jnp.where(mask[:, :, None], hidden.astype(jnp.float32), 0.0), axis=1)
        return total / jnp.maximum(jnp.sum(mask, axis=1), 1)[:, None]

    @jax.jit
    def read(variables: Any, columns: Any) -> jax.Array:
        return run_inputs(trained.model, variables, read_inputs(trained.model, columns), head)[0]

    return lambda columns: read(trained.variables, jax.tree.map(jnp.asarray, dict(columns)))


def _of_towers(trained: Trained, inputs: Sequence[str], *, batch_size: int) -> tuple[list[str], np.ndarray]:
    """Names and unit vectors [N E] of pictures, and of texts: what is no file, folder or glob here."""
    names, parts = [], []
    for given in inputs:
        if Path(given).expanduser().exists() or glob.glob(str(Path(given).expanduser())):
            found, columns = _read(trained, [given])
            names += found
            parts.append(rows_of_media(columns, _reader(trained, "embed"), batch_size=batch_size))
        else:
            names.append(given)
            parts.append(
                vectors_of_texts(trained.model, trained.variables, [given], trained.tokenizer, trained.spec.length)
            )
    return names, np.concatenate(parts)


def _read(trained: Trained, places: Sequence[str]) -> tuple[list[str], Columns]:
    """Names and contents of all places."""
    kind = _kind(trained)
    names, parts = [], []
    for place in places:
        file = Path(place).expanduser()
        if file.is_file() and file.suffix.lower() in SUFFIXES[kind]:
            try:
                parts.append(_decode(trained, file.read_bytes()))
            except ValueError as error:
                raise ValueError(f"{place}: {error}; give another file") from error
            names.append(place)
            continue
        found, columns = _collection(trained, open_media(place, kind, field=kind), place)
        names += found
        parts.append(columns)
    return names, {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _decode(trained: Trained, content: bytes) -> Columns:
    """One picture or recording, as a batch of one."""
    spec = trained.spec
    if _kind(trained) == "image":
        return {"image": decode_image(content, size=spec.image_size, channels=spec.num_channels)[None]}
    samples, _, _ = decode_audio(content, sample_rate=spec.sample_rate)
    samples = samples[: spec.audio_length]
    clip = np.pad(samples, (0, spec.audio_length - len(samples)))
    return {"audio": clip[None], "audio_length": np.array([len(samples)], np.int32)}


def _collection(trained: Trained, media: Media, place: str) -> tuple[list[str], Columns]:
    spec, kind = trained.spec, _kind(trained)
    if kind == "image":
        decoded = decode_pictures(media, size=spec.image_size, channels=spec.num_channels)
    else:
        decoded = decode_recordings(media, sample_rate=spec.sample_rate, length=spec.audio_length)
    if decoded.problems:
        bad, why = next(iter(decoded.problems.items()))
        raise ValueError(f"{place}, {media.names[bad]}: {why}; leave it out, or mend it")
    whole = Path(place).expanduser()
    names = [str(whole / name) if whole.is_dir() else name for name in media.names]
    columns = {kind: np.asarray(decoded.values)}
    if kind == "audio":
        columns["audio_length"] = np.minimum(decoded.notes[:, 0], spec.audio_length).astype(np.int32)
    return names, columns


def _indexed(
    trained: Trained, index: str, read: Read, *, batch_size: int, workdir: Path
) -> tuple[list[str], np.ndarray]:
    """Names and vectors [N D] of a collection; from the workdir where this checkpoint has read it before."""
    kind, spec = _kind(trained), trained.spec
    media = open_media(index, kind, field=kind)
    sizes = (spec.image_size, spec.sample_rate, spec.audio_length)
    key = fingerprint("index", media.fingerprint, str(trained.step), *map(str, sizes))[:32]
    path = workdir / "index" / f"{key}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as kept:
            return kept["names"].tolist(), kept["vectors"]
    names, columns = _collection(trained, media, index)
    vectors = rows_of_media(columns, read, batch_size=batch_size)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp.npz")
    np.savez(temporary, names=np.array(names), vectors=vectors)
    temporary.replace(path)
    return names, vectors
