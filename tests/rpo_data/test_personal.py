from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpo_data.personal import KINDS, find_personal, findings, luhn, redact

# Made up here, in the publishers' forms; spelled in pieces so that no scanner takes this file for a leak.
LETTERS = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF" * 4
KEYS = [
    "AKIA" + "Z2Q7BY3XK5MW4TPL",
    "ASIA" + "Q3ZB6YK2XW7MT5LP",
    "ghp_" + LETTERS[:36],
    "gho_" + LETTERS[:36],
    "ghs_" + LETTERS[:30] + "." + LETTERS[:20] + "-x_" + LETTERS[:9],
    "github_pat_" + LETTERS[:22] + "_" + LETTERS[:59],
    "sk-" + LETTERS[:48],
    "sk-proj-" + LETTERS[:64] + "_" + LETTERS[:20],
    "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH",
    "xoxb-" + "240937512068-5102938475610-" + LETTERS[:24],
    "xapp-" + "1-A0B1C2D3E4F-5102938475610-" + LETTERS[:40],
    "sk_live_" + LETTERS[:24],
    "AIza" + LETTERS[:35],
    "eyJ" + "hbGciOiJIUzI1NiJ9.eyJ" + "zdWIiOiIxMjM0NTY3ODkwIn0." + LETTERS[:43],
    "-----BEGIN RSA PRIVATE " + f"KEY-----\n{LETTERS[:64]}\n{LETTERS[:64]}\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN OPENSSH PRIVATE " + f"KEY-----\n{LETTERS[:64]}\n{LETTERS[:64]}",  # cut off
]
FOUND = {
    "key": KEYS,
    "email": ["jo.doe+news@mail.acme.co.uk", "x@acme.io", "a_b@x-y.museum", "%9@acme.dev"],
    "ip": ["52.95.110.1", "185.199.108.153", "2a00:1450:4001:81b::200e", "2606:2800:220:1:248:1893:25c8:1946"],
    "card": [
        "4111111111111111",
        "4111 1111 1111 1111",
        "5500-0000-0000-0004",
        "2223003122003222",
        "378282246310005",
        "3782 822463 10005",
        "3056 930902 5904",
        "6011 1111 1111 1117",
        "3530111333300000",
    ],
    "phone": [
        "+49 30 901820",
        "+1 (212) 736-5000",
        "+8613812345678",
        "(212) 736-5000",
        "212-736-5000",
        "1.212.736.5000",
    ],
}
NOTHING = [
    "It was released as version 1.2.3.4, then v10.11.12.13, after 1.2.3 and 4.5.6.7.8.",
    "See section 52.95.110.1 and Firmware/52.95.110.1, not 300.1.1.1 or 052.095.110.001.",
    "Ping 192.168.0.1, 10.1.2.30, 127.0.0.1, 203.0.113.77, 8.8.8.8 or 2001:db8::10.",
    "ISBN 978-3-16-148410-0 and 9783161484100, ISSN 2049-3630, EAN 4006381333931.",
    "On 2023-10-11, 11.10.2023 or 10/11/2023 at 10:30:00, from 1990-1999, in 2001 2002 2003.",
    "Unix time 1700000000 and 1700000000000, order 123456789012, ticket #55512345678.",
    "It costs $4,111,111.11 or 4,111,111 EUR; 0.4111111111111111 and 4111.1111111111111 are floats.",
    "A wrong card: 4111 1111 1111 1112; an unknown issuer: 9111 1111 1111 1117; too long: 41111111111111111111.",
    "UUID 123e4567-e89b-12d3-a456-426614174000, hash 5f4dcc3b5aa765d61d8327deb882cf99.",
    "Write to you@example.com, a@b.test or root@localhost; icon@2x.png; clone git@github.com:a/b; @handle and foo@ bar.com.",
    "A fictional number: (212) 555-0123 or 212-555-0199; emergency 911-555-1234; codes 123-456-7890 and 212-911-5000.",
    "472547338\n+960397912423686\nand f(x)+123456789",
    "My phone is from 2019-10-11 and the mobile is 1999-2003 vintage; telephone 12345.",
    "Use sk-learn, AKIAIOSFODNN7EXAMPLE, ghp_" + "x" * 36 + ", hf_" + "a" * 34 + " or xoxb-your-slack-token-goes-here.",
    "A PEM file starts with -----BEGIN PRIVATE KEY----- and ends with -----END PRIVATE KEY-----.",
    "AKIA is a prefix, eyJ begins JSON, std::string and a::b are C++.",
]


@pytest.mark.parametrize(
    ("kind", "number"), [(kind, number) for kind, examples in FOUND.items() for number in range(len(examples))]
)
def test_each_form_is_found_whole(kind, number):
    example = FOUND[kind][number]
    for left, right in (("", ""), ("Here: ", "."), ("“", "” and more"), ("(", ")"), ("请看", "，谢谢")):
        assert redact(left + example + right) == f"{left}[{kind.upper()}]{right}"


@pytest.mark.parametrize("number", range(len(NOTHING)))
def test_what_only_looks_like_it_stays(number):
    assert findings(NOTHING[number]) == []
    assert redact(NOTHING[number]) == NOTHING[number]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("My phone number is 020 7946 0958.", "My phone number is [PHONE]."),
        ("Tel.: 030/1234567, Fax: (030) 1234568", "Tel.: [PHONE], Fax: [PHONE]"),
        ("the cell phone (555-3476) and fax (555-2428)", "the cell phone ([PHONE]) and fax ([PHONE])"),
        ("Call me at 5551234 tonight", "Call me at [PHONE] tonight"),
        ("我的电话是13812345678。手机：138 1234 5678", "我的电话是[PHONE]。手机：[PHONE]"),
        ("hotel 5551234", "hotel 5551234"),
    ],
)
def test_digits_are_a_phone_behind_a_word_that_says_so(text, expected):
    assert redact(text) == expected


def test_the_first_kind_has_the_text():
    assert [f.kind for f in findings("ghs_" + LETTERS[:36] + ".jo@acme.io")] == ["key"]
    assert redact("phone 4111 1111 1111 1111") == "phone [CARD]"


def test_counts_by_text_and_kind():
    texts = [
        "x@acme.io, y@acme.io, +49 30 901820",
        None,
        "",
        "nothing",
        f"{KEYS[0]} at 52.95.110.1 pays 4111111111111111",
    ]
    assert find_personal(pl.Series(texts)).to_dict(as_series=False) == {
        "key": [0, 0, 0, 0, 1],
        "email": [2, 0, 0, 0, 0],
        "ip": [0, 0, 0, 0, 1],
        "card": [0, 0, 0, 0, 1],
        "phone": [1, 0, 0, 0, 0],
    }
    assert find_personal(pl.Series([], dtype=pl.String)).shape == (0, len(KINDS))


def test_check_digit():
    assert [luhn("7992739871" + digit) for digit in "0123456789"] == [False, False, False] + [True] + [False] * 6


def test_real_dialogues(sample_rows):
    texts = pl.Series([row[side] for row in sample_rows for side in ("chosen", "rejected")])
    counts = find_personal(texts)
    assert counts.rows() == [tuple(sum(f.kind == kind for f in findings(t)) for kind in KINDS) for t in texts]
    assert counts["email"].sum() + counts["phone"].sum() > 0
    assert counts["card"].sum() == counts["key"].sum() == 0


EXAMPLES = [example for examples in FOUND.values() for example in examples]
PIECES = st.one_of(
    st.sampled_from(
        [*EXAMPLES, *NOTHING, "phone ", "call me at ", "电话", "v", "version ", "@", "+1", "(", ")", "]", "["]
    ),
    st.from_regex(r"[0-9]{1,5}[ ./()@:+-]{0,2}", fullmatch=True),
    st.text(max_size=8),
)
TEXTS = st.lists(PIECES, max_size=10).map("".join)


@given(TEXTS)
def test_nothing_is_left_after_redaction(text):
    text = text.encode("utf-8", "ignore").decode()
    once = redact(text)
    assert redact(once) == once
    assert find_personal(pl.Series([once])).row(0) == (0, 0, 0, 0, 0)


@given(TEXTS)
def test_quick_hints_miss_no_finding(text):
    text = text.encode("utf-8", "ignore").decode()
    found = findings(text)
    assert find_personal(pl.Series([text])).row(0) == tuple(sum(f.kind == kind for f in found) for kind in KINDS)
    assert all(left.end <= right.start for left, right in pairwise(found))
    assert (redact(text) == text) == (not found)
