"""Records of every shape, as its publisher documents them: by name of the shape. Their rows stand in tests/rpo_data/shapes."""


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


def human(text):
    return {"from": "human", "value": text}


def gpt(text):
    return {"from": "gpt", "value": text}


WEATHER_CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}

OPEN_WEBUI_CHAT = {
    "title": "Sums",
    "models": ["llama3"],
    "params": {"system": "Be short."},
    "history": {
        "currentId": "m4",
        "messages": {
            "m1": {"id": "m1", "parentId": None, "childrenIds": ["m2", "m3"], "role": "user", "content": "2+2?"},
            "m2": {
                "id": "m2",
                "parentId": "m1",
                "childrenIds": [],
                "role": "assistant",
                "content": "5",
                "model": "llama3",
            },
            "m3": {"id": "m3", "parentId": "m1", "childrenIds": ["m4"], "role": "assistant", "content": "4"},
            "m4": {"id": "m4", "parentId": "m3", "childrenIds": ["m5"], "role": "user", "content": "Sure?"},
            "m5": {"id": "m5", "parentId": "m4", "childrenIds": [], "role": "assistant", "content": "Yes."},
        },
    },
}


def open_webui(message, rating, chat=OPEN_WEBUI_CHAT):
    """A record of the feedback export of Open WebUI."""
    return {
        "id": "f1",
        "user_id": "u7",
        "version": 0,
        "type": "rating",
        "data": {"rating": rating, "model_id": "llama3", "reason": "", "comment": "", "tags": ["math"]},
        "meta": {"arena": False, "chat_id": "c1", "message_id": message, "message_index": 2},
        "snapshot": {"chat": {"id": "c1", "user_id": "u7", "title": "Sums", "chat": chat}},
        "created_at": 1732000000,
        "updated_at": 1732000000,
    }


RECORDS: dict[str, list[dict]] = {
    "hh": [
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant: See you",
            "rejected": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant: No\nAssistant: stay",
        },
    ],
    "preference": [
        {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
        {
            "prompt": [system("Be short."), user("2+2?")],
            "chosen": [assistant("4")],
            "rejected": [assistant("5")],
        },
        {
            "chosen": [system("Be short."), user("2+2?"), assistant("4")],
            "rejected": [system("Be short."), user("2+2?"), assistant("5")],
        },
    ],
    "unpaired": [
        {"prompt": "The sky is", "completion": " blue.", "label": True},
        {"prompt": [user("What color is the sky?")], "completion": [assistant("It is green.")], "label": False},
        {"prompt": "2+2?", "completion": "5", "label": "False", "system": "Be right."},
    ],
    "openai": [
        {
            "input": {
                "messages": [system("Be kind."), user("How cold is it?")],
                "tools": [],
                "parallel_tool_calls": True,
            },
            "preferred_output": [assistant("It is 10 degrees.")],
            "non_preferred_output": [assistant("Cold.")],
        },
        {
            "input": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Rome?"}]}]},
            "preferred_output": [
                {"role": "assistant", "content": None, "tool_calls": [WEATHER_CALL | {"id": "c1"}]},
                {"role": "tool", "tool_call_id": "c1", "content": "20"},
                assistant("20 degrees."),
            ],
            "non_preferred_output": [assistant("Warm, I guess.")],
        },
    ],
    "sharegpt": [
        {
            "conversations": [human("Hi"), gpt("Hello"), human("Bye")],
            "chosen": gpt("See you"),
            "rejected": gpt("Stay"),
            "system": "Be kind.",
            "tools": "[]",
        },
        {
            "conversations": [
                {"from": "system", "value": "Use tools."},
                human("Rome?"),
                {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Rome"}}'},
                {"from": "observation", "value": "20"},
            ],
            "chosen": gpt("20 degrees."),
            "rejected": {"from": "function_call", "value": '[{"name": "weather", "arguments": {"city": "Rome"}}]'},
            "system": "This one loses.",
        },
        {
            "messages": [system("Be short."), user("2+2?")],
            "chosen": assistant("4"),
            "rejected": assistant("5"),
        },
        {"conversations": [user("2+2?")], "chosen": "4", "rejected": [user("2+2?"), assistant("5")]},
    ],
    "alpaca": [
        {"instruction": "Add.", "input": "1, 2", "output": "3", "chosen": "It is 3.", "rejected": "It is 4."},
        {
            "instruction": "And now?",
            "input": "",
            "chosen": "6",
            "rejected": "7",
            "system": "Be short.",
            "history": [["1+2?", "3"], ["Twice?", "6"]],
        },
    ],
    "alpaca_ranking": [
        {"instruction": "Greet.", "input": "", "output": ["Good day!", "Hi.", "What?"], "history": []},
        {"instruction": "Name a colour.", "output": ["Blue.", "Cold."], "history": [["Hi", "Hello"]]},
    ],
    "axolotl": [
        {"system": "Be short.", "question": "2+2?", "chosen": "4", "rejected": "5"},
        {"question": "2+2?", "chosen": "4", "rejected": "5"},
        {"system": "", "input": "2+2?", "chosen": "4", "rejected": "Four", "status": "tie"},
        {"system": "Be short.", "prompt": "2+2?", "chosen": "4", "rejected": "5"},
    ],
    "kto": [
        {"instruction": "Add.", "input": "1, 2", "output": "3", "kto_tag": True},
        {
            "instruction": "Add.",
            "output": "4",
            "system": "Be right.",
            "history": [["Hi", "Hello"]],
            "kto_tag": False,
        },
        {"conversations": [human("Hi"), gpt("Hello"), human("Bye"), gpt("Stay")], "kto_tag": False},
        {"messages": [user("2+2?"), assistant("4")], "kto_tag": "true", "system": "Be right."},
    ],
    "swift": [
        {
            "messages": [system("Be kind."), user("Weather tomorrow?"), assistant("Sunny.")],
            "rejected_response": "I don't know",
        },
    ],
    "thumbs": [
        {"messages": [system("Be right."), user("2+2?"), assistant("5")], "label": False},
        {"messages": [user("2+2?"), assistant("4")], "liked": True, "rating": None},
        {"messages": [user("2+2?"), assistant("5")], "rating": "THUMBS_DOWN"},
        {"messages": [user("2+2?"), assistant("4")], "feedback": 1},
        {"messages": [user("2+2?"), assistant("4")], "rating": "thumbs_up", "feedback": "right at last"},
    ],
    "open_webui": [open_webui("m2", -1), open_webui("m5", "1")],
}
