"""Environment variables that were meant to be settings of ours and are none.

A setting that is misspelt is worse than one that is missing: ``MASKING_METHOD=ip=redact`` would go on masking as before, and
``POSTGRES_SSL_MODE=verify-full`` would send the password to whoever answers. So a start looks at every variable there is:

- one that is nearly a setting's name stops it, whatever it begins with;
- one that begins as only our settings do (:data:`OWN_PREFIXES`) and is none stops it, too;
- all others are somebody else's and let alone: of a database's or Kafka's image, of Kubernetes, of a shell.

The settings of all our processes count as known (:mod:`pipeline.setting_names`): one ``.env`` may serve them all. An empty variable
is no setting, right or wrong, so a foreign one that can't be renamed may be emptied for our processes.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import or_

from pipeline.printable import printable

OWN_PREFIXES = (
    "BRIDGE_",
    "BUFFER_",
    "CREATE_DATE_",
    "DEAD_LETTER_",
    "FLUSH_",
    "FRESHNESS_",
    "MASKING_",
    "MASK_",
    "MONITOR_",
    "POSTGRES_SSL",
    "POSTGRES_TLS",
    "SENT_AT_",
    "WINDOW_",
)
"""No image, tool or shell that we know of has variables with these. KAFKA_, POSTGRES_, LOG_, WEB_, SQS_ and others are shared."""

FOREIGN = frozenset(
    {
        "F_WEB_BIND",  # Faust's
        "F_WEB_PORT",
        "LOGLEVEL",  # of many programs; LOG_LEVEL is ours
        "MONITOR_EXIT_CODE",  # systemd's, for a unit that another one's success or failure starts
        "MONITOR_EXIT_STATUS",
        "MONITOR_INVOCATION_ID",
        "MONITOR_SERVICE_RESULT",
        "MONITOR_UNIT",
        "POSTGRESQL_PASSWORD_FILE",  # Bitnami's image
        "POSTGRES_PASSWORD",  # the official image, which also has POSTGRES_PASSWORD_FILE, as we do
        "WINDOW_MANAGER",  # a desktop's
    }
)
"""Well-known variables of others that are nearly settings of ours."""

_SERVICE_LINK = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$")
"""What Kubernetes gives each container about each service of its namespace; a service may well be called kafka, web or bridge."""

_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://\S+")

_KINDS = frozenset(
    {
        *("BYTES", "COUNT", "DAYS", "FILE", "HOURS", "ID", "LIST", "MAX", "MILLISECONDS", "MINUTES", "MS"),
        *("NAME", "NUM", "NUMBER", "PATH", "SEC", "SECONDS", "SECS", "URI", "URL", "VALUE"),
    }
)
"""Words at a name's end that say in what form, not of what."""

_LONG_NAME_LETTERS = 14
"""From here on two wrong letters are still a slip; in a shorter name they make another word (WEB_HOST, WEB_PORT)."""

_SHOWN_CHARACTERS_MAX = 100


def is_service_address(name: str, value: str) -> bool:
    """Whether this is ``NAME_PORT=tcp://10.0.0.1:80``, Kubernetes' address of a service, and no port of ours (WEB_PORT)."""
    return name.endswith("_PORT") and _SERVICE_ADDRESS.fullmatch(value) is not None


def misspelt(environment: Mapping[str, str], known: Iterable[str]) -> list[str]:
    """One line for each variable that was meant to be a setting: its name and the right one, never its value."""
    settings = {name: _Name(name) for name in sorted(known)}
    problems: list[str] = []
    for name in sorted(environment):
        value = environment[name]
        if name in settings or name.upper() in FOREIGN or not value:
            continue
        if _SERVICE_LINK.search(name) or is_service_address(name, value):
            continue
        if meant := _meant(_Name(name.upper()), settings):
            problems.append(f"{_shown(name)}: no such setting, {meant} is the name: set that instead")
        elif prefix := next((prefix for prefix in OWN_PREFIXES if name.upper().startswith(prefix)), None):
            problems.append(
                f"{_shown(name)}: no such setting{_like(name, settings)}, and what begins with {prefix} is nobody else's: "
                "unset it, docs/reference/settings.md has all"
            )
    return problems


@dataclass(frozen=True)
class _Name:
    text: str

    @cached_property
    def words(self) -> list[str]:
        return [word for word in re.split(r"[^A-Z0-9]+", self.text) if word]

    @cached_property
    def letters(self) -> str:
        return "".join(self.words)

    @cached_property
    def letters_used(self) -> int:
        return reduce(or_, (1 << ord(letter) - ord("0") for letter in self.letters), 0)

    @cached_property
    def subject(self) -> str:
        """Its letters without the words that only say in what form; empty where that leaves one word."""
        words = list(self.words)
        while words and words[-1] in _KINDS:
            words.pop()
        return "".join(words) if len(words) > 1 else ""


def _meant(name: _Name, settings: Mapping[str, _Name]) -> str | None:
    """The setting whose name this nearly is, the nearest one."""
    nearest: tuple[int, str] | None = None
    for text, setting in settings.items():
        limit = 2 if len(setting.letters) >= _LONG_NAME_LETTERS else 1
        if name.letters == setting.letters:
            return text  # but for underscores, or upper and lower case
        if (distance := _distance(name, setting, limit)) is None and (
            sorted(name.words) == sorted(setting.words) or (name.subject and name.subject == setting.subject)
        ):
            distance = limit  # the same words in another order, or in another form: KAFKA_TOPIC_NAME, SQS_QUEUE
        if distance is not None and (nearest is None or distance < nearest[0]):
            nearest = distance, text
    return None if nearest is None else nearest[1]


def _distance(name: _Name, setting: _Name, limit: int) -> int | None:
    """Letters dropped, added, changed, or swapped with their neighbour (optimal string alignment); None beyond the limit."""
    first, second = name.letters, setting.letters
    if abs(len(first) - len(second)) > limit:
        return None
    other_letters = (name.letters_used & ~setting.letters_used, setting.letters_used & ~name.letters_used)
    if any(letters.bit_count() > limit for letters in other_letters):
        return None  # cheap, and true of nearly all: of thousands of variables few are compared letter by letter
    before: list[int] = []
    row = list(range(len(second) + 1))
    for place, letter in enumerate(first, 1):
        before, above, row = row, before, [place]
        for other_place, other in enumerate(second, 1):
            cost = min(before[other_place] + 1, row[-1] + 1, before[other_place - 1] + (letter != other))
            if place > 1 and other_place > 1 and letter == second[other_place - 2] and first[place - 2] == other:
                cost = min(cost, above[other_place - 2] + 1)
            row.append(cost)
        if min(row) > limit:
            return None
    return row[-1] if row[-1] <= limit else None


def _like(name: str, settings: Mapping[str, _Name]) -> str:
    """The settings that are least unlike, as a hint."""
    likely = difflib.get_close_matches(name.upper(), settings, n=2, cutoff=0.75)
    return f" (there is {' and '.join(likely)})" if likely else ""


def _shown(name: str) -> str:
    """A variable's name may hold anything but ``=`` and NUL, and be of any length."""
    return printable(name)[:_SHOWN_CHARACTERS_MAX]
