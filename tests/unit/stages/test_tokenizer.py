import json
import shutil
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizerFast

from stages.core.errors import BadRequest, ModelError
from stages.core.model import demo_folder
from stages.text.tokenizer import Tokenizer, encode_alike

DEMO = demo_folder() / "tokenizer"
VOCABULARY = 766
TOKENIZER = Tokenizer(DEMO, 3, VOCABULARY)
CLIP = CLIPTokenizerFast.from_pretrained(str(DEMO), local_files_only=True)
BEGIN, END = 764, 765
CAT = CLIP("cat", add_special_tokens=False).input_ids
TEXTS = ["", " ", "a photo of an astronaut", "Grüße, \N{GRINNING FACE} 猫\n\tA CAT", "don't (stop): 3.5", "cat " * 75]


# transformers 5 reads vocab.json and merges.txt by a way of tokenizers that has been deprecated for years.
OLDER_LAYOUT = pytest.mark.filterwarnings("ignore:Deprecated in 0.9.0:DeprecationWarning")


def read(file: str) -> Any:
    return json.loads((DEMO / file).read_text())


def id_of(token: str) -> int:
    """The id of an entry of the vocabulary."""
    found: int = read("tokenizer.json")["model"]["vocab"][token]
    return found


def ids(prompt: str, syntax: Any = "plain", tokenizer: Tokenizer = TOKENIZER) -> list[list[int]]:
    """The token ids of each chunk."""
    found: list[list[int]] = tokenizer.encode((prompt,), syntax).ids[0].tolist()
    return found


def weighted(prompt: str) -> list[list[tuple[str, float]]]:
    """The words and weights of each chunk."""
    chunks = TOKENIZER.encode((prompt,), "a1111")
    return [
        [
            (CLIP.decode([id]).strip(), round(weight, 6))
            for id, weight in zip(tokens, weights, strict=True)
            if id not in (BEGIN, END)
        ]
        for tokens, weights in zip(chunks.ids[0].tolist(), chunks.weights[0].tolist(), strict=True)
    ]


def refusal(prompt: str, syntax: Any = "a1111", tokenizer: Tokenizer = TOKENIZER) -> str:
    with pytest.raises(BadRequest) as refused:
        tokenizer.encode((prompt,), syntax)
    return refused.value.message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tokenizer of the embedded model as many older folders have it: in vocab.json and merges.txt."""
    model = read("tokenizer.json")["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "".join(f"{' '.join(pair)}\n" for pair in model["merges"])
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}")
    shutil.copy(DEMO / "tokenizer_config.json", tmp_path)
    return tmp_path


def configure(folder: Path, **keys: object) -> None:
    """Set keys of tokenizer_config.json."""
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | keys))


# Chunks.


@pytest.mark.parametrize("prompt", TEXTS)
def test_a_short_prompt_is_what_diffusers_feeds(prompt: str) -> None:
    expected = CLIP(prompt, padding="max_length", max_length=77, truncation=True).input_ids
    assert ids(prompt) == [expected]


@given(st.lists(st.sampled_from(["cat", "a castle, on a hill", "astronaut", "\N{GRINNING FACE}"]), max_size=60))
def test_a_long_prompt_is_cut_into_chunks_with_marks_of_their_own(words: list[str]) -> None:
    prompt = " ".join(words)
    tokens = CLIP(prompt, add_special_tokens=False).input_ids
    if len(tokens) > 225:
        assert "3 of them, 225 tokens" in refusal(prompt, "plain")
        return
    chunks = ids(prompt)
    assert len(chunks) == max(1, -(-len(tokens) // 75))
    assert all(len(chunk) == 77 and chunk[0] == BEGIN and chunk[-1] == END for chunk in chunks)
    inner = [chunk[1 : chunk.index(END)] for chunk in chunks]
    assert all(len(part) == 75 for part in inner[:-1])
    assert list(chain.from_iterable(inner)) == tokens


def test_shorter_prompts_get_empty_chunks() -> None:
    chunks = TOKENIZER.encode(("", "cat " * 76))
    assert chunks.ids.shape == chunks.weights.shape == (2, 2, 77)
    assert chunks.ids[0].tolist() == ids("") * 2
    assert (chunks.weights == 1).all()


@pytest.mark.parametrize(("syntax", "prompt"), [("plain", "cat " * 226), ("a1111", "a BREAK b BREAK c BREAK d")])
def test_more_chunks_than_the_limit_are_refused(syntax: str, prompt: str) -> None:
    assert refusal(prompt, syntax) == (
        "`prompt` fills 4 chunks of 75 tokens; 3 of them, 225 tokens, are encoded at most "
        "(shorten it, or raise model.prompt_chunks)"
    )


@pytest.mark.parametrize(
    ("syntax", "prompt", "says"),
    [
        ("plain", "cat " * 226, "`negative_prompt` fills 4 chunks of 75 tokens"),
        ("a1111", "[cat:dog:3]", "`negative_prompt`: editing"),
    ],
)
def test_a_negative_prompt_that_is_refused_is_called_that(syntax: Any, prompt: str, says: str) -> None:
    with pytest.raises(BadRequest) as refused:
        TOKENIZER.encode((prompt, "a dog"), syntax)
    assert refused.value.message.startswith(says)
    with pytest.raises(BadRequest) as refused:
        TOKENIZER.encode(("a dog", prompt), syntax)
    assert "negative_prompt" not in refused.value.message


@OLDER_LAYOUT
def test_tokenizers_that_cut_differently_fill_as_many_chunks(folder: Path) -> None:
    """Of the two tokenizers of SDXL, either one may need more."""
    configure(folder, added_tokens_decoder={"766": {"content": "<cat-toy>", "special": False}})
    short, long = Tokenizer(folder, 3, 767), TOKENIZER
    prompts = ("", "<cat-toy> " * 30)
    alone = [tokenizer.encode(prompts).ids for tokenizer in (short, long)]
    assert [ids.shape[1] for ids in alone] == [1, 3]
    for tokenizers in ((short, long), (long, short)):
        found = dict(zip(tokenizers, encode_alike(tokenizers, prompts, "plain"), strict=True))
        assert found[long].ids.tolist() == alone[1].tolist()
        assert found[short].ids[:, :1].tolist() == alone[0].tolist()
        assert found[short].ids[1, 1:].tolist() == ids("", tokenizer=short) * 2


# Folders.


@OLDER_LAYOUT
@pytest.mark.parametrize("prompt", [*TEXTS, "cat " * 80, "snake_case isn't 12345 <|endoftext|> über"])
def test_both_layouts_give_the_same_tokens(prompt: str, folder: Path) -> None:
    assert ids(prompt, tokenizer=Tokenizer(folder, 3, VOCABULARY)) == ids(prompt)


@OLDER_LAYOUT
@pytest.mark.parametrize("file", ["vocab.json", "merges.txt", "tokenizer_config.json", "tokenizer.json"])
def test_a_byte_order_mark_is_no_part_of_a_file(file: str, folder: Path) -> None:
    marked = folder
    if file == "tokenizer.json":
        marked = folder / "newer"
        marked.mkdir()
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(DEMO / name, marked)
    (marked / file).write_bytes(b"\xef\xbb\xbf" + (marked / file).read_bytes())
    for prompt in TEXTS:
        assert ids(prompt, tokenizer=Tokenizer(marked, 3, VOCABULARY)) == ids(prompt)


def test_padding_is_the_folder_s(folder: Path) -> None:
    """As in SD 2, whose chunks A1111 ends with the end mark and then fills with `!`."""
    configure(folder, pad_token="!")
    pad = id_of("!")
    tokenizer = Tokenizer(folder, 3, VOCABULARY)
    assert ids("cat", tokenizer=tokenizer) == [[BEGIN, *CAT, END, *[pad] * (75 - len(CAT))]]
    *_, last = ids("cat " * 75 + "cat", tokenizer=tokenizer)
    assert last == [BEGIN, *CAT, END, *[pad] * (75 - len(CAT))]


@pytest.mark.parametrize("file", ["vocab.json", "merges.txt"])
def test_a_folder_without_a_tokenizer_is_named(file: str, folder: Path) -> None:
    (folder / file).unlink()
    with pytest.raises(ModelError, match=f"{folder}: neither"):
        Tokenizer(folder, 3, VOCABULARY)


@OLDER_LAYOUT
@pytest.mark.parametrize("file", ["vocab.json", "tokenizer.json"])
def test_a_broken_tokenizer_is_named(file: str, folder: Path) -> None:
    (folder / file).write_text("{")
    with pytest.raises(ModelError, match=f"{folder}: no tokenizer"):
        Tokenizer(folder, 3, VOCABULARY)


@OLDER_LAYOUT
@pytest.mark.parametrize("mark", ["bos_token", "eos_token", "pad_token"])
def test_a_tokenizer_without_a_mark_is_refused(mark: str, folder: Path) -> None:
    configure(folder, **{mark: None})
    with pytest.raises(ModelError) as refused:
        Tokenizer(folder, 3, VOCABULARY)
    assert f"{folder}/tokenizer_config.json: `{mark}` is null" in refused.value.message
    assert "set it to the token" in refused.value.message


@OLDER_LAYOUT
def test_the_padding_of_a_folder_that_names_none_is_the_end_mark_as_in_transformers(folder: Path) -> None:
    config = folder / "tokenizer_config.json"
    config.write_text("{}")
    assert ids("cat", tokenizer=Tokenizer(folder, 3, VOCABULARY)) == ids("cat")


@OLDER_LAYOUT
@pytest.mark.parametrize(("keys", "vocabulary"), [({}, 765), ({"pad_token": "<pad>"}, VOCABULARY)])
def test_a_tokenizer_of_another_text_encoder_is_refused(keys: Any, vocabulary: int, folder: Path) -> None:
    configure(folder, **keys)
    with pytest.raises(ModelError) as refused:
        Tokenizer(folder, 3, vocabulary)
    token = keys.get("pad_token", "<|endoftext|>")
    assert refused.value.message.startswith(f"{folder}: the id of its token {token!r} is {vocabulary}, but ")
    Tokenizer(folder, 3, vocabulary + 1)


# The a1111 syntax.


@pytest.mark.parametrize("prompt", ["", "a photo of an astronaut", "cat " * 80])
def test_without_weights_both_syntaxes_are_the_same(prompt: str) -> None:
    plain, other = (TOKENIZER.encode((prompt, "a dog"), syntax) for syntax in ("plain", "a1111"))
    assert plain.ids.tolist() == other.ids.tolist()
    assert (other.weights == 1).all()


def test_plain_brackets_are_text() -> None:
    prompt = r"a (cat:1.5) [dog] \( BREAK AND <lora:x:1> embedding:x"
    chunks = TOKENIZER.encode((prompt,))
    assert chunks.ids[0].tolist() == [CLIP(prompt, padding="max_length", max_length=77).input_ids]
    assert (chunks.weights == 1).all()


@OLDER_LAYOUT
@pytest.mark.parametrize("layout", ["vocab.json", "tokenizer.json"])
def test_words_that_are_padding_elsewhere_are_words(layout: str, folder: Path) -> None:
    """`!` in SD 2 and the second tokenizer of SDXL: a word to A1111, padding to diffusers wherever it stands."""
    if layout == "tokenizer.json":
        shutil.copy(DEMO / layout, folder)
    prompt = "! !! (!!!:1.5) a cat!? <|endoftext|>"
    expected = TOKENIZER.encode((prompt,), "a1111")
    configure(folder, pad_token="!")
    tokenizer = Tokenizer(folder, 3, VOCABULARY)
    found = tokenizer.encode((prompt,), "a1111")
    words = 1 + len(CLIP(prompt.replace("(", "").replace(":1.5)", ""), add_special_tokens=False).input_ids)
    assert found.ids[0, 0, :words].tolist() == expected.ids[0, 0, :words].tolist()
    assert set(found.ids[0, 0, words + 1 :].tolist()) == {id_of("!")}
    assert found.weights.tolist() == expected.weights.tolist()
    assert np.count_nonzero(found.weights == 1.5) == 3
    assert [len(chunk) for chunk in ids("cat! " * 80, "a1111", tokenizer)] == [77] * 3

    theirs = CLIPTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    assert ids("! !!", tokenizer=tokenizer) == [theirs("! !!", padding="max_length", max_length=77).input_ids]
    assert ids("! !!", tokenizer=tokenizer) != ids("! !!", "a1111", tokenizer)


def test_tokens_carry_the_weights_of_their_words() -> None:
    assert weighted("a (photo:1.5) of [(mars)]") == [[("a", 1.0), ("photo", 1.5), ("of", 1.0), ("mars", 1.0)]]
    chunks = TOKENIZER.encode(("(photo:1.5)",), "a1111")
    assert np.flatnonzero(chunks.weights[0, 0] != 1).tolist() == [1]


@pytest.mark.parametrize(
    ("prompt", "lengths"),
    [
        ("a BREAK photo of", [1, 2]),
        ("a BREAK BREAK photo", [1, 0, 1]),
        ("BREAK a", [0, 1]),
        ("a BREAK ", [1]),
        ("BREAK", [0]),
        ("a " * 75 + "BREAK photo", [75, 1]),
        ("a " * 76 + "BREAK photo", [75, 1, 1]),
    ],
)
def test_break_begins_a_window(prompt: str, lengths: list[int]) -> None:
    assert [len(words) for words in weighted(prompt)] == lengths


def test_only_the_last_prompt_composes() -> None:
    found = TOKENIZER.encode(("a cat AND a dog", "a fox"), "a1111")
    assert found.ids[0].tolist() == ids("a cat AND a dog")
    with pytest.raises(BadRequest, match="write `and`"):
        TOKENIZER.encode(("a fox", "a cat AND a dog"), "a1111")


@pytest.mark.parametrize("name", ["embedding:easynegative", "<cat-toy>", "<lora:detail:0.8>", "<hypernet:x:1>"])
def test_what_is_no_text_is_refused_by_name(name: str) -> None:
    message = refusal(f"a photo (of {name}), sharp")
    assert "not served" in message
    assert f"`{name}`" in message


@pytest.mark.parametrize("prompt", ["a word embedding: clear", "a <3 b", "x < y > z", "easynegative", "a -> b"])
def test_plain_words_are_not_refused(prompt: str) -> None:
    assert ids(prompt, "a1111") == ids(prompt)


@OLDER_LAYOUT
def test_a_token_that_the_model_was_exported_with_is_served(folder: Path) -> None:
    added = {"content": "<cat-toy>", "lstrip": False, "rstrip": False, "normalized": True, "single_word": False}
    configure(folder, added_tokens_decoder={"766": added | {"special": False}})
    assert 766 in ids("a <cat-toy>", "a1111", Tokenizer(folder, 3, 767))[0]
