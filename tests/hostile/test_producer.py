"""A producer whose records are rubbish costs its own app a line in the invalid topic each, and other apps nothing."""

from __future__ import annotations

from tests.hostile.stage import Stage, scenarios

COUNT = 500
DEEP = b"[" * 100_000 + b"]" * 100_000
RECORDS: dict[str, bytes] = {
    "nothing": b"",
    "zeros": b"\0" * 1_000,
    "no JSON": b"{" * 50_000,
    "no UTF-8": b'{"to":"\xff\xfe"}',
    "nested deeply": b'{"to":"a","data":{"a":' + DEEP + b"}}",
    "nested deeply within a text": b'{"to":"a","data":{"a":"' + DEEP + b'"},"priority":1}',
    "a number of many digits": b'{"to":' + b"9" * 100_000 + b"}",
    "an exponent without measure": b'{"to":1e999999999}',
    "one field many times": b'{"to":"a"' + b',"data":{"a":"b"}' * 20_000 + b',"to":7}',
    "many fields": b'{"to":7' + b"".join(b',"f%d":0' % number for number in range(20_000)) + b"}",
    "half a surrogate": b'{"to":"a\\ud800"}',
    "no object": b'["to"]',
    "no target": b'{"data":{"id":"1"}}',
    "a target that breaks lines": b'{"to":"a\\r\\nb: c"}',
    "markup": b'{"to":7,"data":{"id":"<stream:stream>"}}',
    "a title of 300 KB": b'{"to":"a","notification":{"title":"' + b"t" * 300_000 + b'"}}',
}
#: What every run of the tests plays.
SHORT = ("nested deeply",)


@scenarios(RECORDS, SHORT)
def test_records_of(stage: Stage, name: str) -> None:
    assert stage.play(records=[RECORDS[name]] * COUNT, account=str(stage.directory / "good.json")) == []
