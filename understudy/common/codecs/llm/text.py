"""What is told of a text without keeping it: script, language, shares, repetition, refusal."""

from __future__ import annotations

import re
import unicodedata
import zlib
from hashlib import blake2b

import orjson

SHOWN = 4000
"""Characters of a text that are looked at; counts of characters are of all."""
_SCRIPTS = {
    "cyrillic": re.compile("[\u0400-\u052f]"),
    "greek": re.compile("[\u0370-\u03ff\u1f00-\u1fff]"),
    "hebrew": re.compile("[\u0590-\u05ff]"),
    "arabic": re.compile("[\u0600-\u06ff\u0750-\u077f]"),
    "devanagari": re.compile("[\u0900-\u097f]"),
    "bengali": re.compile("[\u0980-\u09ff]"),
    "tamil": re.compile("[\u0b80-\u0bff]"),
    "thai": re.compile("[\u0e00-\u0e7f]"),
    "hangul": re.compile("[\u1100-\u11ff\uac00-\ud7af]"),
    "kana": re.compile("[\u3040-\u30ff]"),
    "han": re.compile("[\u3400-\u9fff]"),
}
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")
_DIGITS = re.compile("[0-9]")
_SYMBOLS = re.compile(r"[{}\[\]()<>=;/\\|_*+&%$#@^~`]")
_WORD = re.compile(r"[^\W\d_]+")
_OF_SCRIPT = {
    "kana": "ja", "hangul": "ko", "han": "zh", "hebrew": "he", "greek": "el", "thai": "th",
    "tamil": "ta", "bengali": "bn",
}  # fmt: skip
_COMMON = {
    "en": "the of and to in is that it for was on are with as be this have you what how",
    "de": "der die das und ist nicht ein eine zu den mit von auf für ich sie wie was im dem",
    "fr": "le la les des et est une un que dans pour pas qui sur du vous au je ce avec",
    "es": "el los las de que y en un una por con para es se no lo del como su qué",
    "it": "il di che e la un una per non con sono del si della le gli come da questo cosa",
    "pt": "o os de que e do da em um uma para com não se na por mais como dos você",
    "nl": "de het een en van is dat niet op te in voor met zijn ik je wat hoe naar aan",
}
_WORDS = {language: frozenset(words.split()) for language, words in _COMMON.items()}
_FEWEST = 2
"""Common words below which the language is not known."""
REFUSALS = 1
"""Version of the phrases by which a refusal is recognised."""
_REFUSAL = re.compile(
    r"\W*(?:i(?:'m| am) (?:very |really )?sorry,? (?:but )?(?:i |that i )?"
    r"(?:can(?:'t|not)|am unable|won't)"
    r"|i (?:can(?:'t|not)|am not able to|'m not able to|am unable to|won't) (?:help|assist|comply|"
    r"provide|fulfil|do that|answer|discuss|create|generate|engage)"
    r"|(?:sorry|apologies),? (?:but )?i (?:can(?:'t|not)|am unable)"
    r"|as an ai(?: language)? model,? i (?:can(?:'t|not)|am unable|do not|don't)"
    r"|es tut mir leid, (?:aber )?(?:ich kann|dabei kann)"
    r"|je suis désolé,? (?:mais )?je ne (?:peux|puis)"
    r"|lo siento,? (?:pero )?no puedo)",
    re.IGNORECASE,
)
_SPACE = re.compile(r"\s+")


def script(text: str) -> str:
    """The script of most letters: ``latin``, ``han`` …; ``none`` if there is none."""
    text = text[:SHOWN]
    if text.isascii():
        return "latin" if _LATIN.search(text) else "none"
    counts = {name: len(found.findall(text)) for name, found in _SCRIPTS.items()}
    counts["latin"] = len(_LATIN.findall(text))
    # Japanese is written with more Han characters than kana.
    if counts["kana"] * 4 > counts["han"] > 0:
        counts["kana"] += counts["han"]
    name = max(counts, key=lambda one: counts[one])
    if counts[name]:
        return name
    return "other" if any(char.isalpha() for char in text) else "none"


def language(text: str, of_script: str) -> str:
    """A guess at the language, by its script and its most common words; ``unknown`` if neither
    tells."""
    if of_script != "latin":
        return _OF_SCRIPT.get(of_script, "unknown")
    words = _WORD.findall(text[:SHOWN].lower())
    hits = {name: sum(map(common.__contains__, words)) for name, common in _WORDS.items()}
    best = max(hits, key=lambda one: hits[one])
    return best if hits[best] >= _FEWEST else "unknown"


def shares(text: str) -> tuple[float | None, float | None, float | None]:
    """Shares of digits, of the symbols of code, and of letters outside of the Latin script, among
    what is not space."""
    text = text[:SHOWN]
    solid = len(text) - sum(map(str.isspace, text))
    if not solid:
        return None, None, None
    digits, symbols = len(_DIGITS.findall(text)), len(_SYMBOLS.findall(text))
    foreign = 0
    if not text.isascii():
        foreign = sum(map(str.isalpha, text)) - len(_LATIN.findall(text))
    return digits / solid, symbols / solid, foreign / solid


def repetition(text: str) -> float | None:
    """1 − the ratio to which deflate compresses a text: near 1 for one that repeats itself. None
    for a short one."""
    data = text.encode("utf-8", "replace")
    if len(data) < 200:
        return None
    data = data[: 4 * SHOWN]
    return 1.0 - len(zlib.compress(data, 1)) / len(data)


def refuses(text: str) -> bool:
    """Whether an answer begins with one of the phrases of a refusal."""
    return _REFUSAL.match(text[:300].replace("’", "'")) is not None


def normal(text: str) -> str:
    """A text without what does not matter when two are compared: compatibility forms of characters,
    case, and the kind and amount of space (NFKC, casefold)."""
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def digest(text: str) -> str:
    """A short hash of a text; empty for an empty one."""
    if not text:
        return ""
    return blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()


def is_json(text: str) -> bool:
    """Whether a text is one JSON object or list, be it in a fence of Markdown."""
    text = text.strip()
    if text.startswith("```") and text.endswith("```"):
        text = text[3:-3].removeprefix("json").strip()
    if text[:1] not in ("{", "["):
        return False
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def canonical(arguments: str) -> str:
    """JSON with sorted keys and without spaces; other text as it is."""
    try:
        value = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return arguments
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
