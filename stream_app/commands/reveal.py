"""`faust -A stream_app reveal`: the way back from masked values, for the privacy officer, with a reason, on record.

Promise: nothing is opened before the line in ``reveal_audit`` is committed. The keyset is read before that, so that a missing one
leaves no line about values that nobody saw.
"""

import sys

import click

from pipeline.errors import FatalError
from pipeline.settings import load
from stream_app.commands.audit import check_reason
from stream_app.commands.command import Command, cli, json_option, say, show_json, wants_json
from stream_app.login_record import FIELDS
from stream_app.masking.masker import Masker
from stream_app.masking.methods import MaskingMethod
from stream_app.masking.policy import parse_methods
from stream_app.masking.tokens import TokenError
from stream_app.postgres.connection import PRIVACY_OFFICER, connect
from stream_app.postgres.queries import load_queries
from stream_app.settings import RevealSettings

TOKENS_MAX = 1_000
"""In one go; each call leaves one line, and a line that stands for a whole table would say nothing."""


WAYS_BACK = (MaskingMethod.AES_SIV, MaskingMethod.ROTATE)


@cli.command(cls=Command)
@click.option(
    "--field",
    type=click.Choice([field.name for field in FIELDS if field.masking is not None]),
    required=True,
    help="The tokens' field.",
)
@click.option("--reason", required=True, help="Why; kept in reveal_audit with your name, the time and the number of tokens.")
@click.argument("tokens", nargs=-1, metavar="[TOKEN]...")
@json_option
@click.pass_context
def reveal(ctx: click.Context, *, field: str, reason: str, tokens: tuple[str, ...]) -> None:
    """Open masked values, for a reason.

    One line for each TOKEN, as it stands in a masked column. Without a TOKEN they are read from standard input, one a line. Needs
    the role stream_privacy_officer, and the masking keyset. What a terminal might obey in a value is shown as an escape;
    --json has each value exactly.
    """
    reason = check_reason(reason)
    tokens = tokens or _from_standard_input()
    if not 0 < len(tokens) <= TOKENS_MAX:
        raise click.UsageError(f"expected 1 to {TOKENS_MAX} tokens")
    settings = load(RevealSettings)
    policy = parse_methods(settings.masking_methods)
    if policy.methods[field] not in WAYS_BACK:
        raise FatalError(f"{field} is masked by {policy.methods[field]} (MASKING_METHODS): there is no way back")
    masker = Masker.load(policy, keyset_file=settings.masking_keyset_file, hmac_keyset_file=settings.masking_hmac_keyset_file)
    with connect(settings, role=PRIVACY_OFFICER, application_name="stream_app reveal") as connection, connection.cursor() as cursor:
        statement = load_queries("commands.sql", settings.postgres_schema)["add_reveal_audit"]
        cursor.execute(statement, {"reason": reason, "field": field, "tokens": len(tokens)})
    # The connection is in autocommit: the line stands.
    if not _show(masker, field, tokens):
        ctx.exit(1)


def _from_standard_input() -> tuple[str, ...]:
    if sys.stdin.isatty():
        raise click.UsageError("no token given")
    return tuple(token for line in sys.stdin if (token := line.strip()))


def _show(masker: Masker, field: str, tokens: tuple[str, ...]) -> bool:
    """Print each value; of a token that doesn't open its place and why. Whether all opened."""
    values: list[str | None] = []
    for place, token in enumerate(tokens, 1):
        try:
            values.append(masker.reveal(field, token))
        except TokenError as error:
            values.append(None)
            say(f"token {place} of {len(tokens)}: {error}", to_stderr=True)
        if not wants_json() and values[-1] is not None:
            say(values[-1])
    if wants_json():
        show_json(values)
    return None not in values
