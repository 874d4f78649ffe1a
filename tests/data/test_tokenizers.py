"""Tokenizers are the same from run to run, exact where they can be, and know where words begin."""

import hashlib
import json
import random
import subprocess
import sys
import time

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from research.build import build
from research.data.tokenizers import SPECIAL_TOKENS, TOKENIZERS, facts, from_json

ENGLISH = "The cat sat on the mat; the café's cat didn't.\n\n\tA  long word: antidisestablishmentarianism 1234!\n"
CHINESE = "我们今天去学校。我们明天不去学校，但是我们后天去。"
JAPANESE = "今日は学校に行きます。ケーキを食べました。がぎぐげご。"
TEXTS = [ENGLISH * 3, CHINESE * 3, JAPANESE * 3, "naïve Ελληνικά русский 한국어 🎉 " * 3]
KINDS = {
    "byte": {"name": "byte"},
    "character": {"name": "character"},
    "bpe": {"name": "bpe", "vocab_size": 401},
    "wordpiece": {"name": "wordpiece", "vocab_size": 401},
}


def trained(kind, texts=TEXTS, **arguments):
    return build({**KINDS[kind], **arguments}, TOKENIZERS, kind="tokenizer").train(texts)


def words(tokenizer, text):
    """The words that whole-word masking would mask, each decoded by itself."""
    known = facts(tokenizer)
    groups = []
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    for index, token in enumerate(ids):
        if index == 0 or known["word_starts"][token] or known["word_ends"][ids[index - 1]]:
            groups.append([])
        groups[-1].append(token)
    return [tokenizer.decode(group) for group in groups]


def random_text(seed):
    """Many different words and characters, so that equal counts (where a hash map's order would show) abound."""
    draw = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyzäöüéßαβγδ中文字日本語のテスト-'!?"
    return [" ".join("".join(draw.choices(letters, k=draw.randint(1, 9))) for _ in range(211)) for _ in range(31)]


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_have_ids_0_to_4(kind):
    tokenizer = trained(kind)
    assert [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == [0, 1, 2, 3, 4]
    known = facts(tokenizer)
    assert [known[f"{name}_id"] for name in ("pad", "unk", "bos", "eos", "mask")] == [0, 1, 2, 3, 4]
    assert known["vocab_size"] == tokenizer.get_vocab_size() == len(known["word_starts"]) == len(known["word_ends"])
    assert known["word_starts"][:5].all() and known["word_ends"][:5].all()
    assert tokenizer.encode("a<mask>").ids[-1] == 4


@pytest.mark.parametrize("kind", ["byte", "character", "bpe"])
def test_decoding_gives_back_the_text(kind):
    tokenizer = trained(kind)
    for text in (*TEXTS, "  two\r\n spaces \n", "".join(TEXTS)):
        known = "".join(character for character in text if character in "".join(TEXTS)) if kind == "character" else text
        assert tokenizer.decode(tokenizer.encode(known).ids) == known
    if kind != "character":
        unseen = "\x00\x7f ￿ 𠀀 ܐ <bas>"
        assert tokenizer.decode(tokenizer.encode(unseen).ids) == unseen


def test_byte_tokenizer_gives_one_token_per_byte():
    text = "aé中🎉"
    assert len(trained("byte").encode(text).ids) == len(text.encode())
    assert trained("byte").get_vocab_size() == 261


def test_character_vocabulary_keeps_the_most_frequent():
    tokenizer = trained("character", ["aaabbcc d"], vocab_size=8)
    assert sorted(set(tokenizer.get_vocab()) - set(SPECIAL_TOKENS)) == ["a", "b", "c"]
    assert tokenizer.encode("ad").ids == [tokenizer.token_to_id("a"), 1]


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_two_processes_train_the_same_tokenizer(kind):
    program = (
        "import hashlib; from tests.data.test_tokenizers import random_text, trained;"
        f"print(hashlib.sha256(trained({kind!r}, random_text(7), vocab_size=997).to_str().encode()).hexdigest())"
    )
    runs = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [run.communicate(timeout=120)[0].strip() for run in runs]
    here = hashlib.sha256(trained(kind, random_text(7), vocab_size=997).to_str().encode()).hexdigest()
    assert outputs == [here, here]


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_training_fills_the_vocabulary(kind):
    assert trained(kind, random_text(3), vocab_size=499).get_vocab_size() == 499


def test_wordpiece_cuts_at_spaces_and_punctuation_and_marks_continuations():
    tokenizer = trained("wordpiece")
    tokens = tokenizer.encode("The cat's matcat 学校へ").tokens
    assert "".join(token.removeprefix("##") for token in tokens) == "Thecat'smatcat学校<unk>"
    assert all(character in tokens for character in ("'", "学", "校"))
    assert any(token.startswith("##") for token in tokens)
    assert tokenizer.decode(tokenizer.encode("The cat sat").ids) == "The cat sat"


def test_wordpiece_lowercase_keeps_accents_and_voicing_marks():
    tokenizer = trained("wordpiece", lowercase=True)
    assert tokenizer.decode(tokenizer.encode("THE Café が").ids) == "the café が"
    assert not any(character.isupper() for token in tokenizer.get_vocab() for character in token)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", [CHINESE, JAPANESE])
def test_every_chinese_and_japanese_character_is_one_word(kind, text):
    assert words(trained(kind), text) == list(text)


def test_words_of_spaced_text_are_whole():
    wanted = ["The", "cat", "didn", "'", "t", ";", "antidisestablishmentarianism", "1234", "!", "café"]
    text = "The cat didn't; antidisestablishmentarianism 1234! café"
    assert words(trained("wordpiece"), text) == wanted
    for kind in ("byte", "character"):
        assert [word for word in words(trained(kind), text) if word != " "] == wanted
    spaced = ["The", " cat", " didnt", ";", " antidisestablishmentarianism", " 1234", "!", " café"]
    assert words(trained("bpe"), text.replace("'", "")) == spaced


def test_words_end_at_newlines_and_at_whole_unspaced_characters():
    for kind in ("character", "bpe"):
        tokenizer = trained(kind, ["学校 cat\nsat " * 7])
        assert words(tokenizer, "cat\nsat\n学校cat") == ["cat", "\n", "sat", "\n", "学", "校", "cat"]


def test_words_of_given_files_follow_their_marks():
    bert = Tokenizer(models.WordPiece({"[UNK]": 0, "[MASK]": 1, "play": 2, "##ing": 3, "[CLS]": 5}, unk_token="[UNK]"))
    bert.add_special_tokens(["[UNK]", "[MASK]", "[CLS]"])
    known = facts(bert)
    assert known["vocab_size"] == 6  # id 4 is nobody's
    assert known["word_starts"].tolist() == [True, True, True, False, True, True]
    assert (known["unk_id"], known["mask_id"], known["bos_id"], known["eos_id"], known["pad_id"]) == (0, 1, 5, -1, -1)

    clip = Tokenizer(models.BPE({"a": 0, "b</w>": 1, "ab</w>": 2}, [("a", "b</w>")], end_of_word_suffix="</w>"))
    assert facts(clip)["word_ends"].tolist() == [False, True, True]

    llama = Tokenizer(models.BPE({"\u2581a": 0, "b": 1, "<0xE4>": 2, "<0xB8>": 3}, []))
    llama.decoder = decoders.Metaspace()
    assert facts(llama)["word_starts"].tolist() == [True, False, True, False]


def test_given_file_is_used_as_it_is_but_neither_cuts_nor_pads(tmp_path):
    original = trained("bpe")
    original.enable_truncation(3)
    original.enable_padding(length=11)
    (tmp_path / "tokenizer.json").write_text(original.to_str(), encoding="utf-8")
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        given = build({"name": "file", "path": str(path)}, TOKENIZERS, kind="tokenizer")
        tokenizer = given.train([])
        assert tokenizer.get_vocab() == original.get_vocab()
        assert tokenizer.decode(tokenizer.encode(ENGLISH).ids) == ENGLISH
    assert given.key() != build(KINDS["bpe"], TOKENIZERS, kind="tokenizer").key()


@pytest.mark.parametrize("contents", ["", "{", "[]", "{}", '{"model": 3}', json.dumps({"model": {"type": "BPE"}})])
def test_broken_tokenizer_file_is_refused(tmp_path, contents):
    (tmp_path / "mine.json").write_text(contents)
    with pytest.raises(ValueError, match=r"mine\.json.*wanted the tokenizer\.json"):
        TOKENIZERS["file"](path=str(tmp_path / "mine.json")).train([])


def test_missing_tokenizer_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        TOKENIZERS["file"](path=str(tmp_path / "none.json")).key()


def test_too_small_vocabulary_and_no_text_are_refused():
    with pytest.raises(ValueError, match=r"vocab_size=260 is too small for bpe; use 261"):
        trained("bpe", vocab_size=260)
    with pytest.raises(ValueError, match=r"vocab_size=5 is too small for wordpiece"):
        trained("wordpiece", vocab_size=5)
    for kind in ("character", "bpe", "wordpiece"):
        with pytest.raises(ValueError, match="no text to train on"):
            trained(kind, [" \n", ""])


def test_keys_differ_where_the_tokenizers_differ():
    keys = {build(block, TOKENIZERS, kind="tokenizer").key() for block in KINDS.values()}
    keys.add(TOKENIZERS["wordpiece"](vocab_size=401, lowercase=True).key())
    keys.add(TOKENIZERS["bpe"](vocab_size=409).key())
    assert len(keys) == 6


def test_generators_of_texts_can_be_trained_on():
    assert trained("wordpiece", (text for text in TEXTS)).to_str() == trained("wordpiece").to_str()


@pytest.mark.parametrize("kind", ["byte", "character"])
def test_one_long_document_is_encoded_in_seconds(kind):
    text = ENGLISH * (1_000_000 // len(ENGLISH))
    tokenizer = trained(kind)
    start = time.process_time()
    assert len(tokenizer.encode_batch_fast([text])[0].ids) == (len(text) if kind == "character" else len(text.encode()))
    assert time.process_time() - start < 4


def test_bpe_without_unspaced_scripts_is_gpt2s():
    tokenizer = from_json(trained("bpe", [ENGLISH]).to_str())
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert json.loads(tokenizer.to_str())["pre_tokenizer"]["type"] == "ByteLevel"
    assert tokenizer.pre_tokenizer.pre_tokenize_str(ENGLISH) == gpt2.pre_tokenize_str(ENGLISH)


def test_wordpiece_normalises_as_bert_but_for_accents():
    given = normalizers.BertNormalizer(strip_accents=False, lowercase=False)
    text = "A\u00a0b\x00 中文 é"
    assert trained("wordpiece").normalizer.normalize_str(text) == given.normalize_str(text)


def test_a_file_that_cuts_and_pads_does_neither_here():
    """As the files of sentence encoders do: padding would be pooled as text, and long texts lose their ends."""
    tokenizer = Tokenizer.from_str(trained("wordpiece").to_str())
    plain = from_json(tokenizer.to_str())
    tokenizer.enable_truncation(7)
    tokenizer.enable_padding(length=7, pad_id=0, pad_token="<pad>")
    assert {len(each.ids) for each in tokenizer.encode_batch(["cat", ENGLISH])} == {7}
    read = from_json(tokenizer.to_str())
    for text in ("cat", ENGLISH):
        assert read.encode(text).ids == plain.encode(text).ids
