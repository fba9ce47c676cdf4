-- Why Postgres refused a row, beside its dead letter: the code and names of the schema, never a value. Null in those that are older, and
-- where another reason is given. Nothing is computed for rows that are there.
ALTER TABLE :"schema".dead_letters ADD COLUMN IF NOT EXISTS refusal text;
ALTER TABLE :"schema".dead_letters
    ADD CONSTRAINT dead_letters_refusal_printable CHECK (refusal !~ '[\x01-\x1f\x7f-\x9f]') NOT VALID;

COMMENT ON COLUMN :"schema".dead_letters.refusal
    IS 'of a row that Postgres refused: SQLSTATE, table, column, constraint, trigger, as far as Postgres named them';
