"""Tokens are cached by content, written whole or not at all, and say what the texts say."""

import os
import pickle
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from research.data import cache
from research.data import tokenise as building
from research.data.cache import cache_directory
from research.data.shards import TokenShards
from research.data.tokenise import tokenise
from research.data.tokenizers import TOKENIZERS

TEXTS = ["one café\n", "", "two <mask> 中文 <bos>\nthree", "four " * 13]


def byte_tokenizer():
    return TOKENIZERS["byte"]().train([])


def wide_tokenizer():
    return TOKENIZERS["character"](vocab_size=70_003).train(["".join(map(chr, range(0x20000, 0x20000 + 69_000)))])


@pytest.mark.parametrize("bos", [True, False])
def test_each_document_is_its_own_tokens(tmp_path, bos):
    tokenizer = byte_tokenizer()
    cached = tokenise(TEXTS, tokenizer, key="k", directory=tmp_path, bos=bos)
    assert len(cached) == 4 and cached.num_tokens == len(cached.tokens) == cached.offsets[-1]
    for text, tokens in zip(TEXTS, cached, strict=True):
        assert tokens.dtype == np.int32
        assert tokens[:1].tolist() == [2] or not bos
        assert tokenizer.decode(tokens[int(bos) :].tolist(), skip_special_tokens=False) == text
        assert not np.isin(tokens[int(bos) :], range(5)).any()  # "<mask>" in a text is text
    assert cached.document_bytes.tolist() == [len(text.encode()) for text in TEXTS]
    assert cached.num_bytes == sum(len(text.encode()) for text in TEXTS)
    assert np.array_equal(cached[-1], cached[3]) and len(cached[1:3]) == 2
    with pytest.raises(IndexError):
        cached[4]


def test_width_follows_the_vocabulary(tmp_path):
    assert tokenise(TEXTS, byte_tokenizer(), key="k", directory=tmp_path).tokens.dtype == np.uint16
    wide = wide_tokenizer()
    last = max(wide.get_vocab(), key=wide.get_vocab().__getitem__)
    cached = tokenise([last], wide, key="k", directory=tmp_path)
    assert cached.tokens.dtype == np.uint32 and cached[0].tolist() == [2, 69_004]


def test_second_call_reads_the_cache(tmp_path, monkeypatch):
    first = tokenise(TEXTS, byte_tokenizer(), key="k", directory=tmp_path)
    monkeypatch.setattr(building, "_write", lambda *a, **k: pytest.fail("tokenised again"))
    second = tokenise(TEXTS, byte_tokenizer(), key="k", directory=tmp_path)
    assert second.directory == first.directory and np.array_equal(second.tokens, first.tokens)


def test_key_tokenizer_and_bos_each_make_another_cache(tmp_path):
    tokenizer, other = byte_tokenizer(), TOKENIZERS["character"]().train(TEXTS)
    made = [
        tokenise(TEXTS, tokenizer, key="k", directory=tmp_path),
        tokenise(TEXTS, tokenizer, key="l", directory=tmp_path),
        tokenise(TEXTS, tokenizer, key="k", directory=tmp_path, bos=False),
        tokenise(TEXTS, other, key="k", directory=tmp_path),
    ]
    assert len({each.directory for each in made}) == 4


def test_no_documents_and_empty_documents_are_kept(tmp_path):
    assert tokenise([], byte_tokenizer(), key="none", directory=tmp_path).num_tokens == 0
    empty = tokenise(["", ""], byte_tokenizer(), key="empty", directory=tmp_path, bos=False)
    assert len(empty) == 2 and empty[1].tolist() == [] and empty.num_bytes == 0


def test_shards_travel_between_processes_as_their_folder(tmp_path):
    cached = tokenise(TEXTS * 97, byte_tokenizer(), key="k", directory=tmp_path)
    assert cached.tokens[0] == 2
    sent = pickle.dumps(cached)
    assert len(sent) < 500
    assert np.array_equal(pickle.loads(sent).tokens, cached.tokens)


@pytest.mark.parametrize("kind", ["byte", "character", "bpe", "wordpiece"])
def test_long_document_in_pieces_encodes_as_a_whole(tmp_path, monkeypatch, kind):
    text = "The cat\n\nsat on  \n the mat\nAnd 12\n13, then\n'twas 中\n文\n done\n" * 41
    tokenizer = TOKENIZERS[kind]().train([text])
    whole = tokenizer.encode(text, add_special_tokens=False).ids
    monkeypatch.setattr(building, "_PIECE", 29)
    monkeypatch.setattr(building, "_BATCH", 101)
    pieces = list(building._cut(text))
    assert len(pieces) > 31 and "".join(pieces) == text
    cached = tokenise(["", text, "", "cat"], tokenizer, key="k", directory=tmp_path)
    assert [len(each) for each in cached][::2] == [1, 1] and len(cached) == 4
    assert cached[1].tolist() == [2, *whole]
    assert cached.document_bytes.tolist() == [0, len(text.encode()), 0, 3]


def test_tokenizer_that_marks_beginnings_is_given_whole_documents(tmp_path, monkeypatch):
    text = "one\ntwo\nthree\n" * 17
    tokenizer = Tokenizer(models.WordLevel({"\u2581": 0, "<bos>": 1, "x": 2}, unk_token="x"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(prepend_scheme="always", split=True)])
    monkeypatch.setattr(building, "_PIECE", 11)
    whole = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenise([text], tokenizer, key="k", directory=tmp_path)[0].tolist() == [1, *whole]


def test_truncation_and_padding_of_a_given_tokenizer_do_not_reach_the_documents(tmp_path):
    tokenizer = byte_tokenizer()
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=97)
    assert [len(each) for each in tokenise(["abcdefg"], tokenizer, key="k", directory=tmp_path)] == [8]
    assert tokenizer.truncation is not None  # the caller's own is as it was


def test_tokenizer_without_bos_is_refused(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"x": 0}, unk_token="x"))
    with pytest.raises(ValueError, match="no token that begins a document"):
        tokenise(["a"], tokenizer, key="k", directory=tmp_path)


RACE = """
import sys
from pathlib import Path
from research.data.tokenise import tokenise
from research.data.tokenizers import TOKENIZERS
tokenizer = TOKENIZERS["byte"]().train([])
print("ready", flush=True)
sys.stdin.readline()
made = tokenise([f"document {i} " * 23 for i in range(1009)], tokenizer, key="race", directory=Path(sys.argv[1]))
print(made.directory, len(made), int(made.tokens.astype("int64").sum()))
"""


def test_three_processes_race_for_one_cache(tmp_path):
    command = [sys.executable, "-c", RACE, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    runs = [subprocess.Popen(command, **pipes) for _ in range(3)]
    for run in runs:
        assert run.stdout and run.stdout.readline() == "ready\n"
    for run in runs:
        assert run.stdin
        run.stdin.write("go\n")
        run.stdin.flush()
    outputs = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert outputs[0].split()[1] == "1009" and len(set(outputs)) == 1
    assert len(list(tmp_path.iterdir())) == 1


CRASH = """
import os, signal, sys
from pathlib import Path
from research.data import tokenise as building
from research.data.tokenizers import TOKENIZERS
class Texts(list):
    def __iter__(self):
        yield from ["first " * 1000] * 7
        os.kill(os.getpid(), signal.SIGKILL)
building._BATCH = 1000
building.tokenise(Texts(), TOKENIZERS["byte"]().train([]), key="crash", directory=Path(sys.argv[1]))
"""


def test_killed_process_leaves_nothing_that_passes_for_complete(tmp_path):
    run = subprocess.run([sys.executable, "-c", CRASH, str(tmp_path)])
    assert run.returncode == -signal.SIGKILL
    left = list(tmp_path.iterdir())
    assert len(left) == 1 and left[0].name.endswith(".tmp") and (left[0] / "tokens.bin").exists()
    cached = tokenise(TEXTS, byte_tokenizer(), key="crash", directory=tmp_path)
    assert len(cached) == len(TEXTS) and left[0].exists()  # another process may be writing there still
    for place in (left[0] / "tokens.bin", left[0]):
        os.utime(place, (0, 0))
    tokenise(TEXTS, byte_tokenizer(), key="next", directory=tmp_path)
    assert not left[0].exists()


def test_failure_while_reading_leaves_nothing(tmp_path):
    class Broken(list):
        def __iter__(self):
            yield "one"
            raise ValueError("line 7 is broken")

    with pytest.raises(ValueError, match="line 7 is broken"):
        tokenise(Broken(), byte_tokenizer(), key="k", directory=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_a_clear_error(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_011, limits[1]))  # what a write past the end of a disk meets
    try:
        with pytest.raises(
            ValueError, match=r"token cache .* cannot be written \(.+\); free space there or set GROUND"
        ):
            tokenise(["abcdefg" * 10_007], byte_tokenizer(), key="k", directory=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_cache_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"token cache .*file.* cannot be written"):
        tokenise(TEXTS, byte_tokenizer(), key="k", directory=tmp_path / "file" / "cache")


@pytest.mark.parametrize("damage", ["tokens.bin", "offsets.npy", "meta.json"])
def test_damaged_cache_is_refused(tmp_path, damage):
    cached = tokenise(TEXTS, byte_tokenizer(), key="k", directory=tmp_path)
    place = cached.directory / damage
    place.write_bytes(place.read_bytes()[:-2])
    with pytest.raises(ValueError, match="is damaged; delete that folder"):
        tokenise(TEXTS, byte_tokenizer(), key="k", directory=tmp_path)


def test_progress_is_plain_lines_without_a_terminal(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(cache, "_LINE_SECONDS", 0)
    monkeypatch.setattr(building, "_BATCH", 1)
    tokenise(TEXTS, byte_tokenizer(), key="k", directory=tmp_path)
    assert capfd.readouterr().err.splitlines() == [f"tokenising: {i} of 4 documents" for i in (1, 2, 3, 4)]


def test_cache_folder_is_the_environments(monkeypatch, tmp_path):
    monkeypatch.setenv("GROUNDWORK_CACHE", str(tmp_path))
    assert cache_directory() == tmp_path
    monkeypatch.delenv("GROUNDWORK_CACHE")
    monkeypatch.setenv("HOME", "/somewhere")
    assert str(cache_directory()) == "/somewhere/.cache/groundwork"
    assert TokenShards(tmp_path).directory == tmp_path
