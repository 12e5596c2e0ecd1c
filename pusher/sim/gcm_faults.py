"""Scripted faults of the GCM simulator: which messages get a faulty answer, and which fault.

    [prefix=TEXT:] action [argument ...] [:rate] [,option ...]

`prefix=` selects device tokens that begin with TEXT. The rate is the share of the selected messages that are hit
(0.05), or 1/N for exactly every Nth of them; without a rate all are hit. If several faults hit a message, the first one
is played. The order `command` applies the same actions to all connections at once, without waiting for a message.

Actions
    ack [REGISTRATION_ID]        the right answer, with a canonical registration id
    nack ERROR                   DEVICE_UNREGISTERED, BAD_REGISTRATION, SERVICE_UNAVAILABLE, ... or any other word
    silence                      no answer
    twice                        the right answer, twice
    wrong-id                     an answer to a message that was never sent, then the right one
    garbage                      a message that is not JSON, then the right answer
    receipt                      the right answer, and a delivery receipt
    upstream                     the right answer, and a message from the device
    stanza-error [CONDITION]     an error stanza instead of an answer (bad-request)
    drain                        the right answer, and CONNECTION_DRAINING; later messages on the connection are refused
                                 with a nack of this name; with ms=N the connection is closed after N ms
    cut                          the TCP connection is reset, the answer is not sent
    end                          the server ends the stream in order, the answer is not sent
    freeze SECONDS               the connection neither reads nor writes for SECONDS, then continues
    broken-xml                   something that is not XML
    stream-error [CONDITION]     a stream error (policy-violation), and the end of the stream

Options
    once         at most once for each message id, so that a retry succeeds
    times=N      at most N times in all
    delay=MS     the answer or the fault comes MS later
    delivered    the message counts as delivered although the fault hides it (silence, cut, end)
    ms=N         see drain
"""

from pusher.sim.faults import Fault, FaultSyntaxError

#: Fewest and most words after each action.
ACTIONS = {
    "ack": (0, 1),
    "nack": (1, 1),
    "silence": (0, 0),
    "twice": (0, 0),
    "wrong-id": (0, 0),
    "garbage": (0, 0),
    "receipt": (0, 0),
    "upstream": (0, 0),
    "stanza-error": (0, 1),
    "drain": (0, 0),
    "cut": (0, 0),
    "end": (0, 0),
    "freeze": (1, 1),
    "broken-xml": (0, 0),
    "stream-error": (0, 1),
}
#: Those after which the message has no answer.
UNANSWERED = frozenset({"silence", "cut", "end", "broken-xml", "stream-error"})


def parse(text: str) -> Fault:
    """Reads one line. Raises FaultSyntaxError."""
    line, prefix = text.strip(), ""
    if line.startswith("prefix="):
        prefix, _, line = line.removeprefix("prefix=").partition(":")
    head, *options = (part.strip() for part in line.split(","))
    words, _, rate = head.partition(":")
    action, *arguments = words.split() or [""]
    fewest, most = ACTIONS.get(action, (1, 0))
    if not fewest <= len(arguments) <= most:
        raise FaultSyntaxError(f"{text!r}: no such action, or wrong arguments")
    try:
        share, every = (1.0, int(rate[2:])) if rate.startswith("1/") else (float(rate or 1), 0)
        given = dict(option.partition("=")[::2] for option in options)
        fault = Fault(
            text,
            action,
            tuple(arguments),
            prefix,
            share,
            every,
            once=given.pop("once", None) is not None,
            times=int(given.pop("times", 0)),
            delay_s=float(given.pop("delay", 0)) / 1000,
            delivered=given.pop("delivered", None) is not None,
            step_s=float(given.pop("ms")) / 1000 if "ms" in given else None,
        )
        if action == "freeze":
            float(arguments[0])
    except ValueError as error:
        raise FaultSyntaxError(f"{text!r}: {error}") from None
    if given:
        raise FaultSyntaxError(f"{text!r}: no such option: {', '.join(given)}")
    return fault
