"""The only code that reaches into Faust: whole fetches as events, and positions from Postgres."""
