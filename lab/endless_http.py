"""Answers of a server of HTTP/1.1 that never come to an end, all parts of an answer in turn."""

from __future__ import annotations

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

#: Octets to be sent again and again without a pause.
ENDLESS = {
    "100 Continue": b"HTTP/1.1 100 Continue\r\n\r\n" * 500,
    "102 with fields": b"HTTP/1.1 102 Processing\r\nA: b\r\n\r\n" * 500,
    "one field": OK + b"A: " + b"a" * 9_000,
    "fields": OK + b"A: b\r\n" * 1_000,
    "empty lines": b"\r\n" * 4_000,
    "a status line": b"HTTP/1.1 200 " + b"O" * 9_000,
    "a body": OK + b"\r\n" + b"a" * 9_000,
    "a body of octets": CHUNKED + b"1\r\na\r\n" * 2_000,
    "a chunk head": CHUNKED + b"1" + b";a=b" * 2_000,
    "a chunk size": CHUNKED + b"0" * 9_000,
    "trailers": CHUNKED + b"0\r\n" + b"A: b\r\n" * 1_000,
    "redirects": b"HTTP/1.1 302 Found\r\nLocation: /token\r\n\r\n" * 500,
    "zeros": b"\0" * 9_000,
}

#: What comes first, and what comes after it, a little at a time.
DRIPPED = {
    "nothing": (b"", b""),
    "the status line": (b"", b"H"),
    "a field": (OK + b"A: ", b"a"),
    "a body": (OK + b"\r\n", b"a"),
    "a declared body": (OK + b"Content-Length: 1000\r\n\r\n", b"a"),
    "chunks": (CHUNKED, b"1\r\na\r\n"),
    "trailers": (CHUNKED + b"0\r\n", b"a: b\r\n"),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}
