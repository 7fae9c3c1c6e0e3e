"""One or more records of each published shape that compares, scores or ranks responses.

Real rows, a sample as their licences allow, stand in tests/data/shapes: tulu_human_eval (allenai/open-instruct,
Apache-2.0), pandalm (WeOpenML/PandaLM, Apache-2.0), llmbar (princeton-nlp/LLMBar, MIT) and open_assistant
(LAION-AI/Open-Assistant, Apache-2.0). All others are written after the documentation that the module of the shape cites.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from rpo_data.shapes import Row, ShapeError, claiming_shapes, get_shape, read_rows

DATA = Path(__file__).parent.parent / "data" / "shapes"


def _user(content: str) -> dict[str, Any]:
    return {"content": content, "role": "user"}


def _assistant(content: str) -> dict[str, Any]:
    return {"content": content, "role": "assistant"}


def _completion(response: str, ratings: dict[str, str], **more: Any) -> dict[str, Any]:
    annotations = {aspect: {"Rating": rating, "Rationale": "..."} for aspect, rating in ratings.items()}
    return {
        "model": "gpt-4",
        "principle": "helpfulness",
        "custom_system_prompt": "Be helpful.",
        "response": response,
        "annotations": annotations,
        **more,
    }


_ULTRAFEEDBACK = [
    {
        "source": "sharegpt",
        "instruction": "Name a prime.",
        "models": ["gpt-4", "starchat", "alpaca-7b"],
        "correct_answers": ["None"],
        "incorrect_answers": ["None"],
        "completions": [
            _completion("Two.", {"instruction_following": "5", "honesty": "N/A", "truthfulness": "4"}),
            # the tens that were ones: what counts is the mean of the ratings
            _completion("Nine.", {"instruction_following": "1", "truthfulness": "2"}, overall_score=10.0),
            _completion("Prime?", {"instruction_following": "N/A"}, overall_score=5.0),
        ],
    },
    {
        "source": "flan",
        "instruction": "Translate 'chat'.",
        "models": ["gpt-4", "bard"],
        "completions": [
            _completion("Cat.", {"helpfulness": "5"}, **{"fine-grained_score": 4.75, "overall_score": 9.0}),
            _completion("Dog.", {"helpfulness": "1"}, **{"fine-grained_score": 1.25, "overall_score": 1.0}),
        ],
    },
]

_ULTRAFEEDBACK_BINARIZED = [
    {
        "prompt": "how to boil an egg",
        "prompt_id": "3f2a",
        "chosen": [_user("how to boil an egg"), _assistant("Eight minutes in boiling water.")],
        "rejected": [_user("how to boil an egg"), _assistant("Eggs cannot be boiled.")],
        "messages": [_user("how to boil an egg"), _assistant("Eight minutes in boiling water.")],
        "score_chosen": 8.5,
        "score_rejected": 2.0,
    },
    {
        "source": "evol_instruct",
        "prompt": "Add 1 and 1.",
        "chosen": [_user("Add 1 and 1."), _assistant("2")],
        "chosen-rating": 4.5,
        "chosen-model": "gpt-4",
        "rejected": [_user("Add 1 and 1."), _assistant("Two")],
        "rejected-rating": 4.5,
        "rejected-model": "bard",
    },
    {
        "source": "flan",
        "instruction": "Name a colour.",
        "chosen_response": "Red.",
        "rejected_response": "Four.",
        "chosen_avg_rating": 5.0,
        "rejected_avg_rating": 1.5,
        "chosen_model": "gpt-4",
    },
]

_HELPSTEER = [
    {
        "prompt": "c#",
        "response": "C# is a programming language.",
        "helpfulness": 3,
        "correctness": 4,
        "coherence": 4,
        "complexity": 2,
        "verbosity": 1,
    },
    {
        "prompt": "Hi\n<extra_id_1>Assistant\nHello!\n<extra_id_1>User\nWho are you?",
        "response": "A model.",
        "helpfulness": [3, 3, 4],
        "correctness": [3, 4, 4],
        "coherence": [4, 3, 4],
        "complexity": [2, 2, 2],
        "verbosity": [2, 1, 1],
    },
]

_HELPSTEER_PREFERENCE = [
    {
        "split": "train",
        "prompt": "Define signal.",
        "response_1": "A form of energy.",
        "response_2": "A message from a sender to a receiver.",
        "preference_strength": 1,
        "preference_statement": "@Response 2 is slightly better than @Response 1.",
        "preference_elaboration": "It is more complete.",
        "three_most_similar_preferences": [{"statement": "...", "elaboration": "...", "strength": 1}],
        "all_preferences_unprocessed": [{"strength": 1, "justification": "..."}],
    },
    {
        "domain": "multilingual",
        "language": "french",
        "context": [_user("Salut"), _assistant("Bonjour !"), _user("Quelle heure est-il ?")],
        "response1": "Midi.",
        "response2": "Je ne sais pas.",
        "overall_preference": -2,
        "individual_preference": [
            {"score": -2, "reasoning": "...", "feedback1": "...", "feedback2": "..."},
            {"score": 1, "reasoning": "...", "feedback1": "...", "feedback2": "..."},
        ],
    },
    {
        "domain": "general",
        "language": "english",
        "context": [_user("Say a number.")],
        "response1": "One.",
        "response2": "Two.",
        "overall_preference": 0,
        "individual_preference": [],
    },
]

_SHP = [
    {
        "post_id": "qt3nxl",
        "domain": "askculinary_train",
        "upvote_ratio": 0.98,
        "history": "What's the best way to disassemble raspberries?",
        "c_root_id_A": "hkh25sc",
        "c_root_id_B": "hkh25lp",
        "created_at_utc_A": 1636822112,
        "created_at_utc_B": 1636822110,
        "score_A": 340,
        "score_B": 166,
        "human_ref_A": "Pectinex, perhaps?",
        "human_ref_B": "Raspberry juice will make a bright stain.",
        "labels": 1,
        "seconds_difference": 2.0,
        "score_ratio": 2.0481927711,
    },
    {
        "post_id": "b",
        "domain": "askcarguys_test",
        "upvote_ratio": 1.0,
        "history": "Which oil?",
        "score_A": 2,
        "score_B": 6,
        "human_ref_A": "Any.",
        "human_ref_B": "See the manual.",
        "labels": 0,
        "seconds_difference": 60.0,
        "score_ratio": 3.0,
    },
]

_NECTAR = [
    {
        "prompt": "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Name a river.\n\nAssistant: ",
        "answers": [
            {"answer": "The Nile.", "model": "gpt-4", "rank": 1.0},
            {"answer": "Rivers flow.", "model": "llama-2-7b-chat", "rank": 3.0},
            {"answer": "The Rhine, in Europe.", "model": "gpt-3.5-turbo", "rank": 2.0},
        ],
        "turns": 2,
        "num_responses": 3,
        "source": ["lmsys-chat-1m"],
        "good_natured": True,
    },
]

_SAFE_RLHF = [
    {
        "prompt": "How do I open a lock?",
        "response_0": "With its key.",
        "response_1": "Break it: here is how to break any lock.",
        "prompt_source": "Alpaca3-8B",
        "is_response_0_safe": True,
        "is_response_1_safe": False,
        "response_0_severity_level": 0,
        "response_1_severity_level": 1,
        "better_response_id": 1,
        "safer_response_id": 0,
    },
]

_ARENA = [
    {
        "question_id": "58210e39b3fd4441a2bd4a518bb44c2d",
        "model_a": "chatglm-6b",
        "model_b": "koala-13b",
        "winner": "model_b",
        "judge": "arena_user_973",
        "conversation_a": [_user("What is OpenCL?"), _assistant("A kind of wine.")],
        "conversation_b": [_user("What is OpenCL?"), _assistant("An open standard for parallel programs.")],
        "turn": 1,
        "anony": True,
        "language": "English",
        "tstamp": 1682351591.1322,
        "openai_moderation": {"flagged": False},
        "toxic_chat_tag": {"roberta-large": {"flagged": False}},
    },
    {
        "question_id": "81",
        "model_a": "alpaca-13b",
        "model_b": "gpt-3.5-turbo",
        "winner": "tie (bothbad)",
        "judge": "author_2",
        "conversation_a": [_user("Write."), _assistant("No."), _user("Again."), _assistant("Never.")],
        "conversation_b": [_user("Write."), _assistant("Why?"), _user("Again."), _assistant("Why, why?")],
        "turn": 1,
    },
    {
        "id": 30192,
        "model_a": "gpt-4-1106-preview",
        "model_b": "gpt-4-0613",
        "prompt": '["Is it raining?", "And tomorrow? \\ud83c\\udf27"]',
        "response_a": '["Yes.", "It will."]',
        "response_b": '["No.", "It won\'t."]',
        "winner_model_a": 1,
        "winner_model_b": 0,
        "winner_tie": 0,
    },
]


def _node(text: str, role: str, replies: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"message_id": "m", "text": text, "role": role, "lang": "en", "deleted": False, "replies": replies, **more}


_TREE = {
    "message_tree_id": "14fbb664",
    "tree_state": "ready_for_export",
    "prompt": _node(
        "Warum kann man nicht durch 0 teilen?",
        "prompter",
        [
            _node("Es geht nicht.", "assistant", [], rank=1),
            _node("Buy now!", "assistant", [], rank=2, review_result=False),
            _node(
                "Weil kein Ergebnis passt.",
                "assistant",
                [
                    _node(
                        "And in English?",
                        "prompter",
                        [
                            _node("No result fits.", "assistant", [], rank=0),
                            _node("Because.", "assistant", [], rank=2),
                            _node("gone", "assistant", [], rank=1, deleted=True),
                            _node("later", "assistant", [], rank=None),
                        ],
                        rank=0,
                    ),
                    _node("Ok", "prompter", [_node("Ja.", "assistant", [])], rank=1),
                ],
                rank=0,
            ),
        ],
        lang="de",
    ),
}

_WEBGPT = [
    {
        "question": {"dataset": "eli5", "id": "1a2b", "full_text": "Why is the sky blue?"},
        "quotes_0": {"title": ["Sky (example.org)"], "extract": ["Rayleigh scattering ..."]},
        "answer_0": "Because of Rayleigh scattering [1].",
        "tokens_0": {"prefix": [1], "completion": [2]},
        "score_0": -0.3333333333,
        "quotes_1": {"title": [], "extract": []},
        "answer_1": "Air scatters blue light most [1].",
        "tokens_1": {"prefix": [1], "completion": [3]},
        "score_1": 0.3333333333,
    },
    {
        "question": {"dataset": "triviaqa", "id": "3c", "full_text": "Who wrote Emma?"},
        "quotes_0": {"title": [], "extract": []},
        "answer_0": "Jane Austen.",
        "score_0": 0.0,
        "quotes_1": {"title": [], "extract": []},
        "answer_1": "Austen, in 1815.",
        "score_1": 0.0,
    },
]

_POST = {"id": "t3_2vwp1w", "post": "I had an accident.", "title": "Car accident", "subreddit": "legaladvice"}
_ARTICLE = {"id": "167f", "site": "dailymail", "title": "A tackle", "article": "He was sent off."}

_SUMMARIZE = [
    {
        "info": {**_POST, "site": None, "article": None},
        "summaries": [
            {"text": " car accident, what now", "policy": "sup4_ppo_rm3_kl10", "note": "..."},
            {"text": " how can i get an investigation ?", "policy": "ref", "note": None},
        ],
        "choice": 1,
        "worker": "ikNmucwunMnYJCQpnq6ZYb57OW7NiD",
        "batch": "batch9",
        "split": "train",
        "extra": {"confidence": 8},
    },
    {
        "info": _ARTICLE,
        "summaries": [{"text": "Sent off.", "policy": "ref"}, {"text": "A match.", "policy": "lead3"}],
        "choice": 0,
        "worker": "w2",
        "batch": "cnndm0",
        "split": "valid2",
        "extra": {"confidence": None},
    },
]

_SUMMARIZE_AXIS = [
    {
        "info": _ARTICLE,
        "split": "test",
        "summary": {
            "text": "He may be banned.",
            "policy": "ref",
            "note": "...",
            "axes": {"overall": 3, "accuracy": 5, "coverage": 4, "coherence": 2},
        },
        "worker": "qo6WIyEh27cwAjWpA3Q60J7NaDxzQJ",
        "batch": "cnndm1",
    },
]


_PANDALM_README = {
    "index": "749",
    "motivation_app": "CNN News",
    "task_id": "user_oriented_task_165",
    "cmp_key": "opt-7b_pythia-6.9b",
    "instruction": "Give the news title a category.",
    "input": "The #Banksy Exhibit in Cambridge, MA is absolutely terrific.",
    "reference_response": "Arts & Culture",
    "response1": "Politics",
    "response2": "Arts & Culture",
    "label_0": "2",
    "label_1": "2",
    "label_2": "0",
}


def _real(name: str) -> list[dict[str, Any]]:
    lines = (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


COMPARISON_RECORDS: dict[str, list[dict[str, Any]]] = {
    "ultrafeedback": _ULTRAFEEDBACK,
    "ultrafeedback_binarized": _ULTRAFEEDBACK_BINARIZED,
    "helpsteer": _HELPSTEER,
    "helpsteer_preference": _HELPSTEER_PREFERENCE,
    "shp": _SHP,
    "nectar": _NECTAR,
    "safe_rlhf": _SAFE_RLHF,
    "arena": _ARENA,
    "open_assistant": [*_real("open_assistant"), _TREE],
    "webgpt": _WEBGPT,
    "summarize": _SUMMARIZE,
    "summarize_axis": _SUMMARIZE_AXIS,
    "tulu_human_eval": _real("tulu_human_eval"),
    "pandalm": [*_real("pandalm"), _PANDALM_README],
    "llmbar": _real("llmbar"),
}


def rows_of(name: str) -> list[list[Row]]:
    """The rows of each record of a shape, read as a build reads them."""
    return [read(name, record) for record in COMPARISON_RECORDS[name]]


def read(name: str, record: dict[str, Any]) -> list[Row]:
    """The rows of one record; the shape must be the only one that claims it."""
    assert claiming_shapes(record) == [name]
    return read_rows(record, get_shape(name))


def refusal(name: str, record: dict[str, Any]) -> tuple[str, str]:
    """Code and sentence with which a shape refuses a record."""
    with pytest.raises(ShapeError) as error:
        read_rows(record, get_shape(name))
    return error.value.code, str(error.value)
