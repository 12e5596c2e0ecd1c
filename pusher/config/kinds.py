"""The kinds of values that settings have: how a text becomes a value, and how it is shown.

Files, variables and flags all give text; the kind turns that text into the value, so that a wrong value reads the same
wherever it was written. Kinds know nothing of where a text came from and raise only ``ValueError``, whose words end the
sentence "... is not".

A sequence in a file reaches the kind as one text in which every item ends with ``ITEM_END``; so an item that contains
commas or spaces stays whole.
"""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Generic, TypeVar

T = TypeVar("T")

#: Stands for what is kept secret.
MASK = "********"
_PATH_CHARACTERS = re.compile(r"[\w./~@+ -]{1,255}")
_PATH_ENDS = re.compile(r"\.(p8|p12|pfx|pem|key|crt|cer|der|json|txt)", re.IGNORECASE)

#: ASCII's record separator: no file, variable or shell contains it by accident.
ITEM_END = "\x1e"
#: Stands for a sequence in a file of which an item is no text: no kind takes it.
NO_TEXT = "\0"


def is_path(text: str) -> bool:
    """Whether a text is plainly a path, and therefore no secret."""
    if not _PATH_CHARACTERS.fullmatch(text):
        return False
    ending = _PATH_ENDS.search(text)
    return (ending is not None and ending.end() == len(text)) or (
        text.startswith(("/", "./", "../", "~/")) and len(text) < 100
    )


def masked(text: str) -> str:
    """A text without the users and passwords of its URLs, and without keys and certificates, as PEM or its base64."""
    text = re.sub(r"-----BEGIN.*|LS0tLS1CRUdJTi.*", MASK, text, flags=re.DOTALL)
    return re.sub(r"[^\s,]*@", f"{MASK}@", text)


class ValueKind(ABC, Generic[T]):
    """How a text becomes a value. ``expects`` completes "expects ..."; ``unit`` is that of a bare number."""

    expects = ""
    unit = ""
    secret = False
    #: A mapping in the file is taken as its JSON.
    takes_mapping = False

    @property
    def label(self) -> str:
        """The kind in a word or two, for tables."""
        return self.expects + (f" ({self.unit})" if self.unit else "")

    def parse(self, text: str) -> T:
        """The value of a text. Raises ValueError, which says what is expected."""
        try:
            text.encode()  # a variable's odd octets, and what YAML's escapes can make, are not text
            if NO_TEXT in text:
                raise ValueError
            return self._value(text)
        except (ValueError, KeyError):
            raise ValueError(self.expects) from None

    def show(self, value: T) -> str:
        """The value as a user would write it."""
        return self._shown(value)

    @abstractmethod
    def _value(self, text: str) -> T:
        """Raises ValueError or KeyError when the text is not of this kind."""

    def _shown(self, value: T) -> str:
        return str(value)


class Text(ValueKind[str]):
    """Text of one line, its outer white space cut off; ``empty=False``: at least one character."""

    def __init__(self, *, empty: bool = True) -> None:
        self.empty = empty
        self.expects = "text of one line" if empty else "text that is not empty"

    @property
    def label(self) -> str:
        """The kind in a word or two, for tables."""
        return "text" if self.empty else self.expects

    def _value(self, text: str) -> str:
        text = text.strip()
        if ITEM_END in text or not (text or self.empty) or not text.isprintable():
            raise ValueError
        return text


class Word(Text):
    """Printable ASCII without blanks, for headers, tokens and names; "" = none."""

    label = "a word"

    def __init__(self) -> None:
        super().__init__()
        self.expects = "a word of printable ASCII characters without blanks, 255 at most"

    def _value(self, text: str) -> str:
        text = super()._value(text)
        if not re.fullmatch(r"[!-~]{0,255}", text):
            raise ValueError
        return text


class Secret(Text):
    """Text that is never shown; a line end behind it is cut off."""

    secret = True
    label = "text, kept secret"

    def __init__(self, *, empty: bool = True) -> None:
        super().__init__(empty=empty)
        self.expects = "text, kept secret"

    def show(self, value: str) -> str:
        """Hides it."""
        return MASK if value else ""

    def _value(self, text: str) -> str:
        text = text.strip("\r\n")
        if ITEM_END in text or not text.isprintable():
            raise ValueError
        return text


class Path(Text):
    """A path, relative to the working directory; "" = none."""

    label = "a path"

    def __init__(self) -> None:
        super().__init__()
        self.expects = "a path"


class CredentialsText(Secret):
    """A key, certificate or account: the path of its file, its text, or the base64 of the file.

    A mapping in the file is taken as its JSON. Only what is plainly a path is shown.
    """

    takes_mapping = True
    label = "a path, or the text itself (kept secret)"

    def show(self, value: str) -> str:
        """The path, or nothing of it."""
        return value if is_path(value) else super().show(value)

    def _value(self, text: str) -> str:
        if ITEM_END in text:
            raise ValueError
        return text.strip()


class Unused(ValueKind[str]):
    """A value that nothing reads; whatever it is, it is accepted."""

    expects = "anything"

    def parse(self, text: str) -> str:
        """The text. Raises nothing."""
        return self._value(text)

    def _value(self, text: str) -> str:
        return text.replace(ITEM_END, " ").strip()


class Bool(ValueKind[bool]):
    """Yes or no."""

    expects = "true or false"
    _VALUES = dict.fromkeys(("1", "t", "true", "yes", "on"), True) | dict.fromkeys(
        ("0", "f", "false", "no", "off"), False
    )

    def _value(self, text: str) -> bool:
        return self._VALUES[text.strip().lower()]

    def _shown(self, value: bool) -> str:
        return "true" if value else "false"


class _Range(ValueKind[T]):
    """Numbers between two bounds, both allowed."""

    what = ""

    def __init__(self, minimum: float | None = None, maximum: float | None = None, unit: str = "") -> None:
        self.minimum, self.maximum, self.unit = minimum, maximum, unit
        self.expects = self.what + _bounds(minimum, maximum)

    def within(self, value: float) -> bool:
        return (self.minimum is None or value >= self.minimum) and (self.maximum is None or value <= self.maximum)


def _bounds(minimum: float | None, maximum: float | None) -> str:
    if minimum is None:
        return "" if maximum is None else f", at most {maximum:g}"
    return f", at least {minimum:g}" if maximum is None else f" from {minimum:g} to {maximum:g}"


class Int(_Range[int]):
    """A whole number, exactly as written."""

    what = "a whole number"

    def _value(self, text: str) -> int:
        if not re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", text) or not self.within(int(text)):
            raise ValueError
        return int(text)


class Number(_Range[float]):
    """A number with or without decimals."""

    what = "a number"

    def _value(self, text: str) -> float:
        if not re.fullmatch(r"\s*[+-]?([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*", text) or not self.within(float(text)):
            raise ValueError
        return float(text)

    def _shown(self, value: float) -> str:
        return f"{value:g}"


#: Seconds in each unit of a duration, the longest first.
SECONDS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 0.000_001}


class Duration(ValueKind[float]):
    """A time such as ``1m30s`` or ``250ms``; a bare number counts in the key's unit. The value is in seconds."""

    _PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(d|h|ms|us|µs|m|s)")

    def __init__(self, unit: str, minimum_s: float = 0.0, maximum_s: float = math.inf) -> None:
        self.unit, self.minimum_s, self.maximum_s = unit, minimum_s, maximum_s
        least = f", at least {minimum_s:g} s" if minimum_s else ""
        most = "" if maximum_s == math.inf else f", at most {maximum_s:g} s"
        self.expects = f"a time such as 1m30s or 250ms, or a number of {unit}{least}{most}"

    @property
    def label(self) -> str:
        """The kind in a word or two, for tables."""
        return f"a time ({self.unit})"

    def _value(self, text: str) -> float:
        seconds = self._seconds(text.strip())
        if not self.minimum_s <= seconds <= self.maximum_s:
            raise ValueError
        return seconds

    def _seconds(self, text: str) -> float:
        if re.fullmatch(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+", text):
            return float(text) * SECONDS[self.unit]
        if not re.fullmatch(f"({self._PART.pattern})+", text):
            raise ValueError
        return sum(float(number) * SECONDS[unit.replace("µ", "u")] for number, unit in self._PART.findall(text))

    def _shown(self, value: float) -> str:
        return f"{round(value / SECONDS[self.unit], 6):.12g}"


class Choice(ValueKind[str]):
    """One of a few words, without regard to case; ``also`` maps further spellings to them."""

    def __init__(self, *words: str, also: Mapping[str, str] | None = None) -> None:
        self.words = words
        self._values = {word.lower(): word for word in words} | dict(also or {})
        self.expects = "one of " + ", ".join(words)

    def _value(self, text: str) -> str:
        return self._values[text.strip().lower()]


class List(ValueKind[tuple[str, ...]]):
    """Texts: a sequence in the file, or one text split at commas and white space; ``{1,3}`` and ``[ ,]`` stay whole."""

    _ITEM = re.compile(r"(?:\{[^{}]*\}|\[[^\[\]]*\]|[^\s,])+")

    def __init__(self, *words: str) -> None:
        self.words = words
        self.expects = "a list of " + (", ".join(words) if words else "texts")

    def _value(self, text: str) -> tuple[str, ...]:
        items = text.split(ITEM_END)[:-1] if ITEM_END in text else self._ITEM.findall(text)
        if any(not item.strip() or (self.words and item not in self.words) for item in items):
            raise ValueError
        return tuple(dict.fromkeys(items))

    def _shown(self, value: tuple[str, ...]) -> str:
        return ", ".join(value)


def json_text(value: object) -> str:
    """A mapping of the file as the text that its kind expects."""
    return json.dumps(value, ensure_ascii=False)
