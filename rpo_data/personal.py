"""Personal data in texts: found and redacted by rules that would rather miss an odd number than call a price a phone.

A finding is a candidate of a pattern that also passes the rule of its kind:
    key     what a publisher's secret looks like (see `_KEYS`), unless it is a row of few letters (xxxx) or AWS's EXAMPLE
    email   RFC 5321 lengths, ASCII; not the names nobody has (RFC 2606: example.com, .test, ...), git@ or icon@2x.png
    ip      IPv4 and IPv6 that are routed (no private, loopback or documentation range: IANA's registries, RFC 6890); not
            part of a longer dotted number, not behind v, version, section and the like or a product (Name/1.2.3.4), and not
            four single digits, which are version numbers or public resolvers; IPv6 from 2000::/3 (RFC 4291)
    card    14 to 19 digits of a known issuer (ISO/IEC 7812-1), in one piece or grouped as on cards, with a right Luhn digit;
            so ISBNs and time stamps are none; a digit behind a point (a float) never begins one
    phone   + and 8 to 15 digits (ITU-T E.164); a North American number with brackets, hyphens or points, with a possible
            area and exchange code (NANPA; not 555-01xx, which is fiction's); any 7 to 15 digits behind a word such as
            "phone" that are no date or span of years. Digits alone, prices and order numbers are none
"""

import ipaddress
import re
from bisect import bisect
from collections.abc import Callable, Iterator
from typing import NamedTuple

import polars as pl

KINDS = {
    "key": "a secret key: AWS, GitHub, OpenAI and other sk-, Hugging Face, Slack, Stripe, Google, JWT, private key block",
    "email": "an e-mail address",
    "ip": "a public IPv4 or IPv6 address",
    "card": "a payment card number with a right check digit",
    "phone": "a telephone number",
}
"""Kinds in the order in which they are looked for: where two overlap, the first one has the text."""

_KEYS = [
    # docs.aws.amazon.com, IAM identifiers: unique ID prefixes; AKIAIOSFODNN7EXAMPLE is the one in AWS's own documents
    r"(?:AKIA|ASIA)[A-Z2-7]{9}(?!EXAMPLE)[A-Z2-7]{7}",
    # github.blog, changelog 2021-03-31: prefixes and alphabet; docs.github.com, "About authentication": fine-grained
    r"gh[pour]_[A-Za-z0-9]{36,251}",
    r"ghs_[A-Za-z0-9._-]{36,1000}(?<=[A-Za-z0-9])",
    r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}",
    # OpenAI and Anthropic publish the prefixes alone (sk-proj-, sk-ant-): so long, with digits and both cases
    r"sk-(?=[a-z0-9_-]*[A-Z])(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{40,300}",
    # huggingface.co/docs/hub/security-tokens
    r"hf_[A-Za-z0-9]{34,64}",
    # docs.slack.dev/authentication/tokens: bot, user, app-level, configuration and legacy tokens
    r"(?:xox[abeoprs]|xapp)(?:\.xox[bp])?-(?=[A-Za-z-]*[0-9])[A-Za-z0-9-]{20,250}",
    # docs.stripe.com/keys: secret and restricted keys in live mode
    r"[rs]k_live_[A-Za-z0-9]{24,250}",
    # docs.cloud.google.com/docs/authentication/api-keys
    r"AIza[A-Za-z0-9_-]{35}",
    # RFC 7519 (RFC 7515 section 3.1): header and payload are JSON objects, so both begin with eyJ
    r"eyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,8000}\.[A-Za-z0-9_-]{20,2000}",
]
_BLOCK = (  # RFC 7468 section 10 (PEM), RFC 9580 section 6.2 (OpenPGP); cut off ones end with their last line of base64
    r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----(?=[\s\S]{0,200}?[A-Za-z0-9+/]{32})"
    r"(?:[\s\S]{0,10000}?-----END (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"|(?:(?:\s|\\[nr]){1,9}[A-Za-z0-9+/=]{16,100}(?![A-Za-z0-9+/=]))*)"
)
_KEY = rf"(?<![A-Za-z0-9_-])(?:{'|'.join(_KEYS)})(?![A-Za-z0-9])|{_BLOCK}"
_EMAIL = (
    r"(?<![A-Za-z0-9._%+@-])[A-Za-z0-9_%+][A-Za-z0-9._%+-]{0,63}@"
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9_@-])"
)
_IP = (
    r"(?<![A-Za-z0-9_.-])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![A-Za-z0-9_]|[.-][0-9])"
    r"|(?<![A-Za-z0-9_.:])[23][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){0,6}(?:[0-9A-Fa-f]{1,4}|(?<=::))"
    r"(?![A-Za-z0-9_]|:[0-9A-Fa-f:])"
)
_CARD = (
    r"(?<![A-Za-z0-9_.,+$/-])(?<![0-9] )(?:[0-9]{4}([ -]?)[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{3})?"
    r"|3[47][0-9]{2}([ -]?)[0-9]{6}\2[0-9]{5}|3[0689][0-9]{2}([ -]?)[0-9]{6}\3[0-9]{4})"
    r"(?![A-Za-z0-9_]|[ .,/-][0-9])"
)
_MORE = r"(?:[ ./-]?| ?\(|\)[ -]?)[0-9]"
_NO_MORE = r"(?![A-Za-z0-9_%]|[ .,/-][0-9])"
_CUE = (
    r"(?<![A-Za-z\[])(?:(?:tele|cell)?phone|tel|mobile|cell|fax|whatsapp|sms|(?:call|text|reach|ring) (?:me|us)|电话|手机)"
    r"(?: ?(?:number|no|nr|num|号码|号))?(?: (?:is|at|on|to)|为|是)?[.:#：]{0,2} ?(?:\((?![0-9]{1,5}\)))?"
)
_PHONE = (
    rf"(?<![A-Za-z0-9_)+])(?<![0-9]\s)(?P<world>\+[1-9](?:{_MORE}){{7,14}}){_NO_MORE}"
    r"|(?<![A-Za-z0-9_.,+$/-])(?P<nanp>(?:1[-. ])?(?:\([2-9][0-8][0-9]\)[ -]?|[2-9][0-8][0-9][-.])[2-9][0-9]{2}[-.][0-9]{4})"
    rf"{_NO_MORE}"
    rf"|(?i:{_CUE})(?P<cued>\(?[0-9](?:{_MORE}){{6,14}}){_NO_MORE}"
)
_VERSION = re.compile(
    r"(?i)(?:\b(?:v|ver|version|release|build|firmware|section|chapter)[.: ]{0,2}|§ ?|[a-z]/)\Z", re.ASCII
)
_DATE = re.compile(
    r"(?:19|20)[0-9]{2}([-./ ])(?:[0-9]{1,2}\1[0-9]{1,2}|(?:19|20)[0-9]{2})|[0-9]{1,2}([-./ ])[0-9]{1,2}\2(?:19|20)[0-9]{2}"
)
_NOBODYS = re.compile(  # RFC 2606; the user of git remotes; and the names of pictures
    r"(?i)(?:\Agit@.*|[@.]example\.(?:com|net|org)|\.(?:example|test|invalid|localhost|png|jpe?g|gif|svg|webp))\Z"
)
_ISSUERS = re.compile(  # ISO/IEC 7812-1 numbers as the networks publish them; Visa's old 13 digits look like EAN bar codes
    r"4(?:[0-9]{15}|[0-9]{18})|(?:5[1-5]|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]+"
    r"|3[47][0-9]{13}|3(?:0[0-5]|[689][0-9])[0-9]{11}|35(?:2[89]|[3-8][0-9])[0-9]{12}|6(?:011|22[0-9]|4[4-9][0-9]|5[0-9]{2})[0-9]+"
)

_PATTERNS = {
    kind: re.compile(pattern, re.ASCII)
    for kind, pattern in {"key": _KEY, "email": _EMAIL, "ip": _IP, "card": _CARD, "phone": _PHONE}.items()
}

# What every finding must hold, without look-around, for Rust's regex: quick to rule nearly all texts out.
_HINTS = [
    r"@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2}",
    r"(?:AKIA|ASIA)[A-Z2-7]{16}|gh[pousr]_[A-Za-z0-9._-]{36}|github_pat_[A-Za-z0-9]{22}|sk-[A-Za-z0-9_-]{40}|hf_[A-Za-z0-9]{34}"
    r"|(?:xox[abeoprs]|xapp)[.-]|[rs]k_live_|AIza|eyJ[A-Za-z0-9_-]{10}|PRIVATE KEY",
    r"[0-9](?:[ ./()-]{0,2}[0-9]){6}|[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]|[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]",
]


class Finding(NamedTuple):
    """One piece of personal data: text[start:end] is of this kind of `KINDS`."""

    start: int
    end: int
    kind: str


def find_personal(texts: pl.Series) -> pl.DataFrame:
    """Count what personal data each text holds.

    Args:
        texts: strings; null counts as empty.

    Returns:
        One row a text, one uint32 column for each of `KINDS`.
    """
    frame = texts.alias("text").to_frame()
    hints = frame.lazy().select(pl.col("text").str.contains(hint).alias(hint) for hint in _HINTS).collect()
    maybe = hints.select(pl.any_horizontal(pl.all()).fill_null(False)).to_series()
    counts: dict[str, list[int]] = {kind: [0] * len(texts) for kind in KINDS}
    for row, text in zip(maybe.arg_true(), texts.filter(maybe), strict=True):
        for finding in findings(text):
            counts[finding.kind][row] += 1
    return pl.DataFrame(counts, schema=dict.fromkeys(KINDS, pl.UInt32))


def findings(text: str) -> list[Finding]:
    """The personal data of one text, in order of place, without overlaps."""
    found: list[Finding] = []
    for kind in KINDS:
        found = sorted(found + [item for item in _candidates(text, kind) if not _overlaps(item, found)])
    return found


def redact(text: str) -> str:
    """Put [EMAIL], [PHONE], [IP], [CARD] or [KEY] in the place of every finding, until there is none.

    >>> redact("Write to jo@acme.io or call +1 212-736-5000, not 555.")
    'Write to [EMAIL] or call [PHONE], not 555.'
    """
    while found := findings(text):  # what stood beside a finding can become one
        for start, end, kind in reversed(found):
            text = f"{text[:start]}[{kind.upper()}]{text[end:]}"
    return text


def _candidates(text: str, kind: str) -> Iterator[Finding]:
    for match in _PATTERNS[kind].finditer(text):
        if _RULES[kind](match):
            yield Finding(*match.span(match.lastgroup or 0), kind)


def _overlaps(item: Finding, found: list[Finding]) -> bool:
    """Whether the item shares a character with one of the others, which are sorted and do not overlap each other."""
    place = bisect(found, item)
    return any(item.start < other.end and other.start < item.end for other in found[max(place - 1, 0) : place + 1])


def _is_key(match: re.Match[str]) -> bool:
    return len(set(match.group())) > 10


def _is_email(match: re.Match[str]) -> bool:
    return not _NOBODYS.search(match.group())


def _is_ip(match: re.Match[str]) -> bool:
    number, start = match.group(), match.start()
    if "." in number and (len(number) == 7 or _VERSION.search(match.string[max(0, start - 12) : start])):
        return False
    try:
        return ipaddress.ip_address(number).is_global
    except ValueError:
        return False


def _is_card(match: re.Match[str]) -> bool:
    digits = re.sub("[ -]", "", match.group())
    return bool(_ISSUERS.fullmatch(digits)) and luhn(digits)


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B).

    >>> luhn("79927398713"), luhn("79927398710")
    (True, False)
    """
    doubled = (2 * int(digit) for digit in digits[-2::-2])
    return (sum(map(int, digits[::-2])) + sum(d - 9 if d > 9 else d for d in doubled)) % 10 == 0


def _is_phone(match: re.Match[str]) -> bool:
    if match["cued"]:
        return not _DATE.match(match["cued"])
    if match["world"]:
        return True
    digits = re.sub("[^0-9]", "", match["nanp"])[-10:]
    area, exchange, line = digits[:3], digits[3:6], digits[6:]
    return "11" not in (area[1:], exchange[1:]) and not (exchange == "555" and line.startswith("01"))


_RULES: dict[str, Callable[[re.Match[str]], bool]] = {
    "key": _is_key,
    "email": _is_email,
    "ip": _is_ip,
    "card": _is_card,
    "phone": _is_phone,
}
