"""What an XMPP server may say without end, each in a dress of its own."""

from __future__ import annotations


def stanza(payload: str) -> str:
    """A message with this content, whose characters are those of XML already."""
    return f"<message><gcm xmlns='google:mobile:data'>{payload}</gcm></message>"


#: By what they consist of: each is said again and again, or is longer than a server may send.
FLOODS = {
    "answers to nothing": stanza('{"message_type":"ack","from":"t","message_id":"nobody"}'),
    "errors of nothing": stanza('{"message_type":"nack","error":"INVALID_JSON","from":"t","message_id":"nobody"}'),
    "answers with a long token": stanza('{"message_type":"ack","message_id":"nobody","from":"' + "t" * 20_000 + '"}'),
    "receipts": stanza('{"message_type":"receipt","from":"gcm.googleapis.com","message_id":"nobody","data":{}}'),
    "messages of devices": stanza('{"from":"device","message_id":"nobody","category":"game","data":{"x":"y"}}'),
    "control": stanza('{"message_type":"control","control_type":"UNKNOWN"}'),
    "no JSON": stanza("nonsense"),
    "no payload": "<message/>",
    "elements": f"<message>{'<a/>' * 900}</message>",
    "too many elements": f"<message>{'<a/>' * 20_000}</message>",
    "attributes": f"<message a='{'x' * 500_000}'/>",
    "an attribute without end": "<message a='" + "x" * 5_000_000,
    "a text without end": "<message>" + "x" * 5_000_000,
    "a start tag without end": "<message " + "".join(f"a{number}='' " for number in range(400_000)),
    "comments": "<!--" + "x" * 1_000 + "-->",
    "white space": " " * 10_000,
    "presences": "<presence from='a'/>",
    "requests": "<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>",
    "results": "<iq type='result' id='1'/>",
    "unknown stanzas": "<other xmlns='urn:other'/>",
    "stanza errors": "<message type='error' id='nobody'><error type='cancel'/></message>",
}
