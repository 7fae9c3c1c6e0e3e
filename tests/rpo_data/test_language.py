import gzip
import json
import unicodedata

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpo_data import language
from rpo_data.language import MAX_CHARACTERS, detect, identifier, languages

SENTENCES = {
    "en": "Could you tell me which train leaves for the coast tomorrow morning?",
    "de": "Können Sie mir sagen, welcher Zug morgen früh an die Küste fährt?",
    "fr": "Pourriez-vous me dire quel train part pour la côte demain matin ?",
    "es": "¿Podría decirme qué tren sale mañana por la mañana hacia la costa?",
    "it": "Potrebbe dirmi quale treno parte domani mattina per la costa?",
    "pt": "Você poderia me dizer qual trem sai amanhã de manhã para o litoral?",
    "nl": "Kunt u mij vertellen welke trein morgenochtend naar de kust vertrekt?",
    "pl": "Czy może mi pan powiedzieć, który pociąg odjeżdża jutro rano nad morze?",
    "tr": "Yarın sabah sahile hangi trenin kalktığını bana söyleyebilir misiniz?",
    "ru": "Не могли бы вы сказать, какой поезд отправляется завтра утром на побережье?",
    "uk": "Чи не могли б ви сказати, який поїзд вирушає завтра вранці на узбережжя?",
    "el": "Μπορείτε να μου πείτε ποιο τρένο φεύγει αύριο το πρωί για την ακτή;",
    "ar": "هل يمكنك أن تخبرني أي قطار يغادر إلى الساحل صباح الغد؟",
    "he": "האם תוכל לומר לי איזו רכבת יוצאת מחר בבוקר לחוף?",
    "hi": "क्या आप मुझे बता सकते हैं कि कल सुबह तट के लिए कौन सी ट्रेन जाती है?",
    "ja": "明日の朝、海岸へ行く電車はどれか教えていただけますか？",
    "ko": "내일 아침 해안으로 가는 기차가 어느 것인지 알려 주시겠어요?",
    "zh": "请问明天早上去海边的火车是哪一班？",
    "th": "คุณช่วยบอกฉันได้ไหมว่าพรุ่งนี้เช้ารถไฟขบวนไหนไปชายฝั่ง",
    "vi": "Bạn có thể cho tôi biết chuyến tàu nào khởi hành ra bờ biển vào sáng mai không?",
}


def asked(texts: list[str]) -> list[tuple[str, float]]:
    """The library's own answer, text by text."""
    return [identifier().classify(text[:MAX_CHARACTERS]) for text in texts]


def assert_same(texts: list[str]) -> None:
    labels, confidences = zip(*asked(texts), strict=True)
    found = detect(pl.Series(texts, dtype=pl.String))
    assert found["language"].to_list() == list(labels)
    assert found["confidence"].to_list() == pytest.approx(confidences, abs=2e-4)


@pytest.mark.parametrize("code", SENTENCES)
def test_sentence_of_each_language(code):
    assert languages(pl.Series([SENTENCES[code]])).to_list() == [code]


def test_labels_are_the_librarys():
    texts = list(SENTENCES.values())
    odd = [t.upper() for t in texts] + [unicodedata.normalize("NFD", t) for t in texts] + [t * 9 for t in texts]
    assert_same([*texts, *odd, "", " ", "4 + 4 = 8", "e\u0301", "A", "\U0001f600", "x" * 1000])


def test_labels_are_the_librarys_on_english_dialogues(sample_rows):
    assert_same([row[side].rsplit("\n\n", 1)[-1] for row in sample_rows[:400] for side in ("chosen", "rejected")])


@pytest.mark.parametrize("name", ["dpo_zh_demo", "dpo_en_demo"])
def test_labels_are_the_librarys_on_chinese_and_english_logs(shared_data, name):
    with gzip.open(shared_data / "llama_factory" / f"{name}.json.gz", "rt", encoding="utf-8") as file:
        rows = json.load(file)
    assert_same([row["conversations"][-1]["value"] for row in rows] + [row["chosen"]["value"] for row in rows])


@given(st.lists(st.text(max_size=300), min_size=1, max_size=4))
def test_confidence_of_any_text_is_the_librarys(texts):
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]  # polars holds no lone surrogate
    answers = asked(texts)
    found = detect(pl.Series(texts, dtype=pl.String))
    assert found["confidence"].to_list() == pytest.approx([confidence for _, confidence in answers], abs=2e-4)


def test_unsure_short_and_code_have_no_language():
    code = "0x1F 0xA3 [[1, 2], [3, 4]] {} == != ++ -- 1e-9 3.14159"
    unsure = ["Monaco Casino", "hotel taxi radio"]  # words of many languages
    assert languages(pl.Series(["", "ok", "12 34 56 78", None, code, *unsure])).to_list() == [None] * 7


def test_only_the_first_characters_count():
    text = SENTENCES["de"] * 4
    assert len(text) > MAX_CHARACTERS
    assert languages(pl.Series([text[:MAX_CHARACTERS] + SENTENCES["ru"] * 50])).to_list() == ["de"]


def test_rare_languages_count_as_their_big_sister():
    assert {len(label) for label in identifier().labels} == {2, 3}
    assert [label for label in identifier().labels if len(label) == 3] == ["zxx"]


def test_same_answer_in_any_order_and_company(sample_rows):
    texts = pl.Series([row["chosen"] for row in sample_rows] * 10)
    found = detect(texts)
    assert detect(texts.reverse()).reverse().equals(found)
    assert detect(texts[5003:5007]).equals(found[5003:5007])


def test_no_texts():
    found = detect(pl.Series([], dtype=pl.String))
    assert found.schema == {"language": pl.String, "confidence": pl.Float32}
    assert languages(pl.Series([], dtype=pl.String)).to_list() == []


class Elsewhere:
    classify = staticmethod(identifier().classify)


@pytest.mark.parametrize(
    ("name", "value"), [("identifier", lambda: Elsewhere), ("version", lambda _: "0.5.0")], ids=["form", "version"]
)
def test_unknown_tables_are_not_read(monkeypatch, name, value):
    texts = pl.Series(list(SENTENCES.values()))
    fast = detect(texts)
    language.library_tables.cache_clear()
    monkeypatch.setattr(language, name, value)
    try:
        assert language.library_tables() is None
        slow = detect(texts)
    finally:
        language.library_tables.cache_clear()
    assert slow["language"].to_list() == fast["language"].to_list()
    assert slow["confidence"].to_list() == pytest.approx(fast["confidence"].to_list(), abs=2e-4)
