"""The script that Redis runs for a batch of pushes: what it is asked, and what it answers.

Counters are ``<token>:<minute>``, marks of pushes a hash of token and content; a mark holds the id of the push that set
it, so that a push which is read again after a crash, or replayed, is not a duplicate of itself. Another program that
only checks whether a mark exists can share them.
"""

from __future__ import annotations

import enum
import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pusher.push.limits.rules import DeviceRules


class LuaScript:
    """A script in Lua, and the name by which Redis keeps it.

    ``each``: what it may answer for each item, one of these characters; b"" for none.
    """

    def __init__(self, text: str, each: bytes = b"") -> None:
        self.text, self.each = text, each
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def may_answer(self, answer: object, items: int) -> bool:
        """Whether that can be an answer about so many items."""
        if not isinstance(answer, bytes) or len(answer) != (items if self.each else 0):
            return False
        return not answer.translate(None, self.each)


#: About one push: its counter, its mark and its id; "" for what is not asked.
Asked = tuple[str, str, str]


class Finding(enum.IntFlag):
    """About one push."""

    NONE = 0
    DUPLICATE = 1
    LIMITED = 2
    #: The counter is no number.
    UNREADABLE = 4


#: The database of the counters and that of the marks, where both are on one server.
COUNTERS_DB, MARKS_DB = "0", "1"

#: ARGV: limit, memory in ms, drop (1 or 0), database of the counters, of the marks; then a JSON array of counter, mark
#: and id of each push, which costs less than an argument each. A digit for each push is the answer. The
#: keys are no KEYS, because they may be of two databases.
BATCH = LuaScript(
    """
local limit, memory, drop = tonumber(ARGV[1]), ARGV[2], ARGV[3] == '1'
local present = nil
local function use(db)
  if db ~= '' and db ~= present then redis.call('SELECT', db); present = db end
end
local answers = {}
for _, push in ipairs(cjson.decode(ARGV[6])) do
  local counter, mark, id = push[1], push[2], push[3]
  local duplicate, limited, unreadable = false, false, false
  if mark ~= '' then
    use(ARGV[5])
    local owner = redis.pcall('GET', mark)
    duplicate = type(owner) == 'string' and owner ~= id
  end
  local refused = drop and duplicate
  if counter ~= '' and not refused then
    use(ARGV[4])
    local text = redis.pcall('GET', counter)
    local sent = 0
    if text then sent = type(text) == 'string' and string.match(text, '^%d+$') and tonumber(text) end
    if not sent then
      unreadable = true
    elseif sent >= limit then
      limited = true
    else
      redis.call('INCR', counter)
      redis.call('EXPIRE', counter, 60)
    end
    refused = drop and limited
  end
  if mark ~= '' and not duplicate and not refused then
    use(ARGV[5])
    redis.call('SET', mark, id, 'PX', memory, 'NX')
  end
  answers[#answers + 1] = (duplicate and 1 or 0) + (limited and 2 or 0) + (unreadable and 4 or 0)
end
return table.concat(answers)
""",
    each=b"01234567",
)

#: ARGV: a JSON array of marks and ids. Takes back the marks that these pushes have set.
FORGET = LuaScript("""
for _, push in ipairs(cjson.decode(ARGV[1])) do
  if redis.call('GET', push[1]) == push[2] then redis.call('DEL', push[1]) end
end
return ''
""")


def head(rules: DeviceRules, counters_db: str, marks_db: str) -> tuple[str | int, ...]:
    """The arguments of ``BATCH`` before the pushes."""
    return rules.limit, rules.memory_ms, int(rules.drop), counters_db, marks_db
